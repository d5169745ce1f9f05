"""Parametrizations and alignments of arXiv 2407.05872, derived, and by its own constraints."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
import torch
from sympy import Expr, Max, Rational, S
from torch import Tensor

from derivations.catalogue import find
from empirical.data.sources import load
from empirical.fit.verdict import Verdict
from empirical.measure.training import Training, dense_network
from empirical.measure.trial import Trial
from empirical.verify.campaign import Experiment
from empirical.verify.verification import verify
from scaling.cli.options import Phi
from scaling.cli.requests import literal_of, problem_of, problem_with, subject_of, table_of
from scaling.models.alignment import Alignment
from scaling.models.chain import Setting, mlp
from scaling.models.settings import read_settings
from scaling.sizes.errors import InvalidInput
from scaling.solve.derive import Derived, derive
from scaling.solve.equivalence import equivalence_classes, parametrization_classes
from scaling.solve.presets import ALIGNMENTS, PARAMETRIZATIONS, alignments, parametrization

HALF = Rational(1, 2)
LAYERS = ("input", "hidden", "output")
DIGITS = load("digits", samples=8, probe=8)
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


PER_LAYER = ["full;output=none", "none;hidden=1,1/2,1/2", "hidden=1/2,1/2,3/4;output=1,1/2,1/2"]


@pytest.mark.parametrize("how", PER_LAYER)
@pytest.mark.parametrize("rule", RULES)
def test_each_layer_has_the_exponent_of_its_own_alignment(rule: str, how: str) -> None:
    given = alignments(how.split(";"), mlp(3))
    found = derived(rule, "mean_field", how).exponents.c
    for layer in ("hidden", "output"):
        alone = by_its_constraints(rule, "mean_field", given[layer])
        assert found[layer] == alone[layer]
        assert found["input"] == alone["input"]
    mixed = {x: by_its_constraints(rule, "mean_field", given[x])["hidden"] for x in given}
    assert mixed["hidden"] != mixed["output"], "the two layers' alignments must be told apart"


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("omega", [Rational(1, 2), Rational(3, 4), S.One])
def test_features_above_stay_stable_under_the_omega_of_the_layer_between(
    rule: str, omega: Expr
) -> None:
    """r_1 >= omega - 1/2 from min(.., 1/2 + r_1 - omega) >= 0, with the readout's omega a half."""
    free = derived(rule, "mup", "full").exponents.c
    bound = derived(rule, "mup", f"full;hidden=1,{omega},1").exponents.c
    assert {k: bound[k] - free[k] for k in LAYERS} == {
        "input": omega - HALF,
        "hidden": 0,
        "output": 0,
    }


def test_a_role_stands_for_its_layers_and_later_texts_count() -> None:
    layers = mlp(4, biases=True)
    found = alignments(["none", "hidden=full", "hidden_2=3/4,1/2,1/2", "output=derived"], layers)
    assert list(found) == ["hidden_1", "hidden_2"]
    assert found["hidden_1"] == ALIGNMENTS["full"] and found["hidden_2"].alpha == Rational(3, 4)


def test_the_assumption_names_the_layer_where_only_some_have_it() -> None:
    lines = derived("adam", "mup", "output=none").assumptions
    assert "alignment alpha = 1/2, omega = 1/2, u = 1/2 is given in output" in lines
    lines = derived("adam", "mup", "none").assumptions
    assert "alignment alpha = 1/2, omega = 1/2, u = 1/2 is given" in lines


def test_only_the_layers_that_keep_it_are_measured() -> None:
    asked: list[str] = []

    def measured(layers: Sequence[str]) -> Mapping[str, Alignment]:
        asked.extend(layers)
        return dict.fromkeys(layers, ALIGNMENTS["full"])

    found = alignments(["measured", "output=none"], mlp(4), measured)
    assert asked == ["hidden_1", "hidden_2"]
    assert found["hidden_1"] == ALIGNMENTS["full"] and found["output"] == ALIGNMENTS["none"]
    with pytest.raises(InvalidInput, match="found: the alignment 'measured'"):
        alignments(["measured"], mlp(4))


# --- classes ------------------------------------------------------------------------------------

STABLE = {"input": S.Zero, "hidden": HALF, "output": HALF}
"""a + b of the class that starts with outputs of order one (arXiv 2407.05872)."""


@pytest.mark.parametrize("how", ["full", "none", "derived"])
@pytest.mark.parametrize("rule", RULES)
def test_the_four_parametrizations_fall_into_two_classes_eps_included(rule: str, how: str) -> None:
    setting = Setting(mlp(3), alignments=alignments([how], mlp(3)))
    one, two = parametrization_classes(find(rule).rule, setting)
    assert (one.names, two.names) == (("standard", "ntk"), ("mup", "mean_field"))
    for found, total in ((one, STABLE), (two, {**STABLE, "output": S.One})):
        for name in found.names:
            assert {k: sum(PARAMETRIZATIONS[name][k]) for k in LAYERS} == total


GAUGE = {"sgd": (-2, 0), "adam": (-1, 1), "adafactor": (-1, 2), "adafactor_relative": (0, 2)}
"""c -> c + gamma t and d_eps -> d_eps + kappa t; Adafactor's eps is beside squared gradients."""


@pytest.mark.parametrize("how", ["full", "none", "derived"])
@pytest.mark.parametrize("rule", GAUGE)
def test_within_a_class_c_and_eps_follow_the_shift_of_a(rule: str, how: str) -> None:
    gamma, kappa = GAUGE[rule]
    setting = Setting(mlp(3), alignments=alignments([how], mlp(3)))
    for found in parametrization_classes(find(rule).rule, setting):
        to = found.shifts[found.names[1]]
        assert any(to.a.values())
        for layer, t in to.a.items():
            assert (to.b[layer], to.c[layer]) == (-t, gamma * t)
            assert all(d == kappa * t for d in to.d[layer].values())
            assert bool(to.d[layer]) is (rule != "sgd")


def test_a_constant_eps_breaks_the_class_and_a_scaled_one_does_not() -> None:
    def classes(extra: str) -> list[tuple[str, ...]]:
        tables = {x: table_of(f"adam; init={x}{extra}") for x in PARAMETRIZATIONS}
        return [x.names for x in equivalence_classes(tables)]

    assert classes("") == [("standard", "ntk"), ("mup", "mean_field")]
    assert len(classes("; d_eps=0")) == 4
    assert classes("; alignment=full; alignment_output=none") == classes("")


def test_full_and_no_alignment_are_no_gauge_of_each_other() -> None:
    tables = {x: table_of(f"adam; init=ntk; alignment={x}") for x in ALIGNMENTS}
    assert [x.names for x in equivalence_classes(tables)] == [("full",), ("none",)]


@pytest.mark.parametrize("rule", GAUGE)
def test_networks_of_one_class_train_to_the_same_function(rule: str) -> None:
    """The oracle: float64 networks with the same random numbers, five steps of training."""

    def trained(init: str, shift_eps: Expr = S.Zero) -> Tensor:
        problem = problem_with(rule, init=init, activation=Phi.tanh)
        table = literal_of(problem)[0]
        d = {k: {x: y + shift_eps for x, y in v.items()} for k, v in table.d.items()}
        values = {**find(rule).values, "eps": 0.1} if problem.rule.dampings else {}
        trial = Trial(problem, replace(table, d=d), values, DIGITS)
        constants = trial.unit_constants()
        constants = replace(constants, eta=dict.fromkeys(constants.eta, 0.2))
        scales = trial.scales(64, constants)
        model = dense_network(trial, scales, 64, seed=1)
        training = Training(trial, model, scales, seed=1)
        for _ in range(5):
            training.step()
        return model(trial.data.probe_inputs).detach()

    standard, ntk, mup = trained("standard"), trained("ntk"), trained("mup")
    torch.testing.assert_close(ntk, standard, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(trained("mean_field"), mup, rtol=1e-9, atol=1e-9)
    assert (mup - standard).abs().max() > 1e-3
    if rule != "sgd":
        assert (trained("ntk", HALF) - standard).abs().max() > 1e-4


# --- what one step has --------------------------------------------------------------------------


def test_what_the_calculus_derives_is_full_alignment_with_an_aligned_readout() -> None:
    for init, gap in (("mup", 0), ("standard", HALF)):
        free, full = (derived("adam", init, how).exponents.c for how in ("derived", "full"))
        assert free["hidden"] - full["hidden"] == free["input"] - full["input"] == gap
    aligned = derived("adam", "mup", "1,1,1").exponents.c
    assert aligned["output"] == derived("adam", "mup", "derived").exponents.c["output"]


def test_a_wrong_alignment_is_contradicted_by_measurement() -> None:
    def verdicts(how: str) -> set[Verdict]:
        row = subject_of("muon", problem_with("muon", alignment=[how]))
        few = Experiment((64, 128, 256, 512), 6, 0.2, DIGITS, threads=1)
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
        ("hidden=1,1/3,1", "found: the alignment omega = 1/3"),
        ("hidden=1,1", "found: alignment '1,1'\nneeded: one of alpha,omega,u, derived, full"),
        ("hiden=full", "layer of an alignment 'hiden'\nneeded: .*\ndo this: did you mean 'hidden'"),
        (
            "input=full",
            "of the input layer, whose fan_in does not grow.*\nneeded: .*hidden, output",
        ),
        ("=full", "layer of an alignment ''"),
        ("hidden=full=1", "layer of an alignment 'hidden=full'"),
    ],
)
def test_an_alignment_out_of_range_is_named(text: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        alignments([text], mlp(3))


def test_an_alignment_that_is_named_is_read_out_of_a_table() -> None:
    with pytest.raises(InvalidInput, match="did you mean 'hidden'"):
        table_of("adam; alignment_hiden=full")
    with pytest.raises(InvalidInput, match="did you mean 'ntk'"):
        table_of("adam; init=nkt")


def test_under_a_parametrization_literal_exponents_keep_the_c_derived_for_it() -> None:
    table = literal_of(problem_of("adam", ["c_output=2"], init="ntk"))[0]
    right = derived("adam", "ntk", "derived").exponents
    assert table.c == {**right.c, "output": 2} and table.a == right.a


def test_an_unknown_parametrization_names_the_nearest() -> None:
    with pytest.raises(InvalidInput, match="did you mean 'ntk'"):
        parametrization("nkt", mlp(3))


def test_settings_overrule_a_parametrization() -> None:
    problem = problem_of("adam", ["b_output=1"], init="standard")
    assert problem.settings.b["output"] == 1 and problem.settings.b["hidden"] == HALF
