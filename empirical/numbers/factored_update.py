"""The update of a layer by a rule: a matrix (fan_out, fan_in), applied without forming it.

    dW = U V^T        dW x = U (V^T x)        W += c U V^T

Claim.  With r columns in U and V all of these cost O(M r) a column, and the matrix is formed only
where the rule looked at its entries.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from empirical.numbers.layer_values import LowRank, Outer, Rectangular


@dataclass(frozen=True, eq=False)
class FactoredUpdate:
    """The value of a rule: a matrix (fan_out, fan_in), of low rank where it can be."""

    value: Rectangular

    @cached_property
    def factors(self) -> tuple[Tensor, Tensor] | None:
        """(U, V) with the update = U V^T, or None if it is dense."""
        match self.value:
            case Outer():
                return self.value.factors()
            case LowRank(left, _, right) if not (left.is_whole and right.is_whole):
                return self.value.factors()
        return None

    def dense(self) -> Tensor:
        """The (fan_out, fan_in) matrix."""
        return self.value.dense()

    def __matmul__(self, x: Tensor) -> Tensor:
        """The update applied to (fan_in, k), without forming it if it is of low rank."""
        if self.factors is None:
            return self.dense() @ x
        u, v = self.factors
        return u @ (v.T @ x)

    @torch.no_grad()
    def add_to_(self, weight: Tensor, alpha: float) -> Tensor:
        """Weight += alpha * update, in place; a side of ``weight`` may be several axes."""
        u, v = self.factors or (None, None)
        if u is None or v is None or weight.shape != (len(u), len(v)):
            return weight.add_(self.dense().reshape(weight.shape), alpha=alpha)
        return weight.addmm_(u, v.T, alpha=alpha)

    def spectral_norm(self) -> Tensor:
        """The largest singular value."""
        return self.value.spectral_norm()

    def frobenius_norm(self) -> Tensor:
        """The Frobenius norm."""
        return self.value.frobenius_norm()

    def rms(self) -> Tensor:
        """The root mean square entry."""
        return self.value.rms()
