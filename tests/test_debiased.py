"""Averages divided by the sum of their weights: Adam as torch runs it, H-Fac as it is written."""

import math

import pytest
import torch
from dense_layers import assert_close, layer, tensors
from torch import Tensor
from torch.nn.functional import cross_entropy

from derivations.catalogue import find
from empirical import RuleOptimizer
from empirical.measure.parametrize import draw_
from empirical.networks import MLP
from empirical.numbers.interpreter import evaluate
from empirical.numbers.state import State
from scaling.rules.parser import parse

STEPS = 4


def network() -> MLP:
    model = MLP(features=6, width=9, classes=3, activation="tanh")
    for i, tensor in enumerate(model.parameters()):
        draw_(tensor, 0.7, seed=3, width=9, index=i)
    return model


def data() -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(2)
    x = torch.randn(5, 6, generator=draw, dtype=torch.float64)
    return x, torch.tensor([0, 1, 2, 1, 0])


def train(model: MLP, optimizer: torch.optim.Optimizer, steps: int = STEPS) -> list[Tensor]:
    """The weights after every step, as one vector each."""
    x, y = data()
    found = []
    for _ in range(steps):
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        optimizer.step()
        found.append(torch.cat([p.detach().flatten() for p in model.parameters()]).clone())
    return found


def by_rule(name: str, **values: float) -> list[Tensor]:
    model, optimizer = network(), find(name)
    return train(model, RuleOptimizer(model, optimizer.rule, 0.01, {**optimizer.values, **values}))


def test_adam_with_bias_correction_is_torchs_adam_at_every_step() -> None:
    model = network()
    theirs = train(model, torch.optim.Adam(model.parameters(), lr=0.01, eps=1e-3))
    for ours, expected in zip(by_rule("adam_debiased", eps=1e-3), theirs, strict=True):
        assert_close(ours, expected.numpy(), 1e-9)
    plain = by_rule("adam", eps=1e-3)
    with pytest.raises(AssertionError, match="Not equal"):
        assert_close(plain[0], theirs[0].numpy(), 1e-9)


class HFac(torch.optim.Optimizer):
    """H-Fac in plain torch, line by line; ``late``: the first momentum's decay is not corrected."""

    def __init__(self, model: MLP, lr: float, eps: float, late: bool = False) -> None:
        super().__init__(model.parameters(), {"lr": lr})
        self.eps, self.late, self.t = eps, late, 0

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        self.t += 1
        b1, b2 = (b * (1 - b ** (self.t - 1)) / (1 - b**self.t) for b in (0.9, 0.999))
        b1 = 0.9 if self.late else b1
        for x in self.param_groups[0]["params"]:
            g, s = x.grad, self.state[x]
            m, n = g.shape
            one_m, one_n = torch.ones(m, 1).double(), torch.ones(n, 1).double()
            old_u, old_v = s.get("u", 0 * one_m), s.get("v", 0 * one_n)
            s["u"] = b1 * old_u + (1 - b1) * g @ one_n / n
            s["v"] = b1 * old_v + (1 - b1) * g.T @ one_m / m
            s["r"] = b2 * s.get("r", 0) + (1 - b2) * (g * g + self.eps) @ one_n
            s["s"] = b2 * s.get("s", 0) + (1 - b2) * (g * g + self.eps).T @ one_m
            v_hat = s["r"] @ s["s"].T / (one_m.T @ s["r"])
            phi = b1 * (old_u @ one_n.T - g @ one_n @ one_n.T / n) / (s["r"] @ one_n.T / n).sqrt()
            psi = b1 * (one_m @ old_v.T - one_m @ one_m.T @ g / m) / (one_m @ s["s"].T / m).sqrt()
            u = g / v_hat.sqrt()
            clipped = u / max(1.0, float(u.square().mean().sqrt()))
            s["rank one"] = float((phi + psi).abs().max())
            x -= self.param_groups[0]["lr"] * ((phi + psi) / 2 + clipped)


def test_h_fac_is_what_its_formulas_say_at_every_step() -> None:
    model = network()
    optimizer = HFac(model, 0.01, 1e-3)
    theirs = train(model, optimizer, 1)
    assert {s["rank one"] for s in optimizer.state.values()} == {0.0}
    theirs += train(model, optimizer, STEPS - 1)
    assert min(s["rank one"] for s in optimizer.state.values()) > 0.01
    for ours, expected in zip(by_rule("h_fac", eps=1e-3), theirs, strict=True):
        assert_close(ours, expected.numpy(), 1e-9)
    other = network()
    wrong = train(other, HFac(other, 0.01, 1e-3, late=True))
    for ours, expected in zip(by_rule("h_fac", eps=1e-3), wrong, strict=True):
        with pytest.raises(AssertionError, match="Not equal"):
            assert_close(ours, expected.numpy(), 1e-9)


ZERO = [
    "debiased(G, 0.9) - G", "debiased(row_mean(G), 0.9) - row_mean(G) + 0*G",
    "sqrt(debiased(G*G, 0.9)) - sqrt(G*G)", "debiased(orth(G), 0.9) - orth(G)",
    "G*(debiased(norm(G), 0.9) - norm(G))",
]  # fmt: skip


@pytest.mark.parametrize("text", ZERO)
def test_a_difference_that_vanishes_at_the_first_step_is_exactly_zero_there(text: str) -> None:
    rule, state = parse(text), State()
    first = evaluate(rule, tensors(layer("hidden", 0)), {}, state).dense()
    assert bool((first == 0).all())
    then = evaluate(rule, tensors(layer("hidden", 1)), {}, state).dense()
    assert float(then.abs().max()) > 1e-3


def test_its_weights_add_up_to_one_and_are_saved_and_loaded() -> None:
    beta, state, xs = 0.8, State(), [layer("hidden", seed) for seed in range(STEPS)]
    for t, x in enumerate(xs, start=1):
        found = evaluate(parse("debiased(G, beta)"), tensors(x), {"beta": beta}, state).dense()
        weights = [beta ** (t - s) for s in range(1, t + 1)]
        expected = sum(w * y.G for w, y in zip(weights, xs, strict=False)) / math.fsum(weights)
        assert_close(found, expected)
        state = State.unpack(state.pack())
    assert state.counts == {"debiased(G, beta)": STEPS}
