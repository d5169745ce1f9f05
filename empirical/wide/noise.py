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
from numpy.typing import NDArray
from torch import Tensor

from empirical.wide import philox
from empirical.wide.seeds import seed_of

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

    >>> import torch
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
            numbers = torch.empty(out.shape, dtype=out.dtype, device=out.device)
            philox.normal_(numbers, first * out.shape[1], (a, b, c, d))
            out.copy_(numbers)
            return
        sources = [self._source(first // ROWS + i) for i in range(-(-len(out) // ROWS))]
        if out.dtype is torch.float64:
            for i, source in enumerate(sources):
                block = out[i * ROWS : (i + 1) * ROWS]
                drawn = np.random.Generator(source).standard_normal(block.shape)
                block.copy_(torch.from_numpy(drawn))
            return
        whole = len(out) // ROWS
        if whole:
            _fill_(out[: whole * ROWS], sources[:whole])
        if len(rest := out[whole * ROWS :]):
            _fill_rest_(rest, sources[-1])

    def chi_square(self, degrees: int) -> float:
        """A number with the law of a sum of so many squared normal ones."""
        if degrees <= 0:
            return 0.0
        return float(np.random.Generator(self._source(0)).chisquare(degrees))

    def _source(self, block: int) -> np.random.SFC64:
        return np.random.SFC64(seed_of(self.seed, self.path, block))  # type: ignore[arg-type]


def _fill_(out: Tensor, sources: Sequence[np.random.SFC64]) -> None:
    """Fill whole blocks of rows of ``out``, float32, each from a generator of its own."""
    blocks = out.T.view(-1, len(sources), ROWS)  # (columns, blocks, ROWS)
    for i, source in enumerate(sources):
        bits = _bits(source, ROWS * out.shape[1])
        blocks[:, i].copy_(torch.from_numpy(bits.reshape(-1, ROWS)))
    half = ROWS // 2
    _pair_(blocks[..., :half], blocks[..., half:])


def _fill_rest_(out: Tensor, source: np.random.SFC64) -> None:
    """Fill the last rows, float32, fewer than a block."""
    half = -(-out.numel() // 2)
    numbers = torch.from_numpy(_bits(source, 2 * half).astype(np.float32))
    _pair_(numbers[:half], numbers[half:])
    out.copy_(numbers[: out.numel()].view(out.shape))


def _bits(source: np.random.SFC64, count: int) -> NDArray[np.int32]:
    """So many whole numbers in [-2^31, 2^31), an even count."""
    return source.random_raw(count // 2).view(np.int32)


def _pair_(radius: Tensor, angle: Tensor) -> None:
    """Normal numbers in the place of whole ones in [-2^31, 2^31)."""
    angle.mul_(math.pi * _UNIT)
    torch.sub(_LOG, radius.add_(0.5).abs_().log_(), alpha=2, out=radius).sqrt_()
    sine = angle.sin()
    angle.cos_().mul_(radius)
    radius.mul_(sine)
