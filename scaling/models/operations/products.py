"""Rows of products: sizes multiply, times n^(1/2) or n for each letter that is summed.

A convolution is a contraction over channels and kernel, at each position; groups are an axis that
both have. A quotient is a product with the reciprocal.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from string import ascii_letters

from sympy import Expr, S

from scaling.models.node_functions import power_function
from scaling.models.operations.elementwise import function_of, slope_of
from scaling.models.operations.rearrangements import regrouped
from scaling.models.operations.row import (
    Operands,
    OperationRow,
    broadcast_letters,
    entrywise_product,
    one_or_size,
    own_size,
)
from scaling.models.terms import AxisState, GraphValue, contract, spread


def equation_of(at: Operands) -> tuple[list[str], str]:
    """Letters of the inputs and of the result."""
    if at.node.op == "contract":
        left, out = at.node.get("equation").replace(" ", "").split("->")
        return left.split(","), out
    return broadcast_letters(at)


def _product(at: Operands) -> GraphValue:
    letters, out = equation_of(at)
    return contract(list(zip(at.values, letters, strict=True)), out)


def _product_change(at: Operands, i: int, dx: GraphValue) -> GraphValue:
    letters, out = equation_of(at)
    values = [dx if j == i else value for j, value in enumerate(at.values)]
    return contract(list(zip(values, letters, strict=True)), out)


def _product_cotangent(at: Operands, i: int, dy: GraphValue) -> GraphValue:
    letters, out = equation_of(at)
    others = [pair for j, pair in enumerate(zip(at.values, letters, strict=True)) if j != i]
    found = contract([(dy, out), *others], letters[i])
    return spread(found, at.values[i].axes)


def _product_bears(at: Operands, i: int) -> Expr | None:
    others = [live for j, live in enumerate(at.live) if j != i]
    return one_or_size(at, i) if any(others) else None


def _convolution(at: Operands) -> tuple[Operands, str, list[int]]:
    """As a contraction: x (b, c, *s), w (o, c, *k) or (c, o, *k), y (b, o, *s).

    Groups that grow in number are an axis of x, w and y; of few groups each is as large as all.
    """
    x, w = at.values
    g, turned = at.node.get("groups", S.Zero), bool(at.node.get("transposed", False))
    space = len(x.axes) - 2
    s, k = ascii_letters[10 : 10 + space], ascii_letters[20 : 20 + space]
    axes, group = at.axes, ""
    if g != 0:
        x, w = (_split(y, axis, (g, y.axes[axis] - g)) for y, axis in ((x, 1), (w, 0)))
        axes, group = (at.axes[0], g, at.axes[1] - g, *at.axes[2:]), "g"
    letters = f"b{group}c{s},{group}{'co' if turned else 'oc'}{k}->b{group}o{s}"
    x = replace(x, axes=(*x.axes[: len(x.axes) - space], *at.axes[2:]))  # positions, up to a stride
    node = replace(at.node, op="contract", axes=axes, attributes={"equation": letters})
    return replace(at, node=node, values=(x, w)), letters, [1, 0]


def _convolved(at: Operands) -> GraphValue:
    found = _product(_convolution(at)[0])
    return _fused(found, 1, 2) if at.node.get("groups", S.Zero) != 0 else found


def _convolved_change(at: Operands, i: int, dx: GraphValue) -> GraphValue:
    values = tuple(dx if j == i else value for j, value in enumerate(at.values))
    return _convolved(replace(at, values=values))


def _convolved_cotangent(at: Operands, i: int, dy: GraphValue) -> GraphValue:
    inner, _, fused = _convolution(at)
    g = at.node.get("groups", S.Zero)
    if g != 0:
        found = _product_cotangent(inner, i, _split(dy, 1, (g, dy.axes[1] - g)))
        found = _fused(found, fused[i], 2)
    else:
        found = _product_cotangent(inner, i, dy)
    return replace(found, axes=at.values[i].axes)


def _quotient(at: Operands) -> Operands:
    """The quotient x / y as x times 1/y."""
    return replace(at, values=(at.values[0], function_of(at, 1, power_function(-S.One))))


def _quotient_change(at: Operands, i: int, dx: GraphValue) -> GraphValue:
    if i == 0:
        return _product_change(_quotient(at), 0, dx)
    slope = entrywise_product(dx, slope_of(at, 1, power_function(-S.One)))
    return _product_change(_quotient(at), 1, slope)


def _quotient_cotangent(at: Operands, i: int, dy: GraphValue) -> GraphValue:
    found = _product_cotangent(_quotient(at), i, dy)
    return found if i == 0 else entrywise_product(found, slope_of(at, 1, power_function(-S.One)))


def _split(value: GraphValue, axis: int, parts: tuple[Expr, ...]) -> GraphValue:
    def cut(states: tuple[AxisState, ...]) -> tuple[AxisState, ...]:
        return (*states[:axis], *(states[axis] for _ in parts), *states[axis + 1 :])

    axes = (*value.axes[:axis], *parts, *value.axes[axis + 1 :])
    return GraphValue(axes, tuple(replace(t, along=cut(t.along)) for t in value.terms))


def _fused(value: GraphValue, axis: int, count: int) -> GraphValue:
    """``count`` axes from ``axis`` on as one."""
    group = (tuple(range(axis, axis + count)), (axis,))
    before = tuple(((k,), (k,)) for k in range(axis))
    rest = range(axis + count, len(value.axes))
    after = tuple(((k,), (k - count + 1,)) for k in rest)
    length = sum(value.axes[axis : axis + count], S.Zero)
    axes = (*value.axes[:axis], length, *value.axes[axis + count :])
    return regrouped(value, (*before, group, *after), axes)


@dataclass(frozen=True)
class Fans:
    """Axes of a weight by what a product does with them.

    ``contracted``: summed with the data, fan_in. ``left``: axes of the result alone, fan_out; a
    gain, whose axes are those of the data, leaves them all. Axes that both have beside others are
    neither: every expert has a matrix of its own.
    """

    contracted: frozenset[int]
    left: frozenset[int]
    is_bias: bool = False


def fans(at: Operands, i: int) -> Fans:
    """The fans of input i, a weight."""
    own = range(len(at.values[i].axes))
    if at.node.op == "convolve":
        turned = bool(at.node.get("transposed", False))
        kernel = {k for k in own if k > 1}
        return Fans(frozenset(kernel | {0 if turned else 1}), frozenset({1 if turned else 0}))
    if at.node.op == "gather":
        return Fans(frozenset(), frozenset(own[1:]))
    if at.node.op not in ("contract", "multiply", "divide"):
        return Fans(frozenset(), frozenset(own), at.node.op in ("add", "subtract", "feed"))
    letters, out = equation_of(at)
    others = {c for j, names in enumerate(letters) for c in names if j != i}
    summed = frozenset(k for k in own if letters[i][k] not in out)
    left = frozenset(k for k in own if letters[i][k] in out and letters[i][k] not in others)
    if not summed and not left:
        return Fans(summed, frozenset(own))
    return Fans(summed, left)


ROWS = {
    "contract": OperationRow(_product, _product_change, _product_cotangent, _product_bears),
    "multiply": OperationRow(_product, _product_change, _product_cotangent, _product_bears),
    "convolve": OperationRow(_convolved, _convolved_change, _convolved_cotangent, _product_bears),
    "divide": OperationRow(
        lambda at: _product(_quotient(at)),
        _quotient_change,
        _quotient_cotangent,
        lambda at, i: own_size(at, i) if i else _product_bears(at, i),
    ),
}
