"""How neurons stream through the machine. Nothing here changes a number beyond rounding."""

from __future__ import annotations

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
        memory_limit: bytes for the chunks at work and for what is kept between passes; what does
            not fit is computed again. Beyond what python and its libraries take, in each worker.
        workers: processes that neurons are shared among, unless another backend of joblib is
            active. Only a single one keeps anything: the others would not see it.
        chunk: neurons at a time, a multiple of `noise.ROWS`; about what a cache holds.
        task: neurons at least that are worth the way to another process.
    """

    dtype: torch.dtype | None = None
    memory_limit: int = 2**30
    workers: int = 1
    chunk: int = ROWS
    task: int = 2**17

    def __post_init__(self) -> None:
        if self.dtype not in (None, torch.float32, torch.float64):
            raise InvalidInput(
                f"dtype={self.dtype}", "torch.float32 or torch.float64", "leave dtype out"
            )
        if self.chunk < 1 or self.chunk % ROWS:
            raise InvalidInput(
                f"chunks of {self.chunk} neurons", f"a multiple of {ROWS}", f"pass {ROWS}"
            )
        for name in ("workers", "task"):
            if getattr(self, name) < 1:
                raise InvalidInput(
                    f"{name}={getattr(self, name)}", "at least 1", f"leave {name} out"
                )
        if self.memory_limit < 1:
            raise InvalidInput(
                f"memory_limit={self.memory_limit}", "a number of bytes", "pass memory_limit=2**30"
            )

    def type_at(self, width: int) -> torch.dtype:
        """The dtype of what neurons hold at a width."""
        return self.dtype or (torch.float64 if width <= EXACT_BELOW else torch.float32)

    def memory(self) -> Memory:
        """A fresh allowance."""
        return Memory(self.memory_limit)


class Memory:
    """An allowance of bytes: for the chunks at work, and for what is kept between passes."""

    def __init__(self, limit: int) -> None:
        self._limit, self._kept, self._working = limit, 0, 0

    def reserve(self, working: int) -> None:
        """Set aside what the chunks of a pass need.

        Raises:
            InvalidInput: if that alone exceeds the allowance.
        """
        if working > self._limit:
            needed = -(-working // 2**20)
            raise InvalidInput(
                f"a memory limit of {self._limit / 2**20:,.1f} MiB",
                f"at least {needed:,} MiB, which the chunks of all workers fill at once",
                f"pass --memory-limit {needed}MiB or more, fewer workers, or fewer samples",
            )
        self._working = max(self._working, working)

    def grants(self, size: int) -> bool:
        """Take ``size`` bytes for good if they are left."""
        granted = self._working + self._kept + size <= self._limit
        self._kept += size if granted else 0
        return granted
