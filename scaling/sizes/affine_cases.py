"""Affine conditions on exponents: cases of maxima, elimination, and whether conditions can hold.

    cases      max(x, y) is x where x - y >= 0, and y where y - x >= 0
    solved     linear equations in some of the symbols, by elimination over the rationals
    feasible   Fourier and Motzkin: a symbol between lower and upper bounds is eliminated by asking
               every lower bound to be at most every upper one; exact over the rationals

A product of symbols counts as a symbol of its own in `feasible`: conditions that are refused have
no solution, those that are not may still have none.

>>> import sympy
>>> x, y = sympy.symbols("x y")
>>> [(str(value[0]), *map(str, where)) for value, where in cases((sympy.Max(0, x) - 1,))]
[('-1', '-x'), ('x - 1', 'x')]
>>> feasible([x - 1, -x]), feasible([x - 1, 2 - x])
(False, True)
>>> solved((x + y - 1,), (x, y)).values
{x: 1 - y}
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import sympy
from sympy import Expr, Max, Min, S, Symbol

from scaling.sizes.errors import NotCovered

MOST_CASES = 512
"""More than these are refused."""
Case = tuple[tuple[Expr, ...], tuple[Expr, ...]]
"""Values without maxima, and what has to be at least zero for them."""


def cases(values: Sequence[Expr], where: Sequence[Expr] = ()) -> list[Case]:
    """The values in each case of their maxima and minima that can occur under the conditions.

    Raises:
        NotCovered: for more cases than `MOST_CASES`.
    """
    found: list[Case] = []
    rest: list[Case] = [(tuple(sympy.expand(x) for x in values), tuple(where))]
    while rest:
        now, held = rest.pop()
        inner = _innermost(now)
        if inner is None:
            found.append((now, held))
            continue
        if len(found) + len(rest) > MOST_CASES:
            raise NotCovered(
                f"exponents with maxima that can be taken in more than {MOST_CASES} ways",
                "fewer symbols whose order is open",
                "give more symbols values, such as --set e=1/2",
            )
        sign = 1 if isinstance(inner, Max) else -1
        for chosen in reversed(inner.args):
            others = (sign * (chosen - x) for x in inner.args if x != chosen)
            here = (*held, *(cleared(x, held) for x in others))
            if feasible(here):
                rest.append((tuple(sympy.expand(x.xreplace({inner: chosen})) for x in now), here))
    return found


def _innermost(values: Iterable[Expr]) -> Expr | None:
    found = (
        m for x in values for m in x.atoms(Max, Min) if not any(a.has(Max, Min) for a in m.args)
    )
    return min(found, key=str, default=None)


# --- equations ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Elimination:
    """Linear equations, solved.

    ``values`` gives some of the unknowns in terms of the rest; ``nonzero`` is what was divided by;
    ``left`` has to be zero too, and holds no unknown.
    """

    values: dict[Symbol, Expr]
    nonzero: tuple[Expr, ...]
    left: tuple[Expr, ...]


def solved(equations: Iterable[Expr], unknowns: Sequence[Symbol]) -> Elimination:
    """Solve expressions that are to be zero, for unknowns in the order given.

    Raises:
        NotCovered: for a product of unknowns.
    """
    values: dict[Symbol, Expr] = {}
    nonzero: list[Expr] = []
    rows = [sympy.expand(x) for x in equations]
    for row in rows:
        if row.has(*unknowns) and sympy.Poly(row, *unknowns).total_degree() > 1:
            raise NotCovered(
                f"{row} = 0, with a product of {' and '.join(sorted(map(str, row.free_symbols)))}",
                "unknowns that no other unknown multiplies",
                f"give one of them a value, such as --set {min(map(str, row.free_symbols))}=1",
            )
    left: list[Expr] = []
    while rows:
        pivots = [
            (not row.coeff(u).is_Rational, unknowns.index(u), i)
            for i, row in enumerate(rows)
            for u in unknowns
            if row.has(u)
        ]
        if not pivots:
            left += [row for row in rows if row != 0]
            break
        symbolic, place, i = min(pivots)
        unknown, row = unknowns[place], rows.pop(i)
        factor = row.coeff(unknown)
        if symbolic:
            nonzero.append(factor)
        value = sympy.expand(sympy.cancel((factor * unknown - row) / factor))
        values = {u: _put(x, {unknown: value}) for u, x in values.items()} | {unknown: value}
        rows = [sympy.numer(sympy.together(_put(x, {unknown: value}))) for x in rows]
        rows = [sympy.expand(x) for x in rows]
    return Elimination(values, tuple(nonzero), tuple(left))


def _put(x: Expr, values: dict[Symbol, Expr]) -> Expr:
    return sympy.expand(x.subs(values, simultaneous=True))


# --- inequalities ---------------------------------------------------------------------------------


def cleared(x: Expr, where: Sequence[Expr]) -> Expr:
    """An expression of the same sign, without a denominator that is positive where others hold.

    >>> import sympy
    >>> e = sympy.Symbol("e")
    >>> cleared(1 - 1 / e, (e,))
    e - 1
    """
    above, below = sympy.fraction(sympy.together(x))
    if below.is_Rational or feasible(where, [-below]):
        return sympy.expand(x)
    return sympy.expand(above)


def feasible(at_least_zero: Iterable[Expr], positive: Iterable[Expr] = ()) -> bool:
    """Whether some values of the symbols make all of these >= 0, and all of those > 0."""
    rows = {(_terms(x), False) for x in at_least_zero} | {(_terms(x), True) for x in positive}
    while True:
        if any(_impossible(row, strict) for row, strict in rows):
            return False
        terms = {term for row, _ in rows for term, _ in row if term is not S.One}
        if not terms:
            return True
        rows = _without(min(terms, key=str), rows)


Row = tuple[frozenset[tuple[Expr, Fraction]], bool]
"""Terms with their factors, and whether their sum is positive or at least zero."""


@lru_cache(maxsize=4096)
def _terms(x: Expr) -> frozenset[tuple[Expr, Fraction]]:
    found = sympy.expand(x).as_coefficients_dict().items()
    return frozenset((term, Fraction(*q.as_numer_denom())) for term, q in found if q != 0)


def _impossible(row: frozenset[tuple[Expr, Fraction]], strict: bool) -> bool:
    if any(term is not S.One for term, _ in row):
        return False
    value = sum(q for _, q in row)
    return value < 0 or (strict and value == 0)


def _without(term: Expr, rows: set[Row]) -> set[Row]:
    """The conditions on the other terms: every lower bound is at most every upper one."""
    low: list[tuple[dict[Expr, Fraction], bool]] = []
    high: list[tuple[dict[Expr, Fraction], bool]] = []
    rest = set[Row]()
    for row, strict in rows:
        factors = dict(row)
        if term not in factors:
            rest.add((row, strict))
        else:
            (low if factors[term] > 0 else high).append((factors, strict))
    for one, strict in low:
        for other, strictly in high:
            p, q = one[term], -other[term]
            sums = {t: q * one.get(t, 0) + p * other.get(t, 0) for t in {*one, *other}}
            rest.add((frozenset((t, x) for t, x in sums.items() if x != 0), strict or strictly))
    return rest


def implied(condition: Expr, by: Iterable[Expr]) -> bool:
    """Whether ``condition`` >= 0 follows from others that are at least zero."""
    return not feasible(by, [-condition])


def vanishes(value: Expr, where: Sequence[Expr]) -> bool:
    """Whether a value is zero wherever the conditions hold."""
    return all(
        not feasible(held, [x]) and not feasible(held, [-x]) for (x,), held in cases([value], where)
    )
