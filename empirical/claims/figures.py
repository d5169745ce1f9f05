"""Figures of claims, drawn from numbers that were stored: nothing is measured to draw them again.

`draw` makes a PNG of a `Figure`; `redraw` makes those of a folder that `claim_report.write` filled.
"""

from __future__ import annotations

import io
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from empirical.measure.store import write_atomically
from empirical.report.plots import COLOURS, MARKERS
from scaling.sizes.errors import InvalidInput

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

FIGURES = "figures.json"
LINES = ("-", "--", ":", "-.")
PALETTE = 256
NARROWEST = 4.0
"""A logarithmic axis spans this factor at least: what does not move looks as if it did not."""
INSIDE = 4
"""More curves than these have their legend beside the panel."""


@dataclass(frozen=True)
class Curve:
    """Points of one line of a figure; ``low`` and ``high`` bound the bars, if there are any."""

    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()


@dataclass(frozen=True)
class Figure:
    """The numbers of a figure: `draw` makes a picture of them, and `redraw` of stored ones.

    ``turn`` curves in a row differ by their colour; the next ones have these colours again, and
    another kind of line. 0 is as many as there are colours.
    """

    name: str
    title: str
    x_label: str
    y_label: str
    curves: tuple[Curve, ...]
    log_y: bool = True
    turn: int = 0

    def _repr_png_(self) -> bytes:
        return draw(self)


def draw(figure: Figure) -> bytes:
    """A PNG: one panel, x logarithmic to base 2, bars where a curve has bounds."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    beside = len(figure.curves) > INSIDE
    canvas = Canvas(figsize=(8.4 if beside else 6.4, 4.2), layout="constrained")
    FigureCanvasAgg(canvas)
    panel = canvas.subplots()
    for i, curve in enumerate(figure.curves):
        _curve(panel, curve, i, figure.turn or len(COLOURS))
    panel.set_xscale("log", base=2)
    if figure.log_y and all(y > 0 for curve in figure.curves for y in curve.y):
        _logarithmic(panel)
    panel.set_xlabel(figure.x_label)
    panel.set_ylabel(figure.y_label)
    panel.set_title(figure.title, fontsize=10)
    panel.grid(alpha=0.25)
    if beside:
        panel.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))
    else:
        panel.legend(fontsize=8)
    return _png(canvas)


def _png(canvas: Canvas) -> bytes:
    """With a palette: lines and letters need few colours, and a notebook holds many figures."""
    from PIL import Image

    drawn = io.BytesIO()
    canvas.savefig(drawn, format="png", dpi=110)
    buffer = io.BytesIO()
    Image.open(drawn).convert("RGB").quantize(PALETTE).save(buffer, format="png", optimize=True)
    return buffer.getvalue()


def _logarithmic(panel: Axes) -> None:
    """A logarithmic y axis, with plain numbers on it where it spans less than two decades."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    panel.set_yscale("log")
    low, high = panel.get_ylim()
    if high < NARROWEST * low:
        middle, reach = (low * high) ** 0.5, NARROWEST**0.5
        low, high = middle / reach, middle * reach
        panel.set_ylim(low, high)
    panel.yaxis.set_minor_formatter(NullFormatter())
    if high < 100 * low:
        panel.yaxis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0)))
        panel.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))


def _curve(panel: Axes, curve: Curve, i: int, turn: int) -> None:
    colour, line = i % turn, i // turn
    style: dict[str, Any] = {
        "color": COLOURS[colour % len(COLOURS)], "marker": MARKERS[colour % len(MARKERS)],
        "ls": LINES[line % len(LINES)], "ms": 4, "lw": 1, "label": curve.label,
    }  # fmt: skip
    if curve.low and curve.high:
        y = np.array(curve.y)
        bars = np.maximum([y - np.array(curve.low), np.array(curve.high) - y], 0)
        panel.errorbar(curve.x, curve.y, yerr=bars, capsize=2, **style)
    else:
        panel.plot(curve.x, curve.y, **style)


def file_name(figure: Figure) -> str:
    """The name of its file, without ending."""
    return re.sub(r"\W+", "_", figure.name).strip("_")


def as_json(figure: Figure) -> dict[str, Any]:
    """A figure as plain numbers."""
    curves = [
        {"label": c.label, "x": c.x, "y": c.y, "low": c.low, "high": c.high} for c in figure.curves
    ]
    return {
        "name": figure.name,
        "title": figure.title,
        "x_label": figure.x_label,
        "y_label": figure.y_label,
        "log_y": figure.log_y,
        "turn": figure.turn,
        "curves": curves,
    }


def from_json(record: dict[str, Any]) -> Figure:
    """The inverse of `as_json`."""
    curves = tuple(
        Curve(c["label"], *(tuple(c[k]) for k in ("x", "y", "low", "high")))
        for c in record["curves"]
    )
    name, title, x_label, y_label = (record[k] for k in ("name", "title", "x_label", "y_label"))
    return Figure(name, title, x_label, y_label, curves, record["log_y"], record["turn"])


def write(figures: list[Figure], folder: Path) -> None:
    """The pictures, and the numbers that they are drawn from; figures of other runs are kept."""
    path, known = folder / FIGURES, {}
    if path.exists():
        known = {figure.name: figure for figure in _read(path)}
    known |= {figure.name: figure for figure in figures}
    text = json.dumps([as_json(figure) for figure in known.values()], indent=1)
    write_atomically(path, text.encode())
    redraw(folder)


def redraw(folder: Path) -> list[Path]:
    """Draw every figure of a folder again, from its stored numbers.

    Raises:
        InvalidInput: if the folder has none, or they cannot be read.
    """
    written = []
    for figure in _read(folder / FIGURES):
        path = folder / f"{file_name(figure)}.png"
        write_atomically(path, draw(figure))
        written.append(path)
    return written


def _read(path: Path) -> list[Figure]:
    try:
        return [from_json(record) for record in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidInput(
            f"{path}, which holds no figures ({type(error).__name__}: {error})",
            f"{FIGURES} as `scaling claims --out` writes it",
            "run `scaling claims --out` into that folder again: finished cells are not repeated",
        ) from None
