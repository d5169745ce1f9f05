"""Does the best learning rate stay where it is as the model grows? What was measured of it.

    predicted    under the plan the best rate at the base is the best at every size: drift 0
    drift        doublings of the best rate per doubling of the size, with an interval
    verdict      on drift 0: agree within the margin, contradict outside of it, else inconclusive

The same verdict is given on the standard, which has one rate for all tensors at every size, as a
negative control. Best rates, laws and intervals: transfer_measures.py. No verdict is given where
the best rate of a size lies at an end of the grid.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from empirical.fit.verdict import Verdict
from empirical.transfer.exported_runs import frame_of
from empirical.transfer.transfer_grid import TransferCell, TransferWay
from empirical.transfer.transfer_measures import Interval, Losses, Transfer, transfer
from empirical.transfer.transfer_run import TrainedCell
from scaling.report.tables import Table
from scaling.sizes.errors import InvalidInput

MARGIN = 0.25
"""Half of 1/2, the smallest step between a rule's own exponents."""


@dataclass(frozen=True)
class MeasuredTransfer:
    """The runs of one transfer, and what they say.

    Args:
        recipe: what trains what, as text.
        axis, base: what grows, and the sizes at which the rate is given.
        sizes: along the axis.
        rates: log2 of the learning rates at the base.
        steps, seeds: of training.
        margin: within which a drift is none.
        runs: every cell.
        assumptions: what the plan rests on, and what the runs draw.
        changes: factors of the code that keep tensors from a maximal update, or that were changed.
    """

    recipe: str
    axis: str
    base: Mapping[str, int]
    sizes: tuple[int, ...]
    rates: tuple[float, ...]
    steps: int
    seeds: int
    margin: float
    runs: Mapping[TransferCell, TrainedCell]
    assumptions: tuple[str, ...]
    changes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for way in TransferWay:
            self._refuse_all_diverged(way)

    def losses(self, way: TransferWay) -> Losses:
        """Losses by size, seed and rate."""
        table = np.array([[[run.loss for run in row] for row in y] for y in self._rows(way)])
        start = np.array([[row[0].start for row in y] for y in self._rows(way)])
        return Losses(self.sizes, self.rates, table, start)

    @cached_property
    def measures(self) -> dict[TransferWay, Transfer]:
        """Best rates, drift and what it costs, by way."""
        return {way: transfer(self.losses(way)) for way in TransferWay}

    def verdict(self, way: TransferWay = TransferWay.plan) -> Verdict:
        """Whether the best rate stays."""
        found = self.measures[way]
        open_ = found.at_edge or not math.isfinite(found.drift.low + found.drift.high)
        return Verdict.inconclusive if open_ else found.drift.judge(0.0, self.margin)

    def diverged(self, way: TransferWay, size: int) -> int:
        """How many runs of a size diverged."""
        k = self.sizes.index(size)
        return sum(bool(run.diverged) for row in self._rows(way)[k] for run in row)

    def frame(self) -> pd.DataFrame:
        """One row a run."""
        return frame_of(self.runs)

    def table(self) -> Table:
        """Best rate and loss by way and size."""
        cells = len(self.rates) * self.seeds
        rows = []
        for way, found in self.measures.items():
            best = zip(self.sizes, found.best, found.lowest, strict=True)
            for size, rate, loss in best:
                ended = self.diverged(way, size)
                edge = "edge" if size in found.at_edge else ""
                shown = edge or f"[{rate.low:+.2f}, {rate.high:+.2f}]"
                rows.append(
                    (str(way), f"{size}", f"{rate.value:+.2f}", shown, f"{loss.value:.4g}",
                     f"{ended} of {cells}" if ended else "")
                )  # fmt: skip
        columns = ("numbers", self.axis, "log2 best rate", "interval", "loss", "diverged")
        notes = [
            *(self._told(way) for way in TransferWay),
            f"predicted: drift 0 under the plan, within {self.margin:g}; rates are those at the "
            f"base ({', '.join(f'{k}={x}' for k, x in self.base.items())})",
            f"{self.steps} steps, {self.seeds} seeds, rates 2^{self.rates[0]:g} to "
            f"2^{self.rates[-1]:g}; intervals at 95 %, over seeds",
            *self.changes,
            *(f"assumed: {text}" for text in self.assumptions),
        ]
        title = f"transfer of the learning rate: {self.recipe}"
        return Table(title, columns, tuple(rows), tuple(notes))

    def as_json(self) -> dict[str, Any]:
        """As printed with --format json."""
        ways = {}
        for way, found in self.measures.items():
            ways[str(way)] = {
                "drift": _interval(found.drift),
                "verdict": str(self.verdict(way)),
                "sizes": {
                    str(size): {
                        "log2_best_rate": _interval(rate),
                        "loss": _interval(loss),
                        "diverged": self.diverged(way, size),
                        "at_edge": size in found.at_edge,
                    }
                    for size, rate, loss in zip(self.sizes, found.best, found.lowest, strict=True)
                },
                "penalty": _interval(found.penalty),
            }
        return {
            "recipe": self.recipe,
            "axis": self.axis,
            "base": dict(self.base),
            "sizes": list(self.sizes),
            "log2_rates": list(self.rates),
            "steps": self.steps,
            "seeds": self.seeds,
            "margin": self.margin,
            "verdict": str(self.verdict()),
            **ways,
            "changes": list(self.changes),
            "assumptions": list(self.assumptions),
        }

    # --- parts ------------------------------------------------------------------------------------

    def _rows(self, way: TransferWay) -> list[list[list[TrainedCell]]]:
        """Runs by size, seed and rate."""
        return [
            [
                [self.runs[TransferCell(way, size, rate, seed)] for rate in self.rates]
                for seed in range(self.seeds)
            ]
            for size in self.sizes
        ]

    def _told(self, way: TransferWay) -> str:
        found = self.measures[way]
        line = f"{way}: drift {found.drift} per doubling, of 0: {self.verdict(way)}"
        if found.at_edge:
            where = ", ".join(map(str, found.at_edge))
            line += f"; the best rate lies at an end of the grid at {self.axis} {where}: widen --lr"
        share = 100 * found.penalty.value
        cost = f"{share:.0f} % more loss at {self.axis} {self.sizes[-1]}"
        return f"{line}; the best rate of {self.sizes[0]} costs {cost}"

    def _refuse_all_diverged(self, way: TransferWay) -> None:
        for size, rows in zip(self.sizes, self._rows(way), strict=True):
            every = [run for row in rows for run in row]
            if all(run.diverged for run in every):
                raise InvalidInput(
                    f"{self.axis}={size} under the {way}, where every run diverged: "
                    f"{every[0].diverged} at step {every[0].at_step}",
                    "a rate at which the model trains",
                    f"lower the rates: --lr 2^{self.rates[0] - 8:g}:2^{self.rates[0]:g}",
                )


def _interval(x: Interval) -> dict[str, float | str]:
    def number(value: float) -> float | str:
        return value if math.isfinite(value) else str(value)

    return {"value": number(x.value), "low": number(x.low), "high": number(x.high)}
