"""The picture of a phase diagram: regions by colour and hatch, boundaries by colour and formula.

Colours are those of Okabe and Ito, which the colour-blind tell apart; hatches tell regions apart
in print. The formula of a line stands beside its longest piece. Measured places have marks,
one for each verdict, which the legend names.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from math import atan2, cos, degrees, sin
from typing import TYPE_CHECKING, Any

from scaling.sizes.plane import Point
from scaling.solve.phases import AT_START, REGIMES, Boundary, PhaseDiagram

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = dict(
    zip(REGIMES, ("#7F7F7F", "#D55E00", "#009E73", "#0072B2", "#E69F00", "#56B4E9"), strict=True)
)
HATCHES = {AT_START: "xx", "unstable": "///", "sub-maximal": "..", "lazy": "", "frozen": "\\\\\\"}
MARKS = {"agree": "o", "contradict": "X"}
LEFT_OPEN = "D"
SHORTEST = 0.2
"""The part of the window that a piece of a line must span to have its formula beside it."""

CLEAR = 7
"""Points between a line and its formula, for the marks of measured places."""


def phase_picture(
    diagram: PhaseDiagram, verdicts: Mapping[Point, str] | None = None, kind: str = "png"
) -> bytes:
    """The diagram as an image file; ``kind`` is png or svg."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    figure = Figure(figsize=(7.4, 5.2), layout="constrained")
    FigureCanvasAgg(figure)
    panel = figure.subplots()
    for regime, cells in diagram.regions:
        for cell in cells:
            xs, ys = zip(*((float(x), float(y)) for x, y in cell), strict=True)
            panel.fill(
                xs, ys, facecolor=_pale(regime, 0.33), edgecolor=_pale(regime, 0.6),
                hatch=HATCHES.get(regime, ""), lw=0, antialiased=False,
            )  # fmt: skip
    for b in diagram.boundaries:
        xs, ys = zip(*((float(x), float(y)) for x, y in (b.start, b.end)), strict=True)
        panel.plot(xs, ys, color="black", lw=4.6, solid_capstyle="butt")
        panel.plot(xs, ys, color=COLOURS[b.on], lw=3.2, solid_capstyle="butt")
    for at, regime in diagram.corners:
        panel.plot(*map(float, at), "s", color=COLOURS[regime], mec="black", ms=9)
    for at, verdict in (verdicts or {}).items():
        panel.plot(*map(float, at), **_mark(verdict))
    (left, low), (right, high) = diagram.window[0], diagram.window[2]
    panel.set_xlim(float(left), float(right))
    panel.set_ylim(float(low), float(high))
    panel.set_xlabel(diagram.x)
    panel.set_ylabel(diagram.y)
    name = diagram.prediction.problem.rule.name or str(diagram.prediction.problem.rule)
    panel.set_title(f"{name[:60]}: regime of the {_whose(diagram)} at the first step", fontsize=10)
    seen = [*(r for r, _ in diagram.regions), *(b.on for b in diagram.boundaries)]
    seen += [regime for _, regime in diagram.corners]
    patches = [
        Patch(fc=_pale(r, 0.5), ec=COLOURS[r], hatch=HATCHES.get(r, ""), label=r)
        for r in REGIMES
        if r in seen
    ]
    marks = [
        Line2D([], [], **_mark(verdict), label=f"measured: {verdict}")
        for verdict in dict.fromkeys((verdicts or {}).values())
    ]
    figure.legend(handles=[*patches, *marks], loc="outside right upper", fontsize=9, frameon=False)
    figure.draw_without_rendering()  # angles are known once everything has its place
    for b in _longest(diagram):
        _write_beside(panel, b)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=130)
    return buffer.getvalue()


def _mark(verdict: str) -> dict[str, Any]:
    """Black where a verdict fell, hollow where none did."""
    face, edge = ("black", "white") if verdict in MARKS else ("white", "black")
    return {"marker": MARKS.get(verdict, LEFT_OPEN), "ls": "", "mfc": face, "mec": edge, "ms": 8}


def _longest(diagram: PhaseDiagram) -> list[Boundary]:
    """The longest piece of each line, where it has room for the formula."""
    (left, low), (right, high) = diagram.window[0], diagram.window[2]

    def part(b: Boundary) -> float:
        (x, y), (u, v) = b.start, b.end
        return max(float(abs(u - x) / (right - left)), float(abs(v - y) / (high - low)))

    pieces = sorted(diagram.boundaries, key=part)
    return [b for b in {b.equation: b for b in pieces}.values() if part(b) >= SHORTEST]


def _write_beside(panel: Axes, b: Boundary) -> None:
    """The formula along its line, on the side of the middle of the window."""
    ends = sorted((float(p), float(q)) for p, q in (b.start, b.end))
    (x, y), (u, v) = panel.transData.transform(ends)
    left, low, right, high = panel.bbox.extents
    angle = atan2(v - y, u - x)
    up = (-sin(angle), cos(angle))
    above = up[0] * (left + right - x - u) + up[1] * (low + high - y - v) >= 0
    off = CLEAR if above else -CLEAR
    panel.annotate(
        b.equation, ((ends[0][0] + ends[1][0]) / 2, (ends[0][1] + ends[1][1]) / 2),
        xytext=(off * up[0], off * up[1]), textcoords="offset points", ha="center",
        va="bottom" if above else "top", rotation=degrees(angle), rotation_mode="anchor",
        fontsize=8, bbox={"fc": "white", "ec": "none", "alpha": 0.8, "pad": 1}, in_layout=False,
    )  # fmt: skip


def _pale(regime: str, part: float) -> tuple[float, ...]:
    """The colour of a regime, mixed with white and opaque: neighbours then show no seam."""
    from matplotlib.colors import to_rgb

    return tuple(1 - part * (1 - channel) for channel in to_rgb(COLOURS[regime]))


def _whose(diagram: PhaseDiagram) -> str:
    return "network" if diagram.layer == "network" else f"{diagram.layer} layer"
