"""Measurements of a user's own model, as a table and as JSON."""

from __future__ import annotations

from collections import Counter
from typing import Any

from empirical.fit.verdict import Verdict
from empirical.verify.graph_verification import GraphCheck, GraphVerification
from empirical.verify.settling import settling_lines
from scaling.report.tables import Table


def checks_table(found: GraphVerification, everything: bool = False) -> Table:
    """Predicted | measured [interval] | verdict: tensors whole, nodes where they do not agree.

    Nodes that agree are counted, unless ``everything`` is asked for; JSON has all of them.
    """
    rows = []
    agreed: Counter[str] = Counter()
    for check in found.checks:
        if check.verdict is Verdict.agree and check.quantity != "own" and not everything:
            agreed[check.quantity] += 1
            continue
        rows.append(
            (check.name, check.quantity, _predicted(check), _measured(check), check.verdict.name)
        )
    notes = [f"{found.verdict.name}: {_counts(found)}"]
    notes += [not_shown(n, quantity) for quantity, n in agreed.items()]
    notes += [f"at {check.where}: {check.name}" for check in found.checks
              if check.verdict is Verdict.contradict and check.where]  # fmt: skip
    notes += settling_lines(found.checks, found.axis, found.margin)
    if found.unseen:
        notes.append(f"not looked at: {', '.join(found.unseen)}")
    notes += [f"read: {text}" for text in found.notes]
    notes += [f"assumed: {text}" for text in found.answer.assumptions]
    axis, sizes = found.axis.name, ", ".join(map(str, found.axis.sizes))
    title = f"{found.answer.recipe}: {axis} {sizes}, {found.seeds} seeds, margin {found.margin:g}"
    columns = ("name", "quantity", "predicted", "measured", "verdict")
    return Table(title, columns, tuple(rows), tuple(notes))


def not_shown(n: int, quantity: str) -> str:
    """The line below a table for nodes that agree.

    >>> not_shown(1, "init"), not_shown(2, "own")
    ('1 node agrees in init, and is not shown', '2 nodes agree in own, and are not shown')
    """
    which = "1 node agrees" if n == 1 else f"{n} nodes agree"
    return f"{which} in {quantity}, and {'is' if n == 1 else 'are'} not shown"


def checks_json(found: GraphVerification) -> dict[str, Any]:
    """All checks, with what was not looked at."""
    return {
        "recipe": str(found.answer.recipe),
        "axis": {found.axis.name: list(found.axis.sizes)},
        "verdict": found.verdict.name,
        "seeds": found.seeds,
        "margin": found.margin,
        "checks": [
            {
                "name": c.name,
                "quantity": c.quantity,
                "predicted": str(c.predicted),
                "at_most": c.at_most,
                "measured": c.fit.slope,
                "interval": [c.fit.low, c.fit.high],
                "verdict": c.verdict.name,
                "where": c.where,
            }
            for c in found.checks
        ],
        "to_settle": settling_lines(found.checks, found.axis, found.margin),
        "not_looked_at": list(found.unseen),
        "read": list(found.notes),
        "assumptions": list(found.answer.assumptions),
    }


def _predicted(check: GraphCheck) -> str:
    return f"<= {check.predicted}" if check.at_most else f"{check.predicted}"


def _measured(check: GraphCheck) -> str:
    return f"{check.fit.slope:+.2f} [{check.fit.low:+.2f}, {check.fit.high:+.2f}]"


def _counts(found: GraphVerification) -> str:
    count = Counter(check.verdict.name for check in found.checks)
    return ", ".join(f"{n} {name}" for name, n in count.items())
