"""Where the rank of the gradient decides: a fixed batch says so, and n ~ M is derived and measured.

The oracle is plain torch: a network d - M - M - 1 by hand, batches of 4 M samples and of 8, SVDs in
float64, and the growth of dW h on samples held out. The learning rate that keeps it is M^-c.
"""

import math
from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import Tensor
from tour import tour
from typer.testing import CliRunner

from scaling.cli.main import app
from scaling.models.batch import Batch, BatchGrowth
from scaling.models.chain import Setting
from scaling.sizes.errors import NotCovered
from scaling.solve.derive import Derived, derive

GROWING = Setting(batch=Batch(growth=BatchGrowth.PROPORTIONAL))
FIXED = "the batch is fixed while the width grows: G has rank O(1)"
WIDTHS = (64, 128, 256)
MARGIN = 0.12
REFUSED = "newton_schulz", "polar_express", "project(", "(-1/4) @ orth(", "**(-1/2) @ orth("
"""Parts that a growing batch refuses, while nothing at a fixed one depends on the rank."""


@cache
def hidden_layer(width: int, samples: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """G, its polar factor, W and the features of samples held out."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*sides: int) -> Tensor:
        return torch.randn(*sides, generator=generator, dtype=torch.float64)

    x = normal(16, samples)
    y = torch.sin(x[:2].sum(0, keepdim=True)) + x[2:3] * x[3:4]
    first, weight, last = normal(width, 16) / 4, normal(width, width) / width**0.5, normal(1, width)
    h = torch.relu(first @ x)
    u = weight @ h
    f = last @ torch.relu(u) / width
    gradient = ((last.T / width * (f - y)) * (u > 0)) @ h.T / samples
    left, sizes, right = torch.linalg.svd(gradient, full_matrices=False)
    polar = (left * (sizes > 1e-13 * sizes[0])) @ right
    return gradient, polar, weight, torch.relu(first @ normal(16, 64))


def by_rows(polar: Tensor) -> Tensor:
    rows = polar.square().mean(1, keepdim=True).sqrt()
    return torch.where(rows > 0, polar / torch.where(rows > 0, rows, 1), 0)


RULES: dict[str, tuple[Callable[[Tensor, Tensor, Tensor], Tensor], str, str]] = {
    "norm(W)/norm(orth(G))*orth(G)": (lambda g, p, w: w.norm() / p.norm() * p, "1/2", "0"),
    "orth(G)/(sqrt(row_mean(orth(G)*orth(G))) + eps)": (lambda g, p, w: by_rows(p), "1", "1/2"),
    "orth(G)/max(1, norm(orth(G))/bound)": (
        lambda g, p, w: p / max(1.0, float(p.norm())), "0", "-1/2",
    ),
    "rms(orth(G))*sign(G)": (lambda g, p, w: p.square().mean().sqrt() * g.sign(), "0", "1/2"),
    "orth(G)": (lambda g, p, w: p, "0", "0"),
    "G/norm(G)": (lambda g, p, w: g / g.norm(), "0", "0"),
}  # fmt: skip


def slope(rule: str, samples: Callable[[int], int]) -> float:
    """The exponent of the RMS of dW h between the outer widths, over three seeds."""
    update = RULES[rule][0]
    logs = []
    for width in (WIDTHS[0], WIDTHS[-1]):
        sizes = []
        for seed in range(3):
            gradient, polar, weight, probe = hidden_layer(width, samples(width), seed)
            moved = update(gradient, polar, weight) @ probe
            sizes.append(math.log(float(moved.square().mean().sqrt())))
        logs.append(sum(sizes) / len(sizes))
    return (logs[1] - logs[0]) / math.log(WIDTHS[-1] / WIDTHS[0])


def c_hidden(rule: str, setting: Setting) -> str:
    return str(derive(rule, setting=setting).exponents.c["hidden"])


@pytest.mark.parametrize("rule", RULES)
def test_c_is_the_growth_of_an_update_at_a_batch_of_four_widths_and_at_a_fixed_one(
    rule: str,
) -> None:
    _, fixed, growing = RULES[rule]
    assert c_hidden(rule, Setting()) == fixed
    assert c_hidden(rule, GROWING) == growing
    found = slope(rule, lambda width: 4 * width)
    assert abs(found - float(eval_fraction(growing))) < MARGIN, found
    if fixed != growing:  # the negative control: each exponent fails at the other batch
        assert abs(found - float(eval_fraction(fixed))) > 0.3
    found = slope(rule, lambda width: 8)
    assert abs(found - float(eval_fraction(fixed))) < MARGIN, found


def eval_fraction(text: str) -> float:
    top, _, bottom = text.partition("/")
    return int(top) / int(bottom or 1)


def lines(found: Derived) -> list[str]:
    return [text for text in found.assumptions if FIXED in text]


def test_the_fixed_batch_is_said_exactly_where_it_decides() -> None:
    for rule, (_, fixed, growing) in RULES.items():
        assert bool(lines(derive(rule))) is (fixed != growing), rule
        assert not lines(derive(rule, setting=GROWING))
    for name, optimizer in tour().items():
        told = bool(lines(derive(optimizer.rule)))
        try:
            other = derive(optimizer.rule, setting=GROWING).exponents
        except NotCovered:
            refused = optimizer.rule.ascents or any(x in str(optimizer.rule) for x in REFUSED)
            assert told or refused, name
            continue
        assert told is (other != derive(optimizer.rule).exponents), name


@pytest.mark.parametrize(("rule", "message"), [
    ("eig(L) @ sign(eig(L).T @ G @ eig(R)) @ eig(R).T", "an eigenbasis, in which the gradient"),
    ("newton_schulz(G, 5)/norm(newton_schulz(G, 5))", "Newton-Schulz, whose steps leave small"),
    ("L**(-1/4) @ G @ R**(-1/4)", "an inverse whose damping is smaller than the eigenvalues"),
    ("sign(orth(G))", "entries of a full-rank polar factor"),
    ("orth(G) + sign(G)", "a sum of a matrix of full rank and another"),
])  # fmt: skip
def test_what_is_not_covered_at_a_growing_batch_is_refused_by_name(rule: str, message: str) -> None:
    derive(rule)
    with pytest.raises(NotCovered, match=message):
        derive(rule, setting=GROWING)


def test_states_that_are_not_covered_are_refused_by_name() -> None:
    with pytest.raises(NotCovered, match="the second step, under a batch that grows"):
        derive("G", setting=GROWING, step=2)
    with pytest.raises(NotCovered, match="sampled cotangents"):
        derive("(B + rho*I)**(-1) @ G", setting=GROWING, sampled_fisher=True)
    with pytest.raises(NotCovered, match="the gradient at moved weights"):
        derive("ascended(radius*G/norm(G))", setting=GROWING)


def test_the_command_line_takes_the_batch_and_does_not_measure_one_that_grows() -> None:
    rule = "norm(W)/norm(orth(G))*orth(G)"
    shown = CliRunner().invoke(app, ["derive", rule]).stdout
    assert f"assumed: {FIXED}" in shown
    shown = CliRunner().invoke(app, ["derive", rule, "--batch", "proportional"]).stdout
    assert "hidden  0  1/2  0" in shown
    assert "assumed: the batch grows in proportion to the width" in shown
    refused = CliRunner().invoke(
        app, ["measure", "muon", "--width", "16", "--batch", "proportional"]
    )
    assert "a measurement of a batch that grows with the width" in str(refused.exception)
