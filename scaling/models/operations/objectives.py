"""Rows of losses: a cotangent of order one for each sample, over the number of samples."""

from __future__ import annotations

from dataclasses import replace

from sympy import Expr, S

from scaling.models.operations.row import Operands, OperationRow
from scaling.models.terms import PLAIN, GraphValue, add, constant, drawn, zero
from scaling.sizes.scale import HALF


def _loss(at: Operands) -> GraphValue:
    return constant(())


def _loss_change(at: Operands, i: int, dx: GraphValue) -> GraphValue:
    return constant((), dx.size) if not dx.is_zero else zero(())


def _cross_entropy_cotangent(at: Operands, i: int, dy: GraphValue) -> GraphValue:
    """The softmax less the target, over the number of samples.

    Over many classes few entries carry it, and they sum to zero.
    """
    axes = at.values[0].axes
    if i == 1:
        return zero(at.values[1].axes)
    axis = at.node.get("axis") % len(axes)
    samples = sum((n for k, n in enumerate(axes) if k != axis), S.Zero)
    if axes[axis] == 0:
        return constant(axes, dy.size - samples)
    source = drawn(f"{at.node.name} target", axes, dy.size - samples - axes[axis] * HALF)
    along = tuple(s if k == axis else PLAIN for k, s in enumerate(source.terms[0].along))
    return GraphValue(axes, (replace(source.terms[0], along=along),))


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
