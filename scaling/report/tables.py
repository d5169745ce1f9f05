"""Results as tables: a heading, columns, rows of exponents, and notes.

Each format is one function of a `Table`: as_text.py, as_markdown.py, as_latex.py, as_html.py. JSON
is made of the results themselves (as_json.py), derivations are in step_lines.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from sympy import Expr

from scaling.report.as_html import html
from scaling.report.as_latex import latex
from scaling.report.as_markdown import markdown
from scaling.report.as_text import Cell, text
from scaling.report.references import abbreviated, quotable
from scaling.solve.alternatives import regime_lines
from scaling.solve.crossing_widths import crossover_lines, crossovers
from scaling.solve.derive import Derived
from scaling.states.problem import CONVENTION, Problem

if TYPE_CHECKING:  # results of other verbs, which derive does without
    from scaling.solve.predict import Prediction
    from scaling.solve.symmetry import Comparison


class Format(StrEnum):
    """Output formats of the command line."""

    TEXT = "text"
    MARKDOWN = "markdown"
    LATEX = "latex"
    JSON = "json"
    HTML = "html"


@dataclass(frozen=True)
class Table:
    """A heading, named columns, rows of cells, and notes printed below."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()

    def _repr_html_(self) -> str:
        return render(self, Format.HTML)

    def _repr_latex_(self) -> str:
        return render(self, Format.LATEX)

    def __str__(self) -> str:
        return render(self, Format.TEXT)


def render(table: Table, style: Format) -> str:
    """A table in one of the formats other than JSON."""
    formats: Mapping[Format, Callable[..., str]] = {
        Format.TEXT: text,
        Format.MARKDOWN: markdown,
        Format.LATEX: latex,
        Format.HTML: html,
    }
    return formats[style](table.title, table.columns, table.rows, table.notes)


def derived_table(result: Derived) -> Table:
    """Exponents by layer, with what is free and what was assumed."""
    x, rule = result.exponents, result.problem.rule
    columns = ("layer", "a", "b", "c", *(f"d_{name}" for name in rule.scaled))
    rows = tuple(
        (name, x.a[name], x.b[name], x.c[name], *(x.d[name][k] for k in rule.scaled))
        for name in x.b
    )
    notes = [result.convention]
    notes += [f"free: {', '.join(result.free)}"] if result.free else []
    notes += [f"assumed: {x}" for x in result.assumptions]
    notes += regime_lines(result)
    notes += crossover_lines(crossovers(result))
    return Table(heading(result.problem), columns, rows, _in_parts(result.problem, notes))


def catalogue_table(results: Sequence[Derived], refused: Mapping[str, str] | None = None) -> Table:
    """Exponents of several rules by layer; dampings in one column, as ``name: d``.

    ``refused``: rules that the calculus does not cover, and why not.
    """
    rows = tuple(
        (
            result.problem.rule.name, layer, x.a[layer], x.b[layer], x.c[layer],
            ", ".join(f"{k}: {v}" for k, v in x.d[layer].items()),
        )
        for result in results
        for x in (result.exponents,)
        for layer in x.b
    )  # fmt: skip
    columns = ("rule", "layer", "a", "b", "c", "d")
    assumed = dict.fromkeys(x for result in results for x in result.assumptions)
    missing = (f"not covered: {name}, for {why}" for name, why in (refused or {}).items())
    notes = (CONVENTION, *(f"assumed: {x}" for x in assumed), *missing)
    step = max((result.problem.step for result in results), default=1)
    title = "exponents of the catalogue" + (f" at step {step}" if step > 1 else "")
    return Table(title, columns, rows, notes)


def predicted_table(result: Prediction) -> Table:
    """Exponents of what one step does, by layer."""
    decays = any(x.shrink is not None for x in result.layers.values())
    ascends = any(x.ascent is not None for x in result.layers.values())
    rows = tuple(
        (
            name, x.init, x.own, *([x.shrink] if decays else []), *([x.ascent] if ascends else []),
            "not covered" if x.feature is None else x.feature, str(x.regime),
        )
        for name, x in result.layers.items()
    )  # fmt: skip
    start = "h at the start" if result.problem.step == 1 else "h before the step"
    notes = (
        f"sizes ~ M^(exponent). init: {start} (f in the output layer); "
        "own: dW h, on samples held out; feature: dh (df in the output layer)"
        + (", shrink: the fraction of the weights that a step takes away" if decays else "")
        + (", ascent: X h of the perturbation X" if ascends else ""),
        *(f"assumed: {x}" for x in result.assumptions),
        *crossover_lines(crossovers(result)),
    )
    columns = (
        "layer",
        "init",
        "own",
        *(["shrink"] if decays else []),
        *(["ascent"] if ascends else []),
        "feature",
        "regime",
    )
    return Table(heading(result.problem), columns, rows, _in_parts(result.problem, notes))


def compared_table(left: str, right: str, result: Comparison) -> Table:
    """Both tables at a = 0, and where they differ."""
    rows: list[tuple[Cell, ...]] = []
    differing = {(d.layer, d.name) for d in result.differences}
    for layer in result.left.b:
        entries: list[tuple[str, Expr | None, Expr | None]] = [
            ("b", result.left.b[layer], result.right.b[layer]),
            ("c", result.left.c[layer], result.right.c[layer]),
        ]
        p, q = result.left.d[layer], result.right.d[layer]
        entries += [(f"d_{k}", p.get(k), q.get(k)) for k in dict.fromkeys([*p, *q])]
        for name, u, v in entries:
            mark = "differs" if (layer, name) in differing else "same"
            rows.append((layer, name, u, v, mark if u is not None and v is not None else ""))
    shifts = [
        f"{label} moved to a = 0 by t = {dict((k, str(v)) for k, v in shift.items())}"
        for label, shift in ((left, result.shifts[0]), (right, result.shifts[1]))
        if any(v != 0 for v in shift.values())
    ]
    assumed = [f"assumed: {text}" for text in result.assumptions]
    verdict = "equivalent" if result.equivalent else "different"
    title = f"{left} and {right} are {verdict} modulo the abc symmetry"
    notes = (result.convention, *shifts, *assumed)
    return Table(title, ("layer", "exponent", left, right, ""), tuple(rows), notes)


def heading(problem: Problem) -> str:
    """The name of a rule, the step, and the rule as it was written."""
    name, rule = problem.rule.name, problem.rule.written
    step = f"step {problem.step}" if problem.step > 1 else ""
    shown = name if name != rule else ""
    label = f"{shown} at {step}" if shown and step else shown or step
    return f"{label}: dW = {rule}" if label else f"dW = {rule}"


def _in_parts(problem: Problem, notes: Sequence[str]) -> tuple[str, ...]:
    """The notes with the rule's names for its parts."""
    names = {part: name for name, part in problem.rule.parts.items()}
    quoted = quotable([problem.rule.expression]) if names else {}
    return tuple(abbreviated(note, quoted, names) for note in notes)
