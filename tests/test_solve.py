"""`derive` under switched conditions, its conflicts, and `predict` regime by regime."""

from typing import Any

import pytest
from spread import spread
from sympy import Expr, Max, Rational, S, Symbol
from tour import kinds, tour

from derivations.catalogue import catalogue
from scaling.cli.requests import literal_of, problem_of
from scaling.models.chain import Activation, Loss, Setting, mlp
from scaling.models.settings import Settings, exact, read_settings
from scaling.rules.parser import parse
from scaling.rules.rule import Rule
from scaling.sizes.errors import Conflict, InvalidInput, NotCovered
from scaling.solve.conditions import (
    BALANCED_DAMPING,
    BOUNDED_DAMPING,
    MAXIMAL_READBACK,
    MAXIMAL_UPDATE,
    STABLE_START,
    STABLE_STEP,
    STANDARD,
    Condition,
)
from scaling.solve.derive import Derived, derive
from scaling.solve.predict import LayerPrediction, predict
from scaling.states.problem import Exponents, Problem

HALF, oo = S.Half, S.Infinity
RELU, TANH = Activation.RELU, Activation.TANH
NAMES = ("input", "hidden", "output")
e_A, e_B, b_L = (Symbol(name) for name in ("e_A", "e_B", "b_output"))


def known(rule: str) -> Rule:
    return catalogue()[rule].rule if rule in catalogue() else parse(rule)


def solve(rule: str, *given: str, off: tuple[Condition, ...] = (), depth: int = 3) -> Derived:
    layers, rule_ = mlp(depth), known(rule)
    wanted = [c for c in STANDARD if c not in off]
    return derive(rule_, read_settings(given, rule_, layers), Setting(layers), wanted)


def evaluate(
    rule: str, b: tuple[Any, ...], c: tuple[Any, ...], activation: Activation = RELU
) -> dict[str, LayerPrediction]:
    layers = mlp(len(b))
    names = [layer.name for layer in layers]
    table = Exponents(
        dict.fromkeys(names, S.Zero),
        dict(zip(names, map(S, b), strict=True)),
        dict(zip(names, map(S, c), strict=True)),
        {name: {} for name in names},
    )
    return dict(predict(Problem(known(rule), Setting(layers, activation)), table).layers)


# --- conditions -----------------------------------------------------------------------------------


def test_without_the_readback_condition_its_exponent_is_free_and_c_follows_it() -> None:
    found = solve("kfac", off=(MAXIMAL_READBACK,))
    assert found.free == ("b_output",)
    assert found.exponents.b["output"] == b_L
    assert found.bounds.intervals["b_output"] == (HALF, oo)
    for name in ("input", "hidden"):
        assert b_L in found.exponents.c[name].free_symbols
    solved = solve("kfac")
    for name in NAMES:
        assert found.exponents.c[name].subs(b_L, 1).expand() == solved.exponents.c[name]
        for rho, d in found.exponents.d[name].items():
            assert d.subs(b_L, 1) == solved.exponents.d[name][rho], (name, rho)


def test_without_balanced_damping_d_is_free_and_c_holds_every_regime() -> None:
    found = solve("kfac", off=(BALANCED_DAMPING,))
    assert found.free == tuple(f"d_{rho}_{name}" for name in NAMES for rho in ("rho_B", "rho_A"))
    d_A, d_B = Symbol("d_rho_A_hidden"), Symbol("d_rho_B_hidden")
    assert found.exponents.c["hidden"] == -e_A * Max(1, -d_A) - e_B * Max(-1, -d_B)
    assert found.exponents.c["hidden"].subs({d_A: -1, d_B: 1}) == e_B - e_A
    assert {r.order.value for r in found.regimes["hidden"]} == {"?"}


def test_without_maximal_update_the_learning_rates_are_free() -> None:
    found = solve("kfac", off=(MAXIMAL_UPDATE,))
    assert found.free == ("c_input", "c_hidden", "c_output")
    assert list(found.exponents.c.values()) == [Symbol(x) for x in found.free]
    assert found.exponents.d == solve("kfac").exponents.d


def test_without_a_stable_step_the_output_may_move_as_it_likes() -> None:
    held = solve("sgd", "b_output=1/2").exponents.c
    loose = solve("sgd", "b_output=1/2", off=(STABLE_STEP,)).exponents.c
    assert list(held.values()) == [0, 1, 1]
    assert list(loose.values()) == [-HALF, HALF, 1]  # own updates of order one, df ~ M^(1/2)


def test_without_a_stable_start_initialisation_is_free() -> None:
    found = solve("sgd", off=(STABLE_START,))
    assert found.free == ("b_input", "b_hidden")
    at = {Symbol("b_input"): 0, Symbol("b_hidden"): HALF}
    assert [c.subs(at) for c in found.exponents.c.values()] == [-1, 0, 1]


def test_no_condition_leaves_everything_free() -> None:
    found = solve("sgd", off=STANDARD)
    assert found.free == ("b_input", "b_hidden", "b_output", "c_input", "c_hidden", "c_output")


@pytest.mark.parametrize(("rule", "depth"), spread(kinds(), [2, 5]))
def test_depth_changes_no_exponent(rule: str, depth: int) -> None:
    short, deep = solve(rule).exponents, solve(rule, depth=depth).exponents
    assert len(deep.c) == depth
    for name in deep.c:
        role = name.split("_")[0]
        for one, other in ((deep.b, short.b), (deep.c, short.c), (deep.d, short.d)):
            assert one[name] == other[role], (name, one[name], other[role])


@pytest.mark.parametrize(
    ("rule", "activation", "loss"), spread(tour(), list(Activation), list(Loss))
)
def test_what_is_derived_is_maximal_in_every_layer(
    rule: str, activation: Activation, loss: Loss
) -> None:
    setting = Setting(mlp(4, biases=True), activation, loss)
    found = derive(known(rule), None, setting)
    still = {
        text.split(" layer:")[0].rsplit(" ", 1)[1]
        for text in found.assumptions
        if text.endswith("its update is exactly zero")  # centred gradients of a bias
    }
    assert all(name.endswith("_bias") for name in still)
    for name, layer in predict(found.problem, found.exponents, found.bounds).layers.items():
        if name not in still:
            assert (layer.own, layer.feature, layer.regime) == (0, 0, "maximal"), name


def test_a_multiplier_is_taken_out_of_the_initial_scale() -> None:
    found = solve("sgd", "a_hidden=1/2", "a_output=1").exponents
    assert list(found.b.values()) == [0, 0, 0]
    assert list(found.c.values()) == [-1, -1, -1]


def test_what_is_not_fixed_by_a_zero_gradient_is_reported_free() -> None:
    found = solve("kfac", "b_output=oo")
    assert set(found.free) == {"c_input", "c_hidden", "d_rho_B_input", "d_rho_B_hidden"}
    text = "the first step does not move the hidden layer: its gradient is exactly zero"
    assert text in found.assumptions


def test_free_exponents_are_symbols() -> None:
    found = solve("G @ (A + rho1/rho2*I)**(-1)")
    assert set(found.free) == {f"d_rho2_{name}" for name in NAMES}


# --- conflicts ------------------------------------------------------------------------------------

CONFLICTS = [
    ("sgd", ["b_hidden=0"], r"a \+ b = 0 in the hidden layer, whose output then grows"),
    ("sgd", ["b_hidden=1"], r"a \+ b = 1 in the hidden layer, whose output then vanishes"),
    ("sgd", ["b_output=0"], r"a \+ b = 0 in the output layer, .* grows(?s:.)*a \+ b >= 1/2 there"),
    ("sgd", ["a_hidden=1", "b_hidden=0"], r"a \+ b = 1 in the hidden layer"),
    ("sgd", ["b_input=-1/2"], r"a \+ b = -1/2 in the input layer, whose output then grows"),
    ("(B + rho*I)**-1 @ G @ (A + rho*I)**-1", [], r"'A \+ rho\*I' of the input layer .* M\^\("),
    ("(L + rho*I)**-1 @ G @ (A + rho*I)**-1", [], r"one damping per size, or one that is given"),
    ("G/(abs(G) + eps) + G/(rms(G)**2 + eps)", [], r"would have to balance two sizes"),
]


@pytest.mark.parametrize(("rule", "given", "why"), CONFLICTS)
def test_what_contradicts_a_condition_is_a_conflict(rule: str, given: list[str], why: str) -> None:
    with pytest.raises(Conflict, match=why):
        solve(rule, *given, off=(BOUNDED_DAMPING,))


def test_a_conflict_is_lifted_by_switching_the_condition_or_fixing_the_symbol() -> None:
    assert solve("sgd", "b_hidden=0", off=(STABLE_START,)).exponents.b["hidden"] == 0
    two_sums = CONFLICTS[5][0]
    assert set(solve(two_sums, "d_rho=0").exponents.d["hidden"].values()) == {0}
    assert solve(two_sums, off=(BALANCED_DAMPING,)).free


def test_one_symbol_in_two_sums_of_one_size_is_no_conflict() -> None:
    found = solve("G @ (A + rho*I)**-1 @ (A + rho*I)**-1 @ (R*norm(A)/norm(R) + rho*I)")
    assert {name: d["rho"] for name, d in found.exponents.d.items()} == {
        "input": 0, "hidden": -1, "output": -1,
    }  # fmt: skip
    found = solve("G @ (rho1*I + rho2*I + A)**-1")
    assert found.exponents.d["hidden"] == {"rho1": -1, "rho2": -1}


@pytest.mark.parametrize(
    ("pair", "why"),
    [
        ("b_hiden=1", "did you mean 'b_hidden'"), ("b_output", "key=value"), ("=1", "key=value"),
        ("b_output=-oo", "a finite exponent"), ("c_output=oo", "a finite exponent"),
        ("b_output=oo-oo", "a number, or oo"), ("b_output=1/0", "division by zero|a number, or oo"),
        ("b_output=G", "the exponent 'G'"), ("e_A=sign(1)", "the exponent"),
        ("d_rho_A=oo", "finite"), ("rho_A=-1", "not negative"),
        ("rho_A=x", "not negative"), ("e_C=1", "setting 'e_C'"),
    ],
)  # fmt: skip
def test_a_malformed_setting_is_refused(pair: str, why: str) -> None:
    with pytest.raises(InvalidInput, match=why):
        read_settings([pair], known("kfac"), mlp())


def test_settings_are_exact_and_the_last_one_wins() -> None:
    assert exact("0.1") == Rational(1, 10)
    assert exact("2*beta - 1") == 2 * Symbol("beta") - 1
    found = read_settings(["c=1", "c_hidden=1/3", "d_rho_A=2", "rho_A=0.1"], known("kfac"), mlp())
    assert found.c == {"input": 1, "hidden": Rational(1, 3), "output": 1}
    assert found.d == {("rho_A", name): 2 for name in NAMES}
    assert found.values == {"rho_A": 0.1}
    deep = read_settings(["b_hidden=1"], known("sgd"), mlp(4))
    assert deep.b == {"hidden_1": 1, "hidden_2": 1}


def test_symbols_that_are_given_are_put_into_what_else_is_given() -> None:
    rule = known("kfac")
    found = read_settings(["d_rho_B=e_B", "c_hidden=2*e_A", "e_A=e_B", "e_B=1/2"], rule, mlp())
    assert found.exponents == {"e_A": HALF, "e_B": HALF}
    assert found.d["rho_B", "hidden"] == HALF and found.c == {"hidden": 1}
    kept = read_settings(["d_rho_B=e_B", "e_A=e_A"], rule, mlp())
    assert kept.d["rho_B", "hidden"] == e_B and not kept.exponents
    with pytest.raises(InvalidInput, match="e_A = e_B, which goes back to what it gives"):
        read_settings(["e_A=e_B", "e_B=e_A"], rule, mlp())
    for pair in ("c=1/e_A", "b_output=1/e_A", "e_B=1/e_A"):
        with pytest.raises(InvalidInput, match="the exponent 1/e_A, which is zoo for the values"):
            read_settings([pair, "e_A=0"], rule, mlp())
    assert read_settings(["b_output=oo", "e_A=0"], rule, mlp()).b["output"] is oo


def test_what_follows_a_free_damping_follows_the_one_that_is_given() -> None:
    """G / eps is gradient descent at a rate that is larger by M^(d_eps)."""
    for d in ("0", "1", "-1/2", "x"):
        problem = problem_of("G/eps", [f"d_eps={d}"])
        table, bounds = literal_of(problem)
        assert list(table.c.values()) == [exact(f"{d} {c}") for c in ("- 1", "+ 0", "+ 1")]
        layers = predict(problem, table, bounds).layers.values()
        assert {layer.regime for layer in layers} == {"maximal"}
    free = literal_of(problem_of("G/eps", ["d_eps_hidden=1"]))[0]
    assert list(free.c.values()) == [Symbol("d_eps_input") - 1, 1, Symbol("d_eps_output") + 1]
    given = literal_of(problem_of("G/eps", ["d_eps=1", "c_hidden=3"]))[0]
    assert list(given.c.values()) == [0, 3, 2]


def test_a_rate_that_is_given_is_said_to_be_no_maximal_update() -> None:
    said = "maximal update is not imposed: c_hidden is given, where the largest stable step has 0"
    for c in ("-5", "2"):
        assert said in solve("sgd", f"c_hidden={c}").assumptions
    for c in ("0", "c=0"):
        assert said not in solve("sgd", f"c_hidden={c}" if c == "0" else c).assumptions
    assert not solve("kfac", "c_hidden=e_B - e_A").assumptions[1:]


@pytest.mark.parametrize("rule", ["G @ (rho*I + rho*rho*I + A)**-1", "G/(eps + eps*eps + abs(G))"])
def test_a_damping_added_to_its_square_is_solved_or_refused(rule: str) -> None:
    try:
        found = solve(rule)
    except (Conflict, NotCovered):
        return
    assert all(x.is_Rational for d in found.exponents.d.values() for x in d.values())


def test_a_symbol_for_a_hidden_b_is_held_to_a_stable_start() -> None:
    try:
        found = solve("sgd", "b_hidden=x")
    except Conflict:
        return
    assert found.exponents.b["hidden"] == HALF or "x = 1/2 (stable start)" in found.assumptions


def test_a_symbol_of_the_user_is_not_solved_for() -> None:
    rule = parse("(B + rho*I)**(-1) @ G")
    with pytest.raises(Conflict, match=r"d_rho_hidden(.|\n)*names an unknown"):
        derive(rule, Settings(b={"output": Symbol("d_rho_hidden")}))
    with pytest.raises(InvalidInput, match=r"d_rho_hidden(.|\n)*choose another name"):
        read_settings(["b_output=d_rho_hidden"], rule, mlp(3))


def test_factored_second_moments_are_derived_for_biases_too() -> None:
    found = derive(parse("G/sqrt(row_mean(G*G) + eps)"), None, Setting(mlp(3, biases=True)))
    assert found.exponents.c["hidden_bias"] == 0  # row_mean(G*G) is G*G there: sign descent


# --- regimes --------------------------------------------------------------------------------------

# rule, b, c, activation, then own | feature | regime by layer; None: the calculus is silent
MAX, SUB, LAZY, FROZEN, BAD = "maximal", "sub-maximal", "lazy", "frozen", "unstable"
MUP, SP, ZERO = (0, HALF, 1), (0, HALF, HALF), (0, HALF, oo)
REGIMES = [
    ("sgd", MUP, (-1, 0, 1), RELU, (0, 0, 0), (0, 0, 0), (MAX,) * 3),
    ("sgd", SP, (0, 0, 0), RELU, (-HALF, HALF, 1), (-HALF, HALF, None), (LAZY, BAD, BAD)),
    ("sgd", SP, (0, 0, 0), TANH, (-HALF, HALF, 1), (-HALF, 0, None), (LAZY, BAD, BAD)),
    ("sgd", SP, (0, 1, 1), RELU, (-HALF, -HALF, 0), (-HALF, -HALF, 0), (LAZY, LAZY, MAX)),
    ("sign", SP, (HALF, 1 + HALF, 1), TANH, (-HALF, -HALF, 0), (-HALF, -HALF, 0),
     (LAZY, LAZY, MAX)),
    ("sgd", MUP, (-1, 2, 1), RELU, (0, -2, 0), (0, 0, 0), (MAX, SUB, MAX)),
    ("sgd", MUP, (-1, 0, 3), RELU, (0, 0, -2), (0, 0, 0), (MAX, MAX, SUB)),
    ("sgd", MUP, (0, 1, 1), RELU, (-1, -1, 0), (-1, -1, 0), (LAZY, LAZY, MAX)),
    ("sgd", SP, (2, 2, 2), RELU, (-Rational(5, 2), -Rational(3, 2), -1),
     (-Rational(5, 2), -Rational(3, 2), -1), (FROZEN,) * 3),
    ("sgd", MUP, (-2, 0, 1), RELU, (1, 0, 0), (1, None, None), (BAD,) * 3),
    ("sgd", MUP, (-2, 0, 1), TANH, (1, 0, 0), (0, None, None), (BAD,) * 3),
    ("sgd", MUP, (-1, 0, 0), RELU, (0, 0, 1), (0, 0, 1), (MAX, MAX, BAD)),
    ("sgd", ZERO, (-1, 0, 1), RELU, (-oo, -oo, 0), (-oo, -oo, 0), (FROZEN, FROZEN, MAX)),
    ("sgd", (0, 1), (-1, 1), RELU, (0, 0), (0, 0), (MAX, MAX)),
    ("sgd", (0, HALF), (0, 0), RELU, (-HALF, 1), (-HALF, 1), (LAZY, BAD)),
    ("sgd", (0, HALF, HALF, HALF, 1), (-1, 0, -1, 0, 1), RELU, (0, 0, 1, 0, 0),
     (0, 0, 1, None, None), (MAX, MAX, BAD, BAD, BAD)),
    ("sgd", (0, HALF, HALF, HALF, 1), (9, 0, 9, 9, 9), RELU, (-10, 0, -9, -9, -8),
     (-10, 0, 0, 0, 0), (LAZY, MAX, SUB, SUB, SUB)),
    ("G + W", MUP, (1, 1, 2), RELU, (-1, -1, -1), (-1, -1, -1), (FROZEN,) * 3),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "b", "c", "activation", "own", "feature", "regime"), REGIMES)
def test_the_regime_of_a_table_is_named_layer_by_layer(
    rule: str, b: Any, c: Any, activation: Activation, own: Any, feature: Any, regime: Any
) -> None:
    layers = list(evaluate(rule, b, c, activation).values())
    assert [x.own for x in layers] == list(own)
    assert [x.feature for x in layers] == list(feature)
    assert [str(x.regime) for x in layers] == list(regime)


LAZY_FAMILY = [("sgd", []), ("kfac", ["e_A=1", "e_B=1"]), ("shampoo", ["e=1/2"]), ("sign", [])]


@pytest.mark.parametrize(("rule", "given"), LAZY_FAMILY)
def test_the_lazy_family_is_lazy_below_the_readout(rule: str, given: list[str]) -> None:
    found = solve(rule, "b_output=1/2", *given)
    layers = predict(found.problem, found.exponents, found.bounds).layers
    assert [str(x.regime) for x in layers.values()] == [LAZY, LAZY, MAX]
    assert [x.feature for x in layers.values()] == [-HALF, -HALF, 0]


def test_init_is_the_size_of_the_features_at_the_start() -> None:
    assert [x.init for x in evaluate("sgd", MUP, (0, 0, 0)).values()] == [0, 0, -HALF]
    assert [x.init for x in evaluate("sgd", SP, (0, 0, 0)).values()] == [0, 0, 0]
    assert [x.init for x in evaluate("sgd", (0, 0, 0), (9, 9, 9)).values()] == [0, HALF, 1]


def test_a_symbol_in_the_table_leaves_the_regime_open_and_a_bound_closes_it() -> None:
    x = Symbol("x")
    assert str(evaluate("sgd", MUP, (x, 0, 1))["input"].regime) == "open"
    found = solve("sgd", "b_output=beta")
    layers = predict(found.problem, found.exponents, found.bounds).layers
    assert layers["output"].own == 0
    assert layers["input"].feature.subs(Symbol("beta"), HALF) == -HALF


def test_what_is_covered_by_no_rule_is_refused_by_predict_too() -> None:
    with pytest.raises(NotCovered, match="an update that is even"):
        evaluate("abs(G)", MUP, (0, 0, 0))
    with pytest.raises(NotCovered, match="which saturates"):
        evaluate("sgd", (0, 0, 0), (0, 0, 0), TANH)


def _exponent(x: Expr | None) -> Expr:
    return oo if x is None else x


def test_features_that_outgrow_small_ones_reach_the_update_above() -> None:
    # h_1 ~ 1/M moves by 1: the new h_1 meets dW_2, and dh_2 ~ M as measured, not 1
    hidden = evaluate("sgd", (1, HALF, 1), (-1, -2, 1))["hidden"]
    assert _exponent(hidden.feature) > 0
    assert str(hidden.regime) == "unstable"


def test_sampled_cotangents_do_not_grow_with_the_output() -> None:
    rule, zero = parse("G/trace(B)"), dict.fromkeys(NAMES, S.Zero)
    table = Exponents(zero, dict(zip(NAMES, (S.Zero, HALF, S.Zero), strict=True)), zero,
                      {name: {} for name in NAMES})  # fmt: skip
    with pytest.raises(NotCovered, match="they do not grow with it"):
        predict(Problem(rule, sampled_fisher=True), table)
