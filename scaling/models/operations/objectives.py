"""Rows of losses: a cotangent of order one for each sample, over the number of samples."""

from __future__ import annotations

from sympy import Expr, S

from scaling.models.operations.row import Operands, OperationRow
from scaling.models.terms import PLAIN, GraphValue, Term, add, axis_state, constant, zero


def _loss(at: Operands) -> GraphValue:
    return constant(())


def _loss_change(at: Operands, i: int, dx: GraphValue) -> GraphValue:
    return constant((), dx.size) if not dx.is_zero else zero(())


def _cross_entropy_cotangent(at: Operands, i: int, dy: GraphValue) -> GraphValue:
    """The softmax less the target, over the number of samples.

    Over many classes it is of order one at the target, and 1/n at each of the others.
    """
    axes = at.values[0].axes
    if i == 1:
        return zero(at.values[1].axes)
    axis = at.node.get("axis") % len(axes)
    size = dy.size - sum((n for k, n in enumerate(axes) if k != axis), S.Zero)
    others = constant(axes, size - axes[axis])
    if axes[axis] == 0:
        return others
    along = tuple(axis_state(few=S.Zero) if k == axis else PLAIN for k in range(len(axes)))
    return add(axes, [others, GraphValue(axes, (Term(size, along),))])


def _squared_error_cotangent(at: Operands, i: int, dy: GraphValue) -> GraphValue:
    """The residual f - y, over the number of entries."""
    output, target = at.values
    if i == 1:
        return zero(target.axes)
    shift = dy.size - sum(output.axes, S.Zero)
    return add(output.axes, [constant(output.axes), output]).times(shift)


def _loss_bears(at: Operands, i: int) -> Expr | None:
    return S.Zero if i == 0 else None


ROWS = {
    "cross_entropy": OperationRow(_loss, _loss_change, _cross_entropy_cotangent, _loss_bears),
    "mean_squared_error": OperationRow(_loss, _loss_change, _squared_error_cotangent, _loss_bears),
}
