"""Why a measured exponent is not yet the one of infinite width: sums whose terms trade places.

A sum has the size of its larger term. Where theory has one term larger (a `Regime`), a network that
is not wide enough may have the other, and sizes cross over from one exponent to another on the way.
Both terms of every watched sum are measured beside the sizes (`training.watched_sums`), so that

    culprit       names the sums that make slopes drift: terms near each other, and drifting apart
    too_narrow    names those in which the widest network is still on the other side, or so near
                  to it that slopes are between, and the width at which they trade places, by the
                  exponents of theory
    small_targets says that the errors are not yet of the targets' size

Not covered: sums of matrices without a damping, whose terms are not watched; where theory knows
that they differ by little, intervals allow for it instead (`Scale.gap`, exponent.py).
"""

from __future__ import annotations

import math
from collections.abc import Collection
from fractions import Fraction
from typing import TypeAlias

import numpy as np

from empirical.fit.exponent import DECAY, Estimate
from empirical.measure.measured_sizes import Measurement, mean_size
from empirical.measure.training import terms_of
from scaling.calculus.context import Regime
from scaling.rules.like_terms import is_damping
from scaling.rules.tree import Node
from scaling.sizes.scale import Order
from scaling.solve.crossing_widths import crossing
from scaling.solve.predict import Prediction

Runs: TypeAlias = list[list[Measurement]]
"""Measurements by seed and width."""


def culprit(runs: Runs, layer: str, close: float = 30.0) -> str:
    """The damped sums that make a crossover: terms within a factor ``close``, and drifting apart.

    The layer's own sums come first; a crossover in a lower layer is felt above it too.
    """
    found: list[tuple[bool, float, str]] = []
    for (place, node), (first, last) in _ratios(runs).items():
        drift = abs(last - first)
        nearest = min(abs(first), abs(last)) if first * last > 0 else 0.0
        if drift > math.log(1.5) and nearest < math.log(close):
            found.append((place == layer, drift, _traded(place, node, first, last)))
    found.sort(key=lambda x: (not x[0], -x[1]))
    return "; ".join(text for _, _, text in found[:2])


def too_narrow(
    runs: Runs, prediction: Prediction, layers: Collection[str], margin: float = math.inf
) -> str:
    """The sums in some layers that have not settled on the larger term by theory.

    In the widest network the other term is larger still, or its part of the sum is such that the
    slope of the sum alone, M^x + M^y, is off by more than half a margin: a power of the sum is off
    by a multiple of that. What theory says of wider networks is not contradicted by these; nothing
    if there are none.
    """
    ratios, found = _ratios(runs), []
    for place in layers:
        for regime in prediction.regimes.get(place, ()):
            if regime.order not in (Order.GREATER, Order.LESS):
                continue
            first, last = ratios.get((place, regime.node), (math.inf, math.inf))
            in_order = terms_of(regime.node)[0] == regime.left
            ahead = 1 if in_order == (regime.order is Order.GREATER) else -1
            if math.isfinite(last) and (
                ahead * last < 0 or _slope_off(regime, ahead * first, ahead * last) > margin / 2
            ):
                found.append(_traded(place, regime.node, first, last))
                found[-1] += _meeting(regime, last if in_order else -last, runs[0][-1].width)
    return "; ".join(dict.fromkeys(found))


def _slope_off(regime: Regime, first: float, last: float) -> float:
    """How far the slope of a sum is from that of its larger term, in the upper half of the widths.

    ``first`` and ``last``: log of the larger term over the other, narrowest and widest. The slope
    of M^x + M^y is x and y, weighted by the parts that the terms have of the sum.
    """
    x, y = regime.left_size.width, regime.right_size.width
    if not (x.is_Rational and y.is_Rational):
        return 0.0
    middle = last - (last - first) / 4
    return abs(float(x - y)) / (1 + math.exp(middle))


def _meeting(regime: Regime, left_over_right: float, width: int) -> str:
    """The width at which both terms are alike, from what they are in the widest network."""
    x, y = regime.left_size.width, regime.right_size.width
    if not (x.is_Rational and y.is_Rational):
        return ""
    meeting = crossing(math.exp(left_over_right), width, float(x), float(y))
    return f", alike at about width {meeting:.2g}" if math.isfinite(meeting) else ""


def small_targets(runs: Runs, targets: float) -> str:
    """Squared errors where outputs exceed the targets: outputs, which fade with the width.

    ``targets`` is their RMS; nothing if they are the larger ones already in the narrowest network.
    """
    outputs = mean_size([row[0].sizes["output"].init for row in runs])
    if outputs <= targets:
        return ""
    width = runs[0][0].width
    return (
        f"outputs of {outputs:.2g} at width {width} drown targets of {targets:.2g}, and fade: "
        "divide the targets by their standard deviation"
    )


def _ratios(runs: Runs) -> dict[tuple[str, Node], tuple[float, float]]:
    """For every watched sum, log of its first term over its second, narrowest and widest."""
    narrow, wide = [row[0] for row in runs], [row[-1] for row in runs]
    shared = [key for key in runs[0][0].sums if all(key in m.sums for m in (*narrow, *wide))]

    def ratio(key: tuple[str, Node], side: list[Measurement]) -> float:
        return float(np.mean([math.log(_ratio(*m.sums[key])) for m in side]))

    return {key: (ratio(key, narrow), ratio(key, wide)) for key in shared}


def _traded(place: str, node: Node, first: float, last: float) -> str:
    """How the second term of a sum compares with the first."""
    one, other = map(str, terms_of(node))
    if is_damping(terms_of(node)[1]):
        one, other = "the other term", "the damping"
    return (
        f"{node} in {place}: {other} goes from {math.exp(-first):.2g} to {math.exp(-last):.2g} "
        f"times {one}"
    )


def _ratio(other: float, damping: float) -> float:
    tiny = 1e-300
    return max(other, tiny) / max(damping, tiny)


def drift(measured: Estimate) -> str:
    """The bounds of slopes that drift, where no sum explains it."""
    if measured.decay < DECAY:
        gap = Fraction(measured.decay).limit_denominator(100)
        return f"slopes drift as M^(-{gap}), since terms that differ by M^({gap}) are added"
    return "slopes still drift, and no damped sum explains it"
