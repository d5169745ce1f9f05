"""Rules of inference for entries that are cut off at a bound: clip(X, bound) and atan(X).

    X ~ bound or smaller     X itself (of the same size as the bound: near zero it is X)
    X larger                 bound sign(X): its parities, and no trace of its size

atan is smooth and clip is not, but a size does not tell them apart; atan has the bound 1. Which of
both holds is a regime, and a bound that is above or below the entries depending on symbols
is refused.
"""

from __future__ import annotations

from dataclasses import replace

from sympy import S

from scaling.calculus import entrywise, rotation
from scaling.calculus.context import Context
from scaling.calculus.entrywise import Reading
from scaling.calculus.values import Rotated, Scalar, Value
from scaling.rules.tree import Call, Node
from scaling.sizes.derivation import ENTRYWISE, Step
from scaling.sizes.scale import Order


def bounded(context: Context, node: Call, first: Reading, limit: Node, second: Reading) -> Reading:
    """clip(X, bound) and atan(X); ``second`` is the reading of the ``limit``, 1 for atan."""
    (value, step), (bound, other) = first, second
    if not isinstance(bound, Scalar) or not bound.positive:
        raise context.not_covered(node, "a bound that is no positive scalar", "a positive one")
    steps = (step,) if node.option is None else (step, other)
    if isinstance(value, Rotated):
        rotation.need_nothing_outside(context, node, value)
    if value.main.is_zero:
        return value, Step(ENTRYWISE, str(node), value.main, "of zero", steps, node=node)
    regime = context.decide(node, node.argument, limit, value.main, bound.size)
    result, line = _at_the_bound(context, node, value, bound, regime.order, steps)
    return result, replace(line, decision=regime)


def _at_the_bound(
    context: Context, node: Call, value: Value, bound: Scalar, order: Order, steps: tuple[Step, ...]
) -> Reading:
    if order is Order.OPEN:
        raise context.not_covered(
            node, "a bound that is above or below the entries depending on symbols", "their values"
        )
    if order is Order.LESS:
        return value, Step(ENTRYWISE, str(node), value.main, "below the bound", steps, node=node)
    if isinstance(value, Scalar):
        return bound, Step(ENTRYWISE, str(node), bound.size, "at the bound", steps, node=node)
    near = order is Order.EQUAL
    if isinstance(value, Rotated):
        return rotation.function(
            context, node, value,
            lambda c, x: entrywise.bounded(c, node, x, bound.size, near, steps), S.One,
        )  # fmt: skip
    return entrywise.bounded(context, node, value, bound.size, near, steps)
