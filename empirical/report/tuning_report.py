"""A tuning on paper: a figure of regret against cost, and the files of a folder.

tuning.png     two panels, the plan and the standard; a curve a strategy, with a marker where a
               quarter, half and all of its budget were spent
report.json    what `scaling tune --format json` prints
tuning.md      its table; every run is in tunings.sqlite
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from empirical.measure.store import prepare_folder, refuse_foreign_reports, write_atomically
from empirical.report.plots import COLOURS, MARKERS
from empirical.transfer.transfer_grid import TransferWay
from empirical.tuning.measured_tuning import SHARES, MeasuredTuning
from scaling.report.as_json import to_json
from scaling.report.tables import Format, render

if TYPE_CHECKING:
    from matplotlib.axes import Axes

REPORT = "report.json"
OTHERS = ("tuning.png", "tuning.md")
KEYS = {"recipe", "axis", "budget", "strategies"}
TITLES = {
    TransferWay.plan: "numbers follow the size, by the plan",
    TransferWay.standard: "numbers stay, the code's own start",
}
LEAST, MOST = -0.5, 10.0
"""Regrets that are shown."""


def render_tuning(result: MeasuredTuning, style: str) -> str:
    """In one of the formats of the command line."""
    if Format(style) is Format.JSON:
        return to_json(result.as_json())
    return render(result.table(), Format(style))


def require_own_tuning(folder: Path) -> None:
    """Refuse a folder in which `write_tuning` would replace files of someone else's."""
    refuse_foreign_reports(prepare_folder(folder), REPORT, KEYS, OTHERS)


def write_tuning(result: MeasuredTuning, folder: Path) -> None:
    """The files of a folder, each whole or not at all."""
    require_own_tuning(folder)
    write_atomically(folder / REPORT, (to_json(result.as_json()) + "\n").encode())
    text = render(result.table(), Format.MARKDOWN) + "\n"
    write_atomically(folder / "tuning.md", text.encode())
    write_atomically(folder / "tuning.png", tuning_figure(result))


def tuning_figure(result: MeasuredTuning) -> bytes:
    """A PNG: regret at the target against cost at the base, by strategy and way."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    for panel, way in zip(panels, TransferWay, strict=True):
        _panel(panel, result, way)
    panels[0].set_ylabel("loss over that of tuning at the target, minus 1")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=8, loc="outside right center")
    figure.suptitle(
        f"{result.recipe}: tuned at {result.axis} {result.base}, trained at {result.at}; "
        f"{result.seeds} seeds",
        fontsize=11,
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()


def _panel(panel: Axes, result: MeasuredTuning, way: TransferWay) -> None:
    for k, name in enumerate(result.strategies):
        colour, marker = COLOURS[k % 7], MARKERS[(k + k // 7) % 7]
        cost = [result.cost(name, share) for share in range(len(SHARES))]
        found = [result.regret(name, way, share) for share in range(len(SHARES))]
        values = np.clip([x.value for x in found], LEAST, MOST)
        panel.plot(cost, values, ms=5, lw=1, label=name, color=colour, marker=marker)
        last = found[-1]
        reach = np.clip([last.low, last.high], LEAST, MOST)
        panel.plot([cost[-1]] * 2, reach, lw=1, alpha=0.4, color=colour)
    panel.axhline(0, color="0.5", ls=":", lw=1)
    panel.set_yscale("symlog", linthresh=0.25)
    panel.set_ylim(LEAST, MOST)
    panel.yaxis.set_major_formatter(lambda y, _: f"{100 * y:.0f} %")
    panel.set_xlabel(f"cost at {result.axis} {result.base}, in gradients")
    panel.set_title(TITLES[way], fontsize=9.5)
    panel.grid(alpha=0.25)
