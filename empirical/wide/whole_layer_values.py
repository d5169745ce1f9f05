"""Values that see the whole of a layer: how they are made, and what a tile has of them.

    Product    U V^T        orth(G), (B + rho*I)**(-1) @ G: a small core between bases of the data
    Cut        diagonal blocks of Q S Q^T + off (I - Q Q^T)        diag(A), block(L, size)
    Plain      a number, a row or a column                         norm(A), norm(W), row_mean(G*G)

Claim.  The numeric interpreter reads the largest such parts of a rule on coordinates, as in
span_update.py; bases of the data then turn coordinates into numbers on a side, of all its neurons
or of as many as are needed (`Form`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from torch import Tensor

from empirical.numbers.basis import Basis
from empirical.numbers.layer_values import Entries, LayerValue, Rectangular
from empirical.numbers.square_matrices import Square
from empirical.wide.columns import Columns
from empirical.wide.span_update import ALONE, MovedFactors, NetworkValues, Source
from empirical.wide.weight import Weight
from scaling.rules.dependence import block_size, has_matrix, is_cut, spans
from scaling.rules.language import Node
from scaling.rules.schedule import spectral_nodes
from scaling.rules.shapes import Dim, Shape


class Whole(Protocol):
    """A value of the layer that sees beyond a tile."""

    def part(self, rows: slice, columns: slice) -> LayerValue:
        """The part of it in a tile."""


@dataclass(frozen=True, eq=False)
class LayerProduct:
    """u v^T, (rows, k) and (columns, k)."""

    u: Tensor
    v: Tensor

    @classmethod
    def of(cls, shape: Shape, sides: Mapping[Dim, Tensor]) -> LayerProduct:
        """From factors on the sides of a layer."""
        rows, cols = shape.dims
        return cls(sides[rows], sides[cols])

    def part(self, rows: slice, columns: slice) -> LayerValue:
        """The tile."""
        return Entries(self.u[rows] @ self.v[columns].T)


@dataclass(frozen=True, eq=False)
class Plain:
    """A number, a row or a column."""

    x: Tensor

    @classmethod
    def of(cls, x: Tensor, sides: Mapping[Dim, Tensor]) -> Plain:
        """The value of a matrix, whatever the sides."""
        return cls(x)

    def part(self, rows: slice, columns: slice) -> LayerValue:
        """The part that belongs to a tile."""
        return Entries(self.x[rows, columns] if self.x.ndim else self.x)


@dataclass(frozen=True, eq=False)
class Cut:
    """The diagonal blocks of Q core Q^T + off (I - Q Q^T), for Q (side, rank)."""

    q: Tensor
    core: Tensor
    off: Tensor
    size: int

    @classmethod
    def of(
        cls, side: Dim, core: Tensor, off: Tensor, size: int, sides: Mapping[Dim, Tensor]
    ) -> Cut:
        """From a basis on one side of a layer."""
        return cls(sides[side], core, off, size)

    def part(self, rows: slice, columns: slice) -> LayerValue:
        """The blocks of a tile."""
        q = self.q[rows]
        basis = Basis(len(q), q.dtype, q.double(), orthonormal=True)
        return Square(basis, self.core.to(q.device), self.off.to(q.device)).blocks(self.size)


@dataclass(frozen=True, eq=False)
class Form:
    """How a whole value is made of columns on the sides of a layer, which may be made in parts."""

    columns: Mapping[Dim, Columns]
    make: Callable[[Mapping[Dim, Tensor]], Whole]


def forms_of(
    source: Source,
    d: Columns,
    h: Columns,
    fisher: Columns | None,
    weight: Weight,
    watched: frozenset[Node],
    sizes: dict[Node, float],
    joint: NetworkValues = ALONE,
) -> dict[Node, Form]:
    """Values that follow from Gram matrices and the weights; sizes of watched ones too."""
    nodes = spectral_nodes(source.parts.terms)
    forms = {
        node: _outer(node, look) for node, look in joint.moved_factors.items() if node in nodes
    }
    nodes = [node for node in nodes if node not in forms]
    asked = [node.argument if is_cut(node) else node for node in nodes]
    sized = [n for n in watched if spans(n) and has_matrix(n) and not n.shape.is_sided]
    asked += [n for n in sized if n not in asked]
    if asked:
        found = source.reader(asked, (d, h, fisher, weight), joint, watched, sizes).read(asked)
        forms |= {node: _form(source, node, x) for node, x in zip(nodes, found, strict=False)}
    return forms


def _outer(node: Node, look: MovedFactors) -> Form:
    """D' H'^T / n, entry by entry: in coordinates an entry that is zero would be a rounding."""
    d, h = look
    rows, cols = node.shape.dims
    return Form({rows: (1 / d.count) * d, cols: h}, partial(LayerProduct.of, node.shape))


def _form(source: Source, node: Node, value: LayerValue) -> Form:
    rows, cols = node.shape.dims
    if node.shape.is_scalar:
        return Form({}, partial(Plain.of, entries(value).reshape(())))
    if isinstance(value, Square):
        q = _columns(source, rows, value.basis)
        core = value.core[: q.count, : q.count]
        make = partial(Cut.of, rows, core, value.off, block_size(node))
        return Form({rows: q}, make)
    assert isinstance(value, Rectangular), "coordinates have no blocks, and nothing rotated"
    low = value.low_rank()
    u, v = _columns(source, rows, low.left), _columns(source, cols, low.right)
    factors = {rows: u @ low.core[: u.count, : v.count], cols: v}
    return Form(factors, partial(LayerProduct.of, node.shape))


def _columns(source: Source, side: Dim, basis: Basis) -> Columns:
    """A basis in coordinates as columns of the side itself, (side, rank)."""
    span = source.coordinates.left if side is Dim.FAN_OUT else source.coordinates.right
    return span.basis if basis.is_whole else span.basis @ basis.q[: span.basis.count]


def entries(value: LayerValue) -> Tensor:
    """The tensor of a value that has entries."""
    assert isinstance(value, Rectangular), "no other values have entries here"
    return value.dense()
