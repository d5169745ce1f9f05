"""The rule language: two spellings, one tree; refusals with a caret; text that is never run."""

import random
import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from derivations.catalogue import find, rule_of
from scaling.models.settings import exact
from scaling.rules.eigenbases import check_frames
from scaling.rules.language import (
    A,
    B,
    G,
    I,
    L,
    R,
    W,
    block,
    call,
    col_mean,
    diag,
    eig,
    ema,
    fan_in,
    fan_out,
    norm,
    orth,
    rms,
    row_mean,
    sample_square,
    sign,
    specnorm,
    sqrt,
    symbol,
    trace,
)
from scaling.rules.operators import FUNCTIONS
from scaling.rules.parser import as_rule, parse, parse_scalar
from scaling.rules.rule import Rule
from scaling.rules.symbols import FANS, MATRICES, SymbolKind
from scaling.rules.tree import Negate, Node, Number, Symbol, Transpose
from scaling.sizes.errors import InvalidInput, RuleError
from scaling.solve.derive import derive

rho, rho_A, rho_B, eps = (symbol(name) for name in ("rho", "rho_A", "rho_B", "eps"))
e, e_A, e_B, beta = (symbol(name) for name in ("e", "e_A", "e_B", "beta"))
half = Fraction(1, 2)

SPELLINGS: list[tuple[str, Node]] = [
    ("G", G),
    ("-G", -G),
    ("+G", G),
    ("-(-G)", Negate(Negate(G))),
    ("(B + rho_B*I)**(-e_B) @ G @ (A + rho_A*I)**(-e_A)",
     (B + rho_B * I) ** (-e_B) @ G @ (A + rho_A * I) ** (-e_A)),
    ("(L + rho*I)**(-e/2) @ G @ (R + rho*I)**(-e/2)",
     (L + rho * I) ** (-e / 2) @ G @ (R + rho * I) ** (-e / 2)),
    ("G @ (A + rho*trace(A)*I)**-1", G @ (A + rho * trace(A) * I) ** -1),
    ("G @ G.T @ G - 2*G", G @ G.T @ G - 2 * G),
    ("(A @ G.T).T", (A @ G.T).T),
    ("ema(G, 0.9) / (sqrt(ema(G*G, beta)) + eps)", ema(G, 0.9) / (sqrt(ema(G * G, beta)) + eps)),
    ("eig(L) @ sign(eig(L).T @ G @ eig(R)) @ eig(R).T",
     eig(L) @ sign(eig(L).T @ G @ eig(R)) @ eig(R).T),
    ("G / sample_square(2*G @ A)", G / sample_square(2 * G @ A)),
    ("sign(G) * abs(G)**(1/2)", sign(G) * abs(G) ** half),
    ("0.5*G", 0.5 * G),
    ("1/2*G", half * G),
    ("1e-3*G", 1e-3 * G),
    ("G / sqrt(row_mean(G*G) @ col_mean(G*G) / rms(G)**2 + eps)",
     G / sqrt(row_mean(G * G) @ col_mean(G * G) / rms(G) ** 2 + eps)),
    ("sqrt(fan_out/fan_in) * orth(G)", sqrt(fan_out / fan_in) * orth(G)),
    ("G / norm(G) + G / specnorm(W)", G / norm(G) + G / specnorm(W)),
    ("(diag(B) + rho*I)**(1/2) @ G @ block(A, 64)",
     (diag(B) + rho * I) ** half @ G @ block(A, 64)),
    ("L**(-0.25) @ G", L**-0.25 @ G),
    ("1 - G", 1 - G),
    ("G - 1", G - 1),
    ("1/G", 1 / G),
    ("G**2", G**2),
    ("G*-1", G * -1),
    ("-2*G", -2 * G),
]  # fmt: skip


@pytest.mark.parametrize(("text", "built"), SPELLINGS, ids=[text for text, _ in SPELLINGS])
def test_text_and_operators_give_the_same_tree(text: str, built: Node) -> None:
    assert parse(text) == Rule(built)
    assert parse(str(built)) == Rule(built)
    assert parse(f"  (\n{text}\n)  ") == Rule(built)


@pytest.mark.parametrize("power", [-1 / 2, Fraction(-1, 2)])
def test_a_negative_fraction_is_one_tree_in_both_spellings(power: float | Fraction) -> None:
    assert parse("L**(-1/2) @ G") == Rule(L**power @ G)


# --- round trip -----------------------------------------------------------------------------------

numbers = st.fractions(0, 9, max_denominator=9).map(Number)
scalars = numbers | st.sampled_from([rho, eps, beta, e, fan_in, fan_out])
powers = st.recursive(
    numbers | st.sampled_from([e, e_A]),
    lambda x: st.builds(lambda f, p, q: f(p, q), st.sampled_from(
        [Node.__add__, Node.__sub__, Node.__mul__, Node.__truediv__]), x, x)
    | x.map(lambda p: -p),
    max_leaves=4,
)  # fmt: skip
leaves = scalars | st.sampled_from([Node.T.fget(m) for m in (G, W)] + [G, A, B, L, R, W, I])
OPERATORS = [Node.__add__, Node.__sub__, Node.__mul__, Node.__truediv__, Node.__matmul__]


def _or(x: Node, make: Callable[[], Node]) -> Node:
    """What is made, or x where the shapes forbid it."""
    try:
        return make()
    except RuleError:
        return x


def _checked(x: Node) -> Node:
    check_frames(x)  # what a rule asks of eig and of sample_square
    return x


def _grow(x: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    return st.one_of(
        st.builds(lambda f, p, q: _or(p, lambda: f(p, q)), st.sampled_from(OPERATORS), x, x),
        st.builds(lambda p, q: _or(p, lambda: p**q), x, powers),  # e/0 is refused
        x.map(lambda p: -p),
        x.map(lambda p: p if isinstance(p, Number) else p.T),  # (2).T has a test of its own
        st.builds(lambda f, p: _or(p, lambda: _checked(call(f, p))), st.sampled_from(
            [name for name, f in FUNCTIONS.items() if f.second is None]), x),
        x.map(lambda p: _or(p, lambda: block(p, 3))),
        x.map(lambda p: _or(p, lambda: ema(p, beta))),
    )  # fmt: skip


def _update(x: Node) -> Node:
    """An update that contains x, whatever its shape."""
    for make in (lambda: x * G, lambda: x @ G, lambda: G @ x, lambda: x.T * G, lambda: G @ x @ G):
        tree = _or(I, make)
        if str(tree.shape) == str(G.shape):
            return tree
    for turned in (lambda: x.T @ G, lambda: x @ G, lambda: G @ x, lambda: x):
        tree = _or(I, lambda turned=turned: norm(turned()))
        if tree is not I:
            return tree * G
    raise AssertionError(x)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.recursive(leaves, _grow, max_leaves=8))
def test_what_is_printed_is_read_back_as_the_same_tree(node: Node) -> None:
    tree = _update(node)
    read = parse(str(tree)).expression
    assert read == tree, (str(tree), str(read))
    assert str(read) == str(tree)
    assert hash(read) == hash(tree)


def test_a_transposed_number_is_read_back() -> None:
    tree = parse("(2).T * G").expression
    assert parse(str(tree)).expression == tree


# --- refusals with a caret ------------------------------------------------------------------------

# text, the column that the caret stands under, what is found
CARETS = [
    ("G @ G", 2, r"G \(fan_out x fan_in\) @ G \(fan_out x fan_in\)"),
    ("G @ A @ B", 6, r"G @ A \(fan_out x fan_in\) @ B \(fan_out x fan_out\)"),
    ("A @ G", 2, r"A \(fan_in x fan_in\) @ G"),
    ("G + A", 2, r"G \(fan_out x fan_in\) \+ A"),
    ("G @ (A + 1)", 7, r"A \(fan_in x fan_in\) \+ 1 \(scalar\)"),
    ("(A + rho) @ G.T", 3, r"A \(fan_in x fan_in\) \+ rho \(scalar\)"),
    ("G * A", 2, r"G .* \* A"),
    ("G / A", 2, r"G .* / A"),
    ("1 / A", 2, r"1 \(scalar\) / A"),
    ("G @ 2", 2, r"G .* @ 2 \(scalar\)"),
    ("rho @ G", 4, r"rho \(scalar\) @ G"),
    ("L - R", 2, r"L .* - R"),
    ("G + row_mean(G).T", 2, r"G .* \+ row_mean\(G\)\.T"),
    ("A", 0, r"the update A, a fan_in x fan_in"),
    ("trace(A)", 0, r"the update trace\(A\), a scalar"),
    ("G.T", 0, r"the update G\.T, a fan_in x fan_out"),
    ("trace(G)", 0, r"trace\(G\) of a fan_out x fan_in"),
    ("2 * orth(A)", 4, r"orth\(A\) of a fan_in x fan_in"),
    ("G * sqrt(A)", 4, r"sqrt\(A\)"),
    ("G * norm(I)", 4, r"norm\(I\) of a any x any"),
    ("G * norm(rho)", 4, r"norm\(rho\) of a scalar"),
    ("block(A, 0)", 0, r"block\(A, 0\)"),
    ("G @ block(A, 1/2)", 4, r"block\(A, 1/2\)"),
    ("ema(G, 1)", 0, r"ema\(G, 1\)"),
    ("ema(G, rho)", 0, r"ema\(G, rho\)"),
    ("ema(G)", 0, r"ema with 1 argument$"),
    ("sign(G, G)", 0, r"sign with 2 arguments"),
    ("G**rho", 1, r"the power rho"),
    ("G @ A**(-1/beta)", 5, r"the power -1/beta"),
    ("G**(2**e)", 1, r"the power 2\*\*e"),
    ("G @ A**fan_in", 5, r"the power fan_in"),
    ("G @ Q", 4, r"matrix 'Q'"),
    ("G + sing(G)", 4, r"function 'sing'"),
    ("G @ (A + rho*I", 4, r"no expression"),
    ("G ) A", 2, r"no expression"),
    ("G[0]", 0, r"'G\[0\]', which is not in the rule language"),
    ("G // 2", 0, r"'G // 2', which is not"),
    ("G @ A.trace", 4, r"'A\.trace', which is not"),
    ("G if A else B", 0, r"which is not in the rule language"),
    ("Δ*G", 0, r"matrix 'Δ'"),
    ("'é'*G + G", 0, r"which is not in the rule language"),
    ("é*G", 0, r"'é' as the name of a hyper-parameter"),
    ("rhö*G @ B", 6, r"rhö\*G .* @ B"),  # a caret counts characters, not bytes
]


@pytest.mark.parametrize(("text", "column", "found"), CARETS)
def test_a_malformed_rule_is_refused_with_the_caret_under_its_fault(
    text: str, column: int, found: str
) -> None:
    with pytest.raises(RuleError) as caught:
        parse(text)
    what, line, caret = caught.value.found.split("\n")
    assert re.search(found, what), (found, what)
    assert line == f"    {text}"
    assert caret == " " * (4 + column) + "^"
    assert caught.value.needed
    assert caught.value.do_this


def test_the_caret_stays_in_view_in_a_long_rule() -> None:
    text = "G" + " + G" * 60 + " @ G"
    with pytest.raises(RuleError) as caught:
        parse(text)
    _, line, caret = caught.value.found.split("\n")
    assert len(line) <= 104
    assert line[len(caret) - 1] == "@"


NEAR = [
    ("sing(G)", "did you mean 'sign'?"),
    ("G @ block_(A, 2)", "write for example G @ block(A, 2)"),
    ("rowmean(G)", "did you mean 'row_mean'?"),
    ("ORTH(G)", "choose one of these"),
    ("G @ Q", "choose one of these"),
]


@pytest.mark.parametrize(("text", "hint"), NEAR)
def test_an_unknown_name_is_answered_with_the_nearest_known_one(text: str, hint: str) -> None:
    with pytest.raises(RuleError) as caught:
        parse(text)
    assert caught.value.do_this == hint
    known = MATRICES if hint.startswith("choose") and "(" not in text else FUNCTIONS
    assert caught.value.needed == f"one of {', '.join(sorted(known))}"


def test_the_two_spellings_refuse_alike() -> None:
    for make in (lambda: G @ G, lambda: A + 1, lambda: G**rho, lambda: trace(G), lambda: ema(G, 2)):
        with pytest.raises(RuleError, match=r"found: (?s:.)*needed: (?s:.)*do this: "):
            make()
    for value in ("G", None, 1j, True, [1]):
        with pytest.raises(RuleError, match="in a rule"):
            G * value
    for value in (float("nan"), float("inf")):
        with pytest.raises(RuleError, match="a finite number"):
            G * value


@pytest.mark.parametrize("make", [lambda: G @ 2, lambda: G @ "A"])
def test_a_matrix_product_with_no_matrix_is_a_rule_error(make: Callable[[], Node]) -> None:
    with pytest.raises(RuleError):
        make()


def test_a_numpy_number_is_a_number() -> None:
    assert np.float64(0.5) * G == 0.5 * G
    assert G * np.float64(0.5) == G * 0.5


# --- names and numbers ----------------------------------------------------------------------------

KINDS = [
    *((name, SymbolKind.DAMPING) for name in ("rho", "rho_A", "rho2", "eps", "eps_1", "epsilon")),
    *((name, SymbolKind.DECAY) for name in ("decay", "decay_1", "decays")),
    *((name, SymbolKind.RADIUS) for name in ("radius", "radius_1")),
    *((name, SymbolKind.EXPONENT) for name in ("e", "e_A", "e1", "e_out", "e12")),
    *((name, SymbolKind.CONSTANT) for name in ("beta", "eta", "lam", "er", "e1a", "r")),
]


@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_the_kind_of_a_hyper_parameter_is_read_off_its_name(name: str, kind: SymbolKind) -> None:
    assert symbol(name).kind is kind
    rule = parse(f"{name} * G")
    groups = {
        SymbolKind.DAMPING: rule.dampings,
        SymbolKind.DECAY: rule.decays,
        SymbolKind.RADIUS: rule.radii,
        SymbolKind.EXPONENT: rule.exponents,
        SymbolKind.CONSTANT: rule.constants,
        SymbolKind.SINGULAR_VALUE: (),  # sigma stands inside of spectral_map alone
    }
    assert groups == {k: ((name,) if k is kind else ()) for k in SymbolKind}
    assert rule.scaled == ((name,) if kind.is_scaled else ())


def test_names_are_collected_once_in_order_of_appearance() -> None:
    rule = parse("beta*(B + rho_B*I)**(-e_B/e) @ G @ (A + rho_A*I + rho_B*I)**(-e_B) * fan_in")
    assert rule.dampings == ("rho_B", "rho_A")
    assert rule.exponents == ("e_B", "e")
    assert rule.constants == ("beta",)


NUMBERS = [("2", 2), ("0.1", Fraction(1, 10)), (".5", half), ("5.", 5), ("1_000", 1000),
           ("1e3", 1000), ("1.5E-2", Fraction(3, 200)), ("1/3", Fraction(1, 3)), ("0", 0),
           ("1e30", 10**30)]  # fmt: skip


@pytest.mark.parametrize(("text", "value"), NUMBERS)
def test_a_number_is_read_exactly(text: str, value: Fraction | int) -> None:
    assert parse_scalar(text) == Number(Fraction(value))


@pytest.mark.parametrize(
    "text", ["1e31", "1e400", "1e-31", "9" * 31, "0x10", "0b1", "0o7", "1j", "True", "1e999999999"]
)
def test_a_number_beyond_the_language_is_refused_before_it_is_computed(text: str) -> None:
    with pytest.raises(RuleError):
        parse(f"{text} * G")
    with pytest.raises(InvalidInput):
        exact(text)


@pytest.mark.parametrize("name", [*FANS, *FUNCTIONS, "Rho", "_rho", "r ho", "", "2rho"])
def test_a_reserved_or_malformed_name_is_no_hyper_parameter(name: str) -> None:
    if name in FANS:
        assert Symbol(name).is_fan
        return
    with pytest.raises(RuleError, match="as the name of a hyper-parameter"):
        symbol(name)


# --- nothing is run -------------------------------------------------------------------------------

RUN = "__import__('pathlib').Path('ran').touch()"
ATTACKS = [
    RUN, f"G*{RUN}", f"({RUN}, G)[1]", f"[{RUN} for _ in 'x'] * G", f"{{{RUN}}}",
    f"(lambda: {RUN})()", f"G if {RUN} else G", f"f'{{{RUN}}}' * G", f"(x := {RUN}) * G",
    f"sign({RUN})", f"G.T({RUN})", f"G[{RUN}]", f"*{RUN}", f"sign(*{RUN})", f"ema(G, beta={RUN})",
    f"ema(G, **{RUN})", f"G and {RUN}", f"not {RUN}", f"G < {RUN}", f"await {RUN}",
    f"(yield {RUN})", f"{RUN}; G", f"G\n{RUN}", "G.__class__", "G.T.__class__.__mro__",
    "().__class__.__bases__[0].__subclasses__()", "G.T.__init__.__globals__", "__builtins__",
    "__import__", "eval('G')", "exec('G')", "open('x')", "getattr(G, 'T')", "G.shape", "print(G)",
    "G.T.T.walk", "{G: G}", "{**G}", "...", "None", "b'G'", "'G'", "''", "lambda: G", "import os",
    "from os import path", "del G", "G = A", "G == G", "G := A", "~G", "G % 2", "G << 2", "G & G",
    "G | G", "G ^ G", "G | G @ A", "assert G", "raise G", "return G", "global G", "@G",
    "class G: pass", "def f(): pass", "9**9**9**9**9**9**9 * X", "G**(9**9**9)",
    "(" * 90 + "X" + ")" * 90, "(" * 500 + "G" + ")" * 500, "-" * 150 + "G", "-" * 3900 + "G",
    "+".join(["G"] * 1900), "sign(" * 120 + "G" + ")" * 120, "G" + ".T" * 300, "G" * 5000,
    "[" * 1500 + "]" * 1500, "G\0", "\0", "G\ud800", "\ud800", "G\x1b[31m", "", "   ", "\n", "#",
    "# G", "\u202eG", "G\u200b", "Ｇ @ G", "ｅｖａｌ('G')", "𝐞𝐱𝐞𝐜('G')", "G @ А", "G−G", "G × G",
    "½*G", "٣*X", "G @\\", "\\", "G \\ A", "'''", '"""', "f'{G!r}'", "f'{G:{G}}'", "rb'G'",
    "0" * 4000, "1" * 3999,
]  # fmt: skip


@pytest.mark.parametrize("text", ATTACKS, ids=range(len(ATTACKS)))
def test_text_outside_the_language_is_refused_and_never_run(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RuleError):
        parse(text)
    with pytest.raises(InvalidInput):
        exact(text)
    assert list(tmp_path.iterdir()) == []


def test_a_comment_does_not_swallow_the_rest_of_a_rule() -> None:
    text = "G  # the gradient\n @ (A + rho*I)**(-1)"
    try:
        rule = parse(text)
    except RuleError:
        return
    assert rule == parse("G @ (A + rho*I)**(-1)"), str(rule)


ALPHABET = [
    *"GABLRWI()@*+-/.,0123456789 eT\t", "**", ".T", "rho", "eps", "e_A", "fan_in", "é", "\0", "'",
    "#", "\\", "[", "]", "=", ":", "_", "\U0001d406", *(f"{name}(" for name in FUNCTIONS),
]  # fmt: skip


def _mutate(draw: random.Random, text: str) -> str:
    for _ in range(draw.randint(1, 4)):
        i, j = sorted(draw.randint(0, len(text)) for _ in range(2))
        text = draw.choice([
            text[:i] + draw.choice(ALPHABET) + text[i:],
            text[:i] + text[j:],
            text[:i] + text[i:j] * 2 + text[j:],
            text[:i] + draw.choice(SPELLINGS)[0] + text[j:],
            text[:i] + draw.choice(ALPHABET) + text[i + 1 :],
        ])  # fmt: skip
    return text


def test_twenty_thousand_random_texts_raise_nothing_but_rule_errors() -> None:
    draw = random.Random(0)
    read = refused = 0
    for i in range(20_000):
        if i % 2:
            text = _mutate(draw, draw.choice(SPELLINGS)[0])
        else:
            text = "".join(draw.choice(ALPHABET) for _ in range(draw.randint(0, 40)))
        try:
            rule = parse(text)
        except RuleError as error:
            refused += 1
            assert error.needed and error.do_this, (i, text)
        except Exception as error:
            raise AssertionError(f"{i}: {text!r} raised {error!r}") from error
        else:
            read += 1
            if not any(isinstance(n, Transpose) and isinstance(n.operand, Number)
                       for n in rule.expression.walk()):  # fmt: skip
                assert parse(str(rule)) == rule, (i, text)
    assert min(read, refused) > 200, (read, refused)  # both kinds of text occur


@pytest.mark.parametrize(
    ("text", "do_this"),
    [
        ("sqrt(fan_out/fanin)*orth(G)", "did you mean 'fan_in'"), ("fanout*G", "'fan_out'"),
        ("width*G", "write fan_in or fan_out"), ("G @ (A + damping*I)**(-1)", "rho or eps"),
        ("G + wd*W", "call a decay of the weights decay"), ("inf*G", "write a number"),
    ],
)  # fmt: skip
def test_a_number_of_order_one_does_not_read_as_if_it_grew(text: str, do_this: str) -> None:
    with pytest.raises(RuleError, match=do_this):
        parse(text)


def test_numbers_that_no_declaration_explains_are_assumed_to_be_of_order_one() -> None:
    said = ("lam is a number of order one", "s is a number of order one")
    rule = parse("s*ema(G, beta) @ (A + lam*I)**(-1)")
    assert set(rule.assumptions) == set(said)
    assert set(said) <= set(derive(rule).assumptions)
    named = parse(str(rule), "mine")
    assert not named.assumptions and not parse("ema(G, beta)").assumptions


def test_what_users_call_a_rule_is_the_same_everywhere() -> None:
    tree = ema(G, symbol("beta1"))
    assert rule_of("momentum") == find("momentum").rule
    assert rule_of(tree) == rule_of(str(tree)) == Rule(tree) == as_rule(tree)
    assert derive(tree).exponents == derive(str(tree)).exponents
    with pytest.raises(InvalidInput, match="did you mean 'muon'"):
        rule_of("muom")
    with pytest.raises(RuleError, match=r"'muon', the name of an optimizer(.|\n)*does: orth\(G\)"):
        rule_of("muon + decay*W")
    assert rule_of("G  # as sgd does").constants == ()
    assert rule_of("ema(G, momentum)").averages == ("momentum",), "a name is free where it fits"


def test_a_tree_that_is_too_deep_to_be_followed_is_refused() -> None:
    def nested(depth: int) -> Node:
        tree: Node = G
        for _ in range(depth):
            tree = sign(tree)
        return tree

    assert list(derive(nested(100)).exponents.c.values()) == [0, 1, 1]
    for depth in (102, 400, 3000):
        with pytest.raises(RuleError, match="nested more than 100 deep"):
            Rule(nested(depth))
    with pytest.raises(RuleError, match="nested more than 100 deep"):
        parse("sign(" * 102 + "G" + ")" * 102)
