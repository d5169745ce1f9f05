"""RuleOptimizer on models whose tensors are no (fan_out, fan_in): beside updates in plain torch.

The oracles are dense float64 updates with Kronecker factors written out by hand (rule_oracles.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from rule_oracles import Expert, Matrix, Packed, Pixels, Raw, Seen, Tapped, Tied
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from empirical import RuleOptimizer

LR = 0.1


def power(x: Tensor, e: float, rho: float) -> Tensor:
    values, vectors = torch.linalg.eigh(x + rho * torch.eye(len(x)))
    return vectors * values**e @ vectors.T


def second(x: Tensor) -> Tensor:
    return x @ x.T / x.shape[1]


def kfac(m: Matrix) -> Tensor:
    return power(second(m.d), -0.5, 0.05) @ m.g @ power(second(m.h), -1, 0.1)


def shampoo(m: Matrix) -> Tensor:
    return power(m.g @ m.g.T, -0.25, 0.01) @ m.g @ power(m.g.T @ m.g, -0.5, 0.02)


def muon(m: Matrix) -> Tensor:
    u, s, v = torch.linalg.svd(m.g, full_matrices=False)
    kept = s > 1e-12 * s[0]
    return (m.g.shape[0] / m.g.shape[1]) ** 0.5 * u[:, kept] @ v[kept]


def soap(m: Matrix) -> Tensor:
    """The first step, all averages at their first value."""
    left, right = (torch.linalg.eigh(x).eigenvectors for x in (m.g @ m.g.T, m.g.T @ m.g))
    x = left.T @ m.g @ right
    return left @ (x / (x.abs() + 0.01)) @ right.T


RULES: dict[str, tuple[str, dict[str, float], Callable[[Matrix], Tensor]]] = {
    "kfac": (
        "(B + rho_B*I)**(-1/2) @ G @ (A + rho_A*I)**(-1)", {"rho_B": 0.05, "rho_A": 0.1}, kfac,
    ),
    "shampoo": (
        "(L + rho_L*I)**(-1/4) @ G @ (R + rho_R*I)**(-1/2)", {"rho_L": 0.01, "rho_R": 0.02}, shampoo
    ),
    "muon": ("sqrt(fan_out/fan_in)*orth(G)", {}, muon),
    "soap": (
        "eig(L) @ (X/(sqrt(X**2) + eps)) @ eig(R).T where X = eig(L).T @ G @ eig(R)",
        {"eps": 0.01}, soap,
    ),
}  # fmt: skip
NUMBERS = {
    Raw: ((5, 4, 3), (5, 4, 2)), Expert: ((3, 6, 4), (3, 6, 2)), Pixels: ((3, 2, 6), (3, 2, 7)),
    Packed: ((5, 3, 4), (5, 3, 4)), Tied: ((7,), (7, 5)),
}  # fmt: skip


def data(build: type[Tapped]) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    x, y = (torch.randn(size) for size in NUMBERS[build])
    return (torch.tensor([0, 3, 3, 1, 4, 0, 3]), y) if build is Tied else (x, y)


@pytest.fixture(autouse=True)
def doubles() -> Any:
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


def stepped(
    model: nn.Module, rule: str, values: dict[str, float], x: Tensor, y: Tensor
) -> dict[str, Tensor]:
    """What one step changes, over minus the learning rate."""
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    optimizer = RuleOptimizer(model, rule, LR, values, batch=(x, y))
    optimizer.zero_grad()
    mse_loss(model(x), y).backward()
    optimizer.step()
    return {n: (before[n] - p.detach()) / LR for n, p in model.named_parameters()}


def by_hand(model: nn.Module, seen: Seen, update: Callable[[Matrix], Tensor]) -> dict[str, Tensor]:
    found = {}
    for name, parameter in model.named_parameters():
        found[name] = torch.zeros_like(parameter)
        for matrix in seen[name]:
            matrix.at(found[name]).copy_(matrix.put(update(matrix)))
    return found


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, x in expected.items():
        scale = float(x.abs().max())
        torch.testing.assert_close(found[name], x, rtol=1e-8, atol=1e-8 * scale, msg=name)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("build", NUMBERS)
def test_a_step_is_that_of_factors_written_by_hand(build: type[Tapped], rule: str) -> None:
    text, values, update = RULES[rule]
    model, (x, y) = build(), data(build)
    expected = by_hand(model, model.seen(x, y), update)
    assert_same(stepped(model, text, values, x, y), expected)


@pytest.mark.parametrize("build", [Raw, Expert, Pixels])
def test_factors_of_the_other_axes_are_another_step(build: type[Tapped]) -> None:
    def turned(matrix: Matrix) -> Tensor:
        other = Matrix(matrix.d, matrix.h, matrix.g.T, matrix.at, matrix.put)
        return kfac(other).T

    text, values, _ = RULES["kfac"]
    model, (x, y) = build(), data(build)
    expected = by_hand(model, model.seen(x, y), turned)
    found = stepped(model, text, values, x, y)
    for name, one in expected.items():
        assert not torch.allclose(found[name], one, rtol=1e-2), name


@pytest.mark.parametrize("rule", ["kfac", "muon"])
def test_a_packed_projection_is_one_matrix_or_three_as_the_recipe_says(rule: str) -> None:
    text, values, update = RULES[rule]
    model, (x, y) = Packed(), data(Packed)
    three = by_hand(model, model.seen(x, y, parts=3), update)
    found = stepped(model, f"*.in_proj_weight: {text} in 3 parts; rest: {text}", values, x, y)
    assert_same(found, three)
    one = by_hand(model, model.seen(x, y), update)
    with pytest.raises(AssertionError):
        assert_same({"mha.in_proj_weight": one["mha.in_proj_weight"]}, {
            "mha.in_proj_weight": three["mha.in_proj_weight"]
        })  # fmt: skip
