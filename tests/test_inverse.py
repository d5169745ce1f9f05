"""Exponents solved for: against deriving at numbers, against linear programming, and refusals."""

import json
import re
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from sympy import Max, Rational, S, Symbol, symbols
from typed import Typed

import scaling.solve.inverse as inverse
from scaling.models.architectures import perceptron
from scaling.models.chain import Setting
from scaling.models.recipe import as_recipe
from scaling.models.recipe_text import parse_recipe
from scaling.models.settings import read_settings
from scaling.report.inverse_tables import inverse_table
from scaling.report.tables import Format, render
from scaling.rules.parser import as_rule
from scaling.sizes.affine_cases import cases, feasible, vanishes
from scaling.sizes.errors import Conflict, InvalidInput, NotCovered, ScalingError
from scaling.solve.asked_network import OnGraph, trained_layers
from scaling.solve.derive import derive
from scaling.solve.inverse import solve_for, solve_on

KFAC = "(B + rho_B*I)**(-e_B) @ G @ (A + rho_A*I)**(-e_A)"
SHAMPOO = "(L + rho_L*I)**(-e_L) @ G @ (R + rho_R*I)**(-e_R)"
HALVES = [Rational(n, 2) for n in range(5)]


def c_of(rule: str, *given: str) -> tuple[object, ...]:
    """Numbers, by deriving with every exponent given."""
    asked = as_rule(rule)
    found = derive(asked, read_settings(given, asked, Setting().layers))
    return tuple(found.exponents.c.values())


# --- answers --------------------------------------------------------------------------------------


def test_the_powers_that_make_the_rate_of_kfac_width_free_are_those_of_the_paper() -> None:
    (answer,) = solve_for(KFAC, "e_A,e_B", "c=0").answers
    assert answer.values == {"e_A": 1, "e_B": 1} and not answer.where
    free = [
        p for p in product(HALVES, HALVES) if c_of(KFAC, f"e_A={p[0]}", f"e_B={p[1]}") == (0,) * 3
    ]
    assert free == [(1, 1)]


def test_a_formula_of_free_exponents_is_what_numbers_say() -> None:
    found = solve_for(SHAMPOO, ["e_L", "e_R"], ["c=0"])
    (answer,) = found.answers
    assert str(answer) == "e_L = 1 - e_R; where e_R <= 1"  # e = 1 of the paper, where both are e/2
    for left, right in product(HALVES[:4], HALVES[:4]):
        zero = c_of(SHAMPOO, f"e_L={left}", f"e_R={right}") == (0, 0, 0)
        assert zero == (left == answer.values["e_L"].subs("e_R", right) and right <= 1)
    assert [r.alone for r in found.required] == [str(answer), "nothing", str(answer)]
    half = solve_for("(L + rho_L*I)**(-e/2) @ G @ (R + rho_R*I)**(-e/2)", "e", "c=0").answers
    assert [x.values for x in half] == [{"e": 1}]


def test_the_dampings_that_keep_a_rate_are_those_that_numbers_say() -> None:
    given = ["e_A=1", "e_B=1"]
    (answer,) = solve_for(KFAC, "d_rho_A_hidden", "c_hidden=0", given).answers
    assert answer.values == {"d_rho_A_hidden": Symbol("d_rho_A_hidden")}
    assert answer.where == ("d_rho_A_hidden >= -1",)
    for d in range(-3, 2):
        assert (c_of(KFAC, *given, f"d_rho_A_hidden={d}")[1] == 0) == (d >= -1)
    (answer,) = solve_for(KFAC, "d_rho_A_hidden", "c_hidden=-1/2", given).answers
    assert answer.values == {"d_rho_A_hidden": Rational(-3, 2)} and not answer.where


def test_a_factor_that_is_a_symbol_is_divided_by_where_it_is_not_zero() -> None:
    (answer,) = solve_for(KFAC, "d_rho_A_hidden", "c_hidden=0", ["e_B=1"]).answers
    assert str(answer) == "d_rho_A_hidden = -1/e_A; where e_A <= 1, e_A != 0"
    half = [*("e_B=1", "e_A=1/2"), "d_rho_A_hidden=-2"]
    assert c_of(KFAC, *half)[1] == 0 != c_of(KFAC, *half[:2], "d_rho_A_hidden=-1")[1]


def test_an_answer_that_the_rule_does_not_confirm_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    real = inverse.solved

    def wrong(*args: object) -> object:
        done = real(*args)  # type: ignore[arg-type]
        done.values.update({u: x + 1 for u, x in done.values.items()})
        return done

    monkeypatch.setattr(inverse, "solved", wrong)
    with pytest.raises(Conflict, match="e = 2 solves them, but the rule has c_input = 1 with it"):
        solve_for("(L + rho_L*I)**(-e/2) @ G @ (R + rho_R*I)**(-e/2)", "e", "c=0")


# --- refusals -------------------------------------------------------------------------------------

REFUSED = {
    "another exponent is in the way": (KFAC, "e_A", "c=0", [], "they need e_B = 1"),
    "contradiction": (KFAC, "e_A,e_B", "c=1", [], "no values meet all of that"),
    "nothing depends on it": ("G/(norm(G)+eps)**e", "e", "c_hidden=1/2", [], "c_hidden = 0"),
    "a negative power": ("G @ (A + rho_A*I)**(-e)", "e", "c_output=2", [], "e = -1, a negative"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_where_none_exists_the_refusal_names_it_and_offers_what_has_an_answer(name: str) -> None:
    rule, unknowns, require, given, told = REFUSED[name]
    with pytest.raises(Conflict) as error:
        solve_for(rule, unknowns, require, given)
    assert told in error.value.found
    offer = error.value.do_this
    more = re.match(r"solve for (.*?) as well: (.*)", offer)
    if more:
        (answer,) = solve_for(rule, f"{unknowns},{more[1]}", require, given).answers
        assert str(answer) == more[2]
    else:
        assert solve_for(rule, unknowns, offer.partition("--require ")[2], given).answers


@pytest.mark.parametrize(
    ("question", "kind", "told"),
    [
        (("e_A,d_rho_A_hidden", "c_hidden=0", ["e_B=1"]), NotCovered, "a product of e_A and d_rho"),
        (("rho_A", "c=0"), InvalidInput, "solve for d_rho_A"),
        (("", "c=0"), InvalidInput, "nothing to solve for"),
        (("e_A", "e_B=0"), InvalidInput, "the requirement on e_B"),
        (("e_A", ""), InvalidInput, "no requirement"),
        (("e_A", "c=0", ["e_A=1"]), InvalidInput, "e_A given and solved for"),
        (("e_C", "c=0"), InvalidInput, "did you mean"),
    ],
)
def test_what_is_no_question_is_refused_by_name(
    question: tuple[str, ...], kind: type[ScalingError], told: str
) -> None:
    with pytest.raises(kind) as error:
        solve_for(KFAC, *question)  # type: ignore[arg-type]
    assert told in str(error.value) and inverse.STANDS_FOR not in str(error.value)


# --- a user's model -------------------------------------------------------------------------------


def on_perceptron(rule: str, *given: str) -> OnGraph:
    recipe, graph = as_recipe(rule), perceptron(3)
    return OnGraph(recipe, graph, read_settings(given, recipe, trained_layers(graph)))


@pytest.mark.parametrize(
    ("rule", "unknowns", "require", "given"),
    [
        (KFAC, "e_A,e_B", "c=0", []),
        (SHAMPOO, "e_L,e_R", "c=0", []),
        (KFAC, "d_rho_A_hidden", "c_hidden=-1/2", ["e_A=1", "e_B=1"]),
        ("G @ (A + rho*I)**(-1)", "d_rho_hidden", "c_hidden=-1", []),
    ],
)
def test_a_perceptron_as_a_model_has_the_answers_of_the_chain(
    rule: str, unknowns: str, require: str, given: list[str]
) -> None:
    found = solve_on(on_perceptron(rule, *given), unknowns, require)
    chain = solve_for(rule, unknowns, require, given)
    assert [str(x) for x in found.answers] == [str(x) for x in chain.answers]
    assert [r.alone for r in found.required] == [r.alone for r in chain.required]
    text = render(inverse_table(found), Format.TEXT)
    assert inverse.STANDS_FOR not in text and "gradient independence" in text


@pytest.mark.parametrize(
    ("question", "kind", "told"),
    [
        (("e_A", "c=0"), Conflict, "they need e_B = 1"),
        (("b_output", "c=0"), NotCovered, "b_output"),
        (("e_A", "c_embedding=0"), InvalidInput, "c_embedding"),
        (("e_A", "d_eps=0"), InvalidInput, "d_eps"),
        (("rho_A", "c=0"), InvalidInput, "solve for d_rho_A"),
    ],
)
def test_what_is_no_question_of_a_model_is_refused_by_name(
    question: tuple[str, str], kind: type[ScalingError], told: str
) -> None:
    with pytest.raises(kind) as error:
        solve_on(on_perceptron(KFAC), *question)
    assert told in str(error.value) and inverse.STANDS_FOR not in str(error.value)


def test_an_exponent_that_a_tensors_rule_lacks_is_no_requirement() -> None:
    """Of a recipe: bare, the damping of those that have one; by name it is refused."""
    recipe = parse_recipe("hidden: G/(norm(G) + eps)**e; rest: sign(G)")
    asked = OnGraph(recipe, perceptron(3))
    found = solve_on(asked, "e", "c_hidden=0,d_eps=0")
    assert {f"{r.key}_{r.layer}" for r in found.required} == {"c_hidden", "d_eps_hidden"}
    with pytest.raises(InvalidInput, match="d_eps_output"):
        solve_on(asked, "e", "d_eps_output=0")


# --- cases and inequalities -----------------------------------------------------------------------

ROWS = st.lists(st.tuples(*[st.integers(-3, 3)] * 4), min_size=1, max_size=6)


@settings(deadline=None, max_examples=60)
@given(ROWS)
def test_conditions_are_feasible_where_linear_programming_says_so(
    rows: list[tuple[int, ...]],
) -> None:
    x = symbols("x y z")
    asked = [S(c) + sum(q * s for q, s in zip(row, x, strict=True)) for *row, c in rows]
    program = linprog(
        [0, 0, 0], A_ub=[[-q for q in row[:3]] for row in rows], b_ub=[row[3] for row in rows],
        bounds=(None, None),
    )  # fmt: skip
    assert feasible(asked) == (program.status == 0)


def test_strict_conditions_exclude_their_boundary() -> None:
    x = Symbol("x")
    assert feasible([x], [1 - x]) and not feasible([x - 1], [1 - x])
    assert vanishes(Max(0, x) - x, [x]) and not vanishes(Max(0, x) - x, [x + 1])
    assert len(cases([Max(0, x) - 1], [x])) == 2 > len(cases([Max(0, x) - 1], [x - 1]))


# --- the command ----------------------------------------------------------------------------------


def test_the_command_prints_the_answer_and_refuses_with_exit_code_2(typed: Typed) -> None:
    asked = ("derive", "kfac", "--solve-for", "e_A,e_B", "--require", "c=0")
    done = typed(*asked)
    assert "answer: e_A = 1, e_B = 1" in done.out and done.code == 0
    told = json.loads(typed(*asked, "--format", "json").out)
    assert told["answers"] == [{"values": {"e_A": "1", "e_B": "1"}, "where": []}]
    assert [r["alone"] for r in told["required"]] == ["e_B = 1", "e_A = e_B", "e_A = 1"]
    region = typed("derive", "G @ (A + rho*I)**(-1)", "--solve-for", "d_rho_hidden", "--require",
                   "c_hidden=-1").out  # fmt: skip
    assert "answer: d_rho_hidden >= -1" in region and inverse.STANDS_FOR not in region
    for wrong in (("--solve-for", "e_A"), ("--require", "c=0"), (*asked[2:5], "c=1")):
        assert typed("derive", "kfac", *wrong).code == 2
