"""Sums, products and functions of the values of a rule, each in the cheapest form that is exact.

    square @ low rank        a product of two cores of size at most n x n
    low rank @ low rank      likewise; the result is low rank, or square on the span of both
    square + square          on the joint span, which is the span of either within one step
    entrywise anything       dense, as it must be
    anything mixed           dense, as a last resort: diag(A) + A costs what a dense matrix costs
    anything rotated         in the corner of the data                             (eigenvectors.py)

Claim.  No function here forms a dense matrix from low-rank operands unless the operation is
entrywise, and none inverts one. Zeros: 0/0 = 0 and 0**negative = 0, so that a weight without
gradient rests; a number that is not zero over an exact zero is refused.

Not covered: shapes. The language checks them while a rule is built; here they are granted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from empirical.numbers.basis import Basis, tolerance
from empirical.numbers.eigenvectors import eigenbasis, entry_by_entry, rotate
from empirical.numbers.layer_values import (
    Curvature,
    Entries,
    LayerValue,
    LowRank,
    Outer,
    Rectangular,
)
from empirical.numbers.rotated_values import Corner, Eigenbasis
from empirical.numbers.square_matrices import Blocks, Square, pseudo_power
from scaling.rules.shapes import Shape
from scaling.sizes.errors import InvalidInput

# --- sums and products --------------------------------------------------------------------------


def add(x: LayerValue, y: LayerValue) -> LayerValue:
    """X + y; vectors and scalars broadcast over gradient-like matrices."""
    if _rotated(x, y):
        return entry_by_entry(add, x, y)
    match x, y:
        case ((Square() | Blocks()), Entries()):
            return x.shift(y.x)
        case Entries(), (Square() | Blocks()):
            return y.shift(x.x)
        case Blocks(), Blocks() if x.layout == y.layout:
            return x.zip(y, torch.add, x.off + y.off)
        case ((Square() | Blocks()), (Square() | Blocks())):
            x, y = _as_square(x), _as_square(y)
            basis = x.basis.join(y.basis)
            return Square(basis, x.on(basis) + y.on(basis), x.off + y.off)
        case Outer(), Outer() if x.shape == y.shape:
            (u1, v1), (u2, v2) = x.factors(), y.factors()
            u, v = torch.cat([u1, u2], dim=1), torch.cat([v1, v2], dim=1)
            left = x.left if x.left is y.left else Basis.spanning(u, x.left.side)
            right = x.right if x.right is y.right else Basis.spanning(v, x.right.side)
            return Outer(u, v, left, right)
        case ((Outer() | LowRank()), (Outer() | LowRank())) if x.shape == y.shape:
            a, b = x.low_rank(), y.low_rank()
            left, right = a.left.join(b.left), a.right.join(b.right)
            return LowRank(left, _on(a, left, right) + _on(b, left, right), right)
    return Entries(_entries(x) + _entries(y))


def multiply(x: LayerValue, y: LayerValue) -> LayerValue:
    """The product with a scalar, or entry by entry."""
    if isinstance(x, Entries) and x.is_scalar:
        return y.scale(x.x)
    if isinstance(y, Entries) and y.is_scalar:
        return x.scale(y.x)
    if _rotated(x, y):
        return entry_by_entry(multiply, x, y)
    return Entries(_entries(x) * _entries(y))


def divide(x: LayerValue, y: LayerValue) -> LayerValue:
    """The quotient by a scalar, or entry by entry; 0/0 is 0, anything else over 0 is refused."""
    if isinstance(y, Corner):
        return entry_by_entry(divide, x, y)
    if not isinstance(x, Entries) and isinstance(y, Entries) and y.is_scalar:
        if bool(y.x != 0):
            return x.scale(1 / y.x)
        if bool(x.frobenius_norm() == 0):
            return x
        raise _division_by_zero()
    if isinstance(x, Entries) and x.sides and isinstance(y, Entries) and y.is_scalar and y.x != 0:
        column, row = x.sides  # their product may be below the smallest float32, their quotient not
        return Entries((column / y.x) @ row)
    over, under = _entries(x), _entries(y)
    quotient = over / under
    if not math.isfinite(float(quotient.sum())):  # seldom, so the common case takes one look
        if bool(((under == 0) & (over != 0)).any()):
            raise _division_by_zero()
        return Entries(over / torch.where(under == 0, 1, under))
    return Entries(quotient)


def _division_by_zero() -> InvalidInput:
    return InvalidInput(
        "a number that is not zero, divided by exactly zero",
        "a divisor that is zero only where the dividend is",
        "add a damping to the divisor, such as eps",
    )


def matmul(x: LayerValue, y: LayerValue, shape: Shape) -> LayerValue:
    """The matrix product, of the given shape in the language."""
    if isinstance(x, Entries) and x.is_scalar:  # a multiple of the identity
        return y.scale(x.x)
    if isinstance(y, Entries) and y.is_scalar:
        return x.scale(y.x)
    if isinstance(x, Eigenbasis) or isinstance(y, Eigenbasis):
        return rotate(x, y)
    match x, y:
        case Blocks(), Blocks() if x.layout == y.layout:
            return x.zip(y, torch.matmul, x.off * y.off)
        case ((Square() | Blocks()), (Square() | Blocks())):
            x, y = _as_square(x), _as_square(y)
            basis = x.basis.join(y.basis)
            return Square(basis, x.on(basis) @ y.on(basis), x.off * y.off)
        case ((Square() | Blocks()), (Entries() | Outer() | LowRank())):
            return _apply(x, y)
        case ((Entries() | Outer() | LowRank()), (Square() | Blocks())):
            return _apply(y.T, x.T).T
        case ((Entries() | Outer() | LowRank()), (Entries() | Outer() | LowRank())):
            return _contract(x, y, shape)
    raise AssertionError("no other values exist")


def _apply(x: Curvature, y: Rectangular) -> Entries | LowRank:
    if isinstance(y, Entries):
        return Entries(x.apply(y.x))
    low = y.low_rank()
    if isinstance(x, Blocks) or x.basis.is_whole or low.left.is_whole:
        whole = Basis.whole(low.left.side, low.left.dtype)
        return LowRank(whole, x.apply(low.left.expand(low.core)), low.right)
    basis = x.basis.join(low.left)
    return LowRank(basis, x.on(basis) @ basis.embed(low.core, low.left), low.right)


def _contract(x: Rectangular, y: Rectangular, shape: Shape) -> LayerValue:
    if isinstance(x, Entries) and isinstance(y, Entries):
        product = x.x @ y.x
        if not shape.is_square and not shape.is_scalar:
            return Entries(product, (x.x, y.x) if x.x.shape[1] == 1 else None)
        a = Entries(product).low_rank()
    else:
        a, b = x.low_rank(), y.low_rank()
        a = LowRank(a.left, a.core @ a.right.embed(b.core, b.left), b.right)
    if shape.is_scalar:
        return Entries(a.core.reshape(()))
    if shape.is_square:
        basis = a.left.join(a.right)
        return Square(basis, _on(a, basis, basis), a.core.new_zeros(()))
    return a


def _on(x: LowRank, left: Basis, right: Basis) -> Tensor:
    return right.embed(left.embed(x.core, x.left).T, x.right).T


def _as_square(x: Curvature) -> Square:
    return x if isinstance(x, Square) else x.square()


# --- functions ----------------------------------------------------------------------------------


def power(x: LayerValue, p: float) -> LayerValue:
    """The matrix power of a square matrix, the power of each entry of anything else."""
    if isinstance(x, (Square, Blocks)):
        return x.power(p)
    if isinstance(x, Corner):
        return entry_by_entry(lambda entries: power(entries, p), x)
    entries = _entries(x)
    if not float(p).is_integer() and bool(entries.numel()) and bool(entries.min() < 0):
        raise InvalidInput(
            f"the power {p:g} of negative entries",
            "entries of at least zero, or a whole power",
            "take abs(X)**p, times sign(X) if the sign should stay",
        )
    return Entries(pseudo_power(entries, p))


def clip(x: LayerValue, bound: Tensor) -> LayerValue:
    """Each entry cut off at -bound and bound."""
    if float(bound) < 0:
        raise InvalidInput(f"the bound {float(bound):g} of clip", "at least zero", "turn its sign")
    return by_entry(lambda entries: entries.clamp(-float(bound), float(bound)), x)


def orth(x: LayerValue) -> LayerValue:
    """The polar factor on the span of x: every singular value but zero becomes one."""
    return spectral_map(x, torch.ones_like)


def spectral_map(x: LayerValue, function: Callable[[Tensor], Tensor]) -> LayerValue:
    """A function of the singular values of x, on the span of x."""
    assert isinstance(x, Rectangular), "the language refuses it of anything else"
    low = x.low_rank()
    if low.core.numel() == 0:
        return low
    u, s, vh = torch.linalg.svd(low.core, full_matrices=False)
    keep = s > tolerance(low.left.dtype) * s[0]
    return LowRank(low.left, u[:, keep] * function(s[keep]) @ vh[keep], low.right)


def project(x: LayerValue, rank: float) -> LayerValue:
    """X on its largest singular directions, as many as ``rank`` says, rounded up."""
    assert isinstance(x, Rectangular), "the language refuses it of anything else"
    low, most = x.low_rank(), math.ceil(rank)
    if low.core.numel() == 0:
        return low
    u, s, vh = torch.linalg.svd(low.core, full_matrices=False)
    return LowRank(low.left, u[:, :most] * s[:most] @ vh[:most], low.right)


QUINTIC = 3.4445, -4.7750, 2.0315
"""Jordan's coefficients of X -> a X + b X X^T X + c (X X^T)^2 X."""
POLAR_EXPRESS = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
    (1.891301407787398, -1.2679958271945868, 0.37680408948524835),
    (1.8750014808534479, -1.2500016453999487, 0.3750001645474248),
)
"""Those of the Polar Express, step by step (arXiv 2505.16932v3); later ones are `LAST`."""
LAST, SAFETY = (1.875, -1.25, 0.375), 1.01
"""SAFETY divides the norm and all steps but later ones, so that rounding leaves them below 1."""


def newton_schulz(x: LayerValue, steps: int) -> LayerValue:
    """X / norm(X) after so many steps of the quintic iteration; of zero it is zero."""
    return _iterated(x, [QUINTIC] * steps)


def polar_express(x: LayerValue, steps: int) -> LayerValue:
    """X / norm(X) after so many steps of the Polar Express; of zero it is zero."""
    safe = [(a / SAFETY, b / SAFETY**3, c / SAFETY**5) for a, b, c in POLAR_EXPRESS]
    late = [LAST] * (steps - len(safe))
    return _iterated(x, [*safe[:steps], *late], SAFETY)


def _iterated(
    x: LayerValue, quintics: Sequence[tuple[float, float, float]], safety: float = 1.0
) -> LayerValue:
    """Quintic steps from X / norm(X), by which singular values approach one.

    They act on singular values alone, so the core goes through them in float64 and the bases stay.
    """
    assert isinstance(x, Rectangular), "the language refuses it of anything else"
    low = x.low_rank()
    norm = low.frobenius_norm()
    if not bool(norm > 0):
        return low
    core = low.core / (norm * safety)
    for a, b, c in quintics:
        gram = core @ core.T
        core = a * core + (b * gram + c * gram @ gram) @ core
    return LowRank(low.left, core, low.right)


def inner(x: LayerValue, y: LayerValue) -> LayerValue:
    """The sum over entries of x times y."""
    assert isinstance(x, Rectangular), "the language refuses it of anything else"
    assert isinstance(y, Rectangular), "the language refuses it of anything else"
    if isinstance(x, Entries) or isinstance(y, Entries):
        return Entries((x.dense() * y.dense()).sum().double())
    p, q = x.low_rank(), y.low_rank()
    left, right = p.left.join(q.left), p.right.join(q.right)
    return Entries((_on(p, left, right) * _on(q, left, right)).sum())


def trace(x: LayerValue) -> LayerValue:
    """The trace of a square matrix."""
    assert isinstance(x, (Square, Blocks)), "the language refuses the trace of anything else"
    return Entries(x.trace())


def blocks(x: LayerValue, size: int) -> LayerValue:
    """The diagonal blocks of a square matrix."""
    assert isinstance(x, (Square, Blocks)), "the language refuses blocks of anything else"
    return x.blocks(size)


def row_mean(x: LayerValue) -> LayerValue:
    """The mean of each row, (rows, 1)."""
    assert isinstance(x, Rectangular), "the language refuses means of anything else"
    return x.row_mean()


def moving_average(old: LayerValue | None, new: LayerValue, beta: float) -> LayerValue:
    """Beta old + (1 - beta) new, where nothing is old at the first step.

    The basis is extended by the history, and what has faded below rounding is dropped.
    """
    if old is None:
        return new.scale(1 - beta)
    return accumulated(old.scale(beta), new.scale(1 - beta))


def accumulated(old: LayerValue, new: LayerValue) -> LayerValue:
    """Old + new, kept in factors while they are cheaper than the dense matrix."""
    average = add(old, new)
    match average:
        case Square():
            return average.pruned()
        case Outer() if average.has_entries and 2 * average.u.shape[1] >= min(average.shape):
            return Entries(average.dense())
        case LowRank() if average.has_entries and 2 * min(average.core.shape) >= min(average.shape):
            return Entries(average.dense())
    return average


def eig(x: LayerValue) -> LayerValue:
    """The eigenvectors of a square matrix, by falling eigenvalue."""
    assert isinstance(x, Square), (
        "a rule refuses eigenvectors of blocks; see scaling/rules/eigenbases.py"
    )
    return eigenbasis(x)


def _rotated(*values: LayerValue) -> bool:
    return any(isinstance(value, Corner) for value in values)


def by_entry(function: Callable[..., Tensor], *operands: LayerValue) -> LayerValue:
    """A function of each entry of one value, or of two of one shape: dense, or corner by corner."""
    if _rotated(*operands):
        return entry_by_entry(lambda *x: Entries(function(*(_entries(y) for y in x))), *operands)
    return Entries(function(*map(_entries, operands)))


def _entries(x: LayerValue) -> Tensor:
    assert isinstance(x, Rectangular), "the language refuses entries of anything else"
    return x.dense()
