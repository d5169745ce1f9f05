"""Zeros in eigenbases, read as zeros and as floating point has them, against both kinds of numbers.

The oracle for noise is plain torch: eigenvectors of LAPACK, products and signs in float32 and in
float64, in which what is zero off the data's corner is an error. The oracle for exact zeros is the
same corner cut out. Own updates dW h are compared over widths.
"""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch
from sympy import Rational, S
from torch import Tensor
from typer.testing import CliRunner

from scaling.cli.main import app
from scaling.rules.parser import parse
from scaling.sizes.errors import NotCovered
from scaling.solve.derive import derive
from scaling.solve.predict import predict
from scaling.states.problem import Problem

HALF = Rational(1, 2)
X = "eig(L).T @ G @ eig(R)"
SIGN = f"eig(L) @ sign({X}) @ eig(R).T"
QUOTIENT = f"eig(L) @ (X/sqrt(X*X)) @ eig(R).T where X = {X}"
DAMPED = f"eig(L) @ (X/(abs(X) + eps)) @ eig(R).T where X = {X}"
LEFT = "eig(L) @ sign(eig(L).T @ G)"
RIGHT = "sign(G @ eig(R)) @ eig(R).T"
N, FEW, WIDTHS, SEEDS = 4, 5, (48, 384), 4
SIDES = {"input": (False, True), "hidden": (True, True), "output": (True, False)}
"""Whether fan_in and fan_out grow."""


def own(layer: str, width: int, seed: int, dtype: torch.dtype) -> dict[str, float]:
    """|dW h| of the batch by rule, with noise and with exact zeros off the corner."""
    generator = torch.Generator().manual_seed(seed)
    fan_in, fan_out = (width if grows else FEW for grows in SIDES[layer])
    h = torch.randn(fan_in, N, generator=generator, dtype=torch.float64).to(dtype)
    delta = torch.randn(fan_out, N, generator=generator, dtype=torch.float64).to(dtype)
    g = delta @ h.T / N
    q, p = (torch.linalg.eigh(x)[1].flip(1) for x in (g @ g.T, g.T @ g))
    x = q.T @ g @ p
    corner = torch.zeros_like(x)
    corner[:N, :N] = x[:N, :N].sign()
    updates: dict[str, Tensor] = {
        SIGN: q @ x.sign() @ p.T,
        QUOTIENT: q @ torch.where(x == 0, 0, x / (x * x).sqrt()) @ p.T,
        RIGHT: (g @ p).sign() @ p.T,
        LEFT: q @ (q.T @ g).sign(),
        "zeros": q @ corner @ p.T,
    }
    return {name: float((dw @ h).square().mean().sqrt()) for name, dw in updates.items()}


@cache
def slopes(layer: str, dtype: torch.dtype) -> dict[str, float]:
    """Exponents of the own updates over the widths, mean over seeds."""
    low, high = ([own(layer, m, seed, dtype) for seed in range(SEEDS)] for m in WIDTHS)
    span = math.log(WIDTHS[1] / WIDTHS[0]) * SEEDS
    return {
        name: sum(math.log(y[name] / x[name]) for x, y in zip(low, high, strict=True)) / span
        for name in low[0]
    }


def derived(text: str, layer: str, noise: bool) -> float:
    """The exponent of dW h per learning rate, the larger of its two parts."""
    update = derive(parse(text), rounding_noise=noise).updates[layer]
    return float(max(x.width for x in (update.coherent, update.random) if not x.is_zero))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("layer", SIDES)
def test_floating_point_has_what_the_reading_of_noise_says(layer: str, dtype: torch.dtype) -> None:
    found = slopes(layer, dtype)
    for text in (SIGN, QUOTIENT, RIGHT):
        assert abs(found[text] - derived(text, layer, True)) < 0.12, text
    assert abs(found["zeros"] - derived(SIGN, layer, False)) < 0.12
    apart = found[SIGN] - derived(SIGN, layer, False)  # a negative control: the other reading
    assert abs(apart - (0 if layer == "output" else 0.5)) < 0.12


def test_signs_in_a_left_basis_alone_follow_h_which_is_why_they_are_refused() -> None:
    """Independent signs would have M^(1/2)."""
    assert slopes("hidden", torch.float64)[LEFT] > 0.8
    with pytest.raises(NotCovered, match=r"left side alone(.|\n)*write for example eig\(L\) @"):
        derive(parse(LEFT), rounding_noise=True)
    assert derive(parse(LEFT)).exponents.c["hidden"] == HALF


def test_both_readings_of_splus_have_their_rates_and_say_so() -> None:
    exact, noise = (derive(parse(SIGN), rounding_noise=x) for x in (False, True))
    assert exact.exponents.c == {"input": -HALF, "hidden": S.Zero, "output": HALF}
    assert noise.exponents.c == {"input": S.Zero, "hidden": HALF, "output": HALF}
    assert any("exactly zero outside of the corner" in x for x in exact.assumptions)
    assert any("random and of order one" in x for x in noise.assumptions)


def test_a_damping_covers_the_noise_and_one_that_is_zero_does_not() -> None:
    covered = derive(parse(DAMPED), rounding_noise=True)
    assert covered.exponents == derive(parse(DAMPED)).exponents
    assert any("larger than rounding noise" in x for x in covered.assumptions)
    bare = derive(parse(DAMPED.replace("eps", "0")), rounding_noise=True).exponents.c
    assert bare == derive(parse(SIGN), rounding_noise=True).exponents.c
    said = [x for x in derive(parse(QUOTIENT)).assumptions if "rounding noise of random" in x]
    assert len(said) == 1


def test_a_decay_follows_the_rate_that_noise_leaves() -> None:
    """The noise is no multiple of W: the rate without the decay must still see it."""
    both = derive(parse(f"{SIGN} + decay*W"), rounding_noise=True).exponents
    assert both.c == derive(parse(SIGN), rounding_noise=True).exponents.c
    assert all(both.d[name]["decay"] == -both.c[name] for name in SIDES)


def test_noise_of_the_exact_rate_grows_without_bound() -> None:
    exact = derive(parse(SIGN)).exponents
    problem = Problem(parse(SIGN), rounding_noise=True)
    found = predict(problem, exact, problem.bounds({}))
    assert found.layers["hidden"].own == HALF
    zeros = predict(Problem(parse(SIGN)), exact, problem.bounds({}))
    assert zeros.layers["hidden"].own == 0


INVERSES = {
    "B**(-1) @ G @ A**(-1)": r"\(B \+ rho\*I\)\*\*\(-1\) @ G @ \(A \+ rho\*I\)\*\*\(-1\)",
    "L**(-1/4) @ G @ R**(-1/4)": r"\(L \+ rho\*I\)\*\*\(-1/4\) @ G @ \(R \+ rho\*I\)",
}


@pytest.mark.parametrize("text", INVERSES)
def test_an_inverse_of_zeros_is_said_and_as_noise_refused_with_a_damped_rule(text: str) -> None:
    said = [x for x in derive(parse(text)).assumptions if "pseudo-power" in x]
    assert len(said) == 1
    with pytest.raises(NotCovered, match=f"either sign(.|\n)*{INVERSES[text]}"):
        derive(parse(text), rounding_noise=True)
    damped = "(L + rho*I)**(-1/4) @ G @ (R + rho*I)**(-1/4)"
    assert not [x for x in derive(parse(damped)).assumptions if "pseudo-power" in x]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"({SIGN})/specnorm({SIGN})", "specnorm of"),
        (f"sign({SIGN})", "sign of"),
        (f"clip({SIGN}, 1)", "clip of"),
        (f"G/norm(sign({X}))", "counted or cut off"),
        (
            "eig(B) @ (X/sqrt(sample_square(X))) @ eig(A).T where X = eig(B).T @ G @ eig(A)",
            "errors of two matrices",
        ),
    ],
)
def test_what_noise_does_not_determine_is_refused(text: str, message: str) -> None:
    with pytest.raises(NotCovered, match=message):
        derive(parse(text), rounding_noise=True)


def test_the_command_asks_for_either_reading_of_a_chain() -> None:
    ask = CliRunner().invoke
    for verb in ("derive", "predict", "explain"):
        noise = ask(app, [verb, "splus", "--rounding", "noise"])
        assert noise.exit_code == 0
        assert noise.output != ask(app, [verb, "splus", "--rounding", "exact"]).output
    beside = ask(app, ["derive", "splus", "--rounding", "noise", "--model", "docs/small_gpt.py"])
    assert "--rounding beside --model" in str(beside.exception)
