"""The catalogue on paper: a line an optimizer, or one of them with its rule and its symbols."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from scaling.report.as_text import text
from scaling.report.tables import Format, Table, render

if TYPE_CHECKING:
    from derivations.declaration import Optimizer

WIDTH = 120
"""No line of the catalogue as text is wider."""


def catalogue_text(optimizers: Iterable[Optimizer], style: str) -> str:
    """Name, summary and first reference of each."""
    rows = tuple((o.name, o.about, o.reference.partition(";")[0]) for o in optimizers)
    note = "one of them, with its rule: scaling list NAME; its exponents: scaling derive NAME"
    fields = "catalogue", ("name", "", "reference"), rows, (note,)
    return (
        text(*fields, WIDTH)
        if Format(style) is Format.TEXT
        else render(Table(*fields), Format(style))
    )


def declared_table(optimizer: Optimizer) -> Table:
    """An optimizer's rule, what its symbols mean, and the values that practice gives them."""
    usual = {**optimizer.exponents, **optimizer.values}
    rows = tuple((x, unit, str(usual.get(x, ""))) for x, unit in optimizer.units.items())
    left = tuple((x, "", str(value)) for x, value in usual.items() if x not in optimizer.units)
    notes = (optimizer.about, f"reference: {optimizer.reference}")
    title = f"{optimizer.name}: dW = {optimizer.rule.written}"
    return Table(title, ("symbol", "unit", "in practice"), (*rows, *left), notes)
