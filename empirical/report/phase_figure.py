"""The picture of a phase diagram: regions by colour and hatch, boundaries by colour and width.

Colours are those of Okabe and Ito, which the colour-blind tell apart; hatches tell regions apart
in print. Measured places are dots: filled where measurement agrees, crosses where it contradicts.
"""

from __future__ import annotations

import io
from collections.abc import Mapping

from scaling.sizes.plane import Point
from scaling.solve.phases import AT_START, REGIMES, PhaseDiagram

COLOURS = dict(
    zip(REGIMES, ("#7F7F7F", "#D55E00", "#009E73", "#0072B2", "#E69F00", "#56B4E9"), strict=True)
)
HATCHES = {AT_START: "xx", "unstable": "///", "sub-maximal": "..", "lazy": "", "frozen": "\\\\\\"}
MARKS = {"agree": "o", "contradict": "X"}


def phase_picture(
    diagram: PhaseDiagram, verdicts: Mapping[Point, str] | None = None, kind: str = "png"
) -> bytes:
    """The diagram as an image file; ``kind`` is png or svg."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
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
        panel.plot(
            *map(float, at), MARKS.get(verdict, "D"), mfc="black" if verdict in MARKS else "white",
            mec="black", ms=6,
        )  # fmt: skip
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
    figure.legend(handles=patches, loc="outside right upper", fontsize=9, frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=130)
    return buffer.getvalue()


def _pale(regime: str, part: float) -> tuple[float, ...]:
    """The colour of a regime, mixed with white and opaque: neighbours then show no seam."""
    from matplotlib.colors import to_rgb

    return tuple(1 - part * (1 - channel) for channel in to_rgb(COLOURS[regime]))


def _whose(diagram: PhaseDiagram) -> str:
    return "network" if diagram.layer == "network" else f"{diagram.layer} layer"
