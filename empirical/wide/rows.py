"""Updates that look at single entries, by blocks of rows: O(M^2) time, O(M) memory.

Claim.  A tile of the update (tiles.py) is used up where it is made: dW x is added up from products
of tiles with x, and nothing of size fan_out x fan_in exists. The same entries come out as with
whole matrices.

What was applied to a column is remembered, so a matrix is made once for every new column, not for
every question. A rule with a term beta*W is such a matrix beside a multiple of the weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor

from empirical.wide.columns import Atom, Columns, NeuronAxis
from empirical.wide.method import Path, block_unit
from empirical.wide.passes import added, mapped
from empirical.wide.span_update import ALONE, Learner, NetworkValues, Source
from empirical.wide.streaming import Streaming
from empirical.wide.tiles import (
    TASK,
    StepFactors,
    Tally,
    Tiles,
    added_up,
    finished,
    moved,
    number_on_tile,
    precision,
)
from empirical.wide.weight import Change, Decayed, Weight
from empirical.wide.whole_layer_values import Form, forms_of
from scaling.rules.language import Node
from scaling.rules.schedule import sum_levels
from scaling.rules.shapes import Dim

RowImages: TypeAlias = dict[tuple[Atom, int], tuple[Columns, int]]
"""(an atom, one of its columns) -> images, and which of them is the matrix times that column."""


def is_one_task(path: Path | None, width: int, streaming: Streaming) -> bool:
    """Whether a network is too small for its neurons to be shared among workers."""
    return width <= streaming.task and (path is not Path.ROWS or width**2 <= TASK)


@dataclass(eq=False)
class Rows:
    """The matrix scale * dW, applied by blocks of rows; what it was applied to is remembered."""

    tiles: Tiles
    node: Node
    axes: tuple[NeuronAxis, NeuronAxis]
    watched: frozenset[Node] = frozenset()
    sizes: dict[Node, float] = field(default_factory=dict)
    scale: float = 1.0
    transposed: bool = False
    images: tuple[RowImages, RowImages] = field(default_factory=lambda: ({}, {}))

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
            images.update((place, (y, k)) for k, place in enumerate(new))
        shares: dict[Columns, Tensor] = {}
        for atom, c in x.terms:
            for i in asked[atom]:
                y, k = images[atom, i]
                shares.setdefault(y, c.new_zeros(y.count, x.count))[k] += c[i]
        return sum((self.scale * (y @ c) for y, c in shares.items()), target.none(x.count))

    def _apply(self, x: Tensor) -> Tensor:
        task = partial(moved, self.tiles, self.node, x, self.transposed, self.watched)
        tally, parts = Tally(self.watched), []
        for part, seen in mapped(task, self.tiles.tasks(), self.axes[0].streaming.workers):
            tally.add(seen)
            parts.append(part)
        self.sizes.update(tally.sizes())
        return sum(parts[1:], parts[0]) if self.transposed else torch.cat(parts)


# --- learning -----------------------------------------------------------------------------------


@dataclass(eq=False)
class RowLearner:
    """A rule at work on one layer, entry by entry."""

    source: Source
    history: list[StepFactors] = field(default_factory=list)

    def update(
        self,
        d: Columns,
        h: Columns,
        fisher: Columns | None,
        weight: Weight,
        watched: frozenset[Node] = frozenset(),
        joint: NetworkValues = ALONE,
    ) -> Change:
        """The update, without learning rate and sign, from cotangents and inputs of a batch."""
        found = self.source.parts
        assert found.update is not None, "the path refuses a rule without an update"
        sizes = dict(joint.sizes)
        spectral = forms_of(self.source, d, h, fisher, weight, watched, sizes, joint)
        for x in (d, h):
            x.axis.take(x.axis.side * (x.count + _held(spectral, x.axis)))
        sides = d.axis.side, h.axis.side
        place = d.axis.streaming.device, precision(sides)
        evaluated = {Dim.FAN_OUT: d.axis.values, Dim.FAN_IN: h.axis.values}
        whole = {
            node: form.make(
                {side: evaluated[side](x).to(*place) for side, x in form.columns.items()}
            )
            for node, form in spectral.items()
        }
        seen = StepFactors(d.axis.values(d).to(*place), h.axis.values(h).to(*place), whole)
        self.history.append(seen)
        for level in sum_levels(found.terms):
            tiles = self.tiles(sides)
            task = partial(added_up, tiles, level)
            totals = added(mapped(task, tiles.tasks(), d.axis.streaming.workers))
            for node, total in zip(level, totals, strict=True):
                whole[node] = finished(node, total, sides, seen.d)
        tiles = self.tiles(sides)
        rows = Rows(tiles, found.update, (d.axis, h.axis), watched - sizes.keys(), sizes)
        if found.multiple is None:
            return rows
        return Decayed(rows, number_on_tile(tiles, found.multiple), weight)

    def tiles(self, sides: tuple[int, int]) -> Tiles:
        """The rule on what was seen so far."""
        terms = self.source.parts.terms
        return Tiles(
            terms, self.source.values, tuple(self.history), sides, block_unit(self.source.rule)
        )


def learner(source: Source, way: Path | None) -> Learner | RowLearner:
    """A rule at work on one layer, by Gram matrices or entry by entry."""
    return Learner(source) if way is Path.CORE else RowLearner(source)


def _held(forms: Mapping[Node, Form], axis: NeuronAxis) -> int:
    """Columns of one axis that whole values keep."""
    return sum(x.count for form in forms.values() for x in form.columns.values() if x.axis is axis)


def _used(c: Tensor) -> list[int]:
    """The columns of an atom that a combination with these coefficients looks at."""
    return [int(i) for i in c.any(dim=1).nonzero()[:, 0]]
