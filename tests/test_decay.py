"""Weight decay: the exponent of the decay, what it does to the weights, and what is refused.

Oracles: torch.optim.AdamW and SGD(weight_decay) step by step; the recipe to keep learning rate
times decay constant (arXiv 2405.13698) beside muP's published learning rates; measured networks.
"""

from dataclasses import replace
from typing import Any

import pytest
import torch
from golden import LAYERS, TABLES
from sympy import Rational, S, Symbol
from torch import nn
from torch.nn.functional import cross_entropy
from tour import tour

from derivations.catalogue import catalogue, find
from empirical import RuleOptimizer
from empirical.data.sources import load
from empirical.fit.verdict import Verdict
from empirical.measure.calibration import calibrate
from empirical.measure.dense_steps import measure
from empirical.measure.machine import blas_threads
from empirical.measure.trial import Trial
from empirical.verify.campaign import Experiment
from empirical.verify.subject import Subject
from empirical.verify.verification import Verification, verify
from empirical.your_model.model_scales import for_model
from scaling.models.chain import mlp
from scaling.models.settings import read_settings
from scaling.rules.parser import parse
from scaling.sizes.errors import InvalidInput, NotCovered
from scaling.solve.conditions import BALANCED_DECAY, STANDARD
from scaling.solve.derive import Derived, derive
from scaling.solve.predict import predict
from scaling.solve.symmetry import compare, shift

DECAYING = [name for name, optimizer in tour().items() if optimizer.rule.decays]


def solve(text: str, *given: str, off: tuple[Any, ...] = ()) -> Derived:
    rule = catalogue()[text].rule if text in catalogue() else parse(text)
    conditions = [condition for condition in STANDARD if condition not in off]
    return derive(rule, read_settings(given, rule, mlp()), conditions=conditions)


# --- the exponent -------------------------------------------------------------------------------


@pytest.mark.parametrize(("decaying", "plain"), [
    ("adamw", "adam"), ("lion", "sign"), ("sgd_penalised", "sgd"), ("sgdw", "momentum"),
    ("momentum_penalised", "momentum"), ("orth(G) + decay*W", "muon"),
])  # fmt: skip
def test_decay_times_learning_rate_stays_where_the_published_rate_goes(
    decaying: str, plain: str
) -> None:
    published = next(t for t in TABLES if t.rule == plain)
    found = solve(decaying).exponents
    for layer, c in zip(LAYERS, published.c, strict=True):
        assert found.c[layer] == Rational(c)
        assert found.d[layer]["decay"] == -Rational(c)


@pytest.mark.parametrize(("text", "factor"), [
    ("G + fan_in*(decay*W)", {"input": 0, "hidden": 1, "output": 1}),
    ("G + decay**2*W", None), ("G + norm(W)*decay*W", {"input": S.Half, "hidden": S.Half,
     "output": -S.Half}),
])  # fmt: skip
def test_what_multiplies_a_decay_is_taken_out_of_it(text: str, factor: Any) -> None:
    plain, found = solve("sgd_penalised").exponents.d, solve(text).exponents.d
    for layer in LAYERS:
        d = plain[layer]["decay"]
        expected = d / 2 if factor is None else d + factor[layer]
        assert found[layer]["decay"] == expected, layer


def test_a_decay_follows_a_learning_rate_that_is_given_or_free() -> None:
    found = solve("adamw", "c_hidden=1/3", "b_output=oo").exponents
    assert found.d["hidden"]["decay"] == -Rational(1, 3)
    assert found.d["input"]["decay"] == -Symbol("c_input")
    assert found.d["output"]["decay"] == -1  # also of weights that start at zero


def test_the_condition_can_be_switched_off() -> None:
    found = solve("adamw", off=(BALANCED_DECAY,))
    assert {f"d_decay_{layer}" for layer in LAYERS} <= set(found.free)
    assert BALANCED_DECAY.statement


def test_the_derivation_says_why() -> None:
    step = solve("adamw").steps["hidden"]
    assert step.subject == "decay of hidden"
    assert step.numbers == "balanced decay: M^(-1) x M^(1) = 1"
    assert step.inputs[0].subject == "c of hidden"


def test_a_decay_that_is_given_is_taken_literally_and_its_regime_named() -> None:
    found = solve("adamw", "d_decay=0")
    assert {d["decay"] for d in found.exponents.d.values()} == {0}
    text = {x.layer: str(x) for x in found.shrinkages}
    assert text["input"].endswith("balanced")
    assert text["hidden"] == "a step takes M^(-1) times the weights away: the decay is negligible"
    rule = find("adamw").rule
    strong = derive(rule, read_settings(["d_decay=-2"], rule, mlp()))
    table = replace(strong.exponents, c=solve("adamw").exponents.c)
    layers = predict(strong.problem, table).layers
    assert {x.shrink for x in layers.values()} == {1, 2}
    assert {str(x.regime) for x in layers.values()} == {"unstable"}


@pytest.mark.parametrize(("text", "why"), [
    ("ema(G + decay*W, b)/(sqrt(ema((G + decay*W)**2, c)) + eps)", "depending on symbols"),
    ("sign(G + decay*W)", "depending on symbols"), ("orth(G + decay*W)", "depending on symbols"),
    ("decay*G", "'decay' that is no factor of W alone"),
    ("(B + decay*I)**(-1) @ G", "'decay' that is no factor of W alone"),
    ("G/(1 + decay*norm(W)) + decay*W", "'decay' that is no factor of W alone"),
    ("G + decay*W + decay2*W", "several terms in W"),
])  # fmt: skip
def test_a_decay_that_does_more_than_shrink_the_weights_is_refused(text: str, why: str) -> None:
    with pytest.raises(NotCovered, match=why):
        solve(text)


def test_names_and_numbers_of_decays_are_checked() -> None:
    rule = find("adamw").rule
    assert rule.scaled == ("eps", "decay")
    with pytest.raises(InvalidInput, match="did you mean 'd_decay'"):
        read_settings(["d_deacy=1"], rule, mlp())
    with pytest.raises(InvalidInput, match="not negative"):
        read_settings(["decay=-1"], rule, mlp())
    with pytest.raises(InvalidInput, match="decay 'deacy'"):
        for_model(rule, *models(), 64, 128, decays={"deacy": 0.1})


# --- the symmetry -------------------------------------------------------------------------------


BOUNDED = ("adamw_clipped_globally",)  # a bound of order one has no degree


@pytest.mark.parametrize("rule", [name for name in DECAYING if name not in BOUNDED])
def test_the_decay_moves_against_the_learning_rate(rule: str) -> None:
    by = shift(find(rule).rule, t="1/2")
    for layer in LAYERS:
        assert by.d[layer]["decay"] == -by.c[layer]
    found = solve(rule)
    moved = solve(rule, "a_output=1").exponents
    assert compare(found.problem, moved, found.problem, found.exponents).equivalent
    wrong = {**moved.d, "output": {**moved.d["output"], "decay": moved.d["output"]["decay"] + 1}}
    result = compare(found.problem, replace(moved, d=wrong), found.problem, found.exponents)
    assert [(x.layer, x.name) for x in result.differences] == [("output", "d_decay")]


def test_a_multiple_of_w_that_cannot_follow_has_no_symmetry() -> None:
    with pytest.raises(NotCovered, match="a multiple of W"):
        shift(parse("G + 8*W"))


# --- numbers ------------------------------------------------------------------------------------


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(7, 6), nn.Tanh(), nn.Linear(6, 3)).double()


def models() -> tuple[nn.Sequential, nn.Sequential]:
    return tuple(  # type: ignore[return-value]
        nn.Sequential(nn.Linear(7, m), nn.ReLU(), nn.Linear(m, 3)) for m in (4, 8)
    )


def trained(optimizer: Any, model: nn.Sequential, steps: int = 4, theirs: Any = None) -> None:
    draw = torch.Generator().manual_seed(1)
    for t in range(1, steps + 1):
        x = torch.randn(5, 7, generator=draw, dtype=torch.float64)
        y = torch.randint(3, (5,), generator=draw)
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        if theirs is not None:
            theirs(optimizer, t)
        optimizer.step()


def gap(x: nn.Module, y: nn.Module) -> float:
    pairs = zip(x.parameters(), y.parameters(), strict=True)
    return max(float((p - q).detach().abs().max()) for p, q in pairs)


@pytest.mark.parametrize("decay", [0.5, 0.4])
def test_sgd_with_a_penalty_is_torchs(decay: float) -> None:
    ours, theirs = network(), network()
    trained(RuleOptimizer(ours, find("sgd_penalised").rule, 0.3, {"decay": 0.5}), ours)
    trained(torch.optim.SGD(theirs.parameters(), lr=0.3, weight_decay=decay), theirs)
    assert (gap(ours, theirs) < 1e-14) is (decay == 0.5)


@pytest.mark.parametrize("rule", ["momentum_penalised", "sgdw"])
def test_momentum_with_a_penalty_is_torchs_and_decoupled_decay_is_not(rule: str) -> None:
    ours, theirs = network(), network()
    values = {"decay": 0.5, "beta": 0.9}
    trained(RuleOptimizer(ours, find(rule).rule, 0.3, values), ours)
    reference = torch.optim.SGD(theirs.parameters(), lr=0.03, weight_decay=0.5, momentum=0.9)
    trained(reference, theirs)
    assert (gap(ours, theirs) < 1e-14) is (rule == "momentum_penalised")


@pytest.mark.parametrize("rule", ["adamw", "adam"])
def test_decoupled_decay_is_torchs_adamw_but_for_its_bias_correction(rule: str) -> None:
    """With lr' = lr k and decay' = decay / k, where k takes the correction out of torch's step."""
    ours, theirs = network(), network()
    values = {"eps": 1e-6, "decay": 2.0, "beta1": 0.9, "beta2": 0.99}
    symbols = (*find(rule).rule.scaled, *find(rule).rule.constants)
    known = {k: values[k] for k in symbols}
    trained(RuleOptimizer(ours, find(rule).rule, 0.01, known), ours)

    def uncorrected(optimizer: torch.optim.Optimizer, t: int) -> None:
        correction = (1 - 0.99**t) ** 0.5 / (1 - 0.9**t)
        for group in optimizer.param_groups:
            group["lr"], group["weight_decay"] = 0.01 / correction, 2.0 * correction
            group["eps"] = 1e-6 / (1 - 0.99**t) ** 0.5

    reference = torch.optim.AdamW(theirs.parameters(), lr=0.01, betas=(0.9, 0.99))
    trained(reference, theirs, theirs=uncorrected)
    assert (gap(ours, theirs) < 1e-13) is (rule == "adamw")


def test_numbers_for_a_model_keep_the_decay_of_every_layer() -> None:
    scales = for_model(find("adamw").rule, *models(), 64, 1024, 0.1, {"eps": 1e-8}, decays={
        "decay": 0.5,
    })  # fmt: skip
    for name, x in scales.items():
        assert x.lr * x.decays["decay"] == pytest.approx(0.05), name
    assert scales["2.weight"].decays == {"decay": pytest.approx(8.0)}
    assert set(scales["2.weight"].dampings) == {"eps"}


def trial_of(name: str, *given: str) -> Trial:
    declared = find(name)
    chosen = read_settings(given, declared.rule, mlp())
    literal = derive(declared.rule).exponents.updated(chosen)
    problem = derive(declared.rule, chosen).problem
    values = {**declared.values, **chosen.values}
    return Trial(problem, literal, values, load("digits", samples=8, probe=8))


@pytest.mark.parametrize("rule", DECAYING)
def test_a_decay_is_calibrated_to_a_tenth_of_the_weights(rule: str) -> None:
    trial = trial_of(rule)
    found = measure(trial, calibrate(trial, 128), 128, 0).sizes
    for name, x in found.items():  # the step itself overlaps with the weights by chance
        assert x.shrink == pytest.approx(0.1, rel=0.4), name
    given = trial_of(rule, "decay=0.25")
    assert {of["decay"] for of in calibrate(given, 32).rho.values()} == {0.25}


def run(name: str, *given: str, expect: tuple[str, ...] = ()) -> Verification:
    trial = trial_of(name, *given)
    row = Subject(trial.problem, trial.exponents, trial.problem.bounds(), find(name))
    wide = Experiment((64, 128, 256, 512), 4, 0.2, trial.data, threads=1)
    with blas_threads(1):
        return verify([row], wide, expect)


@pytest.mark.parametrize("rule", ["adamw", "sgd_penalised"])
def test_measured_decay_agrees_with_what_is_derived_and_a_wrong_one_does_not(rule: str) -> None:
    shrink = {c.layer: c for c in run(rule).checks if c.quantity == "shrink"}
    assert list(shrink) == list(LAYERS)
    assert {c.verdict for c in shrink.values()} == {Verdict.agree}, shrink
    table = solve(rule).exponents.d
    planted = tuple(f"shrink_{layer}=0" for layer in LAYERS)
    for off in (S.Half, -S.Half):
        given = [f"d_decay_{layer}={table[layer]['decay'] + off}" for layer in LAYERS]
        wrong = {
            c.layer: c for c in run(rule, *given, expect=planted).checks if c.quantity == "shrink"
        }
        if off > 0:  # of the output layer the descent alone then takes as much
            del wrong["output"]
        assert {c.verdict for c in wrong.values()} == {Verdict.contradict}, wrong
