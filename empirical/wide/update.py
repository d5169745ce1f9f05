"""The update of one layer by any rule in the span of the data, from Gram matrices alone.

    D = Q_D S_D,  H = Q_H S_H      Q orthonormal, S small      dW = Q_D X Q_H^T,  X = rule(S_D, S_H)

Claim.  A rule that does not look at single entries commutes with rotations of either side, so the
numeric interpreter (empirical/numbers.py) reads it on the coordinates S, which have the Gram
matrices of D and H, and is told the true lengths of the sides, on which traces, root mean squares,
fan_in and fan_out depend. The core X is dW.

Bases grow from step to step and old coordinates stay valid, so moving averages need nothing more.

Not covered: rules that look at entries (rows.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from empirical.measure import sizes_recorder
from empirical.numbers import LayerTensors, State, evaluate
from empirical.wide.columns import Columns
from empirical.wide.implicit import Span
from empirical.wide.weight import LowRank
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
class Learner:
    """A rule at work on one layer: its numbers, its memory, and the spans of the data so far."""

    rule: Rule
    values: Mapping[str, float]
    coordinates: Coordinates
    state: State = field(default_factory=State)

    def update(
        self,
        d: Columns,
        h: Columns,
        fisher: Columns | None = None,
        watched: frozenset[Node] = frozenset(),
    ) -> LowRank:
        """The update, without learning rate and sign, from cotangents and inputs of a batch.

        Of nodes that are ``watched`` the sizes come with it: RMS entry, spectral norm if square.
        """
        sizes: dict[Node, float] = {}
        layer = self.coordinates.of(d, h, fisher)
        update = evaluate(self.rule, layer, self.values, self.state, sizes_recorder(sizes, watched))
        x, y = update.factors or (update.dense(), torch.eye(len(layer.H), dtype=torch.float64))
        left, right = self.coordinates.left.basis, self.coordinates.right.basis
        return LowRank(left @ x[: left.count], right @ y[: right.count], sizes)
