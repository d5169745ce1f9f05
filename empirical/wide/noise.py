"""Normal numbers that can be drawn again: neuron i always gets the same ones, in any order of work.

A stream is named by a seed and a path of counters (width, layer, purpose, ...); within it, every
block of `ROWS` neurons has a generator of its own. So noise is a function, not a state: it need not
be stored, and neither the size of the chunks nor the number of workers changes it.

Two generators make the bits. SFC64 of numpy is the faster one on a CPU, by a factor of about six,
and the usual one there. Philox (philox.py) is plain arithmetic on counters, the usual one on a GPU:
a CPU that is asked for it has the same bits, and so the same network to rounding.

In float32 a normal pair is made from 64 random bits by the method of Box and Muller (1958),

    r = sqrt(-2 log |k + 1/2| / 2^31),  (r cos t, r sin t),  t = pi k' / 2^31,

with k and k' whole numbers in [-2^31, 2^31): exact in law to the resolution of 32 bits, up to
6.7 standard deviations. In float64 it is numpy's ziggurat, or the same pair of 128 bits of Philox.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
import torch
from torch import Tensor

from empirical.wide import philox

ROWS = 8192
"""Neurons that share a generator. Another value would give other numbers of the same law."""

_UNIT = 2.0**-31
_LOG = torch.tensor(62 * math.log(2), dtype=torch.float32)  # -2 log(_UNIT)


class Bits(StrEnum):
    """Generators of random bits."""

    SFC64 = "sfc64"
    PHILOX = "philox"


@dataclass(frozen=True)
class Stream:
    """A source of normal numbers, named by a seed and a path of counters; ``bits`` makes them.

    >>> a, b = torch.empty(ROWS + 2, 3), torch.empty(2, 3)
    >>> Stream(0, (7, 1)).fill_(a, 0), Stream(0, (7, 1)).fill_(b, ROWS)
    (None, None)
    >>> torch.equal(a[ROWS:], b)
    True
    """

    seed: int
    path: tuple[int, ...]
    bits: Bits = Bits.SFC64

    def at(self, *counters: int) -> Stream:
        """The stream further down the path."""
        return replace(self, path=(*self.path, *counters))

    def fill_(self, out: Tensor, first: int) -> None:
        """Fill ``out``, (rows, k), with what the rows from ``first`` have, a multiple of ROWS.

        The memory may be that of any device with Philox, that of the CPU with SFC64.
        """
        if self.bits is Bits.PHILOX:
            sequence = np.random.SeedSequence(self.seed, spawn_key=self.path)
            a, b, c, d = map(int, sequence.generate_state(4, np.uint32))
            philox.normal_(out, first * out.shape[1], (a, b, c, d))
            return
        starts = range(0, len(out), ROWS)
        generators = [self._generator((first + start) // ROWS) for start in starts]
        if out.dtype is torch.float64:
            for start, generator in zip(starts, generators, strict=True):
                generator.standard_normal(out=out[start : start + ROWS].numpy())
            return
        whole = len(out) // ROWS
        rest = out[whole * ROWS :]
        _fill_(out[: whole * ROWS].view(whole, ROWS * out.shape[1]), generators[:whole])
        if len(rest):
            _fill_(rest.view(1, rest.numel()), generators[whole:])

    def chi_square(self, degrees: int) -> float:
        """A number with the law of a sum of so many squared normal ones."""
        return float(self._generator(0).chisquare(degrees)) if degrees > 0 else 0.0

    def _generator(self, block: int) -> np.random.Generator:
        sequence = np.random.SeedSequence(self.seed, spawn_key=(*self.path, block))
        return np.random.Generator(np.random.SFC64(sequence))


def _fill_(out: Tensor, generators: Sequence[np.random.Generator]) -> None:
    """Fill the rows of ``out``, (blocks, numbers), float32, each from a generator of its own."""
    blocks, numbers = out.shape
    half = (numbers + 1) // 2
    whole = out if numbers % 2 == 0 else out.new_empty(blocks, 2 * half)
    for row, generator in zip(whole, generators, strict=True):
        bits = generator.bit_generator.random_raw(half)
        row.copy_(torch.from_numpy(bits.view(np.int32)))
    radius, angle = whole[:, :half], whole[:, half:].mul_(math.pi * _UNIT)
    torch.sub(_LOG, radius.add_(0.5).abs_().log_(), alpha=2, out=radius).sqrt_()
    sine = angle.sin()
    angle.cos_().mul_(radius)
    radius.mul_(sine)
    if whole is not out:
        out.copy_(whole[:, :numbers])
