"""Values of the neurons of one axis, as expressions: nothing is computed before a sum over them.

    Atom      noise, given numbers, or a function of columns entry by entry          (side, k)
    Columns   a linear combination of atoms,  sum_i a_i C_i  with small matrices C_i
    Axis      the neurons; `gram(x, y)` = x^T y is the only thing that looks at them

Claim.  Forward, backward and update of a network need of its M neurons nothing but the Gram
matrices of atoms. A pass streams the neurons through in chunks, evaluates the atoms that are asked
for on each, and adds up small float64 matrices; the Gram matrix of two atoms is computed once.
Sums, products with small matrices and Gram matrices of combinations are algebra on these.

What an atom holds may be kept between passes or computed again from its noise: an allowance of
memory decides, and the numbers are the same. Noise and functions of several columns are kept, and
where not all of an atom fits, that of the first neurons.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor

from empirical.wide.activations import EntryFunction
from empirical.wide.noise import Stream
from empirical.wide.passes import (
    Chunk,
    converted_bytes,
    products_of,
    run,
    split,
    sums,
    values,
    workers_share_memory,
)
from empirical.wide.streaming import MemoryLimit, Streaming

T = TypeVar("T")


# --- columns ------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Noise:
    """Independent normal numbers, ``count`` to a neuron."""

    stream: Stream
    count: int

    def evaluate(self, chunk: Chunk, out: Tensor | None) -> Tensor:
        """The numbers of some neurons, (rows, count), in ``out`` if given."""
        x = chunk.tensor(self, self.count) if out is None else out
        self.stream.fill_(x, chunk.rows.start)
        return x


@dataclass(frozen=True, eq=False)
class Given:
    """Explicit numbers, (side, count); for axes that do not grow."""

    x: Tensor

    @property
    def count(self) -> int:
        """Columns."""
        return self.x.shape[1]

    def evaluate(self, chunk: Chunk, out: Tensor | None) -> Tensor:
        """The numbers of some rows, (rows, count)."""
        return self.x[chunk.rows]


@dataclass(frozen=True, eq=False)
class Entrywise:
    """A function of columns, entry by entry."""

    function: EntryFunction
    arguments: tuple[Columns, ...]

    @property
    def count(self) -> int:
        """Columns."""
        return self.arguments[0].count

    def evaluate(self, chunk: Chunk, out: Tensor | None) -> Tensor:
        """The function of some rows, (rows, count), in ``out`` if given."""
        x = chunk.tensor(self, self.count) if out is None else out
        self.function(*map(chunk.columns, self.arguments), out=x)
        return x


Atom = Noise | Given | Entrywise


@dataclass(frozen=True, eq=False)
class Columns:
    """A linear combination of atoms, (side, count): sum_i atom_i @ coefficient_i."""

    axis: NeuronAxis
    count: int
    terms: tuple[tuple[Atom, Tensor], ...] = ()
    source: tuple[Columns, slice] | None = None
    """Columns of which these are some neighbours, whose numbers a chunk has once."""

    @classmethod
    def of(cls, axis: NeuronAxis, atom: Atom) -> Columns:
        """An atom as it is."""
        return cls(axis, atom.count, ((atom, torch.eye(atom.count, dtype=torch.float64)),))

    def __add__(self, other: Columns) -> Columns:
        assert self.axis is other.axis and self.count == other.count
        terms = dict(self.terms)
        for atom, c in other.terms:
            terms[atom] = terms[atom] + c if atom in terms else c
        return Columns(self.axis, self.count, tuple((a, c) for a, c in terms.items() if c.any()))

    def __sub__(self, other: Columns) -> Columns:
        return self + -1 * other

    def __rmul__(self, c: float) -> Columns:
        return Columns(self.axis, self.count, tuple((a, c * x) for a, x in self.terms) if c else ())

    def __matmul__(self, c: Tensor) -> Columns:
        """These columns times a small matrix (count, k)."""
        return Columns(self.axis, c.shape[1], tuple((a, x @ c) for a, x in self.terms))

    def pick(self, columns: Sequence[int]) -> Columns:
        """Some of the columns; one may be picked twice."""
        chosen = list(columns)
        part = slice(chosen[0], chosen[-1] + 1) if _are_neighbours(chosen) else chosen
        terms = tuple((a, x[:, part]) for a, x in self.terms)
        source = (self, part) if isinstance(part, slice) else None
        return Columns(self.axis, len(chosen), terms, source)

    def beside(self, other: Columns) -> Columns:
        """These columns, then the others."""
        left = [(a, torch.cat([x, x.new_zeros(len(x), other.count)], 1)) for a, x in self.terms]
        right = [(a, torch.cat([x.new_zeros(len(x), self.count), x], 1)) for a, x in other.terms]
        count = self.count + other.count
        return Columns(self.axis, count, tuple(left)) + Columns(self.axis, count, tuple(right))

    @property
    def atoms(self) -> tuple[Atom, ...]:
        """The atoms that this combines."""
        return tuple(atom for atom, _ in self.terms)

    @cached_property
    def rounded(self) -> tuple[tuple[Atom, Tensor], ...]:
        """The terms with coefficients in the dtype and on the device of the axis."""
        axis = self.axis
        return tuple((atom, c.to(axis.device, axis.dtype)) for atom, c in self.terms)

    def rms(self, columns: Sequence[int] | None = None) -> float:
        """The root mean square entry."""
        x = self if columns is None else self.pick(columns)
        return float((gram(x, x).trace().clamp(min=0) / (self.axis.side * x.count)).sqrt())


def _are_neighbours(chosen: list[int]) -> bool:
    return bool(chosen) and chosen == list(range(chosen[0], chosen[-1] + 1))


def gram(x: Columns, y: Columns) -> Tensor:
    """x^T y, (x.count, y.count), float64."""
    x.axis.know([(x, y)])
    total = torch.zeros(x.count, y.count, dtype=torch.float64)
    for a, left in x.terms:
        for b, right in y.terms:
            total += left.T @ x.axis.known(a, b) @ right
    return total


# --- neurons ------------------------------------------------------------------------------------


class NeuronAxis:
    """``side`` neurons, inputs or classes, and the Gram matrices of what they hold.

    What they hold is on the device, Gram matrices and coefficients are on the CPU.
    """

    def __init__(
        self,
        side: int,
        dtype: torch.dtype,
        streaming: Streaming,
        memory: MemoryLimit,
        device: str = "cpu",
    ) -> None:
        self.side, self.dtype, self.streaming, self.device = side, dtype, streaming, device
        self._chunk: int | None = None
        self.kept: dict[Atom, Tensor] = {}
        self.ready: set[Atom] = set()
        self.memory = memory
        self._grams: dict[tuple[Atom, Atom], Tensor] = {}

    @property
    def chunk(self) -> int:
        """How many neurons stream by at a time, once a pass over them was prepared."""
        assert self._chunk is not None
        return self._chunk

    def none(self, count: int = 0) -> Columns:
        """Columns of zeros."""
        return Columns(self, count)

    def noise(self, stream: Stream, count: int) -> Columns:
        """Independent normal numbers."""
        return Columns.of(self, Noise(stream, count))

    def given(self, x: Tensor) -> Columns:
        """Explicit numbers, (side, count)."""
        by_column = x.T.to(self.device, self.dtype).contiguous()
        return Columns.of(self, Given(by_column.T))

    def entrywise(self, function: EntryFunction, *arguments: Columns) -> Columns:
        """A function of columns, entry by entry."""
        return Columns.of(self, Entrywise(function, arguments))

    def values(self, x: Columns) -> Tensor:
        """The numbers themselves, (side, count), in the dtype and on the device of the axis."""
        with self._pass_over(x.atoms):
            return values(self, x)

    def known(self, a: Atom, b: Atom) -> Tensor:
        """The Gram matrix of two atoms that a pass has met."""
        return self._grams[a, b] if (a, b) in self._grams else self._grams[b, a].T

    def know(self, pairs: Iterable[tuple[Columns, Columns]]) -> None:
        """Compute the Gram matrices that these pairs need and that are not known, in one pass."""
        wanted: dict[tuple[Atom, Atom], None] = {}
        for x, y in pairs:
            for a in x.atoms:
                for b in y.atoms:
                    if not any(p in self._grams or p in wanted for p in ((a, b), (b, a))):
                        wanted[a, b] = None
        if wanted:
            self._pass(list(wanted))

    def _pass(self, pairs: list[tuple[Atom, Atom]]) -> None:
        products = products_of(pairs)
        with self._pass_over(atom for p in products for atom in (*p.left, *p.right)):
            totals = sums(self, products)
        for p, total in zip(products, totals, strict=True):
            for a, row in zip(p.left, split(total, p.left, 0), strict=True):
                for b, part in zip(p.right, split(row, p.right, 1), strict=True):
                    self._grams[a, b] = part

    def streamed(self, task: Callable[[slice], T], reads: Iterable[Columns]) -> Iterator[T]:
        """Results of a task on slices of the neurons; it looks at their chunks for ``reads``."""
        with self._pass_over(atom for x in reads if x.axis is self for atom in x.atoms):
            yield from run(self, task)

    @contextmanager
    def _pass_over(self, atoms: Iterable[Atom]) -> Iterator[None]:
        """Make room for a pass that evaluates these atoms; it fills what is kept of them."""
        met = _below(atoms)
        self._make_room(met)
        yield
        self.ready.update(atom for atom in met if atom in self.kept)

    def _make_room(self, met: Sequence[Atom]) -> None:
        """Reserve what chunks of these atoms need, and keep what the rest of the memory holds."""
        row = self.dtype.itemsize * sum(2 * atom.count + _taken(atom) for atom in met)
        self._chunk = self.streaming.rows(max(row, 1), self._chunk)
        converted = converted_bytes(self, sum(atom.count for atom in met))
        one = min(self.side, self.chunk) * row + converted
        self.memory.reserve(self.streaming.workers * one)
        if not workers_share_memory():
            return
        for atom in sorted(met, key=_is_function):  # noise first
            if atom.count and atom not in self.kept and _is_dear(atom):
                self._keep(atom)

    def _keep(self, atom: Atom) -> None:
        """Reserve memory for an atom: for as many chunks of neurons as are granted."""
        rows = min(self.chunk, self.side)
        one = rows * atom.count * self.dtype.itemsize
        chunks = min(self.memory.left // one, -(-self.side // rows))
        if chunks:
            columns = chunks * atom.count
            memory = self.memory.keep(atom, rows, columns, self.dtype, self.device)
            self.kept[atom] = memory.T.view(chunks, atom.count, rows)

    def take(self, numbers: int) -> None:
        """Count numbers that stay until the network is gone against the memory limit."""
        self.memory.take(numbers * self.dtype.itemsize)

    def forget(self) -> None:
        """Let go of what was kept; sums stay known."""
        self.kept.clear()
        self.ready.clear()

    def __getstate__(self) -> dict[str, Any]:
        """The part that a worker without our memory needs: the rest is computed again there."""
        return {
            "side": self.side,
            "dtype": self.dtype,
            "streaming": self.streaming,
            "device": self.device,
            "chunk": self._chunk,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        chunk = state.pop("chunk")
        self.__init__(**state, memory=MemoryLimit(0))  # type: ignore[misc]
        self._chunk = chunk


def _is_function(atom: Atom) -> bool:
    return isinstance(atom, Entrywise)


def _taken(atom: Atom) -> int:
    """Columns of what a function is made of."""
    return sum(x.count for x in atom.arguments) if isinstance(atom, Entrywise) else 0


def _is_dear(atom: Atom) -> bool:
    """Whether it costs more to make an atom again than to read what was kept.

    A function of one combination of columns is about as fast as memory.
    """
    return isinstance(atom, Noise) or (isinstance(atom, Entrywise) and len(atom.arguments) > 1)


def _below(atoms: Iterable[Atom]) -> list[Atom]:
    """The atoms and all that they are made of, without repetition."""
    met: dict[Atom, None] = {}

    def visit(atom: Atom) -> None:
        if atom not in met:
            met[atom] = None
            if isinstance(atom, Entrywise):
                for argument in atom.arguments:
                    for inner in argument.atoms:
                        visit(inner)

    for atom in atoms:
        visit(atom)
    return list(met)
