"""Entries of matrices with one side in an eigenbasis: columns on the axis of the other side.

    dW = Q_L X,   X = f(Q_L^T G, Q_L^T m, ...)   (k, fan_in), k directions that hold data

Claim.  Q_L^T G = (Q_L^T D) H^T / n has k rows, each a combination of the n columns of H. Entrywise
functions turn these into k new columns on the axis of fan_in, X^T, an atom like any other
(columns.py): evaluated chunk by chunk, known by its Gram matrices with the rest. So the span of
the data grows by k directions, X has coordinates in it, and all that a rule does with X afterwards,
rotating it back to begin with, goes on in coordinates. A step costs O(M n^2), as without f. The
mirror image, f(G Q_R), lives on the axis of fan_out.

    leaf    Q^T Y with Y in the span: read in coordinates       Q_L^T ema(G, beta)
    strip   entrywise functions of leaves and numbers           (Q_L^T G)^2 / (norm(A) + eps)

Moving averages within a strip belong to the number of an eigenvector (eigenvectors.py), and so are
made again from the leaves of all steps so far; where a step had fewer directions, rows are zero
there. What counts as zero in a leaf is told as in rotated_values.py, except that the smallest entry
that counts is measured by the root mean square entry in place of the largest, so that chunks agree
on it.

Not covered, and refused by method.py: per-sample squares of a strip. Functions with f(0) != 0 are
refused when they are rotated back, as on dense networks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from empirical.numbers.basis import EIGENVALUE_ZERO, Basis
from empirical.numbers.interpreter import LayerReader, LayerTensors, Maker
from empirical.numbers.layer_values import Entries, LayerValue
from empirical.numbers.rotated_values import Corner
from empirical.numbers.state import State
from empirical.wide.columns import Columns
from empirical.wide.implicit import Span
from scaling.rules.ascents import operands
from scaling.rules.language import MatMul, Node, Transpose
from scaling.rules.schedule import averages, spectral_nodes
from scaling.rules.shapes import Dim, Frame
from scaling.sizes.errors import InvalidInput

# --- what is a strip ----------------------------------------------------------------------------


def is_strip(node: Node) -> bool:
    """Whether a matrix with one side in an eigenbasis is more than a leaf, or one transposed."""
    if isinstance(node, Transpose):
        return is_strip(node.children[0])
    return node.shape.is_sided and not isinstance(node, MatMul)


def strips_of(nodes: Sequence[Node]) -> list[Node]:
    """The largest strips in parts of a rule, those in the leaves and numbers of others included."""
    found: dict[Node, None] = {}

    def visit(node: Node) -> None:
        if is_strip(node):
            found[node] = None
            below = [child for part in spectral_nodes([node]) for child in operands(part)]
        else:
            below = list(operands(node))
        for child in below:
            visit(child)

    for node in nodes:
        visit(node)
    return list(found)


def _above(node: Node, parts: Sequence[Node]) -> set[Node]:
    """A node and what is below it, but nothing of these parts."""
    if node in parts:
        return set()
    return {node}.union(*(_above(child, parts) for child in operands(node)))


def long_side(node: Node) -> Dim:
    """The side of a strip that is not in an eigenbasis."""
    shape = node.shape
    return shape.dims[0] if isinstance(shape.cols, Frame) else shape.dims[1]


# --- chunks of a strip --------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Leaf:
    """(side, k) by columns; ``lean`` and ``least``: how far an entry may be from zero and be it."""

    columns: Columns
    lean: Tensor
    least: float

    @classmethod
    def of(cls, corner: Corner, span: Span) -> Leaf:
        """From a corner whose rows are in the eigenbasis, in coordinates of the span."""
        assert corner.right is not None, "one side is in an eigenbasis"
        x = corner.right.expand(corner.core.T)[: span.basis.count]
        k = x.shape[1]
        lean = x.new_zeros(k, k) if corner.lean_left is None else corner.lean_left
        least = EIGENVALUE_ZERO * float(corner.core.norm()) / math.sqrt(max(1, k * span.axis.side))
        return cls(span.basis @ x, lean, least)

    def filled(self, k: int) -> Leaf:
        """With as many columns, zeros beyond the last."""
        more = k - self.columns.count
        lean = torch.nn.functional.pad(self.lean, (0, more, 0, more))
        return Leaf(self.columns.beside(self.columns.axis.none(more)), lean, self.least)


@dataclass(frozen=True, eq=False)
class Moment:
    """One step's view of a strip: its leaves, and the numbers in it."""

    leaves: Mapping[Node, Leaf]
    numbers: Mapping[Node, LayerValue]


@dataclass(frozen=True, eq=False)
class _Step:
    """A moment without its columns, for workers to read."""

    zeros: Mapping[Node, tuple[Tensor, float]]
    numbers: Mapping[Node, LayerValue]


def _on_chunk(
    node: Node,
    values: Mapping[str, float],
    sides: tuple[int, int],
    steps: Sequence[_Step],
    *leaves: Tensor,
) -> Tensor:
    """A strip on some neurons, (rows, k), from the leaves of all steps one after the other."""
    state, given, kept = State(), iter(leaves), averages([node])
    one = leaves[0].new_zeros(1, 1)
    layer = LayerTensors(H=one, D=one, W=one, sides=sides)
    for step in steps:
        known = dict(step.numbers)
        for leaf, (lean, least) in step.zeros.items():
            x = next(given)
            size = x.abs()
            x = torch.where(size <= least + size @ lean.T.to(x), 0, x)
            known[leaf] = Entries(x if isinstance(leaf.shape.cols, Frame) else x.T)
        asked = [node] if step is steps[-1] else kept
        found = LayerReader(layer, values, state, known=known).read(asked)
    (value,) = found
    assert isinstance(value, Entries), "entrywise functions of entries are entries"
    x = value.x if isinstance(node.shape.cols, Frame) else value.x.T
    return x.to(leaves[0].dtype)


def _written(made: Callable[..., Tensor], *leaves: Tensor, out: Tensor) -> None:
    """A function of columns, in memory that is there already."""
    out.copy_(made(*leaves))


# --- making them --------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Strips:
    """Makes strips of one layer: columns on an axis, then coordinates in a span that takes them in.

    ``spans`` and ``rows``, how many coordinates are set aside, by side; ``history`` is what earlier
    steps saw. Sizes of nodes that are ``watched`` go to ``sizes``.
    """

    values: Mapping[str, float]
    spans: Mapping[Dim, Span]
    rows: Mapping[Dim, int]
    history: dict[Node, list[Moment]]
    watched: frozenset[Node] = frozenset()
    sizes: dict[Node, float] = field(default_factory=dict)

    def makers(self, nodes: Sequence[Node]) -> dict[Node, Maker]:
        """How to make every strip in these parts of a rule."""
        return {node: partial(self._make, node) for node in strips_of(nodes)}

    def _make(self, node: Node, read: Callable[[Node], LayerValue]) -> Corner:
        side = long_side(node)
        span, axis = self.spans[side], self.spans[side].axis
        moments = self._moments(node, read, span)
        counts = [x.columns.count for moment in moments for x in moment.leaves.values()]
        k = max(1, *counts)
        steps = [
            _Step({n: (x.filled(k).lean, x.least) for n, x in m.leaves.items()}, m.numbers)
            for m in moments
        ]
        leaves = [x.filled(k).columns for m in moments for x in m.leaves.values()]
        sides = self.spans[Dim.FAN_OUT].axis.side, self.spans[Dim.FAN_IN].axis.side

        def columns_of(part: Node) -> Columns:
            made = partial(_on_chunk, part, self.values, sides, steps)
            return axis.entrywise(partial(_written, made), *leaves)

        for part in self.watched.intersection(_above(node, spectral_nodes([node]))) - {node}:
            if part.shape.is_scalar:
                read(part)
            else:
                self.sizes[part] = columns_of(part).rms()
        core = span.extend(columns_of(node)).T
        rows = self.rows[side]
        if core.shape[1] > rows:
            raise InvalidInput(
                f"'{node}', which takes the span of the data beyond {rows} directions",
                "eigenvectors of what the batch alone spans, as eig(L)",
                "measure it with --mode dense",
            )
        nothing = [torch.zeros(1, k, dtype=torch.float64) for _ in leaves]
        off = _on_chunk(node, self.values, sides, steps, *nothing)[0, 0]
        known = torch.eye(rows, core.shape[1], dtype=torch.float64)
        basis = Basis(axis.side, torch.float64, known, orthonormal=True)
        turned = self.spans[Dim.FAN_OUT if side is Dim.FAN_IN else Dim.FAN_IN].axis.side
        corner = Corner(core, off, (turned, axis.side), None, basis)
        return corner.T if isinstance(node.shape.cols, Frame) else corner

    def _moments(self, node: Node, read: Callable[[Node], LayerValue], span: Span) -> list[Moment]:
        """Those of all steps if the strip has averages, of the present one otherwise."""
        leaves, numbers = dict[Node, Leaf](), dict[Node, LayerValue]()
        for part in spectral_nodes([node]):
            value = read(part)
            if isinstance(value, Corner):
                upright = isinstance(part.shape.rows, Frame)
                leaves[part] = Leaf.of(value if upright else value.T, span)
            else:
                numbers[part] = value
        past = self.history.setdefault(node, [])
        if not averages([node]):
            past.clear()
        past.append(Moment(leaves, numbers))
        return list(past)
