"""Parametrizations and alignments of arXiv 2407.05872, derived, and by its own constraints."""

import pytest
from sympy import Expr, Max, Rational, S

from derivations.catalogue import find
from empirical.campaign import Experiment
from empirical.data import load
from empirical.verdict import Verdict
from empirical.verify import verify
from scaling.alignment import Alignment
from scaling.errors import InvalidInput
from scaling.ledger import Setting, mlp
from scaling.presets import ALIGNMENTS, PARAMETRIZATIONS, alignments, parametrization
from scaling.problem import Problem
from scaling.questions import literal_of, problem_of, resolve
from scaling.settings import read_settings
from scaling.solve import Derived, derive
from scaling.symmetry import compare

HALF = Rational(1, 2)
LAYERS = ("input", "hidden", "output")
RULES = ("sgd", "adam", "adafactor_relative")


def derived(rule: str, init: str, how: str) -> Derived:
    setting = Setting(mlp(3), alignments=alignments(how.split(";"), mlp(3)))
    known = find(rule).rule
    chosen = read_settings(parametrization(init, setting.layers), known, setting.layers)
    return derive(known, chosen, setting)


def by_its_constraints(rule: str, init: str, how: Alignment) -> dict[str, Expr]:
    """The smallest c with r_l = 0 (Everett et al., Sec. 3), in the signs of that paper.

    g is minus the exponent of a gradient entry, or what stands in its place: nothing for Adam,
    the parameter's RMS for Adafactor. Then r = g + a + c - alpha (or - u, which comes with dW dz),
    without an alignment in the embedding layer; omega enters through a + b + r - omega >= 0 alone.
    """
    table = PARAMETRIZATIONS[init]
    a = {k: x[0] for k, x in table.items()}
    b = {k: x[1] for k, x in table.items()}
    back = a["output"] + b["output"]
    g = {
        "sgd": {k: a[k] + (S.Zero if k == "output" else back) for k in LAYERS},
        "adam": dict.fromkeys(LAYERS, S.Zero),
        "adafactor_relative": b,
    }[rule]
    assert back - how.omega >= 0
    adds_up = {"input": S.Zero, "hidden": Max(how.alpha, how.u), "output": Max(how.alpha, how.u)}
    return {k: adds_up[k] - g[k] - a[k] for k in LAYERS}


@pytest.mark.parametrize("how", ALIGNMENTS)
@pytest.mark.parametrize("init", PARAMETRIZATIONS)
@pytest.mark.parametrize("rule", RULES)
def test_learning_rates_are_those_of_the_paper(rule: str, init: str, how: str) -> None:
    found = derived(rule, init, how).exponents
    assert found.c == by_its_constraints(rule, init, ALIGNMENTS[how])
    assert {k: (found.a[k], found.b[k]) for k in LAYERS} == PARAMETRIZATIONS[init]


@pytest.mark.parametrize("rule", RULES)
def test_full_and_no_alignment_differ_by_a_half_above_the_input(rule: str) -> None:
    full, none = (derived(rule, "standard", how).exponents.c for how in ("full", "none"))
    assert [full[k] - none[k] for k in LAYERS] == [0, HALF, HALF]
    between = derived(rule, "standard", "3/4,1/2,1/2").exponents.c
    assert [full[k] - between[k] for k in LAYERS] == [0, HALF / 2, HALF / 2]


@pytest.mark.parametrize("how", ["full", "none", "derived"])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    ("left", "right", "same"),
    [("standard", "ntk", True), ("mup", "mean_field", True), ("standard", "mup", False)],
)
def test_classes_of_parametrizations_are_gauge_orbits_eps_included(
    rule: str, left: str, right: str, same: bool, how: str
) -> None:
    one, two = derived(rule, left, how), derived(rule, right, how)
    result = compare(one.problem, one.exponents, two.problem, two.exponents)
    assert result.equivalent is same, result.differences


def test_what_the_calculus_derives_is_full_alignment_with_an_aligned_readout() -> None:
    for init, gap in (("mup", 0), ("standard", HALF)):
        free, full = (derived("adam", init, how).exponents.c for how in ("derived", "full"))
        assert free["hidden"] - full["hidden"] == free["input"] - full["input"] == gap
    aligned = derived("adam", "mup", "1,1,1").exponents.c
    assert aligned["output"] == derived("adam", "mup", "derived").exponents.c["output"]


def test_a_wrong_alignment_is_contradicted_by_measurement() -> None:
    def verdicts(how: str) -> set[Verdict]:
        problem: Problem = problem_of("muon", None, practice=True, alignment=[how])
        row = (problem, *literal_of(problem), resolve("muon"))
        few = Experiment((64, 128, 256, 512), 6, 0.2, load("digits", samples=8, probe=8))
        return {c.verdict for c in verify([row], few).checks if c.quantity == "own"}

    assert Verdict.contradict not in verdicts("derived")
    assert Verdict.contradict in verdicts("none")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("half", "found: alignment 'half'"),
        ("1,1/3,1", "found: the alignment omega = 1/3\nneeded: a number between 1/2"),
        ("5/4,1/2,1", "found: the alignment alpha = 5/4"),
        ("x,1/2,1", "found: the alignment alpha = x"),
    ],
)
def test_an_alignment_out_of_range_is_named(text: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        alignments([text], mlp(3))


def test_an_unknown_parametrization_names_the_nearest() -> None:
    with pytest.raises(InvalidInput, match="did you mean 'ntk'"):
        parametrization("nkt", mlp(3))


def test_settings_overrule_a_parametrization() -> None:
    problem = problem_of("adam", ["b_output=1"], init="standard")
    assert problem.settings.b["output"] == 1 and problem.settings.b["hidden"] == HALF
