"""A table as Markdown: the heading as code, exponents as code, notes as a list."""

from __future__ import annotations

from collections.abc import Sequence

from sympy import Expr

from scaling.report.as_text import Cell, plain


def markdown(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]], notes: Sequence[str]
) -> str:
    """The heading, a table with a row a line, and the notes."""
    body = [_row([_code(cell) for cell in cells]) for cells in rows]
    head = [_row(columns), _row(["---"] * len(columns))]
    return "\n".join([f"`{title}`", "", *head, *body, "", *(f"* {n}" for n in notes)])


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(c.replace("|", r"\|") for c in cells) + " |"


def _code(cell: Cell) -> str:
    return f"`{cell}`" if isinstance(cell, Expr) else plain(cell)
