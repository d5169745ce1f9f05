"""Rows of operations entry by entry: the behaviour of a function at 0 and at infinity.

f of a sum of terms is f of the leading ones, and f' times the others. An odd function keeps random
signs; any other has a mean.
"""

from __future__ import annotations

from dataclasses import replace

from sympy import Expr, S

from scaling.models.node_functions import FUNCTIONS, EntryFunction, power_function
from scaling.models.operations.addition import repeated, summed_back
from scaling.models.operations.rearrangements import part_change
from scaling.models.operations.row import (
    Carry,
    Operands,
    OperationRow,
    entrywise_product,
    no_change,
    one_or_size,
    own_size,
)
from scaling.models.terms import (
    PLAIN,
    AxisState,
    GraphValue,
    Term,
    add,
    axis_state,
    constant,
    even,
    joined,
    mixed,
    spread,
    zero,
)
from scaling.sizes.errors import unknown


def _function(at: Operands) -> EntryFunction:
    if at.node.op == "power":
        return power_function(at.node.get("exponent"))
    name = at.node.get("function")
    if name not in FUNCTIONS:
        raise unknown("function", name, FUNCTIONS)
    return FUNCTIONS[name]


def _factor(x: Expr, small: Expr, large: Expr) -> Expr:
    """The exponent of a function of entries M^x, from its exponents at zero and at infinity."""
    if x == 0:
        return S.Zero
    p = small if x < 0 else large
    return S.Zero if p == 0 else p * x


def _at_zero(state: AxisState, power: Expr) -> AxisState:
    """Where few entries are not zero, a function that is not zero there either has all of them."""
    return state if power.is_positive else axis_state(state.odd, state.seen, state.weak)


def function_of(at: Operands, i: int, f: EntryFunction) -> GraphValue:
    """A function f of an input: of its leading terms, and f' times the others."""
    x = at.values[i]
    if x.is_zero:
        if f.zero < 0:
            raise at.refuse(
                f"a power {f.zero} of what is exactly zero at the start",
                "a base that is not zero",
                "add an eps to it, or start the tensor below it at something else",
            )
        return zero(x.axes) if f.zero > 0 else constant(x.axes)
    if x.size > 0 and f.infinity is None:
        raise at.refuse(
            f"entries that grow like M^({x.size}) under {at.node.get('function')}",
            "entries of order one there",
            f"multiply its input by M^({-x.size})",
        )
    large = f.infinity if f.infinity is not None else S.Zero
    lead = x.leading()
    along = []
    for states in zip(*(term.along for term in lead), strict=True):
        whole = joined(states)
        whole = whole if f.parity == 1 else even(whole) if f.parity == 0 else mixed(whole)
        along.append(_at_zero(whole, f.zero))
    main = Term(_factor(x.size, f.zero, large), tuple(along))
    if len(lead) == len(x.terms):
        return GraphValue(x.axes, (main,))
    rest = GraphValue(x.axes, tuple(term for term in x.terms if term not in lead))
    return add(x.axes, [GraphValue(x.axes, (main,)), entrywise_product(rest, slope_of(at, i, f))])


def slope_of(at: Operands, i: int, f: EntryFunction) -> GraphValue:
    """The slope f' at an input, entry by entry."""
    x = at.values[i]
    if x.is_zero:
        return constant(x.axes) if f.slope == 0 else zero(x.axes)
    if x.size > 0 and f.saturates:
        raise at.refuse(
            f"entries that grow like M^({x.size}) under {at.node.get('function', at.node.op)}, "
            "which saturates",
            "entries of order one there",
            f"multiply its input by M^({-x.size}), or use a function that grows linearly",
        )
    if f.slope is S.Infinity:
        return zero(x.axes)
    large = (f.infinity or S.Zero) - 1
    along = []
    for states in zip(*(term.along for term in x.leading()), strict=True):
        whole = joined(states)
        whole = whole if f.parity == 0 else even(whole) if f.parity == 1 else mixed(whole)
        along.append(_at_zero(whole, f.slope))
    return GraphValue(x.axes, (Term(_factor(x.size, f.slope, large), tuple(along)),))


def _applied(at: Operands) -> GraphValue:
    return function_of(at, 0, _function(at))


def _sloped(at: Operands, i: int, dx: GraphValue) -> GraphValue:
    return entrywise_product(dx, slope_of(at, 0, _function(at)))


def _applied_bears(at: Operands, i: int) -> Expr | None:
    if at.node.get("function") == "linear":
        return None
    singular = at.node.op == "power" and at.node.get("exponent") < 0
    return own_size(at, i) if singular else one_or_size(at, i)


def _selected(at: Operands) -> GraphValue:
    return add(at.axes, [spread(value, at.axes) for value in at.values[1:]])


def _if_selected(carry: Carry) -> Carry:
    def carried(at: Operands, i: int, x: GraphValue) -> GraphValue:
        return carry(at, i, x) if i else no_change(at, i, x)

    return carried


def _cast(at: Operands) -> GraphValue:
    return replace(at.values[0], axes=at.axes)


def _cast_cotangent(at: Operands, i: int, dy: GraphValue) -> GraphValue:
    return zero(dy.axes) if at.node.get("detached", False) else dy


def _one_hot(at: Operands) -> GraphValue:
    """One entry of each row is not zero."""
    rank = len(at.axes)
    along = tuple(axis_state(few=S.Zero) if k == rank - 1 else PLAIN for k in range(rank))
    return GraphValue(at.axes, (Term(S.Zero, along),))


ROWS = {
    "apply": OperationRow(_applied, _sloped, _sloped, _applied_bears),
    "power": OperationRow(_applied, _sloped, _sloped, _applied_bears),
    "select": OperationRow(_selected, _if_selected(repeated), _if_selected(summed_back)),
    "identity": OperationRow(_cast, part_change, _cast_cotangent),
    "feed": OperationRow(_cast, part_change, lambda at, i, dy: dy),
    "discrete": OperationRow(lambda at: constant(at.axes)),
    "one_hot": OperationRow(_one_hot),
}
