"""How well a hyper-parameter transfers across widths, from losses at rates, widths and seeds.

The input is a table of final losses (widths, seeds, rates) at rates 2^v on one grid. Everything is
computed on the mean over seeds of log loss, and a loss is cut off at the loss before training: a
run that diverged has learned nothing. The best rate of a width is the vertex of the parabola
fitted to the lowest point of the grid and its `WINDOW` neighbours on either side, in log2 rate:
wide enough not to jump between two dents of one basin.

Three measures, after the abstract of arXiv 2605.21486 (Kalra and Barkeshli, "Quantifying
Hyperparameter Transfer and the Importance of Embedding Layer Learning Rate": quality of the
scaling-law fit, robustness to extrapolation errors, asymptotic loss penalty). Its text could not be
read, so the definitions are ours:

    fit        log2 best(M) = offset + drift log2 M by least squares. ``drift``: doublings of the
               rate per doubling of the width; ``residual``: RMS distance from the law, in doublings
    robustness the law of all widths but the widest, extrapolated to the widest. ``miss``: where it
               lands minus the best rate there, in doublings; ``excess``: the loss there over the
               lowest loss, minus one; ``tolerance``: how many doublings about the best rate of the
               widest cost at most 5 %, from the parabola
    penalty    the loss of the widest network at the best rate of the narrowest over its lowest
               loss, minus one: what leaving the rate alone costs. `parametrization_penalty`
               compares the lowest losses of two parametrizations, at the widest width and in the
               limit (least squares on 1, M^(-1/2), the slowest correction that exponent.py allows)

Intervals: seeds are resampled with replacement, the same ones at every width (a seed fixes the
order of the batches there too). The interval is the estimate -+ Student's t times the bootstrap's
standard deviation, with the factor sqrt(S/(S-1)) that a plain bootstrap of S seeds lacks.

Not covered: a best rate at the edge of the grid (``at_edge``, and then no verdict is given), and a
loss with several minima in the rate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from empirical.fit.exponent import quantile
from empirical.fit.verdict import Verdict, judge_interval
from scaling.sizes.errors import InvalidInput

Floats: TypeAlias = NDArray[np.float64]
RESAMPLES = 200
WINDOW = 2
LEAST = float(np.finfo(np.float32).eps)
"""A cross-entropy below this is rounding: many are zero."""
TOLERATED = 0.05
"""The share of the loss that a tolerable rate may cost."""


@dataclass(frozen=True)
class Interval:
    """An estimate and where it lies, at 95 %."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"

    def judge(self, predicted: float, margin: float) -> Verdict:
        """Agree if it lies within the margin, contradict if outside, else inconclusive."""
        return judge_interval(self.low, self.high, predicted, margin)


@dataclass(frozen=True)
class Losses:
    """Final losses of one family, rule and parametrization.

    ``table``: (widths, seeds, rates), NaN where a run diverged; ``start``: the loss before
    training, by (width, seed); ``rates``: log2 of the rates, in even steps.
    """

    widths: tuple[int, ...]
    rates: tuple[float, ...]
    table: Floats
    start: Floats

    def __post_init__(self) -> None:
        shape = len(self.widths), self.table.shape[1], len(self.rates)
        if self.table.shape != shape or self.start.shape != shape[:2] or shape[1] < 2:
            raise InvalidInput(
                f"losses of shape {self.table.shape}, starts of shape {self.start.shape}",
                f"({len(self.widths)} widths, at least 2 seeds, {len(self.rates)} rates) and "
                "(widths, seeds)",
                "give every width and seed the same rates",
            )
        steps = np.diff(self.rates)
        if len(self.rates) < 3 or len(self.widths) < 3 or np.ptp(steps) > 1e-9 or steps[0] <= 0:
            raise InvalidInput(
                f"{len(self.widths)} widths and log2 rates {self.rates}",
                "at least 3 widths, and 3 rates in even steps of their logarithm",
                "take more, for example rates 2^-4, 2^-3, 2^-2",
            )

    @property
    def logs(self) -> Floats:
        """Log losses (widths, seeds, rates), cut off at the loss before training and at `LEAST`."""
        start = self.start[:, :, None]
        finite = np.where(np.isfinite(self.table), self.table, np.inf)
        cut: Floats = np.log(np.clip(finite, LEAST, np.maximum(start, LEAST)))
        return cut

    @property
    def seeds(self) -> int:
        """How many seeds there are."""
        return int(self.table.shape[1])


@dataclass(frozen=True)
class Transfer:
    """The three measures, see above; ``best`` and ``lowest`` by width."""

    best: tuple[Interval, ...]
    lowest: tuple[Interval, ...]
    drift: Interval
    residual: float
    miss: Interval
    excess: Interval
    tolerance: float
    penalty: Interval
    at_edge: tuple[int, ...]
    """Widths whose lowest loss is at an end of the grid."""


def best_rate(rates: Sequence[float], logs: ArrayLike) -> tuple[float, float]:
    """The log2 rate of the lowest loss, and the curvature of log loss there (0 at an edge).

    >>> v = [-3.0, -2.0, -1.0, 0.0]
    >>> rate, curvature = best_rate(v, [(x + 1.25) ** 2 for x in v])
    >>> round(rate, 6), round(curvature, 6)
    (-1.25, 2.0)
    """
    y = np.asarray(logs, dtype=np.float64)
    k = int(np.argmin(y))
    if k in (0, len(y) - 1):
        return float(rates[k]), 0.0
    near = slice(max(0, k - WINDOW), k + WINDOW + 1)
    x = np.asarray(rates)[near] - rates[k]
    second, first, _ = np.polyfit(x, y[near], 2)
    if second <= 0:
        return float(rates[k]), 0.0
    shift = float(np.clip(-first / (2 * second), x[0], x[-1]))
    return float(rates[k]) + shift, float(2 * second)


def transfer(losses: Losses, seed: int = 0) -> Transfer:
    """The measures of one table of losses, with intervals."""
    x, v, logs = np.log2(losses.widths), losses.rates, losses.logs

    def best(mean: Floats) -> Floats:
        return np.array([best_rate(v, row)[0] for row in mean])

    def slope(mean: Floats) -> float:
        return float(np.polyfit(x, best(mean), 1)[0])

    def loss_at(mean: Floats, rate: float) -> float:
        """Excess of the widest network at a rate, relative."""
        return math.expm1(float(np.interp(rate, v, mean[-1]) - mean[-1].min()))

    def landed(mean: Floats) -> float:
        return float(np.polyval(np.polyfit(x[:-1], best(mean)[:-1], 1), x[-1]))

    def at(function: Callable[[Floats], float]) -> Interval:
        return bootstrapped(logs, function, seed)

    mean = logs.mean(axis=1)
    law = np.polyval(np.polyfit(x, best(mean), 1), x)
    curvature = best_rate(v, mean[-1])[1]
    reach = math.sqrt(2 * math.log1p(TOLERATED) / curvature) if curvature > 0 else math.inf
    places = range(len(losses.widths))
    edges = [
        width
        for width, row in zip(losses.widths, mean, strict=True)
        if int(np.argmin(row)) in (0, len(v) - 1)
    ]
    return Transfer(
        best=tuple(at(lambda m, i=i: float(best(m)[i])) for i in places),  # type: ignore[misc]
        lowest=tuple(
            at(lambda m, i=i: math.exp(float(m[i].min())))  # type: ignore[misc]
            for i in places
        ),
        drift=at(slope),
        residual=float(np.sqrt(np.mean((best(mean) - law) ** 2))),
        miss=at(lambda m: landed(m) - float(best(m)[-1])),
        excess=at(lambda m: loss_at(m, landed(m))),
        tolerance=reach,
        penalty=at(lambda m: loss_at(m, float(best(m)[0]))),
        at_edge=tuple(edges),
    )


def parametrization_penalty(
    usual: Losses, other: Losses, seed: int = 0, limit: bool = False
) -> Interval:
    """Lowest loss of ``other`` over that of ``usual``, minus one: at the widest, or in the limit.

    Raises:
        InvalidInput: if the two do not have the same widths and number of seeds.
    """
    if usual.widths != other.widths or usual.seeds != other.seeds:
        raise InvalidInput(
            f"widths {usual.widths} and {other.widths}, {usual.seeds} and {other.seeds} seeds",
            "the same widths and seeds of both parametrizations",
            "run both in one sweep",
        )
    design = np.stack([np.ones(len(usual.widths)), np.array(usual.widths, float) ** -0.5], axis=1)

    def lowest(mean: Floats) -> float:
        losses = np.exp(mean.min(axis=1))
        found = np.linalg.lstsq(design, losses, rcond=None)[0][0] if limit else losses[-1]
        return float(max(found, np.finfo(float).tiny))

    count = len(usual.rates)
    both = np.concatenate([usual.logs, other.logs], axis=2)
    return bootstrapped(both, lambda m: lowest(m[:, count:]) / lowest(m[:, :count]) - 1, seed)


def bootstrapped(logs: Floats, function: Callable[[Floats], float], seed: int = 0) -> Interval:
    """A function of the mean over seeds (axis 1), with the interval described above."""
    seeds = logs.shape[1]
    value = function(logs.mean(axis=1))
    generator = np.random.default_rng(seed)
    draws = generator.integers(seeds, size=(RESAMPLES, seeds))
    resampled = [function(logs[:, draw].mean(axis=1)) for draw in draws]
    with np.errstate(over="ignore"):  # of a ratio to a limit that may be 0, which bounds nothing
        spread = float(np.std(resampled))
    reach = quantile(0.975, seeds - 1) * spread * math.sqrt(seeds / (seeds - 1))
    return Interval(value, value - reach, value + reach)
