"""Values in eigenbases: the eigenvectors themselves, and matrices rotated into them.

    Rotation   V of X = V S V^T, by falling eigenvalue: those that can be told from the rest
    Corner     a gradient-like matrix with one side or both in such bases: the corner where the data
               are, and one number everywhere else

Claim.  Both are known by O(M n) numbers; of the other eigenvectors nothing is needed. How they come
about, and what is exact in them, is in eigenvectors.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from empirical.numbers.basis import EIGENVALUE_ZERO, Basis
from empirical.numbers.square_matrices import frobenius_norm, largest_singular_value


@dataclass(frozen=True, eq=False)
class Eigenbasis:
    """``factor`` times the eigenvectors Q vectors, (side, k), or their transpose.

    ``lean`` (k, k): how far rounding may have turned one vector towards another.
    """

    basis: Basis
    vectors: Tensor
    lean: Tensor
    factor: Tensor | float = 1.0
    transposed: bool = False

    @property
    def T(self) -> Eigenbasis:
        """Transpose."""
        return replace(self, transposed=not self.transposed)

    def scale(self, c: Tensor | float) -> Eigenbasis:
        """C times this."""
        return replace(self, factor=c * self.factor)

    def spectral_norm(self) -> Tensor:
        """The largest singular value: all are the factor."""
        return torch.as_tensor(self.factor, dtype=torch.float64).abs()

    def frobenius_norm(self) -> Tensor:
        """The Frobenius norm."""
        return self.spectral_norm() * math.sqrt(self.basis.side)

    def rms(self) -> Tensor:
        """The root mean square entry."""
        return self.spectral_norm() / math.sqrt(self.basis.side)


@dataclass(frozen=True, eq=False)
class Corner:
    """A rotated matrix: ``core`` in its corner, ``off`` everywhere else; float64.

    ``left`` and ``right`` are None for a side in an eigenbasis; for the other one, if any, the
    basis in whose coordinates the core is. ``sides`` are the true lengths.
    """

    core: Tensor
    off: Tensor
    sides: tuple[int, int]
    left: Basis | None = None
    right: Basis | None = None
    lean_left: Tensor | None = None
    lean_right: Tensor | None = None

    @property
    def T(self) -> Corner:
        """Transpose."""
        return Corner(
            self.core.T, self.off, (self.sides[1], self.sides[0]), self.right, self.left,
            self.lean_right, self.lean_left,
        )  # fmt: skip

    @property
    def shape(self) -> tuple[int, int]:
        """True rows and columns."""
        return self.sides

    def scale(self, c: Tensor | float) -> Corner:
        """C times this."""
        return replace(self, core=c * self.core, off=c * self.off)

    def entries(self) -> Tensor:
        """The corner entry by entry, without what cannot be told from zero."""
        core = self.core if self.left is None else self.left.expand(self.core)
        core = core if self.right is None else self.right.expand(core.T).T
        if self.lean_left is None and self.lean_right is None:
            return core
        size = core.abs()
        noise = torch.full_like(core, EIGENVALUE_ZERO * float(size.max()) if core.numel() else 0)
        if self.lean_left is not None:
            noise += self.lean_left @ size
        if self.lean_right is not None:
            noise += size @ self.lean_right.T
        return torch.where(size <= noise, 0, core)

    def rms_inside(self) -> Tensor:
        """The root mean square entry of the corner, whose sides are as long as the data's."""
        x = self.entries()
        bases = zip((self.left, self.right), x.shape, strict=True)
        entries = math.prod(k if basis is None else basis.side for basis, k in bases)
        return frobenius_norm(x) / math.sqrt(max(1, entries))

    def _compressed(self) -> Tensor:
        """A small matrix with the same singular values, but for zeros."""
        rows, columns = (side - k for side, k in zip(self.sides, self.core.shape, strict=True))
        x = self.core.new_zeros(self.core.shape[0] + 1, self.core.shape[1] + 1)
        x[:-1, :-1] = self.core
        x[:-1, -1] = self.off * math.sqrt(columns)
        x[-1, :-1] = self.off * math.sqrt(rows)
        x[-1, -1] = self.off * math.sqrt(rows * columns)
        return x

    def spectral_norm(self) -> Tensor:
        """The largest singular value."""
        return largest_singular_value(self._compressed())

    def frobenius_norm(self) -> Tensor:
        """The Frobenius norm."""
        return frobenius_norm(self._compressed())

    def rms(self) -> Tensor:
        """The root mean square entry."""
        return self.frobenius_norm() / math.sqrt(math.prod(self.sides))
