"""The regimes of an answer, and those that decide an exponent.

A regime says which of two terms sets the size of a sum as the width grows (context.py). At the
widths that are in use the other term may still be the larger one, and then another exponent holds.
So the answer names every regime, and one that decides an exponent is told apart: the rule is
derived again with the lesser term alone in the place of the sum (and, for clip, atan and the like,
on the other side of the bound), and a layer whose exponents change, or which the calculus then
refuses, depends on the regime.

>>> from scaling.solve.derive import derive
>>> [str(x) for x in decisive(derive("G/(1 + norm(W))")) if x.layer == "hidden"]
['in hidden, 1 ~ 1, norm(W) ~ M^(1/2): norm(W) dominates (with 1 alone c = 0, not -1/2)']
>>> decisive(derive("G/(norm(G) + eps)"))
()
"""

from __future__ import annotations

from dataclasses import dataclass

from scaling.calculus.context import Regime
from scaling.rules.operators import OfEntries, Symmetry
from scaling.rules.rewrites import substitute
from scaling.rules.rule import Rule
from scaling.rules.tree import Call, Multiply, Node, Power, as_node, row_of
from scaling.sizes.errors import ScalingError
from scaling.sizes.scale import Order
from scaling.solve.derive import Derived, derive


@dataclass(frozen=True)
class DecisiveRegime:
    """A regime that an exponent of its layer depends on."""

    layer: str
    regime: Regime
    otherwise: str
    """The answer that the other regime would give."""

    def __str__(self) -> str:
        return f"in {self.layer}, {self.regime} ({self.otherwise})"


def regime_lines(found: Derived) -> tuple[str, ...]:
    """Sums that are not balanced, and decays that are not: one line each, as they are printed."""
    lines: dict[str, None] = {}
    for name, regimes in found.regimes.items():
        for regime in regimes:
            if regime.order is not Order.EQUAL:
                lines.setdefault(f"regime in {name}: {regime}", None)
    for shrinkage in found.shrinkages:
        if shrinkage.order is not Order.EQUAL:
            lines.setdefault(f"regime in {shrinkage.layer}: {shrinkage}", None)
    return tuple(lines)


def decisive(found: Derived) -> tuple[DecisiveRegime, ...]:
    """The regimes that exponents depend on, layer by layer."""
    others: dict[tuple[Node, Node], Derived | None] = {}
    kept: dict[DecisiveRegime, None] = {}
    for layer, regimes in found.regimes.items():
        for regime in regimes:
            if regime.order not in (Order.LESS, Order.GREATER):
                continue
            instead, text = alternative(regime)
            place = regime.node, instead
            if place not in others:
                others[place] = _with(found, *place)
            otherwise = _difference(found, others[place], layer, text)
            if otherwise:
                kept.setdefault(DecisiveRegime(layer, regime, otherwise))
    return tuple(kept)


def alternative(regime: Regime) -> tuple[Node, str]:
    """A node as it would be in the other regime, and in words."""
    row, beyond = row_of(regime.node), regime.order is Order.LESS
    if row is not None and isinstance(row.reading, OfEntries):
        where = "at the bound" if beyond else "below the bound"
        return _end(row.reading, beyond, regime.left, regime.right), where
    kept = regime.left if beyond else regime.right
    return kept, f"with {regime.in_full(kept)} alone"


def _end(f: OfEntries, beyond: bool, x: Node, bound: Node) -> Node:
    """bound^(1 - p) |x|^p, with the signs of f: all of f(x, bound) on one side of the bound."""
    power = f.at_infinity if beyond else f.at_zero
    size = Call("abs", x) if f.symmetry is Symmetry.EVEN else x
    if power == 1:
        return size
    if power == 0:
        return Multiply(bound, Call("sign", size))
    raised = Power(Call("abs", x), as_node(power))
    signed = Multiply(Call("sign", x), raised) if f.symmetry is Symmetry.ODD else raised
    return Multiply(Power(bound, as_node(1 - power)), signed)


def _with(found: Derived, node: Node, instead: Node) -> Derived | None:
    """The answer for the rule in its other regime; None where the calculus has none."""
    problem = found.problem
    try:
        rule = Rule(substitute(problem.rule.expression, {node: instead}), problem.rule.name)
        return derive(
            rule, problem.settings, problem.setting,
            sampled_fisher=problem.sampled_fisher, step=problem.step,
            rounding_noise=problem.rounding_noise,
        )  # fmt: skip
    except ScalingError:
        return None


def _difference(found: Derived, other: Derived | None, layer: str, text: str) -> str:
    if other is None:
        return f"{text} it is not covered"
    x, y = found.exponents, other.exponents
    if x.c[layer] != y.c[layer]:
        return f"{text} c = {y.c[layer]}, not {x.c[layer]}"
    for name in x.d[layer].keys() & y.d[layer].keys():
        if x.d[layer][name] != y.d[layer][name]:
            return f"{text} d_{name} = {y.d[layer][name]}, not {x.d[layer][name]}"
    return ""
