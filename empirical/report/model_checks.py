"""The coordinate check of a user's own model, as a table and as JSON."""

from __future__ import annotations

from collections import Counter
from typing import Any

from empirical.checks.checking import ModelCheck
from empirical.checks.needed import reading
from empirical.checks.remedies import measured
from empirical.fit.verdict import Verdict
from empirical.report.graph_checks import not_shown
from empirical.verify.graph_verification import GraphCheck
from empirical.verify.settling import settling_lines
from scaling.report.tables import Table


def coordinates_table(found: ModelCheck) -> Table:
    """Needed | measured [interval] | what it does | verdict.

    Tensors, what the loss reads, and nodes that do not agree; nodes that agree are counted.
    """
    rows = []
    agreed: Counter[str] = Counter()
    reads = _read_by_loss(found)
    for check in found.checks:
        shown = check.quantity == "own" or check.name in reads
        if check.verdict is Verdict.agree and not shown:
            agreed[check.quantity] += 1
            continue
        rows.append(
            (check.name, check.quantity, _needed(check), measured(check),
             reading(check.fit, found.margin), check.verdict.name)
        )  # fmt: skip
    counts = Counter(check.verdict.name for check in found.checks)
    notes = [f"{found.verdict.name}: {', '.join(f'{n} {name}' for name, n in counts.items())}"]
    notes += [not_shown(n, quantity) for quantity, n in agreed.items()]
    notes += settling_lines(found.checks, found.axis, found.margin)
    notes += found.to_change
    if found.unseen:
        notes.append(f"not looked at: {', '.join(found.unseen)}")
    notes += [f"read: {text}" for text in found.notes]
    notes += [f"assumed: {text}" for text in found.answer.assumptions]
    axis, sizes = found.axis.name, ", ".join(map(str, found.axis.sizes))
    title = (
        f"{found.recipe}, {found.subject}: {axis} {sizes}, {found.steps} step"
        f"{'s' if found.steps > 1 else ''}, {found.seeds} seeds, margin {found.margin:g}"
    )
    columns = ("name", "quantity", "needed", "measured", "reading", "verdict")
    return Table(title, columns, tuple(rows), tuple(notes))


def coordinates_json(found: ModelCheck) -> dict[str, Any]:
    """All checks, with what to change and what was not looked at."""
    return {
        "recipe": found.recipe,
        "subject": found.subject,
        "axis": {found.axis.name: list(found.axis.sizes)},
        "steps": found.steps,
        "seeds": found.seeds,
        "margin": found.margin,
        "verdict": found.verdict.name,
        "checks": [
            {
                "name": c.name,
                "quantity": c.quantity,
                "needed": str(c.predicted),
                "at_most": c.at_most,
                "measured": c.fit.slope,
                "interval": [c.fit.low, c.fit.high],
                "reading": reading(c.fit, found.margin),
                "verdict": c.verdict.name,
                "where": c.where,
            }
            for c in found.checks
        ],
        "to_settle": settling_lines(found.checks, found.axis, found.margin),
        "to_change": list(found.to_change),
        "not_looked_at": list(found.unseen),
        "read": list(found.notes),
        "assumptions": list(found.answer.assumptions),
    }


def _read_by_loss(found: ModelCheck) -> set[str]:
    """The operations whose results the loss reads: their change is no bound."""
    return {c.name for c in found.checks if c.quantity == "change" and not c.at_most}


def _needed(check: GraphCheck) -> str:
    return f"<= {check.predicted}" if check.at_most else f"{check.predicted}"
