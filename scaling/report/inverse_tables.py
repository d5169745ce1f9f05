"""Exponents solved for: requirements by layer with what each asks alone, and the answers."""

from __future__ import annotations

from typing import Any

from sympy import Max, Min

from scaling.report.as_text import Cell
from scaling.report.tables import Table, heading
from scaling.solve.alternatives import regime_lines
from scaling.solve.inverse import STANDS_FOR, Answer, Inverse, Requirement


def inverse_table(found: Inverse) -> Table:
    """One line a requirement: formula, value, what it asks alone, and what deriving again gives."""
    one = len(found.answers) == 1
    again = ["derived again"] if one else [f"answer {i}" for i in range(1, len(found.answers) + 1)]
    rows = tuple(
        (r.layer, f"{r.key}_{r.layer}", r.formula, r.value, r.alone,
         *(_again(answer, r) for answer in found.answers))
        for r in found.required
    )  # fmt: skip
    notes = [f"answer{'' if one else f' {i}'}: {x}" for i, x in enumerate(found.answers, 1)]
    notes += [found.derived.convention]
    notes += [f"assumed: {text}" for text in found.derived.assumptions]
    notes += dict.fromkeys(text for x in found.answers for text in regime_lines(x.again))
    columns = ("layer", "exponent", "formula", "required", "needs, alone", *again)
    texts = tuple(note.replace(STANDS_FOR, "") for note in notes)
    return Table(heading(found.derived.problem), columns, rows, texts)


def _again(answer: Answer, r: Requirement) -> Cell:
    """The exponent derived with the answer; its maxima have been gone through case by case."""
    value = answer.exponent(r)
    return f"{r.value}, in all cases" if value.has(Max, Min) else value


def inverse_json(found: Inverse) -> dict[str, Any]:
    """The same as data; exponents are strings."""
    return {
        "rule": str(found.derived.problem.rule),
        "name": found.derived.problem.rule.name,
        "solved_for": list(found.unknowns),
        "required": [
            {
                "exponent": f"{r.key}_{r.layer}", "formula": str(r.formula), "value": str(r.value),
                "alone": r.alone,
            }
            for r in found.required
        ],
        "answers": [
            {"values": {k: str(v) for k, v in x.values.items()}, "where": list(x.where)}
            for x in found.answers
        ],
        "assumptions": list(found.derived.assumptions),
        "convention": found.derived.convention,
    }  # fmt: skip
