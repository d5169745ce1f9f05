"""One run of a tuning, trained: by the optimizer alone, or with a strategy around each step.

    rate of a tensor at step t = 2^(lr of the point) x plan's factor x its own factor x schedule(t)

The model, its weights, the samples of each step and what is held out are those of a transfer's run
(../transfer/transfer_run.py), and so is what counts as diverged. A strategy that looks into the
training is a function of a `TrainingLoop` under a name in `LOOP_HOMES`: it calls ``step`` for a
step of the optimizer, or computes gradients and moves the tensors by itself.
"""

from __future__ import annotations

import importlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from empirical.trace.wrapped_names import tensors_of
from empirical.transfer.transfer_grid import TransferCell
from empirical.transfer.transfer_run import (
    CellTraining,
    Diverged,
    TransferTraining,
    too_large,
    undisturbed,
)
from empirical.transfer.user_optimizer import DECAY
from empirical.tuning.losses_by_task import PRETRAINED, weighted_loss
from empirical.tuning.rate_schedules import multiplier
from empirical.tuning.tuning_run import PLAIN, TunedRun, TuningRun
from scaling.models.recipe import RATE

Loop = Callable[["TrainingLoop"], Mapping[str, Any]]
LOOP_HOMES: Mapping[str, str] = {
    "oho": "online_hypergradients",
    "filter": "gradient_filter",
    "pretraining": "weighted_pretraining",
    "adapting": "distance_adaptation",
}
"""The file of each loop."""


class TrainingLoop(CellTraining):
    """A model under training, as a strategy sees it.

    Args:
        training: what all runs share.
        run: this one.

    ``cost`` counts gradients of a whole batch; a loop adds what it computes beside ``step``.
    """

    def __init__(self, training: TransferTraining, run: TuningRun) -> None:
        self.run, self.cost, self.most = run, 0.0, math.inf
        self.recipe = training.recipe
        cell = TransferCell(run.way, run.size, run.point.numbers.get(RATE, 0.0), run.seed)
        super().__init__(with_numbers(training, run.point.numbers), cell)
        self.names = {id(p): name for name, p in tensors_of(self.model).items()}
        if run.point.rates:
            self._rate_by_tensor(run.point.rates)
        self._rates = [[g["lr"] for g in optimizer.param_groups] for optimizer in self.optimizers]

    @property
    def trained(self) -> dict[str, nn.Parameter]:
        """The tensors that an optimizer trains, by name."""
        return {
            self.names[id(p)]: p
            for optimizer in self.optimizers
            for group in optimizer.param_groups
            for p in group["params"]
            if p.requires_grad
        }

    @property
    def factors(self) -> dict[str, float]:
        """Rates of the tensors over the tuned one."""
        rate = 2.0 ** self.run.point.numbers.get(RATE, 0.0)
        return {
            self.names[id(p)]: float(group["lr"]) / rate
            for optimizer in self.optimizers
            for group in optimizer.param_groups
            for p in group["params"]
        }

    @property
    def decays(self) -> dict[str, float]:
        """The decay of each tensor; zero where it has none."""
        keys = {DECAY, *self.recipe.decays}
        return {
            self.names[id(p)]: sum(float(numbers.get(key, 0.0)) for key in keys)
            for optimizer in self.optimizers
            for group in optimizer.param_groups
            for numbers in [{**group, **group.get("values", {})}]
            for p in group["params"]
        }

    def advance(self, step: int) -> float:
        """A step of the optimizer at the rate of the schedule; the loss that it trains on."""
        length = self.run.length or self.run.steps
        share = multiplier(self.run.point.schedule, step, length)
        for optimizer, rates in zip(self.optimizers, self._rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * share
        loss = self.step(step, self.most)
        self.cost += 1
        return loss

    def loss_of_step(self, batch: Any, step: int) -> Tensor:
        """The loss of the batch, its tasks weighted in the first steps if the point says so."""
        if self.run.point.weights and step < PRETRAINED:
            return weighted_loss(self.model, self.file, batch, self.run.point.weights)
        return self.loss_on(batch)

    def watched(self, loss: Tensor) -> Tensor:
        """The same loss, if it is not too large.

        Raises:
            Diverged: otherwise.
        """
        value = float(loss.detach())
        if not value <= self.most:
            raise Diverged(too_large(value, self.most))
        return loss

    def loss_held_out(self, draw: int) -> Tensor:
        """The loss on one of the batches held out, with its graph."""
        return self.loss_on(self.held_out[draw % len(self.held_out)])

    def _rate_by_tensor(self, rates: Mapping[str, float]) -> None:
        """A group for each tensor, at its own factor of the rate."""
        for optimizer in self.optimizers:
            optimizer.param_groups[:] = [
                {
                    **group,
                    "params": [p],
                    "lr": group["lr"] * 2.0 ** rates.get(self.names[id(p)], 0.0),
                }
                for group in optimizer.param_groups
                for p in group["params"]
            ]


def with_numbers(training: TransferTraining, numbers: Mapping[str, float]) -> TransferTraining:
    """The training at a point of the space: of the rules, or of the user's optimizer."""
    if not training.numbers:
        decays = training.recipe.decays
        own = {DECAY if k in decays else k: 2.0**x for k, x in numbers.items() if k != RATE}
        return replace(training, given=own)
    found = {
        label: {k: 2.0 ** numbers[k] if k in numbers and k != RATE else x for k, x in one.items()}
        for label, one in training.numbers.items()
    }
    return replace(training, numbers=found)


def _plain(loop: TrainingLoop) -> Mapping[str, Any]:
    for step in range(loop.run.steps):
        loop.advance(step)
    return {}


def loop_of(name: str) -> Loop:
    """Who trains."""
    if name == PLAIN:
        return _plain
    found: Loop = importlib.import_module(f"empirical.tuning.{LOOP_HOMES[name]}").LOOPS[name]
    return found


def tuned_run(training: TransferTraining, run: TuningRun) -> TunedRun:
    """Train one run.

    Raises:
        InvalidInput: for a loss before training that is not a positive number, and what a loop
            cannot train.
    """
    began = time.perf_counter()
    with undisturbed(training.device):
        loop = TrainingLoop(training, run)
        start = loop.loss_before(training.axis, "regrets are")
        loop.most = training.diverged * start
        found: Mapping[str, Any] = {}
        loss, why, at_step = math.nan, "", run.steps
        try:
            found = loop_of(run.loop)(loop)
            last = loop.loss()
            if not last <= loop.most:
                raise Diverged(too_large(last, loop.most))
            loss = last
        except Diverged as reason:
            why, at_step = str(reason), int(loop.cost) if run.loop == PLAIN else run.steps
        cost = max(1.0, loop.cost)
    seconds = time.perf_counter() - began
    return TunedRun(start, loss, why, at_step, seconds, cost, dict(found))
