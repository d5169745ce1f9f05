"""Rows of operations over an axis: sums and means, norms, softmax, pooling."""

from __future__ import annotations

from dataclasses import replace
from string import ascii_letters

from sympy import Expr, S

from scaling.models.node_functions import power_function
from scaling.models.operations.elementwise import function_of
from scaling.models.operations.rearrangements import (
    few_of,
    part,
    part_change,
    part_cotangent,
    resized_back,
)
from scaling.models.operations.row import (
    Operands,
    OperationRow,
    entrywise_product,
    one_or_size,
    own_size,
    resized,
)
from scaling.models.terms import (
    PLAIN,
    AxisState,
    GraphValue,
    Term,
    add,
    constant,
    contract,
    joined,
    larger,
    mixed,
    spread,
)
from scaling.sizes.scale import HALF


def _over(at: Operands) -> tuple[str, str, Expr]:
    """Letters of the input and of the result of a reduction, and the length it goes over."""
    axes = at.values[0].axes
    letters = ascii_letters[: len(axes)]
    over = tuple(k % len(axes) for k in at.node.get("over"))
    length = sum((axes[k] for k in over), S.Zero)
    return letters, "".join(c for k, c in enumerate(letters) if k not in over), length


def _kept(at: Operands, value: GraphValue) -> GraphValue:
    """With the axes of length one that a reduction keeps."""
    if len(value.axes) == len(at.axes):
        return value
    over = {k % len(at.axes) for k in at.node.get("over")}

    def states(term: Term) -> tuple[AxisState, ...]:
        left = iter(term.along)
        return tuple(PLAIN if k in over else next(left) for k in range(len(at.axes)))

    return GraphValue(at.axes, tuple(replace(t, along=states(t)) for t in value.terms))


def _unkept(at: Operands, value: GraphValue) -> GraphValue:
    letters, out, _ = _over(at)
    if len(value.axes) == len(out):
        return value
    return contract([(value, letters)], out)


def _reduced(at: Operands) -> GraphValue:
    (x,), kind = at.values, at.node.get("kind")
    letters, out, length = _over(at)
    if kind in ("sum", "mean"):
        found = contract([(x, letters)], out).times(-length if kind == "mean" else S.Zero)
    elif kind in ("norm", "variance", "std"):
        square = contract([(x, letters), (x, letters)], out)
        square = square.times(-length) if kind != "norm" else square
        root = power_function(HALF)
        found = (
            square if kind == "variance" else function_of(replace(at, values=(square,)), 0, root)
        )
    elif kind in ("max", "min", "logsumexp") or length == 0:
        found = replace(contract([(x, letters)], out).times(-length), terms=())
        size = larger(S.Zero, x.size) if kind == "logsumexp" else x.size
        found = constant(found.axes, size)
    else:
        raise at.refuse(
            f"a {kind} over an axis that grows",
            "a sum, a mean, a norm or a maximum",
            "write x.mean(axis) or x.amax(axis)",
        )
    return _kept(at, found)


def _reduced_carry(at: Operands, i: int, x: GraphValue, back: bool) -> GraphValue:
    kind, value = at.node.get("kind"), at.values[0]
    letters, out, length = _over(at)
    if kind in ("norm", "variance", "std"):
        size = _reduced(at).size
        shift = {"norm": -size, "std": -size - length, "variance": -length}[kind]
        pair = [(_unkept(at, x), out) if back else (x, letters), (value, letters)]
        found = contract(pair, letters if back else out).times(shift)
    elif kind in ("max", "min"):
        return _of_largest(at, x, back)
    else:
        shift = S.Zero if kind == "sum" else -length
        pair = [(_unkept(at, x), out) if back else (x, letters)]
        found = contract(pair, letters if back else out).times(shift)
    return spread(found, value.axes) if back else _kept(at, found)


def _of_largest(at: Operands, x: GraphValue, back: bool) -> GraphValue:
    """The part of a change or cotangent that belongs to the one entry that is the largest."""
    letters, out, _ = _over(at)
    axes = at.values[0].axes
    one = tuple(n if c in out else S.Zero for c, n in zip(letters, axes, strict=True))
    if not back:
        return _kept(at, contract([(resized(x, one), letters)], out))
    found = contract([(_unkept(at, x), out)], letters)
    return few_of(replace(found, axes=one), axes)


def _reduced_change(at: Operands, i: int, dx: GraphValue) -> GraphValue:
    return _reduced_carry(at, i, dx, back=False)


def _reduced_cotangent(at: Operands, i: int, dy: GraphValue) -> GraphValue:
    return _reduced_carry(at, i, dy, back=True)


def _normalised(at: Operands) -> GraphValue:
    x = at.values[0]
    if x.is_zero:
        raise at.refuse(
            "a normalisation of what is exactly zero at the start",
            "something of a size",
            "start the tensor below it at random",
        )
    return x.times(-x.size)


def _normalised_carry(at: Operands, i: int, x: GraphValue) -> GraphValue:
    return x.times(-at.values[0].size)


def _softmax(at: Operands) -> GraphValue:
    x = at.values[0]
    n = x.axes[at.node.get("axis") % len(x.axes)]
    if x.size > 0:
        raise at.refuse(
            f"entries that grow like M^({x.size}) under a softmax, which saturates",
            "logits of order one",
            f"multiply them by M^({-x.size}) or less, or start the queries with entries as much "
            "smaller, as T5 does: --set b_NAME=1, by the name of the tensor, or a pattern of "
            "names: --set 'b_*.q.weight=1'",
        )
    if at.node.get("log", False):
        return add(x.axes, [constant(x.axes), x])
    even = constant(x.axes, -n)
    if x.is_zero or x.size < 0:
        return add(x.axes, [even, x.times(-n)])
    along = []
    for states in zip(*(term.along for term in x.leading()), strict=True):
        along.append(mixed(joined(states)))
    return GraphValue(x.axes, (Term(-n, tuple(along)),))


def _softmax_carry(at: Operands, i: int, x: GraphValue) -> GraphValue:
    return x if at.node.get("log", False) else entrywise_product(x, _softmax(at))


def _softmax_cotangent(at: Operands, i: int, dy: GraphValue) -> GraphValue:
    """Of a logarithm: dy less its sum, which every entry shares by its probability."""
    if not at.node.get("log", False):
        return _softmax_carry(at, i, dy)
    axis = at.node.get("axis") % len(dy.axes)
    letters = ascii_letters[: len(dy.axes)]
    summed = contract([(dy, letters)], letters.replace(letters[axis], ""))
    whole = contract([(summed, letters.replace(letters[axis], ""))], letters)
    return add(dy.axes, [dy, resized(whole.times(-dy.axes[axis]), dy.axes)])


def _pooled(at: Operands) -> GraphValue:
    if any(n != 0 for n in at.node.get("window", ())):
        raise at.refuse(
            "pooling over a window that grows", "a fixed window, or a mean over all of the axis",
            "write x.mean((2, 3))",
        )  # fmt: skip
    return resized(at.values[0], at.axes)


def _accumulated(at: Operands) -> GraphValue:
    x = at.values[0]
    n = x.axes[at.node.get("axis") % len(x.axes)]
    if n != 0 and at.node.get("kind") != "sum":
        raise at.refuse(
            "a running product over an axis that grows",
            "a running sum",
            "write log(x).cumsum(axis).exp()",
        )
    return x.times(n)


def _accumulated_carry(at: Operands, i: int, x: GraphValue) -> GraphValue:
    return x.times(at.values[0].axes[at.node.get("axis") % len(x.axes)])


ROWS = {
    "reduce": OperationRow(_reduced, _reduced_change, _reduced_cotangent),
    "accumulate": OperationRow(_accumulated, _accumulated_carry, _accumulated_carry),
    "softmax": OperationRow(_softmax, _softmax_carry, _softmax_cotangent, one_or_size),
    "normalise": OperationRow(_normalised, _normalised_carry, _normalised_carry, own_size),
    "pool": OperationRow(_pooled, part_change, resized_back),
    "top_k": OperationRow(part, part_change, part_cotangent, one_or_size),
    "sort": OperationRow(part, part_change, resized_back),
}
