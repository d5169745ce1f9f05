"""The update of one layer by any rule in the span of the data, from Gram matrices alone.

    D = Q_D S_D,  H = Q_H S_H      Q orthonormal, S small      dW = Q_D X Q_H^T,  X = rule(S_D, S_H)

Claim.  A rule that does not look at single entries commutes with rotations of either side, so the
numeric interpreter (empirical/numbers.py) reads it on the coordinates S, which have the Gram
matrices of D and H, and is told the true lengths of the sides, on which traces, root mean squares,
fan_in and fan_out depend. The core X is dW.

Bases grow from step to step and old coordinates stay valid, so moving averages need nothing more.
Of the weights a rule may ask the norm and the root mean square, and add a multiple of them to the
update (weight.py).

Not covered: rules that look at entries (rows.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from empirical.measure import sizes_recorder
from empirical.numbers import LayerTensors, State, Update, evaluate_nodes
from empirical.values import Entries, Outer, Value
from empirical.values import LowRank as Core
from empirical.wide.columns import Columns
from empirical.wide.implicit import Span
from empirical.wide.paths import is_weight_size, parts
from empirical.wide.weight import Change, Decayed, LowRank, Weight
from scaling.language import Node
from scaling.rule import Rule


@dataclass(frozen=True, eq=False)
class Coordinates:
    """Cotangents and inputs of a layer in bases of all that came by so far.

    ``steps`` is how many steps there will be: it fixes how many coordinates are set aside.
    """

    left: Span
    right: Span
    steps: int

    def of(self, d: Columns, h: Columns, fisher: Columns | None) -> LayerTensors:
        """The layer in coordinates, told the true lengths of its sides."""
        cotangents = d if fisher is None else d.beside(fisher)
        s_d = self._along(self.left, cotangents)
        s_h = self._along(self.right, h)
        return LayerTensors(
            H=s_h,
            D=s_d[:, : d.count],
            W=torch.zeros(len(s_d), len(s_h), dtype=torch.float64),
            fisher=None if fisher is None else s_d[:, d.count :],
            sides=(self.left.axis.side, self.right.axis.side),
        )

    def _along(self, span: Span, x: Columns) -> Tensor:
        """Coordinates of x, filled up with zeros to as many rows as all steps may need."""
        s, side = span.extend(x), span.axis.side
        rows = min(side, self.steps * x.count)
        return torch.cat([s, s.new_zeros(rows - len(s), x.count)])


@dataclass(frozen=True, eq=False)
class Source:
    """A rule on one layer: its numbers, its memory, and the spans of the data so far."""

    rule: Rule
    values: Mapping[str, float]
    coordinates: Coordinates
    state: State = field(default_factory=State)


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
    ) -> Change:
        """The update, without learning rate and sign, from cotangents and inputs of a batch.

        Of nodes that are ``watched`` the sizes come with it: RMS entry, spectral norm if square.
        """
        sizes: dict[Node, float] = {}
        terms = parts(self.source.rule.expression).terms
        known = sizes_of_weights(terms, weight.norm, (d.axis.side, h.axis.side))
        source = self.source
        layer = source.coordinates.of(d, h, fisher)
        record = sizes_recorder(sizes, watched)
        found = evaluate_nodes(terms, layer, source.values, source.state, record, known)
        for node, value in known.items():
            record(node, value)
        assert isinstance(found[0], Entries | Outer | Core), "the path refuses other updates"
        update = Update(found[0])
        x, y = update.factors or (update.dense(), torch.eye(len(layer.H), dtype=torch.float64))
        left, right = source.coordinates.left.basis, source.coordinates.right.basis
        low = LowRank(left @ x[: left.count], right @ y[: right.count], sizes)
        if len(found) == 1:
            return low
        assert isinstance(found[1], Entries), "a number times the weights"
        return Decayed(low, float(found[1].x), weight)


def sizes_of_weights(
    nodes: Sequence[Node], norm: Callable[[], float], sides: tuple[int, int]
) -> dict[Node, Value]:
    """norm(W) and rms(W) of weights (fan_out, fan_in), as far as these nodes ask for them."""
    asked = {part for node in nodes for part in node.walk() if is_weight_size(part)}
    if not asked:
        return {}
    known = torch.tensor(norm(), dtype=torch.float64)
    mean = known / math.sqrt(math.prod(sides))
    return {node: Entries(known if node.function == "norm" else mean) for node in asked}
