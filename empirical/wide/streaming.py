"""How neurons stream through the machine. Nothing here changes a number beyond rounding."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from empirical.wide.noise import ROWS
from scaling.errors import InvalidInput

EXACT_BELOW = 100_000
"""Up to this width float64 costs nothing worth saving."""


@dataclass(frozen=True)
class Streaming:
    """Options of the machine.

    Args:
        dtype: of what neurons hold; sums over neurons are float64 always. By default float64 up to
            a width of `EXACT_BELOW`, float32 above it.
        memory_limit: bytes that may be kept between passes; what exceeds them is computed again.
            By default half of what is free.
        workers: threads that chunks are shared among.
        chunk: neurons at a time, a multiple of `noise.ROWS`; about what a cache holds.
    """

    dtype: torch.dtype | None = None
    memory_limit: int | None = None
    workers: int = 1
    chunk: int = 2 * ROWS

    def __post_init__(self) -> None:
        if self.dtype not in (None, torch.float32, torch.float64):
            raise InvalidInput(
                f"dtype={self.dtype}", "torch.float32 or torch.float64", "leave dtype out"
            )
        if self.chunk < 1 or self.chunk % ROWS:
            raise InvalidInput(
                f"chunks of {self.chunk} neurons", f"a multiple of {ROWS}", f"pass {2 * ROWS}"
            )
        if self.workers < 1:
            raise InvalidInput(f"workers={self.workers}", "at least 1", "pass workers=1")
        if self.memory_limit is not None and self.memory_limit < 0:
            raise InvalidInput(
                f"memory_limit={self.memory_limit}", "a number of bytes", "pass 0 to keep nothing"
            )

    def type_at(self, width: int) -> torch.dtype:
        """The dtype of what neurons hold at a width."""
        return self.dtype or (torch.float64 if width <= EXACT_BELOW else torch.float32)

    def memory(self) -> Memory:
        """A fresh allowance."""
        limit = _free() // 2 if self.memory_limit is None else self.memory_limit
        return Memory(limit)


class Memory:
    """An allowance of bytes, granted first come, first served."""

    def __init__(self, limit: int) -> None:
        self._left = limit

    def grants(self, size: int) -> bool:
        """Take ``size`` bytes if they are left."""
        granted = size <= self._left
        self._left -= size if granted else 0
        return granted


def _free() -> int:
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return 2**32
