"""Scale: the algebra of sizes. A size is Theta(M^x); only the exponent x is kept.

    product   Theta(M^x) * Theta(M^y) = Theta(M^(x+y))
    power     Theta(M^x) ** p         = Theta(M^(p x))
    sum       Theta(M^x) + Theta(M^y) = Theta(M^max(x, y))      unless the terms cancel
    zero      M^(-oo)

Exponents are exact: rationals, or sympy expressions in a rule's own symbols (e, e_A, b_output).
A sum of symbolic exponents is decided by what is known of the symbols (`Bounds`); where that is
not enough the answer is a `Max`, never a guess. Those of one symbol are kept short (piecewise.py).

A Scale also says what it is the size *of*: a typical entry, a spectral norm, a Frobenius norm or
a scalar. Unlike sizes do not combine: turning one into another is an inference (read.py).

The width M is one growing axis among several to come (depth, batch, vocabulary): a Scale maps
axes to exponents, and every example uses the axis "width" alone.

>>> root_width = Scale.of_width(Rational(1, 2), Size.ENTRY)
>>> print(root_width * root_width)
M^(1)
>>> print(root_width + Scale.of_width(0, Size.ENTRY))
M^(1/2)
>>> print(Scale.zero(Size.ENTRY) + root_width)
M^(1/2)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction
from functools import cached_property, lru_cache
from types import MappingProxyType
from typing import Any, TypeAlias

import sympy
from sympy import Expr, Max, Rational, S

from scaling.sizes import piecewise
from scaling.sizes.errors import NotCovered

WIDTH = "width"
HALF = Rational(1, 2)
AXIS_SYMBOLS = MappingProxyType({WIDTH: "M"})

ExponentLike: TypeAlias = Any  # Expr | Fraction | int | str; sympy carries no types


class Size(StrEnum):
    """The kind of size that a Scale is."""

    ENTRY = "typical entry"
    SPECTRAL = "spectral norm"
    FROBENIUS = "Frobenius norm"
    SCALAR = "scalar"


class Order(StrEnum):
    """How two exponents compare for every admissible value of their symbols."""

    LESS = "<"
    EQUAL = "="
    GREATER = ">"
    OPEN = "?"


@lru_cache(maxsize=4096)
def _written(x: Expr) -> str:
    """An exponent as text; the same few come up again and again in derivations."""
    return str(x)


def renamed(x: Expr, names: Mapping[Expr, Expr]) -> Expr:
    """An exponent with symbols for symbols, one to one: what was in its canonical form stays so.

    >>> import sympy
    >>> x, y, z = map(sympy.Symbol, "xyz")
    >>> renamed(2 * Max(x, y), {x: z}) == 2 * Max(z, y)
    True
    """
    if not x.args:
        return names.get(x, x)
    parts = [renamed(part, names) for part in x.args]
    return Max(*parts, evaluate=False) if isinstance(x, Max) else x.func(*parts)


def exponent(value: ExponentLike) -> Expr:
    """Return ``value`` as an exact sympy expression; a float is refused.

    >>> exponent("1/2") + exponent(Fraction(1, 2))
    1
    """
    if isinstance(value, Expr):
        return value
    if isinstance(value, float):
        raise TypeError(f"exponents are exact: write {Fraction(str(value))} instead of {value}")
    if isinstance(value, Fraction):
        return Rational(value.numerator, value.denominator)
    if isinstance(value, str):  # never sympify, which evaluates
        if re.fullmatch(r"[A-Za-z_]\w*", value):
            return S.Infinity if value == "oo" else sympy.Symbol(value)
        return exponent(Fraction(value))
    return sympy.sympify(value, rational=True)


MOST_SYMBOLS, MOST_OPERATIONS = 12, 300
"""Of the two sides of a maximum: sympy compares every branch with every other."""


@dataclass(frozen=True)
class Bounds:
    """Bounds of the symbols in exponents: closed intervals, by symbol name.

    Exponents e, e_A, ... of a rule are non-negative; anything else is unbounded unless stated.

    >>> import sympy
    >>> e, b = sympy.symbols("e b")
    >>> Bounds({"e": (S.Zero, S.Infinity)}).order(1 + e, S.Zero)
    <Order.GREATER: '>'>
    >>> Bounds().order(1 - 2 * b, S.Zero)
    <Order.OPEN: '?'>
    """

    intervals: Mapping[str, tuple[Expr, Expr]] = field(default_factory=dict)

    def range(self, expr: Expr) -> tuple[Expr, Expr]:
        """Lower and upper bound of an affine expression (or of a Max of such)."""
        if expr.is_number:
            return expr, expr
        function = piecewise.read(expr)
        if function is not None:
            return function.range(*self._interval(expr))
        if isinstance(expr, Max):
            ranges = [self.range(arg) for arg in expr.args]
            return Max(*(low for low, _ in ranges)), Max(*(high for _, high in ranges))
        low = high = S.Zero
        for term, coefficient in expr.as_coefficients_dict().items():
            term_low, term_high = self._term(term)
            if coefficient < 0:
                term_low, term_high = term_high, term_low
            low, high = low + coefficient * term_low, high + coefficient * term_high
        return low, high

    def _term(self, term: Expr) -> tuple[Expr, Expr]:
        if term is S.One:
            return S.One, S.One
        if isinstance(term, Max):
            return self.range(term)
        if term.is_Symbol:
            return self._interval(term)
        if term.is_Mul:  # e*b: known only where every factor has a known sign
            lows_highs = [self.range(factor) for factor in term.args]
            if all(low >= 0 for low, _ in lows_highs):
                return (
                    sympy.prod(low for low, _ in lows_highs),
                    S.Infinity,
                )
        return -S.Infinity, S.Infinity

    def _interval(self, expr: Expr) -> tuple[Expr, Expr]:
        """Of the one symbol of an expression."""
        (symbol,) = expr.free_symbols
        low, high = self.intervals.get(symbol.name, (-S.Infinity, S.Infinity))
        return sympy.sympify(low), sympy.sympify(high)

    def order(self, x: Expr, y: Expr) -> Order:
        """Compare two exponents for all admissible values of their symbols."""
        if x.is_Rational and y.is_Rational:  # nearly always; sympy's own comparisons are slow
            gap = x.p * y.q - y.p * x.q
            return Order.GREATER if gap > 0 else Order.LESS if gap < 0 else Order.EQUAL
        if x == y:
            return Order.EQUAL
        if x is S.NegativeInfinity or y is S.Infinity:
            return Order.LESS
        if y is S.NegativeInfinity or x is S.Infinity:
            return Order.GREATER
        difference = sympy.expand(x - y)
        if difference == 0:
            return Order.EQUAL
        low, high = self.range(difference)
        if low == high == 0:
            return Order.EQUAL
        if low > 0:
            return Order.GREATER
        if high < 0:
            return Order.LESS
        return Order.OPEN

    def larger(self, x: Expr, y: Expr) -> Expr:
        """The larger exponent; a `Max` where the symbols leave it open."""
        order = self.order(x, y)
        if order is Order.OPEN:
            low, high = self.range(sympy.expand(x - y))
            if low == 0:  # x >= y everywhere, with equality somewhere
                return x
            return y if high == 0 else self._max(x, y)
        return y if order is Order.LESS else x

    def _max(self, x: Expr, y: Expr) -> Expr:
        """Max(x, y), what the two share taken out: e + Max(0, 1 - b), not Max(e, e + 1 - b)."""
        both = x.free_symbols | y.free_symbols
        if len(both) > MOST_SYMBOLS or x.count_ops() + y.count_ops() > MOST_OPERATIONS:
            names = sorted(str(symbol) for symbol in both)
            raise NotCovered(
                f"an exponent that {', '.join(names)} leave open in too many ways",
                f"at most {MOST_SYMBOLS} open symbols in {MOST_OPERATIONS} operations",
                f"give symbols values, such as --set {names[0]}=1/2",
            )
        if x.has(Max) or y.has(Max):
            unevaluated = Max(x, y, evaluate=False)  # evaluation compares all with all, slowly
            if piecewise.read(unevaluated) is not None:
                return piecewise.canonical(unevaluated, *self._interval(unevaluated))
        x, y = sorted((x, y), key=str)
        difference = sympy.expand(y - x)
        if difference.free_symbols < both:
            return x + Max(S.Zero, difference)
        return Max(x, y)


@dataclass(frozen=True)
class Scale:
    """The size Theta(prod_axis axis^x_axis) of something named by ``of``.

    ``exponents`` holds (axis, exponent) pairs, sorted, without zeros. ``gap`` says how soon that
    holds: the size is Theta(M^x) (1 + O(M^-gap)), by the terms that sums have dropped on the way.
    It is no part of the size, and oo while nothing is dropped.

    >>> one, less = Scale.one(Size.ENTRY), Scale.of_width("-1/4", Size.ENTRY)
    >>> (one + less).gap, (one + less) == one
    (1/4, True)
    """

    exponents: tuple[tuple[str, Expr], ...]
    of: Size
    gap: Expr = field(default=S.Infinity, compare=False)

    @classmethod
    def over(cls, exponents: Mapping[str, ExponentLike], of: Size) -> Scale:
        """A Scale from axis -> exponent."""
        exact = ((axis, piecewise.canonical(exponent(x))) for axis, x in exponents.items())
        return cls(tuple(sorted((a, x) for a, x in exact if x is not S.Zero)), of)

    @classmethod
    def of_width(cls, x: ExponentLike, of: Size) -> Scale:
        """Theta(M^x)."""
        return cls.over({WIDTH: x}, of)

    @classmethod
    def one(cls, of: Size) -> Scale:
        """Theta(1)."""
        return cls((), of)

    @classmethod
    def zero(cls, of: Size) -> Scale:
        """Exactly zero: M^(-oo)."""
        return cls.of_width(-S.Infinity, of)

    @property
    def width(self) -> Expr:
        """The exponent of the width."""
        return dict(self.exponents).get(WIDTH, S.Zero)

    @cached_property
    def is_zero(self) -> bool:
        """Whether this is the size of an exact zero."""
        return any(x is S.NegativeInfinity for _, x in self.exponents)

    def as_size_of(self, of: Size) -> Scale:
        """The same exponent as another kind of size. The caller states the inference."""
        return Scale(self.exponents, of, self.gap)

    def _after(self, gap: Expr) -> Scale:
        """The same size, which holds no sooner than ``gap`` says."""
        if gap is S.Infinity or gap == self.gap or not gap.is_number:
            return self
        least = gap if self.gap is S.Infinity or gap < self.gap else self.gap
        return Scale(self.exponents, self.of, least)

    def __mul__(self, other: Scale) -> Scale:
        if self.is_zero or other.is_zero:
            return Scale.zero(self._product_tag(other))
        if not self.exponents or not other.exponents:
            one = self if self.exponents else other
            return Scale(one.exponents, self._product_tag(other), self.gap)._after(other.gap)
        total = dict(self.exponents)
        for axis, x in other.exponents:
            total[axis] = total.get(axis, S.Zero) + x
        product = Scale.over(total, self._product_tag(other))
        return product._after(self.gap)._after(other.gap)

    def __truediv__(self, other: Scale) -> Scale:
        return self * other**-1

    def __pow__(self, power: ExponentLike, /) -> Scale:
        p = exponent(power)
        if p is S.Zero:
            return Scale.one(self.of)
        if self.is_zero:
            if p.is_positive:
                return self
            raise NotCovered(
                f"the size of exactly zero to the power {p}",
                "a size that is not zero, or a positive power",
                "add a damping, or give b a finite value",
            )
        powers = {
            axis: p * x if p.is_Rational and x.is_Rational else sympy.expand(p * x)
            for axis, x in self.exponents
        }
        return Scale.over(powers, self.of)._after(self.gap)

    def root(self) -> Scale:
        """The square root."""
        return self.__pow__(HALF)

    def __add__(self, other: Scale) -> Scale:
        return self.plus(other)

    def plus(self, other: Scale, bounds: Bounds | None = None) -> Scale:
        """The sum of two sizes of the same kind that do not cancel: the larger one."""
        if self.of is not other.of:
            raise TypeError(f"a {self.of} and a {other.of} do not add: convert one first")
        if self.is_zero or other.is_zero:
            return other if self.is_zero else self
        axes = {axis for axis, _ in (*self.exponents, *other.exponents)}
        if len(axes) <= 1:
            axis = next(iter(axes), WIDTH)
            mine, theirs = (dict(s.exponents).get(axis, S.Zero) for s in (self, other))
            total = Scale.over({axis: (bounds or Bounds()).larger(mine, theirs)}, self.of)
            if mine == theirs:
                return total._after(self.gap)._after(other.gap)
            kept = next((s for s in (self, other) if s == total), total)
            return kept._after(abs(mine - theirs)) if (mine - theirs).is_number else total
        orders = {
            (bounds or Bounds()).order(
                dict(self.exponents).get(axis, S.Zero), dict(other.exponents).get(axis, S.Zero)
            )
            for axis in axes
        } - {Order.EQUAL}
        if orders <= {Order.GREATER}:
            return self
        if orders <= {Order.LESS}:
            return other
        raise NotCovered(
            f"the sum of {self} and {other}, where neither is larger along every axis",
            "one growing axis, or a term that dominates on all of them",
            "let one axis grow and give the others a fixed size",
        )

    def _product_tag(self, other: Scale) -> Size:
        tags = {self.of, other.of} - {Size.SCALAR}
        if len(tags) > 1:
            raise TypeError(f"a {self.of} and a {other.of} do not multiply: convert one first")
        return next(iter(tags), Size.SCALAR)

    def __str__(self) -> str:
        if self.is_zero:
            return "0"
        if not self.exponents:
            return "1"
        return " ".join(
            f"{AXIS_SYMBOLS.get(axis, axis)}^({_written(x)})" for axis, x in self.exponents
        )
