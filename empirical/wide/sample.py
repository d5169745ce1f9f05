"""Own updates of rules that look at single entries, from a sample of rows: O(M) time and memory.

    own^2 = mean over rows i and probe samples of (dW h)_i^2

Claim.  Neurons are exchangeable: numbering them otherwise changes no law. So the first rows of a
layer are a sample of its rows as good as any, and a mean over `method.SAMPLED_ROWS` of them has the
mean of all, with noise that does not grow with the width; a layer with no more rows is taken whole.
The other side is summed over whole: it streams by in chunks, a tile (tiles.py) at a time, and
nothing of it is held. That costs rows * M * n in place of M^2 n.

Sums over all rows of what has one sign (col_mean(G*G), rms(sign(G)); estimable_sums.py) are those
of the sample, for as many rows as there are: means of what is exchangeable again, off by
rows^(-1/2) in a layer with more rows, at every width alike. All else is exact in law.

The rows are also the same at every width: a network of a sample draws neuron i from a stream that
its width does not name, so what the choice of rows adds to a size, it adds at all widths alike, and
a slope over widths is as good as one of whole layers. (Every width has its own law; only draws at
different widths are dependent, which whoever judges by whole seeds, as exponent.py does, may
ignore.)

Not covered: sums over all rows of what has either sign, which take a whole sweep and are rows.py's;
feature changes, which need every row; the second step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from empirical.wide.columns import Columns, NeuronAxis
from empirical.wide.method import SAMPLED_ROWS, block_unit
from empirical.wide.noise import ROWS
from empirical.wide.passes import Chunk, added, chunks
from empirical.wide.span_update import ALONE, NetworkValues, Source
from empirical.wide.tiles import (
    StepFactors,
    Tally,
    Tiles,
    added_up,
    finished,
    moved,
    number_on_tile,
    precision,
)
from empirical.wide.weight import Weight
from empirical.wide.whole_layer_values import Form, Plain, Whole, forms_of
from scaling.rules.language import Call, Node
from scaling.rules.schedule import sum_levels
from scaling.rules.shapes import Dim


def head(x: Columns, count: int) -> Tensor:
    """The values of the first neurons, (count, x.count) or fewer."""
    assert count <= ROWS, "a block of noise is drawn whole"
    return _first_chunk(x.axis).columns(x)[:count].clone()


@dataclass(frozen=True, eq=False)
class Strip:
    """Some rows of a layer, by chunks of its columns.

    ``d`` (rows, n); ``forms`` with their part on the rows in ``left``; ``sums`` known so far, and
    those that are a number a column in ``across``, which every chunk makes of its own columns.
    """

    terms: tuple[Node, ...]
    values: Mapping[str, float]
    sides: tuple[int, int]
    unit: int
    d: Tensor
    h: Columns
    forms: Mapping[Node, Form]
    left: Mapping[Node, Mapping[Dim, Tensor]]
    sums: Mapping[Node, Plain]
    across: Sequence[Sequence[Call]] = ()

    def tiles(self, chunk: Chunk) -> Tiles:
        """The tiles of a chunk of columns."""
        whole: dict[Node, Whole] = {**self.sums}
        for node, form in self.forms.items():
            sides = dict(self.left[node])
            if Dim.FAN_IN in form.columns:
                sides[Dim.FAN_IN] = chunk.columns(form.columns[Dim.FAN_IN]).to(self.d)
            whole[node] = form.make(sides)
        seen = StepFactors(self.d, chunk.columns(self.h).to(self.d), whole)
        tiles = Tiles(self.terms, self.values, (seen,), self.sides, self.unit)
        for level in self.across:
            for node, total in zip(level, added_up(tiles, level, self.rows), strict=True):
                whole[node] = self.finished(node, total)
        return tiles

    @property
    def rows(self) -> slice:
        """All rows that there are."""
        return slice(0, len(self.d))

    def finished(self, node: Call, total: Tensor) -> Plain:
        """The value of a sum, for as many rows as the layer has."""
        over_rows = Dim.FAN_OUT in node.argument.shape.dims and Dim.FAN_OUT not in node.shape.dims
        unseen = self.sides[0] / len(self.d) if over_rows else 1.0
        return finished(node, total * unseen, self.sides, self.d)

    @property
    def reads(self) -> list[Columns]:
        """The part of a chunk that it looks at."""
        return [self.h, *(x for f in self.forms.values() for x in f.columns.values())]

    @property
    def axis(self) -> NeuronAxis:
        """The axis of columns."""
        return self.h.axis


def _moved(
    strip: Strip, node: Node, x: Columns, watched: frozenset[Node], columns: slice
) -> tuple[Tensor, Tally]:
    """The contribution of some columns of dW to dW x, on the rows of a strip."""
    tally = Tally(watched)
    total = strip.d.new_zeros(len(strip.d), x.count, dtype=torch.float64)
    for chunk in chunks(strip.axis, columns):
        part, seen = moved(strip.tiles(chunk), node, chunk.columns(x), False, watched, strip.rows)
        total += part
        tally.add(seen)
    return total.cpu(), tally


def _sums(strip: Strip, nodes: Sequence[Call], columns: slice) -> list[Tensor]:
    """The contribution of some columns to sums along rows and to numbers of the layer."""

    def of(chunk: Chunk) -> list[Tensor]:
        totals = added_up(strip.tiles(chunk), nodes, strip.rows)
        again = chunk.rows.start > 0  # what is no matter of columns is met in every chunk
        return [
            torch.zeros_like(total)
            if again and Dim.FAN_IN not in node.argument.shape.dims
            else total
            for node, total in zip(nodes, totals, strict=True)
        ]

    return added(map(of, chunks(strip.axis, columns)))


@dataclass(frozen=True, eq=False)
class Sample:
    """Some rows of the matrix scale * update + rate * weight."""

    strip: Strip
    update: Node
    rate: float
    weight: Weight
    watched: frozenset[Node]
    sizes: dict[Node, float] = field(default_factory=dict)
    scale: float = 1.0

    def __rmul__(self, c: float) -> Sample:
        return replace(self, scale=c * self.scale, rate=c * self.rate)

    def size(self, x: Columns) -> float:
        """The root mean square entry of this matrix times x, over its rows."""
        total, tally = torch.zeros(len(self.strip.d), x.count).double(), Tally(self.watched)
        task = partial(_moved, self.strip, self.update, x, self.watched)
        for part, seen in self.strip.axis.streamed(task, [*self.strip.reads, x]):
            total += part
            tally.add(seen)
        self.sizes.update(tally.sizes())
        total *= self.scale
        if self.rate:
            total += self.rate * head(self.weight @ x, len(total)).cpu().double()
        return float(total.square().mean().sqrt())


def sampled(
    source: Source,
    d: Columns,
    h: Columns,
    fisher: Columns | None,
    weight: Weight,
    watched: frozenset[Node] = frozenset(),
    joint: NetworkValues = ALONE,
    count: int | None = None,
) -> Sample:
    """``count`` rows of the first update of a rule, without learning rate and sign.

    By default `method.SAMPLED_ROWS` of them.
    """
    found, sizes = source.parts, dict(joint.sizes)
    count = count or SAMPLED_ROWS
    assert found.update is not None, "the path refuses a rule without an update"
    spectral = forms_of(source, d, h, fisher, weight, watched, sizes, joint)
    sides = d.axis.side, h.axis.side
    place = d.axis.streaming.device, precision(sides)
    left: dict[Node, dict[Dim, Tensor]] = {
        node: {k: head(x, count).to(*place) for k, x in form.columns.items() if k is Dim.FAN_OUT}
        for node, form in spectral.items()
    }
    rows = head(d, count).to(*place)
    unit, sums = block_unit(source.rule), dict[Node, Plain]()
    strip = Strip(found.terms, source.values, sides, unit, rows, h, spectral, left, sums)
    for level in sum_levels(found.terms):
        here = [node for node in level if Dim.FAN_IN not in node.shape.dims]
        if here:
            totals = added(strip.axis.streamed(partial(_sums, strip, here), strip.reads))
            sums.update((n, strip.finished(n, x)) for n, x in zip(here, totals, strict=True))
        there = [node for node in level if node not in here]
        strip = replace(strip, across=[*strip.across, there] if there else strip.across)
    rate = 0.0
    if found.multiple is not None:
        rate = number_on_tile(strip.tiles(_first_chunk(h.axis)), found.multiple)
    return Sample(strip, found.update, rate, weight, watched - sizes.keys(), sizes)


def _first_chunk(axis: NeuronAxis) -> Chunk:
    return next(chunks(axis, slice(0, min(axis.side, ROWS))))
