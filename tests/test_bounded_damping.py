"""Dampings that share a symbol or come in units of the factor: the pi split and its relatives.

Published: arXiv 2312.12226, Sec. 4.2. The split of Martens and Grosse scales rightly in hidden
layers and wrongly in input and output layers; a damping relative to the trace or to the largest
eigenvalue is right everywhere. The oracle of the numbers is a K-FAC step with the split by hand.
"""

from typing import Any

import pytest
import torch
from golden import LAYERS
from sympy import S

from derivations.catalogue import catalogue, find
from empirical.data.sources import load
from empirical.fit.verdict import Verdict
from empirical.measure.calibration import calibrate
from empirical.measure.dense_steps import measure
from empirical.measure.machine import blas_threads
from empirical.measure.training import damped_sums
from empirical.measure.trial import Trial
from empirical.numbers.interpreter import evaluate
from empirical.numbers.layer_matrices import LayerTensors
from empirical.verify.campaign import Experiment
from empirical.verify.subject import Subject
from empirical.verify.verification import verify
from scaling.models.chain import mlp
from scaling.models.settings import read_settings
from scaling.rules.parser import parse
from scaling.sizes.errors import Conflict
from scaling.sizes.scale import Order
from scaling.solve.conditions import BOUNDED_DAMPING, STANDARD
from scaling.solve.derive import Derived, derive

POWERS = ("e_A=1", "e_B=1")


def solve(text: str, *given: str, off: tuple[Any, ...] = ()) -> Derived:
    rule = catalogue()[text].rule if text in catalogue() else parse(text)
    conditions = [condition for condition in STANDARD if condition not in off]
    return derive(rule, read_settings(given, rule, mlp()), conditions=conditions)


def test_the_pi_split_is_right_in_hidden_layers_and_wrong_elsewhere() -> None:
    found = solve("kfac_pi")
    unbalanced = {
        layer for layer, seen in found.regimes.items() for x in seen if x.order is not Order.EQUAL
    }
    assert unbalanced == {"input", "output"}
    assert found.exponents.d["hidden"] == {"rho": 0}
    noted = [text for text in found.assumptions if text.startswith("balanced damping has no")]
    assert [text.split()[7] for text in noted] == ["input", "output"]
    assert "'B + sqrt(rho)/" in noted[0], noted[0]
    assert "'A + sqrt(rho)*" in noted[1], noted[1]
    assert all("by M^(-1)" in text for text in noted)


def test_what_is_left_undamped_does_not_change_the_learning_rate() -> None:
    assert solve("kfac_pi").exponents.c == solve("kfac").exponents.c


def test_a_constant_pi_split_drowns_the_input_factor() -> None:
    """Damping A of the input layer by sqrt(rho) pi ~ M where A ~ 1: what practice does."""
    found = solve("kfac_pi", "d_rho=0", *POWERS)
    drowned = [x for x in found.regimes["input"] if x.order is Order.LESS]
    assert [str(x.left) for x in drowned] == ["A"]
    assert found.exponents.c["input"] != solve("kfac", *POWERS).exponents.c["input"]


@pytest.mark.parametrize(("rule", "d_A", "d_B"), [
    ("kfac_relative", (0, 0, 0), (0, 0, 0)), ("kfac_trace", (0, 0, 0), (0, 0, 0)),
    ("kfac_mean", (0, -1, -1), (-1, -1, 0)),
])  # fmt: skip
def test_a_damping_in_units_of_the_factor_scales_as_published(
    rule: str, d_A: tuple[int, ...], d_B: tuple[int, ...]
) -> None:
    d = solve(rule).exponents.d
    assert tuple(d[layer]["rho_A"] for layer in LAYERS) == d_A
    assert tuple(d[layer]["rho_B"] for layer in LAYERS) == d_B
    assert not any("balanced damping" in text for text in solve(rule).assumptions)


def test_the_weaker_condition_can_be_switched_off() -> None:
    with pytest.raises(Conflict, match=r"of the input layer that would have to balance two sizes"):
        solve("kfac_pi", off=(BOUNDED_DAMPING,))


TWO_SUMS = [
    ("(B + rho*I)**(-1) @ G @ (A + rho*I)**(-1)", {"input": 1, "hidden": 1, "output": 0}),
    ("G/(abs(G) + eps) + G/(rms(G)**2 + eps)", {"input": 2, "hidden": 2, "output": 0}),
    ("(B + rho1*I)**(-1) @ (L + rho1*rho2*I)**(-1) @ G @ (A + rho2*I)**(-1)", None),
]


@pytest.mark.parametrize(("rule", "expected"), TWO_SUMS)
def test_the_largest_damping_that_drowns_nothing_is_taken(rule: str, expected: Any) -> None:
    found = solve(rule)
    for layer, seen in found.regimes.items():
        sums = [x for x in seen if x.node in damped_sums(parse(rule))]
        assert all(x.order in (Order.GREATER, Order.EQUAL) for x in sums), layer
        assert any(x.order is Order.EQUAL for x in sums), layer
    if expected is not None:
        assert {k: next(iter(d.values())) for k, d in found.exponents.d.items()} == expected


# --- numbers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("swapped", [False, True])
def test_the_split_is_that_of_martens_and_grosse(swapped: bool) -> None:
    draw = torch.Generator().manual_seed(0)
    h, d = (torch.randn(k, 5, generator=draw, dtype=torch.float64) for k in (7, 4))
    layer = LayerTensors(h, d, W=torch.zeros(4, 7).double())
    values = {"rho": 0.3, "e_A": 1.0, "e_B": 1.0}
    found = evaluate(find("kfac_pi").rule, layer, values).dense()
    a, b = h @ h.T / 5, d @ d.T / 5
    pi = ((a.trace() / 7) / (b.trace() / 4)).sqrt()
    pi = 1 / pi if swapped else pi
    eye_a, eye_b = torch.eye(7).double(), torch.eye(4).double()
    left = torch.linalg.inv(b + 0.3**0.5 / pi * eye_b)
    expected = left @ (d @ h.T / 5) @ torch.linalg.inv(a + 0.3**0.5 * pi * eye_a)
    assert torch.allclose(found, expected, rtol=1e-10) is not swapped


def trial_of(name: str, *given: str) -> Trial:
    declared = find(name)
    chosen = read_settings(given, declared.rule, mlp())
    literal = derive(declared.rule, read_settings(POWERS, declared.rule, mlp())).exponents
    problem = derive(declared.rule, chosen).problem
    values = {**declared.values, **chosen.values}
    data = load("digits", samples=8, probe=8)
    return Trial(problem, literal.updated(chosen), values, data)


def test_a_damping_under_a_root_is_calibrated_to_a_tenth_of_the_least() -> None:
    trial = trial_of("kfac_pi", *POWERS)
    sums = measure(trial, calibrate(trial, 64), 64, 0).sums
    for layer in LAYERS:
        ratios = [y / x for (name, _), (x, y) in sums.items() if name == layer]
        assert max(ratios) == pytest.approx(0.1, rel=0.1), layer


def test_measured_updates_of_the_pi_split_agree_and_a_wrong_one_does_not() -> None:
    trial = trial_of("kfac_pi", *POWERS)
    row = Subject(trial.problem, trial.exponents, trial.problem.bounds(), find("kfac_pi"))
    wide = Experiment((128, 256, 512, 1024), 4, 0.2, trial.data, threads=1)
    with blas_threads(1):
        found = verify([row], wide)
        wrong = verify([row], wide, ["own_hidden=1/2"])
    own = {c.layer: c.verdict for c in found.checks if c.quantity == "own"}
    assert set(own.values()) == {Verdict.agree}, found.checks
    assert wrong.verdict is Verdict.contradict
    assert S.Zero in {c.predicted for c in found.checks}
