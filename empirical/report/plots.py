"""Figures: measured sizes against width, with the predicted slope through them.

One figure a rule, one panel a quantity. Points are the geometric means over seeds, bars the range
over seeds, dashed lines have the predicted slope and pass through the widest point.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from empirical.verify.campaign import Mode
from empirical.verify.verification import Check, Series, Verification

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLES = {
    "init": "init: RMS of $h$",
    "own": r"own: RMS of $\Delta W\,h$",
    "feature": r"feature: RMS of $\Delta h$ ($\Delta f$ for the output)",
    "shrink": "shrink: part of $W$ that a step takes away",
    "ascent": "ascent: RMS of $X h$ of the perturbation",
}
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "os^DvP*"


def require() -> None:
    """Import what drawing needs, so that a missing package is known before anything is measured."""
    import matplotlib.figure  # noqa: F401


def figures(result: Verification) -> dict[str, bytes]:
    """File name (without ending) -> PNG, one per rule."""
    pictures: dict[str, bytes] = {}
    for series in result.series:
        name = re.sub(r"\W+", "_", series.rule).strip("_")[:40] or "rule"
        name = name if series.mode is Mode.DENSE else f"{name}_{series.mode}"
        if name in pictures:
            name = f"{name}_{len(pictures) + 1}"
        pictures[name] = _figure(result, series)
    return pictures


def _figure(result: Verification, series: Series) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12.5, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    quantities = list(next(iter(series.layers.values())))
    axes = figure.subplots(1, len(quantities))
    for panel, quantity in zip(axes, quantities, strict=True):
        draw(panel, curves(result, series, quantity), series.widths)
        panel.set_xlabel("width $M$")
        panel.set_title(TITLES[quantity], fontsize=10)
        panel.legend(fontsize=7.5)
    figure.suptitle(f"{series.label}: points measured, dashed lines predicted slopes", fontsize=11)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()


@dataclass(frozen=True)
class DrawnSizes:
    """Sizes, an array (seeds, widths), with their label and the slope that is predicted."""

    label: str
    sizes: Any
    predicted: float | None


def curves(result: Verification, series: Series, quantity: str) -> list[DrawnSizes]:
    """One quantity of every layer."""
    same = [c for c in result.checks if (c.rule, c.mode) == (series.rule, series.mode)]
    checks = {(c.layer, c.quantity): c for c in same}
    found = []
    for layer in series.layers:
        check, sizes = checks.get((layer, quantity)), series.layers[layer][quantity]
        given = check is not None and check.predicted.is_finite
        slope = float(check.predicted) if check is not None and given else None
        zero = not (sizes > 0).all()
        found.append(
            DrawnSizes(f"{layer}: exactly 0" if zero else _label(layer, check), sizes, slope)
        )
    return found


def draw(panel: Axes, shown: Sequence[DrawnSizes], at: Sequence[int]) -> None:
    """Curves on one panel: means, ranges over seeds, and predicted slopes through the last."""
    widths = np.array(at, dtype=float)
    for i, curve in enumerate(shown):
        colour, marker = COLOURS[i % 7], MARKERS[i % 7]
        sizes = np.asarray(curve.sizes)
        if not (sizes > 0).all():
            panel.plot([], [], color=colour, label=curve.label)
            continue
        middle = np.exp(np.log(sizes).mean(axis=0))
        spread = [middle - sizes.min(axis=0), sizes.max(axis=0) - middle]
        panel.errorbar(
            widths * 1.02**i, middle, yerr=np.maximum(spread, 0), ls="none", capsize=2, lw=1,
            label=curve.label, color=colour, marker=marker, ms=5,
        )  # fmt: skip
        if curve.predicted is not None:
            line = middle[-1] * (widths / widths[-1]) ** curve.predicted
            panel.plot(widths, line, ls="--", lw=1, color=colour)
    panel.set_xscale("log", base=2)
    panel.set_yscale("log")
    _at_least_a_decade(panel)
    panel.grid(alpha=0.25)


def _at_least_a_decade(panel: Axes) -> None:
    """Widen the size axis to a decade, so that a constant looks like one."""
    low, high = panel.get_ylim()
    if high < 10 * low:
        middle = math.sqrt(low * high)
        panel.set_ylim(middle / math.sqrt(10), middle * math.sqrt(10))


def _label(layer: str, check: Check | None) -> str:
    if check is None:
        return f"{layer}: not predicted"
    slope = check.measured.slope
    measured = "0" if math.isinf(slope) else f"{slope:+.3f}"
    return f"{layer}: {check.predicted} | {measured} | {check.verdict}"
