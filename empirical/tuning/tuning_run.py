"""One run of a tuning as data: what is trained with which numbers, and what came of it.

A run is a function of its description, so it may be made by any worker, and is made once: a store
knows it by the description. ``loop`` names who trains: ``plain`` is the optimizer alone, others
belong to strategies that look into the training.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from empirical.transfer.transfer_grid import TransferWay
from empirical.tuning.search_space import Point

PLAIN = "plain"


@dataclass(frozen=True)
class TunedPoint:
    """The answer of a strategy, and the numbers of a run.

    Args:
        numbers: log2 by symbol, at the base.
        schedule: of the rate, see rate_schedules.py.
        rates: log2 of a factor of the rate, by tensor.
        weights: of the tasks that the first steps are trained on; see losses_by_task.py.
    """

    numbers: Point
    schedule: str = "constant"
    rates: Mapping[str, float] = field(default_factory=dict)
    weights: tuple[float, ...] = ()

    def __str__(self) -> str:
        text = ", ".join(f"{name}=2^{x:.2f}" for name, x in self.numbers.items())
        if self.rates:
            spread = max(self.rates.values()) - min(self.rates.values())
            text += f", {len(self.rates)} tensors over 2^{spread:.2f}"
        if self.weights:
            text += f", {len(self.weights)} tasks weighted {min(self.weights):.2f} to "
            text += f"{max(self.weights):.2f}"
        return text + (f", {self.schedule}" if self.schedule != "constant" else "")


@dataclass(frozen=True)
class TuningRun:
    """One run.

    Args:
        way, size, seed: of the model, see transfer_run.py.
        point: the numbers.
        steps: of training.
        length: of the schedule, where a run stops before its end.
        paid: steps at the beginning that another run has paid: a checkpoint would hold them.
        loop: who trains.
        options: of the loop, as JSON.
    """

    way: TransferWay
    size: int
    seed: int
    point: TunedPoint
    steps: int
    length: int = 0
    paid: int = 0
    loop: str = PLAIN
    options: str = "{}"

    @property
    def key(self) -> str:
        """Its description, as JSON; what was paid does not change what is trained."""
        found = asdict(self)
        del found["paid"]
        return json.dumps(found, sort_keys=True)

    @property
    def wishes(self) -> dict[str, Any]:
        """The options of the loop."""
        found: dict[str, Any] = json.loads(self.options)
        return found


@dataclass(frozen=True)
class TunedRun:
    """The outcome of a run.

    Args:
        start: the loss held out before training.
        loss: after it; NaN of a run that diverged.
        diverged: the reason, or empty.
        at_step: the step at which it ended.
        seconds: that it took.
        cost: in gradients of the whole batch; a Hessian-vector product counts as two.
        found: what a loop tells beside the loss.
    """

    start: float
    loss: float
    diverged: str
    at_step: int
    seconds: float
    cost: float
    found: Mapping[str, Any] = field(default_factory=dict)

    @property
    def value(self) -> float:
        """Log of the loss, at most that before training: what diverged has learned nothing."""
        if self.diverged or not math.isfinite(self.loss):
            return math.log(self.start)
        return math.log(max(min(self.loss, self.start), 1e-12))
