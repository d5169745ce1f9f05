"""The order calculus, one rule of inference at a time; what it refuses; what it gets wrong.

Everything is read at b = (0, 1/2, 1), where |h| = 1 and delta = (1/M, 1/M, 1), unless b is given.
The last section holds rules whose derived exponent is known to be wrong, with the true one.
"""

import contextlib
from dataclasses import replace
from typing import Any

import pytest
from sympy import Expr, Rational, S, Symbol
from tour import tour

from derivations.catalogue import catalogue
from scaling.calculus.context import Context
from scaling.calculus.output_change import OutputChange
from scaling.calculus.read import read, read_update
from scaling.calculus.values import Aligned, Parity, Scalar, Spectral, Vector, Weights
from scaling.models.chain import Activation, Loss, Setting, mlp
from scaling.models.settings import read_settings
from scaling.rules.operators import FUNCTIONS
from scaling.rules.parser import parse
from scaling.rules.tree import Matrix, Node
from scaling.sizes import derivation
from scaling.sizes.derivation import Inference
from scaling.sizes.errors import NotCovered, RuleError
from scaling.sizes.scale import Bounds
from scaling.solve.derive import Derived, derive
from scaling.states.network_state import NetworkState
from scaling.states.problem import Problem
from scaling.states.start import at_start

RELU, TANH, HALF, oo = Activation.RELU, Activation.TANH, S.Half, S.Infinity
NAMES = ("input", "hidden", "output")
T, IN, OUT = {"activation": TANH}, {"layer": "input"}, {"layer": "output"}
Where = dict[str, Any]


def context(
    layer: str = "hidden",
    activation: Activation = RELU,
    d: Any = 0,
    b: tuple[Any, ...] = (0, HALF, 1),
    biases: bool = False,
    sampled: bool = False,
) -> Context:
    setting = Setting(mlp(3, biases), activation)
    names = [x.name for x in setting.layers]
    start = dict(zip(names, map(S, (*b, 0, 0, 0)), strict=False))
    sizes = state(setting, dict.fromkeys(names, S.Zero), start).sizes
    known, dampings = Bounds({"e": (S.Zero, oo)}), {"rho": S(d), "eps": S(d)}
    return Context(sizes[layer], dampings, {}, known, frozenset(), sampled, activation)


def state(setting: Setting, a: dict[str, Expr], b: dict[str, Expr]) -> NetworkState:
    return at_start(Problem(parse("G"), setting), a, b)


def node(text: str) -> Node:
    """A value of any shape, from text."""
    if text == "I":
        return Matrix("I")
    with contextlib.suppress(RuleError):
        return parse(f"norm({text})*G").expression.left.argument
    return parse(f"({text})*G").expression.left


def update(text: str, **where: Any) -> OutputChange:
    return read_update(context(**where), parse(text).expression)


def solve(text: str, *given: str, sampled: bool = False) -> Derived:
    rule = catalogue()[text].rule if text in catalogue() else parse(text)
    return derive(rule, read_settings(given, rule, mlp()), sampled_fisher=sampled)


# --- the start: CLT forward, backprop backward ----------------------------------------------------

# a, b, |h_1|, |h_2|, |f|, |delta_1|, |delta_2|, |delta_3|
LEDGER = [
    ((0, 0, 0), (0, HALF, 1), (0, 0, -HALF, -1, -1, 0)),
    ((0, 0, 0), (0, HALF, HALF), (0, 0, 0, -HALF, -HALF, 0)),
    ((0, 0, 0), (0, HALF, oo), (0, 0, -oo, -oo, -oo, 0)),
    ((0, HALF, 1), (0, 0, 0), (0, 0, -HALF, -1, -1, 0)),
    ((-HALF, 0, HALF), (HALF, HALF, HALF), (0, 0, -HALF, -1, -1, 0)),
    ((0, 0, 0), (0, 0, 0), (0, HALF, 1, Rational(3, 2), 1, 1)),
    ((0, 0, 0), (1, 1, 1), (-1, -Rational(3, 2), -2, -Rational(3, 2), -1, 0)),
]


@pytest.mark.parametrize(("a", "b", "expected"), LEDGER)
def test_sizes_spread_forward_by_clt_and_backward_by_backprop(
    a: tuple[Any, ...], b: tuple[Any, ...], expected: tuple[Any, ...]
) -> None:
    start = state(Setting(), *(dict(zip(NAMES, map(S, x), strict=True)) for x in (a, b)))
    found = [x.width for x in start.features[1:]] + [start.sizes[n].delta.width for n in NAMES]
    assert found == list(expected)
    names = [s.inference.name for s in start.sizes["output"].h_step.walk()]
    assert names == ["data", "CLT", "CLT"]
    names = [s.inference.name for s in start.sizes["input"].delta_step.walk()]
    assert names == ["data", "backprop", "backprop"]


def test_the_loss_decides_the_cotangent_of_a_growing_output() -> None:
    zero, b = dict.fromkeys(NAMES, S.Zero), dict(zip(NAMES, (S.Zero, HALF, S.Zero), strict=True))
    for loss, expected in ((Loss.MSE, HALF), (Loss.CROSS_ENTROPY, 0)):
        assert state(Setting(loss=loss), zero, b).sizes["output"].delta.width == expected


def test_a_saturating_activation_is_refused_and_one_that_grows_is_not() -> None:
    zero, b = dict.fromkeys(NAMES, S.Zero), dict(zip(NAMES, (S.Zero, S.Zero, S.One), strict=True))
    for activation in Activation:
        if not activation.bounded:
            assert state(Setting(activation=activation), zero, b).features[2].width == HALF
            continue
        with pytest.raises(NotCovered, match=r"u_2 of size M\^\(1/2\) under \w+, which saturates"):
            state(Setting(activation=activation), zero, b)


# --- rules of inference ---------------------------------------------------------------------------

READINGS: list[tuple[str, Where, Where, str]] = [
    ("G", {}, {"gain": 0, "entry": -1}, "Gram"), ("G", IN, {"gain": -HALF, "entry": -1}, "Gram"),
    ("G", OUT, {"gain": HALF, "entry": 0}, "Gram"), ("W", {}, {"entry": -HALF}, "given"),
    ("A", {}, {"on_span": 1, "off_span": -oo}, "Gram"), ("A", IN, {"on_span": 0}, "Gram"),
    ("B", {}, {"on_span": -1, "off_span": -oo}, "Gram"), ("B", OUT, {"on_span": 0}, "Gram"),
    ("L", OUT, {"on_span": 1}, "Gram"), ("R", IN, {"on_span": -1}, "Gram"),
    ("G @ G.T", OUT, {"on_span": 1, "off_span": -oo}, "Gram"),
    ("G.T @ G", IN, {"on_span": -1, "off_span": -oo}, "Gram"),
    ("I", {}, {"on_span": 0, "off_span": 0}, "given"), ("diag(A)", {}, {"on_span": 0}, "Gram"),
    ("block(L, 32)", {}, {"on_span": -1, "off_span": -oo}, "Gram"),
    ("block(L, 8)", {}, {"on_span": -1, "off_span": -1}, "Gram"),
    ("A + rho*I", {"d": 0}, {"on_span": 1, "off_span": 0}, "damping"),
    ("A + rho*I", {"d": -3}, {"on_span": 3, "off_span": 3}, "damping"),
    ("A + rho*I - rho*I", {"d": -4}, {"on_span": 1, "off_span": -oo}, "Gram"),
    ("(A + rho*I)**-2", {"d": 2}, {"on_span": -2, "off_span": 4}, "spectral power"),
    ("diag((A + rho*I)**-1)", {"d": 2}, {"on_span": 2, "off_span": 2}, "Gram"),
    ("A**-1", {}, {"on_span": -1, "off_span": -oo}, "spectral power"),
    ("A**0", {}, {"on_span": 0, "off_span": 0}, "spectral power"), ("A @ A", {}, {"on_span": 2},
     "product"), ("A @ (A + rho*I)**-1", {"d": 2}, {"on_span": 0, "off_span": -oo}, "product"),
    ("G @ (A + rho*I)**-1", {"d": 2}, {"gain": -1, "entry": -2}, "push-through"),
    ("(B + rho*I)**-1 @ G", {"d": 3}, {"gain": 1, "entry": 0}, "push-through"),
    ("L @ G @ R", OUT, {"gain": Rational(5, 2)}, "push-through"),
    ("sign(G) @ (A + rho*I)**-1", {"d": 2}, {"gain": 3, "entry": 2}, "push-through"),
    ("sign(G)", {}, {"entry": 0, "gain": 1}, "entrywise"), ("G**3", {}, {"entry": -3, "gain": -2},
     "entrywise"), ("abs(G)", T, {"entry": -1, "gain": -HALF}, "entrywise"),
    ("abs(G)", {}, {"entry": -1, "gain": 0}, "entrywise"),
    ("G*G", T, {"entry": -2, "gain": -Rational(3, 2)}, "entrywise"),
    ("sqrt(abs(G))", {}, {"entry": -HALF}, "entrywise"),
    ("ema(ema(G*G, beta), 0.9)", {}, {"entry": -2}, "entrywise"),
    ("G/(abs(G) + eps)", {"d": 0}, {"entry": -1}, "damping"),
    ("G/(abs(G) + eps)", {"d": 5}, {"entry": 0}, "damping"),
    ("row_mean(G)", {}, {"entry": -1}, "means"), ("row_mean(G)", {**T, **IN}, {"entry": -1},
     "means"), ("row_mean(G)", T, {"entry": -Rational(3, 2)}, "means"),
    ("col_mean(G)", {}, {"entry": -Rational(3, 2)}, "means"), ("col_mean(G)", OUT, {"entry": 0},
     "means"), ("row_mean(G.T)", {}, {"entry": -Rational(3, 2)}, "means"),
    ("row_mean(abs(G))", T, {"entry": -1}, "LLN"), ("col_mean(G*G)", {}, {"entry": -2}, "LLN"),
    ("row_mean(G) @ col_mean(G)", {}, {"entry": -Rational(5, 2)}, "product"),
    ("row_mean(G).T @ row_mean(G)", {}, {"size": -1}, "LLN"), ("norm(G)", OUT, {"size": HALF},
     "norms"), ("specnorm(G)", OUT, {"size": HALF}, "norms"), ("rms(G)", OUT, {"size": 0}, "norms"),
    ("norm(sign(G))", {}, {"size": 1}, "norms"), ("trace(A)", {}, {"size": 1}, "norms"),
    ("norm(A)", {}, {"size": 1}, "norms"), ("rms(A)", {}, {"size": 0}, "norms"),
    ("trace(A + rho*I)", {"d": -HALF}, {"size": Rational(3, 2)}, "norms"),
    ("norm(A + rho*I)", {"d": -HALF}, {"size": 1}, "norms"),
    ("specnorm(A + rho*I)", {"d": -HALF}, {"size": 1}, "norms"), ("norm(W)", {}, {"size": HALF},
     "norms"), ("specnorm(W)", {}, {"size": 0}, "norms"), ("specnorm(W)", IN, {"size": HALF},
     "norms"), ("norm(row_mean(G))", {}, {"size": -HALF}, "norms"),
    ("orth(G)", {}, {"gain": 0, "entry": -1}, "spectral power"),
    ("orth(G)", OUT, {"gain": 0, "entry": -HALF}, "spectral power"),
    ("orth(sign(G))", {}, {"gain": 0}, "spectral power"),
    ("orth(sign(G))", OUT, {"gain": 0, "entry": -HALF}, "spectral power"),
    ("G + sign(G)", {}, {"entry": 0, "gain": 1}, "sum"), ("G - 2*W", {}, {}, "sum"),
    ("G - G", {}, {"entry": -oo, "gain": -oo}, "sum"), ("2*G - (G + G)", {}, {"entry": -oo}, "sum"),
    ("(G - G)/norm(G - G)", {}, {"entry": -oo}, "product"), ("sign(G - G)", {}, {"entry": -oo},
     "entrywise"), ("orth(G)", {"b": (0, HALF, oo)}, {"entry": -oo}, "Gram"),
    ("G/(abs(G) + eps)", {"b": (0, HALF, oo), "d": 1}, {"entry": -oo}, "entrywise"),
    ("sqrt(fan_out/fan_in)*G", OUT, {"gain": 0}, "product"), ("G/fan_in", {}, {"gain": -1},
     "product"), ("fan_in**e*G", {}, {"gain": Symbol("e")}, "product"),
    ("G", {"layer": "hidden_bias", "biases": True}, {"entry": -1, "gain": -HALF}, "Gram"),
    ("A", {"layer": "hidden_bias", "biases": True}, {"on_span": 0}, "Gram"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "where", "sizes", "inference"), READINGS)
def test_a_value_is_read_by_its_rule_of_inference(
    text: str, where: Where, sizes: Where, inference: str
) -> None:
    value, step = read(context(**where), node(text))
    found = {name: getattr(value, name).width for name in sizes}
    assert found == sizes, (text, found, sizes)
    assert inference in {s.inference.name for s in step.walk()}


MIXED = "neither odd nor even"
PARITIES = [
    ("G", "odd", "odd"), ("sign(G)", "odd", "odd"), ("G**3", "odd", "odd"),
    ("abs(G)", "even", "even"), ("G*G", "even", "even"), ("G*abs(G)", "odd", "odd"),
    ("G**-2", "even", "even"), ("sign(G)*sqrt(abs(G))", "odd", "odd"), ("G + abs(G)", MIXED, MIXED),
    ("sign(row_mean(G))*abs(G)", "odd", "even"), ("G/row_mean(abs(G))", "odd", "odd"),
    ("G + row_mean(G)", "odd", MIXED), ("G*col_mean(abs(G))", "odd", "odd"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "left", "right"), PARITIES)
def test_parity_multiplies_like_a_sign(text: str, left: str, right: str) -> None:
    value, _ = read(context(), node(text))
    assert isinstance(value, Aligned)
    assert (value.left.parity, value.right.parity) == (Parity(left), Parity(right))


def test_every_kind_of_matrix_has_its_kind_of_value() -> None:
    kinds = {"G": Aligned, "A": Spectral, "W": Weights, "G + W": Weights, "norm(G)": Scalar}
    for text, kind in {**kinds, "row_mean(G)": Vector}.items():
        assert isinstance(read(context(), node(text))[0], kind), text


# --- what moves: aligned updates, LLN, CLT --------------------------------------------------------

OWN = [
    ("G", {}, 0, "aligned"), ("G", OUT, 1, "aligned"), ("G", IN, -1, "aligned"),
    ("sign(G)", {}, 1, "LLN"), ("sign(G)", {**T, **OUT}, 1, "LLN"), ("W", {}, 0, "CLT"),
    ("W", OUT, -HALF, "CLT"), ("G - row_mean(G)", T, 0, "aligned"),
    ("G @ G.T @ G", OUT, 2, "aligned"), ("L @ G", OUT, 2, "aligned"), ("sign(G) @ A", T, 2, "LLN"),
    ("G*sqrt(abs(G))", {}, -HALF, "LLN"), ("G/norm(W)", {}, -HALF, "aligned"),
    ("orth(sign(G))", {}, 0, "LLN"), ("G @ (A + rho*trace(A)*I)**(-1)", {}, -1, "aligned"),
    ("G/(rms(G) + eps)", {}, 0, "aligned"), ("G @ G.T @ G - 2*G", OUT, 2, "aligned"),
    ("G @ (A + rho*I)**-1 @ (A + rho*I)**-1", {}, -2, "aligned"),
    ("abs(G)*sign(row_mean(G))", T, -HALF, "LLN"), ("abs(G)*sign(row_mean(G))", {}, 0, "LLN"),
    ("sign(G) @ R**(-1/2)", T, 1, "LLN"), ("G @ (R + diag(R))**(-1/2)", {}, 0, "aligned"),
    ("G/sqrt(row_mean(G*G))", {}, 1, "LLN"),
    ("G + W - G", {}, 0, "CLT"),
    ("(B + rho*I)**-1 @ ((diag(B) + rho*I)**0 @ G)", {"d": 3}, 1, "aligned"),
    ("(B + rho*I)**-1 @ ((diag(B) + rho*I)**-1 @ G)", {"d": 2}, 4, "aligned"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "where", "expected", "inference"), OWN)
def test_an_update_moves_its_output_as_measured(
    text: str, where: Where, expected: Expr, inference: str
) -> None:
    found = update(text, **where)
    assert found.coherent.plus(found.random).width == expected
    assert found.step.inference.name.startswith(inference)
    assert found.random.is_zero is (inference != "CLT")  # only a multiple of W is random


# --- refusals -------------------------------------------------------------------------------------

REFUSED = [
    ("abs(G)", {}, "an update that is even in the gradient"), ("G*G", {}, "an update that is even"),
    ("G + abs(G)", {}, f"an update that is {MIXED}"), ("G*row_mean(G)", {}, "is even"),
    ("1/G", {}, r"blow up like \|x\|\^\(-1\)"), ("G/row_mean(G*G)", {}, "blow up"),
    ("(B + rho*I)**-1 @ ((diag(B) + rho*I)**-1 @ G)", {"d": 3}, r"blow up like \|x\|\^\(-1\)"),
    ("sign(G)/abs(G)**(1/2)", {}, r"blow up like \|x\|\^\(-1/2\)"),
    ("(L @ B)**(-1) @ G", {}, "a power of a product that is not symmetric"),
    ("G @ (A @ R)**(1/2)", {}, "a power of a product that is not symmetric"),
    ("G @ (W.T @ W + rho*I)**(-1)", {}, "the Gaussian matrix W @ the Gaussian matrix W"),
    ("W @ A", {}, "the Gaussian matrix W @ a square matrix"), ("G*W", {}, "the Gaussian matrix W"),
    ("sign(orth(W))", {}, "entries of a polar factor of the weights"),
    ("orth(sign(G) + W)", {}, "orth of a sum of W"),
    ("newton_schulz(G + W, 5)", {}, "singular values that vanish beside others"),
    ("W*sign(W)", {}, "entries of the Gaussian matrix W times"),
    ("sign(G)/abs(W)", {}, r"blow up like \|x\|\^\(-1\) where a weight x is small"),
    ("G/sqrt(row_mean(W*W))", {"layer": "input"}, "a sum over samples, neurons"),
    ("W/(abs(G + W) + 1)", {}, "times a positive function of W"),
    ("sign(abs(G) + W)", {}, "a function of a sum of odd and even terms"),
    ("sign(G + W) - sign(G)", {"layer": "output"}, "which may cancel"),
    ("G/W", {}, "division by the Gaussian"),
    ("sign(orth(sign(G)))", {}, "entries of a full-rank polar factor"),
    ("G*row_mean(abs(orth(sign(G))))", {}, "entries of a full-rank polar factor"),
    ("sign(G) @ sign(G).T @ G", {}, "a Gram matrix of a full-rank entrywise function"),
    ("(G + sign(row_mean(G))*abs(G))*abs(G)", T, f"{MIXED}, under an activation of zero mean"),
    ("G**(1/2)", {}, "entries that take both signs to the power 1/2"),
    ("sqrt(G)", {}, "sqrt of entries that take both signs"),
    ("G/(G - G)", {}, "a division by exactly zero"), ("G*norm(G - G)**(-1)", {}, "exactly zero to"),
    ("G @ diag(A @ R)", {}, "diag of"),
    ("G*(row_mean(G).T @ row_mean(abs(G)))", {}, "a vector of means @ a vector of means"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "where", "why"), REFUSED)
def test_what_no_rule_of_inference_covers_is_refused_by_name(
    text: str, where: Where, why: str
) -> None:
    with pytest.raises(NotCovered, match=rf"(?s){why}.*needed: .*do this: "):
        update(text, **where)


# --- sampled Fisher -------------------------------------------------------------------------------

SAMPLED = "B of sampled cotangents: as much of it lies off the span as in it"


@pytest.mark.parametrize("name", ["kfac", "kfac_left_only", "kfac_right_only", "shampoo", "sgd"])
def test_sampled_cotangents_change_no_exponent_under_balanced_damping(name: str) -> None:
    loss, sampled = solve(name), solve(name, sampled=True)
    assert loss.exponents == sampled.exponents
    assert loss.assumptions == sampled.assumptions


def test_a_negligible_damping_sets_the_scale_of_a_sampled_factor_and_says_so() -> None:
    e_A, e_B = Symbol("e_A"), Symbol("e_B")
    loss, sampled = (solve("kfac", "d_rho_B=3", sampled=x) for x in (False, True))
    assert loss.exponents.c == {"input": e_B - 1, "hidden": e_B - e_A, "output": 1 - e_A}
    expected = {"input": 3 * e_B - 1, "hidden": 3 * e_B - e_A, "output": 1 - e_A}
    # 16 samples of 10 classes: sampled cotangents span all outputs
    assert sampled.exponents.c == expected
    assert [a for a in sampled.assumptions if a.startswith(SAMPLED)]
    assert not [a for a in loss.assumptions if a.startswith(SAMPLED)]
    above = solve("kfac", "d_rho_B=-3", sampled=True)  # a damping that drowns B decides nothing
    assert above.exponents == solve("kfac", "d_rho_B=-3").exponents


# --- the derivation as data -----------------------------------------------------------------------

KNOWN = {x for x in vars(derivation).values() if isinstance(x, Inference)}
RULES = [*tour(), "G + W", "sign(G) @ (A + rho*I)**-1", "G/sqrt(row_mean(G*G)+eps)", "G - G"]


@pytest.mark.parametrize("name", RULES)
def test_a_derivation_is_a_well_formed_tree(name: str) -> None:
    found = solve(name)
    for layer, step in found.steps.items():
        lines = step.lines()
        assert lines[-1] is step
        assert len(lines) == len(set(lines)), layer
        for i, line in enumerate(lines):
            assert set(line.inputs) <= set(lines[:i]), (layer, i, line.subject)
            assert line.inference in KNOWN
            assert line.subject
        carried = {text for s in step.walk() for text in s.assumption.split("; ")} - {""}
        assert carried == set(step.assumptions()) <= set(found.assumptions)
        last = [*found.problem.rule.decays, "c"][0]
        assert step.subject == f"{last} of {layer}"
        assert f"c of {layer}" in {line.subject for line in lines}
        assert found.updates[layer].step in lines
    reachable = {text for step in found.steps.values() for text in step.assumptions()}
    assert reachable == set(found.assumptions)


def test_a_moving_average_keeps_the_line_of_what_it_averages() -> None:
    subjects = [s.subject for s in solve("momentum").steps["hidden"].walk()]
    assert "G" in subjects
    assert "ema(G, beta)" in subjects


@pytest.mark.parametrize(
    ("outside", "inside"),
    [
        ("G @ diag(A + rho*I)**(-1)", "G @ (diag(A) + rho*I)**(-1)"),
        ("G @ block(A + rho*I, 4)**(-1)", "G @ (block(A, 4) + rho*I)**(-1)"),
        ("(diag(2*(B + rho*trace(B)*I).T) )**(-1/2) @ G", "(diag(B) + rho*trace(B)*I)**(-1/2) @ G"),
        ("G @ block(ema(block(A, 8), beta) + rho*I, 4)**(-1)", "G @ (block(A, 4) + rho*I)**(-1)"),
    ],
)
def test_a_damping_balances_what_it_meets_inside_a_cut(outside: str, inside: str) -> None:
    one, other = solve(outside).exponents, solve(inside).exponents
    assert (one.c, one.d) == (other.c, other.d)
    assert one.d != solve("G @ (A + rho*I)**(-1)").exponents.d  # the whole matrix is another matter


def test_the_largest_entry_of_a_diagonal_is_known_up_to_logarithms() -> None:
    (text,) = [x for x in solve("specnorm(diag(A))*G").assumptions if "logarithms" in x]
    assert text.startswith("specnorm(diag(A))")
    assert not [x for x in solve("specnorm(A)*G").assumptions if "logarithms" in x]


def test_what_is_assumed_of_a_given_b_is_reachable_from_a_step() -> None:
    found = solve("kfac", "b_output=beta")
    reachable = {text for step in found.steps.values() for text in step.assumptions()}
    assert set(found.assumptions) <= reachable


# --- known to be wrong ----------------------------------------------------------------------------

# rule, where, true exponent of dW h (None: it has none), why the calculus errs
X = "(sign(row_mean(G))*abs(G))"
OUTER = "(row_mean(G) @ col_mean(abs(G)))"
SCALED = "orth(G/sqrt(row_mean(G*G)))"
HARD: list[tuple[str, Where, Any, str]] = [
    ("G @ diag(A) @ (A + rho*I)**-1", {}, 0, "diag(A) turns G out of the span of A"),
    ("(B + rho*I)**-1 @ diag(B) @ G", {"d": 3}, 1, "diag(B) turns G out of the span of B"),
    ("G @ ((G @ diag(A)).T @ (G @ diag(A)) + rho*I)**-1", {"d": 3}, 3, "a Gram matrix elsewhere"),
    (f"{OUTER} @ {OUTER}.T @ G", T, -3, "a Gram matrix takes the gain for the norm"),
    (f"orth({OUTER})", T, -HALF, "orth takes an even factor for one along h"),
    (f"{SCALED}/rms({SCALED})", {}, 1, "a rescaled G keeps its low rank"),
    ("orth(G - row_mean(G))/rms(orth(G - row_mean(G)))", {}, 1, "a vector of means has rank one"),
    ("G*norm(orth(G*G*G))", {}, 0, "entrywise polynomials keep a low rank"),
    ("G/norm(orth(sign(G)) @ A)", {}, -1, "A projects a full-rank factor to low rank"),
    ("G/norm(B @ abs(G))", {}, Rational(3, 2), "delta . |delta| is a CLT, not an LLN"),
    (f"G/norm({X} @ A)", T, -HALF, "h . |h| is a CLT under an odd activation"),
    (f"sign({X} @ A)", T, 1, "what A projects is along h, hence odd"),
    ("sign(G)*col_mean(G + abs(G))", {}, 0, "a mean of neither parity does not vanish"),
    ("sign(G)*abs(col_mean(G + fan_in**(-1/4)*abs(G)))", {}, -Rational(1, 4),
     "the even part of a sum outlives the mean of its larger odd part"),
    ("(sign(row_mean(G)) + fan_in**(-1/4)*sign(G))**3", T, Rational(3, 4),
     "the odd part of a sum outweighs the gain of its larger even part"),
    ("G*col_mean(G)", {}, None, "a mean over delta is odd in delta: this update is even"),
    ("G*sign(col_mean(G))", {}, None, "a mean over delta is odd in delta: this update is even"),
    ("row_mean(G) @ col_mean(G)", {}, None, "odd times odd in G: this update is even"),
    ("row_mean(G) @ col_mean(G)*sign(G)*G", {}, None, "odd times odd in G: this update is even"),
    ("(G @ A)/abs(G)", T, None, "G @ A does not vanish where G does"),
    ("G/abs(orth(G))", T, None, "orth(G) vanishes where G does not"),
    ("G**3/abs(orth(G))", T, None, "orth(G) vanishes where G does not"),
    ("G/abs(G + orth(G))", T, None, "the sum vanishes where G does not"),
    ("G/abs(col_mean(sign(G)))", T, None, "a mean of signs vanishes where G does not"),
    ("G**3/(abs(row_mean(G)) @ abs(col_mean(G)))", {}, None, "means vanish where G does not"),
    ("G - row_mean(G) + fan_in*row_mean(G - row_mean(G))", {}, 0, "a centred mean is exactly 0"),
    ("G*trace(A - trace(A)/fan_in*I)", {}, -oo, "a centred trace is exactly 0"),
    ("G*trace((A + rho*I)**-1 - 1/rho*I)", {}, 0, "terms cancel off the span"),
    ("G*trace((block(A, 32) + rho*I)**-1)", {"d": 1}, 2, "blocks have a null space"),
    ("sign(G) @ (block(A, 32) + rho*I)**-1", {"d": 1}, 2, "blocks have a null space"),
    ("G*trace((L + rho*I)**-1)", OUT, 0, "no off-span direction where fan_out <= n"),
    ("G + W - I @ W", IN, -1, "sums of W are not checked for cancellation"),
    ("G*row_mean(G**-2)**(-1/2)", T, -Rational(3, 2), "a mean of heavy tails"),
    ("G/norm(G**-1)", T, None, "a norm of heavy tails"),
    ("diag(L)**-1 @ G", {}, None, "heavy tails of a diagonal: G/row_mean(G*G) is refused"),
    ("G/(diag(L)**(1/2) @ abs(G))", {}, None, "heavy tails of a diagonal"),
    ("sign(G)/(G*G + eps)", {"d": 4}, 4, "a negligible eps cuts the tail that sets the size"),
    ("G/(abs(G) - eps)", {"d": 1}, None, "a difference in a divisor has poles"),
    ("G/(G*G - rms(G)**2)", {}, None, "a difference in a divisor has poles"),
    ("G @ (A - rho*I)**(-1/2)", {"d": -1}, None, "a root of an indefinite matrix"),
    ("G*sqrt(-G*G)", {}, None, "a root of negative entries"),
    ("G*sqrt(row_mean(G*G) - rms(G)**2)", {}, None, "a root of negative entries"),
    ("sign(G)*abs(G)**(-1/2 - e)", {}, None, "<= with equality at e = 0 is taken for open"),
    ("sign(G)*abs(G)**(-e)", {}, None, "holds for e < 1/2 only, and does not say so"),
    ("(B + L + rho*I)**-1 @ G", {"d": 1, "sampled": True}, 0, "L contains what B does not"),
    ("G @ block(block(A, 4), 2)", {}, 0, "blocks of blocks are spread over the fan once"),
    ("block(block(L, 8), 4) @ G", {}, -1, "blocks of blocks are spread over the fan once"),
    ("G @ diag(block(A, 4))", {}, 0, "a diagonal of blocks is spread over the fan once"),
    ("G @ block(block(A, 4), 6)", {}, 0, "blocks of uneven blocks"),
    ("(B + diag(B))**-1 @ G", {}, None, "B shields no small entry of diag(B) off its span"),
    ("G @ (A + diag(A))**-1", {}, None, "A shields no small entry of diag(A) off its span"),
    ("G*specnorm(diag(A)**-1)", {}, None, "the largest of M heavy-tailed numbers"),
    ("G*trace(diag(A)**-1)", {}, None, "a sum of heavy-tailed numbers"),
    ("G*max(-1, rms(G))", {}, None, "a negative number is not the larger one"),
    ("G*max(rms(G), norm(W) - norm(G))", {}, None, "nor is a difference of unknown sign"),
    ("G*max(-rms(G), 1)", {}, 0, "one below zero that is small does not matter"),
    ("G*sqrt((norm(G) - rms(G))**3)", {}, None, "an odd power keeps the sign"),
    ("G*sqrt(sign(norm(G) - rms(G)))", {}, None, "a sign is not positive"),
    ("G*sqrt((norm(G) - rms(G))**2)", {}, 0, "an even power is positive"),
    ("G*sqrt(abs(norm(G) - rms(G)))", {}, 0, "an absolute value is positive"),
    ("G*max(rms(G) - 2*rms(G), rms(G))", {}, -1, "nor one of the same size"),
    ("G*fan_in**(1/0)", {}, None, "a power of infinity"),
    ("G @ A**(0/0)", {}, None, "a power that is no number"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "where", "true"),
    [pytest.param(*x[:3], id=x[0]) for x in HARD],
)
def test_a_derived_exponent_is_true_or_refused(text: str, where: Where, true: Any) -> None:
    try:
        found = update(text, **where)
    except (NotCovered, RuleError):
        return
    exponent = found.coherent.plus(found.random).width
    assert true is not None, f"derived {exponent}, to be refused"
    assert exponent == true, f"derived {exponent}, true {true}"


# differences that all but cancel, with the true exponent of dW h
CANCELLING = [
    ("G - G @ (A + rho*I)**-1 @ A", 0, -1), ("G - (L + rho*I)**-1 @ L @ G", 3, -3),
    ("G - rho*G @ (A + rho*I)**-1", -3, -2), ("G*(trace(A + rho*I) - trace(A))", 3, -2),
    ("G*(norm(G + rho*sign(G)) - norm(G))", 3, -2),
]  # fmt: skip


@pytest.mark.parametrize(("text", "d", "true"), CANCELLING)
def test_a_difference_that_may_cancel_is_true_or_refused(text: str, d: int, true: int) -> None:
    try:
        found = update(text, d=d)
    except NotCovered:
        return
    assert found.coherent.width == true, f"derived {found.coherent.width}, true {true}"


def test_only_sampled_cotangents_are_said_to_be_sampled() -> None:
    turned = "((G @ diag(A)).T @ (G @ diag(A)) + rho*I)"
    found = solve(f"G @ {turned}**-1", "d_rho=9").assumptions
    assert not [a for a in found if a.startswith(SAMPLED)]


def test_a_function_without_a_rule_of_inference_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(FUNCTIONS, "flip", replace(FUNCTIONS["orth"], name="flip"))
    with pytest.raises(NotCovered, match="the function flip"):
        update("flip(G)")
