"""Exponents in one symbol: piecewise linear functions, which have one form each.

Claim.  What sums, rational multiples and maxima make of one symbol x and of rationals is continuous
and linear between finitely many corners. So it has an exact range, and maxima of maxima, in which
nobody sees whether two are the same, have a canonical form:

    no corner         a + b x
    convex            Max(l_1, ..., l_k)      of its pieces, each of which is the largest somewhere
    concave           l - Max(l - l_1, ..., l - l_k)    with l = 0 or a piece, whichever is shorter
    otherwise         l_1 + sum_i s_i Max(0, x - t_i)    slopes change by s_i at the corners t_i

Not covered, and left as they are: exponents in several symbols, products of symbols, oo.

>>> x = Symbol("x")
>>> nested = Max(x, Max(0, 2 * x - 1) + Rational(1, 2)) - Max(0, x)
>>> print(nested, "=", canonical(nested))
-Max(0, x) + Max(x, Max(0, 2*x - 1) + 1/2) = -Max(0, x) + 2*Max(0, x - 1/2) + 1/2
>>> print(canonical(Max(0, 1 - x) - Max(1 - x, 2 - 2 * x)))
x - 1
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TypeAlias

from sympy import Expr, Max, Rational, S, Symbol

Piece: TypeAlias = tuple[Rational, Rational]
"""(slope, intercept)"""


@dataclass(frozen=True)
class PiecewiseLinear:
    """``pieces[i]`` between ``corners[i - 1]`` and ``corners[i]``, of which there is one fewer."""

    corners: tuple[Rational, ...]
    pieces: tuple[Piece, ...]

    def at(self, x: Rational) -> Rational:
        """The value."""
        slope, intercept = self.pieces[bisect_left(self.corners, x)]
        return slope * x + intercept

    def plus(self, other: PiecewiseLinear) -> PiecewiseLinear:
        """The sum."""
        corners = sorted({*self.corners, *other.corners})
        pairs = ((self._piece(x), other._piece(x)) for x in _between(corners))
        return _joined(corners, [(a + c, b + d) for (a, b), (c, d) in pairs])

    def times(self, factor: Rational) -> PiecewiseLinear:
        """The multiple."""
        return _joined(self.corners, [(factor * a, factor * b) for a, b in self.pieces])

    def larger(self, other: PiecewiseLinear) -> PiecewiseLinear:
        """The maximum of both at every place."""
        corners = {*self.corners, *other.corners}
        for x in _between(sorted(corners)):
            (a, b), (c, d) = self._piece(x), other._piece(x)
            corners |= {(d - b) / (a - c)} if a != c else set()
        split = sorted(corners)
        chosen = [
            self._piece(x) if self.at(x) >= other.at(x) else other._piece(x)
            for x in _between(split)
        ]
        return _joined(split, chosen)

    def within(self, low: Expr, high: Expr) -> PiecewiseLinear:
        """The same function, told apart from others between ``low`` and ``high`` alone."""
        kept = [x for x in self.corners if low < x < high]
        first = bisect_left(self.corners, kept[0]) if kept else self._index(low, high)
        return PiecewiseLinear(tuple(kept), self.pieces[first : first + len(kept) + 1])

    def range(self, low: Expr, high: Expr) -> tuple[Expr, Expr]:
        """The least and the largest value between ``low`` and ``high``, which may be infinite."""
        inside = self.within(low, high)
        values: list[Expr] = [self.at(x) for x in (low, *inside.corners, high) if x.is_finite]
        for end, (slope, intercept), sign in (
            (low, inside.pieces[0], -1),
            (high, inside.pieces[-1], 1),
        ):
            if not end.is_finite:
                values.append(slope * sign * S.Infinity if slope else intercept)
        return min(values), max(values)

    def expression(self, x: Symbol) -> Expr:
        """The canonical form."""
        bends = [after[0] - before[0] for before, after in pairwise(self.pieces)]
        lines = [slope * x + intercept for slope, intercept in self.pieces]
        if all(bend > 0 for bend in bends):
            return Max(*lines)
        if all(bend < 0 for bend in bends):
            below = [line - Max(*(line - other for other in lines)) for line in (S.Zero, *lines)]
            return min(below, key=lambda form: (form.count_ops(), str(form)))
        turns = zip(bends, self.corners, strict=True)
        return lines[0] + sum(bend * Max(S.Zero, x - t) for bend, t in turns)

    def _piece(self, x: Rational) -> Piece:
        return self.pieces[bisect_left(self.corners, x)]

    def _index(self, low: Expr, high: Expr) -> int:
        """Of the piece that holds all between ``low`` and ``high``, between which is no corner."""
        if low.is_finite:
            return bisect_left(self.corners, low) + (low in self.corners)
        return bisect_left(self.corners, high) if high.is_finite else 0


def canonical(expr: Expr, low: Expr = S.NegativeInfinity, high: Expr = S.Infinity) -> Expr:
    """``expr`` in its canonical form, if it is a piecewise linear function of one symbol.

    Between ``low`` and ``high``; elsewhere the result may differ.
    """
    if expr.is_Rational or not expr.has(Max) or not low < high:
        return expr
    found = read(expr)
    if found is None:
        return expr
    (symbol,) = expr.free_symbols
    return found.within(low, high).expression(symbol)


@lru_cache(maxsize=4096)
def read(expr: Expr) -> PiecewiseLinear | None:
    """The function of one symbol that an exponent is, or None if it is none.

    >>> x = Symbol("x")
    >>> read(Max(x, 1 - x)).corners
    (1/2,)
    >>> read(x * Symbol("y")) is None
    True
    """
    return _read(expr) if len(expr.free_symbols) == 1 else None


def _read(expr: Expr) -> PiecewiseLinear | None:
    if expr.is_Rational:
        return PiecewiseLinear((), ((S.Zero, expr),))
    if expr.is_Symbol:
        return PiecewiseLinear((), ((S.One, S.Zero),))
    if expr.is_Mul:
        factor, rest = expr.as_coeff_Mul()
        part = _read(rest) if factor.is_Rational and not rest.is_Mul else None
        return None if part is None else part.times(factor)
    if not (expr.is_Add or isinstance(expr, Max)):
        return None
    parts = [_read(part) for part in expr.args]
    total = parts[0]
    for part in parts[1:]:
        if total is None or part is None:
            return None
        total = total.plus(part) if expr.is_Add else total.larger(part)
    return total


def _between(corners: list[Rational]) -> list[Rational]:
    """A place inside each of the intervals that the corners make."""
    if not corners:
        return [S.Zero]
    middles = [(before + after) / 2 for before, after in pairwise(corners)]
    return [corners[0] - 1, *middles, corners[-1] + 1]


def _joined(corners: Iterable[Rational], pieces: list[Piece]) -> PiecewiseLinear:
    """Without corners at which nothing changes."""
    kept = [
        (corner, after)
        for corner, (before, after) in zip(corners, pairwise(pieces), strict=True)
        if before != after
    ]
    return PiecewiseLinear(tuple(x for x, _ in kept), (pieces[0], *(after for _, after in kept)))
