"""Rules of inference for means of entries and for products of them.

    mean            of rows, of columns: an entry if no terms of the sum cancel, M^(-1/2) of it if h
                    or delta has a sign of its own; of all entries, if none is negative
    col @ row       entries |x| |y|, one direction. It behaves in delta as the column does and in h
                    as the row does, so outer products of means of G*G are even, Adafactor's V
    row @ col       fan |x| |y| for the side that both live on, where no terms of the sum cancel:
                    X.T @ X, or means of even functions

A mean over delta changes sign with the gradient like G itself, so that a column times such a row is
odd and even at once (`Parity.MIXED`).
"""

from __future__ import annotations

from dataclasses import replace

from sympy import S

from scaling.calculus import directions, entrywise, instead, moved_weights, rank, weight_entries
from scaling.calculus.context import Context
from scaling.calculus.directions import OFF, ONE, Portions
from scaling.calculus.entrywise import Reading
from scaling.calculus.values import (
    Aligned,
    Behaviour,
    Parity,
    Scalar,
    Value,
    Vector,
    Weights,
    describe,
)
from scaling.models.layer_sizes import mean_step
from scaling.rules.estimable_sums import is_positive
from scaling.rules.shapes import Dim
from scaling.rules.symmetric import is_square_of_one
from scaling.rules.tree import Call, MatMul
from scaling.sizes.derivation import LLN, PRODUCT, Step
from scaling.sizes.scale import Size


def mean(context: Context, node: Call, value: Value, step: Step) -> Reading:
    """The mean of X over the sides that the result lacks: of rows, of columns, of all."""
    moved_weights.refuse_mean(context, node, value)
    value = weight_entries.plain(value)
    if isinstance(value, Weights):
        return weight_entries.mean(context, node, value, step)
    if node.shape.is_scalar:
        return _of_all(context, node, value, step)
    if not isinstance(value, Aligned):
        raise context.not_covered(
            node, f"means of {describe(value)}", "a function of G", instead.apart
        )
    entrywise.need_entries(context, node, value, sizes=entrywise.MEANS if value.positive else ())
    over_fan_in = (node.shape.cols is Dim.ONE) is not value.transposed
    side = Dim.FAN_OUT if over_fan_in else Dim.FAN_IN
    kept, averaged = (value.left, value.right) if over_fan_in else (value.right, value.left)
    is_row = node.shape.rows is Dim.ONE
    entrywise.check(context, node, kept, averaged)
    here, across = (0, 1) if over_fan_in else (1, 0)
    if averaged.parity is Parity.MIXED:
        raise context.not_covered(
            node,
            "a mean of odd and even terms, which may cancel",
            "means of one parity each",
            instead.positive,
        )
    single = over_fan_in and context.sizes.layer.is_bias  # one input, the constant 1
    if averaged.parity is Parity.EVEN or single:
        vector = Vector(
            value.entry, side, kept, is_row, Parity.EVEN, value.positive, value.monomial,
            value.mixes and single, value.steps, value.portions.at(here, OFF, context.bounds),
        )  # fmt: skip
        numbers = "of a single input" if single else "all of one sign"
        line = Step(LLN, str(node), value.entry, numbers, (step,), node=node)
        return vector, rank.assumed(context, line, [value])
    means = mean_step(context.sizes, over_fan_in, context.activation)
    if averaged.centred:
        raise context.not_covered(
            node, "a mean of what is odd in centred data, whose own mean is zero",
            "a mean of absolute values, or of squares", instead.positive,
        )  # fmt: skip
    base = context.sizes.h if over_fan_in else context.sizes.delta
    linear = bent = ONE
    if not base.is_zero:
        linear = bent = (means.result / base).as_size_of(Size.SCALAR)
    if linear.is_zero:  # cotangents that add up to zero: functions of them do not
        bent = ONE
    met = [
        (pair, size * (bent if pair[across] is OFF else linear))
        for pair, size in value.portions.sizes
    ]
    portions, ratio = directions.relative(met, context.bounds)
    smooth = replace(kept, vanishing=S.One)  # a mean of both signs vanishes in places of its own
    vector = Vector(
        value.entry * ratio, side, smooth, is_row, averaged.parity, value.positive, mixes=True,
        steps=value.steps, bend=portions.at(here, OFF, context.bounds),
    )  # fmt: skip
    numbers = f"{value.entry} x mean/entry {ratio}"
    line = Step(means.inference, str(node), vector.entry, numbers, (step, means), node=node)
    return vector, rank.assumed(context, line, [value])


def _of_all(context: Context, node: Call, value: Value, step: Step) -> Reading:
    """The mean of all entries, where they are all of one sign.

    Of both signs it would be a number that turns with the gradient, or whose sign nothing tells.
    """
    if not isinstance(value, Aligned):
        raise context.not_covered(
            node, f"the mean of {describe(value)}", "a function of G", instead.apart
        )
    entrywise.need_entries(context, node, value, sizes=entrywise.MEANS if value.positive else ())
    if not (value.positive or is_positive(node.argument) or value.entry.is_zero):
        raise context.not_covered(
            node,
            "the mean of entries that may take both signs",
            f"{node.function}(abs(X)) or {node.function}(X*X)",
            instead.positive,
        )
    entrywise.check(context, node, value.left, value.right)
    size = value.entry.as_size_of(Size.SCALAR)
    line = Step(LLN, str(node), size, "all of one sign", (step,), node=node)
    return Scalar(size), rank.assumed(context, line, [value])


def product(
    context: Context, node: MatMul, x: Vector, y: Vector, steps: tuple[Step, Step]
) -> Reading:
    """X @ Y of two vectors."""
    if not x.is_row and y.is_row and x.side is not y.side:
        return _outer(context, node, x, y, steps)
    even = x.behaviour.parity is y.behaviour.parity is Parity.EVEN
    if x.is_row and not y.is_row and (is_square_of_one(node) or even):
        size = (x.entry * y.entry * context.fan(x.side)).as_size_of(Size.SCALAR)
        return Scalar(size), Step(LLN, str(node), size, "inner product", steps, node=node)
    raise context.not_covered(
        node,
        f"{describe(x)} @ {describe(y)}",
        "square matrices of A, B, L, R around a function of G (keep W outside of them)",
        instead.apart,
    )


def _outer(
    context: Context, node: MatMul, x: Vector, y: Vector, steps: tuple[Step, Step]
) -> Reading:
    left, right = (x, y) if x.side is Dim.FAN_OUT else (y, x)
    first = left.behaviour
    if right.averaged is not Parity.EVEN:  # a mean over delta changes sign with G too
        first = Behaviour(Parity.MIXED, first.vanishing)
    outer = entrywise.coherent(
        context,
        x.entry * y.entry,
        first,
        right.behaviour,
        x.side is not Dim.FAN_OUT,
        Portions().swapped(0, OFF, left.bend).swapped(1, OFF, right.bend),
        x.positive and y.positive,
        x.monomial and y.monomial,
        x.mixes or y.mixes,
        max(x.steps, y.steps),
    )
    outer = replace(outer, low_rank=True)
    return outer, Step(PRODUCT, str(node), outer.entry, "outer product", steps, node=node)
