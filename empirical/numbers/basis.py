"""Orthonormal bases of what the data span on one side of a layer.

Claim.  n samples span at most n of the M dimensions of a side, so whatever a rule does with A, B,
L, R happens in n coordinates Q^T x, and Q costs O(M n^2): a QR factorisation, then the singular
values of its small triangle decide the rank. With at least as many samples as dimensions there is
nothing to gain; the basis is then the identity ("the whole side") and is never stored.

What counts as zero.  A direction of relative size below `tolerance` of the data's dtype; sizes are
compared after every sample was scaled to length one. Bases are float64 whatever the data are.

Columns with one entry each, such as words, need no factorisation: the axes that they lie along are
the basis. Products of more columns than rows are added up in float64, some columns at a time.

Not covered: other data that are sparse, or whose rank is far below min(n, M).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

EIGENVALUE_ZERO = 1e-13
"""Relative size below which an eigenvalue is rounding; float64 leaves about 1e-15."""

CHUNK = 4096
"""Columns that are turned into float64 at a time."""


def tolerance(dtype: torch.dtype) -> float:
    """Relative size below which a singular value of data of this dtype is rounding.

    >>> import torch
    >>> tolerance(torch.float64), round(tolerance(torch.float32), 9)
    (1e-13, 9.54e-07)
    """
    return max(8 * torch.finfo(dtype).eps, 1e-13)


@dataclass(frozen=True, eq=False)
class Basis:
    """An orthonormal basis of a part of one side of a layer, or of the whole side (no columns).

    ``dtype`` is that of the data; the basis itself is float64. It is computed when first asked for:
    a rule without spectral functions never pays for it.
    """

    side: int
    dtype: torch.dtype
    columns: Tensor | None = None
    orthonormal: bool = False

    @classmethod
    def whole(cls, side: int, dtype: torch.dtype) -> Basis:
        """The whole side, in its own coordinates."""
        return cls(side, dtype)

    @classmethod
    def spanning(cls, data: Tensor, side: int | None = None) -> Basis:
        """A basis of the span of the columns of ``data``, (side, samples).

        ``side`` is the true length of a side of which ``data`` holds but some coordinates.

        Columns are weighed by direction alone: a sample with a tiny gradient counts as fully as a
        large one, while a repeated sample adds nothing.
        """
        side = side or len(data)
        return cls(side, data.dtype, None if data.shape[1] >= side else data)

    @property
    def is_whole(self) -> bool:
        """Whether this is the whole side."""
        return self.columns is None

    @property
    def has_entries(self) -> bool:
        """Whether rows are those of the side, and not coordinates that stand for a longer one."""
        return self.columns is None or len(self.columns) == self.side

    @cached_property
    def q(self) -> Tensor:
        """Orthonormal columns, (side, rank). Not for the whole side."""
        assert self.columns is not None, "the whole side has no columns; see is_whole"
        if self.orthonormal:
            return self.columns
        data = self.columns.double()
        nonzero = data != 0
        if bool((nonzero.sum(dim=0) <= 1).all()):
            return _axes(nonzero.any(dim=1), data.dtype)
        lengths = torch.linalg.vector_norm(data, dim=0)
        data = data / torch.where(lengths == 0, 1, lengths)
        # A row without data (a dead unit) is zero in exact arithmetic; its sign must not be noise.
        return _range(data, tolerance(self.dtype)) * nonzero.any(dim=1, keepdim=True)

    @property
    def rank(self) -> int:
        """Dimension of the span."""
        return self.side if self.is_whole else self.q.shape[1]

    def expand(self, x: Tensor) -> Tensor:
        """From coordinates, (rank, k), to the side, (side, k)."""
        return x if self.is_whole else self.q @ x

    def coordinates(self, x: Tensor) -> Tensor:
        """From the side to coordinates; what lies outside the span is lost."""
        return x.double() if self.is_whole else self.q.T @ x.double()

    def embed(self, x: Tensor, basis: Basis) -> Tensor:
        """From the coordinates of a ``basis`` inside this one to coordinates here."""
        return x if basis is self else self.coordinates(basis.expand(x))

    def join(self, other: Basis) -> Basis:
        """A basis of both spans; one of the two themselves where it holds the other."""
        if self is other or self.is_whole:
            return self
        if other.is_whole:
            return other
        big, small = (self, other) if self.rank >= other.rank else (other, self)
        fresh = _range(_outside(big.q, small.q), EIGENVALUE_ZERO, relative=False)
        if fresh.shape[1] == 0:
            return big
        if big.rank + fresh.shape[1] >= big.side:
            return Basis.whole(big.side, big.dtype)
        # A short residual is orthogonal only to its own relative accuracy: project once more.
        fresh = torch.linalg.qr(_outside(big.q, fresh)).Q
        return Basis(big.side, big.dtype, torch.cat([big.q, fresh], dim=1), orthonormal=True)


def product(x: Tensor, y: Tensor) -> Tensor:
    """The product x y^T of (rows, n) and (columns, n) in float64, whatever the data are.

    >>> import torch
    >>> x = torch.ones(2, 5, dtype=torch.float32)
    >>> product(x, x).dtype, product(x, x)[0, 1].item()
    (torch.float64, 5.0)
    """
    if x.dtype == y.dtype == torch.float64:
        return x @ y.T
    total = x.new_zeros(len(x), len(y), dtype=torch.float64)
    for some, others in zip(torch.split(x, CHUNK, 1), torch.split(y, CHUNK, 1), strict=True):
        total.addmm_(some.double(), others.double().T)
    return total


def _axes(chosen: Tensor, dtype: torch.dtype) -> Tensor:
    """The unit vectors along the chosen axes, as columns."""
    places = chosen.nonzero()[:, 0]
    axes = torch.zeros(len(chosen), len(places), dtype=dtype, device=chosen.device)
    axes[places, torch.arange(len(places), device=chosen.device)] = 1
    return axes


def _range(x: Tensor, zero: float, relative: bool = True) -> Tensor:
    """Orthonormal basis of the range of a tall matrix, without singular values below ``zero``."""
    if x.shape[1] == 0:
        return x
    q, r = torch.linalg.qr(x)
    u, s, _ = torch.linalg.svd(r)
    kept: Tensor = q @ u[:, s > zero * (s[0] if relative else 1)]
    return kept


def _outside(q: Tensor, x: Tensor) -> Tensor:
    return x - q @ (q.T @ x)


def triangular_root(s: Tensor, zero: float, room: int) -> tuple[Tensor, list[int]]:
    """R (k, n) with R^T R = S, and the k <= room columns that earlier ones do not give.

    S is a Gram matrix of columns of length at most 1; what is left of a column counts if its
    squared length exceeds ``zero``. This is Cholesky's method, which, unlike eigenvectors, moves
    no more than S does: so the same seed gives the same sample up to rounding.

    >>> import torch
    >>> triangular_root(torch.ones(2, 2, dtype=torch.float64), 1e-13, 2)
    (tensor([[1., 1.]], dtype=torch.float64), [0])
    """
    left = s.numpy().copy()
    rows = [np.zeros((0, len(left)))]
    new: list[int] = []
    for j in range(len(left)):
        if len(new) == room:
            break
        if left[j, j] > zero:
            row = left[j : j + 1] / math.sqrt(left[j, j])
            row[:, :j] = 0
            left -= row.T @ row
            rows.append(row)
            new.append(j)
    return torch.from_numpy(np.concatenate(rows)), new
