"""Eigenbases of curvature matrices: matrices into them, functions of entries there, and back.

Claim.  On a side of length M, X differs from a multiple of the identity in n directions. Their
eigenvectors are Q times those of an n x n matrix; all others have one eigenvalue and are not
determined, and do not matter to a matrix that lies in the span of the first. So a rotated matrix is
an n x n corner, an entrywise function acts on n^2 numbers and on the zero outside, and rotating
back gives low rank: O(M n^2) in all. With one side rotated the corner has n M entries.

What counts as zero.  Eigenvalues as in square_matrices.py. An entry of the corner is as exact as
                      the
eigenvectors are: to first order, vector i leans towards vector k by ``zero`` lambda_max /
|lambda_i - lambda_k|. An entry within that of zero *is* zero, so that its sign, and its ratio to a
small eps, is not that of a rounding error: G in the eigenbases of G G^T and G^T G is diagonal.
Within eigenvalues that cannot be told apart any basis is an eigenbasis, and entries are taken as
they come.

From step to step rows and columns keep their number, by falling eigenvalue; where fewer directions
hold data the corner is filled up with what is outside of it.

Not covered, and refused: a matrix with more than a 1e-4th of its norm outside the span of the
eigenvectors (such as the gradient where the curvature is an old one, or has other cotangents), and
numbers other than zero outside the corner rotated back. Not covered, and not seen here: averages of
what changes sign with an eigenvector; the calculus refuses them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from empirical.numbers.basis import EIGENVALUE_ZERO, Basis, tolerance
from empirical.numbers.layer_values import Entries, LayerValue, LowRank, Outer
from empirical.numbers.rotated_values import Corner, Eigenbasis
from empirical.numbers.square_matrices import Square, frobenius_norm, is_symmetric
from scaling.sizes.errors import InvalidInput

OUTSIDE = 1e-4
"""How much of a matrix may be lost outside the eigenvectors: more than rounding ever is."""
RESOLVED = 1e-2
"""Above this lean two eigenvectors are not told apart."""


def eigenbasis(x: Square) -> Eigenbasis:
    """The eigenvectors of a symmetric square matrix, by falling eigenvalue.

    Raises:
        InvalidInput: unless the matrix is symmetric, with no eigenvalue on the span of the data
            below the one off it.
    """
    if not is_symmetric(x.core):
        raise InvalidInput(
            "the eigenvectors of a square matrix that is not symmetric",
            "a symmetric matrix",
            "take those of the factors, or symmetrise: X @ Y + Y @ X",
        )
    zero = max(tolerance(x.basis.dtype) ** 2, EIGENVALUE_ZERO)
    s, u = torch.linalg.eigh((x.core + x.core.T) / 2)
    s, u = (s - x.off).flip(0), u.flip(1)
    top = s.abs().max() if len(s) else s.sum()
    if bool((s < -zero * top).any()):
        raise InvalidInput(
            "eigenvectors of a matrix whose eigenvalues on the data are below those off them",
            "a positive sum of A, B, L, R and I",
            "take the eigenvectors of the matrix itself, not of its inverse",
        )
    keep = s > zero * top
    s, u = s[keep], u[:, keep]
    lean = zero * top / (s[:, None] - s).abs()  # infinite where two are equal
    lean = torch.where(lean < RESOLVED, lean, 0)
    return Eigenbasis(x.basis, u, lean)


def rotate(x: LayerValue, y: LayerValue) -> LowRank | Corner:
    """X @ y, one of which is a rotation."""
    if isinstance(x, Eigenbasis):
        assert not isinstance(y, Eigenbasis), "the language refuses products of eigenbases"
        return _into(x, y) if x.transposed else _back(x, y)
    assert isinstance(y, Eigenbasis), "one of the two is a rotation"
    return (_into(y, x.T) if not y.transposed else _back(y, x.T)).T


def _into(rotation: Eigenbasis, x: LayerValue) -> Corner:
    """Rows of x into an eigenbasis."""
    if isinstance(x, Corner):
        left, core = x.left, x.core
    else:
        assert isinstance(x, Entries | Outer | LowRank), "the language rotates what is like G"
        low = x.low_rank()
        left, core = low.left, low.core
        zero = core.new_zeros(())
        sides = low.left.side, low.right.side
        x = Corner(core, zero, sides, low.left, low.right)
    assert left is not None, "the language refuses to rotate a side twice"
    inside = rotation.vectors.T @ rotation.basis.embed(core, left)
    lost = core.square().sum() - inside.square().sum()
    if bool(lost > OUTSIDE**2 * core.square().sum()):
        part = float(lost.sqrt() / frobenius_norm(core))
        raise InvalidInput(
            f"a matrix with {part:.1e} of its norm outside the "
            "eigenvectors that the data determine",
            "a matrix within the span of the curvature, such as G in eig(L) of the same step",
            "take eigenvectors of a curvature that has seen this gradient: refresh it every step",
        )
    return replace(x, core=rotation.factor * inside, left=None, lean_left=rotation.lean)


def _back(rotation: Eigenbasis, x: LayerValue) -> LowRank | Corner:
    """Rows of x out of an eigenbasis."""
    assert isinstance(x, Corner), "the language turns back only what is rotated"
    k = rotation.vectors.shape[1]
    if bool(x.off != 0) or bool((x.core[k:] != 0).any()):
        raise InvalidInput(
            "entries that are not zero outside the corner of the data, rotated back",
            "zeros there: the eigenvectors are not determined",
            "add constants to divisors only: X / (sqrt(V) + eps)",
        )
    core = x.core[:k]
    core = rotation.factor * rotation.vectors[:, : len(core)] @ core
    if x.right is None:
        return replace(x, core=core, left=rotation.basis, lean_left=None)
    return LowRank(rotation.basis, core, x.right)


def entry_by_entry(function: Callable[..., LayerValue], *values: LayerValue) -> Corner:
    """A function of entries of rotated matrices and numbers: on the corner, and outside of it."""
    corners = [value for value in values if isinstance(value, Corner)]
    entries = [value.entries() if isinstance(value, Corner) else None for value in values]
    rows, columns = (max(len(x.T if i else x) for x in entries if x is not None) for i in (0, 1))
    inside, outside = list[LayerValue](), list[LayerValue]()
    for value, x in zip(values, entries, strict=True):
        if isinstance(value, Corner) and x is not None:
            full = value.off.expand(rows, columns).clone()
            full[: x.shape[0], : x.shape[1]] = x
            inside.append(Entries(full))
            outside.append(Entries(value.off))
        else:
            inside.append(value)
            outside.append(value)
    core, off = function(*inside), function(*outside)
    assert isinstance(core, Entries) and isinstance(off, Entries), "entries give entries"
    first = corners[0]
    left, right = (
        None if basis is None else Basis.whole(basis.side, basis.dtype)
        for basis in (first.left, first.right)
    )
    return Corner(core.x, off.x, first.sides, left, right)
