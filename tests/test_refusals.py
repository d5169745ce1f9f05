"""What functions for users of Python refuse, word for word; what builds rules; what lines carry."""

from collections.abc import Callable
from fractions import Fraction

import pytest
from sympy import S, Symbol, oo

from derivations.catalogue import catalogue
from scaling.errors import InvalidInput, NotCovered, RuleError, ScalingError, unknown
from scaling.language import (
    A,
    G,
    L,
    W,
    ascended,
    atan,
    block,
    call,
    clip,
    col_mean,
    debiased,
    diag,
    eig,
    ema,
    inner,
    maximum,
    newton_schulz,
    norm,
    orth,
    over_layers,
    rms,
    row_mean,
    sample_square,
    sign,
    specnorm,
    sqrt,
    symbol,
    trace,
)
from scaling.ledger import Setting, mlp
from scaling.parser import as_rule, parse
from scaling.prediction import predict
from scaling.rule import evaluate_power
from scaling.scale import Bounds, Order, Scale, Size
from scaling.solve import derive

TWO_AXES = Scale.over({"width": 1}, Size.ENTRY), Scale.over({"depth": 1}, Size.ENTRY)

REFUSED: list[tuple[Callable[[], object], type[ScalingError], str, str, str]] = [
    (lambda: as_rule(3), InvalidInput,  # type: ignore[arg-type]
     "a int as a rule", "a Rule or its text", "pass for example 'orth(G)'"),
    (lambda: mlp(1), NotCovered,
     "a network of depth 1", "an input and an output layer", "use depth 2 or more"),
    (lambda: G @ (A + symbol("e")) , RuleError,
     "A (fan_in x fan_in) + e (scalar)", "two matrices of the same shape",
     "multiply the scalar by I"),
    (lambda: call("sgin", G), RuleError,
     "function 'sgin'", "one of abs, ascended, atan, block, clip, col_mean, debiased, diag, eig, "
     "ema, inner, max, newton_schulz, norm, orth, over_layers, rms, row_mean, sample_square, sign, "
     "specnorm, sqrt, trace", "did you mean 'sign'?"),
    (lambda: G * "x", RuleError,  # type: ignore[operator]
     "'x' (str) in a rule", "a matrix, a symbol or a number", "build symbols with symbol('rho')"),
    (lambda: G * float("nan"), RuleError, "the number nan", "a finite number", "write it out"),
    (lambda: symbol("norm"), RuleError, "'norm' as the name of a hyper-parameter",
     "a name in lower case that is not a function of the language",
     "rename it, or call the function: norm(X)"),
    (lambda: evaluate_power(parse("G**(1/(2 - e))").expression.power, int, lambda _: 2),  # type: ignore[attr-defined]
     RuleError, "the power 1/(2 - e)", "a finite number", "do not divide by 0"),
    (lambda: Scale.zero(Size.ENTRY) ** -1, NotCovered,
     "the size of exactly zero to the power -1", "a size that is not zero, or a positive power",
     "add a damping, or give b a finite value"),
    (lambda: TWO_AXES[0] + TWO_AXES[1], NotCovered,
     "the sum of M^(1) and depth^(1), where neither is larger along every axis",
     "one growing axis, or a term that dominates on all of them", "fix the other axes"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "kind", "found", "needed", "do_this"), REFUSED)
def test_a_refusal_says_what_was_found_what_is_needed_and_what_to_do(
    make: Callable[[], object], kind: type[ScalingError], found: str, needed: str, do_this: str
) -> None:
    with pytest.raises(kind) as refusal:
        make()
    error = refusal.value
    assert (error.found, error.needed, error.do_this) == (found, needed, do_this)
    assert error.args == (found, needed, do_this)
    assert str(error) == f"found: {found}\nneeded: {needed}\ndo this: {do_this}"


def test_an_unknown_name_among_none_is_left_out() -> None:
    error = unknown("layer", "hidden", [], RuleError)
    assert isinstance(error, RuleError)
    assert error.args == ("layer 'hidden'", "no layer at all: there is none here", "leave it out")


@pytest.mark.parametrize("make", [
    lambda: exponent_of_a_float(), lambda: Scale.one(Size.ENTRY) + Scale.one(Size.SPECTRAL),
    lambda: Scale.one(Size.ENTRY) * Scale.one(Size.FROBENIUS),
])  # fmt: skip
def test_sizes_of_different_things_and_floats_are_type_errors(make: Callable[[], object]) -> None:
    with pytest.raises(TypeError, match=r"do not (add|multiply): convert one first|write 1/2 inst"):
        make()


def exponent_of_a_float() -> object:
    return Scale.of_width(0.5, Size.ENTRY)


# --- the two spellings of every function --------------------------------------------------------

BUILT = [
    ("sign(G)", sign(G)), ("sqrt(G*G)", sqrt(G * G)), ("orth(G)", orth(G)), ("atan(G)", atan(G)),
    ("newton_schulz(G, 5)", newton_schulz(G)), ("newton_schulz(G, 3)", newton_schulz(G, 3)),
    ("inner(G, W)", inner(G, W)), ("over_layers(norm(G))", over_layers(norm(G))),
    ("clip(G, 1)", clip(G, 1)), ("max(1, rms(G))", maximum(1, rms(G))), ("trace(A)", trace(A)),
    ("specnorm(L)", specnorm(L)), ("diag(L)", diag(L)), ("row_mean(G)", row_mean(G)),
    ("col_mean(G)", col_mean(G)), ("block(A, 4)", block(A, 4)), ("ema(G, 1/2)", ema(G, 0.5)),
    ("debiased(G, 1/2)", debiased(G, Fraction(1, 2))), ("eig(L)", eig(L)),
    ("ascended(G)", ascended(G)), ("sample_square(G)", sample_square(G)),
    ("1 + G", 1 + G), ("1 - G", 1 - G), ("2*G", 2 * G), ("1/G", 1 / G), ("-G", -G),
]  # fmt: skip


@pytest.mark.parametrize(("text", "built"), BUILT)
def test_a_function_of_python_is_the_one_of_the_language(text: str, built: object) -> None:
    assert str(built) == text
    assert repr(built) == f"<rule {text}>"


# --- what goes with an answer ---------------------------------------------------------------------


@pytest.mark.parametrize("name", catalogue())
def test_a_line_about_a_part_of_the_rule_carries_it_so_that_it_can_be_measured(name: str) -> None:
    rule = catalogue()[name].rule
    nodes = rule.expression.walk()  # bare matrices are premises too, of norms and of each other
    parts = {str(node): node for node in nodes if node.children}
    for layer, step in derive(rule).steps.items():
        for line in step.lines():
            if line.subject in parts:
                assert line.node == parts[line.subject], (layer, line.subject)


def test_a_prediction_says_of_what_it_is_one() -> None:
    found = derive(catalogue()["adamw"].rule)
    result = predict(found.problem, found.exponents, found.bounds)
    assert (result.problem, result.exponents) == (found.problem, found.exponents)
    assert result.layers.keys() == result.regimes.keys() == found.exponents.b.keys()
    assert result.assumptions == found.assumptions


def test_what_equals_zero_once_it_is_multiplied_out_is_equal() -> None:
    x, y, z = Symbol("x"), Symbol("y"), Symbol("z")
    bounds = Bounds({"x": (S.Zero, oo), "z": (S.One, oo)})
    assert bounds.order(x * (1 + y), x + x * y) is Order.EQUAL
    assert bounds.order(x * z, -S.One) is Order.GREATER
    assert bounds.order(x * y, -S.One) is Order.OPEN
    assert bounds.order(-oo, x) is bounds.order(x, oo) is Order.LESS
    assert bounds.order(x, -oo) is bounds.order(oo, x) is Order.GREATER
    assert bounds.order(x, S.Zero) is Order.OPEN
    assert bounds.larger(x, S.Zero) == x
    assert bounds.larger(S.Zero, x) == x


def test_layers_know_the_size_that_moves_order_one_to_order_one() -> None:
    sizes = {layer.name: layer.target.width for layer in mlp(3, biases=True)}
    assert sizes == {
        "input": S.Half, "hidden": 0, "output": -S.Half, "input_bias": S.Half,
        "hidden_bias": S.Half, "output_bias": 0,
    }  # fmt: skip
    assert {layer.target.of for layer in Setting().layers} == {Size.SPECTRAL}
