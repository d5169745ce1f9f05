"""Exponents in two symbols: where they bend and where they change sign, as exact lines.

Claim.  What sums, rational multiples, maxima and minima make of two symbols and of rationals is
linear on each cell that finitely many lines cut out of a rectangle. A sign, or any other answer
that rests on signs, is then one on the inside of a cell, on an open edge and at a corner. So a
finite number of exact questions answers the whole rectangle (`Arrangement.faces`).

    Line      a x + b y + c = 0, the first of a and b that is not zero is one
    cells     convex polygons, corners as pairs of fractions, counter-clockwise
    faces     cells, the edges between two of them, and the corners where edges meet

Not covered, and refused: products of the symbols, other symbols, oo.

>>> x, y = Symbol("x"), Symbol("y")
>>> window = rectangle(0, 2, 0, 2)
>>> lines = lines_of(Max(x, 1) - y, x, y, window)
>>> [written(line, "x", "y") for line in lines]
['x = 1', 'y = 1', 'y = x']
>>> len(Arrangement.of(window, lines).cells)
6
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias

import sympy
from sympy import Expr, Max, Min, Rational, Symbol

from scaling.sizes.errors import NotCovered

Point: TypeAlias = tuple[Fraction, Fraction]
Polygon: TypeAlias = tuple[Point, ...]
Edge: TypeAlias = tuple[Point, Point]
Line: TypeAlias = tuple[Fraction, Fraction, Fraction]
"""(a, b, c) of a x + b y + c, as a linear function or as the line where it is zero."""

_ZERO: Line = (Fraction(0), Fraction(0), Fraction(0))


def rectangle(x_0: object, x_1: object, y_0: object, y_1: object) -> Polygon:
    """The rectangle from (x_0, y_0) to (x_1, y_1)."""
    left, right, low, high = (Fraction(str(value)) for value in (x_0, x_1, y_0, y_1))
    return ((left, low), (right, low), (right, high), (left, high))


def value(expr: Expr, x: Symbol, y: Symbol, at: Point) -> Fraction:
    """The value of an exponent at a place."""
    ((_, line),) = _pieces(expr, x, y, (at,), set())
    return _at(line, at)


def lines_of(expr: Expr, x: Symbol, y: Symbol, window: Polygon) -> list[Line]:
    """The lines of a window at which an exponent bends or is zero, in a fixed order.

    Raises:
        NotCovered: for an exponent that is not piecewise linear in the two symbols.
    """
    found: set[Line] = set()
    for part, line in _pieces(expr, x, y, window, found):
        if _cuts(line, part):
            found.add(_normal(line))
    return sorted(found, key=lambda line: (line[1] != 0, line))


def written(line: Line, x: str, y: str) -> str:
    """A line as an equation, solved for the second symbol where it can be."""
    a, b, c = (Rational(v.numerator, v.denominator) for v in line)
    if b == 0:
        return f"{x} = {-c / a}"
    return f"{y} = {sympy.expand(-(a * Symbol(x) + c) / b)}"


@dataclass(frozen=True)
class Arrangement:
    """A window, cut by lines.

    ``edges`` holds, for each edge inside of the window, the line that it lies on and the middles of
    the two cells beside it: first the one where the line's function is negative.
    """

    cells: tuple[Polygon, ...]
    edges: dict[Edge, tuple[Line, Point, Point]]
    corners: tuple[Point, ...]

    @classmethod
    def of(cls, window: Polygon, lines: Sequence[Line]) -> Arrangement:
        """The arrangement of lines in a window."""
        cells = [window]
        for line in lines:
            cells = [part for cell in cells for part in _split(cell, line) if part]
        beside: dict[Edge, list[Point]] = {}
        for cell in cells:
            for one, other in zip(cell, (*cell[1:], cell[0]), strict=True):
                beside.setdefault((min(one, other), max(one, other)), []).append(middle(cell))
        edges = {}
        for edge, places in beside.items():
            if len(places) == 2:
                line = next(x for x in lines if _at(x, edge[0]) == _at(x, edge[1]) == 0)
                below, above = sorted(places, key=lambda place: _at(line, place))
                edges[edge] = (line, below, above)
        corners = sorted({point for edge in edges for point in edge})
        return cls(tuple(cells), edges, tuple(corners))

    @property
    def faces(self) -> list[Point]:
        """A place inside of every cell and edge, and every corner."""
        return [*map(middle, self.cells), *map(middle, self.edges), *self.corners]


def middle(points: Sequence[Point]) -> Point:
    """The mean of the corners of a cell or an edge, which is inside of it."""
    xs, ys = zip(*points, strict=True)
    return sum(xs, Fraction(0)) / len(xs), sum(ys, Fraction(0)) / len(ys)


def area(cell: Sequence[Point]) -> Fraction:
    """The area of a cell."""
    pairs = zip(cell, (*cell[1:], cell[0]), strict=True)
    return sum((p[0] * q[1] - q[0] * p[1] for p, q in pairs), Fraction(0)) / 2


# --- pieces -------------------------------------------------------------------------------------


def _pieces(
    expr: Expr, x: Symbol, y: Symbol, part: Polygon, bends: set[Line]
) -> Iterable[tuple[Polygon, Line]]:
    """The linear functions that ``expr`` is, each with its part of ``part``; lines go to bends."""
    if expr.is_Rational:
        return [(part, (Fraction(0), Fraction(0), Fraction(*expr.as_numer_denom())))]
    if expr in (x, y):
        return [(part, (Fraction(expr == x), Fraction(expr == y), Fraction(0)))]
    if expr.is_Mul:
        factor, rest = expr.as_coeff_Mul()
        if factor.is_Rational and not rest.is_Mul and factor != 1:
            scale = Fraction(*factor.as_numer_denom())
            inner = _pieces(rest, x, y, part, bends)
            return [(cell, _sum(_ZERO, line, scale)) for cell, line in inner]
    if expr.is_Add:
        found = [(part, _ZERO)]
        for term in expr.args:
            found = [
                (inner, _sum(line, more))
                for cell, line in found
                for inner, more in _pieces(term, x, y, cell, bends)
            ]
        return found
    if isinstance(expr, Max | Min):
        sign = 1 if isinstance(expr, Max) else -1
        first, *rest = expr.args
        found = list(_pieces(first, x, y, part, bends))
        for other in rest:
            found = [
                chosen
                for cell, line in found
                for inner, more in _pieces(other, x, y, cell, bends)
                for chosen in _larger(inner, line, more, sign, bends)
            ]
        return found
    raise NotCovered(
        f"the exponent {expr}, which is not piecewise linear in {x} and {y}",
        "an exponent that sums, multiples and maxima make of the two",
        f"give every symbol but {x} and {y} a number",
    )


def _larger(
    part: Polygon, f: Line, g: Line, sign: int, bends: set[Line]
) -> Iterable[tuple[Polygon, Line]]:
    """The larger (or for a sign of -1 the smaller) of two linear functions on a part."""
    difference = _sum(f, g, Fraction(-1))
    if not _cuts(difference, part):
        most = max((_at(difference, point) for point in part), key=abs)
        return [(part, f if sign * most >= 0 else g)]
    bends.add(_normal(difference))
    low, high = _split(part, difference)
    return [(low, g if sign > 0 else f), (high, f if sign > 0 else g)]


def _sum(one: Line, other: Line, factor: Fraction = Fraction(1)) -> Line:
    a, b, c = (p + factor * q for p, q in zip(one, other, strict=True))
    return a, b, c


def _at(line: Line, point: Point) -> Fraction:
    return line[0] * point[0] + line[1] * point[1] + line[2]


def _cuts(line: Line, part: Polygon) -> bool:
    """Whether the function has both signs on a part."""
    values = [_at(line, point) for point in part]
    return min(values) < 0 < max(values)


def _normal(line: Line) -> Line:
    """The line with one as its first factor that is not zero."""
    first = line[0] or line[1]
    return line[0] / first, line[1] / first, line[2] / first


def _split(part: Polygon, line: Line) -> tuple[Polygon, Polygon]:
    """The parts where the function is at most zero and at least zero; () for one without area."""
    if not _cuts(line, part):
        high = max(_at(line, point) for point in part) > 0
        return ((), part) if high else (part, ())
    low: list[Point] = []
    high_: list[Point] = []
    for one, other in zip(part, (*part[1:], part[0]), strict=True):
        f, g = _at(line, one), _at(line, other)
        if f <= 0:
            low.append(one)
        if f >= 0:
            high_.append(one)
        if f * g < 0:
            t = f / (f - g)
            cut = (one[0] + t * (other[0] - one[0]), one[1] + t * (other[1] - one[1]))
            low.append(cut)
            high_.append(cut)
    return tuple(low), tuple(high_)
