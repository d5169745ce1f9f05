"""Nothing that is printed as text is wider than it may be: the whole catalogue, every layer."""

from functools import cache

import pytest
from sympy import Expr
from tour import tour

from derivations.catalogue import catalogue, families
from empirical.fit.exponent import estimate
from empirical.fit.verdict import Verdict
from empirical.report.measured_tables import render_lines
from empirical.verify.derivation_lines import Line
from scaling.cli.listing import catalogue_text, declared_table
from scaling.cli.requests import problem_with, solution_of
from scaling.report.step_lines import Derivation, render_steps
from scaling.report.tables import (
    Format,
    catalogue_table,
    compared_table,
    derived_table,
    predicted_table,
    render,
)
from scaling.report.wrapping import WIDTH, Entry, grid, listing, titled, wrapped
from scaling.rules.parser import parse
from scaling.sizes.errors import NotCovered
from scaling.solve.derive import Derived, derive
from scaling.solve.predict import predict
from scaling.solve.symmetry import compare

NAMES = list(tour())
LIST_WIDTH = 120
WIDE = estimate((64, 128), [[1.0, 1.0], [1e9, 1e-30]])
"""An estimate with an interval as long as any."""


def widest(text: str) -> int:
    return max(map(len, text.split("\n")))


@cache
def solved(name: str, step: int, practice: bool = False) -> Derived | None:
    try:
        return solution_of(problem_with(name, biases=True, practice=practice, step=step))
    except NotCovered:
        return None


def test_both_steps_of_most_rules_are_looked_at() -> None:
    assert [name for name in NAMES if solved(name, 1) is None] == []
    silent = {name for name in NAMES if solved(name, 2) is None}
    eigenbases = {"soap", "soap_one_sided", "ekfac", "splus", "conda", "galore"}
    eigenbases |= {"adadiag", "adadiag_two_sided"}
    uphill, along_weights = {"sam", "sam_adam", "sassha"}, {"adamp", "sgdp", "orthograd"}
    refused = {*eigenbases, *uphill, *along_weights, "qhadam"}
    assert silent == refused & set(NAMES)


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_a_derivation_fits(name: str, step: int) -> None:
    found = solved(name, step)
    for layer, line in (found.steps if found else {}).items():
        text = render_steps(Derivation(found.problem.rule, layer, line), Format.TEXT)
        assert widest(text) <= WIDTH, layer


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_a_measured_derivation_fits(name: str, step: int) -> None:
    found = solved(name, step, practice=True)
    for layer, line in (found.steps if found else {}).items():
        x: Expr = line.result.width
        lines = [Line(layer, s, x, WIDE, Verdict.inconclusive) for s in line.lines()]
        text = render_lines(Derivation(found.problem.rule, layer, line), lines, "text")
        assert widest(text) <= WIDTH, layer
        assert text.count("inconclusive") == len(lines)


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_tables_of_answers_fit(name: str, step: int) -> None:
    found, sgd = solved(name, step), solved("sgd", step)
    if found is None or sgd is None:
        return
    assert widest(render(derived_table(found), Format.TEXT)) <= WIDTH
    foreseen = predict(found.problem, found.exponents, found.bounds)
    assert widest(render(predicted_table(foreseen), Format.TEXT)) <= WIDTH
    differences = compare(found.problem, found.exponents, sgd.problem, sgd.exponents)
    text = render(compared_table(str(found.problem.rule), "sgd", differences), Format.TEXT)
    assert widest(text) <= WIDTH


def test_the_table_of_the_catalogue_fits() -> None:
    results = [found for found in (solved(name, 1) for name in NAMES) if found]
    assert widest(render(catalogue_table(results, {"x": "y " * 200}), Format.TEXT)) <= WIDTH


LONG = [
    "G" + " @ (A + rho*I)**(-1)" * 12,
    "norm(G)/norm(P)*P where P = G" + " @ (A + rho*I)**(-1)" * 12,
    f"G*{'long_' * 30}name",
]


@pytest.mark.parametrize("text", LONG)
def test_rules_longer_than_any_of_the_catalogue_fit(text: str) -> None:
    found = derive(parse(text))
    assert widest(render(derived_table(found), Format.TEXT)) <= WIDTH
    for layer, line in found.steps.items():
        shown = Derivation(found.problem.rule, layer, line)
        assert widest(render_steps(shown, Format.TEXT)) <= WIDTH


def test_a_wide_table_keeps_every_word_and_every_cell() -> None:
    words = [f"word{i}" for i in range(60)]
    rows = [("a", " ".join(words), "z"), ("b", "short", " ".join(words[:20]))]
    lines = grid(("one", "two", "three"), rows)
    assert widest("\n".join(lines)) <= WIDTH
    assert sorted(" ".join(lines[2:]).split()) == sorted(
        ["a", "z", "b", "short", *words, *words[:20]]
    )
    assert [line[0] for line in lines if line[0] != " "] == ["o", "-", "a", "b"]
    assert grid(("x", "y"), [("1", "2")]) == ["x  y", "-  -", "1  2"]


def test_lines_that_do_not_fit_are_continued_below() -> None:
    cells = ("~ M^(" + "1 + " * 30 + "1)", "entry", "[sum of 1, 2]")
    lines = listing([Entry("x " * 60, cells, ("because " * 30,)), Entry("y", ("~ 1", "", "[z]"))])
    assert widest("\n".join(lines)) <= WIDTH
    assert " ".join(lines).split().count("x") == 60
    assert [line[:4] for line in lines if line[:3].strip()] == ["  1 ", "  2 "]


def test_headings_put_each_part_on_a_line() -> None:
    assert titled("a: dW = P + Q where P = G, Q = f(G, 1)") == [
        "a: dW = P + Q",
        "  where P = G",
        "        Q = f(G, 1)",
    ]
    assert titled("where that is, is prose") == wrapped("where that is, is prose")


def test_the_list_of_the_catalogue_fits_and_has_a_line_an_optimizer() -> None:
    lines = catalogue_text(families()).split("\n")
    assert max(map(len, lines)) <= LIST_WIDTH
    named = [line.split()[0] for line in lines[4:] if "  " in line]
    assert named == list(catalogue())
    assert [claim for claim in families() if claim in lines] == list(families())
    for name in catalogue():
        assert widest(render(declared_table(catalogue()[name]), Format.TEXT)) <= WIDTH
