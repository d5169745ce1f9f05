"""The networks of groups 9, 10 and 11: a table of families, of optimizers, and their sweeps.

A family is one row of `FAMILIES`: how to build it at a width, its data, its loss, its batch, and
for every tier that can afford it a plan. Everything else, parametrization included, is derived or
inferred from two widths.

    MLP       digits, 512 of them: a loss that is not yet fitted after the steps that a tier allows
    CNN       the Myrtle network of networks/images.py; width is the number of channels
    ResNet    two residual blocks without normalisation, likewise
    CBOW      an embedding and a readout on the text that ships with Python; width is its dimension

Convolutions and embeddings are trained one network at a time (stacked.py has MLPs alone), so their
plans are narrower and shorter. A convolution has a sample at every position: 1024 in a batch of the
first layer, more than the widths of these plans, where the exponents of curvature are not yet those
of the limit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.nn import functional

from derivations.catalogue import find
from empirical.claims.environment import Environment, Tier
from empirical.data import text
from empirical.data.sources import images
from empirical.measure.machine import blas_threads
from empirical.networks import CBOW, CNN, MLP, ResNet
from empirical.transfer.sweep import (
    Family,
    Sweep,
    SweptAxis,
    SweptParametrization,
    losses_of,
    train,
)
from empirical.transfer.transfer_measures import Losses

SAMPLES = 512
BATCH = 32
IMAGES, IMAGE_BATCH = 256, 16
VOCABULARY, WINDOWS, WINDOW_BATCH = 300, 1024, 64


def half_square(output: Tensor, targets: Tensor) -> Tensor:
    """The mean over samples of |f - y|^2 / 2."""
    return 0.5 * (output - targets).square().sum(dim=-1).mean()


def cross_entropy(output: Tensor, targets: Tensor) -> Tensor:
    """The cross-entropy of the softmax; targets are one-hot."""
    found: Tensor = functional.cross_entropy(output, targets)
    return found


RATES: Mapping[str, tuple[int, int]] = {"kfac": (-6, 2), "foof": (-3, 5), "shampoo": (-5, 3)}
"""log2 of the learning rates that are swept, first and last, by optimizer."""


@dataclass(frozen=True)
class Plan:
    """How a family is trained in a tier: widths, rates per doubling, seeds, steps, optimizers."""

    widths: tuple[int, ...]
    per_doubling: int
    seeds: int
    steps: int
    rules: tuple[str, ...] = tuple(RATES)


@dataclass(frozen=True)
class FamilyRow:
    """A family: its name, how it is made from a context, its plans, its rates if not the usual."""

    name: str
    make: Callable[[Environment], Family]
    plans: Mapping[Tier, Plan | None]
    """A tier that is missing does not run it; None stands for the tier's own sizes."""
    rates: Mapping[str, tuple[int, int]] = field(default_factory=lambda: RATES)
    dampings: bool = True
    """Whether group 10 sweeps its dampings too."""

    def plan(self, context: Environment) -> Plan:
        """The plan of the context's tier."""
        sizes = context.sizes
        usual = Plan(sizes.train, sizes.rates, sizes.seeds, sizes.steps)
        return self.plans[context.tier] or usual


def _mlp(loss: Callable[[Tensor, Tensor], Tensor], name: str) -> Callable[[Environment], Family]:
    def build(width: int) -> nn.Module:
        return MLP(64, width, 10, 3, "relu")

    def make(context: Environment) -> Family:
        data = context.data(SAMPLES, 4)
        return Family(name, build, data.inputs, data.targets, loss, BATCH)

    return make


def _images(build: Callable[[int], nn.Module], name: str) -> Callable[[Environment], Family]:
    def make(context: Environment) -> Family:
        data = images("digits", samples=IMAGES, probe=4, seed=context.seed)
        return Family(name, build, data.inputs, data.targets, half_square, IMAGE_BATCH)

    return make


def _cbow(context: Environment) -> Family:
    words = text.load("pydoc", vocabulary=VOCABULARY, samples=WINDOWS, probe=4, seed=context.seed)

    def build(width: int) -> nn.Module:
        return CBOW(width, VOCABULARY)

    return Family("cbow", build, words.inputs, words.targets, cross_entropy, WINDOW_BATCH)


_PAPER = (64, 128, 256, 512)
FAMILIES = (
    FamilyRow("MLP, squared loss", _mlp(half_square, "mlp mse"), dict.fromkeys(Tier)),
    FamilyRow(
        "MLP, cross-entropy",
        _mlp(cross_entropy, "mlp cross-entropy"),
        dict.fromkeys((Tier.desk, Tier.paper)),
    ),
    FamilyRow(
        "CBOW",
        _cbow,
        {
            Tier.desk: Plan((64, 128, 256), 1, 5, 24),
            Tier.paper: Plan((128, 256, 512, 1024, 2048), 2, 8, 400),
        },
        {"kfac": (-4, 4), "foof": (-2, 6), "shampoo": (-2, 6)},
        dampings=False,
    ),
    FamilyRow(
        "CNN",
        _images(CNN, "cnn"),
        {Tier.desk: Plan((8, 16, 32), 1, 3, 24, ("kfac",)), Tier.paper: Plan(_PAPER, 2, 8, 400)},
        {"kfac": (-10, -2), "foof": (-7, 1), "shampoo": (-7, 1)},
        dampings=False,
    ),
    FamilyRow(
        "ResNet",
        _images(ResNet, "resnet"),
        {Tier.desk: Plan((8, 16, 32), 1, 3, 24, ("kfac",)), Tier.paper: Plan(_PAPER, 2, 8, 400)},
        {"kfac": (-9, -1), "foof": (-5, 3), "shampoo": (-6, 2)},
        dampings=False,
    ),
)

DAMPINGS = (-14, 2)
"""log2 of the dampings, in units of the largest eigenvalues at the base width."""
BEST_RATE = {"kfac": -2.0}
"""log2 of the learning rate where the damping is swept."""


def families(context: Environment, rule: str, axis: SweptAxis = SweptAxis.rate) -> list[FamilyRow]:
    """The families that a tier trains with an optimizer; for dampings, `FamilyRow.dampings`."""
    rows = [row for row in FAMILIES if context.tier in row.plans]
    if axis is SweptAxis.damping:
        rows = [row for row in rows if row.dampings]
    return [row for row in rows if rule in row.plan(context).rules]


def swept(
    context: Environment,
    row: FamilyRow,
    rule: str,
    parametrization: SweptParametrization,
    axis: SweptAxis = SweptAxis.rate,
) -> Losses:
    """The losses of a family under a rule, from the store as far as they are there."""
    plan, declared = row.plan(context), find(rule)
    first, last = row.rates[rule] if axis is SweptAxis.rate else DAMPINGS
    per_doubling = plan.per_doubling if axis is SweptAxis.rate else 0.5 * plan.per_doubling
    values = np.linspace(first, last, round((last - first) * per_doubling) + 1)
    sweep = Sweep(
        row.make(context),
        declared,
        parametrization,
        plan.widths,
        tuple(map(float, values)),
        plan.seeds,
        plan.steps,
        axis,
        log2_rate=BEST_RATE.get(rule, -2.0),
        device=context.device,
    )
    what = f"{row.name}, {rule}, {parametrization}, {axis}"

    def measure(width: int, seed: int) -> Mapping[str, Any]:
        return train(sweep, width, seed)

    with blas_threads(context.threads):
        configuration = sweep.configuration()
        records = context.cells(configuration, sweep.widths, sweep.seeds, measure, what)
    return losses_of(sweep, records)
