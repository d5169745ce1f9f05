"""The simulator is worth what torch's own gradients and dense matrices say."""

import numpy as np
import pytest
import torch
from revealed_weights import Revealed
from simulator import ACTIVATIONS, Net, Own, exponents, own
from simulator import _data as data
from simulator import _weights as weights

DOUBLE = torch.float64
RULES = {
    "G": lambda g, a, b, w: g,
    "(B + rho*I)**(-1/2) @ sign(G) @ (2*A + rho*trace(A)*I)**(-1)": lambda g, a, b, w: (
        _power(b + _eye(b), -0.5) @ g.sign() @ _power(2 * a + a.trace() * _eye(a), -1)
    ),
    "orth(G) - G/norm(G) + rho*W": lambda g, a, b, w: _polar(g) - g / g.norm() + w,
    "(L + rho*norm(L)*I)**(-1) @ G @ diag(A) + G @ G.T @ G": lambda g, a, b, w: (
        _power(g @ g.T + (g @ g.T).norm() * _eye(b), -1) @ g @ a.diag().diag() + g @ g.T @ g
    ),
    "G/sqrt(row_mean(G*G) + rho) - inner(G, W)*row_mean(abs(G))": lambda g, a, b, w: (
        g / ((g * g).mean(1, keepdim=True) + 1).sqrt()
        - (g * w).sum() * g.abs().mean(1, keepdim=True)
    ),
}


def _eye(x: torch.Tensor) -> torch.Tensor:
    return torch.eye(len(x), dtype=DOUBLE)


def _power(x: torch.Tensor, p: float) -> torch.Tensor:
    s, q = torch.linalg.eigh(x)
    return (q * s**p) @ q.T


def _polar(x: torch.Tensor) -> torch.Tensor:
    u, s, v = torch.linalg.svd(x, full_matrices=False)
    live = s > 1e-10 * s.max()
    return u[:, live] @ v[live]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_one_step_is_what_torch_makes_of_it(rule: str, loss: str, activation: str) -> None:
    net = Net(labels=(0, 1, 1, 2), classes=5, features=7, activation=activation, loss=loss)
    width = 32
    sides = tuple(net.sides(width))
    scale = np.array([7**-0.5, width**-0.5 * 2**-0.0, 0.25 * 64**-0.5 * (width / 64) ** -1])
    scale[1] = 64**-0.5 * (width / 64) ** -0.5
    ws = [
        torch.tensor(s * x, requires_grad=True)
        for s, x in zip(scale, weights(sides, 3), strict=True)
    ]
    x, y, held = (torch.tensor(z) for z in data(net.labels, 5, 7, net.probe))
    phi = {
        "relu": torch.relu, "tanh": torch.tanh, "erf": torch.erf,
        "gelu": torch.nn.functional.gelu, "linear": lambda u: u,
    }[activation]  # fmt: skip

    def forward(z: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        hs, us = [], []
        for w in ws:
            hs.append(z)
            us.append(w @ z)
            z = phi(us[-1])
        return hs, us

    hs, us = forward(x)
    squares = 0.5 * (us[-1] - y).square().sum()
    entropy = -(y * torch.log_softmax(us[-1], 0)).sum()
    deltas = torch.autograd.grad(squares if loss == "mse" else entropy, us)
    probes, _ = forward(held)
    found: Own = own(rule, net, width, 3)
    for position, (w, h, d) in enumerate(zip(ws, hs, deltas, strict=True)):
        n = h.shape[1]
        update = RULES[rule](d @ h.T / n, h @ h.T / n, d @ d.T / n, w)
        for size, z in ((found.batch, h), (found.held, probes[position])):
            expected = float((update @ z).detach().square().mean().sqrt())
            assert size[position] == pytest.approx(expected, rel=1e-5)


def test_the_second_step_stands_on_moved_weights_and_averages_two_gradients() -> None:
    net = Net(labels=(0, 1, 2), classes=3, features=5, rates=(0.1, 0.2, 0.3), depth=3)
    still = Net(labels=(0, 1, 2), classes=3, features=5, rates=(0.0, 0.0, 0.0), depth=3)
    again = own("ema(G, 0.75) / 0.25", still, 32, 0, step=2)
    assert again.held == (0.0, 0.0, 0.0)
    one, two, both = (own(rule, net, 32, 0, step) for rule, step in
                      (("G", 1), ("G", 2), ("4*ema(G, 0.75)", 2)))  # fmt: skip
    assert all(x != y for x, y in zip(one.held, two.held, strict=True))
    assert all(z < 0.75 * x + y + 1 for x, y, z in zip(one.held, two.held, both.held, strict=True))


def test_the_known_exponents_of_gradient_descent_are_measured() -> None:
    found = exponents("G", Net(b=(0, 0.5, 1), c=(-1, 0, 1)), widths=(256, 512, 1024, 2048), seeds=3)
    assert all(abs(x.exponent) < 0.1 for x in found.values())
    wrong = exponents("G", Net(b=(0, 0.5, 1), c=(0, 0, 0)), widths=(256, 512, 1024, 2048), seeds=3)
    assert [round(x.exponent) for x in wrong.values()] == [-1, 0, 1]


def test_revealed_weights_are_one_matrix() -> None:
    """Both ways, whatever was asked before; entries are N(0, 1), and other draws are others."""
    draw = np.random.default_rng(0)
    w, other = (Revealed(400, np.random.default_rng(seed)) for seed in (1, 2))
    x, d = draw.standard_normal((400, 5)), draw.standard_normal((400, 4))
    up = w @ x
    down = w.T @ d
    more = w @ np.hstack([x @ np.ones((5, 1)), draw.standard_normal((400, 60))])
    assert d.T @ up == pytest.approx((down.T @ x), rel=1e-9)
    assert more[:, 0] == pytest.approx(up.sum(1), rel=1e-9)
    assert d.T @ (w @ x) != pytest.approx((other.T @ d).T @ x, rel=1e-2)
    alone = more[:, 1:] / 20  # 60 fresh vectors of length sqrt(400)
    assert np.mean(alone**2) == pytest.approx(1, abs=0.06)
    assert alone.T @ alone / 400 == pytest.approx(np.eye(60), abs=0.4)


@pytest.mark.parametrize("step", [1, 2])
def test_networks_of_revealed_weights_have_the_same_law(
    step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = "G @ (diag(A) + rho*I)**(-1/4) @ (A + rho*I)**(-1/2) * norm(W)"
    net = Net(activation="tanh", c=(0.0, 0.0, 1.0), rates=(0.1, 0.1, 0.01))

    def sizes(seeds: range) -> np.ndarray:
        return np.log([own(rule, net, 256, seed, step).held for seed in seeds])

    drawn = sizes(range(24))
    monkeypatch.setattr("simulator.DRAWN", 64)
    revealed = sizes(range(100, 124))
    error = np.sqrt((drawn.var(0) + revealed.var(0)) / 24)
    assert (np.abs(drawn.mean(0) - revealed.mean(0)) < 4 * error).all()
    assert (error < 0.1).all()
    assert np.isnan(own("sign(G)", net, 256, 0).held[1])  # M x M entries are not read
