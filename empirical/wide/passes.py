"""One pass over neurons: atoms are evaluated chunk by chunk, and small float64 sums come back.

    slices of neurons  ->  tasks, shared among workers    (cut by the width alone, so that sums do
                                                           not depend on how many workers there are)
    chunks of a slice  ->  what a cache holds, one at a time

Claim.  A task is a function of its description alone: noise is drawn again from its counters. So
it may run in a thread, in another process or on another machine, and a task whose worker died is
simply run again, with the same result. Workers that share memory also find there what was kept.

Which workers there are is joblib's business: threads of this process for chunks of neurons, whose
arithmetic lets other threads go on, and processes for tiles of entries (tiles.py), whose Python
does not; or whatever backend is active (`joblib.parallel_config`), a Dask cluster among them.

Chunks lie on the device of the axis, and so do their sums until a task ends; a GPU is one worker.
"""

from __future__ import annotations

import functools
import warnings
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import torch
from joblib import Parallel, delayed
from joblib.parallel import get_active_backend
from torch import Tensor

from empirical.measure.measurement import blas_threads
from empirical.wide.noise import ROWS
from empirical.wide.streaming import Streaming
from empirical.wide.workspace import Purpose, Workspace, lent

T = TypeVar("T")

# joblib replaces a worker that has grown, between two tasks; nothing is lost and no one need know.
warnings.filterwarnings("ignore", message="A worker stopped while some jobs were given")
MOST_TASKS = 64
CONVERTED = 4 * ROWS
"""Neurons of a CPU that are converted to float64 at a time (benchmarks/RESULTS.md)."""


class Atom(Protocol):
    """Something that neurons hold, ``count`` numbers each."""

    @property
    def count(self) -> int:
        """Columns."""

    def evaluate(self, chunk: Chunk, out: Tensor | None) -> Tensor:
        """The numbers of some neurons, (rows, count), in ``out`` if given."""


class Combination(Protocol):
    """A linear combination of atoms, (side, count)."""

    @property
    def count(self) -> int:
        """Columns."""

    @property
    def rounded(self) -> Sequence[tuple[Any, Tensor]]:
        """Atoms, each with its coefficients in the dtype and on the device of the axis."""

    @property
    def source(self) -> tuple[Any, slice] | None:
        """A combination of which these are some neighbouring columns."""


class Neurons(Protocol):
    """The neurons of one axis, and what is kept of them between passes."""

    @property
    def side(self) -> int:
        """Their number."""

    @property
    def dtype(self) -> torch.dtype:
        """The type of the values that they hold."""

    @property
    def device(self) -> str:
        """Where these values are."""

    @property
    def streaming(self) -> Streaming:
        """How they stream through the machine."""

    @property
    def chunk(self) -> int:
        """How many stream by at a time."""

    @property
    def kept(self) -> Mapping[Any, Tensor]:
        """Memory of atoms that are kept, by atom: (chunks, count, rows), the first ones or all."""

    @property
    def ready(self) -> Container[Any]:
        """Atoms whose memory is filled."""


A = TypeVar("A", bound=Atom)


@dataclass(frozen=True)
class AxisProduct(Generic[A]):
    """The Gram matrix of two lists of atoms, of which the left one may begin the right one."""

    left: tuple[A, ...]
    right: tuple[A, ...]


def products_of(pairs: Sequence[tuple[A, A]]) -> list[AxisProduct[A]]:
    """Products that cover all pairs: of one atom with others, or of all atoms with themselves.

    All with all unless that wastes much, or one or two atoms meet all others.
    """
    left, stars = list(pairs), list[AxisProduct[A]]()
    while left:
        met = Counter(atom for pair in left for atom in dict.fromkeys(pair))
        centre = met.most_common(1)[0][0]
        touched = [pair for pair in left if centre in pair]
        others = dict.fromkeys(b if a is centre else a for a, b in touched)
        first = [centre] if centre in others else []
        stars.append(AxisProduct((centre,), (*first, *(x for x in others if x is not centre))))
        left = [pair for pair in left if centre not in pair]
    atoms = tuple(dict.fromkeys(atom for pair in pairs for atom in pair))
    if len(stars) > 2 and _count(atoms) ** 2 <= 3 * sum(a.count * b.count for a, b in pairs):
        return [AxisProduct(atoms, atoms)]
    return stars


def sums(axis: Neurons, products: Sequence[AxisProduct[Any]]) -> list[Tensor]:
    """Every product, (left columns, right columns), summed over all neurons of the axis."""
    return added(run(axis, partial(_sums, axis, tuple(products))))


def values(axis: Neurons, x: Combination) -> Tensor:
    """The numbers themselves, (side, count), in the dtype of the axis."""
    return torch.cat(list(run(axis, partial(_values, axis, x))))


class Workers(StrEnum):
    """The kind of workers that a task is made for, where no backend of joblib is asked for."""

    THREADS = "threads"
    PROCESSES = "processes"


def workers_share_memory() -> bool:
    """Whether a worker that streams neurons sees what this process keeps."""
    backend, _ = get_active_backend(prefer=Workers.THREADS)
    return bool(getattr(backend, "supports_sharedmem", False))


def mapped(
    task: Callable[[slice], T],
    slices: Sequence[slice],
    workers: int,
    kind: Workers = Workers.PROCESSES,
) -> Iterator[T]:
    """Results of a task on every slice, in order."""
    if len(slices) == 1 or (workers == 1 and kind is Workers.THREADS and workers_share_memory()):
        with blas_threads(1):
            yield from map(task, slices)
    elif kind is Workers.THREADS and workers_share_memory():
        with blas_threads(1):
            run = Parallel(workers, return_as="generator", prefer=kind)
            yield from run(delayed(_in_a_thread)(task, rows) for rows in slices)
    else:
        run = Parallel(workers, return_as="generator")
        yield from run(delayed(_alone)(task, rows) for rows in slices)


def added(parts: Iterable[list[Tensor]]) -> list[Tensor]:
    """The sums of several lists, place by place; there is at least one."""
    return functools.reduce(lambda x, y: [*map(torch.add, x, y)], parts)


def run(axis: Neurons, task: Callable[[slice], T]) -> Iterator[T]:
    """Results of a task on slices of the neurons of an axis, in order."""
    least = max(axis.streaming.task, -(-axis.side // MOST_TASKS))
    slices = list(pieces(slice(0, axis.side), least, axis.chunk))
    return mapped(task, slices, axis.streaming.workers, Workers.THREADS)


def _in_a_thread(task: Callable[[slice], T], rows: slice) -> T:
    """A task on one thread, of several at work: a new thread has a number of threads of its own,
    all cores, which are too many, and with which products are cut and rounded in another way.
    """
    torch.set_num_threads(1)
    return task(rows)


def _alone(task: Callable[[slice], T], rows: slice) -> T:
    """A task on one thread: chunks are too small to be shared among several."""
    with blas_threads(1):
        return task(rows)


def pieces(rows: slice, least: int, unit: int) -> Iterator[slice]:
    """Neighbouring slices of at least so many rows, each a multiple of the unit but the last."""
    step = -(-least // unit) * unit
    return (slice(i, min(i + step, rows.stop)) for i in range(rows.start, rows.stop, step))


def chunks(axis: Neurons, rows: slice) -> Iterator[Chunk]:
    """Chunks of some neurons, one at a time: each writes where the one before it did."""
    with lent(axis.device, Purpose.CHUNK, axis.streaming.memory_limit) as workspace:
        for piece in pieces(rows, 1, axis.chunk):
            yield Chunk(axis, piece, workspace)


def _sums(axis: Neurons, products: Sequence[AxisProduct[Any]], rows: slice) -> list[Tensor]:
    totals = [
        torch.zeros(_count(p.left), _count(p.right), dtype=torch.float64, device=axis.device)
        for p in products
    ]
    blocks = [
        (a, b, block)
        for total, product in zip(totals, products, strict=True)
        for a, row in zip(product.left, split(total, product.left, 0), strict=True)
        for b, block in zip(product.right, split(row, product.right, 1), strict=True)
    ]
    atoms = tuple(dict.fromkeys(atom for a, b, _ in blocks for atom in (a, b)))
    for chunk in chunks(axis, rows):
        for double in chunk.doubles(atoms):
            for a, b, block in blocks:  # side by side they would be one, and a dearer copy
                block.addmm_(double[a].T, double[b])
    return [total.cpu() for total in totals]


def split(total: Tensor, atoms: Sequence[Atom], dim: int) -> tuple[Tensor, ...]:
    """The part of every atom in a matrix that has its columns along a dimension."""
    parts: tuple[Tensor, ...] = torch.split(total, [atom.count for atom in atoms], dim)
    return parts


def _values(axis: Neurons, x: Combination, rows: slice) -> Tensor:
    return torch.cat([chunk.columns(x).clone() for chunk in chunks(axis, rows)])


def _count(atoms: Sequence[Atom]) -> int:
    return sum(atom.count for atom in atoms)


def _converted(axis: Neurons) -> int:
    """Neurons that are converted to float64 at a time."""
    most = CONVERTED if axis.device == "cpu" else axis.chunk
    return min(most, axis.chunk, axis.side)


def converted_bytes(axis: Neurons, columns: int) -> int:
    """Memory of a chunk for so many columns of these."""
    return 0 if axis.dtype is torch.float64 else 8 * columns * _converted(axis)


class Chunk:
    """The values of some neurons; each atom is evaluated once."""

    def __init__(self, axis: Neurons, rows: slice, workspace: Workspace) -> None:
        self.axis, self.rows, self._workspace = axis, rows, workspace
        self._count, self._most = int(rows.stop - rows.start), min(axis.chunk, axis.side)
        self._values: dict[Atom, Tensor] = {}
        self._combined: dict[Combination, Tensor] = {}

    def tensor(self, owner: object, columns: int) -> Tensor:
        """Memory for the (rows, columns) of an atom or a combination of atoms.

        Columns are as far apart in a short chunk as in any other, and in what is kept: the library
        multiplies columns that are further apart with other rounding.
        """
        whole = self._workspace.tensor(owner, self._most, columns, self.axis.dtype)
        return whole if self._count == self._most else whole[: self._count]

    def doubles(self, atoms: Sequence[Atom]) -> Iterator[Mapping[Atom, Tensor]]:
        """Atoms in float64, (rows, count) each: some neurons, then the next ones.

        On a CPU they are so few that a cache still holds what is converted when it is multiplied.
        """
        values, wide = {atom: self.value(atom) for atom in atoms}, torch.float64
        if self.axis.dtype is wide:
            yield values
            return
        most = _converted(self.axis)
        memory = {
            atom: self._workspace.tensor((atom, wide), most, atom.count, wide) for atom in atoms
        }
        for start in range(0, self._count, most):
            some = slice(start, min(start + most, self._count))
            yield {
                atom: memory[atom][: some.stop - start].copy_(x[some]) for atom, x in values.items()
            }

    def value(self, atom: Atom) -> Tensor:
        """An atom, (rows, count): as it was kept, or computed."""
        if atom not in self._values:
            found = self._place(atom)
            if found is None or atom not in self.axis.ready:
                found = atom.evaluate(self, found)
            self._values[atom] = found
        return self._values[atom]

    def _place(self, atom: Atom) -> Tensor | None:
        """Where these neurons are kept; a chunk that had to be shorter is a part of one before."""
        if atom not in self.axis.kept:
            return None
        kept = self.axis.kept[atom]
        number, start = divmod(self.rows.start, kept.shape[2])
        return kept[number, :, start : start + self._count].T if number < len(kept) else None

    def columns(self, x: Combination) -> Tensor:
        """A combination, (rows, count), to read; the memory is that of the next chunk's."""
        if x.source is not None:
            whole, some = x.source
            return self.columns(whole)[:, some]
        if x in self._combined:
            return self._combined[x]
        total = self._combined[x] = self.tensor(x, x.count)
        if not x.rounded:
            return total.zero_()
        (first, c), *others = x.rounded
        torch.mm(self.value(first), c, out=total)
        for atom, c in others:
            total.addmm_(self.value(atom), c)
        return total
