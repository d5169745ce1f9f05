"""Powers of the number of samples: one line a layer, for samples that are independent or agree."""

from __future__ import annotations

from typing import Any

from sympy import Expr

from scaling.report.tables import Table
from scaling.solve.batch_rule import GROWTHS, BatchRule

CONVENTION = (
    "powers of the number of samples n, M >> n: a positive one means larger at a larger batch; "
    "own: dW h at one learning rate; rate: the learning rate at which a pass over the data moves a "
    "layer as far at any n, where samples are independent (noise) and where they agree (signal)"
)


def batch_table(found: BatchRule) -> Table:
    """One line a layer: own updates, the rate, and dampings."""
    rule = found.rule
    columns = ["layer"]
    for growth in GROWTHS:
        columns += [f"own, {growth}", f"rate, {growth}"]
        columns += [f"{k}, {growth}" for k in rule.scaled]
    rows = tuple(
        (layer, *(cell for growth in GROWTHS for cell in _cells(found, layer, growth)))
        for layer in found.layers
    )
    notes = [CONVENTION, *(f"assumed: {text}" for text in found.assumptions)]
    title = f"{rule.name}: dW = {rule}" if rule.name else f"dW = {rule}"
    return Table(title, tuple(columns), rows, tuple(notes))


def _cells(found: BatchRule, layer: str, growth: Any) -> list[Expr | str]:
    powers = found.powers(layer, growth)
    scaled = [powers.get(k, "") for k in found.rule.scaled]
    return [found.own(layer, growth), found.rate(layer, growth), *scaled]


def batch_json(found: BatchRule) -> dict[str, Any]:
    """The same as data; powers are strings."""
    return {
        "rule": str(found.rule),
        "name": found.rule.name,
        "powers_of_n": {
            str(growth): {
                layer: {
                    "own": str(found.own(layer, growth)),
                    "rate": str(found.rate(layer, growth)),
                    **{k: str(x) for k, x in found.powers(layer, growth).items()},
                }
                for layer in found.layers
            }
            for growth in GROWTHS
        },
        "assumptions": list(found.assumptions),
        "convention": CONVENTION,
    }
