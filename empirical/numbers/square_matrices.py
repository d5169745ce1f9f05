"""Square matrices of one side of a layer, known by what they do on the data's span and off it.

Claim.  A, B, L, R, their damped forms, powers, products and sums are all

    X = Q S Q^T + off * (I - Q Q^T)            Q: (side, r) orthonormal, S: (r, r), off: a number

with r <= n, the number of samples, because off the span of the data each of them is a multiple of
the identity. So f(X) = Q f(S) Q^T + f(off) (I - Q Q^T) is an eigenproblem of size r, and nothing of
size side x side is formed. With at least as many samples as the side is long, Q is the identity
("the whole side"), S is X itself, and ``off`` only remembers the value that X takes where there are
no data; the code is the same. The diagonal blocks of such an X are `Blocks`.

What counts as zero.  An eigenvalue that cannot be told from ``off`` *is* ``off``; so without
damping a direction without data has eigenvalue exactly 0, with damping exactly rho, however small
rho is. 0**negative is 0 (pseudo-inverse). Spectra are computed in float64 whatever the data are.

Not covered: powers of matrices that are not symmetric; powers that are not whole of matrices with
negative eigenvalues. Both are refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from empirical.numbers.basis import EIGENVALUE_ZERO, Basis, product, tolerance
from scaling.sizes.errors import InvalidInput


@dataclass(frozen=True, eq=False)
class Square:
    """Q core Q^T + off (I - Q Q^T) on the side of ``basis``; core is (rank, rank), float64."""

    basis: Basis
    core: Tensor
    off: Tensor

    @classmethod
    def gram(cls, basis: Basis, data: Tensor) -> Square:
        """The second moment, data data^T / samples, for data within the span of the basis."""
        c = data if basis.is_whole else basis.coordinates(data)
        core = product(c, c) / data.shape[1]
        return cls(basis, core, core.new_zeros(()))

    @property
    def T(self) -> Square:
        """Transpose."""
        return Square(self.basis, self.core.T, self.off)

    @property
    def _outer_rank(self) -> int:
        return self.basis.side - self.basis.rank

    def on(self, basis: Basis) -> Tensor:
        """The core in a basis that holds this one."""
        if basis is self.basis or self.basis.is_whole:
            return self.core
        eye = torch.eye(basis.rank, dtype=self.core.dtype, device=self.core.device)
        e = basis.coordinates(self.basis.q)
        return e @ self.core @ e.T + self.off * (eye - e @ e.T)

    def dense(self) -> Tensor:
        """The (side, side) matrix."""
        return self.on(Basis.whole(self.basis.side, self.basis.dtype))

    def scale(self, c: Tensor | float) -> Square:
        """C times this."""
        return Square(self.basis, c * self.core, c * self.off)

    def shift(self, c: Tensor) -> Square:
        """This plus c I."""
        eye = torch.eye(len(self.core), dtype=self.core.dtype, device=self.core.device)
        return Square(self.basis, self.core + c * eye, self.off + c)

    def power(self, p: float) -> Square:
        """The matrix power; see the top of the file for zeros."""
        zero = max(tolerance(self.basis.dtype) ** 2, EIGENVALUE_ZERO)
        return Square(self.basis, *_power(self.core, self.off, p, zero, self._outer_rank > 0))

    def apply(self, x: Tensor) -> Tensor:
        """This @ x for x of shape (side, k), in the dtype of x."""
        core = self.core.to(x.dtype)
        if self.basis.is_whole:
            return core @ x
        q = self.basis.q.to(x.dtype)
        inside = q.T @ x
        return q @ (core @ inside) + self.off * (x - q @ inside)

    def blocks(self, size: int) -> Blocks:
        """The diagonal blocks of the given size; the last may be smaller."""
        side, cut = self.basis.side, self.basis.side // size * size
        spans = [(0, cut, size), (cut, side, side - cut)]
        return Blocks(
            tuple(self._rows(start, stop, size) for start, stop, size in spans if stop > start),
            self.off,
            self.basis.dtype,
        )

    def _rows(self, start: int, stop: int, size: int) -> Tensor:
        if self.basis.is_whole:
            part = self.core[start:stop, start:stop].reshape(-1, size, stop - start)
            offset = torch.arange(0, stop - start, size, device=part.device)
            columns = offset[:, None] + torch.arange(size, device=part.device)
            return part.gather(2, columns[:, None, :].expand(-1, size, -1))
        q = self.basis.q[start:stop].reshape((stop - start) // size, size, self.basis.rank)
        eye = torch.eye(size, dtype=q.dtype, device=q.device)
        return q @ self.core @ q.mT + self.off * (eye - q @ q.mT)

    def trace(self) -> Tensor:
        """The trace."""
        return self.core.trace() + self.off * self._outer_rank

    def frobenius_norm(self) -> Tensor:
        """The Frobenius norm."""
        return (self.core.square().sum() + self.off**2 * self._outer_rank).sqrt()

    def spectral_norm(self) -> Tensor:
        """The largest singular value."""
        inside = largest_singular_value(self.core)
        return torch.maximum(inside, self.off.abs()) if self._outer_rank else inside

    def rms(self) -> Tensor:
        """The root mean square entry."""
        return self.frobenius_norm() / self.basis.side

    def pruned(self) -> Square:
        """The same to rounding, without the directions on which it does no more than off the span.

        A moving average gathers the spans of all steps; this lets go of those that have faded.
        """
        if self.basis.is_whole or not is_symmetric(self.core):
            return self
        s, u = torch.linalg.eigh(self.core)
        excess = (s - self.off).abs()
        keep = excess > torch.finfo(s.dtype).eps * excess.max() if len(s) else excess > 0
        if bool(keep.all()):
            return self
        basis = Basis(self.basis.side, self.basis.dtype, self.basis.q @ u[:, keep], True)
        return Square(basis, torch.diag(s[keep]), self.off)


@dataclass(frozen=True, eq=False)
class Blocks:
    """A block-diagonal matrix: stacks of equal blocks, (count, size, size), the odd last one apart.

    A diagonal matrix has blocks of size 1. ``off`` is the value taken where there are no data.
    """

    parts: tuple[Tensor, ...]
    off: Tensor
    dtype: torch.dtype

    @property
    def layout(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the stacks; equal ones combine block by block."""
        return tuple(part.shape for part in self.parts)

    @property
    def side(self) -> int:
        """Rows."""
        return sum(count * size for count, size, _ in self.layout)

    def map(self, function: Callable[[Tensor], Tensor], off: Tensor) -> Blocks:
        """Apply a function to every stack."""
        return Blocks(tuple(map(function, self.parts)), off, self.dtype)

    def zip(
        self, other: Blocks, function: Callable[[Tensor, Tensor], Tensor], off: Tensor
    ) -> Blocks:
        """Combine with blocks of the same layout."""
        parts = zip(self.parts, other.parts, strict=True)
        return Blocks(tuple(function(x, y) for x, y in parts), off, self.dtype)

    @property
    def T(self) -> Blocks:
        """Transpose."""
        return self.map(lambda part: part.mT, self.off)

    def square(self) -> Square:
        """The same as a dense (side, side) matrix."""
        blocks = [block for part in self.parts for block in part]
        whole = torch.block_diag(*blocks)  # type: ignore[no-untyped-call]
        return Square(Basis.whole(self.side, self.dtype), whole, self.off)

    def scale(self, c: Tensor | float) -> Blocks:
        """C times this."""
        return self.map(lambda part: c * part, c * self.off)

    def shift(self, c: Tensor) -> Blocks:
        """This plus c I."""

        def shifted(part: Tensor) -> Tensor:
            return part + c * torch.eye(part.shape[-1], dtype=part.dtype, device=part.device)

        return self.map(shifted, self.off + c)

    def power(self, p: float) -> Blocks:
        """The matrix power, block by block."""
        zero = max(tolerance(self.dtype) ** 2, EIGENVALUE_ZERO)
        powers = [_power(part, self.off, p, zero, False) for part in self.parts]
        return Blocks(tuple(core for core, _ in powers), powers[0][1], self.dtype)

    def apply(self, x: Tensor) -> Tensor:
        """This @ x for x of shape (side, k), in the dtype of x."""
        rows = torch.split(x, [count * size for count, size, _ in self.layout])
        return torch.cat(
            [
                (part.to(x.dtype) @ piece.reshape(*part.shape[:2], -1)).reshape(piece.shape)
                for part, piece in zip(self.parts, rows, strict=True)
            ]
        )

    def blocks(self, size: int) -> Blocks:
        """The diagonal blocks of this."""
        return self.square().blocks(size)

    def trace(self) -> Tensor:
        """The trace."""
        return torch.stack([p.diagonal(dim1=1, dim2=2).sum() for p in self.parts]).sum()

    def frobenius_norm(self) -> Tensor:
        """The Frobenius norm."""
        return torch.stack([part.square().sum() for part in self.parts]).sum().sqrt()

    def spectral_norm(self) -> Tensor:
        """The largest singular value."""
        return torch.stack([largest_singular_value(part) for part in self.parts]).max()

    def rms(self) -> Tensor:
        """The root mean square entry, zeros outside the blocks included."""
        return self.frobenius_norm() / self.side


def frobenius_norm(x: Tensor) -> Tensor:
    """The root of the sum of squares of all entries."""
    return x.square().sum().sqrt()


def largest_singular_value(x: Tensor) -> Tensor:
    """Of a matrix or over a stack of them; 0 if there is nothing."""
    if x.numel() == 0:
        return x.new_zeros(())
    return x.abs().max() if x.shape[-1] == x.shape[-2] == 1 else torch.linalg.svdvals(x).max()


def is_symmetric(core: Tensor) -> bool:
    """Whether a matrix, or a stack of them, is symmetric to rounding."""
    if core.numel() == 0:
        return True
    return bool((core - core.mT).abs().max() <= 1e-10 * core.abs().max())


def _power(
    core: Tensor, off: Tensor, p: float, zero: float, off_is_eigenvalue: bool
) -> tuple[Tensor, Tensor]:
    """(f(core), f(off)) for f(x) = x**p on symmetric matrices, 0**negative being 0."""
    if not is_symmetric(core):
        raise InvalidInput(
            f"the power {p:g} of a square matrix that is not symmetric",
            "a symmetric matrix: powers are taken of its eigenvalues",
            "take powers of the factors, or symmetrise: (X @ Y + Y @ X) / 2",
        )
    whole = float(p).is_integer()
    if core.shape[-1] <= 1:
        s, u = core.diagonal(dim1=-2, dim2=-1), torch.ones_like(core)
    else:
        s, u = torch.linalg.eigh((core + core.mT) / 2)
    if s.numel():
        excess = (s - off).abs()
        s = torch.where(excess <= zero * excess.amax(-1, keepdim=True), off, s)
        noise = (s < 0) & (s >= -zero * s.abs().amax(-1, keepdim=True))
        s = torch.where(noise, 0, s)
    if not off_is_eigenvalue and not whole:
        off = off.clamp(min=0)  # no vector sees it, so it must not be the reason to refuse
    if not whole and bool((s < 0).any() | (off < 0)):
        least = min(float(x) for x in (off, *s.flatten()))
        raise InvalidInput(
            f"the power {p:g} of a matrix with the eigenvalue {least:.3g}",
            "no negative eigenvalues, or a whole power",
            "add a damping: (X + rho*I)",
        )
    f = pseudo_power(s, p)
    return (u * f.unsqueeze(-2)) @ u.mT, pseudo_power(off, p)


def pseudo_power(x: Tensor, p: float) -> Tensor:
    """x**p entry by entry, with 0**negative = 0: what gets no gradient rests.

    >>> import torch
    >>> pseudo_power(torch.tensor([0.0, 4.0]), -0.5).tolist()
    [0.0, 0.5]
    """
    if p >= 0:
        return x.sqrt() if p == 0.5 else x**p  # four times as fast
    return torch.where(x == 0, 0, torch.where(x == 0, 1, x) ** p)
