"""A table as text, no line wider than a hundred columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from scaling.report.wrapping import WIDTH, grid, titled, wrapped

Cell: TypeAlias = Any  # sympy.Expr | str | None; sympy carries no types


def plain(cell: Cell) -> str:
    """A cell as text."""
    return "" if cell is None else str(cell)


def text(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    notes: Sequence[str],
    width: int = WIDTH,
) -> str:
    """The heading, the columns, and the notes."""
    body = grid(columns, [tuple(plain(cell) for cell in row) for row in rows], width)
    below = [line for note in notes for line in wrapped(note, width)]
    return "\n".join([*titled(title, width), "", *body, "", *below])
