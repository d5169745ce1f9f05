"""Traits of functions: what a row says, as that it is linear, is so in numbers; and who asks it."""

import pytest
import torch
from torch import Tensor, nn

from empirical.networks import MLP
from empirical.networks.stacked import covers
from empirical.numbers.interpreter import evaluate
from empirical.numbers.layer_matrices import LayerTensors
from empirical.numbers.state import State
from scaling.rules.estimable_sums import is_positive
from scaling.rules.operators import (
    FUNCTIONS,
    OfEntries,
    SecondOperand,
    SpectralSum,
    SumOfEntries,
)
from scaling.rules.parser import parse, parse_formula
from scaling.rules.tree import is_average, remembers
from scaling.sizes.errors import NotCovered, ScalingError
from scaling.solve.alternatives import decisive
from scaling.solve.derive import derive

SECOND = {
    None: "", SecondOperand.LIKE_FIRST: ", (W*W - 1/2)*W", SecondOperand.SCALAR: ", 3",
    SecondOperand.DECAY: ", 1/2", SecondOperand.COUNT: ", 2", SecondOperand.FADING: ", 1",
    SecondOperand.BESIDE: ", -1", SecondOperand.OF_SINGULAR_VALUE: ", sigma/(1 + sigma)",
}  # fmt: skip
SINGLE = ("over_layers", "ascended", "sample_square", "eig")
"""Not functions of the value of X alone: of other layers, weights and samples; signs are open."""
NUMBERS = [name for name, row in FUNCTIONS.items() if name not in SINGLE]


def seeded(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def value(text: str, x: Tensor, y: Tensor) -> Tensor:
    """A formula in G = x and W = y; at the second step where it remembers without being linear."""
    layer = LayerTensors(torch.eye(x.shape[1]).double(), x.double() * x.shape[1], W=y)
    rule, state = parse(text), State()
    if any(remembers(n) and not is_average(n) for n in rule.expression.walk()):
        other = LayerTensors(layer.H, layer.D.flip(0), W=y.flip(0))
        evaluate(rule, other, {}, state)
    return evaluate(rule, layer, {}, state).dense()


def operand(name: str, matrix: str) -> str:
    """A first operand that the function takes, made of a matrix: linear in it or its square."""
    for text in (matrix, f"{matrix}.T @ {matrix}", f"norm({matrix})", f"abs({matrix})"):
        try:
            parse_formula(f"{name}({text}{SECOND[FUNCTIONS[name].second]})")
        except ScalingError:
            continue
        return text
    raise AssertionError(name)


def of(name: str, text: str) -> str:
    """The function as an update that depends on its value alone."""
    call = f"{name}({text}{SECOND[FUNCTIONS[name].second]})"
    return f"W @ {call}" if parse_formula(call).shape.is_square else f"{call} + 0*G"


X, Y = seeded(0, 6, 4), seeded(1, 6, 4)


@pytest.mark.parametrize("name", NUMBERS)
def test_a_function_is_of_the_degree_that_its_row_says(name: str) -> None:
    inside = "abs(G)" if name == "sqrt" else operand(name, "G")
    plain, scaled = value(of(name, inside), X, Y), value(of(name, f"5*({inside})"), X, Y)
    degree = FUNCTIONS[name].degree
    if degree is not None:
        assert torch.allclose(scaled, 5 ** float(degree) * plain)
    elif inside == "G" and not FUNCTIONS[name].remembers:  # its numbers may change by step
        assert not any(torch.allclose(scaled, 5**p * plain) for p in (0, 0.5, 1, 2))


@pytest.mark.parametrize("name", NUMBERS)
def test_a_function_is_linear_if_its_row_says_so(name: str) -> None:
    if operand(name, "G").startswith("norm") or name == "sqrt":
        assert not FUNCTIONS[name].linear
        return
    x, y = operand(name, "G"), operand(name, "W")
    total = value(of(name, f"{x} - 2*({y})"), X, Y)
    parts = value(of(name, x), X, Y) - 2 * value(of(name, y), X, Y)
    assert torch.allclose(total, parts) == FUNCTIONS[name].linear


@pytest.mark.parametrize("name", NUMBERS)
def test_a_norm_is_even_and_of_zero_for_zero_alone(name: str) -> None:
    row = FUNCTIONS[name]
    if not row.norm:
        assert not isinstance(row.reading, SumOfEntries) or row.linear
        return
    assert torch.equal(value(of(name, "-G"), X, Y), value(of(name, "G"), X, Y))
    assert bool((value(of(name, "G"), X, Y) > 0).all())
    assert not value(of(name, "G - G"), X, Y).any()
    whole, parts = value(of(name, "G + W"), X, Y), value(f"{name}(G) + {name}(W) + 0*G", X, Y)
    assert bool((whole <= parts).all())


@pytest.mark.parametrize(
    "name", [n for n, row in FUNCTIONS.items() if isinstance(row.reading, SpectralSum)]
)
def test_a_sum_over_the_spectrum_is_what_its_row_says(name: str) -> None:
    reading = FUNCTIONS[name].reading
    assert isinstance(reading, SpectralSum)
    s = torch.linalg.svdvals(X.T @ X)
    wanted = s.max() if reading.power is None else (s**reading.power).sum() ** (1 / reading.power)
    found = value(f"{name}(G.T @ G) + 0*G", X, Y)
    assert torch.allclose(found, wanted.expand_as(found))


@pytest.mark.parametrize("name", [n for n, row in FUNCTIONS.items() if row.spectral])
def test_a_spectral_function_keeps_the_singular_vectors(name: str) -> None:
    u, _, v = torch.linalg.svd(X, full_matrices=False)
    inside = u.T @ value(of(name, "G"), X, Y) @ v.T
    assert torch.allclose(inside, inside.diagonal().diag(), atol=1e-10)


def test_a_function_of_entries_keeps_no_singular_vectors() -> None:
    u, _, v = torch.linalg.svd(X, full_matrices=False)
    inside = u.T @ X.sign() @ v.T
    assert not torch.allclose(inside, inside.diagonal().diag(), atol=0.01)


@pytest.mark.parametrize("name", [n for n, row in FUNCTIONS.items() if row.descends])
def test_a_function_that_descends_adds_up_what_is_not_negative(name: str) -> None:
    f = value(of(name, "G"), X, Y)
    if isinstance(FUNCTIONS[name].reading, OfEntries):
        assert bool((f * X >= 0).all())
    else:
        both = f.T @ X
        assert torch.allclose(both, both.T)
        assert bool((torch.linalg.eigvalsh(both) > -1e-12).all())
    assert float((f * X).sum()) > 0


@pytest.mark.parametrize("name", NUMBERS)
def test_a_function_is_never_negative_and_keeps_signs_as_its_row_says(name: str) -> None:
    row, inside = FUNCTIONS[name], operand(name, "G")
    if row.never_negative:
        inside = "abs(G)" if name == "sqrt" else inside
        assert bool((value(of(name, inside), X, Y) >= 0).all())
    elif inside == "G":
        signs = ("G", "-G", "-abs(G)")
        assert any(bool((value(of(name, x), X, Y) < 0).any()) for x in signs)
    if row.keeps_sign:
        positive = value(of(name, operand(name, "abs(G)")), X.abs(), Y.abs() + 2)
        assert bool((positive >= 0).all())


# --- whom the rows tell --------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["trust(inner(W, G), 2)", "trace(A - 2*A)", "diag(A - R)"])
def test_what_may_be_negative_is_not_taken_for_positive(text: str) -> None:
    assert not is_positive(parse_formula(text))


@pytest.mark.parametrize("text", ["trust(norm(W), norm(G))", "trace(A + 2*R)", "diag(A)"])
def test_what_keeps_signs_is_positive_of_what_is(text: str) -> None:
    assert is_positive(parse_formula(text))


@pytest.mark.parametrize("call", ["sign(G)", "orth(G)", "tanh(G)", "newton_schulz(G, 5)"])
def test_the_inner_product_of_a_descent_direction_does_not_cancel(call: str) -> None:
    """The trace norm, and sums of |x| or |x tanh x|: of the size of the product of both norms."""
    bounded = derive(parse(f"G/inner({call}, G)")).exponents
    assert bounded.c == derive(parse(f"G/(norm({call})*norm(G))")).exponents.c


@pytest.mark.parametrize("call", ["sign(W)", "abs(G)", "tanh(G @ A)"])
def test_that_of_another_matrix_is_refused(call: str) -> None:
    with pytest.raises(NotCovered):
        derive(parse(f"G/inner({call}, G)"))


@pytest.mark.parametrize("mean", ["mean", "rms", "norm"])
def test_numbers_leave_every_homogeneous_function(mean: str) -> None:
    """mean was on no list of them, and the zero there was refused as what may cancel."""
    found = derive(parse(f"sign(G) + G*({mean}(2*abs(G)) - 2*{mean}(abs(G)))"))
    assert found.exponents.c == derive(parse("sign(G)")).exponents.c


@pytest.mark.parametrize("f", ["atan", "tanh"])
def test_a_bound_that_decides_an_exponent_is_told_of_every_bounded_function(f: str) -> None:
    """tanh was on no list of them: its other side was f's second operand, 1 alone."""
    said = {str(x.otherwise) for x in decisive(derive(parse(f"G*{f}(norm(W))")))}
    assert {x.partition(" c =")[0] for x in said} == {"below the bound", "at the bound"}


def test_a_smaller_of_two_is_trained_side_by_side_as_a_larger() -> None:
    model: nn.Module = MLP(2, 4, 2)
    assert covers(model, parse("G/max(1, norm(G))"))
    assert covers(model, parse("G*min(1, 1/norm(G))"))
    assert not covers(model, parse("G*trust(norm(G), 1)"))
