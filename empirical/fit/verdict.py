"""From an estimate to a verdict: agree, contradict, crossover or inconclusive.

A prediction agrees if the whole interval lies within its margin and is contradicted if the whole
interval lies outside. In between the measurement has not decided: because of drifting slopes (a
crossover, whose culprit verification.py names) or because of noise (inconclusive; `remedy` says
what would settle it).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from empirical.fit.exponent import DECAY, Estimate, quantile
from scaling.sizes.errors import InvalidInput

START_SEEDS = 4
"""Seeds to begin with where nothing is known about the spread over seeds."""

MOST_SEEDS = 100_000
MOST_WIDENING = 1e6
"""More seeds, or widths further beyond the widest one, are no remedy."""


class Verdict(StrEnum):
    """The judgement of a predicted exponent by a measured one, the gravest first."""

    contradict = "contradict"
    crossover = "crossover"
    inconclusive = "inconclusive"
    agree = "agree"


@dataclass(frozen=True, slots=True)
class Remedy:
    """Seeds at each width, and the widest width, that would settle an estimate."""

    seeds: int
    width: int


def judge(estimate: Estimate, predicted: float, margin: float) -> Verdict:
    """The verdict on ``predicted``, an exponent or ``-inf`` for "exactly zero", within ``margin``.

    * agree: the whole interval lies within ``predicted -+ margin``.
    * contradict: it lies outside, and the slopes are settling, move by less than the margin, or
      show no drift but a hint of one away from the prediction.
    * crossover: neither, and a drift beyond the noise is the larger part of the interval; or on the
      way up to the prediction from a term that theory knows to be smaller by ``M**-decay`` alone,
      which was the larger one in narrow networks.
    * inconclusive: neither, because of the noise.

    A size is either exactly zero or not, so ``-inf`` is agreed to or contradicted.

    >>> from empirical.fit.exponent import estimate
    >>> widths = [64, 128, 256, 512, 1024]
    >>> found = estimate(widths, [[width**-0.5 for width in widths]] * 3)
    >>> judge(found, predicted=-0.5, margin=0.05).name, judge(found, predicted=-1, margin=0.05).name
    ('agree', 'contradict')
    """
    _check_question(predicted, margin)
    if math.isinf(predicted) or math.isinf(estimate.slope):
        return Verdict.agree if estimate.slope == predicted else Verdict.contradict
    if predicted - margin <= estimate.low and estimate.high <= predicted + margin:
        return Verdict.agree
    outside = estimate.high < predicted - margin or predicted + margin < estimate.low
    if outside and _trusted(estimate, predicted, margin):
        under_way = _under_way(estimate, predicted, margin)
        return Verdict.crossover if under_way else Verdict.contradict
    if estimate.drifting and estimate.drift >= estimate.noise:
        return Verdict.crossover
    return Verdict.inconclusive


def judge_interval(low: float, high: float, predicted: float, margin: float) -> Verdict:
    """The verdict on ``predicted`` of an interval that already holds drift and noise.

    >>> judge_interval(-0.02, 0.03, predicted=0, margin=0.05).name
    'agree'
    >>> judge_interval(0.06, 0.3, predicted=0, margin=0.05).name
    'contradict'
    >>> judge_interval(-0.3, 0.3, predicted=0, margin=0.05).name
    'inconclusive'
    """
    _check_question(predicted, margin)
    if predicted - margin <= low and high <= predicted + margin:
        return Verdict.agree
    if high < predicted - margin or predicted + margin < low:
        return Verdict.contradict
    return Verdict.inconclusive


def at_most(fit: Estimate, bound: float, margin: float) -> Verdict:
    """Agree if the whole interval keeps a bound, contradict if none of it does."""
    if fit.high <= bound + margin:
        return Verdict.agree
    return Verdict.contradict if fit.low > bound + margin else Verdict.inconclusive


def overall(verdicts: Iterable[Verdict]) -> Verdict:
    """The gravest of ``verdicts``: contradict, then crossover, then inconclusive, then agree.

    >>> overall([Verdict.agree, Verdict.crossover]).name
    'crossover'
    """
    given = set(verdicts)
    for verdict in Verdict:
        if verdict in given:
            return verdict
    raise InvalidInput(
        found="no verdict at all",
        needed="at least one verdict, since nothing measured is nothing confirmed",
        do_this="run at least one check, or leave the summary out",
    )


def remedy(estimate: Estimate, predicted: float, margin: float) -> Remedy | None:
    """The seeds, or else the widest width, that would settle ``estimate`` if it stays where it is.

    Seeds narrow the noise, but never the span from slope to limit. That shrinks as ``M**-decay`` of
    the window's first width, hence with half that power of the widest one while the narrowest is
    kept. While the slopes are not settling, the width is only a next step. None means that nothing
    affordable helps: the exponent lies on the edge of the margin.

    >>> from empirical.fit.exponent import estimate
    >>> widths = [64, 128, 256, 512, 1024, 2048, 4096]
    >>> found = estimate(widths, [[s * m**-x for m in widths] for s, x in ((0.7, 0.5), (1.4, 0.6))])
    >>> judge(found, predicted=-0.5, margin=0.1).name, remedy(found, predicted=-0.5, margin=0.1)
    ('inconclusive', Remedy(seeds=11, width=4096))
    """
    _check_question(predicted, margin)
    widest, seeds = estimate.widths[-1], estimate.seeds
    if math.isinf(predicted) or math.isinf(estimate.slope):
        return Remedy(seeds, widest)
    if math.isinf(estimate.drift):
        another = max(widest + 1, round(widest**2 / estimate.widths[0]))
        return Remedy(seeds if seeds > 1 else START_SEEDS, another)

    below, above = sorted((estimate.slope, estimate.limit))
    spare_below, spare_above = below - estimate.low, estimate.high - above
    bottom, top = predicted - margin, predicted + margin
    if bottom < below and above < top:
        return _more_seeds(estimate, (below - bottom) / spare_below, (top - above) / spare_above)
    if _trusted(estimate, predicted, margin) and top < below:
        return _more_seeds(estimate, (below - top) / spare_below)
    if _trusted(estimate, predicted, margin) and above < bottom:
        return _more_seeds(estimate, (bottom - above) / spare_above)
    room = abs(abs(estimate.limit - predicted) - margin)
    span, power = above - below, 2 / estimate.decay
    if span > room * MOST_WIDENING ** (1 / power):
        return None
    return Remedy(seeds, math.ceil(widest * max(2.0, (span / room) ** power)))


def remedy_of_bound(estimate: Estimate, bound: float, margin: float) -> Remedy | None:
    """The same for a bound, of which one side decides: see `at_most`.

    >>> from empirical.fit.exponent import estimate
    >>> found = estimate([64, 128, 256], [[8, 8.1, 8.3], [9, 9, 9.1], [7, 9, 8]])
    >>> at_most(found, 0, 0.05).name, remedy_of_bound(found, 0, 0.05) is not None
    ('inconclusive', True)
    """
    _check_question(bound, margin)
    if math.isinf(bound) or math.isinf(estimate.slope) or math.isinf(estimate.drift):
        return None if math.isinf(bound) else remedy(estimate, bound, margin)
    below, above = sorted((estimate.slope, estimate.limit))
    top = bound + margin
    if above < top:
        return _more_seeds(estimate, (top - above) / (estimate.high - above))
    if below > top:
        return _more_seeds(estimate, (below - top) / (below - estimate.low))
    return remedy(estimate, bound, margin)


def agreeing_margin(estimate: Estimate, predicted: float) -> float:
    """The smallest margin, in hundredths, within which the estimate agrees with a prediction.

    >>> from empirical.fit.exponent import estimate
    >>> found = estimate([64, 128, 256], [[8, 8.1, 8.3], [9, 9, 9.1]])
    >>> judge(found, 0.0, agreeing_margin(found, 0.0)).name
    'agree'
    """
    return math.ceil(100 * max(predicted - estimate.low, estimate.high - predicted)) / 100


def _trusted(estimate: Estimate, predicted: float, margin: float) -> bool:
    """Whether what the slopes may still do is bounded, too small to matter, or leads elsewhere."""
    shift = estimate.limit - estimate.slope
    away = not estimate.drifting and (predicted - estimate.slope) * shift < 0
    return estimate.settling or abs(shift) <= margin or away


def _under_way(estimate: Estimate, predicted: float, margin: float) -> bool:
    """Whether slopes rise from the exponent of a lesser term, ``predicted - decay``, as they may.

    Terms of either size add up to slopes between the two, and those to nothing that extrapolates.
    """
    between = predicted - estimate.decay - margin <= estimate.slope <= predicted + margin
    return estimate.decay < DECAY and between and estimate.limit > estimate.slope


def _more_seeds(estimate: Estimate, *shares: float) -> Remedy | None:
    """The fewest seeds whose noise is at most the smallest of ``shares`` of what it is now."""
    widest, seeds = estimate.widths[-1], estimate.seeds
    if min(shares) >= 1:
        return Remedy(seeds, widest)
    probability = (1 + estimate.confidence) / 2
    now = quantile(probability, estimate.degrees) / math.sqrt(seeds)
    few, many = max(seeds, 1), MOST_SEEDS

    def enough(count: int) -> bool:
        return quantile(probability, count - 1) / math.sqrt(count) <= min(shares) * now

    if not enough(many):
        return None
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if enough(middle) else (middle, many)
    return Remedy(many, widest)


def _check_question(predicted: float, margin: float) -> None:
    if math.isnan(predicted) or predicted == math.inf:
        raise InvalidInput(
            found=f"predicted={predicted!r}",
            needed="a finite exponent, or -inf for a size that is exactly zero",
            do_this="evaluate the predicted exponent to a number first",
        )
    if not (math.isfinite(margin) and margin > 0):
        raise InvalidInput(
            found=f"margin={margin!r}",
            needed="a margin that is finite and larger than 0",
            do_this="pass for instance margin=0.05",
        )
