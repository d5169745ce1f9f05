"""Gaussian weights that are never drawn: what they do to the vectors that they meet, in law.

A network wider than 10^4 has weights that fill no memory, and few vectors meet them: activations
and cotangents of some samples. Given W x for all x of a span and W^T d for all d of another one,
W x' of a new x' is what these fix of it, and fresh noise in the other directions (Bolthausen, arXiv
1201.2891). Entries are N(0, 1).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
NEW = 1e-10
"""The part of a vector off all earlier ones from which on it counts as a new direction."""


class Revealed:
    """M x M Gaussian entries: W @ X and W.T @ X of the vectors asked for."""

    def __init__(self, side: int, noise: np.random.Generator) -> None:
        self.noise = noise
        empty = np.zeros((side, 0))
        self.known = [(empty, empty), (empty, empty)]
        """Of W, then of W^T: an orthonormal basis of the vectors met, and what became of it."""

    def __matmul__(self, x: Array) -> Array:
        return self.product(x, 0)

    def product(self, x: Array, which: int) -> Array:
        """W x, or W^T x if ``which`` is 1."""
        met, images = self.known[which]
        others, their = self.known[1 - which]
        for column in x.T:
            rest = column - met @ (met.T @ column)
            rest -= met @ (met.T @ rest)
            size = float(np.linalg.norm(rest))
            if size <= NEW * float(np.linalg.norm(column)):
                continue
            q = rest / size
            fresh = self.noise.standard_normal(len(q))
            image = fresh + others @ (their.T @ q - others.T @ fresh)
            met, images = np.column_stack([met, q]), np.column_stack([images, image])
        self.known[which] = (met, images)
        return images @ (met.T @ x)

    @property
    def T(self) -> RevealedTranspose:
        return RevealedTranspose(self)


@dataclass(frozen=True)
class RevealedTranspose:
    """The same, the other way."""

    of: Revealed

    def __matmul__(self, x: Array) -> Array:
        return self.of.product(x, 1)
