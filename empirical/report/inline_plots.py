"""Plots that stand inside a page: SVG without a header, in the colours of the page's text.

matplotlib writes whole files. Here the header and the metadata go, names that are referred to get a
prefix of their own (two plots on a page must not share one), black is `currentColor`, and text
stays text, in the font of the page.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from html import escape

from empirical.fit.verdict import Verdict
from empirical.report.plots import COLOURS, TITLES, DrawnSizes, curves, draw
from empirical.verify.graph_verification import GraphCheck, GraphVerification
from empirical.verify.verification import Series, Verification

QUANTITIES = {
    "init": "nodes at the start",
    "excess": "loss above that of no knowledge",
    "cotangent": "cotangents of nodes",
    "own": "own product, moved",
    "bound": "the node that binds, moved",
    "change": "nodes, all tensors moved",
}
PANEL, BELOW, ROW = 2.3, 0.55, 0.19
"""Heights in inches: of a panel, of its axis below, and of a line of the legend."""
_NAMED = re.compile(r'(\bid="|url\(#|href="#)')


def inline_plot(title: str, shown: Sequence[DrawnSizes], sizes: Sequence[int], axis: str) -> str:
    """One panel as an svg element with a title.

    Args:
        title: also tells names on the page apart.
        shown: what is drawn.
        sizes: of the axis.
        axis: its label.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": title}):
        below = BELOW + ROW * len(shown)
        height = PANEL + below + 0.12
        figure = Figure(figsize=(4.6, height))
        FigureCanvasSVG(figure)
        figure.subplots_adjust(left=0.18, right=0.97, top=1 - 0.12 / height, bottom=below / height)
        panel = figure.subplots()
        draw(panel, shown, sizes)
        panel.set_xlabel(axis)
        panel.legend(fontsize=8.5, framealpha=0, loc="upper left", bbox_to_anchor=(-0.18, -0.2))
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return as_element(buffer.getvalue(), title)


def as_element(text: str, title: str) -> str:
    """A file that matplotlib wrote, as an element of a page."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    prefix = re.sub(r"\W+", "-", title).strip("-")
    text = _NAMED.sub(lambda m: f"{m[1]}{prefix}-", text).replace("xlink:href", "href")
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text).replace("#000000", "currentColor")
    head, _, rest = text.partition(">")
    head += f' class="plot" role="img" aria-label="{escape(title)}"'
    return f"{head}><title>{escape(title)}</title>{rest}"


def plots_of_chain(result: Verification, series: Series) -> list[tuple[str, str]]:
    """(caption, svg) of every quantity of a rule."""
    found = []
    for quantity in next(iter(series.layers.values())):
        title = f"{series.label}, {quantity}"
        shown = curves(result, series, quantity)
        found.append(
            (_plain(TITLES[quantity]), inline_plot(title, shown, series.widths, "width M"))
        )
    return found


def plots_of_model(found: GraphVerification, name: str) -> list[tuple[str, str]]:
    """(caption, svg) of every quantity; the gravest verdicts first, as many as have a colour."""
    axis, plots = found.axis, []
    for quantity, about in QUANTITIES.items():
        checks = [c for c in found.checks if c.quantity == quantity]
        if not checks:
            continue
        checks.sort(key=lambda c: list(Verdict).index(c.verdict))
        shown = [_curve(c) for c in checks[: len(COLOURS)]]
        caption = f"{quantity}: {about}"
        if len(checks) > len(shown):
            caption += f"; {len(shown)} of {len(checks)}, the table below has all"
        title = f"{name}, {quantity}"
        plots.append((caption, inline_plot(title, shown, axis.sizes, axis.name)))
    return plots


def _curve(check: GraphCheck) -> DrawnSizes:
    bound = "at most " if check.at_most else ""
    label = (
        f"{check.name}: {bound}{check.predicted} | {check.fit.slope:+.2f} | {check.verdict.name}"
    )
    slope = float(check.predicted) if check.predicted.is_finite else None
    return DrawnSizes(label, check.sizes, slope)


def _plain(title: str) -> str:
    """A title of a figure without its mathematics."""
    return title.replace(r"\Delta", "d").replace(r"\,", " ").replace("$", "")
