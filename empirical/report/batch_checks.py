"""Powers of the batch, derived and measured: one line a rule and layer."""

from __future__ import annotations

from typing import Any

from empirical.verify.batch_sweep import BatchCheck, BatchSweep, MeasuredPower
from scaling.models.batch import BatchGrowth
from scaling.report.as_json import to_json
from scaling.report.batch_tables import CONVENTION
from scaling.report.tables import Format, Table
from scaling.report.tables import render as render_table
from scaling.solve.batch_rule import GROWTHS


def render(found: BatchSweep, style: str) -> str:
    """A sweep in one of the formats of the command line."""
    if Format(style) is Format.JSON:
        return to_json(as_json(found))
    return render_table(as_table(found), Format(style))


def as_table(found: BatchSweep) -> Table:
    """Own updates derived | measured [interval] | verdict, and the rate that follows."""
    rows = []
    for name, rule in found.derived.items():
        for layer in rule.layers:
            cells: list[Any] = [name, layer]
            for growth in GROWTHS:
                x = _check(found, name, layer, growth)
                cells += [x.predicted, _measured(x.measured), str(x.verdict)]
                cells.append(rule.rate(layer, growth))
            rows.append(tuple(cells))
    columns = ["rule", "layer"]
    for growth in GROWTHS:
        columns += [f"own, {growth}", "measured", "verdict", "rate"]
    total = len(found.checks)
    agreed = sum(x.verdict.name == "agree" for x in found.checks)
    notes = [
        f"verdict: {found.verdict} ({agreed} of {total} agree); width {found.width:,}, batches "
        f"{', '.join(map(str, found.batches))}, {found.seeds} seeds or more, "
        f"margin {found.margin:g}; {found.seconds:.0f} s",
        CONVENTION,
        *(f"not measured: {name}: {why}" for name, why in found.left_out.items()),
    ]
    return Table("the batch: theory against measurement", tuple(columns), tuple(rows), tuple(notes))


def as_json(found: BatchSweep) -> dict[str, Any]:
    """The same as data; powers are strings."""
    return {
        "verdict": str(found.verdict),
        "checks": [
            {
                "rule": x.rule, "layer": x.layer, "samples": str(x.growth),
                "own": str(x.predicted), "measured": x.measured.slope, "low": x.measured.low,
                "high": x.measured.high, "verdict": str(x.verdict), "seeds": x.measured.seeds,
                "rate": str(found.derived[x.rule].rate(x.layer, x.growth)),
            }
            for x in found.checks
        ],
        "not_measured": dict(found.left_out),
        "width": found.width, "batches": list(found.batches), "seeds": found.seeds,
        "margin": found.margin, "seconds": found.seconds,
    }  # fmt: skip


def _check(found: BatchSweep, rule: str, layer: str, growth: BatchGrowth) -> BatchCheck:
    key = (rule, layer, growth)
    return next(x for x in found.checks if (x.rule, x.layer, x.growth) == key)


def _measured(fit: MeasuredPower) -> str:
    return f"{fit.slope:+.2f} [{fit.low:+.2f}, {fit.high:+.2f}]"
