"""A rule on a tile of a layer, some rows by some columns, by the numeric interpreter.

An entry of sign(G), or of G / sqrt(ema(G*G)), follows from that entry of G = D H^T / n, now and in
earlier steps; an entry of G / sqrt(row_mean(G*G)) also from a sum over its row. So a tile of the
update is what empirical/numbers/interpreter.py makes of the same rows of D and of H, once it is
told the values that see beyond the tile:

    sums        row_mean, col_mean, norm, rms     one more sweep over all tiles
    spectral    (B + rho*I)**(-1) @ G, norm(A)    from Gram matrices (span_update.py), U V^T on the
                                                  tile
    blocks      diag(A), block(L, size)           likewise: Q S Q^T + off (I - Q Q^T), cut to blocks

Claim.  The same entries come out as with whole matrices. Tiles are cut at multiples of the size of
blocks, so a block belongs to one tile of each side, and what is made of blocks alone, as
(block(L, 16) + rho*I)**(-1/4), is made once for the rows, or the columns, of a tile.

Moving averages of entries are made again from the D and H of all steps so far: t steps cost t^2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from empirical.numbers.interpreter import LayerReader, LayerTensors, Record, State
from empirical.numbers.layer_values import LayerValue
from empirical.wide.passes import pieces
from empirical.wide.whole_layer_values import Plain, Whole, entries
from scaling.rules.language import Call, Node
from scaling.rules.operators import FUNCTIONS, SumOfEntries
from scaling.rules.schedule import averages, blocked_nodes
from scaling.rules.shapes import Dim, Side

TILE = (256, 1024)
DEVICE_TILE = (4096, 8192)
"""On a GPU, where starting a kernel is dear and memory fast."""
EXACT_BELOW = 2**24
"""Layers with fewer entries are made in float64, larger ones in float32."""
TASK = 2**25
"""Entries at least that are worth the way to another process."""


@dataclass(frozen=True, eq=False)
class StepFactors:
    """One step's view of a layer: cotangents (fan_out, n), inputs (fan_in, n), whole values."""

    d: Tensor
    h: Tensor
    whole: Mapping[Node, Whole]


# --- tiles --------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Tiles:
    """Parts of a rule on one layer, readable on any tile; the last of ``steps`` is the present one.

    ``sides`` are (fan_out, fan_in) of the layer, of which ``steps`` may hold but some; ``unit`` is
    what tiles are multiples of.
    """

    terms: tuple[Node, ...]
    values: Mapping[str, float]
    steps: tuple[StepFactors, ...]
    sides: tuple[int, int]
    unit: int = 1
    blocks: dict[Any, list[dict[Node, LayerValue]]] = field(default_factory=dict)
    apart: dict[tuple[Node, ...], list[Node]] = field(default_factory=dict)

    @cached_property
    def averages(self) -> list[Node]:
        """The averages that earlier steps are read for."""
        return averages(self.terms)

    @property
    def held(self) -> tuple[int, int]:
        """Rows and columns that there are."""
        return len(self.steps[-1].d), len(self.steps[-1].h)

    def read(
        self, nodes: Sequence[Node], rows: slice, columns: slice, record: Record | None = None
    ) -> list[LayerValue]:
        """The values of nodes on a tile."""
        state, found = State(), list[LayerValue]()
        across: dict[Side, slice] = {Dim.FAN_OUT: rows, Dim.FAN_IN: columns, Dim.ONE: slice(None)}
        first = 0 if self.averages else len(self.steps) - 1
        for step, seen in enumerate(self.steps[first:], first):
            last = seen is self.steps[-1]
            asked = nodes if last else self.averages
            of_rows = self._blocks(asked, Dim.FAN_OUT, rows)[step]
            of_columns = self._blocks(asked, Dim.FAN_IN, columns)[step]
            known = {
                node: whole.part(across[node.shape.rows], across[node.shape.cols])
                for node, whole in seen.whole.items()
                if not node.shape.is_square
            }
            known.update({**of_rows, **of_columns})
            layer = self._layer(seen, rows, columns)
            watcher = record if last else None
            found = LayerReader(layer, self.values, state, watcher, known).read(asked)
            if watcher is not None:
                seen_here = {n: x for n, x in known.items() if not n.shape.is_square}
                if not columns.start:  # many tiles meet the same blocks of rows; one watches them
                    seen_here.update(of_rows)
                if not rows.start:
                    seen_here.update(of_columns)
                for node, value in seen_here.items():
                    watcher(node, value)
        return found

    def _layer(self, seen: StepFactors, rows: slice, columns: slice) -> LayerTensors:
        d, h = seen.d[rows], seen.h[columns]
        w = d.new_zeros(1, 1).expand(len(d), len(h))
        return LayerTensors(H=h, D=d, W=w, sides=self.sides)

    def _blocks(
        self, nodes: Sequence[Node], side: Dim, part: slice
    ) -> list[dict[Node, LayerValue]]:
        """All in ``nodes`` that is made of blocks of one side, on a part of it, step by step."""
        asked = [node for node in self._blocked(tuple(nodes)) if node.shape.rows is side]
        if not asked:
            return [{} for _ in self.steps]
        key = (side, part.start, part.stop, *asked)
        if key not in self.blocks:
            if side is Dim.FAN_OUT:  # a row of tiles is done before the next begins
                for old in [k for k in self.blocks if k[0] is side and k[1:3] != key[1:3]]:
                    del self.blocks[old]
            self.blocks[key] = self._make_blocks(asked, side, part)
        return self.blocks[key]

    def _make_blocks(
        self, asked: list[Node], side: Dim, part: slice
    ) -> list[dict[Node, LayerValue]]:
        state, made = State(), list[dict[Node, LayerValue]]()
        one = slice(0, 1)
        rows, columns = (part, one) if side is Dim.FAN_OUT else (one, part)
        for seen in self.steps:
            known = {
                node: whole.part(part, part)
                for node, whole in seen.whole.items()
                if node.shape.is_scalar or (node.shape.is_square and node.shape.rows is side)
            }
            found = dict(known)
            layer = self._layer(seen, rows, columns)
            LayerReader(layer, self.values, state, found.__setitem__, known).read(asked)
            made.append({node: x for node, x in found.items() if node.shape.is_square})
        return made

    def _blocked(self, nodes: tuple[Node, ...]) -> list[Node]:
        if nodes not in self.apart:
            self.apart[nodes] = blocked_nodes(nodes)
        return self.apart[nodes]

    def __getstate__(self) -> dict[str, Any]:
        """The part that a worker needs: it makes blocks of its own."""
        return {**self.__dict__, "blocks": {}}

    def _step(self, side: int) -> int:
        """The length of a tile: longer where the other side is short, as many entries in all."""
        sizes = TILE if self.steps[-1].d.device.type == "cpu" else DEVICE_TILE
        across = min(sizes[1 - side], max(self.held[1 - side], 1))
        return max(math.prod(sizes) // across // self.unit, 1) * self.unit

    def grid(self, rows: slice) -> list[tuple[slice, slice]]:
        """The tiles of some rows."""
        everywhere = slice(0, self.held[1])
        ways = pieces(rows, 1, self._step(0)), list(pieces(everywhere, 1, self._step(1)))
        return [(i, j) for i in ways[0] for j in ways[1]]

    def tasks(self) -> list[slice]:
        """Blocks of rows, for workers to share."""
        fan_out, fan_in = self.held
        return list(pieces(slice(0, fan_out), max(TASK // fan_in, fan_out // 16), self._step(0)))


def precision(sides: tuple[int, int]) -> torch.dtype:
    """The dtype of the entries of a layer."""
    return torch.float64 if sides[0] * sides[1] < EXACT_BELOW else torch.float32


# --- what is made of tiles ----------------------------------------------------------------------


@dataclass
class Tally:
    """Sizes of watched nodes over all tiles: the RMS entry, the spectral norm if square."""

    watched: frozenset[Node]
    squares: dict[Node, tuple[float, float]] = field(default_factory=dict)
    largest: dict[Node, float] = field(default_factory=dict)

    def __call__(self, node: Node, value: LayerValue) -> None:
        """Take in a tile."""
        if node not in self.watched:
            return
        if node.shape.is_square:
            size = float(value.spectral_norm())
            self.largest[node] = max(self.largest.get(node, 0.0), size)
            return
        x = entries(value)
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


def moved(
    tiles: Tiles, node: Node, x: Tensor, transposed: bool, watched: frozenset[Node], rows: slice
) -> tuple[Tensor, Tally]:
    """Of dW x some rows; of dW^T x what some rows of dW contribute. ``node`` is dW."""
    tally = Tally(watched)
    side = tiles.held[1] if transposed else rows.stop - rows.start
    x = x.to(tiles.steps[-1].d)
    total = x.new_zeros(side, x.shape[1])
    nodes = [node, *watched]  # some occur only below a sum that is known already
    for i, j in tiles.grid(rows):
        value = tiles.read(nodes, i, j, tally if watched else None)[0]
        tile = entries(value)
        if transposed:
            total[j].addmm_(tile.T, x[i])
        else:
            total[i.start - rows.start : i.stop - rows.start].addmm_(tile, x[j])
    return total, tally


def added_up(tiles: Tiles, nodes: Sequence[Call], rows: slice) -> list[Tensor]:
    """For every sum over entries, what some rows contribute, on the CPU; see `finished`."""
    place = tiles.steps[-1].d.device
    fan_out, fan_in = tiles.held
    length: dict[Side, int] = {Dim.FAN_OUT: fan_out, Dim.FAN_IN: fan_in, Dim.ONE: 1}
    totals = [
        torch.zeros(
            length[node.shape.rows], length[node.shape.cols], dtype=torch.float64, device=place
        )
        for node in nodes
    ]
    operands = [node.argument for node in nodes]
    for i, j in tiles.grid(rows):
        across: dict[Side, slice] = {Dim.FAN_OUT: i, Dim.FAN_IN: j, Dim.ONE: slice(0, 1)}
        for node, total, value in zip(nodes, totals, tiles.read(operands, i, j), strict=True):
            shape = node.argument.shape
            sides = (shape.rows, shape.cols)
            if (Dim.FAN_IN not in sides and j.start) or (Dim.FAN_OUT not in sides and i.start):
                continue  # a column or a row is met by many tiles, and counted by one
            x = entries(value).double()
            part = total[across[node.shape.rows], across[node.shape.cols]]
            over = [
                axis
                for axis, side in enumerate((node.shape.rows, node.shape.cols))
                if side is Dim.ONE
            ]
            part += (x if _sum_of(node).power == 1 else x.square()).sum(dim=over, keepdim=True)
    return [total.cpu() for total in totals]


def finished(node: Call, total: Tensor, sides: tuple[int, int], like: Tensor) -> Plain:
    """The value of a sum over entries of a layer with these sides; of some rows, their part.

    A number stays on the CPU, rows and columns go where ``like`` is.
    """
    length: dict[Side, int] = {Dim.FAN_OUT: sides[0], Dim.FAN_IN: sides[1], Dim.ONE: 1}
    shape = node.argument.shape
    count = length[shape.rows] * length[shape.cols]
    kind = _sum_of(node)
    if kind.mean:
        total = total / (count // (length[node.shape.rows] * length[node.shape.cols]))
    if kind.power == 2:
        total = total.sqrt()
    return Plain(total.reshape(()) if node.shape.is_scalar else total.to(like))


def _sum_of(node: Call) -> SumOfEntries:
    reading = FUNCTIONS[node.function].reading
    assert isinstance(reading, SumOfEntries), "no other functions add up entries"
    return reading


def number_on_tile(tiles: Tiles, node: Node) -> float:
    """The value of a number, which every tile knows."""
    (value,) = tiles.read([node], slice(0, 1), slice(0, 1))
    return float(entries(value))
