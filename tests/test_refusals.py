"""What functions for users of Python refuse, word for word; what builds rules; what lines carry."""

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from sympy import S, Symbol, oo
from tour import tour

from derivations.catalogue import catalogue, find
from scaling.cli.requests import missing_package
from scaling.models.chain import Setting, mlp
from scaling.models.settings import read_settings
from scaling.report.step_lines import Derivation, render_steps
from scaling.report.tables import (
    Format,
    Table,
    catalogue_table,
    derived_table,
    render,
)
from scaling.rules.language import (
    A,
    G,
    L,
    Matrix,
    R,
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
from scaling.rules.operators import FUNCTIONS
from scaling.rules.parser import as_rule, parse
from scaling.rules.rule import evaluate_power
from scaling.sizes.errors import InvalidInput, NotCovered, RuleError, ScalingError, unknown
from scaling.sizes.scale import Bounds, Order, Scale, Size
from scaling.solve.conditions import MAXIMAL_UPDATE, STANDARD
from scaling.solve.derive import derive
from scaling.solve.predict import predict
from scaling.solve.symmetry import compare
from scaling.states.problem import Exponents, Problem

LOOSE = [condition for condition in STANDARD if condition is not MAXIMAL_UPDATE]
TWO_AXES = Scale.over({"width": 1}, Size.ENTRY), Scale.over({"depth": 1}, Size.ENTRY)

REFUSED: list[tuple[Callable[[], object], type[ScalingError], str, str, str]] = [
    (lambda: as_rule(3), InvalidInput,  # type: ignore[arg-type]
     "a int as a rule", "a Rule, a tree of the language, or text", "pass for example 'orth(G)'"),
    (lambda: mlp(1), NotCovered,
     "a network of depth 1", "an input and an output layer", "use depth 2 or more"),
    (lambda: G @ (A + symbol("e")) , RuleError,
     "A (fan_in x fan_in) + e (scalar)", "two matrices of the same shape",
     "multiply the scalar by I"),
    (lambda: call("sgin", G), RuleError,
     "function 'sgin'", f"one of {', '.join(sorted(FUNCTIONS))}", "did you mean 'sign'?"),
    (lambda: G * "x", RuleError,  # type: ignore[operator]
     "'x' (str) in a rule", "a matrix, a symbol or a number", "build symbols with symbol('rho')"),
    (lambda: G * float("nan"), RuleError, "the number nan", "a finite number",
     "write for example 0.1"),
    (lambda: symbol("norm"), RuleError, "'norm' as the name of a hyper-parameter",
     "a name in lower case that is not a function of the language",
     "rename it, or call the function: norm(X)"),
    (lambda: evaluate_power(parse("G**(1/(2 - e))").expression.power, int, lambda _: 2),  # type: ignore[attr-defined]
     RuleError, "the power 1/(2 - e)", "a finite number", "do not divide by 0"),
    (lambda: derive(parse("G"), conditions=LOOSE, step=2), NotCovered,
     "step 2 with a learning rate of input that is free", "the size of the first step",
     "impose maximal update, or give c_input"),
    (lambda: missing_package(ModuleNotFoundError(name="torch.nn")), InvalidInput,
     "no package 'torch.nn', which measuring needs", "the extra 'empirical' of this package",
     "pip install 'scaling[empirical]'"),
    (lambda: missing_package(ModuleNotFoundError(name="dask.array")), InvalidInput,
     "no package 'dask.array', which a Dask cluster needs", "the extra 'cluster' of this package",
     "pip install 'scaling[cluster]'"),
    (lambda: missing_package(ModuleNotFoundError(name="distributed")), InvalidInput,
     "no package 'distributed', which a Dask cluster needs", "the extra 'cluster' of this package",
     "pip install 'scaling[cluster]'"),
    (lambda: Scale.zero(Size.ENTRY) ** -1, NotCovered,
     "the size of exactly zero to the power -1", "a size that is not zero, or a positive power",
     "add a damping, or give b a finite value"),
    (lambda: TWO_AXES[0] + TWO_AXES[1], NotCovered,
     "the sum of M^(1) and depth^(1), where neither is larger along every axis",
     "one growing axis, or a term that dominates on all of them",
     "let one axis grow and give the others a fixed size"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "kind", "found", "needed", "do_this"), REFUSED)
def test_a_refusal_says_what_was_found_what_is_needed_and_what_to_do(
    make: Callable[[], object], kind: type[ScalingError], found: str, needed: str, do_this: str
) -> None:
    with pytest.raises(kind) as refusal:
        made = make()
        assert isinstance(made, ScalingError)  # to be raised by who asks
        raise made
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
    ("(G**2)**3", (G**2) ** 3), ("(-G)**3", (-G) ** 3), ("G - (G - G)", G - (G - G)),
]  # fmt: skip


@pytest.mark.parametrize(("text", "built"), BUILT)
def test_a_function_of_python_is_the_one_of_the_language(text: str, built: object) -> None:
    assert str(built) == text
    assert repr(built) == f"<rule {text}>"


# --- what goes with an answer ---------------------------------------------------------------------


WRITTEN = ["diag(B)**0 @ G", "G*(row_mean(G*G).T @ row_mean(abs(G)))", "clip(G, 1) + G**3"]
AT_THE_SECOND = ["momentum", "adamw", "momentum_penalised", "muon_momentum"]


@pytest.mark.parametrize(
    ("name", "step"),
    [*((name, 1) for name in (*tour(), *WRITTEN)), *((name, 2) for name in AT_THE_SECOND)],
)
def test_a_line_about_a_part_of_the_rule_carries_that_part(name: str, step: int) -> None:
    rule = catalogue()[name].rule if name in catalogue() else parse(name)
    parts = {str(node): node for node in rule.expression.walk()}
    for layer, derivation in derive(rule, step=step).steps.items():
        lines = derivation.lines()
        assert {type(x) for line in lines for x in (line.subject, line.assumption)} == {str}
        for line in lines:
            if line.subject in parts and line.node != parts[line.subject]:
                assert line.node is None, (layer, line.subject)
                assert not parts[line.subject].children  # a bare matrix is a premise of others too
        read = {line.node for line in lines}
        bare = {node for node in parts.values() if isinstance(node, Matrix)}
        assert bare <= read or rule.ascents


def test_what_no_package_of_ours_lacks_is_a_bug_and_stays_one() -> None:
    for name in (None, "empirical.gone", "scaling.gone", "derivations"):
        with pytest.raises(ModuleNotFoundError):
            missing_package(ModuleNotFoundError(name=name))


def test_a_rate_that_no_condition_fixes_is_a_symbol_called_free() -> None:
    found = derive(parse("G"), conditions=LOOSE)
    assert [str(c) for c in found.exponents.c.values()] == ["c_input", "c_hidden", "c_output"]
    shown = Derivation(found.problem.rule, "hidden", found.steps["hidden"])
    text = render_steps(shown, Format.TEXT)
    assert [line.split("  = ")[1] for line in text.split("\n") if "= free" in line] == ["free"]
    last = found.steps["hidden"]
    assert last.subject == "c of hidden"
    assert [line.subject for line in last.inputs] == ["dW h per learning rate"]


def test_a_table_shows_itself_in_notebooks_and_says_its_step() -> None:
    solutions = [derive(parse("G"), step=step) for step in (1, 2)]
    table = derived_table(solutions[0])
    assert str(table).startswith("dW = G\n\nlayer")
    assert table._repr_html_().startswith("<table><caption>dW = G</caption>")
    assert table._repr_latex_().startswith("% dW = G\n\\begin{tabular}{llll}")
    assert catalogue_table(solutions[:1]).title == "exponents of the catalogue"
    assert catalogue_table(solutions).title == "exponents of the catalogue at step 2"
    assert catalogue_table([]).title == "exponents of the catalogue"


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


def test_what_theory_is_silent_of_has_no_gap() -> None:
    zero = dict.fromkeys(("input", "hidden", "output"), S.Zero)
    b = dict(zip(zero, (S.Zero, S.Half, S.Half), strict=True))
    table = Exponents(zero, b, zero, {name: {} for name in zero})
    layers = predict(Problem(parse("G")), table).layers
    assert layers["output"].feature is None
    assert layers["output"].gaps.keys() == {"own"}
    assert layers["input"].gaps.keys() == {"own", "feature"}


def test_a_sum_of_symbolic_sizes_does_not_say_how_fast_it_settles() -> None:
    big, one = Scale.of_width("e", Size.ENTRY), Scale.one(Size.ENTRY)
    total = big.plus(one, Bounds({"e": (S.One, oo)}))
    assert (total.width, total.gap) == (Symbol("e"), big.gap)
    assert (Scale.of_width(1, Size.ENTRY) + one).gap == 1


def test_a_corner_is_rotated_on_both_sides() -> None:
    shapes = [x.shape for x in (G, eig(L), eig(L).T @ G, eig(L).T @ G @ eig(R))]
    assert [shape.is_corner for shape in shapes] == [False, False, False, True]
    assert [shape.is_rotated for shape in shapes] == [False, False, True, True]


def test_what_is_special_in_latex_is_escaped_character_by_character() -> None:
    text = "a\\b_c^d%e&f#g~h"
    table = Table("", ("x_1",), ((text,),))
    row = r"a\textbackslash{}b\_c\^{}d\%e\&f\#g$\sim$h \\"
    assert row in render(table, Format.LATEX).split("\n")
    assert r"x\_1 \\" in render(table, Format.LATEX).split("\n")


def test_the_longest_name_of_a_damping_is_the_one_that_is_meant() -> None:
    rule = parse("G @ (A + rho*I + rho_hidden*I)**-1")
    assert read_settings(["d_rho_hidden=1"], rule, mlp()).d == {
        ("rho_hidden", name): 1 for name in ("input", "hidden", "output")
    }
    assert read_settings(["d_rho_output=1"], rule, mlp()).d == {("rho", "output"): 1}


def test_a_damping_that_one_of_two_tables_lacks_is_a_difference() -> None:
    found = derive(catalogue()["foof"].rule)
    x = found.exponents
    lacking = Exponents(x.a, x.b, x.c, {**x.d, "hidden": {}})
    for left, right, values in ((x, lacking, (-1, None)), (lacking, x, (None, -1))):
        (one,) = compare(found.problem, left, found.problem, right).differences
        assert (one.layer, one.name, one.left, one.right) == ("hidden", "d_rho_A", *values)


MOVED = {
    "orthograd": "norm(G)/norm(G)*G",
    "sgdp": "M where M = ema(G, beta)",
    "adamp": "U where U = debiased(G, beta1)/(sqrt(debiased(G*G, beta2)) + eps)",
}


@pytest.mark.parametrize("name", MOVED)
def test_weights_that_have_moved_are_not_read_as_independent_of_the_gradient(name: str) -> None:
    with pytest.raises(NotCovered, match="weights that have moved") as refusal:
        derive(find(name).rule, step=2)
    assert refusal.value.do_this == f"write for example {MOVED[name]}"
    assert derive(find(name).rule) and derive(parse(MOVED[name]), step=2)


def test_they_are_not_independent() -> None:
    """Of ReLU layers <W_l, G_l> = <f, f - y>/n: M^(-1/2) at first, of order one after a step."""
    first, second = (
        np.log(np.mean([np.abs(_aligned(m, seed)) for seed in range(8)], axis=0))
        for m in (64, 1024)
    )
    slopes = (second - first) / np.log(16)
    assert abs(slopes[0] + 0.5) < 0.2 and abs(slopes[1]) < 0.2


def _aligned(width: int, seed: int) -> tuple[float, float]:
    """<W, G> of the hidden layer before and after a step of gradient descent at derived rates."""
    draw = np.random.default_rng(seed).standard_normal
    x, y = draw((6, 4)), draw((3, 4))
    w = [draw((width, 6)), draw((width, width)) * width**-0.5, draw((3, width)) / width]
    found = []
    for _ in range(2):
        h = [x, np.maximum(w[0] @ x, 0)]
        h.append(np.maximum(w[1] @ h[1], 0))
        delta, g = w[2] @ h[2] - y, []
        found.append(float((w[2] @ h[2] * delta).sum()) / 4)
        for i in (2, 1, 0):
            g.insert(0, delta @ h[i].T / 4)
            delta = (w[i].T @ delta) * (h[i] > 0)
        assert np.isclose((w[1] * g[1]).sum(), found[-1])
        w = [p - 0.1 * width ** (-c) * q for p, q, c in zip(w, g, (-1, 0, 1), strict=True)]
    return found[0], found[1]
