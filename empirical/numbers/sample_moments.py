"""Second moments of per-sample gradients: the mean of their squared entries, in any basis.

    sample i's own gradient   g_i = delta_i h_i^T
    of P G Q^T                P g_i Q^T = (P delta_i) (Q h_i)^T
    mean of squares           S = (P D)^2 ((Q H)^2)^T / n          squares entry by entry

Claim.  No per-sample gradient is ever formed: S is a product of two tall matrices, and in
eigenbases on both sides (EKFAC's second moment, arXiv 1806.03884) one of two small ones.
Without rotations it is the diagonal of the empirical Fisher.

Not covered: sampled cotangents; g_i are the gradients of the samples' own losses.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from empirical.numbers import algebra
from empirical.numbers.basis import Basis
from empirical.numbers.layer_matrices import LayerValues, no_samples
from empirical.numbers.layer_values import Entries, LayerValue, Outer, Rectangular
from empirical.numbers.rotated_values import Corner
from scaling.rules.eigenbases import Action, linear_path
from scaling.rules.shapes import SCALAR
from scaling.rules.tree import Node


def sample_square(
    node: Node, layer: LayerValues, value: Callable[[Node], LayerValue]
) -> LayerValue:
    """The mean over samples of the squared entries of a node that is linear in G.

    ``value`` reads the nodes beside G.

    Raises:
        InvalidInput: for a layer whose gradient is not the mean of its samples' own.
    """
    if not layer.is_paired:
        raise no_samples(f"squares of single samples' gradients in '{node}'")
    u, v = (_columns(x, basis) for x, basis in ((layer.d, layer.left), (layer.h, layer.right)))
    factor = layer.scalar(1).x
    for action, operand in linear_path(node):
        match action:
            case Action.TRANSPOSE:
                u, v = v, u
            case Action.LEFT:
                u = algebra.matmul(value(operand), u, SCALAR)
            case Action.RIGHT:
                v = algebra.matmul(value(operand).T, v, SCALAR)
            case Action.TIMES:
                factor = factor * _number(value(operand))
            case Action.OVER:  # over zero only if there is no gradient: the node itself was read
                under = _number(value(operand))
                factor = torch.where(under == 0, 0, factor / under)
    return _mean_square(u, v, factor, layer.d.shape[1])


def _columns(x: Tensor, basis: Basis) -> LayerValue:
    n = x.shape[1]
    eye = torch.eye(n, dtype=x.dtype, device=x.device)
    return Outer(x, eye, basis, Basis.whole(n, x.dtype))


def _number(value: LayerValue) -> Tensor:
    assert isinstance(value, Entries), "a number"
    return value.x


def _mean_square(u: LayerValue, v: LayerValue, factor: Tensor, n: int) -> LayerValue:
    (x, left, rows), (y, right, columns) = _explicit(u), _explicit(v)
    x = factor.to(x.dtype) ** 2 * x.square() / n
    if left is not None and right is not None:
        y = y.square()
        return Outer(x, y, Basis.spanning(x, rows), Basis.spanning(y, columns))
    core = x.double() @ y.double().square().T
    return Corner(core, core.new_zeros(()), (rows, columns), left, right)


def _explicit(x: LayerValue) -> tuple[Tensor, Basis | None, int]:
    """Entries with a column a sample; their basis, if they are not rotated; the side's length."""
    if isinstance(x, Corner):
        return x.core, None, x.sides[0]
    assert isinstance(x, Rectangular), "columns are a matrix"
    dense = x.dense()
    return dense, Basis.whole(x.shape[0], dense.dtype), x.shape[0]
