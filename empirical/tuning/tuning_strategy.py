"""A strategy asks for runs, is told their outcomes, and answers with a point.

    def tune(task):                      a generator
        outcome = yield task.run(point)      ask; the outcome is sent back: tell
        task.offer(point, outcome.value)     the best point so far
        return point                         the answer

Strategies that look into the training name a *loop* in their runs (``task.run(..., loop="oho")``):
a function that wraps the training of one model, see tuning_loop.py. A strategy spends at most its
budget, and knows nothing of the target, of widths, or of how and where runs are made.
"""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any

from empirical.trace.model_file import ModelFile
from empirical.transfer.transfer_grid import TransferWay
from empirical.tuning.search_space import Point, SearchSpace
from empirical.tuning.tuning_run import PLAIN, TunedPoint, TunedRun, TuningRun
from scaling.models.recipe import Recipe
from scaling.sizes.errors import InvalidInput, unknown

Tuning = Generator[TuningRun, TunedRun, TunedPoint]
Refuses = Callable[[Recipe, ModelFile, SearchSpace], InvalidInput | None]


@dataclass
class TuningTask:
    """The things that a strategy has in hand.

    Args:
        space: to search in.
        steps: of a run.
        budget: in steps at the base.
        seed: of all that is drawn, and of the model.
        size: at which it tunes.
        way: how the model is parametrized there.
        spent: so far.
        offered: (spent, value, point) whenever a better point was found.
        diverged: how many runs did.
        told: lines about the search.
    """

    space: SearchSpace
    steps: int
    budget: int
    seed: int = 0
    size: int = 0
    way: TransferWay = TransferWay.plan
    spent: float = 0.0
    offered: list[tuple[float, float, TunedPoint]] = field(default_factory=list)
    diverged: int = 0
    told: list[str] = field(default_factory=list)

    def affords(self, cost: float) -> bool:
        """Whether so much is left."""
        return self.spent + cost <= self.budget

    def run(
        self, point: Point | TunedPoint, steps: int = 0, length: int = 0, paid: int = 0,
        loop: str = PLAIN, **options: Any,
    ) -> TuningRun:  # fmt: skip
        """A run of the task's model at a point."""
        whole = point if isinstance(point, TunedPoint) else TunedPoint(dict(point))
        return TuningRun(
            self.way, self.size, self.seed, whole, steps or self.steps, length, paid, loop,
            json.dumps(options, sort_keys=True),
        )  # fmt: skip

    def offer(self, point: Point | TunedPoint, value: float, always: bool = False) -> None:
        """Note a point, if it is the best so far.

        ``value``: log of its loss after a whole run. ``always``: whatever its value, of strategies
        whose last point is the one they stand for.
        """
        whole = point if isinstance(point, TunedPoint) else TunedPoint(dict(point))
        if always or not self.offered or value < self.offered[-1][1]:
            self.offered.append((self.spent, value, whole))

    @property
    def best(self) -> TunedPoint:
        """The best point that was offered; the middle of the space where there is none."""
        return self.offered[-1][2] if self.offered else TunedPoint(self.space.centre)

    @property
    def best_value(self) -> float:
        """Its value."""
        return self.offered[-1][1] if self.offered else math.inf


@dataclass(frozen=True)
class TuningStrategy:
    """A strategy.

    Args:
        name: on the command line.
        source: where it is from.
        tune: see above.
        refuses: of a recipe, a model and a space, why the strategy cannot tune them, or None.
        package: that it needs, and the extra that brings it.
    """

    name: str
    source: str
    tune: Callable[[TuningTask], Tuning]
    refuses: Refuses = lambda recipe, file, space: None
    package: tuple[str, str] | None = None


HOMES: Mapping[str, str] = {
    "random": "random_search",
    "grid": "grid_search",
    "tpe": "tree_parzen",
    "cross-entropy": "cross_entropy",
    "morl": "recurring_halving",
    "pareto": "pareto_trajectories",
    "opt-laws": "optimization_law",
    "hozog": "zeroth_order",
    "oho": "online_hypergradients",
    "oho-layer": "online_hypergradients",
    "oho-tensor": "online_hypergradients",
    "filter": "gradient_filter",
    "pretraining": "weighted_pretraining",
    "d-adaptation": "distance_adaptation",
}
"""The file of each strategy: imported when it is asked for, since some need Optuna."""
ALL = "all"


def strategy(name: str) -> TuningStrategy:
    """The strategy of a name.

    Raises:
        InvalidInput: for an unknown name, or a package that is missing.
    """
    if name not in HOMES:
        refused = unknown("strategy", name, [*HOMES, ALL])
        near = refused.do_this if "mean" in refused.do_this else "pass --strategy all, or tpe"
        raise InvalidInput(refused.found, refused.needed, near)
    try:
        module = importlib.import_module(f"empirical.tuning.{HOMES[name]}")
    except ModuleNotFoundError as error:
        raise missing(str(error.name), "tuning", name) from None
    found: TuningStrategy = module.STRATEGIES[name]
    if found.package is not None:
        package, extra = found.package
        try:
            importlib.import_module(package)
        except ModuleNotFoundError:
            raise missing(package, extra, name) from None
    return found


def missing(package: str, extra: str, name: str) -> InvalidInput:
    """The refusal of a strategy whose package is not there."""
    return InvalidInput(
        f"no package '{package}', which --strategy {name} needs",
        f"the extra '{extra}' of this package",
        f"pip install 'scaling[{extra}]', or --strategy hozog, which needs none",
    )


def play(tune: Tuning, task: TuningTask, train: Callable[[TuningRun], TunedRun]) -> TunedPoint:
    """Run a strategy by itself; `measuring_tuning` runs many side by side."""
    try:
        asked = next(tune)
        while True:
            asked = tell(tune, task, asked, train(asked))
    except StopIteration as end:
        answer: TunedPoint = end.value
        return answer


def tell(tune: Tuning, task: TuningTask, asked: TuningRun, outcome: TunedRun) -> TuningRun:
    """Count the cost of a run, and get the next one."""
    task.spent += max(0.0, outcome.cost - asked.paid)
    task.diverged += bool(outcome.diverged)
    return tune.send(outcome)
