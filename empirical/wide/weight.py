"""A layer's weights: an implicit Gaussian matrix plus the updates so far, known by products.

    W_t = (1 + g) W_0 + sum_s dW_s    dW_s = L_s R_s^T,  L_s = D_s C_s and R_s = H_s in a common
                                      basis, or entry by entry (rows.py)

so W_t x = (1 + g) W_0 x + sum_s dW_s x, with W_0 x in law and the rest exact. Nothing here is of
size fan_out x fan_in. g is zero but for rules with a decay of the weights, dW = U + beta W_t, whose
steps multiply all that is there by 1 + beta.

The norm of the weights is that of W_0, |W_0|^2 = |U|^2 + ... (implicit.py), and what low-rank
updates add:

    |W_t|^2 = (1 + g)^2 |W_0|^2 + 2 (1 + g) sum_s tr(L_s^T W_0 R_s) + |sum_s L_s R_s^T|^2.

Not covered: the norm after updates by entries, whose overlap with W_0 no product tells.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from empirical.wide.columns import Columns, NeuronAxis, gram
from empirical.wide.implicit import ImplicitGaussian
from scaling.rules.language import Node
from scaling.sizes.errors import InvalidInput


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
class LowRankUpdate:
    """The matrix left right^T, with left on the axis of rows and right on that of columns."""

    left: Columns
    right: Columns
    sizes: Mapping[Node, float] = field(default_factory=dict)

    @property
    def T(self) -> LowRankUpdate:
        """Transpose."""
        return LowRankUpdate(self.right, self.left, self.sizes)

    def __matmul__(self, x: Columns) -> Columns:
        return self.left @ gram(self.right, x)

    def __rmul__(self, c: float) -> LowRankUpdate:
        return LowRankUpdate(c * self.left, self.right, self.sizes)

    def beside(self, other: LowRankUpdate) -> LowRankUpdate:
        """The sum of both."""
        return LowRankUpdate(self.left.beside(other.left), self.right.beside(other.right))


@dataclass(frozen=True, eq=False)
class Decayed:
    """The matrix update + rate * weight: a step that also lets the weights decay."""

    update: Change
    rate: float
    weight: Weight

    @property
    def sizes(self) -> Mapping[Node, float]:
        """Those of the update."""
        return self.update.sizes

    @property
    def T(self) -> Decayed:
        """Transpose."""
        return Decayed(self.update.T, self.rate, self.weight.T)

    def __matmul__(self, x: Columns) -> Columns:
        return self.update @ x + self.rate * (self.weight @ x)

    def __rmul__(self, c: float) -> Decayed:
        return Decayed(c * self.update, c * self.rate, self.weight)


@dataclass(frozen=True, eq=False)
class Weight:
    """W_0 plus updates; what W_0 was asked is remembered in it. ``grown`` is g."""

    initial: ImplicitGaussian
    updates: tuple[Change, ...] = ()
    grown: float = 0.0

    @property
    def T(self) -> Weight:
        """The transpose of the same matrix."""
        return Weight(self.initial.T, tuple(x.T for x in self.updates), self.grown)

    @property
    def rows(self) -> NeuronAxis:
        """The axis on which W x lives."""
        return self.initial.rows

    @property
    def columns(self) -> NeuronAxis:
        """The axis on which x lives."""
        return self.initial.T.rows

    def __matmul__(self, x: Columns) -> Columns:
        return self.ask(x)

    def ask(self, x: Columns, then: int = 0) -> Columns:
        """W x; see `ImplicitGaussian.ask`."""
        return (1 + self.grown) * self.initial.ask(x, then) + self._added(x)

    def moved(self, x: Columns, since: Weight) -> Columns:
        """(W_t - W_s) x, for x on the axis of columns; ``since`` is W_s, earlier or the same.

        Decays multiply all that was there: W_t - W_s = (r - 1) W_s + what was added since then,
        with r = (1 + g_t) / (1 + g_s).
        """
        new = self._added(x, len(since.updates))
        if self.grown == since.grown:
            return new
        return ((1 + self.grown) / (1 + since.grown) - 1) * (since @ x) + new

    def _added(self, x: Columns, first: int = 0) -> Columns:
        total = self.rows.none(x.count)
        for update in self.updates[first:]:
            total += update @ x
        return total

    def plus(self, change: Change) -> Weight:
        """The weights after one more change; a decay is one of these weights."""
        if not isinstance(change, Decayed):
            return Weight(self.initial, (*self.updates, change), self.grown)
        assert change.weight is self, "weights decay towards zero from where they are"
        rate = change.rate
        updates = (*((1 + rate) * x for x in self.updates), change.update)
        return Weight(self.initial, updates, self.grown + rate * (1 + self.grown))

    def norm(self) -> float:
        """The Frobenius norm.

        Raises:
            InvalidInput: after updates that are known entry by entry alone.
        """
        square = ((1 + self.grown) * self.initial.norm()) ** 2
        if not self.updates:
            return math.sqrt(square)
        low = [x for x in self.updates if isinstance(x, LowRankUpdate)]
        if len(low) < len(self.updates):
            raise InvalidInput(
                "norm(W) or rms(W) after a step that was made entry by entry",
                "the start, or updates D C H^T: of others no product tells the overlap with W",
                "take one step, or measure with --mode dense",
            )
        total = low[0]
        for x in low[1:]:
            total = total.beside(x)
        left, right = total.left, total.right
        overlap = float(gram(left, self.initial @ right).trace())
        length = float((gram(left, left) * gram(right, right)).sum())
        return math.sqrt(max(square + 2 * (1 + self.grown) * overlap + length, 0.0))
