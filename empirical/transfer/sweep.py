"""Training a family of networks at widths x rates x seeds, every run kept.

    W_l of width M starts at std_l (M/base)^(-b_l), and has the rate lr (M/base)^(-c_l) and the
    dampings rho (M/base)^(-d_l)

Two parametrizations that coincide at the base width, so that what differs is the scaling alone:

    mup   b, c, d derived from the rule (`for_model`)
    sp    the standard one: b of `scaling.solve.presets`, neither rates nor dampings scale (c = d =
          0)

A family is anything that `build(width) -> nn.Module` makes and the rule's optimizer can train, with
its data and loss; weights are drawn here, N(0, 1/fan_in) at the base width, biases start at zero.
The seed names the weights and the order of the batches; that order is the same at every width and
rate. The loss is that of the training set before the first and after the last step, NaN where it is
not finite.

All values of one width and seed are trained side by side where stacked.py covers the network and
the rule, one after the other by `RuleOptimizer` where it does not: the same numbers, within
rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from derivations.declaration import Optimizer
from empirical.measure.parametrize import LayerScales
from empirical.measure.training import damped_sums, dampings_in, size_of
from empirical.networks import MLP
from empirical.networks.stacked import Stack, covers
from empirical.numbers.layer_values import LayerValue
from empirical.transfer.transfer_measures import Losses
from empirical.your_model.initialise import initialise_
from empirical.your_model.model_scales import ModelScales, ReadModel, read_of, scales_at
from empirical.your_model.rule_optimizer import RuleOptimizer
from scaling.rules.tree import Node
from scaling.sizes.errors import InvalidInput
from scaling.solve.presets import PARAMETRIZATIONS

STACK_BYTES = 2**32
"""The memory that weights of networks that are trained side by side may fill."""

LossFunction = Callable[[Tensor, Tensor], Tensor]


class SweptParametrization(StrEnum):
    """How numbers follow the width."""

    mup = "mup"
    sp = "sp"


class SweptAxis(StrEnum):
    """The hyper-parameter of a sweep."""

    rate = "rate"
    damping = "damping"


@dataclass(frozen=True)
class Family:
    """Networks that differ in width alone, what they are trained on and by which loss.

    ``inputs`` and ``targets`` have one sample in a row; ``batch`` of them make a step.
    """

    name: str
    build: Callable[[int], nn.Module]
    inputs: Tensor
    targets: Tensor
    loss: LossFunction
    batch: int


@dataclass(frozen=True)
class Sweep:
    """One curve of losses against rates (or dampings) per width and seed.

    Args:
        family: the networks and their data.
        optimizer: the rule and practice's values of its symbols.
        parametrization: mup or sp.
        widths: the narrowest is the base.
        values: log2 of what is swept.
        axis: the learning rate, or one factor for all dampings.
        seeds: how many.
        steps: of training.
        log2_rate: log2 of the learning rate where the damping is swept.
        log2_damping: log2 of every damping at the base, relative to what it is added to.
    """

    family: Family
    optimizer: Optimizer
    parametrization: SweptParametrization
    widths: tuple[int, ...]
    values: tuple[float, ...]
    seeds: int
    steps: int
    axis: SweptAxis = SweptAxis.rate
    log2_rate: float = -2.0
    log2_damping: float = -3.0
    device: str = "cpu"
    dtype: torch.dtype = field(default=torch.float32)

    def configuration(self) -> dict[str, object]:
        """All that decides the losses of a width and a seed."""
        data = [float(self.family.inputs.double().sum()), float(self.family.targets.sum())]
        return {
            "family": [self.family.name, self.family.batch, len(self.family.inputs), *data],
            "rule": str(self.optimizer.rule),
            "symbols": {k: str(v) for k, v in self.optimizer.exponents.items()},
            "numbers": dict(self.optimizer.values),
            "parametrization": str(self.parametrization),
            "base": self.widths[0],
            "values": list(self.values),
            "axis": str(self.axis),
            "fixed": [self.log2_rate, self.log2_damping],
            "steps": self.steps,
            "dtype": str(self.dtype),
        }

    @cached_property
    def read(self) -> ReadModel:
        """The network, read once for all widths and seeds; under SP, for its roles alone."""
        derived = self.parametrization is SweptParametrization.mup
        family, some = self.family, slice(0, self.family.batch)
        return read_of(
            self.optimizer.rule if derived else "G", family.build, base=self.widths[0],
            exponents=self.optimizer.exponents if derived else None,
            batch=(family.inputs[some], family.targets[some]), loss=family.loss,
        )  # fmt: skip

    @cached_property
    def units(self) -> dict[str, dict[str, float]]:
        """`calibrated`, once for all widths and seeds."""
        return calibrated(self)


def factors(sweep: Sweep, width: int) -> ModelScales:
    """Factors of every tensor at a width, relative to the base width: std, lr, dampings."""
    base, rule = sweep.widths[0], sweep.optimizer.rule
    scales = scales_at(sweep.read, base, width)
    if sweep.parametrization is SweptParametrization.mup:
        return scales
    standard, found = PARAMETRIZATIONS["standard"], {}
    for name, role in scales.roles.items():
        _, b = standard.get(role, (0, 0))  # the bias of the output grows on no side
        std = (width / base) ** -float(b)
        found[name] = LayerScales(std, 1.0, dict.fromkeys(rule.dampings, 1.0))
    return replace(scales, tensors=found)


def initialised(sweep: Sweep, scales: ModelScales, width: int, seed: int) -> nn.Module:
    """The network of a width and seed at the start; ``scales`` are the `factors` of that width."""
    model = sweep.family.build(width).to(device=sweep.device, dtype=sweep.dtype)
    initialise_(model, sweep.family.build(sweep.widths[0]), scales, seed, width)
    return model


def calibrated(sweep: Sweep) -> dict[str, dict[str, float]]:
    """Damping -> layer -> its number per log2_damping = 0 at the base width: what it is added to.

    Where a damping is added to nothing of its own (it stands in a product), the unit is one.
    """
    rule, width = sweep.optimizer.rule, sweep.widths[0]
    sums = damped_sums(rule)
    units: dict[str, dict[str, float]] = {k: {} for k in rule.dampings}
    if not units:
        return units
    sizes: dict[tuple[str, Node], float] = {}

    def record(layer: str, node: Node, value: LayerValue) -> None:
        sizes[layer, node] = size_of(node, value)

    scales = factors(sweep, width)
    given = _setting(sweep, scales, {}, sweep.values[0])
    run = _Run(sweep, scales, width, 0, given, record)
    run.step(run.batches[0])
    for total, (term, damping) in sums.items():
        for k in dampings_in(total):
            for layer in run.layers:
                per_unit = sizes.get((layer, damping), 0.0) / given[k][layer]
                whole = sizes.get((layer, term), 0.0)
                units[k][layer] = whole / per_unit if min(whole, per_unit) > 0 else 1.0
    return units


def train(sweep: Sweep, width: int, seed: int) -> dict[str, list[float]]:
    """Losses of one width and seed at every value: before training (one number) and after it."""
    units, scales = sweep.units, factors(sweep, width)
    settings = [_setting(sweep, scales, units, value) for value in sweep.values]
    first = _Run(sweep, scales, width, seed, settings[0])
    if covers(first.model, sweep.optimizer.rule):
        return _side_by_side(sweep, first, settings)
    runs = [_Run(sweep, scales, width, seed, setting) for setting in settings]
    return {"start": [first.total()], "losses": [run.trained() for run in runs]}


TrainingSetting: TypeAlias = Mapping[str, Mapping[str, float]]
"""Symbol of the rule, or "lr" -> layer -> number."""


def _setting(
    sweep: Sweep,
    scales: Mapping[str, LayerScales],
    units: Mapping[str, Mapping[str, float]],
    value: float,
) -> TrainingSetting:
    """The numbers of one run."""
    swept, declared = sweep.axis is SweptAxis.damping, sweep.optimizer
    log2_rate, log2_damping = (sweep.log2_rate, value) if swept else (value, sweep.log2_damping)
    by_layer = {_layer(name): x for name, x in scales.items()}
    numbers = {**declared.values, **{k: float(e) for k, e in declared.exponents.items()}}
    found = {k: dict.fromkeys(by_layer, x) for k, x in numbers.items()}
    for k in declared.rule.dampings:
        unit = units.get(k, {})
        found[k] = {
            n: 2.0**log2_damping * unit.get(n, 1.0) * x.dampings[k] for n, x in by_layer.items()
        }
    found["lr"] = {n: 2.0**log2_rate * x.lr for n, x in by_layer.items()}
    return found


def _side_by_side(
    sweep: Sweep, first: _Run, settings: Sequence[TrainingSetting]
) -> dict[str, list[float]]:
    """All values of one width and seed as one stack of networks, or several for want of memory."""
    model = first.model
    assert isinstance(model, MLP), "`covers` lets nothing else pass"
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    together = max(1, STACK_BYTES // size)
    losses: list[float] = []
    for start in range(0, len(settings), together):
        some = settings[start : start + together]
        tables: dict[str, dict[str, Tensor]] = {
            k: {
                layer: torch.tensor([x[k][layer] for x in some], dtype=torch.float64).to(
                    sweep.device
                )
                for layer in some[0][k]
            }
            for k in some[0]
        }
        lr = tables.pop("lr")
        stack = Stack([model] * len(some), sweep.optimizer.rule, lr, tables, sweep.family.loss)
        for batch in first.batches:
            stack.step(first.x[batch], first.y[batch])
        losses += stack.losses(first.x, first.y).tolist()
    return {"start": [first.total()], "losses": losses}


class _Run:
    """One network under its rule; ``dampings`` are in units of ``units`` (1 where those lack)."""

    def __init__(
        self,
        sweep: Sweep,
        factors: ModelScales,
        width: int,
        seed: int,
        setting: TrainingSetting,
        record: Callable[[str, Node, LayerValue], None] | None = None,
    ) -> None:
        family, declared = sweep.family, sweep.optimizer
        self.loss, self.model = family.loss, initialised(sweep, factors, width, seed)
        self.x, self.y = (_moved(t, sweep) for t in (family.inputs, family.targets))
        values = dict(setting)
        rates = values.pop("lr")
        self.layers = tuple(rates)
        self.optimizer = RuleOptimizer(self.model, declared.rule, rates, values, record=record)
        order = torch.Generator().manual_seed(seed)
        self.batches = _batches(len(self.x), family.batch, sweep.steps, order)

    def total(self) -> float:
        """The loss of the training set."""
        with torch.no_grad():
            return float(self.loss(self.model(self.x), self.y))

    def step(self, batch: Tensor) -> bool:
        """One step; whether everything stayed finite."""

        def closure() -> float:
            self.optimizer.zero_grad()
            loss = self.loss(self.model(self.x[batch]), self.y[batch])
            if not bool(torch.isfinite(loss)):
                raise InvalidInput(f"a loss of {loss.item()}", "a finite one", "train at less")
            loss.backward()  # type: ignore[no-untyped-call]
            return float(loss.detach())

        try:
            self.optimizer.step(closure)
        except InvalidInput:  # so are cotangents and inputs that are not finite
            return False
        return True

    def trained(self) -> float:
        """The loss after training, NaN if the run diverged."""
        if not all(self.step(batch) for batch in self.batches):
            return math.nan
        loss = self.total()
        return loss if math.isfinite(loss) else math.nan


def losses_of(sweep: Sweep, records: Sequence[Sequence[Mapping[str, list[float]]]]) -> Losses:
    """The table of losses from what `train` gave, by width, then seed."""
    table = np.array([[record["losses"] for record in row] for row in records], dtype=np.float64)
    start = np.array([[record["start"][0] for record in row] for row in records])
    return Losses(sweep.widths, sweep.values, table, start)


def _layer(tensor: str) -> str:
    """The optimizer's name for the layer of a tensor."""
    return tensor.removesuffix(".weight")


def _moved(x: Tensor, sweep: Sweep) -> Tensor:
    return x.to(sweep.device, sweep.dtype if x.is_floating_point() else None)


def _batches(count: int, size: int, steps: int, generator: torch.Generator) -> list[Tensor]:
    """Epochs in random order, cut into batches; what is left over of an epoch is dropped."""
    found: list[Tensor] = []
    while len(found) < steps:
        epoch = torch.split(torch.randperm(count, generator=generator), size)
        found += [batch for batch in epoch if len(batch) == size]
    return found[:steps]
