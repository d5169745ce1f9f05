"""Rows of other shapes of the same entries, and of reading and writing by index."""

from __future__ import annotations

from dataclasses import replace
from string import ascii_letters
from typing import TypeAlias

from sympy import Expr, S

from scaling.models.operations.row import Operands, OperationRow, resized
from scaling.models.terms import (
    PLAIN,
    AxisState,
    GraphValue,
    Term,
    add,
    axis_state,
    contract,
    joined,
    part_of,
    smaller,
    spread,
    zero,
)


def part(at: Operands) -> GraphValue:
    """The same entries, or some of them, along axes of other lengths."""
    return part_change(at, 0, at.values[0])


def part_change(at: Operands, i: int, dx: GraphValue) -> GraphValue:
    """The change that follows from a change of the input."""
    if at.part:
        dx = part_of(dx, at.node.get("axis"), at.part)
    return resized(dx, at.axes)


def part_cotangent(at: Operands, i: int, dy: GraphValue) -> GraphValue:
    """The rest of the tensor has none; what an index takes several times adds up."""
    axes = at.values[i].axes
    more = sum((m - n for n, m in zip(axes, dy.axes, strict=True) if (m - n).is_positive), S.Zero)
    return few_of(dy, axes).times(more)


def few_of(value: GraphValue, axes: tuple[Expr, ...]) -> GraphValue:
    """The same entries along longer axes, in which nothing else is not zero."""

    def states(term: Term) -> tuple[AxisState, ...]:
        return tuple(
            axis_state(s.odd, s.seen, s.weak, m if s.few is None else smaller(m, s.few))
            if (n - m).is_positive
            else s
            for s, m, n in zip(term.along, value.axes, axes, strict=True)
        )

    return GraphValue(axes, tuple(replace(t, along=states(t)) for t in value.terms))


def resized_back(at: Operands, i: int, dy: GraphValue) -> GraphValue:
    """The adjoint where every entry is kept."""
    return resized(dy, at.values[i].axes)


Groups: TypeAlias = tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]


def regrouped(value: GraphValue, groups: Groups, axes: tuple[Expr, ...]) -> GraphValue:
    """The same entries with axes split or joined; see graph.py for the groups."""

    def states(term: Term) -> tuple[AxisState, ...]:
        found = [PLAIN] * len(axes)
        for ins, outs in groups:
            if len(ins) == 1:
                for m in outs:
                    found[m] = term.along[ins[0]]
                continue
            inside = [k for k in ins if value.axes[k] != 0]
            outside = [k for k in outs if axes[k] != 0]
            if not inside and not outside:  # nothing grows, and signs are those of before
                inside, outside = list(ins), list(outs)
            if [value.axes[k] for k in inside] == [axes[k] for k in outside]:
                for k, m in zip(inside, outside, strict=True):
                    found[m] = term.along[k]
                inside, outside = (
                    [k for k in x if k not in y] for x, y in ((ins, inside), (outs, outside))
                )
            if len(inside) == len(outside):
                for k, m in zip(inside, outside, strict=True):
                    found[m] = term.along[k]
            elif inside:
                here = tuple(term.along[k] for k in inside)
                odd = frozenset.intersection(*(s.odd for s in here))
                whole = joined(here)
                state = axis_state(odd, whole.seen, whole.weak, whole.few)
                for m in outside:
                    found[m] = state
        return tuple(found)

    return GraphValue(axes, tuple(replace(t, along=states(t)) for t in value.terms))


def _reshaped(at: Operands) -> GraphValue:
    return regrouped(at.values[0], at.node.get("groups"), at.axes)


def _reshaped_change(at: Operands, i: int, dx: GraphValue) -> GraphValue:
    return regrouped(dx, at.node.get("groups"), at.axes)


def _reshaped_cotangent(at: Operands, i: int, dy: GraphValue) -> GraphValue:
    turned = tuple((outs, ins) for ins, outs in at.node.get("groups"))
    return regrouped(dy, turned, at.values[0].axes)


def _turned(value: GraphValue, order: tuple[int, ...]) -> GraphValue:
    axes = tuple(value.axes[k] for k in order)
    return GraphValue(
        axes, tuple(replace(t, along=tuple(t.along[k] for k in order)) for t in value.terms)
    )


def _permuted(at: Operands) -> GraphValue:
    return _turned(at.values[0], at.node.get("order"))


def _permuted_change(at: Operands, i: int, dx: GraphValue) -> GraphValue:
    return _turned(dx, at.node.get("order"))


def _permuted_cotangent(at: Operands, i: int, dy: GraphValue) -> GraphValue:
    order = list(at.node.get("order"))
    return _turned(dy, tuple(order.index(k) for k in range(len(order))))


def _joined_axes(at: Operands) -> GraphValue:
    return add(at.axes, [few_of(value, at.axes) for value in at.values])


def _joined_change(at: Operands, i: int, dx: GraphValue) -> GraphValue:
    return few_of(dx, at.axes)


def _gathered(at: Operands) -> GraphValue:
    return _gathered_change(at, 0, at.values[0])


def _gathered_change(at: Operands, i: int, dx: GraphValue) -> GraphValue:
    if i == 1:
        return zero(at.axes)
    axis, index = at.node.get("axis"), at.values[1]

    def states(term: Term) -> tuple[AxisState, ...]:
        here = (PLAIN,) * len(index.axes)
        return (*term.along[:axis], *here, *term.along[axis + 1 :])

    return GraphValue(at.axes, tuple(replace(t, along=states(t)) for t in dx.terms))


def _gathered_cotangent(at: Operands, i: int, dy: GraphValue) -> GraphValue:
    """The sum over the places where a row stands: all of them, if the table does not grow.

    Of a table that grows faster than the places, only the rows that occur have a cotangent.
    """
    table, index = at.values
    if i == 1:
        return zero(index.axes)
    axis = at.node.get("axis")
    letters = ascii_letters[: len(dy.axes)]
    rows = ascii_letters[len(letters)]
    found = contract([(dy, letters)], letters[:axis] + rows + letters[axis + len(index.axes) :])
    places, length = sum(index.axes, S.Zero), table.axes[axis]
    found = resized(found, table.axes).times(-smaller(places, length))
    if smaller(places, length) == length:
        return found
    few = axis_state(few=places)
    return GraphValue(
        found.axes,
        tuple(replace(t, along=(*t.along[:axis], few, *t.along[axis + 1 :])) for t in found.terms),
    )


def _scattered(at: Operands) -> GraphValue:
    return add(at.axes, [at.values[0], _put(at, at.values[2])])


def _put(at: Operands, source: GraphValue) -> GraphValue:
    """Entries at their places: few of a longer axis, sums where a place has several of them."""
    if len(source.axes) != len(at.axes):  # a number, or rows that are alike
        return spread(source, at.axes)
    axis = at.node.get("axis")
    more = source.axes[axis] - at.axes[axis]
    if not more.is_positive or at.node.get("kind") != "add":
        return few_of(source, at.axes)
    letters = ascii_letters[: len(at.axes)]
    summed = letters[: axis + 1] + ascii_letters[len(letters)] + letters[axis + 1 :]
    axes = (*at.axes[: axis + 1], more, *at.axes[axis + 1 :])
    terms = (replace(t, along=(*t.along[: axis + 1], *t.along[axis:])) for t in source.terms)
    return contract([(GraphValue(axes, tuple(terms)), summed)], letters)


def _scattered_change(at: Operands, i: int, dx: GraphValue) -> GraphValue:
    return zero(at.axes) if i == 1 else dx if i == 0 else _put(at, dx)


ROWS = {
    "reshape": OperationRow(_reshaped, _reshaped_change, _reshaped_cotangent),
    "permute": OperationRow(_permuted, _permuted_change, _permuted_cotangent),
    "slice": OperationRow(part, part_change, part_cotangent),
    "rearrange": OperationRow(part, part_change, resized_back),
    "concatenate": OperationRow(_joined_axes, _joined_change, resized_back),
    "gather": OperationRow(_gathered, _gathered_change, _gathered_cotangent),
    "take_along": OperationRow(
        part,
        lambda at, i, x: zero(at.axes) if i else part_change(at, i, x),
        lambda at, i, x: zero(at.values[1].axes) if i else part_cotangent(at, i, x),
    ),
    "scatter": OperationRow(_scattered, _scattered_change, resized_back),
}
