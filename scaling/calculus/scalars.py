"""Rules of inference for scalars: powers, the larger and the smaller of two, trust ratios.

A scalar of order M^x to the power p is of order M^(p x). A difference of scalars may vanish and may
have either sign, so it has neither a root nor an inverse: both are refused. The larger of two sets
the size of their maximum, as in a sum, the smaller that of their minimum, and the decision is kept
as a regime; not if the larger in size may be below zero, for then it is the other one. A trust
ratio is a quotient, and 1 where the weights or the gradient are exactly zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sympy import Expr

from scaling.calculus import instead, sums
from scaling.calculus.context import Context
from scaling.calculus.entrywise import Reading
from scaling.calculus.values import Scalar
from scaling.rules.operators import Extreme
from scaling.rules.tree import Call, Power
from scaling.sizes.derivation import PRODUCT, SUM, Step
from scaling.sizes.scale import Order, Scale, Size


def power(context: Context, node: Power, value: Scalar, p: Expr, step: Step) -> Reading:
    """x**p."""
    positive = value.positive
    if not (positive or p.is_Integer) or (p.is_negative and not positive):
        raise context.not_covered(
            node, "a root or an inverse of a difference", "a sum of positive terms", instead.damped
        )
    result = value.size**p
    scalar = Scalar(result, positive or p.is_even is True)
    return scalar, Step(PRODUCT, str(node), result, f"({value.size})^({p})", (step,), node=node)


def extreme(context: Context, node: Call, which: Extreme, operands: Sequence[Reading]) -> Reading:
    """max(x, y) and min(x, y)."""
    (x, step), (y, other) = operands
    assert node.option is not None, f"{node.function} has two operands"
    if not isinstance(x, Scalar) or not isinstance(y, Scalar):
        raise context.not_covered(node, f"{node.function} of matrices", "scalars", instead.apart)
    regime = context.decide(node, node.argument, node.option, x.size, y.size)
    above = {Order.LESS: (y,), Order.GREATER: (x,), Order.EQUAL: (), Order.OPEN: (x, y)}
    if not all(scalar.positive for scalar in above[regime.order]):
        raise context.not_covered(
            node,
            f"{node.function} of a number and a larger one that may be negative",
            "positive scalars",
            instead.positive,
        )
    steps = (step, other)
    if regime.order is Order.EQUAL:
        x, y = sums.balanced(context, x, y)
    assert isinstance(x, Scalar) and isinstance(y, Scalar), "a balance is of one kind"
    if which.larger:
        value = Scalar(context.plus(x.size, y.size), x.positive or y.positive)
        numbers = "the larger"
    else:
        value = Scalar(_smaller(context, x.size, y.size), x.positive and y.positive)
        numbers = "the smaller"
    line = Step(SUM, str(node), value.size, numbers, steps, node=node, decision=regime)
    return value, line


def trust(
    context: Context, node: Call, operands: Sequence[Reading], _: Callable[..., Reading]
) -> Reading:
    """The quotient of x and y, and 1 where one of them is exactly zero."""
    (x, step), (y, other) = operands
    if not (isinstance(x, Scalar) and isinstance(y, Scalar) and x.positive and y.positive):
        raise context.not_covered(
            node,
            "a trust ratio of numbers that may be negative",
            "norms, such as norm(W)",
            instead.positive,
        )
    if x.size.is_zero or y.size.is_zero:
        size, numbers = Scale.one(Size.SCALAR), "one of them is zero: 1"
    else:
        size, numbers = x.size / y.size, f"{x.size} / {y.size}"
    return Scalar(size), Step(PRODUCT, str(node), size, numbers, (step, other), node=node)


def _smaller(context: Context, x: Scale, y: Scale) -> Scale:
    """1 / (1/x + 1/y), of the size of the smaller of both."""
    if x.is_zero or y.is_zero:
        return Scale.zero(x.of)
    return context.plus(x**-1, y**-1) ** -1
