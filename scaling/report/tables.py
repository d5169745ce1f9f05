"""Results as text, Markdown, LaTeX and HTML; as JSON in as_json.py.

A result becomes a `Table` (a heading, columns, rows of exponents, notes) or a list of derivation
steps; each format is one function of those.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeAlias

import sympy
from sympy import Expr

from scaling.sizes.derivation import Step
from scaling.sizes.scale import Size
from scaling.solve.alternatives import regime_lines
from scaling.solve.derive import Derived
from scaling.solve.predict import Prediction
from scaling.solve.symmetry import Comparison
from scaling.states.problem import CONVENTION, Problem

Cell: TypeAlias = Any  # sympy.Expr | str | None; sympy carries no types


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


# --- tables of results --------------------------------------------------------------------------


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
    notes += [f"assumed: {text}" for text in result.assumptions]
    notes += regime_lines(result)
    return Table(_title(result.problem), columns, rows, tuple(notes))


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
    assumed = dict.fromkeys(text for result in results for text in result.assumptions)
    missing = (f"not covered: {name}, for {why}" for name, why in (refused or {}).items())
    notes = (CONVENTION, *(f"assumed: {text}" for text in assumed), *missing)
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
        *(f"assumed: {text}" for text in result.assumptions),
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
    return Table(_title(result.problem), columns, rows, notes)


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


def _title(problem: Problem) -> str:
    name, rule = problem.rule.name, str(problem.rule)
    title = f"{name}: dW = {rule}" if name and name != rule else f"dW = {rule}"
    return title if problem.step == 1 else f"{title}, at step {problem.step}"


def timed(step: Step) -> str:
    """What a step speaks of, and of which step of training if not of the first."""
    return step.subject if step.time == 1 else f"{step.subject} at step {step.time}"


# --- formats ------------------------------------------------------------------------------------


def render(table: Table, style: Format) -> str:
    """A table in one of the formats other than JSON."""
    formats: Mapping[Format, Callable[[Table], str]] = {
        Format.TEXT: _text,
        Format.MARKDOWN: _markdown,
        Format.LATEX: _latex,
        Format.HTML: _html,
    }
    return formats[style](table)


def plain(cell: Cell) -> str:
    """A cell as text."""
    return "" if cell is None else str(cell)


def tex(cell: Cell) -> str:
    """A cell as LaTeX."""
    if isinstance(cell, Expr):
        return f"${sympy.latex(cell)}$"
    return _escape(plain(cell))


def _escape(text: str) -> str:
    for old, new in (("\\", r"\textbackslash{}"), ("_", r"\_"), ("^", r"\^{}"), ("%", r"\%"),
                     ("&", r"\&"), ("#", r"\#"), ("~", r"$\sim$")):  # fmt: skip
        text = text.replace(old, new)
    return text


def _text(table: Table) -> str:
    grid = [table.columns, *(tuple(plain(cell) for cell in row) for row in table.rows)]
    widths = [max(len(row[i]) for row in grid) for i in range(len(table.columns))]
    lines = [
        "  ".join(x.ljust(w) for x, w in zip(row, widths, strict=True)).rstrip() for row in grid
    ]
    rule = "  ".join("-" * w for w in widths)
    return "\n".join([table.title, "", lines[0], rule, *lines[1:], "", *table.notes])


def _markdown(table: Table) -> str:
    def row(cells: Sequence[str]) -> str:
        return "| " + " | ".join(c.replace("|", r"\|") for c in cells) + " |"

    body = [row([_code(cell) for cell in cells]) for cells in table.rows]
    head = [row(table.columns), row(["---"] * len(table.columns))]
    return "\n".join([f"`{table.title}`", "", *head, *body, "", *(f"* {n}" for n in table.notes)])


def _code(cell: Cell) -> str:
    return f"`{cell}`" if isinstance(cell, Expr) else plain(cell)


def _latex(table: Table) -> str:
    body = [" & ".join(tex(cell) for cell in row) + r" \\" for row in table.rows]
    return "\n".join(
        [
            f"% {table.title}",
            r"\begin{tabular}{" + "l" * len(table.columns) + "}",
            r"\hline",
            " & ".join(_escape(c) for c in table.columns) + r" \\",
            r"\hline",
            *body,
            r"\hline",
            r"\end{tabular}",
            *(f"% {note}" for note in table.notes),
        ]
    )


def _html(table: Table) -> str:
    def cells(tag: str, values: Sequence[str]) -> str:
        return "<tr>" + "".join(f"<{tag}>{v}</{tag}>" for v in values) + "</tr>"

    head = cells("th", [html.escape(c) for c in table.columns])
    body = "".join(cells("td", [html.escape(plain(c)) for c in row]) for row in table.rows)
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in table.notes)
    return (
        f"<table><caption>{html.escape(table.title)}</caption><thead>{head}</thead>"
        f"<tbody>{body}</tbody></table><ul>{notes}</ul>"
    )


# --- derivations --------------------------------------------------------------------------------


SIZE_OF = {
    Size.ENTRY: "entry",
    Size.SPECTRAL: "spectral",
    Size.FROBENIUS: "Frobenius",
    Size.SCALAR: "",
}
"""What a line of a derivation is the size of, in a column of its own."""
OF = "entry: a typical entry; spectral: the spectral norm, on the span of the data if it acts there"


def render_steps(title: str, step: Step, style: Format) -> str:
    """A derivation, one numbered line per step, premises first."""
    steps = step.lines()
    where = {s: i + 1 for i, s in enumerate(steps)}
    rows = []
    for i, s in enumerate(steps):
        inputs = ", ".join(str(where[x]) for x in s.inputs)
        why = s.inference.name + (f" of {inputs}" if inputs else "")
        of = SIZE_OF[s.result.of]
        rows.append((str(i + 1), timed(s), str(s.result), of, s.numbers, why, s.assumption))
    if style is Format.TEXT:
        return _steps_text(title, rows)
    if style is Format.LATEX:
        return _steps_latex(title, steps)
    columns = ("", "quantity", "size", "of", "numbers", "because", "assuming")
    inferences = dict.fromkeys(s.inference for s in steps)
    whys = (
        f"{i.name}: {i.statement}" + f" [{i.reference}]" * bool(i.reference) for i in inferences
    )
    notes = (*whys, OF)
    return render(Table(title, columns, tuple(rows), notes), style)


def _steps_text(title: str, rows: Sequence[tuple[str, ...]]) -> str:
    lines = [title, ""]
    subject = max(len(row[1]) for row in rows)
    size, kind = (max(len(row[i]) for row in rows) for i in (2, 3))
    for number, what, result, of, numbers, why, assumption in rows:
        lines.append(f"{number:>3}  {what:<{subject}}  ~ {result:<{size}}  {of:<{kind}}  [{why}]")
        if numbers:
            lines.append(f"     {'':<{subject}}    = {numbers}")
        if assumption:
            lines.append(f"     {'':<{subject}}    assuming {assumption}")
    if kind:
        lines += ["", OF]
    return "\n".join(lines)


def _steps_latex(title: str, steps: Sequence[Step]) -> str:
    lines = [f"% {title}", r"\begin{align}"]
    for i, s in enumerate(steps):
        size = r"0" if s.result.is_zero else f"M^{{{sympy.latex(s.result.width)}}}"
        end = r" \\" if i + 1 < len(steps) else ""
        subject, why = _escape(timed(s)), _escape(s.inference.name)
        lines.append(rf"\text{{{subject}}} &= \Theta({size}) && \text{{[{why}]}}{end}")
    return "\n".join([*lines, r"\end{align}"])
