"""What groups 9, 10 and 11 train: a table of families, of optimizers, and their sweeps.

Adding a family (a CNN, a residual network, a CBOW embedding) is one row of `FAMILIES`: how to build
it at a width, its data, its loss, its batch. Everything else, parametrization included, is derived
or inferred from two widths.

The data are scikit-learn's digits, 512 of them: enough for a loss that is not yet fitted after the
few steps that a tier allows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.nn import functional

from derivations.catalogue import find
from empirical.claims.context import Context, Tier
from empirical.measure import blas_threads
from empirical.networks import MLP
from empirical.sweep import Axis, Family, Parametrization, Sweep, losses_of, train
from empirical.transfer import Losses

SAMPLES = 512
BATCH = 32


def half_square(output: Tensor, targets: Tensor) -> Tensor:
    """The mean over samples of |f - y|^2 / 2."""
    return 0.5 * (output - targets).square().sum(dim=-1).mean()


def cross_entropy(output: Tensor, targets: Tensor) -> Tensor:
    """The cross-entropy of the softmax; targets are one-hot."""
    found: Tensor = functional.cross_entropy(output, targets)
    return found


@dataclass(frozen=True)
class Row:
    """A family: its name, how it is made from a context, and from which tier on it is run."""

    name: str
    make: Callable[[Context], Family]
    tier: Tier


def _mlp(loss: Callable[[Tensor, Tensor], Tensor], name: str) -> Callable[[Context], Family]:
    def build(width: int) -> nn.Module:
        return MLP(64, width, 10, 3, "relu")

    def make(context: Context) -> Family:
        data = context.data(SAMPLES, 4)
        return Family(name, build, data.inputs, data.targets, loss, BATCH)

    return make


FAMILIES = (
    Row("MLP, squared loss", _mlp(half_square, "mlp mse"), Tier.ci),
    Row("MLP, cross-entropy", _mlp(cross_entropy, "mlp cross-entropy"), Tier.desk),
)

RATES: Mapping[str, tuple[int, int]] = {"kfac": (-6, 2), "foof": (-3, 5), "shampoo": (-5, 3)}
"""log2 of the learning rates that are swept, first and last, by optimizer."""
DAMPINGS = (-14, 2)
"""log2 of the dampings, in units of the largest eigenvalues at the base width."""
BEST_RATE = {"kfac": -2.0}
"""log2 of the learning rate where the damping is swept."""


def families(context: Context) -> list[Row]:
    """The families of a tier."""
    order = list(Tier)
    return [row for row in FAMILIES if order.index(row.tier) <= order.index(context.tier)]


def swept(
    context: Context, row: Row, rule: str, parametrization: Parametrization, axis: Axis = Axis.rate
) -> Losses:
    """The losses of a family under a rule, from the store as far as they are there."""
    sizes, declared = context.sizes, find(rule)
    first, last = RATES[rule] if axis is Axis.rate else DAMPINGS
    per_doubling = sizes.rates if axis is Axis.rate else 0.5 * sizes.rates
    values = np.linspace(first, last, round((last - first) * per_doubling) + 1)
    sweep = Sweep(
        row.make(context),
        declared,
        parametrization,
        sizes.train,
        tuple(map(float, values)),
        sizes.seeds,
        sizes.steps,
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
