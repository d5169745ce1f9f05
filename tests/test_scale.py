"""Laws of exponents: Scale is an ordered semiring, and Bounds never claims more than it knows.

The master law is substitution: whatever values the symbols take, the exponent of a sum is the
larger of the two exponents. Every other law of sums follows from it.
"""

import contextlib
from fractions import Fraction

import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st
from sympy import Expr, Max, Rational, S, Symbol

from scaling.sizes.errors import NotCovered
from scaling.sizes.scale import WIDTH, Bounds, Order, Scale, Size, exponent

law = settings(max_examples=60, deadline=None, derandomize=True)

e_A, e_B, b, x = (Symbol(name) for name in ("e_A", "e_B", "b", "x"))
KNOWN = Bounds(
    {
        "e_A": (S.Zero, S.Infinity),
        "e_B": (S.Zero, S.Infinity),
        "b": (S.Half, S.Infinity),
    }
)
NOTHING = Bounds()
POINTS = [
    {e_A: p, e_B: q, b: r, x: s}
    for p in (S.Zero, Rational(1, 3), S(4))
    for q in (S.Zero, S(2))
    for r in (S.Half, S(3))
    for s in (S(-5), Rational(1, 7))
]

rationals = st.fractions(-3, 3, max_denominator=4).map(exponent)
terms = st.sampled_from([S.One, e_A, e_B, b, x, e_B * b])


@st.composite
def affine(draw: st.DrawFn) -> Expr:
    parts = draw(st.lists(st.tuples(rationals, terms), min_size=1, max_size=3))
    return sympy.expand(sum(c * t for c, t in parts))


@st.composite
def sizes(draw: st.DrawFn, of: Size = Size.ENTRY) -> Scale:
    if draw(st.integers(0, 9)) == 0:
        return Scale.zero(of)
    return Scale.of_width(draw(affine()), of)


def at(scale: Scale, point: dict[Symbol, Expr]) -> Expr:
    return scale.width.subs(point)


def assert_same(left: Scale, right: Scale) -> None:
    assert left.of is right.of
    for i, point in enumerate(POINTS):
        assert at(left, point) == at(right, point), (i, point, left, right)


# --- products and powers ------------------------------------------------------------------------


@law
@given(sizes(), sizes(), sizes())
def test_products_associate_and_commute(p: Scale, q: Scale, r: Scale) -> None:
    assert_same((p * q) * r, p * (q * r))
    assert_same(p * q, q * p)


@law
@given(sizes())
def test_one_is_neutral_and_zero_absorbs(p: Scale) -> None:
    assert p * Scale.one(Size.SCALAR) == p
    assert p * Scale.zero(Size.SCALAR) == Scale.zero(Size.ENTRY)
    assert Scale.zero(Size.ENTRY) * p == Scale.zero(Size.ENTRY)


@law
@given(affine(), affine(), rationals, rationals)
def test_powers_obey_the_power_laws(u: Expr, v: Expr, p: Expr, q: Expr) -> None:
    one, two = (Scale.of_width(w, Size.ENTRY) for w in (u, v))
    assert_same((one * two) ** p, one**p * two**p)
    assert_same(one**p * one**q, one ** (p + q))
    assert_same((one**p) ** q, one ** (p * q))
    assert_same(one / two, one * two**-1)
    assert_same(one.root() * one.root(), one)


@law
@given(sizes(), rationals)
def test_zero_has_positive_powers_only(p: Scale, power: Expr) -> None:
    zero = Scale.zero(Size.ENTRY)
    if power > 0:
        assert zero**power == zero
    elif power == 0:
        assert zero**power == Scale.one(Size.ENTRY)
    else:
        with pytest.raises(NotCovered, match=r"exactly zero to the power"):
            zero**power


# --- sums -----------------------------------------------------------------------------------------


@law
@given(affine(), affine())
@pytest.mark.parametrize("known", [KNOWN, NOTHING], ids=["bounded", "unbounded"])
def test_a_sum_is_the_larger_term_whatever_the_symbols_are(known: Bounds, u: Expr, v: Expr) -> None:
    total = known.larger(u, v)
    for i, point in enumerate(POINTS):
        expected = max(u.subs(point), v.subs(point))
        assert total.subs(point) == expected, (i, point, u, v, total)


@law
@given(sizes(), sizes(), sizes())
def test_sums_associate_commute_and_repeat_nothing(p: Scale, q: Scale, r: Scale) -> None:
    assert_same(p.plus(q, KNOWN).plus(r, KNOWN), p.plus(q.plus(r, KNOWN), KNOWN))
    assert_same(p.plus(q, KNOWN), q.plus(p, KNOWN))
    assert p.plus(p, KNOWN) == p
    assert_same(p.plus(q, KNOWN).plus(q, KNOWN), p.plus(q, KNOWN))


@law
@given(sizes(), sizes(), sizes())
def test_products_distribute_over_sums(p: Scale, q: Scale, r: Scale) -> None:
    assert_same(p * q.plus(r, KNOWN), (p * q).plus(p * r, KNOWN))


@law
@given(sizes())
def test_zero_is_neutral_in_sums(p: Scale) -> None:
    assert p + Scale.zero(Size.ENTRY) == p
    assert Scale.zero(Size.ENTRY) + p == p


@law
@given(affine(), affine())
def test_the_order_holds_for_every_admissible_value(u: Expr, v: Expr) -> None:
    order = KNOWN.order(u, v)
    for i, point in enumerate(POINTS):
        gap = u.subs(point) - v.subs(point)
        holds = {
            Order.LESS: gap < 0,
            Order.EQUAL: gap == 0,
            Order.GREATER: gap > 0,
            Order.OPEN: True,
        }[order]
        assert holds, (i, point, u, v, order)


@law
@given(affine(), affine())
def test_the_order_of_a_pair_is_the_reverse_of_the_swapped_pair(u: Expr, v: Expr) -> None:
    reverse = {Order.LESS: Order.GREATER, Order.GREATER: Order.LESS}
    order = KNOWN.order(u, v)
    assert KNOWN.order(v, u) is reverse.get(order, order)


DECIDED = [
    (S.One, S.Zero, S.One),
    (e_A, S.Zero, e_A),  # e_A >= 0: equality somewhere does not need a Max
    (-e_A, S.Zero, S.Zero),
    (1 - 2 * b, S.Zero, S.Zero),
    (b + e_A, S.Half, b + e_A),
    (1 + e_A + e_B, e_B, 1 + e_A + e_B),
    (S.NegativeInfinity, x, x),
    (e_B * b, S.Zero, e_B * b),
    (e_A + x, x, e_A + x),
]
UNDECIDED = [
    (1 - b, S.Zero),
    (e_A, e_B),
    (e_A, S.One),
    (x, S.Zero),
    (e_B * b, e_A),
    (Max(e_A, 1), b),
    (e_A * x, S.Zero),  # x may have either sign
]


@pytest.mark.parametrize(("u", "v", "expected"), DECIDED)
def test_a_decided_sum_carries_no_max(u: Expr, v: Expr, expected: Expr) -> None:
    assert KNOWN.larger(u, v) == expected
    assert KNOWN.larger(v, u) == expected


@pytest.mark.parametrize(("u", "v"), UNDECIDED)
def test_an_undecided_sum_is_a_max_and_never_a_guess(u: Expr, v: Expr) -> None:
    assert KNOWN.order(u, v) is Order.OPEN
    assert KNOWN.larger(u, v).has(Max)


def test_bounds_are_what_decides() -> None:
    assert Bounds().larger(1 - 2 * b, S.Zero).has(Max)
    assert Bounds({"b": (S.Half, S.Infinity)}).larger(1 - 2 * b, S.Zero) == 0


# --- kinds of size, axes, exactness ---------------------------------------------------------------

KINDS = [Size.ENTRY, Size.SPECTRAL, Size.FROBENIUS]


@pytest.mark.parametrize("one", KINDS)
@pytest.mark.parametrize("other", KINDS)
def test_unlike_sizes_never_combine(one: Size, other: Size) -> None:
    p, q = Scale.of_width(1, one), Scale.of_width(2, other)
    if one is other:
        assert (p * q).of is one
        assert (p + q).of is one
        return
    for combine in (lambda: p * q, lambda: p + q, lambda: p / q):
        with pytest.raises(TypeError, match=f"a {one} and a {other} do not"):
            combine()


@pytest.mark.parametrize("kind", KINDS)
def test_a_scalar_multiplies_every_size_but_is_added_to_none(kind: Size) -> None:
    scalar, size = Scale.of_width(1, Size.SCALAR), Scale.of_width(2, kind)
    assert (scalar * size).of is (size * scalar).of is kind
    with pytest.raises(TypeError, match="do not add"):
        scalar + size


def over(**exponents: int) -> Scale:
    return Scale.over(exponents, Size.ENTRY)


AXES = [
    (over(width=2, depth=1), over(width=1, depth=1), over(width=2, depth=1)),
    (over(width=1), over(width=1, depth=1), over(width=1, depth=1)),
    (over(width=-1, depth=-2), over(), over()),
    (over(width=1, depth=1), over(width=1, depth=1), over(width=1, depth=1)),
]


@pytest.mark.parametrize(("p", "q", "expected"), AXES)
def test_along_several_axes_the_term_that_dominates_on_all_wins(
    p: Scale, q: Scale, expected: Scale
) -> None:
    assert p + q == expected
    assert q + p == expected


@pytest.mark.parametrize(
    ("p", "q"),
    [
        (over(width=1), over(depth=1)),
        (over(width=1, depth=-1), over()),
        (over(width=2, depth=1), over(width=1, depth=2)),
        (Scale.over({WIDTH: x, "depth": 1}, Size.ENTRY), over()),
    ],
)
def test_axes_that_disagree_are_refused(p: Scale, q: Scale) -> None:
    for one, other in ((p, q), (q, p)):
        with pytest.raises(NotCovered, match="neither is larger along every axis"):
            one + other


def test_products_add_axis_by_axis_and_forget_zeros() -> None:
    assert over(width=1, depth=2) * over(width=-1, batch=1) == over(depth=2, batch=1)
    assert str(over(width=1, depth=2)) == "depth^(2) M^(1)"


@pytest.mark.parametrize("value", [0.5, 1.0, -0.1])
def test_a_float_is_no_exponent(value: float) -> None:
    with pytest.raises(TypeError, match=f"write {Fraction(str(value))} instead of {value}"):
        exponent(value)


@pytest.mark.parametrize("value", ["1/2", Fraction(1, 2), Rational(1, 2), "0.5"])
def test_exponents_are_exact_rationals(value: object) -> None:
    assert exponent(value) == Rational(1, 2)
    assert exponent(value).is_Rational


# --- text, names, and the order of terms ----------------------------------------------------------


def test_text_given_as_an_exponent_is_not_evaluated(capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.suppress(TypeError, ValueError):
        exponent("print('evaluated')")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["beta", "gamma", "zeta", "S"])
def test_a_name_given_as_an_exponent_is_a_symbol(name: str) -> None:
    assert exponent(name) == Symbol(name)


def test_the_order_of_terms_does_not_show_in_the_exponent() -> None:
    u, v = e_A + x, e_A + 1
    assert KNOWN.larger(u, v) == KNOWN.larger(v, u)


# --- how soon a size holds ----------------------------------------------------------------------


def sized(x: str, of: Size = Size.ENTRY) -> Scale:
    return Scale.of_width(x, of)


@law
@given(st.lists(rationals, min_size=1, max_size=4))
def test_the_gap_of_a_sum_is_the_distance_to_the_next_smaller_term(parts: list[Expr]) -> None:
    total = sum((Scale.of_width(x, Size.ENTRY) for x in parts), Scale.zero(Size.ENTRY))
    below = [max(parts) - x for x in parts if x != max(parts)]
    assert total.gap == min(below, default=S.Infinity)


def test_the_gap_of_a_product_is_the_least_of_its_factors_and_no_part_of_the_size() -> None:
    quarter = sized("1") + sized("3/4")
    third = sized("0", Size.SCALAR) + sized("-1/3", Size.SCALAR)
    assert (quarter * third).gap == (third / quarter.as_size_of(Size.SCALAR)).gap == Rational(1, 4)
    assert (quarter**-2).gap == quarter.root().gap == Rational(1, 4)
    assert (quarter**0).gap == S.Infinity
    assert quarter == sized("1") and hash(quarter) == hash(sized("1"))
    assert (quarter + sized("2")).gap == 1, "what is dropped takes its own gap with it"
