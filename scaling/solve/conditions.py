"""Conditions on a network as it grows: named objects, each with its equation.

    stable start           M^-(a+b) fan_in^(1/2) = 1        b of what feeds another layer
    maximal readback       M^-(a+b) fan_in = 1              b of the readout
    maximal perturbation   X_l h_(l-1) = 1, as a stable step d of a radius
    balanced damping       damping = what it is added to    d of a damping
    bounded damping        damping <= what it is added to   the same, where that has no solution
    maximal update         dW_l h_(l-1) <= M^c              c: the smallest
    stable step            dh_m, df <= M^c                  the same, for what moves above
    balanced decay         M^-c m = 1 for the part m W      d of a decay

`derive` solves them in this order, layer by layer; a user switches them off one by one.

>>> [condition.name for condition in STANDARD][:4]
['stable start', 'stable step', 'maximal update', 'maximal readback']
>>> {condition.name: str(condition.fixes) for condition in STANDARD if condition.fixes}
{'balanced damping': 'damping', 'balanced decay': 'decay', 'maximal perturbation': 'radius'}
>>> from scaling.models.chain import mlp
>>> (equation,) = STABLE_START.equations(Place(mlp()[1]))
>>> print(equation.left, "=", equation.right)
M^(1/2 - b_hidden) = 1
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from sympy import Expr, Rational, S, Symbol

from scaling.calculus.output_change import OutputChange
from scaling.models.chain import Layer
from scaling.rules.symbols import SymbolKind
from scaling.sizes.derivation import PAPER
from scaling.sizes.scale import HALF, Scale, Size
from scaling.solve.equations import Equation, balances

ONE = Scale.one(Size.SCALAR)


@dataclass(frozen=True)
class Place:
    """One layer, as conditions speak of it.

    ``a``: exponent of its multiplier. ``update``: what the rule does to it per learning rate.
    ``moved``: how far that moves the outputs from this layer's on, per learning rate, by position;
    those in between that move no further than the layer's own may be missing. ``rate``: the size of
    the learning rate. ``unknown``: dampings to be solved for.
    """

    layer: Layer
    a: Expr = S.Zero
    update: OutputChange | None = None
    moved: Mapping[int, Scale] = field(default_factory=dict)
    rate: Scale = ONE
    unknown: frozenset[Symbol] = frozenset()

    @property
    def done(self) -> OutputChange:
        """The update, which conditions on a step cannot do without."""
        assert self.update is not None, "a condition on a step is asked of a layer that is stepped"
        return self.update


@dataclass(frozen=True)
class Condition:
    """A requirement on sizes: in one layer, the ``equations`` that `derive` solves.

    ``fixes``: the kind of hyper-parameter whose exponent d follows from it, if it is about one.
    """

    name: str
    statement: str
    reference: str
    equations: Callable[[Place], list[Equation]]
    fixes: SymbolKind | None = None


def _output(power: Rational) -> Callable[[Place], list[Equation]]:
    """M^-(a+b) fan_in^power = 1, for an input of order one."""

    def equations(place: Place) -> list[Equation]:
        layer = place.layer
        x = power * layer.fan_in - place.a - Symbol(f"b_{layer.name}")
        return [Equation(f"W h of {layer.name}", Scale.of_width(x, Size.SCALAR), ONE)]

    return equations


def _own(place: Place) -> list[Equation]:
    return [Equation("dW h", place.moved[place.layer.position], place.rate**-1)]


def _above(place: Place) -> list[Equation]:
    last = max(place.moved)
    return [
        Equation("df" if position == last else f"dh_{position}", size, place.rate**-1)
        for position, size in place.moved.items()
        if position == last or position > place.layer.position
    ]


def _dampings(place: Place) -> list[Equation]:
    return balances(place.done.step, place.unknown)


def _decay(place: Place) -> list[Equation]:
    return [Equation("lr m", place.rate * place.done.multiple, ONE)]


STABLE_START = Condition(
    "stable start",
    "at initialisation h_l = Theta(1) in every layer and f = O(1)",
    f"{PAPER}, Sec. 3",
    _output(HALF),
)
STABLE_STEP = Condition(
    "stable step",
    "after one step the features and the output have moved by O(1)",
    f"{PAPER}, Sec. 3",
    _above,
)
MAXIMAL_UPDATE = Condition(
    "maximal update",
    "every layer's own update dW_l h_{l-1} is as large as a stable step allows: Theta(1)",
    "arXiv 2011.14522, Sec. 3",
    _own,
)
MAXIMAL_READBACK = Condition(
    "maximal readback",
    "moved features move the output by Theta(1): W_L dh_{L-1} = Theta(1), so b_L = 1",
    f"{PAPER}, Prop. 4.1",
    _output(S.One),
)
BALANCED_DAMPING = Condition(
    "balanced damping",
    "every damping is as large as what it is added to",
    f"{PAPER}, Sec. 4",
    _dampings,
    SymbolKind.DAMPING,
)
BOUNDED_DAMPING = Condition(
    "bounded damping",
    "where balanced damping has no solution, no damping is larger than what it is added to",
    f"{PAPER}, Sec. 4.2",
    _dampings,
)
BALANCED_DECAY = Condition(
    "balanced decay",
    "one step takes a Theta(1) fraction of the weights away: learning rate x decay = Theta(1)",
    "arXiv 2405.13698",
    _decay,
    SymbolKind.DECAY,
)
MAXIMAL_PERTURBATION = Condition(
    "maximal perturbation",
    "the perturbation moves every layer's output by as much as is stable: X_l h_{l-1} = Theta(1)",
    "arXiv 2411.00075",
    _own,
    SymbolKind.RADIUS,
)
STANDARD = (
    STABLE_START,
    STABLE_STEP,
    MAXIMAL_UPDATE,
    MAXIMAL_READBACK,
    BALANCED_DAMPING,
    BOUNDED_DAMPING,
    BALANCED_DECAY,
    MAXIMAL_PERTURBATION,
)


def fixes(kind: SymbolKind, conditions: Iterable[Condition]) -> bool:
    """Whether one of the conditions fixes the exponent of that kind of hyper-parameter."""
    return any(condition.fixes is kind for condition in conditions)
