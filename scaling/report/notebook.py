"""Results of the theory in a notebook: the tables that the command prints, and drawings.

rule         as mathematics                    graph        its drawings
derivation   its lines (a step and all below)  any answer   its table
"""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import Any

from scaling.models.graph import Graph
from scaling.report.drawn_graph import axis_letter, drawings, size_text
from scaling.report.graph_tables import graph_table
from scaling.report.inverse_tables import inverse_table
from scaling.report.phase_tables import phase_table
from scaling.report.rule_latex import equation
from scaling.report.step_lines import SIZE_OF, timed
from scaling.report.tables import (
    Format,
    Table,
    compared_table,
    derived_table,
    predicted_table,
    render,
)
from scaling.rules.rule import Rule
from scaling.sizes.derivation import Step
from scaling.solve.derive import Derived
from scaling.solve.graph_solution import GraphDerived
from scaling.solve.inverse import Inverse
from scaling.solve.phases import PhaseDiagram
from scaling.solve.predict import Prediction
from scaling.solve.symmetry import Comparison

STYLE = (
    "<style>svg.graph rect{fill:none;stroke:currentColor}svg.graph path{fill:none;stroke:#888}"
    "svg.graph text{fill:currentColor;font:11px monospace}"
    "svg.graph .head,svg.graph .foot{text-anchor:middle}</style>"
)
"""Of a drawing outside of a page that has its own."""


def shown(result: Any, style: str) -> str:
    """A result as ``html``, ``latex`` or ``text``."""
    if isinstance(result, Rule):
        return _rule(result, style)
    if isinstance(result, Graph) and style == Format.HTML:
        return _graph(result)
    return render(table_of(result), Format(style))


def table_of(result: Any) -> Table:
    """The table of an answer."""
    tables: dict[type, Callable[..., Table]] = {
        Derived: derived_table,
        GraphDerived: graph_table,
        Prediction: predicted_table,
        PhaseDiagram: phase_table,
        Inverse: inverse_table,
        Step: steps_table,
        Graph: nodes_table,
        Comparison: lambda x: compared_table("left", "right", x),
    }
    return tables[type(result)](result)


def steps_table(step: Step) -> Table:
    """A step and all that it rests on, premises first."""
    lines = step.lines()
    number = {line: i for i, line in enumerate(lines, 1)}
    rows = tuple(
        (
            str(number[x]), timed(x), str(x.result), SIZE_OF[x.result.of], x.numbers,
            " ".join((x.inference.name, *(f"[{number[y]}]" for y in x.inputs))), x.assumption,
        )
        for x in lines
    )  # fmt: skip
    columns = ("", "quantity", "size", "of", "numbers", "because", "assuming")
    return Table(f"derivation of {timed(step)}", columns, rows)


def nodes_table(graph: Graph) -> Table:
    """The nodes of a graph, and how their axes grow."""
    letter = axis_letter(graph)
    rows = tuple(
        (
            x.name, x.op, ", ".join(x.inputs), " x ".join(size_text(a, letter) for a in x.axes),
            x.where,
        )
        for x in graph.walk()
    )  # fmt: skip
    return Table(
        f"graph, {graph.axis} grows", ("node", "operation", "inputs", "axes", "where"), rows
    )


def _rule(rule: Rule, style: str) -> str:
    if style == Format.LATEX:
        return f"$\\displaystyle {equation(rule)}$"
    if style == Format.TEXT:
        return f"{rule.name}: dW = {rule.written}" if rule.name else f"dW = {rule.written}"
    name = f"{escape(rule.name)}: " if rule.name else ""
    return f"<p>{name}<code>dW = {escape(rule.written)}</code></p>"


def _graph(graph: Graph) -> str:
    letter = axis_letter(graph)
    parts = drawings(graph, {}, letter)
    unfolding = "".join(
        f"<details><summary>{escape(x.title)}</summary>{x.svg}</details>" for x in parts[1:]
    )
    return STYLE + parts[0].svg + unfolding
