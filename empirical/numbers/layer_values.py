"""The values of a rule's nodes on one layer, and their algebra.

    Entries   a tensor entry by entry: a scalar (0-dim, float64), a vector, a dense matrix
    Outer     U V^T with tall U and V: the gradient as it comes, D H^T / n
    LowRank   Q C P^T with orthonormal Q and P: the gradient after spectral functions acted on it
    Square    a square matrix by its action on the data's span and off it      (square_matrices.py)
    Blocks    a block-diagonal matrix                                          (square_matrices.py)
    Rotation  the eigenvectors of a square matrix                               (rotated_values.py)
    Corner    a gradient-like matrix in such bases                              (rotated_values.py)

Claim.  A rule built of G, square matrices, sums, products, `orth` and scalars costs O(M n^2): its
value is never formed entry by entry. Only what asks for entries (sign, abs, *, /, ** between
gradient-like matrices, and the weights W) costs O(M^2 n).

Two forms of low rank, because they keep different things exact. `Outer` keeps zeros: an entry of G
that is exactly zero (a dead unit, a black pixel) stays so, and its sign is 0 and not that of a
rounding error. `LowRank` keeps spans: the part of the gradient outside the span of A is exactly
zero and is not magnified by a large 1/rho. Hence `sign(G)` is safe, while in `sign` of a
preconditioned gradient an entry that is zero but for rounding gets the sign of the rounding.

A multiple of either holds its factor apart and applies it to the entries that are multiplied out.
So X and c X have the same signs entry by entry, and no entry of c X * X is negative for c > 0.

A multiple c I of the identity, whose side is not known, is the scalar c: the language lets no other
scalar be added to a square matrix, or multiplied to one by @. All scalars are 0-dim and float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeAlias

import torch
from torch import Tensor

from empirical.numbers.basis import Basis
from empirical.numbers.rotated_values import Corner, Eigenbasis
from empirical.numbers.square_matrices import (
    Blocks,
    Square,
    frobenius_norm,
    largest_singular_value,
)


class _Rectangular:
    """The common part of a scalar, a vector and a gradient-like matrix."""

    def dense(self) -> Tensor:
        """The tensor, entry by entry, in the layer's dtype."""
        raise NotImplementedError

    def low_rank(self) -> LowRank:
        """The same in orthonormal coordinates."""
        raise NotImplementedError

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and columns; () for a scalar."""
        raise NotImplementedError

    def frobenius_norm(self) -> Tensor:
        """The Frobenius norm; a vector's length."""
        return frobenius_norm(self.low_rank().core)

    def spectral_norm(self) -> Tensor:
        """The largest singular value."""
        return largest_singular_value(self.low_rank().core)

    def rms(self) -> Tensor:
        """The root mean square entry."""
        return self.frobenius_norm() / math.sqrt(math.prod(self.shape))


@dataclass(frozen=True, eq=False)
class Entries(_Rectangular):
    """A tensor entry by entry: a scalar, a column, a row or a matrix."""

    x: Tensor
    sides: tuple[Tensor, Tensor] | None = None
    """The column and the row that a matrix was multiplied out of."""

    @property
    def is_scalar(self) -> bool:
        """A number, or a multiple of the identity."""
        return self.x.ndim == 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and columns; () for a scalar."""
        return tuple(self.x.shape)

    @property
    def T(self) -> Entries:
        """Transpose."""
        return self if self.is_scalar else Entries(self.x.T)

    def dense(self) -> Tensor:
        """The tensor, entry by entry, in the layer's dtype."""
        return self.x

    def low_rank(self) -> LowRank:
        """The same in orthonormal coordinates."""
        x = self.x.reshape(1, 1) if self.is_scalar else self.x
        left, right = (Basis.whole(side, x.dtype) for side in x.shape)
        return LowRank(left, x.double(), right)

    def scale(self, c: Tensor | float) -> Entries:
        """C times this."""
        sides = None if self.sides is None else (c * self.sides[0], self.sides[1])
        return Entries(c * self.x, sides)

    def row_mean(self) -> Entries:
        """The mean of each row, (rows, 1)."""
        return Entries(self.x.mean(dim=1, keepdim=True))


@dataclass(frozen=True, eq=False)
class Outer(_Rectangular):
    """factor u v^T, (rows, k) and (columns, k), with bases of what columns of u and v span."""

    u: Tensor
    v: Tensor
    left: Basis
    right: Basis
    factor: Tensor | float = 1.0
    product: list[Tensor] = field(default_factory=list, repr=False)
    """u v^T once it was multiplied out, until `forget`; multiples share it."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and columns; () for a scalar."""
        return self.left.side, self.right.side

    @property
    def T(self) -> Outer:
        """Transpose."""
        return Outer(self.v, self.u, self.right, self.left, self.factor)

    @property
    def has_entries(self) -> bool:
        """Whether `dense` has the true sides; see `LayerTensors.sides`."""
        return (len(self.u), len(self.v)) == self.shape

    def dense(self) -> Tensor:
        """The tensor, entry by entry, in the layer's dtype."""
        if not self.product:
            self.product.append(self.u @ self.v.T)
        return _times(self.factor, self.product[0])

    def forget(self) -> None:
        """Let go of the product."""
        self.product.clear()

    def factors(self) -> tuple[Tensor, Tensor]:
        """Tall (U, V) with this = U V^T, in the layer's dtype."""
        return _times(self.factor, self.u), self.v

    def low_rank(self) -> LowRank:
        """The same in orthonormal coordinates."""
        core = self.left.coordinates(self.u) @ self.right.coordinates(self.v).T
        return LowRank(self.left, core, self.right, self.factor)

    def scale(self, c: Tensor | float) -> Outer:
        """C times this."""
        return replace(self, factor=c * self.factor)

    def row_mean(self) -> Outer:
        """The mean of each row, (rows, 1)."""
        mean = self.v.mean(dim=0, keepdim=True)
        return Outer(self.u, mean, self.left, Basis.whole(1, mean.dtype), self.factor)


@dataclass(frozen=True, eq=False)
class LowRank(_Rectangular):
    """factor Q inner P^T with Q and P the bases of the left and right side; inner is float64."""

    left: Basis
    inner: Tensor
    right: Basis
    factor: Tensor | float = 1.0

    @cached_property
    def core(self) -> Tensor:
        """Coordinates in the two bases, float64: this = Q core P^T."""
        return _times(self.factor, self.inner)

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and columns; () for a scalar."""
        return self.left.side, self.right.side

    @property
    def T(self) -> LowRank:
        """Transpose."""
        return LowRank(self.right, self.inner.T, self.left, self.factor)

    @property
    def has_entries(self) -> bool:
        """Whether `dense` has the true sides; see `LayerTensors.sides`."""
        return self.left.has_entries and self.right.has_entries

    def factors(self) -> tuple[Tensor, Tensor]:
        """Tall (U, V) with this = U V^T, in the layer's dtype, with as few columns as can be."""
        u, v = self._sides()
        return _times(self.factor, u), v

    def _sides(self) -> tuple[Tensor, Tensor]:
        """Tall (U, V) with this = factor U V^T."""
        if self.inner.shape[0] < self.inner.shape[1]:
            v, u = self.T._sides()
            return u, v
        u = self.left.expand(self.inner)
        # The core knows how much of a whole side there is: a tile has fewer rows than its layer.
        eye = torch.eye(self.inner.shape[1], dtype=u.dtype, device=u.device)
        v = eye if self.right.is_whole else self.right.q
        return u.to(self.left.dtype), v.to(self.left.dtype)

    def dense(self) -> Tensor:
        """The tensor, entry by entry, in the layer's dtype."""
        if self.left.is_whole and self.right.is_whole:
            return self.core.to(self.left.dtype)
        u, v = self._sides()
        return _times(self.factor, u @ v.T)

    def low_rank(self) -> LowRank:
        """The same in orthonormal coordinates."""
        return self

    def scale(self, c: Tensor | float) -> LowRank:
        """C times this."""
        return replace(self, factor=c * self.factor)

    def row_mean(self) -> LowRank:
        """The mean of each row, (rows, 1)."""
        ones = self.core.new_full((self.right.side, 1), 1 / self.right.side)
        core = self.core @ self.right.coordinates(ones)
        return LowRank(self.left, core, Basis.whole(1, self.left.dtype))


def _times(factor: Tensor | float, x: Tensor) -> Tensor:
    return x if isinstance(factor, float) and factor == 1 else factor * x


Rectangular: TypeAlias = Entries | Outer | LowRank
Curvature: TypeAlias = Square | Blocks
LayerValue: TypeAlias = Rectangular | Curvature | Eigenbasis | Corner
