"""Inner products, sums over layers, Newton-Schulz: sizes, numbers, and what is refused.

Oracles: dense float64 matrices; K-FAC's norm bound by hand on a network; Jordan's iteration on a
dense matrix; the exponents of the polar factor and of K-FAC.
"""

from typing import Any

import numpy as np
import pytest
import torch
from sympy import Rational, S
from torch import Tensor, nn

from derivations.catalogue import find
from empirical import RuleOptimizer
from empirical.numbers.algebra import POLAR_EXPRESS
from empirical.numbers.interpreter import evaluate, evaluate_network
from empirical.numbers.layer_matrices import LayerTensors
from empirical.numbers.state import State
from empirical.wide.method import Path, path_of
from scaling.calculus.read import read
from scaling.models.chain import Setting, mlp
from scaling.models.settings import read_settings
from scaling.rules.parser import parse
from scaling.rules.tree import Call
from scaling.sizes.errors import InvalidInput, NotCovered, RuleError
from scaling.solve.derive import derive
from scaling.states.problem import Problem
from scaling.states.start import at_start

LAYERS = ("input", "hidden", "output")


def rates(text: str, *given: str) -> list[Any]:
    rule = parse(text)
    return list(derive(rule, read_settings(given, rule, mlp())).exponents.c.values())


def layer_of(rows: int = 5, columns: int = 7, n: int = 4, seed: int = 0) -> LayerTensors:
    draw = torch.Generator().manual_seed(seed)
    h, d, w = (
        torch.randn(*shape, generator=draw, dtype=torch.float64)
        for shape in ((columns, n), (rows, n), (rows, columns))
    )
    return LayerTensors(h, d, w)


def dense_iteration(x: Tensor, steps: int) -> Tensor:
    """As published, on a dense matrix."""
    x = x / x.norm()
    for _ in range(steps):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x


# --- Newton-Schulz ------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 5])
@pytest.mark.parametrize("x", ["G", "(B + 0.1*I)**(-1) @ G", "sign(G)", "G + 8*W"])
def test_newton_schulz_is_the_dense_iteration(x: str, steps: int) -> None:
    layer = layer_of()
    found = evaluate(parse(f"newton_schulz({x}, {steps})"), layer, {}).dense()
    dense = evaluate(parse(x), layer, {}, dense=True).dense()
    assert torch.allclose(found, dense_iteration(dense, steps), rtol=1e-10, atol=1e-13)
    assert not torch.allclose(found, dense_iteration(dense, steps + 1), rtol=1e-3)


def test_newton_schulz_of_zero_is_zero_and_singular_values_reach_order_one() -> None:
    layer = layer_of()
    nothing = LayerTensors(layer.H, 0 * layer.D, layer.W)
    assert not evaluate(parse("newton_schulz(G, 5)"), nothing, {}).dense().any()
    s = torch.linalg.svdvals(evaluate(parse("newton_schulz(G, 5)"), layer, {}).dense())[:4]
    assert (s > 0.6).all()
    assert (s < 1.3).all()


def test_the_polar_express_equioscillates_about_one_and_is_the_dense_iteration() -> None:
    """Each quintic is the best one on [l, u], or on [0.024 u, u] (arXiv 2505.16932, Section 4)."""
    low, high = 1e-3, 1.0
    for a, b, c in POLAR_EXPRESS:
        s = torch.linspace(max(low, 0.02407327424182761 * high), high, 20_001, dtype=torch.float64)
        values = a * s + b * s**3 + c * s**5
        ends = a * low + b * low**3 + c * low**5, float(values[-1])
        assert 1 - ends[0] == pytest.approx(ends[1] - 1, rel=1e-5)
        assert float(values.max()) <= ends[1] * (1 + 1e-9) and float(values.min()) == values[0]
        low, high = ends[0], 2 - ends[0]
    layer = layer_of()
    x = layer.D @ layer.H.T / layer.H.shape[1]
    core = x / (1.01 * x.norm())
    for a, b, c in POLAR_EXPRESS[:5]:
        gram = core @ core.T / 1.01**2
        core = (a * core + (b * gram + c * gram @ gram) @ core) / 1.01
    found = evaluate(parse("polar_express(G, 5)"), layer, {}).dense()
    assert torch.allclose(found, core, rtol=1e-10, atol=1e-13)
    late = evaluate(parse("polar_express(G, 12)"), layer, {}).dense()
    assert torch.allclose(late, evaluate(parse("orth(G)"), layer, {}).dense(), atol=1e-10)


def test_newton_schulz_has_the_exponents_of_the_polar_factor() -> None:
    assert rates("polar_express(G, 5)") == rates("orth(G)")
    assert rates("newton_schulz(G, 5)") == rates("orth(G)") == [-Rational(1, 2), 0, Rational(1, 2)]
    step = derive(find("muon_ns").rule).steps["hidden"]
    assert any("are of one order" in text for text in step.assumptions())
    factor = np.array([3.4445 - 4.7750 * s**2 + 2.0315 * s**4 for s in np.linspace(0, 1, 1001)])
    assert factor.min() > 0.6  # what the rule of inference rests on: it neither vanishes nor grows
    assert factor.max() <= 3.4445


# --- inner products -----------------------------------------------------------------------------


@pytest.mark.parametrize(("x", "y"), [
    ("G", "G"), ("(B + 0.1*I)**(-1) @ G @ (A + 0.2*I)**(-1)", "G"), ("sign(G)", "sign(G)"),
    ("sign(G)", "G"), ("G.T", "(L @ G).T"),
])  # fmt: skip
def test_an_inner_product_is_that_of_the_entries(x: str, y: str) -> None:
    layer = layer_of()
    found = evaluate(parse(f"inner({x}, {y}) * G"), layer, {}).dense()
    p, q = (evaluate(parse(f"({z}).T" if ".T" in z else z), layer, {}, dense=True).dense()
            for z in (x, y))  # fmt: skip
    g = evaluate(parse("G"), layer, {}, dense=True).dense()
    assert torch.allclose(found, (p * q).sum() * g, rtol=1e-10)
    assert not torch.allclose(found, (p * p.flip(0)).sum() * g, rtol=1e-3)


def scalar(text: str) -> list[Any]:
    """The exponents of a scalar, layer by layer, at b = (0, 1/2, 1)."""
    setting = Setting()
    zero, b = dict.fromkeys(LAYERS, S.Zero), {"input": S.Zero, "hidden": S.Half, "output": S.One}
    problem = Problem(parse(f"{text} * G"), setting)
    contexts = at_start(problem, zero, b).contexts({name: {} for name in LAYERS})
    node = problem.rule.expression.children[0]
    return [read(context, node)[0].main.width for context in contexts.values()]


def test_an_inner_product_has_the_size_of_both_norms() -> None:
    assert scalar("inner(G, G)") == scalar("norm(G)**2") == [-1, 0, 1]
    assert scalar("inner(B**(-1) @ G @ A**(-1), G)") == [0, 0, 0]
    assert scalar("inner((2*B + L)**(-1/2) @ ema(G, 0.9)*trace(A), G)") == scalar(
        "norm((2*B + L)**(-1/2) @ G*trace(A))*norm(G)"
    )


@pytest.mark.parametrize(("text", "why"), [
    ("inner(sign(G), orth(G))", "may be orthogonal"), ("inner(A @ G.T, G.T)", "may be orthogonal"),
    ("inner(B @ L @ G, G)", "may be orthogonal"), ("inner(G + W, G)", "a sum of W"),
    ("inner((norm(G) - 1)*G, G)", "may be orthogonal"), ("inner(-G, G)", "may be orthogonal"),
    ("over_layers(norm(G) - 1)", "may cancel"),
])  # fmt: skip
def test_what_may_cancel_is_refused(text: str, why: str) -> None:
    with pytest.raises(NotCovered, match=why):
        rates(f"{text} * G")


@pytest.mark.parametrize(("text", "why"), [
    ("inner(G)", "inner with 1 argument"), ("inner(G, G.T)", "of the shape of the first"),
    ("inner(A, A)", "of a fan_in x fan_in"), ("inner(norm(G), G)", "of a scalar"),
    ("over_layers(G)", "of a fan_out x fan_in"), ("over_layers(1, 2)", "with 2 arguments"),
    ("newton_schulz(G)", "with 1 argument"), ("newton_schulz(G, 1/2)", r"newton_schulz\(G, 1/2\)"),
    ("newton_schulz(G, 0)", "a positive whole number"),
    ("newton_schulz(G, n)", r"newton_schulz\(G, n\)"),
    ("newton_schulz(A, 5)", "of a fan_in x fan_in"),
])  # fmt: skip
def test_wrong_arguments_are_refused_by_name(text: str, why: str) -> None:
    with pytest.raises(RuleError, match=why):
        parse(f"{text} * G")


# --- sums over layers ---------------------------------------------------------------------------


def test_the_largest_layer_sets_a_sum_over_layers() -> None:
    assert scalar("over_layers(inner(G, G))") == [1, 1, 1]
    assert scalar("over_layers(over_layers(norm(G))*rms(G))") == [S.Half] * 3
    c = rates("G / sqrt(over_layers(inner(G, G)))")
    assert c == [x - S.Half for x in rates("G")]


def test_a_layer_read_alone_has_no_sum_over_layers() -> None:
    setting = Setting()
    zero = dict.fromkeys(LAYERS, S.Zero)
    problem = Problem(parse("over_layers(norm(G)) * G"), setting)
    context = at_start(problem, zero, zero).context(setting.layer("hidden"), {})
    with pytest.raises(NotCovered, match="of which one is read alone"):
        read(context, problem.rule.expression)
    with pytest.raises(InvalidInput, match="a sum over layers, evaluated on one layer alone"):
        evaluate(problem.rule, layer_of(), {})
    assert path_of(problem.rule) is Path.CORE
    assert path_of(parse("inner(G, G)*newton_schulz(G, 5)")) is Path.CORE


def test_the_bound_of_kfac_keeps_its_exponents_and_binds_where_it_is_less() -> None:
    found, plain = derive(find("kfac_clipped").rule), rates("B**(-1) @ G @ A**(-1)")
    assert list(found.exponents.c.values()) == plain == [0, 0, 0]
    one = "A**(-1/2)"  # a power for which <U, G> grows in the output layer: all layers slow down
    update = f"B**(-1) @ G @ {one}"
    slower = rates(f"{update} / max(1, sqrt(over_layers(inner({update}, G))))")
    assert slower == [x - Rational(1, 4) for x in rates(update)]


def two_layers() -> tuple[dict[str, LayerTensors], dict[str, dict[str, float]]]:
    layers = {"a": layer_of(), "b": layer_of(3, 5, seed=1)}
    return layers, {
        "a": {"rho_A": 0.1, "rho_B": 0.2, "bound": 0.5},
        "b": {"rho_A": 0.3, "rho_B": 0.4, "bound": 2.0},
    }


@pytest.mark.parametrize("every", [True, False])
def test_the_bound_of_kfac_is_the_one_by_hand(every: bool) -> None:
    layers, values = two_layers()
    found = evaluate_network(find("kfac_clipped").rule, layers, values)
    updates, inner = {}, {}
    for name, x in layers.items():
        n, (fan_out, fan_in) = x.H.shape[1], x.W.shape
        g = x.D @ x.H.T / n
        b = x.D @ x.D.T / n + values[name]["rho_B"] * torch.eye(fan_out).double()
        a = x.H @ x.H.T / n + values[name]["rho_A"] * torch.eye(fan_in).double()
        updates[name] = torch.linalg.inv(b) @ g @ torch.linalg.inv(a)
        inner[name] = (updates[name] * g).sum()
    for name, u in updates.items():
        total = sum(inner.values()) if every else inner[name]
        nu = min(1.0, values[name]["bound"] / float(total) ** 0.5)
        assert torch.allclose(found[name].dense(), nu * u, rtol=1e-10) is every or nu == 1.0


def test_sums_within_sums_and_averages_move_once() -> None:
    layers, values = two_layers()
    rule = parse("G * over_layers(norm(ema(G, 0.5)) * over_layers(rms(G)))")
    states = {name: State() for name in layers}
    g = {name: x.D @ x.H.T / 4 for name, x in layers.items()}
    inner = sum(float(x.square().mean().sqrt()) for x in g.values())
    for share in (0.5, 0.75):  # of the average, in its first and second step
        found = evaluate_network(rule, layers, values, states)
        total = sum(share * float(x.norm()) * inner for x in g.values())
        for name, x in g.items():
            assert torch.allclose(found[name].dense(), total * x, rtol=1e-10), share


def test_an_optimizer_sums_over_the_layers_that_took_part() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)).double()
    before = [p.detach().clone() for p in model.parameters()]
    rule = parse("G / sqrt(over_layers(inner(G, G)))")
    optimizer = RuleOptimizer(model, rule, lr=0.1)
    model(torch.randn(5, 4, dtype=torch.float64)).square().mean().backward()
    optimizer.step()
    moved = torch.cat([(p - q).flatten() for p, q in zip(model.parameters(), before, strict=True)])
    assert float(moved.detach().norm()) == pytest.approx(0.1, rel=1e-12)
    values = {"0": {"rho_A": 1.0, "rho_B": 1.0}}
    with pytest.raises(InvalidInput, match="in layer '0': no value for 'bound'"):
        evaluate_network(find("kfac_clipped").rule, {"0": layer_of()}, values)


def test_the_calls_are_found_operands_first() -> None:
    rule = parse("G * over_layers(norm(G) * over_layers(rms(G)))")
    assert [str(x) for x in rule.sums_over_layers] == [
        "over_layers(rms(G))", "over_layers(norm(G)*over_layers(rms(G)))",
    ]  # fmt: skip
    assert all(isinstance(x, Call) for x in rule.sums_over_layers)
    assert rule.averages == ()
    assert parse("clip(ema(G, beta), bound)").averages == ("beta",)
