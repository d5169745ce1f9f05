"""Phase diagrams: exact cells, against literal predictions and a published diagram."""

import html
import json
import random
import re
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sympy import Expr, Max, Min, Rational
from typed import Typed

from empirical.report.phase_figure import phase_picture
from scaling.cli.options import NetworkOptions
from scaling.cli.requests import literal_of, problem_of
from scaling.sizes.errors import NotCovered
from scaling.sizes.plane import (
    Arrangement,
    Point,
    area,
    lines_of,
    middle,
    rectangle,
    value,
)
from scaling.solve.phases import AT_START, WHOLE, PhaseDiagram, X, Y, phases
from scaling.solve.predict import Prediction, predict

# --- the plane ------------------------------------------------------------------------------------

WINDOW = rectangle(-2, 2, -2, 2)
RATIONALS = st.fractions(-2, 2, max_denominator=3).map(lambda f: Rational(*f.as_integer_ratio()))


def grown(parts: st.SearchStrategy[Expr]) -> st.SearchStrategy[Expr]:
    return st.one_of(
        st.builds(lambda a, b: a + b, parts, parts),
        st.builds(lambda q, a: q * a, RATIONALS, parts),
        st.builds(lambda a, b: Max(a, b), parts, parts),
        st.builds(lambda a, b: Min(a, b), parts, parts),
    )


EXPONENTS = st.recursive(st.one_of(RATIONALS, st.sampled_from((X, Y))), grown, max_leaves=6)


def numbers(expr: Expr, at: Point) -> Fraction:
    """By sympy alone, which factors maxima without evaluating what is left of them."""
    x, y = (Rational(*v.as_integer_ratio()) for v in at)
    return Fraction(*expr.subs({X: x, Y: y}, simultaneous=True).doit().as_numer_denom())


def inside(cell: tuple[Point, ...], seed: int) -> Point:
    draw = random.Random(seed)
    weights = [Fraction(draw.randint(1, 9)) for _ in cell]
    total = sum(weights)
    return tuple(  # type: ignore[return-value]
        sum(w * p[i] for w, p in zip(weights, cell, strict=True)) / total for i in (0, 1)
    )


@settings(deadline=None, max_examples=25)
@given(EXPONENTS)
@example(Max(Min(Y, 0), Min(Y, 1)))
def test_a_sign_is_one_in_every_cell_and_on_every_edge(expr: Expr) -> None:
    cut = Arrangement.of(WINDOW, lines_of(expr, X, Y, WINDOW))
    assert sum(map(area, cut.cells)) == area(WINDOW)
    for seed, face in enumerate((*cut.cells, *cut.edges)):
        one, other = middle(face), inside(face, seed)
        found = [numbers(expr, at) for at in (one, other)]
        assert found == [value(expr, X, Y, at) for at in (one, other)]
        assert (found[0] > 0, found[0] < 0) == (found[1] > 0, found[1] < 0), (expr, face)


def test_without_its_lines_a_cell_has_both_signs() -> None:
    expr = Max(X, Y) - 1
    (cell,) = Arrangement.of(WINDOW, ()).cells
    assert numbers(expr, middle(cell)) < 0 < numbers(expr, inside(cell, 3)) + 2
    assert len(Arrangement.of(WINDOW, lines_of(expr, X, Y, WINDOW)).cells) > 1


def test_products_of_the_two_are_refused() -> None:
    with pytest.raises(NotCovered, match="not piecewise linear"):
        lines_of(X * Y, X, Y, WINDOW)


# --- regimes --------------------------------------------------------------------------------------


def predicted(rule: str, *given: str) -> Prediction:
    problem = problem_of(rule, list(given), NetworkOptions(), practice=True)
    return predict(problem, *literal_of(problem))


def diagram(
    rule: str, x: str, y: str, window: str, layer: str = WHOLE, *given: str
) -> PhaseDiagram:
    ends = [end for pair in window.split(",") for end in pair.split(":")]
    return phases(predicted(rule, *given, f"{x}=x", f"{y}=y"), x, y, ends, layer)


@pytest.mark.parametrize(
    ("rule", "x", "y", "window"),
    [
        ("sgd", "b_output", "c", "0:2,-1:2"),
        ("adam", "d_eps", "c_hidden", "-1:2,-1:2"),
        ("kfac", "d_rho_A", "c_hidden", "-2:2,-2:2"),
        ("shampoo", "d_rho_L_output", "c_output", "-2:2,-2:2"),
        ("sgd_penalised", "d_decay_hidden", "c_hidden", "-2:2,-1:2"),
    ],
)
@pytest.mark.parametrize("layer", ["hidden", "output"])
def test_a_layer_has_the_regime_that_a_literal_prediction_names(
    rule: str, x: str, y: str, window: str, layer: str
) -> None:
    found = diagram(rule, x, y, window, layer)
    places = [at for _, at in found.places] + [at for at, _ in found.corners]
    for p, q in places:
        literal = predicted(rule, f"{x}={p}", f"{y}={q}").layers[layer]
        assert literal.regime == found.regime((p, q)), (p, q)
    assert len(places) > 2 or layer not in x + y


def yang_hu(a: Fraction, c: Fraction) -> str:
    """arXiv 2011.14522, Theorem 3.3 and Section 3.2, at b = 1/2, a_1 = -1/2, a_2 = 0 and a_3 = a.

    r = min(a_3 + b_3, 2 a_3 + c) + c - 1 + min_l (2 a_l + [l = 1]), l from 1 to 2.
    """
    half = Fraction(1, 2)
    r = min(a + half, 2 * a + c) + c - 1 + min(2 * -half + 1, 0)
    if a + half < half:
        return AT_START
    if r < 0 or 2 * a + c < 1 or a + half + r < 1:
        return "unstable"
    if r == 0:
        return "features"
    return "frozen" if a + half + r > 1 and 2 * a + c > 1 else "lazy"


def test_sgd_has_the_published_diagram_of_a_and_c() -> None:
    given = ("a_input=-1/2", "a_hidden=0", "b=1/2")
    found = diagram("sgd", "a_output", "c", "-1/2:3/2,-1:2", WHOLE, *given)
    draw = random.Random(0)
    places = [at for _, at in found.places] + [at for at, _ in found.corners]
    places += [
        (Fraction(draw.randint(-4, 12), 8), Fraction(draw.randint(-8, 16), 8)) for _ in "x" * 60
    ]
    told = {"maximal": "features", "sub-maximal": "features"}
    seen = set()
    for at in places:
        regime = found.regime(at)
        seen.add(regime)
        assert told.get(regime, regime) == yang_hu(*at), at
    assert seen >= {AT_START, "unstable", "lazy", "frozen", "maximal"}  # mup: a = 1/2, c = 0
    assert found.regime((Fraction(1, 2), Fraction(0))) == "maximal"


def test_boundaries_are_formulas_and_joined_segments() -> None:
    found = diagram("kfac", "d_rho_A", "c_hidden", "-2:2,-2:2")
    told = {(b.equation, b.on): (b.start, b.end) for b in found.boundaries}
    assert told["c_hidden = d_rho_A + 1", "sub-maximal"] == ((-2, -1), (-1, 0))
    assert told["c_hidden = 0", "maximal"] == ((0, 0), (2, 0))
    for b in found.boundaries:
        assert not b.on == b.below == b.above
        assert found.regime(middle((b.start, b.end))) == b.on
        step = Fraction(1, 1000)
        (p, q), upright = middle((b.start, b.end)), b.start[0] == b.end[0]
        beside = ((p - step, q), (p + step, q)) if upright else ((p, q - step), (p, q + step))
        assert [found.regime(at) for at in beside] == [b.below, b.above]


# --- the command ----------------------------------------------------------------------------------


def test_the_command_prints_draws_and_gives_data(typed: Typed, tmp_path: Path) -> None:
    words = ("phase", "kfac", "--x", "d_rho_A", "--y", "c_hidden", "--window=-2:2,-2:2")
    text = typed(*words, "--picture", str(tmp_path / "phases.svg"))
    assert text.code == 0 and "c_hidden = d_rho_A + 1" in text.out
    drawn = (tmp_path / "phases.svg").read_text()
    assert drawn.startswith("<?xml") and written_in(drawn) >= {
        "c_hidden = d_rho_A + 1",
        "d_rho_A = 0",
    }
    assert not [text for text in written_in(drawn) if "measured" in text]
    data = json.loads(typed(*words, "--format", "json").out)
    assert {region["regime"] for region in data["regions"]} == {
        "unstable", "sub-maximal", "lazy", "frozen",
    }  # fmt: skip
    assert data["boundaries"][0]["regime"] == "maximal"
    corners = [[Fraction(v) for v in p] for p in data["regions"][0]["polygons"][0]]
    assert all(-2 <= v <= 2 for p in corners for v in p)


def written_in(svg: str) -> set[str]:
    """The texts of a picture, which stand in comments before their shapes."""
    return {html.unescape(text) for text in re.findall(r"<!-- (.*?) -->", svg)}


def test_marks_of_measured_places_are_named() -> None:
    found = diagram("kfac", "d_rho_A", "c_hidden", "-2:2,-2:2")
    told = ["agree", "contradict", "inconclusive"]
    marked = {at: told[i % 3] for i, (_, at) in enumerate(found.places)}
    drawn = written_in(phase_picture(found, marked, "svg").decode())
    assert drawn >= {f"measured: {verdict}" for verdict in told}


def test_a_place_that_does_not_agree_says_why(typed: Typed) -> None:
    """Two seeds in narrow networks leave it open, and the damping is near what it is added to."""
    few = ("--widths", "16,32,64", "--seeds", "2", "--threads", "1", "--of", "hidden")
    words = ("--x", "d_rho", "--y", "c_hidden", "--window=-3/2:-5/4,1:2", "--points")
    done = typed("phase", "G @ (A + rho*I)**(-1)", *words, *few)
    text = " ".join(done.out.split())
    assert done.code == 3
    assert re.search(r"(crossover|inconclusive) at \(-11/8, [\d/]+\), own hidden: \S+", text), text


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--window=-1:2,0:1",), "b_output from -1 to 2"),
        (("--window", "0:2"), "--window 0:2"),
        (("--window", "0:a,0:1"), "the window 0, a, 0, 1"),
        (("--window", "2:0,0:1"), "ends before it starts"),
        (("--x", "b_foo"), "setting 'b_foo'"),
        (("--x", "c"), "--x c and --y c"),
        (("--of", "inner"), "layer 'inner'"),
        (("--picture", "phases.gif"), "--picture phases.gif"),
        (("--picture", "no_such_folder/p.svg"), "--picture no_such_folder/p.svg"),
    ],
)
def test_bad_input_is_refused(words: tuple[str, ...], told: str, typed: Typed) -> None:
    done = typed("phase", "sgd", *words)
    assert done.code == 2 and not done.out and told in done.err.split("\n")[0]


def test_places_are_measured(typed: Typed, tmp_path: Path) -> None:
    few = ("--widths", "256,1024,4096", "--seeds", "8", "--margin", "0.1", "--threads", "1")
    words = ("--x", "c_input", "--y", "c_hidden", "--window=-3/2:-1/2,0:1", "--of", "input")
    done = typed("phase", "sgd", *words, "--points", "--picture", str(tmp_path / "p.png"), *few)
    assert done.code == 0, done.out + done.err
    assert len(re.findall(r"agree *$", done.out, re.MULTILINE)) == 3
    assert "boundaries: wide 256..4,096 (8 seeds" in " ".join(done.out.split())
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
