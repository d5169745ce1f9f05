"""Philox 4x32-10: random bits that are a function of a counter, the same on every device.

    round    (c0, c1, c2, c3) -> (hi(A c2) ^ c1 ^ k0, lo(A c2), hi(B c0) ^ c3 ^ k1, lo(B c0))
             (k0, k1) -> (k0 + 0x9E3779B9, k1 + 0xBB67AE85)            ten of them, modulo 2^32

(Salmon, Moraes, Dror, Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3", section 3.3; the
authors' test vectors, kat_vectors of Random123, are in tests/test_wide_noise.py.)

Words are kept in int64, whose product is right modulo 2^64, so plain tensor arithmetic is enough
and a CPU and a GPU have the same bits. The low halves lo(.) are never multiplied in the round they
are made in, and are cut to 32 bits where they are next used.

A normal pair is made by the method of Box and Muller (1958), as in noise.py: in float32 from two
words, in float64 from four. Logarithm and cosine differ between devices in their last bit.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import torch
from torch import Tensor

Words: TypeAlias = tuple[Tensor, Tensor, Tensor, Tensor]
"""Four int64 tensors of one shape, each number in [0, 2^32)."""

_A, _B = 0xCD9E8D57, 0xD2511F53
_KEY_STEPS = 0x9E3779B9, 0xBB67AE85
_MASK = 2**32 - 1
_HALF = 2**31


def philox(counter: Words, key: tuple[int, int]) -> Words:
    """The bits of every counter under a key of two words.

    >>> import torch
    >>> zero = torch.zeros(1, dtype=torch.int64)
    >>> [f"{int(x):08x}" for x in philox((zero, zero, zero, zero), (0, 0))]
    ['6627e8d5', 'e169c58d', 'bc57ac4c', '9b00dbd8']
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        a, b = c2 * _A, c0 * _B
        c0 = (a >> 32).bitwise_xor_(c1).bitwise_xor_(k0).bitwise_and_(_MASK)
        c2 = (b >> 32).bitwise_xor_(c3).bitwise_xor_(k1).bitwise_and_(_MASK)
        c1, c3 = a, b
        k0, k1 = (k0 + _KEY_STEPS[0]) & _MASK, (k1 + _KEY_STEPS[1]) & _MASK
    return c0, c1 & _MASK, c2, c3 & _MASK


def normal_(out: Tensor, first: int, words: tuple[int, int, int, int]) -> None:
    """Fill ``out`` with the numbers from ``first`` on of a stream that these words name.

    Counters are the number of a block of 16 bytes of output and the last two words; the first two
    are the key. ``out`` is contiguous, float32 or float64, and ``first`` begins a block.
    """
    per = 16 // out.dtype.itemsize
    assert first % per == 0, "a stream is read in whole blocks"
    count = -(-out.numel() // per)
    block = torch.arange(first // per, first // per + count, device=out.device)
    third, fourth = (torch.full_like(block, word) for word in words[2:])
    bits = philox((block & _MASK, block >> 32, third, fourth), words[:2])
    whole = out.numel() % per == 0
    places = out.view(-1, per) if whole else out.new_empty(count, per)
    if per == 4:
        signed = [(x - _HALF).to(torch.float32) for x in bits]
        _pair_(places[:, :2], signed[0], signed[1], 31)
        _pair_(places[:, 2:], signed[2], signed[3], 31)
    else:
        high, low = bits[::2], bits[1::2]
        signed = [((h - _HALF << 32) + x).double() for h, x in zip(high, low, strict=True)]
        _pair_(places, signed[0], signed[1], 63)
    if not whole:
        out.view(-1).copy_(places.view(-1)[: out.numel()])


def _pair_(out: Tensor, radius: Tensor, angle: Tensor, bits: int) -> None:
    """Two normal numbers from whole ones in [-2^bits, 2^bits); writes over both."""
    radius.add_(0.5).abs_().log_().mul_(-2).add_(2 * bits * math.log(2)).sqrt_()
    angle.mul_(math.pi * 2.0**-bits)
    torch.mul(radius, angle.cos(), out=out[:, 0])
    torch.mul(radius, angle.sin_(), out=out[:, 1])
