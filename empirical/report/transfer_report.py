"""A transfer on paper: a figure of loss against rate, and the files of a folder.

transfer.png     two panels, the plan and the standard; a curve a size, a star at its best rate,
                 crosses on the upper edge where runs diverged
report.json    what `scaling transfer --format json` prints
report.md      its table
runs.csv         every run; the store itself is runs.sqlite
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from empirical.measure.store import prepare_folder, refuse_foreign_reports, write_atomically
from empirical.report.plots import COLOURS, MARKERS
from empirical.transfer.exported_runs import export
from empirical.transfer.measured_transfer import MeasuredTransfer
from empirical.transfer.transfer_grid import TransferWay
from scaling.report.as_json import to_json
from scaling.report.tables import Format, render

if TYPE_CHECKING:
    from matplotlib.axes import Axes

REPORT = "report.json"
OTHERS = ("transfer.png", "report.md", "runs.csv")
KEYS = {"recipe", "axis", "log2_rates", "verdict"}
HEADROOM = 1.5
"""The loss before training lies at the upper edge, times this."""
TITLES = {
    TransferWay.plan: "every tensor at the numbers of the plan",
    TransferWay.standard: "the code's own start, one rate for all tensors",
}


def render_transfer(result: MeasuredTransfer, style: str) -> str:
    """In one of the formats of the command line."""
    if Format(style) is Format.JSON:
        return to_json(result.as_json())
    return render(result.table(), Format(style))


def require_own_reports(folder: Path) -> None:
    """Refuse a folder in which `write_transfer` would replace files of someone else's."""
    refuse_foreign_reports(prepare_folder(folder), REPORT, KEYS, OTHERS)


def write_transfer(result: MeasuredTransfer, folder: Path) -> None:
    """The files of a folder, each whole or not at all."""
    require_own_reports(folder)
    write_atomically(folder / REPORT, (to_json(result.as_json()) + "\n").encode())
    text = render(result.table(), Format.MARKDOWN) + "\n"
    write_atomically(folder / "report.md", text.encode())
    export(result.runs, folder / "runs.csv")
    write_atomically(folder / "transfer.png", transfer_figure(result))


def transfer_figure(result: MeasuredTransfer) -> bytes:
    """A PNG: loss against the learning rate at the base, by way and size."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    for panel, way in zip(panels, TransferWay, strict=True):
        _panel(panel, result, way)
    panels[0].set_ylabel("loss after training")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=8, title=result.axis, loc="outside right center")
    _logarithmic(panels[0])
    figure.suptitle(f"{result.recipe}: {result.steps} steps, {result.seeds} seeds", fontsize=11)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()


def _panel(panel: Axes, result: MeasuredTransfer, way: TransferWay) -> None:
    losses, found = result.losses(way), result.measures[way]
    rates = 2.0 ** np.array(result.rates)
    top = HEADROOM * float(losses.start.max())
    for k, size in enumerate(result.sizes):
        style: dict[str, Any] = {"color": COLOURS[k % len(COLOURS)]}
        logs = losses.logs[k]
        ended = np.isnan(losses.table[k])
        mean = np.exp(np.where(ended, np.nan, logs).mean(axis=0))
        whole = np.isfinite(mean)
        panel.plot(
            rates[whole], mean[whole], marker=MARKERS[k % len(MARKERS)], ms=4, lw=1.2,
            label=str(size), **style,
        )  # fmt: skip
        low, high = np.exp(logs.min(axis=0)), np.exp(logs.max(axis=0))
        panel.fill_between(rates[whole], low[whole], high[whole], alpha=0.15, lw=0, **style)
        if (~whole).any():
            offset = 1.06**k
            panel.plot(
                rates[~whole], np.full((~whole).sum(), top * offset), "x", ms=5, **style
            )  # fmt: skip
        best, loss = found.best[k], found.lowest[k]
        edge: dict[str, Any] = {"markerfacecolor": "none"} if size in found.at_edge else {}
        panel.plot(2.0**best.value, loss.value, "*", ms=13, mec="black", mew=0.6, **style, **edge)
    panel.plot([], [], "x", color="0.3", label="diverged")
    panel.plot([], [], "*", color="0.7", mec="black", ms=10, label="best, fitted")
    start = float(np.exp(np.log(losses.start).mean()))
    panel.axhline(start, color="0.5", ls=":", lw=1, label="before training")
    panel.set_xscale("log", base=2)
    panel.set_yscale("log")
    panel.set_xlabel(
        "learning rate at the base" if way is TransferWay.plan else "learning rate"
    )  # fmt: skip
    drift = f"drift {found.drift} per doubling, of 0: {result.verdict(way)}"
    panel.set_title(f"{TITLES[way]}\n{drift}", fontsize=9.5)
    panel.grid(alpha=0.25)


def _logarithmic(panel: Axes) -> None:
    """Plain numbers on the axis of losses."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    panel.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 3.0, 5.0, 7.0)))
    panel.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    panel.yaxis.set_minor_formatter(NullFormatter())
