"""The abc symmetry: M^t moved from the initial scale into the multiplier changes nothing else.

The oracle is a computation by hand. With w' = M^t w and h' = M^(-t) h, a rule whose update is
homogeneous of degree p in h gives U' = M^(-p t) U; to move w' by M^t times the old change,
M^(-c') = M^(t + p t - c), so c' = c - (1 + p) t. A damping follows what it is added to.
"""

import random
from collections.abc import Mapping
from itertools import pairwise

import pytest
from spread import spread
from sympy import Expr, Rational, S, Symbol
from tour import TOUR, kinds

from derivations.catalogue import catalogue
from scaling.models.chain import Activation, Loss, Setting, mlp
from scaling.models.settings import Settings, read_settings
from scaling.rules.parser import parse
from scaling.rules.rule import Rule
from scaling.sizes.errors import NotCovered
from scaling.solve.derive import derive
from scaling.solve.predict import predict
from scaling.solve.symmetry import Comparison, canonical, compare, move, shift
from scaling.states.problem import Exponents, Problem

e, e_A = Symbol("e"), Symbol("e_A")
ONE, ZERO = S.One, S.Zero
# rule -> degree in h of the update, and of what each damping is added to
DEGREES: list[tuple[str, Expr, dict[str, Expr]]] = [
    ("sgd", ONE, {}),
    ("momentum", ONE, {}),
    ("sign", ZERO, {}),
    ("adam", ZERO, {"eps": ONE}),
    ("adam_debiased", ZERO, {"eps": ONE}),
    ("h_fac", ZERO, {"eps": S(2)}),
    ("sam", ONE, {"radius": -ONE}),  # as the rate of normalised descent
    ("muon", ZERO, {}),
    ("normalized_sgd", ZERO, {}),
    ("kfac", 1 - 2 * e_A, {"rho_A": S(2), "rho_B": ZERO}),
    ("kfac_left_only", ONE, {"rho_B": ZERO}),
    ("kfac_right_only", 1 - 2 * e_A, {"rho_A": S(2)}),
    ("foof", 1 - 2 * e_A, {"rho_A": S(2)}),
    ("shampoo", 1 - 2 * e, {"rho_L": S(2), "rho_R": S(2)}),
    ("nesterov", ONE, {}),
    ("lion", ZERO, {"decay": ONE}),
    ("adamw", ZERO, {"eps": ONE, "decay": ONE}),
    ("sgd_penalised", ONE, {"decay": S(2)}),  # a decay follows 1/lr: 1 + p
    ("momentum_penalised", ONE, {"decay": S(2)}),
    ("sgdw", ONE, {"decay": S(2)}),
    ("norm(W)/norm(G)*G + 8*W", -ONE, {}),  # lr does not move, so nor need the multiple of W
    ("adam_atan2", ZERO, {}),
    ("rmsprop", ZERO, {"eps": ONE}),
    ("adagrad", ZERO, {"eps": ONE}),
    ("adafactor", ZERO, {"eps": S(2)}),
    ("adafactor_relative", -ONE, {"eps": S(2)}),  # W itself moves against h
    ("lars", -ONE, {"eps": ONE}),
    ("lamb", -ONE, {"eps": ONE}),
    ("muon_spectral", ZERO, {}),
    ("muon_max", ZERO, {}),
    ("muon_rms", ZERO, {}),
    ("spectral_sgd", ZERO, {}),
    ("kfac_relative", 1 - 2 * e_A, {"rho_A": ZERO, "rho_B": ZERO}),
    ("kfac_trace", 1 - 2 * e_A, {"rho_A": ZERO, "rho_B": ZERO}),
    ("kfac_mean", 1 - 2 * e_A, {"rho_A": ZERO, "rho_B": ZERO}),
    ("kfac_pi", 1 - 2 * e_A, {"rho": S(2)}),
    ("kfac_clipped", -ONE, {"rho_A": S(2), "rho_B": ZERO}),  # <U, G> does not move at all
    ("gauss_newton", -ONE, {}),
    ("muon_momentum", ZERO, {}),
    ("muon_ns", ZERO, {}),
    ("muon_rms_decay", ZERO, {"decay": ONE}),
    ("shampoo_grafted_adam", ZERO, {"eps": ONE, "rho_L": S(2), "rho_R": S(2)}),
    ("shampoo_relative", 1 - 2 * e, {"rho_L": ZERO, "rho_R": ZERO}),
    ("kl_shampoo", ZERO, {"rho_L": S(2), "rho_R": ZERO}),
    ("soap", ZERO, {"eps": ONE}),
    ("soap_one_sided", ZERO, {"eps": ONE}),
    ("ekfac", 1 - 2 * e, {"eps": S(2)}),
    ("shampoo_blocked", 1 - 2 * e, {"rho_L": S(2), "rho_R": S(2)}),
    ("shampoo_grafted", ONE, {"rho_L": S(2), "rho_R": S(2)}),
    ("one_sided_shampoo", 1 - 2 * e, {"rho_L": S(2)}),
    ("clip(G / (abs(G) + eps), 1)", ZERO, {"eps": ONE}),
    ("L @ G @ R", S(5), {}),
    ("sign(G)*sqrt(abs(G))", S.Half, {}),
    ("G/sqrt(row_mean(G*G) + eps)", ZERO, {"eps": S(2)}),
    ("G @ (A + rho*trace(A)*I)**(-e)", 1 - 2 * e, {"rho": ZERO}),
    ("G - col_mean(abs(G))*sign(G)", ONE, {}),
    ("fan_in*G + G*trace(A)/rms(A)", ONE, {}),
]
NAMES = ("input", "hidden", "output")
ids = {"ids": [name for name, *_ in DEGREES]}
KNOWN = {name: (p, degrees) for name, p, degrees in DEGREES}
BOUNDED = ("clipped_sgd", "sophia")  # a bound of order one has no degree


@pytest.mark.parametrize("rule", [*BOUNDED, "clip(G, 1)", "atan(G)"])
def test_a_bound_that_does_not_move_along_has_no_symmetry(rule: str) -> None:
    with pytest.raises(NotCovered, match="scale differently"):
        shift(known(rule), t="1/2")


def test_a_sum_over_layers_that_one_layer_alone_moves_has_no_symmetry() -> None:
    with pytest.raises(NotCovered, match="scale differently"):
        shift(parse("G / sqrt(over_layers(inner(G, G)))"), t={**dict.fromkeys(NAMES, ZERO),
                                                              "hidden": ONE})  # fmt: skip


def test_a_matrix_with_a_damping_inside_is_no_damping() -> None:
    with pytest.raises(NotCovered, match="scale differently"):
        shift(parse("G @ (A + rho*I)**(-1) + 2*G"), t="1/2")


def test_a_bound_that_is_a_damping_moves_along() -> None:
    assert shift(known("clip(G, rho)"), t="1/2").d["hidden"] == {"rho": S.Half}


def known(rule: str) -> Rule:
    return catalogue()[rule].rule if rule in catalogue() else parse(rule)


def by_hand(
    table: Exponents, t: Mapping[str, Expr], p: Expr, degrees: Mapping[str, Expr]
) -> Exponents:
    return Exponents(
        {k: a + t[k] for k, a in table.a.items()},
        {k: b - t[k] for k, b in table.b.items()},
        {k: (c - (1 + p) * t[k]).expand() for k, c in table.c.items()},
        {k: {x: d + degrees[x] * t[k] for x, d in ds.items()} for k, ds in table.d.items()},
    )


def test_every_rule_of_the_catalogue_has_its_degrees_here() -> None:
    assert set(TOUR) - set(BOUNDED) <= {name for name, *_ in DEGREES}
    for name, _, degrees in DEGREES:
        assert set(known(name).scaled) == set(degrees), name


@pytest.mark.parametrize(("name", "activation"), spread(KNOWN, [Activation.RELU, Activation.TANH]))
def test_the_shift_follows_the_degrees_of_the_rule(name: str, activation: Activation) -> None:
    p, degrees = KNOWN[name]
    setting = Setting(mlp(3, biases="row_mean" not in name), activation)
    draw = random.Random(name)
    names = [layer.name for layer in setting.layers]
    for step in range(2):
        t = {k: Rational(draw.randint(-6, 6), draw.randint(1, 4)) for k in names}
        found = shift(known(name), setting, t)
        for k in names:
            expected = (-(1 + p) * t[k]).expand()
            assert (found.a[k], found.b[k]) == (t[k], -t[k]), (step, k)
            assert (found.c[k] - expected).expand() == 0, (step, k, found.c[k], expected)
            assert found.d[k] == {x: q * t[k] for x, q in degrees.items()}, (step, k)


@pytest.mark.parametrize(("name", "loss"), spread(KNOWN, list(Loss)))
def test_one_step_is_predicted_alike_along_the_symmetry(name: str, loss: Loss) -> None:
    p, degrees = KNOWN[name]
    setting, rule = Setting(mlp(3), Activation.RELU, loss), known(name)
    draw = random.Random(name)
    solution = derive(rule, None, setting)
    names = [layer.name for layer in setting.layers]
    problem, bounds = solution.problem, solution.bounds
    for step in range(2):
        wild = {k: c + Rational(draw.randint(-2, 2), 2) for k, c in solution.exponents.c.items()}
        table = Exponents(solution.exponents.a, solution.exponents.b, wild, solution.exponents.d)
        t = {k: Rational(draw.randint(-6, 6), draw.randint(1, 4)) for k in names}
        moved = move(table, shift(rule, setting, t))
        assert moved == by_hand(table, t, p, degrees), step
        before, after = (predict(problem, x, bounds).layers for x in (table, moved))
        for k in names:
            assert before[k] == after[k], (step, k, t[k])


@pytest.mark.parametrize(("name", "p", "degrees"), DEGREES, **ids)
def test_a_wrong_shift_changes_the_prediction(name: str, p: Expr, degrees: dict[str, Expr]) -> None:
    solution = derive(known(name))
    t = dict.fromkeys(solution.exponents.a, ONE)
    wrong = by_hand(solution.exponents, t, p + 1, degrees)
    layers = predict(solution.problem, wrong, solution.bounds).layers
    assert any(layer.own != 0 for layer in layers.values())


@pytest.mark.parametrize("name", [n for n in KNOWN if n in kinds() or n not in TOUR])
def test_shifts_add_and_undo_each_other(name: str) -> None:
    rule = known(name)
    table = derive(rule).exponents
    there = move(table, shift(rule, t="2/3"))
    assert move(there, shift(rule, t="-2/3")) == table
    assert move(there, shift(rule, t="1/3")) == move(table, shift(rule, t=1))
    assert canonical(Problem(rule), there) == table
    assert canonical(Problem(rule), table) is table


# --- compare --------------------------------------------------------------------------------------


def table(rule: str, *changes: str) -> tuple[Problem, Exponents]:
    """The derived table of a rule with literal changes."""
    settings = read_settings(changes, known(rule), mlp())
    problem = Problem(known(rule), settings=settings)
    fixed = Settings(exponents=settings.exponents)
    return problem, derive(problem.rule, fixed).exponents.updated(settings)


def against(left: list[str], right: list[str]) -> Comparison:
    return compare(*table(*left), *table(*right))


# parametrizations of arXiv 2011.14522 and arXiv 2407.05872, as tables for gradient descent
SAME = [
    (["sgd"], ["sgd"]),
    (["sgd"], ["sgd", "a_output=1", "b_output=0", "c_output=-1"]),
    (["sgd"], ["sgd", "a_input=-1/2", "b_input=1/2", "c_input=0", "a_output=1/2", "b_output=1/2",
               "c_output=0"]),
    (["sgd", "b_output=1/2", "c_input=0", "c_hidden=1"],  # lazy: NTK, in two writings
     ["sgd", "a_hidden=1/2", "a_output=1/2", "b_hidden=0", "b_output=0", "c=0"]),
    (["sign"], ["sign", "a_output=1", "b_output=0", "c_output=0"]),
    (["adam"], ["adam", "a_output=1", "b_output=0", "c_output=0", "d_eps_output=1"]),
    (["muon"], ["muon", "a_hidden=1/2", "b_hidden=0", "c_hidden=-1/2"]),
    (["muon"], ["shampoo", "e=1/2"]),
    (["sgd"], ["shampoo", "e=0"]),
    (["foof"], ["kfac_right_only"]),
    (["kfac", "e_A=1"], ["kfac", "e_A=1", "a_hidden=1/2", "b_hidden=0", "d_rho_A_hidden=0"]),
]  # fmt: skip
DIFFERENT = [
    (["sgd"], ["sgd", "c_output=0"], [("output", "c")]),
    (["sgd"], ["sgd", "b_output=1/2"], [("output", "b")]),
    (["sgd"], ["sgd", "a_output=1", "b_output=0"], [("output", "c")]),
    (["adam"], ["adam", "d_eps=0"], [("input", "d_eps"), ("hidden", "d_eps")]),
    (["adam"], ["adam", "a_output=1", "b_output=0", "c_output=0"], [("output", "d_eps")]),
    (["sgd"], ["sign"], [("input", "c"), ("hidden", "c")]),
    (["kfac"], ["kfac", "d_rho_A=0"], [("hidden", "d_rho_A"), ("output", "d_rho_A")]),
    (["shampoo"], ["kfac", "e_B=1"], [("input", "c"), ("hidden", "c"), ("output", "c")]),
    (["sgd", "b_output=oo"], ["sgd"], [("output", "b")]),
]


@pytest.mark.parametrize(("left", "right"), SAME, ids=str)
def test_two_writings_of_one_parametrization_are_equivalent(
    left: list[str], right: list[str]
) -> None:
    for one, other in pairwise((left, right, left)):
        assert against(one, other).differences == ()


@pytest.mark.parametrize(("left", "right", "where"), DIFFERENT, ids=str)
def test_what_differs_is_named_and_nothing_else(
    left: list[str], right: list[str], where: list[tuple[str, str]]
) -> None:
    for one, other in pairwise((left, right, left)):
        found = against(one, other)
        assert not found.equivalent
        assert {(d.layer, d.name) for d in found.differences} == set(where)
        assert all(d.left != d.right for d in found.differences)


def test_a_zero_readout_has_no_scale_to_move() -> None:
    found = against(["sgd", "b_output=oo"], ["sgd", "b_output=oo"])
    assert found.equivalent


# --- no symmetry ----------------------------------------------------------------------------------

INHOMOGENEOUS = ["G + W", "G + sign(G)", "G + G @ A", "orth(G) - fan_in*G", "G*sqrt(rms(G) + 1)"]


@pytest.mark.parametrize("text", INHOMOGENEOUS)
def test_a_rule_without_the_symmetry_is_refused(text: str) -> None:
    with pytest.raises(
        NotCovered, match=r"scale(s)? differently when M\^t moves(?s:.)*homogeneous"
    ):
        shift(parse(text), t=1)
    problem = Problem(parse(text))
    moved = {**dict.fromkeys(("input", "hidden"), ZERO), "output": ONE}
    table = derive(parse(text)).exponents
    with pytest.raises(NotCovered, match="homogeneous"):
        canonical(problem, Exponents(moved, table.b, table.c, table.d))
    assert canonical(problem, table) is table  # with a = 0 there is nothing to move
