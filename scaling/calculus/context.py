"""Where a rule is read: one layer's sizes, the hyper-parameters' exponents, what is known of them.

What a reading decides on the way, the regime of every sum, stands in the step that it decides
(`Step.decision`); `regimes` collects it from a derivation.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from sympy import Expr, Rational, S, Symbol

from scaling.calculus.instead import Rewrite, candidates
from scaling.calculus.values import Value
from scaling.models.alignment import Alignment
from scaling.models.batch import ONE, Batch, DataSpan
from scaling.models.chain import Activation
from scaling.models.layer_sizes import LayerSizes
from scaling.rules.like_terms import in_full
from scaling.rules.operators import Extreme, OfEntries
from scaling.rules.shapes import Dim
from scaling.rules.tree import Negate, Node, row_of
from scaling.sizes.derivation import Step
from scaling.sizes.errors import NotCovered
from scaling.sizes.scale import Bounds, Order, Scale, Size


@dataclass(frozen=True)
class Regime:
    """A sum, and which of its terms sets the size: the other one is an alternative regime.

    While the scale of one term is to be solved for, the order is that of a balance, and the sizes
    are the two sides of its equation (scaling/solve/equations.py).
    """

    layer: str
    node: Node
    left: Node
    right: Node
    left_size: Scale
    right_size: Scale
    order: Order

    def in_full(self, term: Node) -> Node:
        """One of the two terms, with the number that stands in front of it in the rule."""
        full = in_full(self.node, term)
        if full is None:
            return term
        return Negate(full) if isinstance(term, Negate) else full

    def __str__(self) -> str:
        left, right = self.in_full(self.left), self.in_full(self.right)
        sizes = f"{left} ~ {self.left_size}, {right} ~ {self.right_size}"
        return f"{sizes}: {self._verdict}"

    @property
    def _verdict(self) -> str:
        """The term, or the branch of a function, that sets the size."""
        if self.order in (Order.EQUAL, Order.OPEN):
            return "balanced" if self.order is Order.EQUAL else "open: depends on the symbols"
        below, row = self.order is Order.LESS, row_of(self.node)
        terms = self.in_full(self.left), self.in_full(self.right)
        smaller, larger = terms if below else terms[::-1]
        match row.reading if row else None:
            case Extreme(larger=True):
                return f"the larger is {larger}"
            case Extreme(larger=False):
                return f"the smaller is {smaller}"
            case OfEntries(straight=True):
                return "the bound is inactive" if below else "the bound is active"
            case OfEntries(at_zero=p, at_infinity=q):
                power = p if below else q
                acts = {"0": "saturated", "1": "linear"}.get(str(power), f"like the power {power}")
                return f"{row.name if row else ''} is {acts} there"
        return f"{larger} dominates"


def unknown_first(x: Scale, y: Scale, unknown: Collection[Symbol]) -> tuple[Scale, Scale] | None:
    """Of two terms the one of unknown scale and the one that it is to equal; None if neither is.

    What holds the same unknown on both sides, or meets an exact zero, is no equation.
    """
    for one, other in ((x, y), (y, x)):
        free = one.width.free_symbols.intersection(unknown)
        if free and not other.width.free_symbols & free and not other.is_zero:
            return one, other
    return None


def regimes(step: Step) -> tuple[Regime, ...]:
    """The decisions of a derivation, each once: at its own step of training, no earlier."""
    decided = (x.decision for x in step.walk() if x.time == step.time)
    return tuple(dict.fromkeys(x for x in decided if isinstance(x, Regime)))


@dataclass(frozen=True)
class Before:
    """The first step of a layer, as a second one looks back on it.

    ``context``: the layer at the first step. ``change``: its first update, learning rate included;
    None if that is exactly zero. ``moved``: names of the matrices that the first step changed by
    as much as their own size, so that what differs between the steps is as large as what it
    differs from.
    """

    context: Context
    change: Value | None
    moved: frozenset[str]


@dataclass(frozen=True, eq=False)
class Context:
    """One layer, as a rule sees it.

    Args:
        sizes: what the state of the network holds of the layer.
        scaled: exponent d of each damping, decay and radius, rho' M^(-d); may be an unknown symbol.
        exponents: value of each exponent symbol of the rule; missing ones stay symbolic.
        bounds: what is known of the symbols.
        unknown: symbols to be solved for by balance.
        sampled_fisher: B is made of sampled cotangents, whose span need not contain D.
        activation: decides whether h has a mean.
        alignment: how updates meet their inputs in this layer, if that is not derived.
        before: the first step, if this is the second.
        network: the contexts of all layers by name, for sums over layers.
        ascended: the layer's sizes at W + X, by X.
        data: the directions of the fan_out and of the fan_in side (models/batch.py).
        batch_grows: whether the number of samples grows in proportion to the width; see rank.py.
        samples: the number of samples n, where it grows alone; one otherwise.
        mean: the mean over samples of their gradients, in units of one sample's (models/batch.py).
        averages: names of the decays of moving averages, which lie between 0 and 1.
        singular: the size of the singular value that sigma stands for; see singular_values.py.
        rounding_noise: whether zeros in eigenbases are read as floating point has them.
        counts_few: whether the few entries beyond a bound of a smaller order count (extremes.py).
    """

    sizes: LayerSizes
    scaled: Mapping[str, Expr]
    exponents: Mapping[str, Expr] = field(default_factory=dict)
    bounds: Bounds = field(default_factory=Bounds)
    unknown: frozenset[Symbol] = frozenset()
    sampled_fisher: bool = False
    activation: Activation = Activation.RELU
    alignment: Alignment | None = None
    before: Before | None = None
    network: Mapping[str, Context] = field(default_factory=dict)
    ascended: Mapping[Node, LayerSizes] = field(default_factory=dict)
    data: tuple[DataSpan, DataSpan] | None = None
    averages: frozenset[str] = frozenset()
    batch_grows: bool = False
    samples: Scale = ONE
    mean: Scale = ONE
    singular: Scale | None = None
    rounding_noise: bool = False
    counts_few: bool = True
    readings: dict[Node, tuple[Value, Step]] = field(default_factory=dict, init=False)
    """Values read here: a rule may say the same again, and sums over layers ask all others."""

    @property
    def samples_grow(self) -> bool:
        """Whether the number of samples grows alone, and not with the width."""
        return self.samples != ONE

    @property
    def step(self) -> int:
        """1 at initialisation, 2 after one step."""
        return 1 if self.before is None else 2

    def exponent(self, name: str) -> Expr:
        """The value of an exponent symbol of the rule."""
        return self.exponents.get(name, Symbol(name))

    def fan(self, side: Dim) -> Scale:
        """The length of a side."""
        layer = self.sizes.layer
        return Scale.of_width(
            {Dim.FAN_IN: layer.fan_in, Dim.FAN_OUT: layer.fan_out}.get(side, S.Zero), Size.SCALAR
        )

    @property
    def spans(self) -> tuple[DataSpan, DataSpan]:
        """The directions of the fan_out and of the fan_in side."""
        if self.data is not None:
            return self.data
        layer, n = self.sizes.layer, Batch().samples
        return DataSpan(n, off=layer.fan_out != 0), DataSpan(n, off=layer.fan_in != 0)

    @property
    def spread(self) -> Scale:
        """sqrt(fan_in fan_out): from an entry to the norm of a matrix made of O(1) directions."""
        return (self.fan(Dim.FAN_IN) * self.fan(Dim.FAN_OUT)).root()

    def plus(self, x: Scale, y: Scale) -> Scale:
        """The sum of two sizes, decided by the bounds."""
        return x.plus(y, self.bounds)

    def decide(self, node: Node, left: Node, right: Node, x: Scale, y: Scale) -> Regime:
        """Compare the two terms of a node; a term of unknown scale is balanced with the other.

        The regime is the decision of the step that follows from it.
        """
        balanced = unknown_first(x, y, self.unknown) is not None
        order = Order.EQUAL if balanced else self.bounds.order(x.width, y.width)
        return Regime(self.sizes.layer.name, node, left, right, x, y, order)

    def exceeds(self, x: Expr, y: Rational) -> bool:
        """Whether x > y for all admissible values of the symbols."""
        return self.bounds.order(x, y) is Order.GREATER

    def not_covered(self, node: Node, found: str, needed: str, instead: Rewrite) -> NotCovered:
        """The refusal that names the node and the layer, with what could stand in its place."""
        others = candidates(node, instead)
        return NotCovered(
            f"{found}, in '{node}' of the {self.sizes.layer.name} layer",
            needed,
            f"write for example '{others[0]}' there" if others else "leave it out",
            node,
            others,
        )
