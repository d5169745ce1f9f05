"""The catalogue on paper: a line an optimizer, or one of them with its rule and its symbols."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from scaling.report.as_text import text
from scaling.report.tables import Table
from scaling.solve.derive import derive
from scaling.states.problem import CONVENTION

if TYPE_CHECKING:
    from derivations.declaration import Optimizer

WIDTH = 120
"""No line of the catalogue as text is wider."""


def catalogue_text(optimizers: Iterable[Optimizer]) -> str:
    """Name, summary and first reference of each, as text."""
    rows = tuple((o.name, o.about, o.reference.partition(";")[0]) for o in optimizers)
    note = "one of them, with its rule: scaling list NAME; its exponents: scaling derive NAME"
    return text("catalogue", ("name", "", "reference"), rows, (note,), WIDTH)


def catalogue_page(optimizers: Iterable[Optimizer]) -> Table:
    """The same with rules and learning-rate exponents, for formats that know no width."""
    rows = tuple(
        (o.name, *derive(o.rule).exponents.c.values(), o.about, o.rule.written) for o in optimizers
    )
    columns = ("name", "c input", "c hidden", "c output", "", "update")
    return Table("catalogue", columns, rows, (CONVENTION,))


def declared_table(optimizer: Optimizer) -> Table:
    """An optimizer's rule, what its symbols mean, and the values that practice gives them."""
    usual = {**optimizer.exponents, **optimizer.values}
    rows = tuple((x, unit, str(usual.get(x, ""))) for x, unit in optimizer.units.items())
    left = tuple((x, "", str(value)) for x, value in usual.items() if x not in optimizer.units)
    notes = (optimizer.about, f"reference: {optimizer.reference}")
    title = f"{optimizer.name}: dW = {optimizer.rule.written}"
    return Table(title, ("symbol", "unit", "in practice"), (*rows, *left), notes)
