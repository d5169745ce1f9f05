"""Verifications and measurements as text, Markdown, LaTeX, HTML, JSON, and as files.

`write` leaves in a folder: report.json (the interface), report.md (the table), sizes.csv (every
measured number, one row a size) and, per rule, a figure. Each is written whole or not at all;
records.jsonl beside them grows while measuring (store.py).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from empirical.fit.exponent import Estimate
from empirical.measure.measured_sizes import Measurement
from empirical.measure.store import prepare_folder, refuse_foreign_reports, write_atomically
from empirical.verify.campaign import Tick
from empirical.verify.derivation_lines import Line
from empirical.verify.measured_alignments import Alignments
from empirical.verify.verification import ASCENT, SHRINK, Verification
from scaling.report.as_json import to_json
from scaling.report.step_lines import SIZE_OF, Derivation, PrintedLine, timed
from scaling.report.tables import Format, Table
from scaling.report.tables import render as render_table
from scaling.report.wrapping import Entry, listing, titled, wrapped


def render(result: Verification, style: str) -> str:
    """A verification in one of the formats of the command line."""
    if Format(style) is Format.JSON:
        return to_json(as_json(result))
    return render_table(as_table(result), Format(style))


def as_table(result: Verification) -> Table:
    """Predicted | measured [interval] | verdict, one row a check."""
    rows = tuple(
        (
            c.rule, str(c.mode), c.layer, c.quantity, c.predicted, _signed(c.measured.slope),
            _interval(c.measured), str(c.verdict), "" if c.size is None else f"{c.size:.4g}",
            "" if c.limit is None else f"{c.limit:.4g}",
        )
        for c in result.checks
    )  # fmt: skip
    count = {
        v: sum(c.verdict is v for c in result.checks) for v in {c.verdict for c in result.checks}
    }
    summary = ", ".join(f"{n} {v}" for v, n in sorted(count.items()))
    ran = dict.fromkeys(series.about for series in result.series)
    notes = [
        f"verdict: {result.verdict} ({summary}); widths {', '.join(ran)}; {result.seconds:.0f} s",
        "sizes ~ M^(exponent). init: h at the start (f in the output layer); "
        "own: dW h, on samples held out; feature: dh (df in the output layer). "
        "Intervals hold the noise over seeds and the drift of slopes. "
        "size: at the widest width; limit: what it tends to, from the kernels of infinite width",
    ]
    if any(c.quantity == SHRINK for c in result.checks):
        notes[-1] += "; shrink: the part of the weights that a step takes away"
    if any(c.quantity == ASCENT for c in result.checks):
        notes[-1] += "; ascent: X h of the perturbation X"
    reasons: dict[tuple[str, str, str], list[str]] = {}
    for c in result.checks:
        if c.note:
            reasons.setdefault((c.rule, c.verdict, c.note), []).append(f"{c.quantity} {c.layer}")
    notes += [
        f"{verdict}, {rule} ({', '.join(what)}): {note}"
        for (rule, verdict, note), what in reasons.items()
    ]
    notes += result.notes
    notes += [f"assumed: {text}" for text in result.assumptions]
    notes += result.regimes
    columns = (
        "rule", "mode", "layer", "quantity", "predicted", "measured", "interval", "verdict",
        "size", "limit",
    )  # fmt: skip
    return Table("theory against measurement", columns, rows, tuple(notes))


def as_json(result: Verification) -> dict[str, Any]:
    """The ``verify`` interface; an exponent of -oo is the string "-oo", as is what is unbounded."""
    return {
        "verdict": str(result.verdict),
        "checks": [
            {
                "rule": c.rule,
                "mode": str(c.mode),
                "layer": c.layer,
                "quantity": c.quantity,
                "predicted": str(c.predicted),
                "measured": _number(c.measured.slope),
                "low": _number(c.measured.low),
                "high": _number(c.measured.high),
                "verdict": str(c.verdict),
                "size": c.size,
                "limit": c.limit,
                "note": c.note,
            }
            for c in result.checks
        ],
        "series": [
            {
                "rule": x.rule,
                "mode": str(x.mode),
                "widths": list(x.widths),
                "seeds": x.seeds,
                "samples": x.samples,
                "margin": x.margin,
            }
            for x in result.series
        ],
        "widths": list(result.widths),
        "seeds": result.seeds,
        "margin": result.margin,
        "seconds": result.seconds,
        "notes": list(result.notes),
        "assumptions": list(result.assumptions),
        "regimes": list(result.regimes),
        "convention": result.convention,
    }


def render_measurement(result: Measurement, style: str) -> str:
    """One measurement in one of the formats of the command line."""
    if Format(style) is Format.JSON:
        return to_json(result.as_json())
    rows = tuple(
        (name, *(f"{size:.6g}" for size in x.known().values())) for name, x in result.sizes.items()
    )
    quantities = next(iter(result.sizes.values())).known()
    notes = (
        f"trained on {result.samples} samples, sizes on {result.probe}",
        f"seed {result.seed}, {result.seconds:.3f} s, peak memory {result.peak_mb:.0f} MB",
        *(f"assumed: {text}" for text in result.assumptions),
    )
    steps = "one step" if result.steps == 1 else f"{result.steps} steps"
    title = f"{result.rule}: {steps} at width {result.width}"
    return render_table(Table(title, ("layer", *quantities), rows, notes), Format(style))


def render_lines(derivation: Derivation, lines: Sequence[Line], style: str) -> str:
    """A measured derivation in one of the formats of the command line."""
    if Format(style) is Format.JSON:
        title = f"{derivation.label}: dW = {derivation.rule}"
        return to_json({"title": title, "lines": [_line_json(line) for line in lines]})
    if Format(style) is Format.TEXT:
        return _lines_text(derivation, lines)
    return render_table(lines_table(derivation, lines), Format(style))


_COLUMNS = ("of", "predicted", "measured", "interval", "verdict")


def lines_table(derivation: Derivation, lines: Sequence[Line]) -> Table:
    """The steps of a derivation, premises first: predicted | measured [interval] | verdict."""
    rows = tuple(
        (str(x.number), x.subject, *_measured(x, line), x.because, x.assuming)
        for x, line in _beside(derivation, lines)
    )
    columns = ("", "quantity", *_COLUMNS, "because", "assuming")
    return Table(derivation.title, columns, rows, _lines_notes(lines))


def _lines_text(derivation: Derivation, lines: Sequence[Line]) -> str:
    """The same in text, where reasons and assumptions stand below a line."""
    entries = [
        Entry(
            x.subject,
            tuple(map(str, _measured(x, line))),
            (f"[{x.because}]", *([f"assuming {x.assuming}"] if x.assuming else [])),
        )
        for x, line in _beside(derivation, lines)
    ]
    body = listing(entries, Entry("quantity", _COLUMNS), subject=_QUANTITY)
    notes = [line for note in _lines_notes(lines) for line in wrapped(note)]
    return "\n".join([*titled(derivation.title), "", *body, "", *notes])


_QUANTITY = 32


def _beside(derivation: Derivation, lines: Sequence[Line]) -> Iterator[tuple[PrintedLine, Line]]:
    """Every line on paper, and what was measured of it."""
    measured = {line.step: line for line in lines}
    return ((x, measured[x.step]) for x in derivation.lines())


def _measured(printed: PrintedLine, line: Line) -> tuple[Any, ...]:
    fit = line.measured
    return (
        SIZE_OF[printed.step.result.of],
        line.predicted,
        "" if fit is None else _signed(fit.slope),
        "" if fit is None else _interval(fit),
        "" if line.verdict is None else str(line.verdict),
    )


def _lines_notes(lines: Sequence[Line]) -> tuple[str, ...]:
    fits = [line.measured for line in lines if line.measured is not None]
    notes = ["sizes ~ M^(exponent); lines without a measurement state a condition or a mean"]
    if fits:
        last, seeds = fits[0].widths[-1], fits[0].seeds
        notes.append(f"dense networks up to width {last:,}, {seeds} seeds")
    return tuple(notes)


def _line_json(line: Line) -> dict[str, Any]:
    fit = line.measured
    return {
        "subject": timed(line.step),
        "inference": line.step.inference.name,
        "predicted": str(line.predicted),
        "measured": None if fit is None else _number(fit.slope),
        "low": None if fit is None else _number(fit.low),
        "high": None if fit is None else _number(fit.high),
        "verdict": None if line.verdict is None else str(line.verdict),
        "assumption": line.step.assumption,
    }


def render_alignments(result: Alignments, style: str) -> str:
    """Measured alignments in one of the formats of the command line."""
    if Format(style) is Format.JSON:
        return to_json(alignments_json(result))
    return render_table(alignments_table(result), Format(style))


def alignments_table(result: Alignments) -> Table:
    """Measured [interval] | the paper's log ratio | one step | verdict | full and none."""
    layers = list(dict.fromkeys(row.layer for row in result.rows))
    rows = tuple(
        (
            row.layer, row.quantity, str(row.step), _signed(row.measured.slope),
            _interval(row.measured), f"{row.at_width:.3f}",
            "" if row.derived is None else f"{'<= ' if row.is_bound else ''}{row.derived}",
            "" if row.verdict is None else str(row.verdict),
            *(str(verdict) for verdict in row.against.values()),
        )
        for row in sorted(result.rows, key=lambda row: (layers.index(row.layer), row.quantity))
    )  # fmt: skip
    widest = result.widths[-1]
    notes = (
        f"verdict: {result.verdict}; dense networks of width {result.widths[0]:,}..{widest:,}, "
        f"{result.seeds} seeds, margin {result.margin:g}",
        "|dW z| = fan_in^alpha |dW| |z|, |W dz| = fan_in^omega |W| |dz|, |dW dz| likewise with u; "
        "dW and dz since the start",
        f"measured: slope of the log ratio over widths; log ratio: to the base fan_in at width "
        f"{widest:,}, as in arXiv 2407.05872, constants included; one step: what is derived for it",
        "input layers and biases sum over a fixed length and have no alignment",
        *result.notes,
    )
    names = next(iter(result.rows)).against if result.rows else ()
    columns = (
        "layer", "exponent", "step", "measured", "interval", "log ratio", "one step", "verdict",
        *names,
    )  # fmt: skip
    return Table(f"alignments of {result.rule} over steps", columns, rows, notes)


def alignments_json(result: Alignments) -> dict[str, Any]:
    """The ``align`` interface."""
    return {
        "rule": result.rule,
        "verdict": str(result.verdict),
        "alignments": [
            {
                "layer": row.layer,
                "quantity": row.quantity,
                "step": row.step,
                "measured": _number(row.measured.slope),
                "low": _number(row.measured.low),
                "high": _number(row.measured.high),
                "log_ratio": row.at_width,
                "derived": None if row.derived is None else str(row.derived),
                "is_bound": row.is_bound,
                "verdict": None if row.verdict is None else str(row.verdict),
                "against": {name: str(verdict) for name, verdict in row.against.items()},
            }
            for row in result.rows
        ],
        "widths": list(result.widths),
        "seeds": result.seeds,
        "margin": result.margin,
        "notes": list(result.notes),
    }


def require_own(folder: Path) -> None:
    """Refuse a folder in which `write` would replace files of someone else's."""
    keys = {"verdict", "checks", "series"}
    refuse_foreign_reports(folder, "report.json", keys, ("report.md", "sizes.csv"))


def write(result: Verification, folder: Path) -> None:
    """Write report.json, report.md, sizes.csv and the figures into a folder."""
    from empirical.report.plots import figures

    require_own(prepare_folder(folder))
    write_atomically(folder / "report.json", (to_json(as_json(result)) + "\n").encode())
    text = render_table(as_table(result), Format.MARKDOWN) + "\n"
    write_atomically(folder / "report.md", text.encode())
    csv = as_frame(result).to_csv(index=False)
    write_atomically(folder / "sizes.csv", csv.encode())
    for name, picture in figures(result).items():
        write_atomically(folder / f"{name}.png", picture)


def as_frame(result: Verification) -> pd.DataFrame:
    """Every measured size: columns rule, mode, layer, quantity, seed, width, size."""
    rows: list[tuple[str, str, str, str, int, int, float]] = []
    for series in result.series:
        place = (series.rule, str(series.mode))
        for layer, quantities in series.layers.items():
            for quantity, table in quantities.items():
                for seed, values in enumerate(table):
                    for width, size in zip(series.widths, values, strict=True):
                        rows.append((*place, layer, quantity, seed, width, float(size)))
    names = ["rule", "mode", "layer", "quantity", "seed", "width", "size"]
    return pd.DataFrame(rows, columns=names)


@contextmanager
def progress(visible: bool) -> Iterator[Tick]:
    """A progress bar on standard error, if someone is there to see it."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(file=sys.stderr), disable=not visible, transient=True) as bar:
        task = bar.add_task("measuring", total=None)

        def tick(rule: str, done: int, total: int) -> None:
            bar.update(task, description=rule[:40], completed=done, total=total)

        yield tick


def _interval(fit: Estimate) -> str:
    return f"[{_signed(fit.low)}, {_signed(fit.high)}]"


def _signed(x: float) -> str:
    if math.isinf(x):
        return "-oo" if x < 0 else "+oo"
    return f"{x:+.3f}"


def _number(x: float) -> float | str:
    if math.isinf(x):
        return "-oo" if x < 0 else "oo"
    return x
