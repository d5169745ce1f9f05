"""Equations between exponents: a damping equals what it is added to, lr x decay is one.

`solve` eliminates equations that are affine in the unknowns, exactly (Gauss and Jordan). Where one
damping would have to balance two sizes, they contradict each other; `bounded` then finds the
largest dampings of which none is larger than what it is added to.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice, permutations

import sympy
from sympy import Expr, S, Symbol

from scaling.calculus.context import regimes, unknown_first
from scaling.models.chain import Layer
from scaling.rules.tree import Node
from scaling.sizes.derivation import Step
from scaling.sizes.errors import Conflict
from scaling.sizes.scale import Bounds, Order

MOST_ORDERS = 720


@dataclass(frozen=True)
class Balance:
    """The equation left = right between the exponents of two terms; left is the damping."""

    node: Node
    left: Expr
    right: Expr


def balances(step: Step, unknown: Iterable[Symbol]) -> list[Balance]:
    """The equations of a derivation: wherever a term of unknown scale was compared with another."""
    symbols = frozenset(unknown)
    pairs = ((x.node, unknown_first(x.left_size, x.right_size, symbols)) for x in regimes(step))
    return [Balance(node, pair[0].width, pair[1].width) for node, pair in pairs if pair]


def solve(
    balances: Iterable[Balance], unknowns: list[Symbol], layer: Layer, strict: bool = True
) -> dict[Symbol, Expr]:
    """Elimination of equations affine in the unknowns; ``strict`` refuses those without solution.

    Otherwise an equation that contradicts the ones before it is left out.
    """
    solution: dict[Symbol, Expr] = {}
    for balance in balances:
        equation = sympy.expand((balance.left - balance.right).subs(solution))
        pivot = next((u for u in unknowns if equation.has(u)), None)
        if pivot is None:
            if equation != 0 and strict:
                raise Conflict(
                    f"a damping in '{balance.node}' of the {layer.name} layer that would have to "
                    f"balance two sizes that differ by M^({equation})",
                    "one damping per size, or one that is given",
                    "use two symbols (rho_A, rho_B), or fix it with --set d_<damping>=...",
                )
            continue
        slope = equation.coeff(pivot)
        if slope == 0 or sympy.expand(equation - slope * pivot).has(pivot):
            raise Conflict(
                f"a damping in '{balance.node}' of the {layer.name} layer that is added to a power "
                "of itself",
                "one damping per sum",
                "leave one of them out, or fix it with --set d_<damping>=...",
            )
        value = sympy.expand((slope * pivot - equation) / slope)
        solution = {u: sympy.expand(x.subs(pivot, value)) for u, x in solution.items()}
        solution[pivot] = value
    return solution


def bounded(
    balances: list[Balance], unknowns: list[Symbol], layer: Layer, bounds: Bounds
) -> tuple[dict[Symbol, Expr], str]:
    """The largest dampings of which none is larger than what it is added to.

    Some sums are then balanced, and those fix the dampings; the others are left undamped. Which
    is which follows from trying: a few sums have few orders.

    Raises:
        Conflict: if there is no such solution, or symbols leave it open.
    """
    distinct = list({(b.left, b.right): b for b in balances}.values())
    for order in islice(permutations(distinct), MOST_ORDERS):
        solution = solve(order, unknowns, layer, strict=False)
        excess = {b: sympy.expand((b.left - b.right).subs(solution)) for b in distinct}
        if all(bounds.order(x, S.Zero) in (Order.LESS, Order.EQUAL) for x in excess.values()):
            loose = [f"'{b.node}' by M^({x})" for b, x in excess.items() if x != 0]
            return solution, (
                f"balanced damping has no solution in the {layer.name} layer: the largest one that "
                f"drowns nothing is too small in {', '.join(loose)}"
            )
    solve(balances, unknowns, layer)
    raise AssertionError("balances without a conflict are solved before")
