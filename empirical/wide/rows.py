"""Updates that look at single entries, by blocks of rows: O(M^2) time, O(M) memory.

An entry of sign(G), or of G / sqrt(ema(G*G)), follows from that entry of G = D H^T / n, now and in
earlier steps; an entry of G / sqrt(row_mean(G*G)) also from a sum over its row. So a tile of the
update, some rows by some columns, is what the numeric interpreter (empirical/numbers.py) makes of
the same rows of D and of H, once it is told the values that see beyond the tile:

    sums        row_mean, col_mean, norm, rms     one more sweep over all tiles
    spectral    (B + rho*I)**(-1) @ G, norm(A)    from Gram matrices (update.py), U V^T on the tile
    diagonals   diag(A)                           likewise

Claim.  A tile is used up where it is made: dW x is added up from products of tiles with x, and
nothing of size fan_out x fan_in exists. The same entries come out as with whole matrices.

Moving averages of entries are made again from the D and H of all steps so far: t steps cost t^2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import TypeAlias, TypeGuard

import torch
from torch import Tensor

from empirical.basis import Basis
from empirical.measure import size_of
from empirical.numbers import LayerTensors, Record, State, evaluate_nodes
from empirical.spectral import Blocks, Square
from empirical.values import Entries, Value
from empirical.wide.columns import Atom, Axis, Columns
from empirical.wide.passes import added, mapped, pieces
from empirical.wide.paths import SUMS, Path, path_of, spans
from empirical.wide.streaming import Streaming
from empirical.wide.update import Coordinates
from scaling.averages import is_average
from scaling.language import Call, MatMul, Matrix, Node
from scaling.rule import Rule
from scaling.shapes import Dim

Images: TypeAlias = dict[tuple[Atom, int], Columns]
"""(an atom, one of its columns) -> the matrix times that column."""

TILE = (256, 1024)
EXACT_BELOW = 2**24
"""Layers with fewer entries are made in float64, larger ones in float32."""
TASK = 2**25
"""Entries at least that are worth the way to another process."""


# --- values of the whole layer ------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Product:
    """u v^T, (rows, k) and (columns, k)."""

    u: Tensor
    v: Tensor

    def part(self, rows: slice, columns: slice) -> Value:
        """The tile."""
        return Entries(self.u[rows] @ self.v[columns].T)


@dataclass(frozen=True, eq=False)
class Plain:
    """A number, a row or a column."""

    x: Tensor

    def part(self, rows: slice, columns: slice) -> Value:
        """The part that belongs to a tile."""
        return Entries(self.x[rows, columns] if self.x.ndim else self.x)


@dataclass(frozen=True, eq=False)
class Diagonal:
    """A diagonal matrix, and the value that it takes where there are no data."""

    x: Tensor
    off: Tensor

    def part(self, rows: slice, columns: slice) -> Value:
        """The diagonal block of a tile."""
        return Blocks((self.x[rows].reshape(-1, 1, 1),), self.off, self.x.dtype)


Whole: TypeAlias = Product | Plain | Diagonal


@dataclass(frozen=True, eq=False)
class Seen:
    """What one step saw of a layer: cotangents (fan_out, n), inputs (fan_in, n), whole values."""

    d: Tensor
    h: Tensor
    whole: Mapping[Node, Whole]


# --- tiles --------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Tiles:
    """A rule on one layer, readable on any tile; the last of ``steps`` is the present one."""

    rule: Rule
    values: Mapping[str, float]
    steps: tuple[Seen, ...]

    @cached_property
    def averages(self) -> list[Node]:
        """What earlier steps are read for."""
        return _averages(self.rule.expression)

    @property
    def sides(self) -> tuple[int, int]:
        """(fan_out, fan_in)."""
        return len(self.steps[-1].d), len(self.steps[-1].h)

    def read(
        self, nodes: Sequence[Node], rows: slice, columns: slice, record: Record | None = None
    ) -> list[Value]:
        """The values of nodes on a tile."""
        state, found = State(), list[Value]()
        for seen in self.steps:
            d, h = seen.d[rows], seen.h[columns]
            w = d.new_zeros(1, 1).expand(len(d), len(h))
            layer = LayerTensors(H=h, D=d, W=w, sides=self.sides)
            known = {
                node: whole.part(*self._oriented(node, rows, columns))
                for node, whole in seen.whole.items()
            }
            last = seen is self.steps[-1]
            asked = nodes if last else self.averages
            watcher = record if last else None
            found = evaluate_nodes(asked, layer, self.values, state, watcher, known)
            if watcher is not None:
                for node, value in known.items():
                    watcher(node, value)
        return found

    def _oriented(self, node: Node, rows: slice, columns: slice) -> tuple[slice, slice]:
        """The rows and columns of a node's own value, which may be that of a transpose."""
        across = {Dim.FAN_OUT: rows, Dim.FAN_IN: columns, Dim.ONE: slice(None)}
        return across[node.shape.rows], across[node.shape.cols]

    def grid(self, rows: slice) -> list[tuple[slice, slice]]:
        """The tiles of some rows."""
        everywhere = slice(0, self.sides[1])
        return [(i, j) for i in pieces(rows, 1, TILE[0]) for j in pieces(everywhere, 1, TILE[1])]

    def tasks(self) -> list[slice]:
        """Blocks of rows, for workers to share."""
        fan_out, fan_in = self.sides
        return list(pieces(slice(0, fan_out), max(TASK // fan_in, fan_out // 16), TILE[0]))


@dataclass
class Tally:
    """Sizes of watched nodes over all tiles: the RMS entry, the spectral norm if square."""

    watched: frozenset[Node]
    squares: dict[Node, tuple[float, float]] = field(default_factory=dict)
    largest: dict[Node, float] = field(default_factory=dict)

    def __call__(self, node: Node, value: Value) -> None:
        """Take in a tile."""
        if node not in self.watched:
            return
        if node.shape.is_square:
            size = float(value.spectral_norm())
            self.largest[node] = max(self.largest.get(node, 0.0), size)
            return
        x = _entries(value)
        total, count = self.squares.get(node, (0.0, 0.0))
        self.squares[node] = total + float(x.double().square().sum()), count + x.numel()

    def add(self, other: Tally) -> None:
        """Take in another tally."""
        for node, size in other.largest.items():
            self.largest[node] = max(self.largest.get(node, 0.0), size)
        for node, (total, count) in other.squares.items():
            before = self.squares.get(node, (0.0, 0.0))
            self.squares[node] = before[0] + total, before[1] + count

    def sizes(self) -> dict[Node, float]:
        """Node -> size."""
        means = {node: (total / count) ** 0.5 for node, (total, count) in self.squares.items()}
        return {**means, **self.largest}


def _moved(
    tiles: Tiles, x: Tensor, transposed: bool, watched: frozenset[Node], rows: slice
) -> tuple[Tensor, Tally]:
    """Of dW x some rows; of dW^T x what some rows of dW contribute."""
    tally = Tally(watched)
    side = tiles.sides[1] if transposed else rows.stop - rows.start
    x = x.to(tiles.steps[-1].d.dtype)
    total = x.new_zeros(side, x.shape[1])
    nodes = [tiles.rule.expression, *watched]  # some occur only below a sum that is known already
    for i, j in tiles.grid(rows):
        value = tiles.read(nodes, i, j, tally if watched else None)[0]
        tile = _entries(value)
        if transposed:
            total[j].addmm_(tile.T, x[i])
        else:
            total[i.start - rows.start : i.stop - rows.start].addmm_(tile, x[j])
    return total, tally


def _added_up(tiles: Tiles, nodes: Sequence[Call], rows: slice) -> list[Tensor]:
    """For every sum over entries, what some rows contribute; see `_finished`."""
    fan_out, fan_in = tiles.sides
    length = {Dim.FAN_OUT: fan_out, Dim.FAN_IN: fan_in, Dim.ONE: 1}
    totals = [
        torch.zeros(length[node.shape.rows], length[node.shape.cols], dtype=torch.float64)
        for node in nodes
    ]
    operands = [node.argument for node in nodes]
    for i, j in tiles.grid(rows):
        across = {Dim.FAN_OUT: i, Dim.FAN_IN: j, Dim.ONE: slice(0, 1)}
        for node, total, value in zip(nodes, totals, tiles.read(operands, i, j), strict=True):
            shape = node.argument.shape
            sides = (shape.rows, shape.cols)
            if (Dim.FAN_IN not in sides and j.start) or (Dim.FAN_OUT not in sides and i.start):
                continue  # a column or a row is met by many tiles, and counted by one
            x = _entries(value).double()
            part = total[across[node.shape.rows], across[node.shape.cols]]
            if node.function in ("row_mean", "col_mean"):
                part += x.sum(dim=1 if node.shape.cols is Dim.ONE else 0, keepdim=True)
            else:
                part += x.square().sum()
    return totals


def _finished(node: Call, total: Tensor, sides: tuple[int, int], dtype: torch.dtype) -> Tensor:
    """The value of a sum over entries."""
    length = {Dim.FAN_OUT: sides[0], Dim.FAN_IN: sides[1], Dim.ONE: 1}
    shape = node.argument.shape
    entries = length[shape.rows] * length[shape.cols]
    match node.function:
        case "norm":
            return total.sqrt().reshape(())
        case "rms":
            return (total / entries).sqrt().reshape(())
    return (total * (total.numel() / entries)).to(dtype)


def is_one_task(rule: Rule, width: int, streaming: Streaming) -> bool:
    """Whether a network is too small for its neurons to be shared among workers."""
    return width <= streaming.task and (path_of(rule) is Path.CORE or width**2 <= TASK)


# --- learning -----------------------------------------------------------------------------------


@dataclass(eq=False)
class Rows:
    """The matrix scale * dW, applied by blocks of rows; what it was applied to is remembered."""

    tiles: Tiles
    axes: tuple[Axis, Axis]
    watched: frozenset[Node] = frozenset()
    sizes: dict[Node, float] = field(default_factory=dict)
    scale: float = 1.0
    transposed: bool = False
    images: tuple[Images, Images] = field(default_factory=lambda: ({}, {}))

    @property
    def T(self) -> Rows:
        """Transpose."""
        return replace(self, transposed=not self.transposed)

    def __rmul__(self, c: float) -> Rows:
        return replace(self, scale=c * self.scale)

    def __matmul__(self, x: Columns) -> Columns:
        target, images = self.axes[self.transposed], self.images[self.transposed]
        asked = {atom: _used(c) for atom, c in x.terms}
        new = [(atom, i) for atom, used in asked.items() for i in used if (atom, i) not in images]
        if new:
            joint = x.axis.none()
            for atom, i in new:
                joint = joint.beside(Columns.of(x.axis, atom).pick([i]))
            x.axis.take(x.axis.side * joint.count)
            target.take(target.side * joint.count)
            y = target.given(self._apply(x.axis.values(joint)))
            images.update((place, y.pick([k])) for k, place in enumerate(new))
        total = target.none(x.count)
        for atom, c in x.terms:
            for i in asked[atom]:
                total += self.scale * (images[atom, i] @ c[i : i + 1])
        return total

    def _apply(self, x: Tensor) -> Tensor:
        task = partial(_moved, self.tiles, x, self.transposed, self.watched)
        tally, parts = Tally(self.watched), []
        for part, seen in mapped(task, self.tiles.tasks(), self.axes[0].streaming.workers):
            tally.add(seen)
            parts.append(part)
        self.sizes.update(tally.sizes())
        return sum(parts[1:], parts[0]) if self.transposed else torch.cat(parts)


@dataclass(eq=False)
class RowLearner:
    """A rule at work on one layer, entry by entry."""

    rule: Rule
    values: Mapping[str, float]
    coordinates: Coordinates
    state: State = field(default_factory=State)
    history: list[Seen] = field(default_factory=list)

    def update(
        self,
        d: Columns,
        h: Columns,
        fisher: Columns | None = None,
        watched: frozenset[Node] = frozenset(),
    ) -> Rows:
        """The update, without learning rate and sign, from cotangents and inputs of a batch."""
        axes = d.axis, h.axis
        sizes: dict[Node, float] = {}
        whole = self._spectral(d, h, fisher, watched, sizes)
        for x in (d, h):
            x.axis.take(x.axis.side * x.count)
        dense = d.axis.values(d), h.axis.values(h)
        dtype = torch.float64 if d.axis.side * h.axis.side < EXACT_BELOW else torch.float32
        seen = Seen(dense[0].to(dtype), dense[1].to(dtype), whole)
        for level in _levels(self.rule.expression):
            tiles = Tiles(self.rule, self.values, (*self.history, seen))
            task = partial(_added_up, tiles, level)
            totals = added(mapped(task, tiles.tasks(), d.axis.streaming.workers))
            whole.update(
                (node, Plain(_finished(node, total, tiles.sides, dtype)))
                for node, total in zip(level, totals, strict=True)
            )
        self.history.append(seen)
        tiles = Tiles(self.rule, self.values, tuple(self.history))
        return Rows(tiles, axes, watched - sizes.keys(), sizes)

    def _spectral(
        self,
        d: Columns,
        h: Columns,
        fisher: Columns | None,
        watched: frozenset[Node],
        sizes: dict[Node, float],
    ) -> dict[Node, Whole]:
        """Values that follow from Gram matrices; sizes of watched ones too."""
        nodes = _spectral_nodes(self.rule.expression)
        asked = [_square_of(node) for node in nodes]
        asked += [n for n in watched if n not in asked and spans(n) and _has_matrix(n)]
        if not asked:
            return {}
        layer = self.coordinates.of(d, h, fisher)
        found = evaluate_nodes(asked, layer, self.values, self.state)
        for node, value in zip(asked, found, strict=True):
            if node in watched:
                sizes[node] = size_of(node, value)
        return {node: self._whole(node, value) for node, value in zip(nodes, found, strict=False)}

    def _whole(self, node: Node, value: Value) -> Whole:
        if node.shape.is_scalar:
            return Plain(_entries(value).reshape(()))
        if isinstance(value, Square):
            q = self._explicit(node.shape.rows, value.basis)
            inside = ((q @ value.core[: q.shape[1], : q.shape[1]].to(q.dtype)) * q).sum(dim=1)
            off = value.off.to(q.dtype)
            return Diagonal(inside + off * (1 - q.square().sum(dim=1)), value.off)
        assert not isinstance(value, Blocks), "the path refuses blocks"
        low = value.low_rank()
        u = self._explicit(node.shape.rows, low.left)
        v = self._explicit(node.shape.cols, low.right)
        return Product(u @ low.core[: u.shape[1], : v.shape[1]].to(u.dtype), v)

    def _explicit(self, side: Dim, basis: Basis) -> Tensor:
        """A basis in coordinates as columns of the side itself, (side, rank)."""
        span = self.coordinates.left if side is Dim.FAN_OUT else self.coordinates.right
        columns = span.basis
        if not basis.is_whole:
            columns = columns @ basis.q[: columns.count]
        return columns.axis.values(columns)


def _entries(value: Value) -> Tensor:
    assert not isinstance(value, (Square, Blocks)), "square matrices have no entries here"
    return value.dense()


def _used(c: Tensor) -> list[int]:
    """The columns of an atom that a combination with these coefficients looks at."""
    return [int(i) for i in c.any(dim=1).nonzero()[:, 0]]


def _has_matrix(node: Node) -> bool:
    return any(isinstance(part, Matrix) for part in node.walk())


def _is_diag(node: Node) -> TypeGuard[Call]:
    return isinstance(node, Call) and node.function == "diag"


def _square_of(node: Node) -> Node:
    """What to ask Gram matrices for: the whole matrix where a diagonal is meant."""
    return node.argument if _is_diag(node) else node


def _spectral_nodes(node: Node) -> list[Node]:
    """The largest parts of a rule that tiles cannot read and Gram matrices can."""
    if _is_diag(node):
        return [node]
    if spans(node) and _has_matrix(node):
        product = isinstance(node, MatMul) or (isinstance(node, Call) and node.function == "orth")
        if node.shape.is_scalar or product:
            return [node]
    found = [part for child in node.children for part in _spectral_nodes(child)]
    return list(dict.fromkeys(found))


def _averages(node: Node) -> list[Node]:
    """The moving averages that tiles read."""
    if node in _spectral_nodes(node):
        return []
    found = [part for child in node.children for part in _averages(child)]
    return [*found, node] if is_average(node) else found


def _levels(node: Node) -> list[list[Call]]:
    """The sums over entries of a rule, each after those that it needs."""
    depth: dict[Call, int] = {}

    def visit(part: Node) -> int:
        if part.shape.is_scalar and spans(part):
            return 0
        below = max((visit(child) for child in part.children), default=0)
        if isinstance(part, Call) and part.function in SUMS:
            depth[part] = below
            return below + 1
        return below

    visit(node)
    return [[n for n, at in depth.items() if at == level] for level in sorted(set(depth.values()))]
