"""Normal numbers that can be drawn again: neuron i always gets the same ones, in any order of work.

A stream is named by a seed and a path of counters (width, layer, purpose, ...); within it, every
block of `ROWS` neurons has a generator of its own. So noise is a function, not a state: it need not
be stored, and neither the size of the chunks nor the number of workers changes it.

In float32 a normal pair is made from 64 random bits by the method of Box and Muller (1958),

    r = sqrt(-2 log |k + 1/2| / 2^31),  (r cos t, r sin t),  t = pi k' / 2^31,

with k and k' whole numbers in [-2^31, 2^31): exact in law to the resolution of 32 bits, up to
6.7 standard deviations. In float64 it is numpy's ziggurat.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

ROWS = 8192
"""Neurons that share a generator. Another value would give other numbers of the same law."""

_UNIT = 2.0**-31
_LOG = torch.tensor(62 * math.log(2))  # -2 log(_UNIT)


@dataclass(frozen=True)
class Stream:
    """A source of normal numbers, named by a seed and a path of counters.

    >>> a, b = torch.empty(ROWS + 2, 3), torch.empty(2, 3)
    >>> Stream(0, (7, 1)).fill_(a, 0), Stream(0, (7, 1)).fill_(b, ROWS)
    (None, None)
    >>> torch.equal(a[ROWS:], b)
    True
    """

    seed: int
    path: tuple[int, ...]

    def at(self, *counters: int) -> Stream:
        """The stream further down the path."""
        return Stream(self.seed, (*self.path, *counters))

    def fill_(self, out: Tensor, first: int) -> None:
        """Fill ``out``, (rows, k), with what the rows from ``first`` have, a multiple of ROWS."""
        for start in range(0, len(out), ROWS):
            _fill_(out[start : start + ROWS], self._generator((first + start) // ROWS))

    def chi_square(self, degrees: int) -> float:
        """A number with the law of a sum of so many squared normal ones."""
        return float(self._generator(0).chisquare(degrees)) if degrees > 0 else 0.0

    def _generator(self, block: int) -> np.random.Generator:
        sequence = np.random.SeedSequence(self.seed, spawn_key=(*self.path, block))
        return np.random.Generator(np.random.SFC64(sequence))


def _fill_(out: Tensor, generator: np.random.Generator) -> None:
    if out.dtype is torch.float64:
        generator.standard_normal(out=out.numpy())
        return
    flat = out.view(-1)
    half = (len(flat) + 1) // 2
    bits = generator.integers(0, 2**64, half, dtype=np.uint64)  # releases the GIL
    whole = torch.from_numpy(bits.view(np.int32)).float()
    radius, angle = whole[:half], whole[half:].mul_(math.pi * _UNIT)
    radius.add_(0.5).abs_().log_()
    torch.sub(_LOG, radius, alpha=2, out=radius).sqrt_()
    torch.cos(angle[: len(flat) - half], out=flat[half:])
    torch.sin(angle, out=flat[:half])
    flat[half:].mul_(radius[: len(flat) - half])
    flat[:half].mul_(radius)
