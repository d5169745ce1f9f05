"""How neurons stream through the machine.

Claim.  On one kind of processor, neither workers nor the memory limit change a bit, while the
chunks of all workers fill less than half of that memory: sums are cut by width and chunk alone
(passes.py), and chunks are equally long in all passes over an axis. A memory too small for that has
shorter ones. Another processor, library or chunk adds up in another order, and sizes move by
rounding. A rule with jumps (sign) takes that up where an entry is within rounding of the jump:
fewer than one entry in 10^5, and sizes move by less than 1e-5 (tests/wide_trials.py).

Not covered: what is exactly zero by cancellation alone, under a sign. It has the sign of rounding.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor

from empirical.data.sources import Data
from empirical.wide.noise import ROWS, Bits
from empirical.wide.workspace import Purpose, Workspace, lend, take_back
from scaling.sizes.errors import InvalidInput

MEMORY_LIMIT = 2**30
DEVICE_MEMORY = 2**33
"""The same on a GPU, in its own memory, where chunks are longer."""
CHUNK_BYTES, LONGEST = 64 * 10**6, 8 * ROWS
"""A chunk on a CPU: so much that threads seldom wait for each other in the interpreter, and no more
than caches hold of it at a time (benchmarks/RESULTS.md)."""
DEVICE_CHUNK = 2**19
"""Neurons at a time on a GPU: enough that starting a kernel is cheap beside it."""
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
            The next network has the same memory (workspace.py), until `workspace.release()`.
        workers: that neurons are shared among, threads unless another backend of joblib is active;
            processes for single entries. Only threads keep anything: others would not see it.
        chunk: neurons at a time, a multiple of `noise.ROWS`; about what a cache holds. By default
            as many as `CHUNK_BYTES` hold on a CPU (`rows`), `DEVICE_CHUNK` on another device.
        task: neurons at least that are worth the way to another process.
        device: where neurons live: "cpu" or "cuda". One worker feeds a GPU.
        bits: the generator of noise. By default SFC64 on a CPU, and Philox on another device, which
            has no other; with Philox a CPU has the same network.
    """

    dtype: torch.dtype | None = None
    memory_limit: int = MEMORY_LIMIT
    workers: int = 1
    chunk: int | None = None
    task: int = 2**17
    device: str = "cpu"
    bits: Bits | None = None

    def __post_init__(self) -> None:
        elsewhere = self.device != "cpu"
        if self.bits is None:
            object.__setattr__(self, "bits", Bits.PHILOX if elsewhere else Bits.SFC64)
        if elsewhere and self.bits is not Bits.PHILOX:
            raise InvalidInput(
                f"bits={self.bits} with device={self.device}",
                "a generator that runs there: Philox",
                "leave bits out, or pass bits=Bits.PHILOX",
            )
        if elsewhere and self.workers != 1:
            raise InvalidInput(
                f"workers={self.workers} with device={self.device}",
                "a single worker, which feeds the device",
                "leave workers out",
            )
        if self.dtype not in (None, torch.float32, torch.float64):
            raise InvalidInput(
                f"dtype={self.dtype}", "torch.float32 or torch.float64", "leave dtype out"
            )
        if self.chunk is not None and (self.chunk < 1 or self.chunk % ROWS):
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

    def rows(self, size: int, before: int | None = None) -> int:
        """Neurons at a time, of so many bytes each; fewer if they would fill half of the memory.

        As many as ``before``, in the pass before this one, or if they do a part that divides them.
        """
        if self.chunk is not None or self.device != "cpu":
            return self.chunk or DEVICE_CHUNK
        half = self.memory_limit // (2 * self.workers)
        if before is None:  # a power of two, which has many parts
            blocks = max(min(CHUNK_BYTES, half) // (ROWS * size), 1)
            return min(ROWS << blocks.bit_length() - 1, LONGEST)
        parts = [n * ROWS for n in range(1, before // ROWS + 1) if before % (n * ROWS) == 0]
        return max((part for part in parts if part * size <= half), default=ROWS)

    def type_at(self, width: int) -> torch.dtype:
        """The dtype of what neurons hold at a width."""
        return self.dtype or (torch.float64 if width <= EXACT_BELOW else torch.float32)

    def hold(self, data: Data, base: int) -> None:
        """Refuse data that would not fit, twice, beside the network that constants come from.

        ``base`` is the width of that network, which holds its first weights, their gradient and one
        temporary more.

        Raises:
            InvalidInput: if they exceed the memory limit.
        """
        samples = data.samples + len(data.probe_inputs)
        needed = 8 * data.features * (2 * samples + 3 * base)
        if needed > self.memory_limit:
            raise InvalidInput(
                f"{data.features:,} features of '{data.name}': {samples} samples and first weights "
                f"of width {base:,} fill {needed / 2**30:,.1f} GiB",
                f"at most the memory limit, {self.memory_limit / 2**30:,.3g} GiB",
                f"pass --memory-limit {-(-needed // 2**20)}MiB or more, or inputs with fewer "
                "features, such as their principal components",
            )

    def memory(self) -> MemoryLimit:
        """A fresh allowance."""
        return MemoryLimit(self.memory_limit)


def usual_memory(device: str) -> int:
    """The memory limit where none is asked for."""
    return MEMORY_LIMIT if device == "cpu" else DEVICE_MEMORY


_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def parse_bytes(text: str) -> int:
    """Bytes from text: 4GiB, 512MiB, 1.5G, 100000.

    Raises:
        InvalidInput: if it is no amount of memory.

    >>> parse_bytes("1.5GiB"), parse_bytes("64 MB"), parse_bytes("100000")
    (1610612736, 67108864, 100000)
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*([KMGT]?)(?:i?B)?\s*", text, re.IGNORECASE)
    size = int(float(match[1]) * _UNITS[match[2].upper()]) if match else 0
    if size < 1:
        raise InvalidInput(
            f"the memory limit '{text}'", "an amount of memory", "pass for example 4GiB or 512MiB"
        )
    return size


class MemoryLimit:
    """An allowance of bytes: for the chunks at work, and for what is kept between passes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._working = self._needed = self._kept = 0
        self._rooms: dict[str, Workspace] = {}

    def reserve(self, working: int) -> None:
        """Set aside what the chunks of a pass need.

        Raises:
            InvalidInput: if that exceeds the allowance.
        """
        self._working = max(self._working, working)
        self._check(self._working, "which the chunks of all workers fill at once")

    def take(self, size: int) -> None:
        """Take ``size`` bytes for good.

        Raises:
            InvalidInput: if they are not left.
        """
        self._needed += size
        self._check(self._working + self._needed, "for chunks, cotangents, inputs and products")

    def _check(self, needed: int, what: str) -> None:
        if needed > self._limit:
            mib = -(-needed // 2**20)
            raise InvalidInput(
                f"a memory limit of {self._limit / 2**20:,.1f} MiB",
                f"at least {mib:,} MiB, {what}",
                f"pass --memory-limit {mib}MiB or more, fewer workers, or fewer samples",
            )

    @property
    def left(self) -> int:
        """The bytes that may yet be kept."""
        return max(0, self._limit - self._working - self._needed - self._kept)

    def keep(
        self, owner: object, rows: int, columns: int, dtype: torch.dtype, device: str
    ) -> Tensor:
        """An uninitialised (rows, columns) tensor for what is kept between passes."""
        size = rows * columns * dtype.itemsize
        assert size <= self.left, "no more than is left"
        self._kept += size
        if device not in self._rooms:
            self._rooms[device] = lend(device, Purpose.KEPT, self._limit - self._working)
        return self._rooms[device].tensor(owner, rows, columns, dtype)

    def forget(self) -> None:
        """Take back what was kept; nobody may read it any more."""
        for room in self._rooms.values():
            take_back(room)
        self._rooms.clear()
