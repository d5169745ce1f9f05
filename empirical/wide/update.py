"""The update of one layer by any rule in the span of the data, from Gram matrices alone.

    D = Q_D S_D,  H = Q_H S_H      Q orthonormal, S small      dW = Q_D X Q_H^T,  X = rule(S_D, S_H)

Claim.  A rule that does not look at single entries commutes with rotations of either side, so the
numeric interpreter (empirical/numbers.py) reads it on the coordinates S, which have the Gram
matrices of D and H, and is told the true lengths of the sides, on which traces, root mean squares,
fan_in and fan_out depend. The core X is dW.

Bases grow from step to step and old coordinates stay valid, so moving averages need nothing more.

Not covered: rules that look at entries (low_rank.py refuses them).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from empirical.numbers import LayerTensors, Record, State, evaluate
from empirical.wide.columns import Columns
from empirical.wide.implicit import Span
from empirical.wide.weight import LowRank
from scaling.rule import Rule


@dataclass(frozen=True, eq=False)
class Learner:
    """A rule at work on one layer: its numbers, its memory, and the spans of the data so far.

    ``steps`` is how many steps there will be: it fixes how many coordinates are set aside.
    """

    rule: Rule
    values: Mapping[str, float]
    left: Span
    right: Span
    steps: int
    state: State = field(default_factory=State)

    def update(
        self, d: Columns, h: Columns, fisher: Columns | None = None, record: Record | None = None
    ) -> LowRank:
        """The update, without learning rate and sign, from cotangents and inputs of a batch."""
        cotangents = d if fisher is None else d.beside(fisher)
        s_d = self._coordinates(self.left, cotangents)
        s_h = self._coordinates(self.right, h)
        layer = LayerTensors(
            H=s_h,
            D=s_d[:, : d.count],
            W=torch.zeros(len(s_d), len(s_h), dtype=torch.float64),
            fisher=None if fisher is None else s_d[:, d.count :],
            sides=(self.left.axis.side, self.right.axis.side),
        )
        update = evaluate(self.rule, layer, self.values, self.state, record)
        x, y = update.factors or (update.dense(), torch.eye(len(s_h), dtype=torch.float64))
        left, right = self.left.basis, self.right.basis
        return LowRank(left @ x[: left.count], right @ y[: right.count])

    def _coordinates(self, span: Span, x: Columns) -> Tensor:
        """Coordinates of x, filled up with zeros to as many rows as all steps may need."""
        s, side = span.extend(x), span.axis.side
        rows = min(side, self.steps * x.count)
        return torch.cat([s, s.new_zeros(rows - len(s), x.count)])
