"""More seeds, larger sizes, or neither: the cure for checks of a model that are left open.

    noise    the seeds at which the interval would be narrow enough, if the slope stays where it is
    drift    the size up to which slopes would have settled, if they go on as they do
    edge     neither that can be afforded: the margin within which it would agree, if others are out
    few      neither, and too few seeds to say so: more seeds first

Each is a forecast from the interval that was measured.
"""

from __future__ import annotations

from collections.abc import Sequence

from empirical.fit.verdict import Remedy, Verdict, agreeing_margin, remedy, remedy_of_bound
from empirical.trace.model_file import GrowingAxis
from empirical.verify.graph_verification import GraphCheck

AFFORDABLE_SEEDS = 256
AFFORDABLE_GROWTH = 16
"""Sizes beyond the largest by this factor are not advised."""
FEW_SEEDS = 8
"""Below, Student's factor is so large that an interval says little of what more seeds would do."""
NEXT_EXPONENT = 0.5
OPEN = (Verdict.crossover, Verdict.inconclusive)


def settling_lines(checks: Sequence[GraphCheck], axis: GrowingAxis, margin: float) -> list[str]:
    """The lines below a table with open checks; none if there are none.

    Args:
        checks: of nodes and tensors.
        axis: what grew.
        margin: of exponents.
    """
    noise: list[tuple[int, GraphCheck]] = []
    drift: list[tuple[int, GraphCheck]] = []
    few: list[tuple[float, GraphCheck]] = []
    edge: list[tuple[float, GraphCheck]] = []
    for check in checks:
        if check.verdict not in OPEN:
            continue
        cure = _cure(check, margin)
        if cure is None or not _affordable(cure, axis):
            (few if check.fit.seeds < FEW_SEEDS else edge).append((_margin(check), check))
        elif cure.width > axis.sizes[-1]:
            drift.append((cure.width, check))
        else:
            noise.append((max(cure.seeds, check.fit.seeds + 1), check))
    lines = []
    if noise:
        seeds = max(noise, key=lambda x: x[0])
        lines.append(
            f"open for noise, {_named(noise)}: --seeds {seeds[0]} would settle "
            f"{_them(noise)}, if slopes stay where they are"
        )
    if drift:
        size, first = max(x for x, _ in drift), axis.sizes[0]
        last = first
        while last < size:
            last *= 2
        lines.append(
            f"open since slopes still change, {_named(drift)}: --axis {axis.name}={first}:{last} "
            f"would settle {_them(drift)}, if they go on so"
        )
    if few:
        lines.append(f"open with few seeds, {_named(few)}: --seeds {FEW_SEEDS} would tell more")
    if edge:
        widest = max(x for x, _ in edge)
        agrees = f"--margin {widest:.2f} would agree"
        lines.append(
            f"open at the edge of the margin, {_named(edge)}: neither {AFFORDABLE_SEEDS} seeds nor "
            f"sizes up to {AFFORDABLE_GROWTH} times the largest settle {_them(edge)}; "
            + (agrees if widest < NEXT_EXPONENT else "no margin that tells exponents apart agrees")
        )
    return lines


def _cure(check: GraphCheck, margin: float) -> Remedy | None:
    target = float(check.predicted)
    if check.at_most:
        return remedy_of_bound(check.fit, target, margin)
    return remedy(check.fit, target, margin)


def _affordable(cure: Remedy, axis: GrowingAxis) -> bool:
    return cure.seeds <= AFFORDABLE_SEEDS and cure.width <= AFFORDABLE_GROWTH * axis.sizes[-1]


def _margin(check: GraphCheck) -> float:
    target = float(check.predicted)
    return check.fit.high - target if check.at_most else agreeing_margin(check.fit, target)


def _named(found: Sequence[tuple[float, GraphCheck]]) -> str:
    """The check that takes the most, and how many there are beside it."""
    worst = max(found, key=lambda x: x[0])[1]
    more = len(found) - 1
    others = f" and {more} other{'s' if more > 1 else ''}" if more else ""
    return f"{worst.quantity} of {worst.name}{others}"


def _them(found: Sequence[object]) -> str:
    return "them" if len(found) > 1 else "it"
