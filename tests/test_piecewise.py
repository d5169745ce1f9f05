"""Exponents in one symbol: the same function in a canonical form, with its exact range."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sympy import Expr, Max, Rational, S, Symbol, oo, symbols

from scaling.sizes.piecewise import canonical, read
from scaling.sizes.scale import Bounds, Order

X = Symbol("x")
RATIONALS = st.fractions(-3, 3, max_denominator=4).map(
    lambda f: Rational(f.numerator, f.denominator)
)


def grown(parts: st.SearchStrategy[Expr]) -> st.SearchStrategy[Expr]:
    return st.one_of(
        st.builds(lambda a, b: a + b, parts, parts),
        st.builds(lambda q, a: q * a, RATIONALS, parts),
        st.builds(lambda a, b: Max(a, b, evaluate=False), parts, parts),
    )


EXPONENTS = st.recursive(st.one_of(RATIONALS, st.just(X)), grown, max_leaves=8)


def value(expr: Expr, x: Rational) -> Rational:
    """By the definition of each operation, without sympy's rules for maxima."""
    if isinstance(expr, Max):
        return max(value(arg, x) for arg in expr.args)
    if expr.is_Add:
        return sum((value(arg, x) for arg in expr.args), S.Zero)
    if expr.is_Mul:
        factor, rest = expr.as_coeff_Mul()
        return factor * value(rest, x)
    return x if expr == X else expr


@settings(deadline=None, max_examples=200)
@given(EXPONENTS, st.lists(RATIONALS, min_size=3, max_size=6))
def test_the_canonical_form_is_the_same_function(expr: Expr, places: list[Rational]) -> None:
    form = canonical(expr)
    found = read(expr) if expr.free_symbols else None
    corners = () if found is None else found.corners
    for x in (*places, *corners, Rational(-100), Rational(100)):
        assert value(form, x) == value(expr, x), (expr, form, x)
        if found is not None:
            assert found.at(x) == value(expr, x)


@settings(deadline=None, max_examples=100)
@given(EXPONENTS, EXPONENTS)
def test_one_function_has_one_form(f: Expr, g: Expr) -> None:
    """Max(f, g) + min(f, g) = f + g, however it is written."""
    smaller = -Max(-f, -g, evaluate=False)
    written = Max(f, g, evaluate=False) + smaller
    for a, b in ((written, f + g), (Max(g, f, f, evaluate=False), Max(f, g, evaluate=False))):
        if a.free_symbols and b.free_symbols:
            assert read(a) == read(b)
            zero = a - b if a != b else S.Zero
            assert Bounds().order(a, b) is Order.EQUAL, zero


@settings(deadline=None, max_examples=100)
@given(EXPONENTS, RATIONALS, RATIONALS)
def test_the_range_is_that_of_its_values(expr: Expr, one: Rational, other: Rational) -> None:
    function = read(expr)
    if function is None:
        return
    low, high = sorted((one, other))
    least, largest = function.range(low, high)
    step = (high - low) / 24
    values = [value(expr, low + i * step) for i in range(25)]
    values += [value(expr, t) for t in function.corners if low <= t <= high]
    assert (least, largest) == (min(values), max(values))
    if low < high:  # what is the same between the two may differ beyond them
        within = canonical(expr, low, high)
        assert [value(within, low + i * step) for i in range(25)] == values[:25]


@pytest.mark.parametrize(
    ("expr", "form"),
    [
        (Max(0, 1 - X) - Max(1 - X, 2 - 2 * X), X - 1),
        (1 + Max(0, X), Max(1, X + 1)),
        (Max(X, -X, 1), Max(1, X, -X)),
        (-Max(X, Max(0, X) - 1), -Max(-1, X)),
        (2 - Max(0, X) - Max(0, -X), 2 + X - Max(0, 2 * X)),
        (Max(0, X) - Max(0, X - 1), Max(0, X) - Max(0, X - 1)),
        (-Max(-S.Half, -X / 3 - S.Half), S.Half - Max(0, -X / 3)),
        (1 - X - Max(0, 1 - X), -Max(0, X - 1)),
    ],
)
def test_forms_are_those_that_one_would_write(expr: Expr, form: Expr) -> None:
    assert canonical(expr) == form


def test_what_is_known_of_the_symbol_leaves_less() -> None:
    expr = Max(0, X) + Max(0, X - 2)
    assert canonical(expr, S.Zero, S.Infinity) == Max(X, 2 * X - 2)
    assert canonical(expr, S.Zero, Rational(2)) == X
    assert canonical(expr, S.NegativeInfinity, S.Zero) == 0
    assert canonical(expr, S.One, S.One) == expr, "a value is no interval"
    bounds = Bounds({"x": (S.Zero, oo)})
    assert bounds.larger(Max(0, X), 2 * X - 2) == Max(X, 2 * X - 2)
    assert Bounds().larger(Max(0, X), 2 * X - 2) == Max(0, X, 2 * X - 2)
    assert bounds.range(Max(1, X) - X) == (0, 1), "terms that are wide apart, and cancel"
    assert Bounds().range(expr) == (0, oo) and Bounds().range(-expr) == (-oo, 0)


def test_other_exponents_are_left_as_they_are() -> None:
    y = symbols("y")
    for expr in (Max(X, y), Max(X**2, X), Max(X, X * y), S.Half, S.NegativeInfinity, X):
        assert canonical(expr) == expr
    assert read(Max(X, Rational(1, 2))) is not None and read(Max(X, X**2)) is None
    assert read(Max(X, y)) is None and read(S.One) is None


def test_bounds_may_be_plain_numbers_and_what_is_not_piecewise_stays_flat() -> None:
    assert Bounds({"x": (0, 1)}).order(Max(X, 0), X) is Order.EQUAL
    curved = Bounds().larger(Max(X**2, X), 3 * X)
    assert isinstance(curved, Max) and not any(isinstance(arg, Max) for arg in curved.args)
