"""Exponents solved for: requirements by layer with what each asks alone, and the answers."""

from __future__ import annotations

from typing import Any

from sympy import Max, Min

from scaling.report.as_text import Cell
from scaling.report.graph_tables import convention_of, recipe_title, regimes_in_graph
from scaling.report.tables import Table, heading
from scaling.solve.alternatives import regime_lines
from scaling.solve.graph_solution import GraphDerived
from scaling.solve.inverse import STANDS_FOR, Answer, Answered, Inverse, Requirement


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
    notes += [_convention(found.derived)]
    notes += [f"assumed: {text}" for text in found.derived.assumptions]
    notes += dict.fromkeys(text for x in found.answers for text in _regimes(x.again))
    place = "tensor" if isinstance(found.derived, GraphDerived) else "layer"
    columns = (place, "exponent", "formula", "required", "needs, alone", *again)
    texts = tuple(note.replace(STANDS_FOR, "") for note in notes)
    return Table(_title(found.derived), columns, rows, texts)


def _title(derived: Answered) -> str:
    if isinstance(derived, GraphDerived):
        return recipe_title(derived.recipe)
    return heading(derived.problem)


def _convention(derived: Answered) -> str:
    return convention_of(derived) if isinstance(derived, GraphDerived) else derived.convention


def _regimes(again: Answered) -> list[str]:
    if isinstance(again, GraphDerived):
        return regimes_in_graph(again)
    return list(regime_lines(again))


def _again(answer: Answer, r: Requirement) -> Cell:
    """The exponent derived with the answer; its maxima have been gone through case by case."""
    value = answer.exponent(r)
    return f"{r.value}, in all cases" if value.has(Max, Min) else value


def inverse_json(found: Inverse) -> dict[str, Any]:
    """The same as data; exponents are strings."""
    return {
        **_asked(found.derived),
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
        "convention": _convention(found.derived),
    }  # fmt: skip


def _asked(derived: Answered) -> dict[str, str]:
    if isinstance(derived, GraphDerived):
        return {"recipe": str(derived.recipe), "name": derived.recipe.name}
    return {"rule": str(derived.problem.rule), "name": derived.problem.rule.name}
