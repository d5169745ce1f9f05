"""What is derived against what is published (golden.py), symbolically and at values."""

from itertools import product

import pytest
from golden import (
    FIXED_READOUT,
    HALVES,
    LAYERS,
    SMALL_READOUT,
    TABLES,
    Golden,
    differences,
    number,
)
from sympy import Max, Rational, S, Symbol

from derivations.catalogue import catalogue, find
from scaling.models.chain import Activation, Loss, Setting, mlp
from scaling.models.settings import read_settings
from scaling.rules.parser import parse
from scaling.solve.derive import Derived, derive

beta = Symbol("beta")
ids = {"ids": lambda table: table.id}


def solve(
    rule: str,
    *given: str,
    activation: Activation = Activation.RELU,
    loss: Loss = Loss.MSE,
    biases: bool = True,
) -> Derived:
    layers = mlp(3, biases)
    known = find(rule).rule if rule in catalogue() else parse(rule)
    setting = Setting(layers, activation, loss)
    return derive(known, read_settings(given, known, layers), setting)


@pytest.mark.parametrize("loss", Loss)
@pytest.mark.parametrize("activation", [Activation.RELU, Activation.TANH])
@pytest.mark.parametrize("table", TABLES, **ids)
def test_the_published_table_is_derived(table: Golden, activation: Activation, loss: Loss) -> None:
    found = solve(table.rule, *table.given, activation=activation, loss=loss)
    assert differences(table, found) == []


SYMBOLIC = [t for t in TABLES if not t.given and find(t.rule).rule.exponents]


@pytest.mark.parametrize("table", SYMBOLIC, **ids)
def test_solving_at_a_value_equals_putting_the_value_into_the_solution(table: Golden) -> None:
    names = find(table.rule).rule.exponents
    symbolic = solve(table.rule)
    for values in product(HALVES, repeat=len(names)):
        at = dict(zip(map(Symbol, names), values, strict=True))
        given = [f"{name}={value}" for name, value in zip(names, values, strict=True)]
        assert differences(table, solve(table.rule, *given), at) == [], given
        assert differences(table, symbolic, at) == [], given


@pytest.mark.parametrize("value", [S.Half, Rational(5, 8), Rational(3, 4), S.One])
@pytest.mark.parametrize("table", FIXED_READOUT, **ids)
def test_a_fixed_readout_puts_two_beta_less_one_in_place_of_one(
    table: Golden, value: Rational
) -> None:
    at = {beta: value}
    assert differences(table, solve(table.rule, "b_output=beta"), at) == []
    assert differences(table, solve(table.rule, f"b_output={value}"), at) == []


@pytest.mark.parametrize("value", [S.One, Rational(5, 4), S(3)])
@pytest.mark.parametrize("table", SMALL_READOUT, **ids)
def test_below_a_small_readout_the_features_bind(table: Golden, value: Rational) -> None:
    at = {beta: value}
    assert differences(table, solve(table.rule, "b_output=beta"), at) == []
    assert differences(table, solve(table.rule, f"b_output={value}"), at) == []


def test_a_fixed_readout_is_said_to_replace_a_condition() -> None:
    found = solve("kfac", "b_output=beta")
    assert "beta >= 1/2 (stable start)" in found.assumptions
    assert "maximal readback is not imposed: b_output is given" in found.assumptions


# --- rules that are the same rule -----------------------------------------------------------------

IDENTITIES = [
    ("shampoo", ["e=0"], "sgd", []),
    ("kfac", ["e_A=0", "e_B=0"], "sgd", []),
    ("kfac", ["e_A=0"], "kfac_left_only", []),
    ("kfac", ["e_B=0"], "kfac_right_only", []),
    ("foof", [], "kfac_right_only", []),
    ("shampoo", ["e=1/2"], "muon", []),
    ("L**(-1/4) @ G @ R**(-1/4)", [], "muon", []),
    ("G @ R**(-1/2)", [], "muon", []),
    ("normalized_sgd", [], "muon", []),
    ("G / specnorm(G)", [], "muon", []),
    ("momentum", [], "sgd", []),
    ("adam", [], "sign", []),
    ("G / (abs(G) + eps)", [], "adam", []),
    ("G / rms(G)", [], "sign", []),
    ("orth(G) / rms(orth(G))", [], "sign", []),
    ("G @ (A + rho*trace(A)*I)**(-1)", [], "foof", ["e_A=1"]),
    ("G @ (A + rho*specnorm(A)*I)**(-e_A)", [], "foof", []),
    ("G @ (block(A, 64) + rho*I)**(-1)", [], "sgd", []),
    ("G @ A", [], "foof", ["e_A=-1"]),
    ("L @ G @ R", [], "shampoo", ["e=-2"]),
]


@pytest.mark.parametrize(("one", "given", "other", "also"), IDENTITIES)
@pytest.mark.parametrize("readout", [[], ["b_output=1/2"], ["b_output=3/4"]], ids=str)
def test_two_writings_of_one_rule_have_the_same_learning_rates(
    one: str, given: list[str], other: str, also: list[str], readout: list[str]
) -> None:
    left, right = (solve(r, *g, *readout) for r, g in ((one, given), (other, also)))
    for layer, c in left.exponents.c.items():
        assert (c - right.exponents.c[layer]).expand() == 0, (layer, c, right.exponents.c[layer])


def test_dampings_of_a_relative_kind_do_not_scale() -> None:
    for text in ("trace(A)", "specnorm(A)", "norm(A)", "fan_in*rms(A)"):
        found = solve(f"G @ (A + rho*{text}*I)**(-1)", biases=False)
        assert {x["rho"] for x in found.exponents.d.values()} == {S.Zero}, text


# --- a damping given as a symbol ------------------------------------------------------------------


def test_a_damping_of_open_scale_is_answered_with_a_max() -> None:
    e_A, e_B, delta = map(Symbol, ("e_A", "e_B", "delta"))
    found = solve("kfac", "d_rho_B=delta", "d_rho_A=0", biases=False).exponents
    assert found.c["input"].has(Max)
    assert found.c["hidden"].has(Max)
    assert found.c["output"].subs({delta: 0}) == 1 - e_A
    for value in (S(-1), S.Zero, S.Half, S(3)):
        drowned = Max(-1, -value)  # the size of B + rho
        expected = {"input": -e_B * drowned - 1, "hidden": -e_B * drowned - e_A}
        assert (found.c["input"].subs(delta, value) - expected["input"]).expand() == 0
        assert (found.c["hidden"].subs(delta, value) - expected["hidden"]).expand() == 0


def test_a_constant_damping_under_a_free_readout_is_answered_with_a_max() -> None:
    found = solve("shampoo", "b_output=beta", "d_rho_L=0", "d_rho_R=0", biases=False)
    assert found.exponents.c["hidden"].has(Max)  # L ~ M^(2 - 2 beta) against 1
    for value in ("1/2", "3/4", "2"):
        fixed = solve("shampoo", f"b_output={value}", "d_rho_L=0", "d_rho_R=0", biases=False)
        for layer in LAYERS:
            gap = found.exponents.c[layer].subs(beta, number(value)) - fixed.exponents.c[layer]
            assert gap.expand() == 0, (value, layer, gap)


# --- negative control -----------------------------------------------------------------------------


@pytest.mark.parametrize("table", TABLES, **ids)
def test_a_perturbed_table_is_contradicted_in_just_that_cell(table: Golden) -> None:
    found = solve(table.rule, *table.given)
    for name, layer, value in table.cells():
        if layer not in LAYERS or value == "oo":
            continue
        lines = differences(table.perturbed(name, layer), found)
        assert len(lines) == 1, lines
        assert lines[0].startswith(f"{name} of {layer}: published")


@pytest.mark.parametrize("table", FIXED_READOUT, **ids)
def test_the_formula_for_a_small_readout_is_not_that_for_a_large_one(table: Golden) -> None:
    assert differences(table, solve(table.rule, "b_output=2"), {beta: S(2)}) != []
