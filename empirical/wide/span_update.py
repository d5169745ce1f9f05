"""The update of one layer by any rule in the span of the data, from Gram matrices alone.

    D = Q_D S_D,  H = Q_H S_H      Q orthonormal, S small      dW = Q_D X Q_H^T,  X = rule(S_D, S_H)

Claim.  A rule that does not look at single entries commutes with rotations of either side, so the
numeric interpreter (empirical/numbers/interpreter.py) reads it on the coordinates S, which have the
Gram matrices of D and H, and is told the true lengths of the sides, on which traces, root mean
squares, fan_in and fan_out depend. The core X is dW.

Bases grow from step to step and old coordinates stay valid, so moving averages need nothing more.
Of the weights a rule may ask the norm and the root mean square, and add a multiple of them to the
update (weight.py). Entries with one side in an eigenbasis are more columns, which the span takes in
(strips.py). Sums over layers are evaluated first, on all layers, and told to each of them;
so are gradients at moved weights, D' H'^T, which the span takes in (look_ahead.py).

Not covered: other rules that look at entries (rows.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor

from empirical.measure.measurement import sizes_recorder
from empirical.numbers.interpreter import (
    FactoredUpdate,
    LayerReader,
    LayerTensors,
    State,
    evaluate_sums,
)
from empirical.numbers.layer_matrices import LayerValues
from empirical.numbers.layer_values import Entries, LayerValue, Outer
from empirical.numbers.layer_values import LowRank as Core
from empirical.wide.columns import Columns
from empirical.wide.implicit import Span
from empirical.wide.strips import Moment, Strips, long_side, strips_of
from empirical.wide.weight import Change, Decayed, LowRankUpdate, Weight
from scaling.rules.ascents import here
from scaling.rules.dependence import takes_mean
from scaling.rules.language import Node
from scaling.rules.rule import Rule
from scaling.rules.shapes import Dim
from scaling.rules.weight_term import Parts, is_weight_size, parts
from scaling.sizes.errors import InvalidInput

Batch: TypeAlias = tuple[Columns, Columns, Columns | None, Weight]
"""D, H, the cotangents of sampled targets if any, and W."""
MovedFactors: TypeAlias = tuple[Columns, Columns]
"""D' and H' at moved weights."""
LayerBatch: TypeAlias = tuple[Columns, Columns, Columns | None, Weight, frozenset[Node]]
"""The arguments of `Learner.update`: D, H, sampled D, the weight, and the nodes to watch."""


@dataclass(frozen=True, eq=False)
class Coordinates:
    """Cotangents and inputs of a layer in bases of all that came by so far.

    ``steps`` is how many steps there will be: it fixes how many coordinates are set aside.
    """

    left: Span
    right: Span
    steps: int

    def of(
        self,
        d: Columns,
        h: Columns,
        fisher: Columns | None,
        strips: Sequence[Dim] = (),
        looks: Sequence[MovedFactors] = (),
    ) -> list[LayerTensors]:
        """The layer in coordinates, told the true lengths of its sides; then at every other look.

        ``strips``: sides along which columns will be made in every step; see strips.py.
        """
        cotangents = d if fisher is None else d.beside(fisher)
        moved = sum(x.count for x, _ in looks)
        counts = cotangents.count + moved, h.count + moved
        most = self.steps * max(counts)  # directions of one strip
        above = min(most, self.right.axis.side) * strips.count(Dim.FAN_OUT)
        below = min(most, self.left.axis.side) * strips.count(Dim.FAN_IN)
        left = partial(self._along, self.left, counts[0] + above)
        right = partial(self._along, self.right, counts[1] + below)
        s_d, s_h = left(cotangents), right(h)
        fishers = None if fisher is None else s_d[:, d.count :]
        layer = self._layer(s_d[:, : d.count], s_h, fishers)
        return [layer, *(self._layer(left(x), right(y)) for x, y in looks)]

    def _layer(self, d: Tensor, h: Tensor, fisher: Tensor | None = None) -> LayerTensors:
        w = torch.zeros(len(d), len(h), dtype=torch.float64)
        return LayerTensors(h, d, w, fisher, (self.left.axis.side, self.right.axis.side))

    def _along(self, span: Span, count: int, x: Columns) -> Tensor:
        """Coordinates of x, filled up with zeros to as many rows as all steps may need."""
        s, side = span.extend(x), span.axis.side
        rows = min(side, self.steps * count)
        return torch.cat([s, s.new_zeros(rows - len(s), x.count)])


@dataclass(frozen=True, eq=False)
class RuleMemory:
    """The memory of a rule in one layer: averages, and the leaves of strips."""

    state: State = field(default_factory=State)
    strips: dict[Node, list[Moment]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class NetworkValues:
    """Numbers of all layers for one of them: sums over them, and its own view where they had moved.

    ``moved_factors``, D and H there, are by ascended(X); ``sizes`` of watched nodes were seen
    on the way.
    """

    sums: Mapping[Node, LayerValue] = field(default_factory=dict)
    sizes: Mapping[Node, float] = field(default_factory=dict)
    moved_factors: Mapping[Node, MovedFactors] = field(default_factory=dict)


ALONE = NetworkValues()


@dataclass(frozen=True, eq=False)
class Source:
    """A rule on one layer: its numbers, its memory, and the spans of the data so far.

    ``summed`` remembers what stands in sums over layers, which are read apart.
    """

    rule: Rule
    values: Mapping[str, float]
    coordinates: Coordinates
    memory: RuleMemory = field(default_factory=RuleMemory)
    summed: RuleMemory = field(default_factory=RuleMemory)

    @property
    def parts(self) -> Parts:
        """The rule taken apart.

        Raises:
            InvalidInput: for an average of weights, if there is more than a first step.
        """
        found = parts(self.rule.expression)
        if found.first is not None and self.coordinates.steps > 1:
            raise InvalidInput(
                f"'{found.first}', an average of weights, in {self.coordinates.steps} steps",
                "a single step: later ones average weights of several steps",
                "take one step, or measure with --mode dense",
            )
        return found

    def reader(
        self,
        nodes: Sequence[Node],
        batch: Batch,
        joint: NetworkValues,
        watched: frozenset[Node],
        sizes: dict[Node, float],
        memory: RuleMemory | None = None,
    ) -> LayerReader:
        """The layer in coordinates, for these parts of the rule to be read on.

        Of nodes that are ``watched`` and met there, sizes are noted in ``sizes``.
        """
        d, h, fisher, weight = batch
        spans = {Dim.FAN_OUT: self.coordinates.left, Dim.FAN_IN: self.coordinates.right}
        along = [long_side(node) for node in strips_of(self.parts.terms)]
        layer, *moved = self.coordinates.of(d, h, fisher, along, list(joint.moved_factors.values()))
        rows = {Dim.FAN_OUT: len(layer.D), Dim.FAN_IN: len(layer.H)}
        known = {**sizes_of_weights(nodes, weight.norm, (d.axis.side, h.axis.side)), **joint.sums}
        for node, seen in zip(joint.moved_factors, moved, strict=True):
            known[node] = LayerValues(seen, dense=False).gradient
        record = sizes_recorder(sizes, watched)
        for node, value in known.items():
            record(node, value)
        memory = memory or self.memory
        strips = Strips(self.values, spans, rows, memory.strips, watched, sizes)
        made = strips.makers(nodes)
        return LayerReader(layer, self.values, memory.state, record, known, made)


@dataclass(frozen=True, eq=False)
class Learner:
    """A rule at work on one layer."""

    source: Source

    def update(
        self,
        d: Columns,
        h: Columns,
        fisher: Columns | None,
        weight: Weight,
        watched: frozenset[Node] = frozenset(),
        joint: NetworkValues = ALONE,
    ) -> Change:
        """The update, without learning rate and sign, from cotangents and inputs of a batch.

        Of nodes that are ``watched`` the sizes come with it: RMS entry, spectral norm if square.
        """
        sizes = dict(joint.sizes)
        source, terms = self.source, self.source.parts.terms
        reader = source.reader(terms, (d, h, fisher, weight), joint, watched, sizes)
        found = reader.read(terms)
        assert isinstance(found[0], Entries | Outer | Core), "the path refuses other updates"
        update, rows = FactoredUpdate(found[0]), len(reader.layer.H)
        x, y = update.factors or (update.dense(), torch.eye(rows, dtype=torch.float64))
        left, right = source.coordinates.left.basis, source.coordinates.right.basis
        low = LowRankUpdate(left @ x[: left.count], right @ y[: right.count], sizes)
        if len(found) == 1:
            return low
        assert isinstance(found[1], Entries), "a number times the weights"
        return Decayed(low, float(found[1].x), weight)


def sums_over_layers(
    sources: Mapping[str, Source],
    seen: Mapping[str, LayerBatch],
    told: Mapping[str, NetworkValues] | None = None,
) -> dict[str, NetworkValues]:
    """Numbers of all layers for every layer, from what learners will see: see `Learner.update`.

    ``told``: what it was told before.

    Raises:
        InvalidInput: as the numeric interpreter does, naming the layer.
    """
    told = told or dict.fromkeys(sources, ALONE)
    (rule,) = {source.rule for source in sources.values()}
    read = set(here(rule.expression))
    sums = [node for node in rule.sums_over_layers if node in read]
    if not sums:
        return dict(told)
    terms, readers = [node.argument for node in sums], dict[str, LayerReader]()
    sizes = {name: dict(told[name].sizes) for name in sources}
    for name, source in sources.items():
        d, h, fisher, weight, watched = seen[name]
        batch = d, h, fisher, weight
        readers[name] = source.reader(terms, batch, told[name], watched, sizes[name], source.summed)
    found = evaluate_sums(sums, readers)
    return {name: replace(told[name], sums=found, sizes=sizes[name]) for name in sources}


def sizes_of_weights(
    nodes: Sequence[Node], norm: Callable[[], float], sides: tuple[int, int]
) -> dict[Node, LayerValue]:
    """norm(W) and rms(W) of weights (fan_out, fan_in), as far as these nodes ask for them."""
    asked = {part for node in nodes for part in here(node) if is_weight_size(part)}
    if not asked:
        return {}
    known = torch.tensor(norm(), dtype=torch.float64)
    count = math.sqrt(math.prod(sides))
    return {node: Entries(known / count if takes_mean(node) else known) for node in asked}
