"""Equations between sizes, as conditions ask for them, and their exact solution.

`solve` eliminates equations whose exponents are affine in the unknowns (Gauss and Jordan). Where
one damping would have to balance two sizes, they contradict each other; `largest` then finds the
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
from scaling.sizes.derivation import Step
from scaling.sizes.errors import Conflict
from scaling.sizes.scale import Bounds, Order, Scale

MOST_ORDERS = 720


@dataclass(frozen=True)
class Equation:
    """Two sizes that are to be equal, in what the ``subject`` names; of a damping, it is the left.

    ``left`` is what an inequality keeps at or below the right.
    """

    subject: str
    left: Scale
    right: Scale

    @property
    def excess(self) -> Expr:
        """The exponent of left / right."""
        return self.left.width - self.right.width


def balances(step: Step, unknown: Iterable[Symbol]) -> list[Equation]:
    """The equations of a derivation: wherever a term of unknown scale was compared with another."""
    symbols = frozenset(unknown)
    pairs = ((x.node, unknown_first(x.left_size, x.right_size, symbols)) for x in regimes(step))
    return [Equation(str(node), *pair) for node, pair in pairs if pair]


def solve(
    equations: Iterable[Equation], unknowns: list[Symbol], layer: Layer, strict: bool = True
) -> dict[Symbol, Expr]:
    """Elimination of equations affine in the unknowns; ``strict`` refuses those without solution.

    Otherwise an equation that contradicts the ones before it is left out.
    """
    solution: dict[Symbol, Expr] = {}
    for equation in equations:
        excess = equation.excess.subs(solution) if solution else equation.excess
        excess = sympy.expand(excess)
        pivot = next((u for u in unknowns if excess.has(u)), None)
        if pivot is None:
            if excess != 0 and strict:
                raise Conflict(
                    f"a damping in '{equation.subject}' of the {layer.name} layer that would have "
                    f"to balance two sizes that differ by M^({excess})",
                    "one damping per size, or one that is given",
                    "use two symbols (rho_A, rho_B), or fix it with --set d_<damping>=...",
                )
            continue
        slope = excess.coeff(pivot)
        if slope == 0 or sympy.expand(excess - slope * pivot).has(pivot):
            raise Conflict(
                f"a damping in '{equation.subject}' of the {layer.name} layer that is added to a "
                "power of itself",
                "one damping per sum",
                "leave one of them out, or fix it with --set d_<damping>=...",
            )
        value = sympy.expand((slope * pivot - excess) / slope)
        solution = {u: sympy.expand(x.subs(pivot, value)) for u, x in solution.items()}
        solution[pivot] = value
    return solution


def largest(
    equations: list[Equation], unknowns: list[Symbol], layer: Layer, bounds: Bounds
) -> tuple[dict[Symbol, Expr], str]:
    """The largest dampings of which none is larger than what it is added to.

    Some sums are then balanced, and those fix the dampings; the others are left undamped. Which
    is which follows from trying: a few sums have few orders.

    Raises:
        Conflict: if there is no such solution, or symbols leave it open.
    """
    distinct = list({(e.left.width, e.right.width): e for e in equations}.values())
    for order in islice(permutations(distinct), MOST_ORDERS):
        solution = solve(order, unknowns, layer, strict=False)
        excess = {e: sympy.expand(e.excess.subs(solution)) for e in distinct}
        if all(bounds.order(x, S.Zero) in (Order.LESS, Order.EQUAL) for x in excess.values()):
            loose = [f"'{e.subject}' by M^({x})" for e, x in excess.items() if x != 0]
            return solution, (
                f"balanced damping has no solution in the {layer.name} layer: the largest one that "
                f"drowns nothing is too small in {', '.join(loose)}"
            )
    solve(equations, unknowns, layer)
    raise AssertionError("balances without a conflict are solved before")
