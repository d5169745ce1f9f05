"""Philox: the authors' vectors, numbers that depend on the counter alone, and their law."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from empirical.wide.noise import ROWS, Bits, Stream
from empirical.wide.philox import normal_, philox
from empirical.wide.seeds import TOGETHER, seed_of

KNOWN = {
    ("00000000 00000000 00000000 00000000", "00000000 00000000"):
        "6627e8d5 e169c58d bc57ac4c 9b00dbd8",
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff"):
        "408f276d 41c83b0e a20bc7c6 6d5451fd",
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0"):
        "d16cfe09 94fdcceb 5001e420 24126ea1",
}  # fmt: skip
"""Counter and key -> bits: philox4x32, 10 rounds, in kat_vectors of Random123."""


def words(text: str) -> list[int]:
    """Numbers of 32 bits."""
    return [int(word, 16) for word in text.split()]


def test_the_bits_are_those_of_the_authors() -> None:
    counters = torch.tensor([words(counter) for counter, _ in KNOWN]).T
    for i, ((_, key), expected) in enumerate(KNOWN.items()):
        k0, k1 = words(key)
        a, b, c, d = counters
        found = [int(x[i]) for x in philox((a, b, c, d), (k0, k1))]
        assert found == words(expected)
        other = [int(x[i]) for x in philox((a, b, c, d), (k0 ^ 1, k1))]
        assert other != words(expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_numbers_are_the_same_in_any_piece(dtype: torch.dtype) -> None:
    stream = Stream(0, (7, 1), Bits.PHILOX)
    whole, rest = torch.empty(2 * ROWS + 3, 3, dtype=dtype), torch.empty(5, 3, dtype=dtype)
    stream.fill_(whole, 0)
    stream.fill_(rest, ROWS)
    assert torch.equal(whole[ROWS : ROWS + 5], rest)
    stream.at(0).fill_(rest, ROWS)
    assert not torch.isclose(whole[ROWS : ROWS + 5], rest).any()


def test_counters_go_on_beyond_32_bits() -> None:
    first, beyond = torch.empty(8), torch.empty(8)
    normal_(first, 0, (1, 2, 3, 4))
    normal_(beyond, 4 * 2**32, (1, 2, 3, 4))
    assert not torch.isclose(first, beyond).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_philox_has_the_law_of_a_normal(dtype: torch.dtype) -> None:
    x = torch.empty(20 * ROWS, 5, dtype=dtype)
    Stream(0, (3,), Bits.PHILOX).fill_(x, 0)
    x, n = x.double(), x.numel()
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96), (6, 15, 10170)):
        assert abs(float((x**power).mean()) - moment) < 4.5 * math.sqrt(variance / n)
    off = x.T @ x / len(x) - torch.eye(5)
    assert off.abs().max() < 4.5 * math.sqrt(2 / len(x))
    law = kstest(x[:ROWS].flatten().numpy(), "norm")
    assert law.pvalue > 1e-4
    assert kstest(1.05 * x[:ROWS].flatten().numpy(), "norm").pvalue < 1e-4


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cuda_draws_the_numbers_of_the_cpu(dtype: torch.dtype) -> None:
    stream = Stream(0, (3,), Bits.PHILOX)
    here, there = torch.empty(ROWS, 5, dtype=dtype), torch.empty(ROWS, 5, dtype=dtype).cuda()
    stream.fill_(here, 0)
    stream.fill_(there, 0)
    rounding = 1e-6 if dtype is torch.float32 else 1e-14
    torch.testing.assert_close(there.cpu(), here, rtol=rounding, atol=rounding)


@pytest.mark.parametrize("seed", [0, 5, 2**32 - 1, 2**32, 2**100 + 3, 2**140 + 1])
@pytest.mark.parametrize("path", [(), (0,), (7, 1), (10**10, 2, 0, 1), (2**32, 2**64), (1,) * 9])
def test_seeds_are_those_of_numpy(seed: int, path: tuple[int, ...]) -> None:
    for block in (0, 1, TOGETHER - 1, TOGETHER, 5 * TOGETHER + 3, 2**32 - 1):
        sequence = np.random.SeedSequence(seed, spawn_key=(*path, block))
        found = np.random.SFC64(seed_of(seed, path, block)).random_raw(3)
        assert found.tolist() == np.random.SFC64(sequence).random_raw(3).tolist()
        assert (
            found.tolist() != np.random.SFC64(seed_of(seed, path, block ^ 1)).random_raw(3).tolist()
        )
