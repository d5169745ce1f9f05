"""The width at which two terms trade places: a regime holds beyond it, and not below.

An exponent says which of two terms is the larger one in the end. Where a number that the user gave
stands in one of them, the end may be beyond every width in use:

    max(0.001, rms(W))        rms(W) = M^(-1/2) is the larger up to 0.001^(-2) = 10^6
    G/(abs(G) + 1e-8)         with eps kept, |G| ~ M^(-1) is the larger up to about 10^8

Terms k M^x and l M^y are alike at M = (k/l)^(1/(y - x)). Of a term that is made of numbers, sides
of the layer and norms of weights the factor k is known exactly: W has the standard deviation
M^(-b), features^(-1/2) of it in the input layer, half of it for a bias, as where it is measured. Of
a term with the gradient or the data in it k is of order one and taken as 1: "about". The measured
twin, with factors from a network, is `crossing` of a measured ratio (empirical/fit/crossover.py).

A damping that follows what it is added to never trades places with it. For one that has a value (a
literal, or ``--set eps=1e-8``) the width is that at which it would, were it kept as it is.

>>> from scaling.models.settings import read_settings
>>> from scaling.rules.parser import parse
>>> from scaling.solve.derive import derive
>>> rule = parse("max(0.001, rms(W))*sign(G)")
>>> kept = derive(rule, read_settings(["d_eps_1=0"], rule, derive(rule).problem.setting.layers))
>>> for line in crossover_lines(crossovers(kept)):
...     print(line)
crossover in hidden: rms(W) is larger than 0.001 up to width 1,000,000, and smaller beyond
crossover in output: rms(W) is larger than 0.001 up to width 1,000, and smaller beyond
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Protocol

from sympy import Expr, S

from scaling.calculus.context import Regime
from scaling.models.chain import Layer
from scaling.rules.language import (
    Call,
    Divide,
    Matrix,
    Multiply,
    Negate,
    Node,
    Number,
    Power,
    Symbol,
    SymbolKind,
)
from scaling.rules.like_terms import in_full, is_damping
from scaling.rules.literal_dampings import LiteralDamping, literals
from scaling.rules.operators import FUNCTIONS, OfEntries, SumOfEntries
from scaling.rules.rule import Rule, evaluate_power
from scaling.rules.shapes import Dim
from scaling.rules.weight_term import is_weight_size
from scaling.sizes.errors import RuleError
from scaling.sizes.scale import Order
from scaling.states.problem import Exponents, Problem

LEAST = 2.0
"""Widths below are none: the regime holds from the narrowest network on."""
WIDEST = 1e30


class Decided(Protocol):
    """An answer whose regimes are told: of `derive` and of `predict`."""

    @property
    def problem(self) -> Problem:
        """The question."""

    @property
    def exponents(self) -> Exponents:
        """Exponents by layer."""

    @property
    def regimes(self) -> Mapping[str, tuple[Regime, ...]]:
        """Decisions by layer."""


@dataclass(frozen=True)
class ReadLayer:
    """A rule as it was read in one layer or tensor: exponents and numbers that were given.

    ``d``: exponents of dampings; ``b``: of the weight; ``values``: of symbols, by name; ``fixed``:
    the number of a side that does not grow, as it is measured; empty for a model of the user's.
    """

    rule: Rule
    layer: Layer
    b: Expr
    d: Mapping[str, Expr]
    values: Mapping[str, float]
    fixed: Mapping[Dim, float] = field(default_factory=dict)
    axis: str = "width"

    @property
    def numbers(self) -> dict[str, float]:
        """The numbers that the user gave, in the rule or beside it."""
        written = {x.name: float(x.value) for x in literals(self.rule.expression)}
        return {**written, **self.values}


@dataclass(frozen=True)
class Factor:
    """The number in front of a power of the width; ``exact``: known, not of order one alone."""

    value: float
    exact: bool = True

    def __mul__(self, other: Factor) -> Factor:
        return Factor(self.value * other.value, self.exact and other.exact)

    def power(self, p: float) -> Factor:
        """The factor of the term to a power."""
        return Factor(self.value**p if self.value else 0.0, self.exact)


@dataclass(frozen=True)
class Crossover:
    """Two terms of a node, and the width at which they are alike.

    ``falling``: the one that is larger up to there; ``rising``: the one that is larger beyond.
    ``exact``: whether the width follows from given numbers alone. ``kept``: the damping that would
    have to be kept as it is for this, if it follows the other term.
    """

    layer: str
    node: Node
    falling: Node
    rising: Node
    width: float
    exact: bool
    kept: str = ""
    axis: str = "width"

    def __str__(self) -> str:
        about = "" if self.exact else "about "
        end = f"{about}{self.axis} {_wide(self.width)}"
        text = f"{self.falling} is larger than {self.rising} up to {end}"
        text += ", and smaller beyond"
        if self.kept:
            text = f"with {self.kept} kept as it is, {text}"
        return text if self.exact else f"{text} (numbers of order one taken as 1)"


def crossing(ratio: float, width: float, x: float, y: float) -> float:
    """The width at which k M^x and l M^y are alike, if their ratio is ``ratio`` at ``width``.

    >>> round(crossing(0.5**-1 * 1e-3, 1, 0, -0.5))  # 0.001 beside 0.5 M^(-1/2)
    250000
    """
    if x == y or not ratio > 0:
        return math.nan
    exponent = math.log(width) + math.log(ratio) / (y - x)
    return float(f"{math.exp(exponent):.12g}") if exponent < math.log(WIDEST) else math.inf


def crossovers(found: Decided) -> tuple[Crossover, ...]:
    """The crossovers of an answer that numbers which are given bring within reach, by layer.

    Terms of order one whose factors nobody gave trade places at a width of order one, and are not
    told.
    """
    problem, told = found.problem, dict[Crossover, None]()
    batch = problem.setting.batch
    for name, regimes in found.regimes.items():
        layer = problem.setting.layer(name)
        fixed = {
            Dim.FAN_IN: 1.0 if layer.is_bias else float(batch.features),
            Dim.FAN_OUT: float(batch.classes),
        }
        x, given = found.exponents, problem.settings.values
        at = ReadLayer(problem.rule, layer, x.b[name], x.d[name], given, fixed)
        told |= dict.fromkeys(crossovers_of(at, regimes))
    return tuple(told)


def crossovers_of(at: ReadLayer, regimes: Iterable[Regime]) -> Iterator[Crossover]:
    """The crossovers of one layer or tensor."""
    for regime in regimes:
        yield from _of_regime(at, regime)


def crossover_lines(found: Iterable[Crossover]) -> tuple[str, ...]:
    """The same as lines, layers that share one together."""
    where: dict[str, list[str]] = {}
    for one in found:
        where.setdefault(str(one), []).append(one.layer)
    return tuple(f"crossover in {', '.join(names)}: {text}" for text, names in where.items())


def _of_regime(at: ReadLayer, regime: Regime) -> Iterator[Crossover]:
    left, right = (in_full(regime.node, x) for x in (regime.left, regime.right))
    if left is None or right is None:
        return
    x, y, kept = regime.left_size.width, regime.right_size.width, ""
    if regime.order is Order.EQUAL:
        held = [_held(at, node) for node in (left, right)]
        if (held[0] is None) is (held[1] is None):
            return
        name, d = next(z for z in held if z is not None)
        x, y = (x + d, y) if held[0] is not None else (x, y + d)
        kept = name
    elif regime.order is Order.OPEN or _moves(at, regime):
        return
    if not (x.is_Rational and y.is_Rational) or x == y:
        return
    one, other = (_factor(at, node) for node in (left, right))
    if one is None or other is None or not (_is_given(at, left) or _is_given(at, right)):
        return
    width = crossing(one.value / other.value, 1.0, float(x), float(y))
    if not LEAST <= width < WIDEST:
        return
    falling, rising = (left, right) if x < y else (right, left)
    yield Crossover(
        at.layer.name, regime.node, falling, rising, width, one.exact and other.exact, kept, at.axis
    )


def _moves(at: ReadLayer, regime: Regime) -> bool:
    """Whether a term follows the width from a base that is not said: a damping with d != 0."""
    d = at.d
    inside = (n for side in (regime.left, regime.right) for n in side.walk())
    return any(isinstance(n, Symbol) and d.get(n.name, S.Zero) != 0 for n in inside)


def _held(at: ReadLayer, node: Node) -> tuple[str, Expr] | None:
    """The damping with a value that a term is a multiple of, and its exponent d."""
    if not is_damping(node):
        return None
    names = [n for n in node.walk() if isinstance(n, Symbol) and n.kind is SymbolKind.DAMPING]
    values = at.numbers
    if len(set(names)) != 1 or names[0].name not in values:
        return None
    return names[0].name, at.d[names[0].name]


def _is_given(at: ReadLayer, node: Node) -> bool:
    """Whether a term holds a number that was given and is not 1."""
    values = at.numbers
    return any(
        (isinstance(n, Symbol) and n.name in values)
        or (isinstance(n, Number) and n.value not in (0, 1))
        for n in node.walk()
    )


def _factor(at: ReadLayer, node: Node) -> Factor | None:
    """The number in front of the width in the size of a term; None if that is not said."""
    unknown, values = Factor(1.0, exact=False), at.numbers
    match node:
        case Number(value):
            return Factor(float(abs(value))) if value else None
        case Symbol(name) if node.is_fan:
            return _side(at, Dim(name))
        case LiteralDamping(name) | Symbol(name):
            if name not in values:
                return unknown
            return Factor(values[name])
        case Matrix("I"):
            return Factor(1.0)
        case Matrix("W"):
            return _weight(at)
        case Negate(inside):
            return _factor(at, inside)
        case Multiply(p, q) | Divide(p, q):
            one, other = _factor(at, p), _factor(at, q)
            if one is None or other is None:
                return None
            return one * (other if isinstance(node, Multiply) else other.power(-1))
        case Power(base, exponent):
            return _power(at, base, exponent)
        case Call(function, inside) if is_weight_size(node):
            inner = _factor(at, inside)
            reading = FUNCTIONS[function].reading
            assert isinstance(reading, SumOfEntries)
            if inner is None or reading.mean:
                return inner
            sides = _side(at, Dim.FAN_IN) * _side(at, Dim.FAN_OUT)
            return inner * sides.power(0.5)
        case Call(function, inside):
            reading = FUNCTIONS[function].reading
            inner = _factor(at, inside)
            if isinstance(reading, OfEntries) and reading.power is not None and inner is not None:
                return inner.power(float(reading.power))
    return unknown


def _power(at: ReadLayer, base: Node, exponent: Node) -> Factor | None:
    inner = _factor(at, base)
    none: dict[str, Fraction] = {}
    try:
        p = evaluate_power(exponent, Fraction, none.__getitem__)
    except (KeyError, RuleError):
        return Factor(1.0, exact=False)
    return None if inner is None else inner.power(float(p))


def _weight(at: ReadLayer) -> Factor | None:
    """The standard deviation of W over M^(-b), as networks are measured; None if W is zero."""
    if not at.b.is_finite:
        return None
    if not at.fixed:  # a model of the user's draws it by its own code
        return Factor(1.0, exact=False)
    if at.layer.is_bias:
        return Factor(0.5)
    return _side(at, Dim.FAN_IN).power(-0.5) if at.layer.fan_in == 0 else Factor(1.0)


def _side(at: ReadLayer, side: Dim) -> Factor:
    """A side that does not grow has its number: features, classes, or 1 of a bias."""
    grows = {Dim.FAN_IN: at.layer.fan_in, Dim.FAN_OUT: at.layer.fan_out}[side]
    if grows != S.Zero:
        return Factor(1.0)
    return Factor(at.fixed[side]) if side in at.fixed else Factor(1.0, exact=False)


def _wide(width: float) -> str:
    rounded = float(f"{width:.3g}")
    return f"{rounded:,.0f}" if rounded < 1e7 else f"{rounded:.1e}".replace("e+0", "e+")
