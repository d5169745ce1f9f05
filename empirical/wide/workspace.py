"""Where neurons lie in memory: every column in one piece, in memory that is used again.

Memory that a process has just got costs more than the sums over it: the system clears every page at
the first touch. So memory is lent to a task for its chunks, and to a network for what it keeps
between passes, and comes back when they are done, for the next one. What waits for the next one is
within the memory limit of the last one, for either use; `release` gives it to the system.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum, auto
from threading import Lock

import torch
from torch import Tensor

ALIGNED = 16
"""Numbers: as many bytes as the widest instructions take, in float32."""
SLAB, LARGEST = 2**22, 2**28
"""Bytes that are asked for at a time: at first, and at most unless one owner needs more. A network
of few neurons then takes little even of the address space, of which a process that is forked must
have as much as there is memory."""


class Purpose(Enum):
    """The use of memory: for a task's chunk, or for what a network keeps between passes."""

    CHUNK, KEPT = auto(), auto()


def apart(rows: int) -> int:
    """How far apart the columns of so many neurons begin, which lie side by side in each.

    Products with thin matrices and sums over neurons are then several times as fast as where the
    columns of a neuron lie side by side; and the library adds up alike, wherever a column is.
    """
    return -(-rows // ALIGNED) * ALIGNED


class Workspace:
    """Memory of a device for one owner after the other, in the order in which they ask."""

    def __init__(self, device: str, purpose: Purpose) -> None:
        self.device, self.purpose = device, purpose
        self.limit = 0
        self._slabs: list[Tensor] = []
        self._touched: list[int] = []
        self._owned: dict[object, Tensor] = {}
        self._slab = self._used = 0

    @property
    def held(self) -> int:
        """Bytes that have had an owner, now or before."""
        return sum(self._touched)

    @property
    def reserved(self) -> int:
        """Bytes of the address space."""
        return sum(map(len, self._slabs))

    def clear(self) -> None:
        """Take all memory back from its owners."""
        self._owned.clear()
        self._slab = self._used = 0

    def tensor(self, owner: object, rows: int, columns: int, dtype: torch.dtype) -> Tensor:
        """An uninitialised (rows, columns) tensor, the same memory for the same owner.

        Its columns are as far `apart` as the rows ask for that the owner had most of.
        """
        found = self._owned.get(owner)
        if found is None or len(found) < rows:
            memory = self._room(columns * apart(rows) * dtype.itemsize).view(dtype)
            found = self._owned[owner] = memory.view(columns, apart(rows))[:, :rows].T
        return found if len(found) == rows else found[:rows]

    def _room(self, size: int) -> Tensor:
        while True:
            if self._slab == len(self._slabs):
                usual = min(max(SLAB, self.reserved), LARGEST)
                fresh = torch.empty(max(size, usual), dtype=torch.uint8, device=self.device)
                self._slabs.append(fresh)
                self._touched.append(0)
            slab, start = self._slabs[self._slab], self._used
            if start + size <= len(slab):
                self._used += size
                self._touched[self._slab] = max(self._touched[self._slab], self._used)
                return slab[start : start + size]
            if start:
                self._slab, self._used = self._slab + 1, 0
            else:  # too small for this owner, and nobody has it: let it go before there is more
                del slab, self._slabs[self._slab], self._touched[self._slab]


_spare: defaultdict[tuple[str, Purpose], list[Workspace]] = defaultdict(list)
"""Memory that nobody uses at present, the last that came back at the end; threads share it."""
_alone = Lock()


def _let_go(spare: list[Workspace], limit: int) -> None:
    """Give the system what came back first, until the rest holds at most so many bytes."""
    while sum(room.held for room in spare) > limit:
        del spare[0]


def lend(device: str, purpose: Purpose, limit: int) -> Workspace:
    """Memory that nobody uses at present; what exceeds so many bytes is let go."""
    with _alone:
        spare = _spare[device, purpose]
        _let_go(spare, limit)
        found = spare.pop() if spare else Workspace(device, purpose)
    found.limit = limit
    return found


def take_back(workspace: Workspace) -> None:
    """Make memory ready for the next one; nobody may read it any more."""
    workspace.clear()
    with _alone:
        spare = _spare[workspace.device, workspace.purpose]
        spare.append(workspace)
        _let_go(spare, workspace.limit)


@contextmanager
def lent(device: str, purpose: Purpose, limit: int) -> Iterator[Workspace]:
    """Memory for as long as a task goes on; that of one that breaks off is let go."""
    workspace = lend(device, purpose, limit)
    yield workspace
    take_back(workspace)


def release() -> None:
    """Give the system all memory that nobody uses at present."""
    with _alone:
        _spare.clear()
