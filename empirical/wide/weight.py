"""A layer's weights: an implicit Gaussian matrix plus the updates so far, known by products.

    W_t = W_0 + sum_s dW_s        dW_s = L_s R_s^T,  L_s = D_s C_s and R_s = H_s in a common basis,
                                  or entry by entry (rows.py)

so W_t x = W_0 x + sum_s dW_s x, with W_0 x in law and the rest exact. Nothing here is of size
fan_out x fan_in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from empirical.wide.columns import Axis, Columns, gram
from empirical.wide.implicit import ImplicitGaussian
from scaling.language import Node


class Change(Protocol):
    """A matrix known by its products: the update of one step, of low rank or by blocks of rows."""

    @property
    def sizes(self) -> Mapping[Node, float]:
        """Of the nodes of the rule that were watched; complete once the matrix was applied."""

    @property
    def T(self) -> Change:
        """Transpose."""

    def __matmul__(self, x: Columns) -> Columns: ...

    def __rmul__(self, c: float) -> Change: ...


@dataclass(frozen=True, eq=False)
class LowRank:
    """The matrix left right^T, with left on the axis of rows and right on that of columns."""

    left: Columns
    right: Columns
    sizes: Mapping[Node, float] = field(default_factory=dict)

    @property
    def T(self) -> LowRank:
        """Transpose."""
        return LowRank(self.right, self.left, self.sizes)

    def __matmul__(self, x: Columns) -> Columns:
        return self.left @ gram(self.right, x)

    def __rmul__(self, c: float) -> LowRank:
        return LowRank(c * self.left, self.right, self.sizes)


@dataclass(frozen=True, eq=False)
class Weight:
    """W_0 plus updates; what W_0 was asked is remembered in it."""

    initial: ImplicitGaussian
    updates: tuple[Change, ...] = ()

    @property
    def T(self) -> Weight:
        """The transpose of the same matrix."""
        return Weight(self.initial.T, tuple(update.T for update in self.updates))

    @property
    def rows(self) -> Axis:
        """The axis on which W x lives."""
        return self.initial.rows

    @property
    def columns(self) -> Axis:
        """The axis on which x lives."""
        return self.initial.T.rows

    def __matmul__(self, x: Columns) -> Columns:
        return self.ask(x)

    def ask(self, x: Columns, then: int = 0) -> Columns:
        """W x; see `ImplicitGaussian.ask`."""
        return self.initial.ask(x, then) + self.moved(x)

    def moved(self, x: Columns, since: int = 0) -> Columns:
        """(W_t - W_s) x, for x on the axis of columns; s = ``since`` updates."""
        total: Columns | None = None
        for update in self.updates[since:]:
            part = update @ x
            total = part if total is None else total + part
        return self.rows.none(x.count) if total is None else total

    def plus(self, update: Change) -> Weight:
        """The weights after one more update."""
        return Weight(self.initial, (*self.updates, update))
