"""Rules of inference for scalars: powers, sign, abs, sqrt, and the larger of two.

A scalar of order M^x to the power p is of order M^(p x). A difference of scalars may vanish and may
have either sign, so it has neither a root nor an inverse: both are refused. The larger of two sets
the size of their maximum, as in a sum, and the decision is kept as a regime; not if the larger in
size may be below zero, for then the maximum is the other one.
"""

from __future__ import annotations

from sympy import Expr, S

from scaling.calculus.context import Context
from scaling.calculus.entrywise import Reading
from scaling.calculus.values import Scalar
from scaling.rules.tree import Call, Power
from scaling.sizes.derivation import PRODUCT, SUM, Step
from scaling.sizes.scale import HALF, Order


def power(context: Context, node: Power, value: Scalar, p: Expr, step: Step) -> Reading:
    """x**p."""
    positive = value.positive
    if not (positive or p.is_Integer) or (p.is_negative and not positive):
        raise context.not_covered(
            node, "a root or an inverse of a difference", "a sum of positive terms"
        )
    result = value.size**p
    scalar = Scalar(result, positive or p.is_even is True)
    return scalar, Step(PRODUCT, str(node), result, f"({value.size})^({p})", (step,), node=node)


def function(context: Context, node: Call, value: Scalar, step: Step) -> Reading:
    """sign(x), abs(x) and sqrt(x)."""
    p = {"sign": S.Zero, "abs": S.One, "sqrt": HALF}[node.function]
    if node.function == "sqrt" and not value.positive:
        raise context.not_covered(node, "the root of a difference", "a positive scalar")
    size = value.size if value.size.is_zero else value.size**p
    scalar = Scalar(size, value.positive or node.function == "abs")
    return scalar, Step(PRODUCT, str(node), size, "", (step,), node=node)


def larger(context: Context, node: Call, first: Reading, second: Reading) -> Reading:
    """max(x, y)."""
    (x, step), (y, other) = first, second
    assert node.option is not None, "max has two operands"
    if not isinstance(x, Scalar) or not isinstance(y, Scalar):
        raise context.not_covered(node, "max of matrices", "scalars")
    regime = context.decide(node, node.argument, node.option, x.size, y.size)
    setting = {Order.LESS: (y,), Order.GREATER: (x,), Order.EQUAL: (), Order.OPEN: (x, y)}[
        regime.order
    ]
    if not all(scalar.positive for scalar in setting):
        raise context.not_covered(
            node, "max of a number and a larger one that may be negative", "positive scalars"
        )
    value = Scalar(context.plus(x.size, y.size), x.positive or y.positive)
    return value, Step(
        SUM, str(node), value.size, "the larger", (step, other), node=node, decision=regime
    )
