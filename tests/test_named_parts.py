"""Named parts: two spellings are one tree, what is printed parses back, and names never clash."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from derivations.catalogue import catalogue
from scaling.rules.named_parts import LETTERS, meaning, one_line, repeated, written
from scaling.rules.parser import LONGEST, parse, parse_scalar
from scaling.rules.symbols import MATRICES
from scaling.sizes.errors import RuleError

SPELLINGS = {
    "P @ orth(G) where P = (B + rho*I)**(-1)": "(B + rho*I)**(-1) @ orth(G)",
    "U / max(1, rms(U)) where U = G / (rms(G) + eps)":
        "(G / (rms(G) + eps)) / max(1, rms(G / (rms(G) + eps)))",
    "Q @ (X/(abs(X) + eps)) where Q = eig(L), X = Q.T @ G":
        "eig(L) @ ((eig(L).T @ G)/(abs(eig(L).T @ G) + eps))",
    "G / x where x = 2": "G / 2",
    "G @ (A + rho*I)**p where p = -e": "G @ (A + rho*I)**(-e)",
    "G @ block(A, size) where size = 4": "G @ block(A, 4)",
    "(G @ A).T.T * norm(T) where T = G @ A": "(G @ A).T.T * norm(G @ A)",
    "clip(P, 1) where  # what is clipped\n  P = G": "clip(G, 1)",
    "Adam where Adam = ema(G, b1) / (sqrt(ema(G*G, b2)) + eps)":
        "ema(G, b1) / (sqrt(ema(G*G, b2)) + eps)",
}  # fmt: skip
REFUSED = [
    ("P @ G where A = L, P = A", "A = L", "'A', a matrix of the layer, as the name of a part"),
    ("P @ G where norm = L, P = norm", "norm =", "'norm', a function, as the name of a part"),
    ("G*rho where rho = 2", "rho = 2", "'rho', a damping, as the name of a part"),
    ("G*e where e = 2", "e = 2", "'e', an exponent, as the name of a part"),
    ("G*fan_in where fan_in = 2", "fan_in = 2", "'fan_in', a side of the layer, as the name"),
    ("G*x where x = 2, x = 3", "x = 3", "a second part 'x'"),
    ("P @ G where P = L, Q = R", "Q = R", "the part 'Q', which nothing uses"),
    ("P @ G where P = P", "P", "the part 'P' in terms of itself"),
    ("P @ G where P = Q @ L, Q = P + B", "Q @ L", "the parts 'P' and 'Q', each in terms of the"),
    ("P @ G where P = Q, Q = S, S = P", "Q, Q", "the parts 'P' and 'Q', each in terms of the"),
    ("P @ G where P = Q @ L, Q = B", "Q @ L", "'Q', which is defined after it is used"),
    ("P @ G where P = L where Q = B", "where Q", "a second 'where'"),
    ("P @ G where L", "L", "'L' in place of a part"),
    ("P @ G where P == L", "P == L", "'P == L' in place of a part"),
    ("P @ G where P = ", "P =", "the part 'P' without an expression"),
    ("G where", "", "no part after 'where' or a comma"),
    ("P @ G where P = L,", "", "no part after 'where' or a comma"),
    ("P @ G where P = L @ G @ L", "@ L", "L @ G (fan_out x fan_in) @ L (fan_out x fan_out)"),
    ("P @ G where P = L +", "", "no expression"),
    ("P + A where P = L @ G", "+ A", "L @ G (fan_out x fan_in) + A (fan_in x fan_in)"),
    ("P @ G where P = X*L", "X*L", "matrix 'X'"),
]
OFFERED = [
    "P @ G where P = L, Q = R",
    "P @ G where P = Q @ L, Q = B",
    "Q @ P where P = G where Q = B",
    "P @ G where P = Q, S = L, Q = S @ B",
]
"""Refused rules for which the refusal writes the whole rule that would be accepted."""


@pytest.mark.parametrize(("named", "plain"), SPELLINGS.items())
def test_two_spellings_are_one_tree(named: str, plain: str) -> None:
    rule = parse(named)
    assert rule == parse(plain) and hash(rule) == hash(parse(plain))
    assert str(rule) == str(parse(plain))
    assert " where " in rule.written and " where " not in str(rule)
    assert parse(rule.written) == rule
    assert parse(rule.written).written == rule.written


def test_rules_of_other_trees_stay_different() -> None:
    one, other = (parse(f"P @ G where P = {x}") for x in ("L", "B"))
    assert one != other


@pytest.mark.parametrize(("text", "under", "found"), REFUSED)
def test_names_that_clash_parts_out_of_order_and_unused_ones_are_refused(
    text: str, under: str, found: str
) -> None:
    with pytest.raises(RuleError) as refusal:
        parse(text)
    head, line, caret = refusal.value.found.split("\n")
    assert head.startswith(found)
    assert line.strip() == text.strip()
    assert line[caret.index("^") :].startswith(under), caret


@pytest.mark.parametrize("text", OFFERED)
def test_what_is_offered_is_accepted(text: str) -> None:
    with pytest.raises(RuleError) as refusal:
        parse(text)
    offered = refusal.value.do_this
    assert parse(re.sub("^[a-z ]+:? (?=[A-Z(])", "", offered)).parts


def test_parts_of_parts_cannot_grow_without_bound() -> None:
    doubled = ", ".join(f"P_{i} = P_{i - 1} @ P_{i - 1}" for i in range(1, 40))
    with pytest.raises(RuleError, match=f"more than {LONGEST} operands and operators"):
        parse(f"P_39 @ G where P_0 = L, {doubled}")
    with pytest.raises(RuleError, match="nested more than 100 deep"):
        nested = ", ".join(f"P_{i} = abs({'abs(' * 60}P_{i - 1}{')' * 60})" for i in range(1, 9))
        parse(f"P_8 where P_0 = G, {nested}")


def test_an_exponent_on_the_command_line_has_no_parts() -> None:
    with pytest.raises(RuleError, match="no expression"):
        parse_scalar("P where P = 1/2")


def test_letters_for_parts_mean_nothing_else() -> None:
    assert not set(LETTERS) & set(MATRICES)
    assert [meaning(letter) for letter in LETTERS] == [""] * len(LETTERS)


@pytest.mark.parametrize("name", catalogue())
def test_a_rule_of_the_catalogue_is_what_it_prints(name: str) -> None:
    rule = catalogue()[name].rule
    assert parse(rule.written) == parse(str(rule)) == parse(catalogue()[name].update)


@pytest.mark.parametrize("name", catalogue())
def test_names_for_what_repeats_leave_the_tree_as_it_is(name: str) -> None:
    expression = catalogue()[name].rule.expression
    text, parts = written(expression, repeated(expression, {}))
    assert parse(one_line(text, parts)).expression == expression
    assert all(len(re.findall(rf"\b{part}\b", one_line(text, parts))) > 2 for part in parts)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_any_parts_of_any_tree_print_as_text_that_parses_to_it(data: st.DataObject) -> None:
    expression = catalogue()[data.draw(st.sampled_from(sorted(catalogue())))].rule.expression
    nodes = sorted(set(expression.walk()) - {expression}, key=lambda x: (len(str(x)), str(x)))
    chosen = data.draw(st.lists(st.sampled_from(nodes), unique=True, max_size=4)) if nodes else []
    named = dict(zip(LETTERS, chosen, strict=False))
    text, parts = written(expression, named)
    assert parse(one_line(text, parts)).expression == expression


def test_a_part_with_a_tiny_literal_keeps_its_name() -> None:
    rule = parse("G/P + norm(P)*G where P = abs(G) + 1e-8")
    assert rule.dampings == ("eps_1",) and rule == parse(
        "G/(abs(G) + 1e-8) + norm(abs(G) + 1e-8)*G"
    )
    assert rule.written == "G/P + norm(P)*G where P = abs(G) + 1e-08"
