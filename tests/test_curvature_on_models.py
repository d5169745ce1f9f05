"""K-FAC, Shampoo, SOAP and Muon on a GPT, a CNN and a mixture: own products as the graph foretells.

The factors of each use (sums over positions, experts apart, packed projections) are those that
tests/test_rule_optimizer.py holds against factors written by hand. Four of the twelve pairs are
measured; EVERY_RULE=1 in the environment measures all.
"""

import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from model_files import zoo
from sympy import Rational, S
from test_trace import file_of
from torch import Tensor, nn

from derivations.catalogue import find
from empirical.trace.execute import in_double
from empirical.trace.given_model import model_of
from empirical.trace.model_file import ModelFile, read_model
from empirical.trace.read_model import graph_of
from empirical.verify.graph_verification import GraphVerification, own_product, verify_graph
from scaling.models.settings import Settings
from scaling.solve.graph_solution import GraphDerived, derive_graph

EXPONENTS = {
    "kfac": {"e_A": S.One, "e_B": S.One},
    "shampoo": {"e": Rational(1, 2)},
    "soap": {},
    "muon": {},
}
SMALL_GPT = Path(__file__).resolve().parent.parent / "docs" / "small_gpt.py"


class Convolutions(nn.Module):
    """An image read by dense and by depthwise kernels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.read = nn.Conv2d(3, width, 3, padding=1)
        self.dense = nn.Conv2d(width, width, 3, padding=1)
        self.deep = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.dense(torch.relu(self.read(x))))
        y: Tensor = self.head(torch.relu(self.deep(x)).mean((2, 3)))
        return y


@cache
def model(name: str) -> ModelFile:
    if name == "gpt":
        return read_model(str(SMALL_GPT))
    if name == "mixture":
        return file_of("mixture")
    return model_of(lambda width: Convolutions(width), lambda: zoo.images(side=6))


@cache
def measured(name: str, rule: str) -> GraphVerification:
    given = Settings(exponents=EXPONENTS[rule])
    return verify_graph(find(rule).rule, model(name), "width=32,64,128", given, seeds=(0, 1, 2))


MARGIN = 0.35
"""Of slopes over three sizes. Rates are wrong by halves or more where factors are mistaken."""


SAMPLE = [("gpt", "kfac"), ("cnn", "shampoo"), ("mixture", "soap"), ("gpt", "muon")]
EVERY = [(name, rule) for name in ("gpt", "cnn", "mixture") for rule in EXPONENTS]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "rule"), EVERY if os.environ.get("EVERY_RULE") else SAMPLE)
def test_own_products_move_as_foretold(name: str, rule: str) -> None:
    own = [check for check in measured(name, rule).checks if check.quantity == "own"]
    assert len(own) >= {"gpt": 9, "cnn": 8, "mixture": 4}[name]
    wrong = {}
    for check in own:
        off = check.fit.slope - float(check.predicted)
        if off > MARGIN or (off < -MARGIN and not check.at_most):
            wrong[check.name] = (str(check.predicted), check.fit.slope)
    assert not wrong


@pytest.mark.slow
def test_the_rates_of_adam_are_not_those_of_soap_on_a_mixture() -> None:
    """The negative control: by one exponent for all, own products of tables and matrices differ."""
    found = measured("mixture", "soap")
    slopes = {c.name: c.fit.slope for c in found.checks if c.quantity == "own"}
    adam = derive_graph("sign(G)", graph_of(model("mixture"), "width=32,64,128").graph).tensors
    at_adams = {k: x + float(found.answer.tensors[k].c - adam[k].c) for k, x in slopes.items()}
    assert min(abs(at_adams[k]) for k in ("up", "down", "embed.weight")) > MARGIN


# --- the router, whose gradient is smaller at the start than later --------------------------------


def router_change(answer: GraphDerived, rule: str, damping: float, width: int, seed: int) -> float:
    """RMS of the change of the router's own product by factors written out, in plain torch."""
    torch.manual_seed(seed)
    net = zoo.mixture(width).double()
    with torch.no_grad():
        for name, p in net.named_parameters():
            p.copy_(torch.randn_like(p) * width ** -float(answer.tensors[name].b))
    seen: list[Tensor] = []
    net.router.register_forward_hook(lambda _, inputs, output: seen.extend((inputs[0], output)))
    ids, targets = zoo.text()
    with in_double(seed):
        loss = nn.functional.cross_entropy(net(ids).flatten(0, 1), targets.flatten())
    (cotangent,) = torch.autograd.grad(loss, [seen[1]])
    h, d = (x.detach().flatten(0, 1) for x in (seen[0], cotangent))
    n = len(h)
    d = n * d
    x = answer.tensors["router.weight"]
    base = 32.0

    def damped(factor: Tensor, symbol: str, size: float) -> Tensor:
        """A factor and its damping, which is so many times that of the factor at the base."""
        rho = damping * size * (width / base) ** -float(x.d[symbol])
        return factor + rho * torch.eye(len(factor), dtype=factor.dtype)

    def power(matrix: Tensor, exponent: float) -> Tensor:
        values, vectors = torch.linalg.eigh(matrix)
        return vectors @ torch.diag(values.clamp(min=1e-300) ** exponent) @ vectors.T

    g = d.T @ h / n
    if rule == "kfac":
        a, b = h.T @ h / n, d.T @ d / n
        update = (
            power(damped(b, "rho_B", SIZES_AT_BASE["B"]), -1)
            @ g
            @ power(damped(a, "rho_A", SIZES_AT_BASE["A"]), -1)
        )
    else:
        left, right = g @ g.T, g.T @ g
        size = SIZES_AT_BASE["L"]
        update = power(damped(left, "rho_L", size), -0.25) @ g
        update = update @ power(damped(right, "rho_R", size), -0.25)
    return float((h @ update.T).square().mean().sqrt()) * width ** -float(x.c)


SIZES_AT_BASE = {"A": 4.0, "B": 0.02, "L": 0.01}
"""About the largest eigenvalues at width 32."""


@pytest.mark.parametrize("rule", ["kfac", "shampoo"])
def test_a_router_moves_at_first_by_how_much_its_damping_is_felt(rule: str) -> None:
    """Its damping is that of later steps: felt in full, or not at all, or in between, it bounds."""
    graph = graph_of(model("mixture"), "width=32,64,128").graph
    answer = derive_graph(find(rule).rule, graph, Settings(exponents=EXPONENTS[rule]))
    x = answer.tensors["router.weight"]
    widths, found = (32, 128, 512), dict[float, float]()
    for damping in (100.0, 1e-2, 1e-6):
        rows = [
            [router_change(answer, rule, damping, n, seed) for seed in range(4)] for n in widths
        ]
        found[damping] = np.polyfit(np.log(widths), np.log(rows).mean(1), 1)[0]
    felt, not_felt = (float(own - x.c) for own in (x.start.own, x.start.followed))
    assert (felt, not_felt) == {"kfac": (-0.5, 0.5), "shampoo": (-0.5, 0.0)}[rule]
    assert abs(found[100.0] - felt) < 0.2 and abs(found[1e-6] - not_felt) < 0.2
    assert felt - 0.2 < found[1e-2] < not_felt + 0.2
    exponent, bound = own_product(x) or (None, False)
    assert bound and float(exponent) == not_felt
