"""An L2 penalty within a function of the gradient, beside networks in plain numpy.

The oracle: networks of growing width whose backward pass is written by hand, with the penalty at
M^-d. Its entries keep their share of G + rho W, and own updates have the derived exponents.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from sympy import Rational

from scaling.rules.parser import parse
from scaling.sizes.errors import NotCovered
from scaling.solve.derive import Derived, derive

X = "X/(abs(X) + eps) where X = G + rho*W"
ADAM = "ema(X, b1)/(sqrt(ema(X*X, b2)) + eps) where X = G + rho*W"
SIGN = "sign(G + rho*W)"
LAYERS = ("input", "hidden", "output")
WIDTHS, SEEDS, N, FEATURES, CLASSES = (128, 1024), 3, 4, 6, 3


@cache
def solved(text: str) -> Derived:
    return derive(parse(text))


@cache
def gradients(width: int, seed: int) -> dict[str, tuple[np.ndarray, ...]]:
    """W, G and h of each layer of a ReLU network under its standard start."""
    draw = np.random.default_rng(seed).standard_normal
    h = [draw((FEATURES, N))]
    fans = [(width, FEATURES, 0.0), (width, width, 0.5), (CLASSES, width, 1.0)]
    weights = [draw((rows, cols)) * width**-b for rows, cols, b in fans]
    for w in weights[:-1]:
        h.append(np.maximum(w @ h[-1], 0))
    delta = weights[-1] @ h[-1] - draw((CLASSES, N))
    found = {}
    for i in (2, 1, 0):
        found[LAYERS[i]] = weights[i], delta @ h[i].T / N, h[i]
        delta = (weights[i].T @ delta) * (h[i] > 0)
    return found


def rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(x * x)))


def slope(sizes: dict[int, list[float]]) -> float:
    low, high = (np.mean(np.log(sizes[m])) for m in WIDTHS)
    return float((high - low) / np.log(WIDTHS[1] / WIDTHS[0]))


def measured(layer: str, d_rho: float, d_eps: float | None) -> tuple[float, float]:
    """Exponents of |rho W|/|G| and of dW h, for sign(X) or X/(abs(X) + eps)."""
    shares: dict[int, list[float]] = {m: [] for m in WIDTHS}
    own: dict[int, list[float]] = {m: [] for m in WIDTHS}
    for m in WIDTHS:
        for seed in range(SEEDS):
            w, g, h = gradients(m, seed)[layer]
            x = g + m**-d_rho * w
            update = np.sign(x) if d_eps is None else x / (np.abs(x) + m**-d_eps)
            shares[m].append(m**-d_rho * rms(w) / rms(g))
            own[m].append(rms(update @ h))
    return slope(shares), slope(own)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("text", [SIGN, X])
def test_a_penalty_keeps_its_share_at_the_derived_exponent(text: str, layer: str) -> None:
    x = solved(text).exponents
    d = {name: float(value) for name, value in x.d[layer].items()}
    share, own = measured(layer, d["rho"], d.get("eps"))
    assert abs(share) < 0.1 and abs(own - float(x.c[layer])) < 0.1
    other, _ = measured(layer, d["rho"] + 0.5, d.get("eps"))  # a negative control
    assert abs(other + 0.5) < 0.1


def test_what_overgrows_the_gradient_moves_a_hidden_layer_less() -> None:
    """A second control: at d = 0, as a constant penalty has it, the sign is that of W."""
    _, own = measured("hidden", 0.0, None)
    assert abs(own - 0.5) < 0.1
    assert solved(SIGN).exponents.c["hidden"] == 1


def test_the_penalty_of_adam_is_that_of_a_sign() -> None:
    adam, sign = solved(ADAM).exponents, solved(SIGN).exponents
    assert adam.c == sign.c
    assert {k: x["rho"] for k, x in adam.d.items()} == {k: x["rho"] for k, x in sign.d.items()}
    assert sign.d["hidden"]["rho"] == Rational(1, 2)


@pytest.mark.parametrize(
    ("text", "offer"),
    [
        (ADAM, "ema(G, b1)/(sqrt(ema(G*G, b2)) + eps) + decay*W"),
        ("orth(G + rho*W)", "orth(G) + decay*W"),
        ("norm(W)/norm(G + rho*W)*(G + rho*W)", "norm(W)/norm(G)*G + decay*W"),
        ("(B + rho*I)**(-1) @ G", "(B + rho*I)**(-1) @ G"),
    ],
)
def test_a_decay_in_a_function_is_refused_with_a_rule_that_is_derived(
    text: str, offer: str
) -> None:
    with pytest.raises(NotCovered) as refusal:
        derive(parse(text.replace("rho", "decay")))
    assert refusal.value.do_this == f"write for example {offer}"
    derive(parse(offer))
    derive(parse(text))
