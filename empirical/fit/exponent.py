"""From sizes at growing widths to an exponent with an honest interval.

Claim.  Where ``log size = x log M + c + k M**(-p) + noise`` with ``p >= decay``, the interval
``[low, high]`` holds the asymptotic exponent x at least about as often as the confidence says,
whatever k is. ``decay`` is 1/2, that of a mean over neurons, unless theory knows of a slower one:
a term of a sum that is smaller than another by less (`scaling.sizes.scale.Scale.gap`).

Formula.  The correction ``k M**(-p)`` is not seen apart from the slope, so the exponent is
estimated under both extremes, and the interval holds both with their noise:

    slope   least squares of log size on (1, log M) over the upper half of the log-range:
            what the exponent is if the slopes stop drifting here
    limit   least squares of log size on (1, log M, M**-decay) over all widths, weights sqrt(M):
            what it is if they drift on, decaying as slowly as is allowed
    low     min(slope - t * se(slope), limit - t1 * se(limit)), and high likewise

A faster decay lies between the two. Each is computed per seed and averaged; se comes from the
spread over seeds, t and t1 are Student's two-sided and one-sided quantiles with seeds - 1 degrees.
One side is enough at the limit: where it ends the interval, the slopes drift, and the other end is
far off. Both simpler intervals fail: slope alone misses x once the seeds resolve its bias, and a
drift counted only beyond its standard error covers x in as few as three cases of four.

Half the width of the interval is ``noise + drift``: t * se(slope), and all the rest.

The allowed decay has no ground while the changes of the slope do *not* shrink along the widths, as
in the middle of a crossover from one exponent to another. ``settling`` says whether they shrink,
and where they are not seen to, `verdict.judge` does not contradict what they may be heading for.

Noise is taken over whole seeds, never over widths, and so stays right if one seed's draws at
different widths resemble each other. One seed alone has only its residuals to judge by.

Not covered: corrections that decay more slowly (logarithms among them), a crossover that begins
beyond the widest width, and sizes at the level of rounding, which whoever measures must call zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from scaling.sizes.errors import InvalidInput

Floats: TypeAlias = NDArray[np.float64]

ROUNDING = 1e-9
"""The relative accuracy to which a float64 size is trusted; no noise is taken to be smaller."""


DECAY = 0.5
"""How slowly slopes may drift if nothing else is known: as M**-DECAY."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A measured exponent: ``size ~ M**slope``, with all that its interval was made from."""

    slope: float
    """The exponent over the widest widths; ``-inf`` for a size that is exactly zero."""
    low: float
    high: float
    noise: float
    """Half-width that is due to the seeds; ``inf`` where one seed leaves no residuals."""
    drift: float
    """Half-width that is due to drifting slopes; ``inf`` where two widths cannot show it."""
    limit: float
    """The exponent if the slopes drift on as slowly as ``M**-decay`` decays."""
    drifting: bool
    """Slope and limit differ beyond what the noise explains."""
    settling: bool
    """The changes of the slope shrink along the widths, so that the limit has a ground."""
    widths: tuple[int, ...]
    """The widths that the slope was taken over."""
    local_slopes: tuple[tuple[float, float], ...]
    """(geometric mid width, slope) between neighbouring widths, over all that were measured."""
    seeds: int
    degrees: int
    """Student's degrees of freedom behind the noise; 0 where nothing was left to estimate it."""
    confidence: float
    decay: float = DECAY

    def __str__(self) -> str:
        return f"{self.slope:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


def estimate(
    widths: Sequence[int], sizes: ArrayLike, confidence: float = 0.95, decay: float = DECAY
) -> Estimate:
    """The exponent of ``sizes``, an array (seeds, widths) measured in float64 at rising ``widths``.

    ``decay``: slopes may drift as slowly as ``M**-decay``.

    Two widths show no drift, and one seed at two widths no noise: that part of the interval is
    infinite then, never zero. A size that is zero at every width and seed has exponent ``-inf``.

    InvalidInput is raised on widths that do not rise, on shapes that do not match, on sizes
    that are negative, not finite, or zero in some places only, and on a decay that is none.

    >>> widths = [64, 128, 256, 512, 1024]
    >>> found = estimate(widths, [[width**-0.5 for width in widths]] * 3)
    >>> print(found)
    -0.500 [-0.500, -0.500]
    >>> found.widths
    (256, 512, 1024)
    """
    across = _checked_widths(widths)
    table = _checked_sizes(across, sizes)
    if not 0 < confidence < 1:
        raise InvalidInput(
            found=f"confidence={confidence!r}",
            needed="a confidence strictly between 0 and 1",
            do_this="pass for instance confidence=0.95",
        )
    if not (math.isfinite(decay) and decay > 0):
        raise InvalidInput(
            found=f"decay={decay!r}",
            needed="a finite number larger than 0",
            do_this=f"pass for instance decay={DECAY}",
        )
    if not table.any():
        return _zero(across, len(table), confidence)

    log_size, log_width = np.log(table), np.log(np.array(across, dtype=np.float64))
    start = _window_start(log_width)
    to_slope = _slope_weights(log_width, start, len(across))
    slope, slope_error, degrees = _contrast(to_slope, log_size, log_width, decay)
    two_sided = quantile((1 + confidence) / 2, degrees)
    noise = two_sided * slope_error
    limit, low, high, drifting = slope, -math.inf, math.inf, False
    if len(across) > 2:
        to_limit = _limit_weights(log_width, decay)
        limit, limit_error, _ = _contrast(to_limit, log_size, log_width, decay)
        shift, shift_error, _ = _contrast(to_limit - to_slope, log_size, log_width, decay)
        beyond = quantile(confidence, degrees) * limit_error
        low, high = min(slope - noise, limit - beyond), max(slope + noise, limit + beyond)
        drifting = abs(shift) > two_sided * shift_error
    mean = log_size.mean(axis=0)
    return Estimate(
        slope=slope,
        low=low,
        high=high,
        noise=noise,
        drift=(high - low) / 2 - noise if len(across) > 2 else math.inf,
        limit=limit,
        drifting=drifting,
        settling=_settling(log_width, log_size, decay),
        widths=across[start:],
        local_slopes=_local_slopes(log_width, mean),
        seeds=len(table),
        degrees=degrees,
        confidence=confidence,
        decay=decay,
    )


def straight_slope(
    sizes: Sequence[int], table: ArrayLike, confidence: float = 0.95
) -> tuple[float, float, float]:
    """The slope of log table over log sizes, and the ends of its interval, from the seeds alone.

    For powers whose correction is known to be within the margin that judges them: where it is not,
    take `estimate`, whose interval holds the drift.

    Args:
        sizes: rising whole numbers, of whatever grows.
        table: measured values (seeds, sizes).
        confidence: of the interval, by Student's quantile.

    Raises:
        InvalidInput: as `estimate` does, and for values that are zero.

    >>> round(straight_slope([8, 16, 32], [[8.0, 16.0, 32.0], [1.0, 2.0, 4.0]])[0], 9)
    1.0
    """
    across = _checked_widths(sizes)
    values = _checked_sizes(across, table)
    if not values.any():
        raise InvalidInput(
            "sizes that are all zero", "sizes with a slope", "leave out what does not move"
        )
    log_value, log_size = np.log(values), np.log(np.array(across, dtype=np.float64))
    slope, error, degrees = _contrast(
        _slope_weights(log_size, 0, len(across)), log_value, log_size, DECAY
    )
    noise = quantile((1 + confidence) / 2, degrees) * error
    return slope, slope - noise, slope + noise


def _zero(widths: tuple[int, ...], seeds: int, confidence: float) -> Estimate:
    """Zero is M**(-oo), known without noise or drift."""
    mids = (math.sqrt(before * after) for before, after in pairwise(widths))
    return Estimate(
        slope=-math.inf,
        low=-math.inf,
        high=-math.inf,
        noise=0.0,
        drift=0.0,
        limit=-math.inf,
        drifting=False,
        settling=True,
        widths=widths,
        local_slopes=tuple((mid, -math.inf) for mid in mids),
        seeds=seeds,
        degrees=0,
        confidence=confidence,
    )


def _window_start(log_width: Floats) -> int:
    """Where the upper half of the log-range begins, leaving at least three widths if there are."""
    middle = (log_width[0] + log_width[-1]) / 2
    start = int(np.searchsorted(log_width, middle - ROUNDING))
    return max(0, min(start, len(log_width) - 3))


def _slope_weights(log_width: Floats, start: int, stop: int) -> Floats:
    """The weights w such that ``w @ log_size`` is the least-squares slope over ``start:stop``."""
    weights = np.zeros_like(log_width)
    centred = log_width[start:stop] - log_width[start:stop].mean()
    weights[start:stop] = centred / (centred @ centred)
    return weights


def _limit_weights(log_width: Floats, decay: float) -> Floats:
    """The weights w such that ``w @ log_size`` is the slope beside a correction ``k M**-decay``.

    The noise of most sizes shrinks as M**(-1/2), that of a few stays. Weights sqrt(M) lie between
    the best ones for either, and lose little to both.
    """
    columns = _design(log_width, decay)
    root_weight = np.exp((log_width - log_width[0]) / 4)
    solution: list[Floats] = list(np.linalg.pinv(columns * root_weight[:, None]) * root_weight)
    return solution[1]


def _design(log_width: Floats, decay: float) -> Floats:
    from_narrowest = log_width - log_width[0]
    correction = np.exp(-from_narrowest * decay)
    return np.stack([np.ones_like(log_width), from_narrowest, correction], axis=1)


def _contrast(
    weights: Floats, log_size: Floats, log_width: Floats, decay: float
) -> tuple[float, float, int]:
    """``weights @ log_size`` averaged over seeds, its standard error, and the degrees behind that.

    The error of a single seed comes from what the regression behind the limit leaves over, so that
    a slope that drifts is not mistaken for noise; three widths leave something over a straight line
    only, two widths nothing.
    """
    values = log_size @ weights
    seeds, widths = log_size.shape
    if seeds > 1:
        error, degrees = float(values.std(ddof=1)) / math.sqrt(seeds), seeds - 1
    else:
        columns = _design(log_width, decay)[:, : 3 if widths > 3 else 2]
        degrees = widths - columns.shape[1]
        if degrees == 0:
            return float(values[0]), math.inf, 0
        left_over = log_size[0] - columns @ (np.linalg.pinv(columns) @ log_size[0])
        error = math.sqrt(float(left_over @ left_over) / degrees * float(weights @ weights))
    return float(values.mean()), max(error, ROUNDING * float(np.abs(weights).sum())), degrees


def _settling(log_width: Floats, log_size: Floats, decay: float) -> bool:
    """Whether the slope changes faster before the middle third of the widths than after it.

    By more than the standard error, so that noise alone seldom passes for a bend that flattens.
    """
    count = len(log_width)
    if count < 4:
        return False
    thirds = np.linspace(log_width[0], log_width[-1], 4)[1:3]
    first = int(np.clip(np.abs(log_width - thirds[0]).argmin(), 1, count - 3))
    second = int(np.clip(np.abs(log_width - thirds[1]).argmin(), first + 1, count - 2))
    ends = ((0, first + 1), (first, second + 1), (second, count))
    slopes = [_slope_weights(log_width, *end) for end in ends]
    mids = [float(log_width[start:stop].mean()) for start, stop in ends]
    before = (slopes[1] - slopes[0]) / (mids[1] - mids[0])
    after = (slopes[2] - slopes[1]) / (mids[2] - mids[1])
    mean = log_size.mean(axis=0)
    flattening = np.sign(before @ mean) * before - np.sign(after @ mean) * after
    value, error, _ = _contrast(flattening, log_size, log_width, decay)
    return value > error


def _local_slopes(log_width: Floats, log_size: Floats) -> tuple[tuple[float, float], ...]:
    mids = np.exp((log_width[1:] + log_width[:-1]) / 2)
    slopes = np.diff(log_size) / np.diff(log_width)
    return tuple((float(mid), float(slope)) for mid, slope in zip(mids, slopes, strict=True))


def quantile(probability: float, degrees: int) -> float:
    """Student's t quantile."""
    return float(stats.t.ppf(probability, degrees)) if degrees > 0 else math.inf


def _checked_widths(widths: Sequence[int]) -> tuple[int, ...]:
    for width in widths:
        if not (math.isfinite(width) and width >= 1 and width == int(width)):
            raise InvalidInput(
                found=f"width {width}",
                needed="widths that are whole numbers, 1 or larger",
                do_this="pass the widths of the networks, for instance [64, 128, 256]",
            )
    if len(widths) < 2:
        raise InvalidInput(
            found=f"{len(widths)} width(s)",
            needed="at least 2 widths for a slope, 3 to see it drift, 4 to see it settle",
            do_this="measure at more widths, for instance [64, 128, 256, 512, 1024]",
        )
    for before, after in pairwise(widths):
        if after <= before:
            raise InvalidInput(
                found=f"width {after} after width {before}",
                needed="widths that strictly increase",
                do_this="sort the widths, and put repetitions of a width among the seeds",
            )
    return tuple(int(width) for width in widths)


def _checked_sizes(widths: tuple[int, ...], sizes: ArrayLike) -> Floats:
    try:
        table = np.asarray(sizes, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidInput(
            found=f"sizes that are no table of numbers ({error})",
            needed=f"numbers of shape (seeds, {len(widths)})",
            do_this="give a row to every seed and a column to every width",
        ) from error
    if table.ndim != 2 or table.shape[0] == 0 or table.shape[1] != len(widths):
        raise InvalidInput(
            found=f"sizes of shape {table.shape} for {len(widths)} widths",
            needed=f"shape (seeds, {len(widths)}) with at least one seed",
            do_this="give a row to every seed and a column to every width",
        )
    for seed, column in np.argwhere(~(np.isfinite(table) & (table >= 0))):
        raise InvalidInput(
            found=f"size {table[seed, column]} at width {widths[column]}, seed {seed}",
            needed="sizes that are finite and not negative",
            do_this="look at that run: it overflowed, diverged, or returned no size",
        )
    zeros = np.argwhere(table == 0)
    if 0 < len(zeros) < table.size:
        seed, column = zeros[0]
        raise InvalidInput(
            found=f"size 0 at width {widths[column]}, seed {seed}, and positive sizes elsewhere",
            needed="sizes that are all positive, or all exactly zero",
            do_this="look for underflow there, and measure in float64",
        )
    return table
