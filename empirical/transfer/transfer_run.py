"""One run of a transfer: a model of one size, one rate, one seed, trained for some steps.

    seed      names the weights, and the samples of every step
    standard  weights as the code draws them; one rate; other numbers as at the base
    plan      weights drawn by the plan; every number of a tensor times the factor of its size

Who trains: ``optimizer(model)`` of the model's file where it has one (user_optimizer.py), else the
recipe itself (`RuleOptimizer`).

What is drawn: with ``batch(seed=0)``, step t of seed s trains on samples that no other step sees,
the same at every size, rate and way, and the loss is the mean over `HELD_OUT` batches that no step
trains on. With ``batch()`` every step trains on the one batch there is, and the loss is its own.
Both are taken in training mode, before the first and after the last step.

A run *diverges* when a loss is not finite or above a multiple of the one before training, when a
gradient is not finite, or the rule cannot be evaluated. It ends there, and is kept with the step
and the reason.

The same cell gives the same numbers in whatever process of one device it runs: one thread, and a
stream of random numbers of its own. Weights and samples are drawn on the CPU, the same for every
device, and moved.
"""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from empirical.measure.machine import blas_threads, pick_device
from empirical.plans.plan import ModelPlan
from empirical.trace.model_file import SEED
from empirical.trace.wrapped_names import tensors_of
from empirical.transfer.model_source import ModelSource
from empirical.transfer.transfer_grid import TransferCell, TransferWay
from empirical.transfer.user_optimizer import at_one_rate, at_planned_numbers
from empirical.your_model.rule_optimizer import RuleOptimizer, is_read_by_modules
from scaling.models.recipe import RATE, Recipe
from scaling.rules.rule import Rule
from scaling.sizes.errors import InvalidInput

HELD_OUT = 8
"""Batches of seeds 0 to 7: what the loss is taken on."""
WRITE = (
    "write your own into the file: def optimizer(model): return "
    "torch.optim.Adam(model.parameters(), lr=0.01), or a list of several"
)
STRIDE = 2**20
"""Seeds of batches that one seed may draw: steps of different seeds share none."""


@dataclass(frozen=True)
class TransferTraining:
    """All that decides a run but its cell.

    Args:
        source: of the model, with the sizes of the base for defaults.
        recipe: what trains what, with the constants of practice.
        axis: what grows.
        factors: by size, the plan whose numbers at the base are all one.
        numbers: by group of the recipe, every number of its rule at the base; a rate is a share of
            the largest.
        steps: of training.
        diverged: a loss above so many times the one before training ends a run.
        wrapped: whether the plan's factors of the code are changed, by hooks.
        device: where tensors live: "cpu" or "cuda".
        given: numbers of the user's optimizer at the base, by key of its groups; others stay.
    """

    source: ModelSource
    recipe: Recipe
    axis: str
    factors: Mapping[int, ModelPlan]
    numbers: Mapping[str, Mapping[str, float]]
    steps: int
    diverged: float
    wrapped: bool = False
    device: str = "cpu"
    given: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainedCell:
    """The outcome of a run.

    ``loss``: after training, NaN of a run that diverged. ``diverged``: the reason, or empty.
    ``at_step``: the step at which it ended. ``curve``: the loss that each step trained on.
    """

    start: float
    loss: float
    diverged: str
    at_step: int
    seconds: float
    curve: tuple[float, ...] = field(default=(), compare=False)


class Diverged(Exception):
    """A run that cannot go on; the text says why."""


def trained_cell(training: TransferTraining, cell: TransferCell) -> TrainedCell:
    """Train one cell.

    Raises:
        InvalidInput: for a model whose loss before training is not a positive number, or that the
            optimizer cannot train; for a device that is not there.
    """
    began = time.perf_counter()
    with undisturbed(training.device):
        run = CellTraining(training, cell)
        start = run.loss_before(training.axis, "best rates are")
        curve: list[float] = []
        try:
            for step in range(training.steps):
                curve.append(run.step(step, training.diverged * start))
            loss = run.loss()
            if not loss <= training.diverged * start:
                raise Diverged(too_large(loss, training.diverged * start))
        except Diverged as why:
            return TrainedCell(
                start, math.nan, str(why), len(curve), time.perf_counter() - began, tuple(curve)
            )
        if loss < 0:
            raise InvalidInput(
                f"a loss of {loss:g} after training, at {cell}",
                "a loss that is never negative",
                "return a loss such as cross_entropy or mse_loss",
            )
    seconds = time.perf_counter() - began
    return TrainedCell(start, loss, "", training.steps, seconds, tuple(curve))


@contextmanager
def undisturbed(device: str) -> Iterator[None]:
    """One thread, and a stream of random numbers of its own.

    Raises:
        InvalidInput: for a device that is not there: a worker elsewhere may have none.
    """
    pick_device(device)
    cuda = range(torch.cuda.device_count()) if device == "cuda" else []
    with blas_threads(1), torch.random.fork_rng(devices=cuda):
        yield


class CellTraining:
    """A model, its optimizers, and what each step draws."""

    def __init__(self, training: TransferTraining, cell: TransferCell) -> None:
        self.file, self.sizes = training.source.file(), {training.axis: cell.size}
        self.device = training.device
        self.first = HELD_OUT + cell.seed * STRIDE
        plan, rate = training.factors[cell.size], 2.0**cell.log2_rate
        torch.manual_seed(cell.seed)
        self.model = self.file.build(
            {k: x for k, x in self.sizes.items() if k in self.file.axes}
        ).train()
        for name, tensor in tensors_of(self.model).items():
            if name in plan.frozen:
                tensor.requires_grad_(False)
        planned = cell.way is TransferWay.plan
        if planned:
            plan.apply_(self.model, cell.seed)
            if training.wrapped:
                plan.wrap(self.model)
        self.model.to(self.device)
        self.optimizers: tuple[torch.optim.Optimizer, ...]
        if self.file.optimizer_of is None:
            first = self.first if self.file.draws else None
            alone = isinstance(_named(training, plan), Rule) and is_read_by_modules(self.model)
            batch = None if alone else self._batch(first)
            self.optimizers = (_by_rule(training, self.model, plan, rate, planned, batch),)
        else:
            self.optimizers = self.file.optimizers(self.model)
            for group in (x for optimizer in self.optimizers for x in optimizer.param_groups):
                group.update({k: x for k, x in training.given.items() if k in group})
            if planned:
                at_planned_numbers(self.optimizers, self.model, plan.tensors, rate)
            else:
                at_one_rate(self.optimizers, rate)
        self.again = any(_looks_again(optimizer) for optimizer in self.optimizers)
        held_out = range(HELD_OUT) if self.file.draws else (None,)
        self.held_out = [self._batch(seed) for seed in held_out]

    def _batch(self, seed: int | None) -> tuple[tuple[Any, ...], Tensor]:
        drawn = {} if seed is None else {SEED: seed}
        with torch.random.fork_rng(devices=[]):  # batch may seed the global stream
            inputs, targets = self.file.batch({**self.sizes, **drawn})
        here = tuple(x.to(self.device) if isinstance(x, Tensor) else x for x in inputs)
        return here, targets.to(self.device)

    def loss_on(self, batch: tuple[tuple[Any, ...], Tensor]) -> Tensor:
        """The loss of a batch."""
        inputs, targets = batch
        return self.file.loss_for(targets)(self.model(*inputs), targets)

    def batch_of(self, step: int) -> tuple[tuple[Any, ...], Tensor]:
        """The samples that a step trains on."""
        return self._batch(self.first + step) if self.file.draws else self.held_out[0]

    def loss_of_step(self, batch: tuple[tuple[Any, ...], Tensor], step: int) -> Tensor:
        """The loss that a step descends: of its batch."""
        del step
        return self.loss_on(batch)

    @torch.no_grad()
    def loss(self) -> float:
        """The mean over what is held out, or the loss of the one batch."""
        return sum(float(self.loss_on(batch)) for batch in self.held_out) / len(self.held_out)

    def loss_before(self, axis: str, compared: str) -> float:
        """The loss before training; ``compared``: what its logarithm is taken for, with a verb.

        Raises:
            InvalidInput: for one that is not a positive number, or a model that does not run on
                the device.
        """
        try:
            start = self.loss()
        except RuntimeError as error:
            if self.device == "cpu":
                raise
            raise _not_moved(self.device, error) from error
        if not (math.isfinite(start) and start > 0):
            raise InvalidInput(
                f"a loss of {start:g} before training, at {axis}={self.sizes[axis]}",
                f"a positive number: {compared} those of the logarithm of the loss",
                "return a loss that is positive, such as cross_entropy or mse_loss",
            )
        return start

    def step(self, step: int, most: float) -> float:
        """One step; the loss that it trains on."""
        batch = self.batch_of(step)
        found: list[float] = []

        def closure() -> float:
            for optimizer in self.optimizers:
                optimizer.zero_grad()
            loss = self.loss_of_step(batch, step)
            value = float(loss.detach())
            if not (math.isfinite(value) and (found or value <= most)):
                raise Diverged(too_large(value, most))
            loss.backward()  # type: ignore[no-untyped-call]
            for name, p in self.model.named_parameters():
                if p.grad is not None and not bool(p.grad.isfinite().all()):
                    raise Diverged(f"the gradient of {name} is not finite")
            found.append(value)
            return value

        try:
            if self.again:
                for optimizer in self.optimizers:
                    optimizer.step(closure)
            else:
                closure()
                for optimizer in self.optimizers:
                    optimizer.step()
        except InvalidInput as refused:  # the rule meets a number that it has no value at
            raise Diverged(refused.found) from None
        return found[0]


def too_large(loss: float, most: float) -> str:
    """The reason that ended a run, in words."""
    return f"a loss of {loss:.3g}" + (f", above {most:.3g}" if math.isfinite(loss) else "")


def _not_moved(device: str, error: RuntimeError) -> InvalidInput:
    """A model that does not run where its tensors and its batch were moved."""
    return InvalidInput(
        f"a model that does not run on {device}: {str(error).partition(chr(10))[0]}",
        "tensors that go where the model goes",
        "register buffers, and make tensors in forward with device=x.device; or pass --device cpu",
    )


def _looks_again(optimizer: torch.optim.Optimizer) -> bool:
    """Whether a step needs to compute the loss itself: of SAM, and of LBFGS."""
    if isinstance(optimizer, RuleOptimizer):
        return optimizer.ascends
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    return closure is not None and closure.default is inspect.Parameter.empty


def _by_rule(
    training: TransferTraining, model: nn.Module, plan: ModelPlan, rate: float, planned: bool,
    batch: tuple[Any, Tensor] | None,
) -> RuleOptimizer:  # fmt: skip
    """The recipe itself as an optimizer, at the base's numbers times the factors of a plan."""
    rates: dict[str, float] = {}
    values: dict[str, dict[str, float]] = {}
    for name, x in plan.tensors.items():
        base = training.numbers[x.group]
        rates[name] = rate * base[RATE] * (x.lr if planned else 1.0)
        factors = {**x.dampings, **x.decays} if planned else {}
        for symbol, number in base.items():
            if symbol != RATE:
                values.setdefault(symbol, {})[name] = number * factors.get(symbol, 1.0)
    try:
        loss = training.source.file().loss_of
        return RuleOptimizer(model, _named(training, plan), rates, values, batch=batch, loss=loss)
    except InvalidInput as refused:
        raise InvalidInput(
            refused.found, refused.needed, f"{refused.do_this}; or {WRITE}"
        ) from None


def refuse_what_no_rule_trains(training: TransferTraining, size: int) -> None:
    """Refuse a model with tensors that the rule itself cannot train, before a run is made.

    Raises:
        InvalidInput: naming them.
    """
    with torch.random.fork_rng(devices=[]):
        CellTraining(training, TransferCell(TransferWay.standard, size, 0.0, 0))


def _named(training: TransferTraining, plan: ModelPlan) -> Recipe | Rule:
    """The rule of all tensors, or the recipe with the names of the tensors of each group."""
    names: dict[str, list[str]] = {}
    for name, x in plan.tensors.items():
        names.setdefault(x.group, []).append(name)
    groups = [
        replace(group, selectors=tuple(names[group.label]), values={}, exponents={})
        for group in training.recipe.groups
        if group.label in names
    ]
    only = groups[0]
    one = len(groups) == 1 and only.parts == 1 and only.rule is not None
    return only.rule if one and only.rule is not None else Recipe(tuple(groups))
