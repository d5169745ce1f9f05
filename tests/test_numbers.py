"""The numeric interpreter against dense float64 matrices, written with numpy and scipy alone."""

import numpy as np
import pytest
import torch
from dense_layers import (
    LAYERS,
    RULES,
    VALUES,
    Array,
    Dense,
    assert_close,
    layer,
    polar,
    pseudo_power,
    tensors,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from empirical.numbers.basis import Basis
from empirical.numbers.interpreter import FactoredUpdate, State, evaluate
from empirical.numbers.layer_matrices import LayerTensors
from empirical.numbers.layer_values import LayerValue, LowRank, Outer
from empirical.numbers.square_matrices import Blocks, Square
from scaling.rules.parser import parse
from scaling.rules.tree import Node
from scaling.sizes.errors import InvalidInput


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("text", RULES)
@pytest.mark.parametrize("dense", [False, True], ids=["low rank", "dense"])
def test_every_rule_agrees_with_explicit_matrices(text: str, name: str, dense: bool) -> None:
    x = layer(name)
    update = evaluate(parse(text), tensors(x), VALUES, dense=dense)
    noise = 1e-15 if "row_mean" in text and name == "bias" else 0  # there it is zero: x - mean(x)
    np.testing.assert_allclose(
        update.dense().numpy(),
        RULES[text](x),
        rtol=1e-10,
        atol=noise + 1e-10 * float(np.abs(RULES[text](x)).max()),
    )


@pytest.mark.parametrize(
    ("right", "wrong"),
    [("G @ (A + rho_A*I)**(-1)", "G @ (A + rho_A*I)**(-99/100)"), ("orth(G)", "G"), ("G", "2*G")],
)
def test_the_oracle_contradicts_a_wrong_rule(right: str, wrong: str) -> None:
    x = layer("hidden")
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        assert_close(evaluate(parse(wrong), tensors(x), VALUES).dense(), RULES[right](x))


# --- signs --------------------------------------------------------------------------------------


def cancelling(size: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """(u, v) of which every entry of u v^T is zero but for rounding."""
    generator = torch.Generator().manual_seed(0)
    s, t = (torch.randn(size, dtype=dtype, generator=generator) for _ in "uv")
    return torch.stack([0.3 * s, -0.7 * s], dim=1), torch.stack([0.7 * t, 0.3 * t], dim=1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_multiple_has_the_signs_of_what_it_multiplies(dtype: torch.dtype) -> None:
    u, v = cancelling(300, dtype)
    outer = Outer(u, v, Basis.spanning(u), Basis.spanning(v))
    # Half of the rows of Q are at right angles to the core's column.
    q = torch.cat([u, u.flip(1)]).double()
    core = torch.tensor([[0.7], [0.3]], dtype=torch.float64)
    low = LowRank(Basis(600, dtype, q, orthonormal=True), core, Basis.spanning(v))
    for value in (outer, low):
        entries, multiple = value.dense(), value.scale(0.1).scale(3.7)
        for other in (multiple, multiple.T.T):
            assert torch.equal(entries.sign(), other.dense().sign())
        np.testing.assert_allclose(multiple.dense(), 0.37 * entries, rtol=1e-6)


@pytest.mark.parametrize("text", ["sqrt(c*G*G)", "sqrt(c*G*G + c*ema(G*G, beta))"])
def test_a_multiple_of_a_square_has_no_negative_entry(text: str) -> None:
    d, h = cancelling(300, torch.float32)
    tensors_ = LayerTensors(h, d, torch.zeros(300, 300))
    update = evaluate(parse(text), tensors_, {"c": 0.1, "beta": 0.9}).dense()
    assert bool((update >= 0).all())
    assert bool((update > 0).any())


@pytest.mark.parametrize("text", ["sign(ema(G, beta))", "sign(previous(2*G)) + sign(G)"])
def test_what_a_state_keeps_holds_no_entries(text: str) -> None:
    x = torch.randn(40, 2, generator=torch.Generator().manual_seed(0))
    state = State()
    evaluate(parse(text), LayerTensors(x, x, torch.zeros(40, 40)), {"beta": 0.9}, state)
    kept = list(state.averages.values())
    assert any(isinstance(value, Outer) for value in kept)
    assert not any(value.product for value in kept if isinstance(value, Outer))


@pytest.mark.parametrize("product", ["{}", "ema({}, beta)", "4*({})"])
def test_a_quotient_is_in_range_where_the_product_that_it_divides_is_not(product: str) -> None:
    # Means of squares of a row and of a column are 1e-30 and 1e-24, those of all entries 1e-19.
    d, h = torch.tensor([[1e-9], [1e-15]]), torch.tensor([[1.0], [1e-1], [1e-3]])
    product = product.format("row_mean(G*G) @ col_mean(G*G)")
    rule = parse(f"G/sqrt({product} / mean(G*G))")
    found = {}
    for dtype in (torch.float32, torch.float64):
        x = LayerTensors(h.to(dtype), d.to(dtype), torch.zeros(2, 3, dtype=dtype))
        found[dtype] = evaluate(rule, x, {"beta": 0.5}).dense()
    assert float(found[torch.float64].min()) > 0
    np.testing.assert_allclose(found[torch.float32], found[torch.float64], rtol=1e-5)


# --- zeros --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("dense", [False, True], ids=["low rank", "dense"])
def test_an_undamped_singular_factor_is_inverted_on_its_span(name: str, dense: bool) -> None:
    x = layer(name)
    rule = parse("L**(-1/4) @ G @ R**(-1/4) + B**(-1/2) @ G @ A**(-1)")
    expected = polar(x.G) + pseudo_power(x.B, -0.5) @ x.G @ pseudo_power(x.A, -1)
    found = evaluate(rule, tensors(x), {}, dense=dense).dense()
    assert_close(found, expected, rtol=1e-8)  # L has the squared condition number of G


def test_a_damping_below_rounding_still_decides_off_the_span() -> None:
    # The cotangent lies outside B's span and sees rho alone; the input h sees |h|^2 + rho.
    h, d, f = torch.eye(4, 1), torch.eye(5, 1), torch.eye(5, 2)[:, 1:]
    x = LayerTensors(h.double(), d.double(), torch.zeros(5, 4).double(), f.double())
    update = evaluate(parse("(B + rho*I)**(-1) @ G @ (A + rho*I)**(-1)"), x, {"rho": 1e-20})
    assert_close(update.dense()[:1, :1], np.array([[1e20]]))
    assert float(update.dense().abs().sum()) == pytest.approx(1e20)


@pytest.mark.parametrize(
    "text", ["(B + rho*I)**(-1) @ G", "orth(G)", "G / (abs(G) + eps)", "L @ G"]
)
def test_a_layer_without_gradient_rests(text: str) -> None:
    x = layer("hidden")
    still = tensors(Dense(x.H, 0 * x.D, x.W, 0 * x.D))
    still = LayerTensors(still.H, still.D, still.W)
    assert float(evaluate(parse(text), still, VALUES).frobenius_norm()) == 0


@pytest.mark.parametrize(
    "text", ["G / abs(G)", "G * (G*G)**(-1/2)", "L**(-1/4) @ G", "G / norm(G)"]
)
def test_zero_over_zero_is_zero(text: str) -> None:
    x = LayerTensors(torch.ones(3, 2), torch.zeros(4, 2), torch.ones(4, 3))
    assert not evaluate(parse(text), x, {}).dense().any()


def test_a_dead_unit_has_sign_zero_also_after_preconditioning() -> None:
    x = layer("hidden, degenerate")
    live = x.D.any(1)[:, None] & x.H.any(1)
    assert not live.all()
    for text in ("sign(G)", "sign((B + rho*I)**(-1) @ G @ (A + rho*I)**(-1))"):
        found = evaluate(parse(text), tensors(x), VALUES).dense().numpy()
        assert not found[~live].any(), text
        assert found[live].any(), text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("G / (0*G)", r"divided by exactly zero(.|\n)*do this: add a damping"),
        ("G / (norm(G) - norm(G))", r"divided by exactly zero"),
        ("sqrt(G)", r"power 0\.5 of negative entries(.|\n)*abs\(X\)"),
        ("G @ (A - 2*trace(A)*I)**(1/2)", r"with the eigenvalue -(.|\n)*damping"),
        ("G @ (A @ R)**2", r"not symmetric(.|\n)*symmetrise"),
        ("G*nu", r"no value for 'nu'(.|\n)*pass values=\{'nu'"),
    ],
)
def test_what_has_no_value_is_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        evaluate(parse(text), tensors(layer("hidden")), VALUES)


def test_tensors_that_are_not_finite_or_do_not_fit_are_refused_by_name() -> None:
    x = layer("hidden")
    h, d, w = (torch.from_numpy(y) for y in (x.H, x.D, x.W))
    nan, inf = torch.full_like(d, torch.nan), torch.full_like(w, torch.inf)
    with pytest.raises(InvalidInput, match="100 entries of D that are not finite"):
        LayerTensors(h, nan, w)
    with pytest.raises(InvalidInput, match="entries of fisher that are not finite"):
        LayerTensors(h, d, w, nan)
    with pytest.raises(InvalidInput, match="entries of W that are not finite"):
        evaluate(parse("G + W"), LayerTensors(h, d, inf), {})
    with pytest.raises(InvalidInput, match=r"shapes(.|\n)*one sample in each column"):
        LayerTensors(h.T, d, w)
    with pytest.raises(InvalidInput, match="all of one dtype"):
        LayerTensors(h.float(), d, w)


# --- cost, precision ----------------------------------------------------------------------------


def test_nothing_of_the_size_of_the_weights_is_formed() -> None:
    fan, draw = 200_000, torch.Generator().manual_seed(0)
    h, d = (torch.randn(fan, 3, generator=draw).double() for _ in "HD")
    w = torch.zeros(()).double().expand(fan, fan)  # 320 GB, were it real
    update = evaluate(
        parse("(B + rho*trace(B)*I)**(-1) @ G @ (A + rho*I)**(-1/2) + orth(G) + L @ G @ R"),
        LayerTensors(h, d, w),
        {"rho": 0.1},
    )
    assert update.factors is not None
    assert (update @ h).shape == (fan, 3)
    assert float(update.spectral_norm()) > 1


@pytest.mark.parametrize("text", RULES)
def test_single_precision_is_as_good_as_its_data(text: str) -> None:
    x = layer("hidden, true Fisher")
    update = evaluate(parse(text), tensors(x, torch.float32), VALUES).dense()
    assert update.dtype is torch.float32
    error = np.linalg.norm(update.numpy() - RULES[text](x))
    assert error < 1e-4 * np.linalg.norm(RULES[text](x))


@pytest.mark.parametrize("text", ["G", "(B + rho*I)**(-1) @ G @ A", "sign(G)", "orth(G)", "W @ A"])
@pytest.mark.parametrize("name", LAYERS)
def test_an_update_is_applied_and_added_as_its_dense_matrix_would_be(text: str, name: str) -> None:
    x = layer(name)
    update = evaluate(parse(text), tensors(x), VALUES)
    dense, weight = update.dense().numpy(), torch.from_numpy(x.W.copy())
    assert_close(update @ torch.from_numpy(x.H), dense @ x.H)
    assert update.add_to_(weight, -0.5) is weight
    assert_close(weight, x.W - 0.5 * dense)
    assert float(update.spectral_norm()) == pytest.approx(np.linalg.norm(dense, 2), rel=1e-10)
    assert float(update.frobenius_norm()) == pytest.approx(np.linalg.norm(dense), rel=1e-10)
    assert float(update.rms()) == pytest.approx(np.sqrt((dense**2).mean()), rel=1e-10)


def as_array(value: LayerValue) -> Array:
    if isinstance(value, Blocks):
        value = value.square()
    return np.atleast_2d(value.dense().numpy())


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("text", RULES)
def test_recorded_sizes_are_those_of_the_node(text: str, name: str) -> None:
    rule, seen = parse(text), dict[Node, LayerValue]()

    def record(node: Node, value: LayerValue) -> None:
        assert node not in seen
        assert all(child in seen for child in node.children), "operands come first"
        seen[node] = value

    evaluate(rule, tensors(layer(name)), VALUES, record=record)
    assert set(seen) == set(rule.expression.walk())
    for node, value in seen.items():
        x, is_curvature = as_array(value), isinstance(value, (Square, Blocks))
        assert is_curvature == (node.shape.is_square and node.shape.rows != "any")
        for measured, expected in (
            (value.spectral_norm(), np.linalg.norm(x, 2)),
            (value.frobenius_norm(), np.linalg.norm(x)),
            (value.rms(), np.sqrt((x**2).mean())),
        ):
            assert float(measured) == pytest.approx(expected, rel=1e-9, abs=1e-13), str(node)


# --- identities ---------------------------------------------------------------------------------


def number(text: str, x: LayerTensors) -> float:
    """A scalar of the language, read off an update of one weight."""
    return float(evaluate(parse(f"G*({text})/norm(G)"), x, VALUES).frobenius_norm())


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(1, 12), st.integers(1, 12), st.integers(1, 12)),
)
def test_norms_and_traces_obey_their_identities(seed: int, shape: tuple[int, int, int]) -> None:
    draw, (fan_in, fan_out, n) = np.random.default_rng(seed).standard_normal, shape
    h, d, w = (torch.from_numpy(draw(s)) for s in ((fan_in, n), (fan_out, n), (fan_out, fan_in)))
    x = LayerTensors(h, d, w)
    same = [
        ("trace(A)", float(h.square().sum()) / n),
        ("trace(L)", number("norm(G)**2", x)),
        ("trace(R)", number("norm(G)**2", x)),
        ("norm(L)", number("norm(R)", x)),
        ("specnorm(L)", number("specnorm(G)**2", x)),
        ("rms(G) * sqrt(fan_in*fan_out)", number("norm(G)", x)),
        ("norm(diag(A))**2 + norm(A - diag(A))**2", number("norm(A)**2", x)),
        ("specnorm(orth(G))", 1.0),
    ]
    for text, expected in same:
        assert number(text, x) == pytest.approx(expected, rel=1e-9), text
    assert number("trace(A)", x) != pytest.approx(2 * float(h.square().sum()) / n, rel=1e-3)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("text", RULES)
def test_cuda_agrees_with_the_cpu(text: str) -> None:
    x = tensors(layer("hidden, true Fisher"))
    on_cuda = LayerTensors(*(y.cuda() for y in (x.H, x.D, x.W, x.fisher) if y is not None))
    update: FactoredUpdate = evaluate(parse(text), on_cuda, VALUES)
    assert_close(update.dense().cpu(), evaluate(parse(text), x, VALUES).dense().numpy(), rtol=1e-9)
