"""Tiny numbers beside a size are dampings; what decides an answer is part of it, and warns."""

import json
import warnings
from collections.abc import Callable

import pytest
import torch
from sympy import Rational
from torch import nn
from typer.testing import CliRunner

from derivations.catalogue import find
from empirical import RuleOptimizer, for_model
from empirical.data.sources import load
from empirical.your_model.model_scales import ModelScales, RegimeWarning
from scaling.cli.main import app
from scaling.rules.parser import parse
from scaling.solve.alternatives import decisive
from scaling.solve.derive import derive

ADAM = "ema(G, 0.9)/(sqrt(ema(G*G, 0.999)) + 1e-8)"
BASE, DATA = 64, load("digits")


def dense(width: int, activation: type[nn.Module] = nn.ReLU) -> nn.Module:
    return nn.Sequential(
        nn.Linear(64, width), activation(), nn.Linear(width, width), activation(),
        nn.Linear(width, 10),
    )  # fmt: skip


def quiet(make: Callable[[], ModelScales]) -> ModelScales:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return make()


def moved_by_torchs_adam(rule: str, width: int) -> float:
    """RMS change of f by one step of torch.optim.Adam, eps = 1e-8, at the rates of `for_model`."""
    scales = for_model(rule, dense(4), dense(8), BASE, width, lr=1e-3)
    torch.manual_seed(width)
    model, at_base = dense(width), (1 / 8, 1 / 8, 1 / 8)
    with torch.no_grad():
        weights = [m for m in model if isinstance(m, nn.Linear)]
        for layer, name, std in zip(weights, ("0", "2", "4"), at_base, strict=True):
            layer.weight.normal_(0, std * scales[f"{name}.weight"].std)
            layer.bias.zero_()
    groups = [{"params": [p], "lr": scales[n].lr} for n, p in model.named_parameters()]
    optimizer = torch.optim.Adam(groups, betas=(0.9, 0.999), eps=1e-8)
    inputs, targets = DATA.inputs.float(), DATA.targets.float()
    before = model(inputs).detach()
    torch.autograd.backward(0.5 * (model(inputs) - targets).square().sum(dim=1).mean())
    optimizer.step()
    return float((model(inputs).detach() - before).square().mean().sqrt())


def test_adam_with_its_eps_written_out_moves_the_output_alike_at_every_width() -> None:
    moved = [moved_by_torchs_adam(ADAM, width) for width in (64, 256, 1024)]
    assert max(moved) < 1.5 * min(moved), moved


def test_rates_that_take_eps_for_a_number_of_order_one_do_not() -> None:
    with pytest.warns(RegimeWarning):  # the negative control: 0.01 is no damping
        moved = [moved_by_torchs_adam(ADAM.replace("1e-8", "0.01"), w) for w in (64, 256, 1024)]
    assert moved[2] > 5 * moved[0], moved


def test_a_literal_has_the_exponents_of_a_damping_and_its_own_value_at_the_base() -> None:
    named = derive(ADAM.replace("1e-8", "eps")).exponents
    written = derive(ADAM).exponents
    assert written.c == named.c == derive(find("adam").rule).exponents.c
    assert {k: d["eps_1"] for k, d in written.d.items()} == {
        k: d["eps"] for k, d in named.d.items()
    }
    scales = quiet(lambda: for_model(ADAM, dense(4), dense(8), BASE, 4 * BASE, lr=1e-3))
    assert scales["2.weight"].lr == pytest.approx(1e-3 / 4)
    assert scales["2.weight"].dampings == pytest.approx({"eps_1": 1e-8 / 4})
    assert scales["4.weight"].dampings == pytest.approx({"eps_1": 1e-8})


@pytest.mark.parametrize(("rule", "found"), [
    ("G @ (A + 1e-4*I)**(-1)", {"eps_1": 1e-4}),
    ("G @ (1e-3*I + A)**(-1)", {"eps_1": 1e-3}),
    ("G/sqrt(ema(G*G, 0.99) + 1e-30)", {"eps_1": 1e-30}),
    ("G/max(norm(G), 1e-12)", {"eps_1": 1e-12}),
    ("G/(norm(G) + 1e-8) + sign(G)/(1e-6 + norm(W))", {"eps_1": 1e-8, "eps_2": 1e-6}),
    ("G/(norm(G) + 1e-8) + sign(G)/(norm(G) + 1e-8)", {"eps_1": 1e-8}),
    ("eps_1*G/(norm(G) + 1e-8)", {"eps_2": 1e-8}),
    ("G/(norm(G) + 0.002)", {}),
    ("G/(1 + 1e-8)", {}),
    ("G + 1e-4*W", {}),
    ("ema(G, 1e-3)", {}),
    ("G @ (A + 1e-4*trace(A)*I)**(-1)", {}),
])  # fmt: skip
def test_literals_beside_a_size_and_no_others_are_dampings(
    rule: str, found: dict[str, float]
) -> None:
    parsed = parse(rule)
    assert {name: float(value) for name, value in parsed.literals.items()} == found
    assert set(found) <= set(parsed.dampings)
    assert parse(str(parsed)) == parsed


def test_the_optimizer_takes_a_literal_as_it_is_written() -> None:
    torch.manual_seed(0)
    model = nn.Linear(5, 3, bias=False).double()
    x, before = torch.randn(4, 5).double(), model.weight.detach().clone()
    optimizer = RuleOptimizer(model, "G/(abs(G) + 1e-3)", 0.1)
    model(x).square().sum().backward()
    gradient = model.weight.grad
    assert gradient is not None
    expected = before - 0.1 * gradient / (gradient.abs() + 1e-3)
    optimizer.step()
    torch.testing.assert_close(model.weight.detach(), expected, rtol=1e-12, atol=1e-14)


def test_assumptions_and_regimes_are_part_of_the_scales_and_printed_with_them() -> None:
    scales = quiet(lambda: for_model(ADAM, dense(4), dense(8), BASE, 128))
    text = " ".join(str(scales).split())  # long lines are wrapped
    for line in (*scales.assumptions, *scales.regimes):
        assert " ".join(line.split()) in " ".join(text.split())
    assert any(x.startswith("the literal 1e-08 is the damping eps_1") for x in scales.assumptions)


def test_the_activation_of_the_model_decides() -> None:
    """Means over h are of order one behind ReLU, and of order M^(-1/2) behind tanh."""
    rule = "sign(G)*sqrt(row_mean(G)*row_mean(G))"
    relu = for_model(rule, dense(4), dense(8), 64, 256)
    tanh = for_model(rule, dense(4, nn.Tanh), dense(8, nn.Tanh), 64, 256)
    odd, even = (x.read.answer.tensors["2.weight"] for x in (tanh, relu))
    assert odd.start.c == even.start.c - Rational(1, 2)
    # what has moved has a mean behind tanh too: the smaller rate is the answer, and both are shown
    assert odd.moved.c == even.moved.c and tanh["2.weight"].lr == relu["2.weight"].lr
    assert "at the start c = -1/2, at moved weights c = 0" in " ".join(str(tanh).split())


def test_a_regime_that_decides_an_exponent_warns_and_another_does_not() -> None:
    with pytest.warns(RegimeWarning, match=r"norm\(W\) dominates \(with 1 alone c = 0, not -1/2"):
        scales = for_model("G/(1 + norm(W))", dense(4), dense(8), 64, 128)
    assert scales.regimes[0] == (
        "regime in 0.weight, 0.bias and 2 others: 1 ~ 1, norm(W) ~ M^(1/2): norm(W) dominates"
    )
    # both terms give one exponent: nothing to warn of
    assert not quiet(lambda: for_model("G + G @ A/trace(A)", dense(4), dense(8), 64, 128)).regimes
    assert decisive(derive("G/(norm(G) + eps)")) == ()


def test_the_command_line_names_the_literal_and_json_has_the_regimes() -> None:
    shown = CliRunner().invoke(app, ["derive", ADAM])
    assert "assumed: the literal 1e-08 is the damping eps_1" in shown.stdout
    for words in (["predict", ADAM], ["compare", ADAM, "adam"]):
        assert "the literal 1e-08 is the damping eps_1" in CliRunner().invoke(app, words).stdout
    payload = json.loads(
        CliRunner().invoke(app, ["derive", "G/(1 + norm(W))", "--format", "json"]).stdout
    )
    assert any(line.endswith("norm(W) dominates") for line in payload["regimes"])
    fixed = CliRunner().invoke(app, ["derive", ADAM, "--set", "d_eps_1=0"]).stdout
    assert "regime in hidden: sqrt(ema(G*G, 999/1000)) ~ M^(-1), 1e-08 ~ 1" in fixed
