"""A table as a LaTeX tabular, a derivation as an align; headings and notes are comments."""

from __future__ import annotations

from collections.abc import Sequence

import sympy
from sympy import Expr

from scaling.report.as_text import Cell, plain
from scaling.sizes.scale import Scale

_ESCAPES = (
    ("\\", r"\textbackslash{}"), ("_", r"\_"), ("^", r"\^{}"), ("%", r"\%"), ("&", r"\&"),
    ("#", r"\#"), ("~", r"$\sim$"),
)  # fmt: skip


def escaped(text: str) -> str:
    """Prose with every character that is special in LaTeX written out."""
    for old, new in _ESCAPES:
        text = text.replace(old, new)
    return text


def tex(cell: Cell) -> str:
    """A cell as LaTeX, exponents in mathematics."""
    if isinstance(cell, Expr):
        return f"${sympy.latex(cell)}$"
    return escaped(plain(cell))


def latex(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]], notes: Sequence[str]
) -> str:
    """A tabular between comments."""
    body = [" & ".join(tex(cell) for cell in row) + r" \\" for row in rows]
    return "\n".join(
        [
            f"% {title}",
            r"\begin{tabular}{" + "l" * len(columns) + "}",
            r"\hline",
            " & ".join(escaped(c) for c in columns) + r" \\",
            r"\hline",
            *body,
            r"\hline",
            r"\end{tabular}",
            *(f"% {note}" for note in notes),
        ]
    )


def align(title: str, lines: Sequence[tuple[str, str, Scale, str]]) -> str:
    """An align of (number, quantity, size, reason), the numbers as tags."""
    rows = []
    for number, subject, size, why in lines:
        theta = "0" if size.is_zero else f"M^{{{sympy.latex(size.width)}}}"
        tag = rf"\tag{{{number}}}"
        rows.append(
            rf"\text{{{escaped(subject)}}} &= \Theta({theta}) && \text{{[{escaped(why)}]}} {tag}"
        )
    return "\n".join([f"% {title}", r"\begin{align}", " \\\\\n".join(rows), r"\end{align}"])
