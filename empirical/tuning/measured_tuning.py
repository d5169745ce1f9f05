"""The regret of tuning small: what is lost at the target against tuning there.

    regret(strategy, way, seed) = loss at the target with the strategy's numbers
                                  / loss there with the best numbers of the reference   - 1
    reference                     a grid over the same space, trained at the target itself; its best
                                  point has the lowest mean of log loss over the seeds
    way                           plan: numbers follow the size as derived; standard: they stay

A run that diverged has the loss before training, and is counted. Intervals at 95 % are Student's
t over seeds, of the logarithm. The reference is of finite fineness and has a constant rate, so that
a regret may be a little below zero, and a schedule may be worth more than that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from empirical.fit.exponent import quantile
from empirical.transfer.transfer_grid import TransferWay
from empirical.transfer.transfer_measures import Interval
from empirical.tuning.search_space import SearchSpace
from empirical.tuning.tuning_run import TunedPoint, TunedRun
from scaling.report.tables import Table

SHARES = (0.25, 0.5, 1.0)
"""Of the budget, at which the best point so far is trained at the target."""


@dataclass(frozen=True)
class TunedSmall:
    """One seed of a strategy.

    Args:
        cost: in steps at the base.
        diverged: runs at the base that did.
        point: the answer.
        spent: what was spent when each of the best points so far stood, by share of the budget.
        target: the runs at the target of these points, by way.
    """

    cost: float
    diverged: int
    point: TunedPoint
    spent: tuple[float, ...]
    target: Mapping[TransferWay, tuple[TunedRun, ...]]


@dataclass(frozen=True)
class MeasuredTuning:
    """The finds of strategies at the base, and their worth at the target.

    Args:
        recipe: what trains what, as text.
        axis, base, at: what grows, from where to where.
        space: that was searched.
        budget: in steps at the base, of each strategy and seed.
        steps, seeds: of training.
        strategies: by name, one a seed.
        reference: at the target, by way: points, and runs by seed.
        skipped: strategies that cannot tune this recipe or model, and why.
        assumptions: what the plan rests on, and what the runs draw.
        told: lines of strategies about their searches.
    """

    recipe: str
    axis: str
    base: int
    at: int
    space: SearchSpace
    budget: int
    steps: int
    seeds: int
    strategies: Mapping[str, tuple[TunedSmall, ...]]
    reference: Mapping[TransferWay, tuple[tuple[TunedPoint, tuple[TunedRun, ...]], ...]]
    skipped: Mapping[str, str]
    assumptions: tuple[str, ...]
    told: tuple[str, ...] = ()

    @cached_property
    def best(self) -> dict[TransferWay, tuple[TunedPoint, tuple[TunedRun, ...]]]:
        """The best point of the reference and its runs, by way."""
        return {
            way: min(rows, key=lambda row: float(np.mean([run.value for run in row[1]])))
            for way, rows in self.reference.items()
        }

    def regret(self, name: str, way: TransferWay, share: int = -1) -> Interval:
        """Of a strategy: relative loss in excess of tuning at the target itself."""
        best = self.best[way][1]
        rows = [
            one.target[way][share].value - best[seed].value
            for seed, one in enumerate(self.strategies[name])
        ]
        return exponential(over_seeds(rows))

    def against_plan(self, name: str, way: TransferWay) -> Interval:
        """The same against the best of the plan, whatever the way."""
        best = self.best[TransferWay.plan][1]
        rows = [x.target[way][-1].value - y.value for x, y in self._paired(name, best)]
        return exponential(over_seeds(rows))

    def loss(self, name: str, way: TransferWay) -> Interval:
        """The loss at the target."""
        logs = [one.target[way][-1].value for one in self.strategies[name]]
        middle = over_seeds(logs)
        return Interval(math.exp(middle.value), math.exp(middle.low), math.exp(middle.high))

    def cost(self, name: str, share: int = -1) -> float:
        """Steps at the base until then, the mean over seeds."""
        return float(np.mean([one.spent[share] for one in self.strategies[name]]))

    def diverged(self, name: str, way: TransferWay) -> int:
        """How many seeds diverged at the target."""
        return sum(bool(one.target[way][-1].diverged) for one in self.strategies[name])

    @property
    def order(self) -> list[str]:
        """Strategies, the smallest regret under the plan first."""
        return sorted(self.strategies, key=lambda x: self.regret(x, TransferWay.plan).value)

    def table(self) -> Table:
        """Regret by strategy and way."""
        rows = []
        for name in self.order:
            several = self.strategies[name]
            small = sum(one.diverged for one in several)
            rows.append(
                (name, f"{self.cost(name):.0f}", *(_number(several, k) for k in self.space.names),
                 f"{small}" if small else "",
                 *(x for way in TransferWay for x in self._cells(name, way)))
            )  # fmt: skip
        columns = (
            "strategy", "cost", *(f"log2 {name}" for name in self.space.names), "small",
            "regret, plan", "interval", "regret, standard", "interval",
        )  # fmt: skip
        title = f"{self.recipe}: tuned at {self.axis} {self.base}, trained at {self.at}"
        return Table(title, columns, tuple(rows), tuple(self._notes()))

    def as_json(self) -> dict[str, Any]:
        """As printed with --format json."""
        return {
            "recipe": self.recipe,
            "axis": self.axis,
            "base": self.base,
            "at": self.at,
            "space": str(self.space),
            "budget": self.budget,
            "steps": self.steps,
            "seeds": self.seeds,
            "strategies": {name: self._strategy_json(name) for name in self.order},
            "reference": {
                str(way): {
                    "numbers": dict(point.numbers),
                    "loss": math.exp(float(np.mean([run.value for run in runs]))),
                    "runs": len(self.reference[way]) * self.seeds,
                    "diverged": sum(bool(x.diverged) for _, y in self.reference[way] for x in y),
                }
                for way, (point, runs) in self.best.items()
            },
            "skipped": dict(self.skipped),
            "told": list(self.told),
            "assumptions": list(self.assumptions),
        }

    # --- parts ------------------------------------------------------------------------------------

    def _paired(
        self, name: str, best: Sequence[TunedRun]
    ) -> list[tuple[TunedSmall, TunedRun]]:  # fmt: skip
        return list(zip(self.strategies[name], best, strict=True))

    def _cells(self, name: str, way: TransferWay) -> tuple[str, str]:
        found, ended = self.regret(name, way), self.diverged(name, way)
        told = f" ({ended} of {self.seeds} diverged)" if ended else ""
        low, high = percent(found.low).removesuffix(" %"), percent(found.high)
        return percent(found.value), f"[{low}, {high}]{told}"

    def _notes(self) -> list[str]:
        lines = []
        for way, (point, runs) in self.best.items():
            loss = math.exp(float(np.mean([run.value for run in runs])))
            count = len(self.reference[way])
            lines.append(
                f"{way}: tuned at {self.axis} {self.at} itself, on a grid of {count}, the best is "
                f"{point} with a loss of {loss:.4g}"
            )
        lines += [
            "regret: loss at the target over that of its reference, minus 1; cost: gradients at "
            "the base; small: runs there that diverged",
            f"{self.budget} steps at the base for each strategy and seed, runs of {self.steps} "
            f"steps, {self.seeds} seeds; intervals at 95 %, over seeds",
            f"space {self.space}",
            *self.told,
            *(f"left out: {name}: {why}" for name, why in self.skipped.items()),
            *(f"assumed: {text}" for text in self.assumptions),
        ]
        return lines

    def _strategy_json(self, name: str) -> dict[str, Any]:
        several = self.strategies[name]
        return {
            "cost": self.cost(name),
            "diverged": sum(one.diverged for one in several),
            "tuned": [
                {
                    "numbers": dict(one.point.numbers),
                    "schedule": one.point.schedule,
                    "rates": dict(one.point.rates),
                    "weights": list(one.point.weights),
                }
                for one in several
            ],
            **{
                str(way): {
                    "regret": _json(self.regret(name, way)),
                    "over_the_plan's_best": _json(self.against_plan(name, way)),
                    "loss": _json(self.loss(name, way)),
                    "diverged": self.diverged(name, way),
                    "curve": [
                        {"cost": self.cost(name, k), "regret": _json(self.regret(name, way, k))}
                        for k in range(len(SHARES))
                    ],
                }
                for way in TransferWay
            },
        }


def over_seeds(values: Sequence[float]) -> Interval:
    """The mean and Student's t interval of it.

    >>> over_seeds([1.0, 1.0, 1.0])
    Interval(value=1.0, low=1.0, high=1.0)
    """
    x = np.asarray(values, float)
    reach = quantile(0.975, len(x) - 1) * float(x.std(ddof=1)) / math.sqrt(len(x))
    return Interval(float(x.mean()), float(x.mean()) - reach, float(x.mean()) + reach)


def exponential(logs: Interval) -> Interval:
    """Relative differences, of differences of logarithms."""
    return Interval(*(math.expm1(min(x, 700.0)) for x in (logs.value, logs.low, logs.high)))


def percent(x: float) -> str:
    """A share in percent; large ones as powers of ten.

    >>> percent(0.123), percent(12345.0)
    ('12 %', '1e+06 %')
    """
    shown = 100 * x
    return f"{shown:.0f} %" if abs(shown) < 1e4 else f"{shown:.0e} %"


def _number(several: Sequence[TunedSmall], name: str) -> str:
    """The mean of what the seeds found, and their standard deviation."""
    found = [one.point.numbers.get(name) for one in several]
    known = [x for x in found if x is not None]
    if not known:
        return ""
    return f"{np.mean(known):+.1f} ± {np.std(known, ddof=1):.1f}"


def _json(x: Interval) -> dict[str, float]:
    return {"value": x.value, "low": x.low, "high": x.high}
