"""The catalogue on paper: a line an optimizer, or one of them with its rule and its symbols."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from scaling.report.as_text import text
from scaling.report.tables import Table
from scaling.report.wrapping import wrapped
from scaling.solve.derive import derive
from scaling.states.problem import CONVENTION

if TYPE_CHECKING:
    from derivations.declaration import Optimizer
    from derivations.ready_made import ReadyMade

WIDTH = 120
"""No line of the catalogue as text is wider."""


def catalogue_text(families: Mapping[str, Sequence[Optimizer]]) -> str:
    """Name, summary and first reference of each, family by family, as text."""
    every = [one for family in families.values() for one in family]
    rows = tuple((o.name, o.about, o.reference.partition(";")[0]) for o in every)
    note = "one of them, with its rule: scaling list NAME; its exponents: scaling derive NAME"
    more = "as libraries run them, for groups of tensors: scaling list --recipes"
    title = f"catalogue: {len(every)} optimizers in {len(families)} families"
    lines = text(title, ("name", "", "reference"), rows, (note, more), WIDTH).split("\n")
    first = {family[0].name: claim for claim, family in families.items()}
    found: list[str] = []
    for line in lines:
        claim = first.pop((line.split() or [""])[0], None)
        found += ["", *wrapped(claim, WIDTH), line] if claim else [line]
    return "\n".join(found)


def catalogue_pages(families: Mapping[str, Sequence[Optimizer]]) -> list[Table]:
    """The same with rules and learning-rate exponents, for formats that know no width."""
    columns = ("name", "c input", "c hidden", "c output", "", "update")
    return [
        Table(
            claim,
            columns,
            tuple(
                (o.name, *derive(o.rule).exponents.c.values(), o.about, o.rule.written)
                for o in family
            ),
            (CONVENTION,),
        )
        for claim, family in families.items()
    ]


def declared_table(optimizer: Optimizer) -> Table:
    """An optimizer's rule, what its symbols mean, and the values that practice gives them."""
    usual = {**optimizer.exponents, **optimizer.values}
    rows = tuple((x, unit, str(usual.get(x, ""))) for x, unit in optimizer.units.items())
    left = tuple((x, "", str(value)) for x, value in usual.items() if x not in optimizer.units)
    notes: tuple[str, ...] = (optimizer.about, f"reference: {optimizer.reference}")
    notes += (f"as its first two steps: {optimizer.library}",) if optimizer.library else ()
    title = f"{optimizer.name}: dW = {optimizer.rule.written}"
    return Table(title, ("symbol", "unit", "in practice"), (*rows, *left), notes)


def recipes_table(recipes: Iterable[ReadyMade]) -> Table:
    """Ready-made recipes: name, summary and the library that each is held against."""
    rows = tuple((x.name, x.about, x.library) for x in recipes)
    note = "one of them, with its rules: scaling list NAME; scaling plan NAME --model FILE.py ..."
    return Table("ready-made recipes", ("name", "", "as run by"), rows, (note,))


def recipes_text(recipes: Iterable[ReadyMade]) -> str:
    """The same as text, at the width of the catalogue."""
    table = recipes_table(recipes)
    return text(table.title, table.columns, table.rows, table.notes, WIDTH)


def recipe_table(one: ReadyMade) -> Table:
    """The groups of a ready-made recipe, with rules and constants."""
    rows = tuple(
        (
            group.label,
            "" if group.rule is None else group.rule.written,
            ", ".join(f"{k}={x:.6g}" for k, x in group.values.items()),
        )
        for group in one.recipe.groups
    )
    notes: tuple[str, ...] = (one.about, f"as run by {one.library}, from {one.package}")
    notes += (f"left out: {one.differs}",) if one.differs else ()
    return Table(one.name, ("group", "update", "constants"), rows, notes)


def recipe_json(one: ReadyMade) -> dict[str, object]:
    """The same as data."""
    groups = [
        {
            "select": list(group.selectors),
            "rule": None if group.rule is None else str(group.rule),
            "values": dict(group.values),
        }
        for group in one.recipe.groups
    ]
    return {
        "about": one.about, "library": one.library, "package": one.package, "groups": groups,
        "differs": one.differs,
    }  # fmt: skip
