"""Seeds of many generators at once: those of numpy's `SeedSequence`, of which only the last counter
differs.

    SeedSequence(seed, spawn_key=(*path, block)).generate_state(3, np.uint64)    for many blocks

A `SeedSequence` is a hash of 32-bit words, by O'Neill's seed_seq_fe (2015): it mixes the words of
seed and path into a pool of four, one after the other, and the last one is that of the block. So
the pool before it is made once, by numpy, and the last step for all blocks together. numpy
guarantees these numbers (NEP 19); tests/test_wide_noise.py compares them.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.random.bit_generator import ISeedSequence
from numpy.typing import NDArray

TOGETHER = 256
"""Blocks whose seeds are made in one go."""
_POOL, _SHIFT, _MASK = 4, 16, 2**32 - 1
_INIT_A, _MULT_A = 0x43B0D7E5, 0x931E8875
_INIT_B, _MULT_B = 0x8B51F9DD, 0x58F38DED
_MIX_L, _MIX_R = 0xCA01F9DD, 0x4973F715
Words = NDArray[np.uint32]


class Seed(ISeedSequence):
    """The seed of one generator, words that are made already."""

    def __init__(self, words: NDArray[np.uint64]) -> None:
        self.words = words

    def generate_state(  # type: ignore[override]
        self, n_words: int, dtype: type = np.uint32
    ) -> NDArray[np.uint64]:
        """The words, as many as SFC64 asks for."""
        assert (n_words, dtype) == (len(self.words), np.uint64)
        return self.words


def seed_of(seed: int, path: tuple[int, ...], block: int) -> Seed:
    """The seed of the SFC64 of a block of neurons, which is below 2^32."""
    return Seed(_seeds(seed, path, block // TOGETHER)[block % TOGETHER])


@lru_cache(maxsize=256)
def _seeds(seed: int, path: tuple[int, ...], part: int) -> NDArray[np.uint64]:
    """Three words for each block of a part, (TOGETHER, 3)."""
    blocks = np.arange(part * TOGETHER, (part + 1) * TOGETHER, dtype=np.uint32)
    pool = np.random.SeedSequence(seed, spawn_key=path).pool
    count = max(_count(seed), _POOL) + sum(map(_count, path))  # words of the pool
    multiplier = _INIT_A * pow(_MULT_A, _POOL * count, 2**32) & _MASK
    mixed = list[Words]()
    for x in map(int, pool):
        multiplier, hashed = _hash(blocks, multiplier, _MULT_A)
        mixed.append(_folded(np.uint32(x * _MIX_L & _MASK) - hashed * np.uint32(_MIX_R)))
    multiplier, words = _INIT_B, list[Words]()
    for i in range(6):
        multiplier, hashed = _hash(mixed[i % _POOL], multiplier, _MULT_B)
        words.append(hashed)
    low, high = (np.stack(words[i::2], 1).astype(np.uint64) for i in (0, 1))
    return low | high << np.uint64(32)


def _count(number: int) -> int:
    """Words of 32 bits that a counter takes."""
    return max(1, -(-number.bit_length() // 32))


def _hash(x: Words, multiplier: int, factor: int) -> tuple[int, Words]:
    """The next multiplier, and the hash of words by this one."""
    after = multiplier * factor & _MASK
    return after, _folded((x ^ np.uint32(multiplier)) * np.uint32(after))


def _folded(x: Words) -> Words:
    return x ^ x >> np.uint32(_SHIFT)
