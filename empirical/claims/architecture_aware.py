"""Group 13: depth, kernels and graphs of layers without residuals, under SGD (arXiv 2402.17440).

"Principled Architecture-aware Scaling of Hyperparameters" draws weights with std =
gain/sqrt(fan_in x in-degree) and takes a learning rate proportional to (sum over paths from the
input to the output of L_p^3)^(-1/2), L_p the number of layers on a path, times 3/side for kernels
of side x side (its code).

Measured.  The response: the change of the last pre-activations z per unit of the rate, in float64,
for one sample and f = v . relu(z) / n,

    dz = - sum over hidden layers l of (dz/dW_l) . (df/dW_l)

which is a derivative along the gradient (`torch.func.jvp`), so that no rate has to be chosen. The
largest rate that keeps dz of order one is 1/response. Several samples would add a growth that is
none of the depth's, as their hidden states become alike.

    13a   a chain of L hidden layers: response ~ L^(3/2), derived from the graph: L terms, and
          products of random matrices another sqrt(L) (states/critical_chain.py)
    13b   kernels: response ~ side^2, derived from the graph: a sum over side x side x channels
    13c   the same numbers against the paper's side^1
    13d   a graph of layers: response ~ (sum of L_p^3)^(1/2), on random graphs of five nodes

Not covered: pooling between layers, several samples, other rules than SGD.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache, partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from sympy import Expr, Rational, S
from torch import Tensor, nn
from torch.nn import functional

from empirical.claims.claim import Claim, Evidence, Finding, Group
from empirical.claims.environment import Environment, Tier
from empirical.claims.exponents import curve, interval, judged, signed
from empirical.claims.figures import Curve, Figure
from empirical.fit.exponent import estimate
from empirical.fit.verdict import Verdict
from empirical.measure.machine import blas_threads
from empirical.trace.model_file import ModelFile
from empirical.trace.read_model import graph_of
from scaling.models.architectures import plain
from scaling.solve.graph_solution import derive_graph

SOURCE = "arXiv 2402.17440"
MARGIN, PROPORTIONAL = 0.2, 0.1
FEATURES = 16
DECAY = 1.0
"""Corrections are of relative order 1/L and 1/side: the next term of a sum of powers."""
DEPTHS = {Tier.ci: (2, 4, 8, 16), Tier.desk: (2, 4, 8, 16, 32)}
WIDTH = {Tier.ci: 256, Tier.desk: 1024}
SEEDS = {Tier.ci: 64, Tier.desk: 128}
SIDES = (3, 5, 7, 9)
CHANNELS, IMAGE = 64, 12
NODES, GRAPHS, GRAPH_WIDTH = 5, 24, 128
EDGES = tuple(combinations(range(NODES), 2))

Edges = tuple[tuple[int, int], ...]
Forward = Callable[[dict[str, Tensor]], Tensor]
Weights = dict[str, Tensor]


def response(forward: Forward, weights: Weights, readout: Callable[[Tensor], Tensor]) -> float:
    """RMS of d(forward)/dW . df/dW, f = readout(forward), all weights together."""
    gradient = torch.func.grad(lambda w: readout(forward(w)))(weights)
    moved = torch.func.jvp(forward, (weights,), (gradient,))[1]
    return float(moved.square().mean().sqrt())


def _mean_field(width: int, draw: Callable[..., Tensor]) -> Callable[[Tensor], Tensor]:
    v = draw(width) / width

    def readout(z: Tensor) -> Tensor:
        features = functional.relu(z)
        return (features.mean((2, 3)) if z.ndim == 4 else features).squeeze(0) @ v

    return readout


def _drawing(seed: int) -> Callable[..., Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return partial(torch.randn, generator=generator, dtype=torch.float64)


# --- a chain -----------------------------------------------------------------------------------


@cache
def derived_depth() -> Expr:
    """The exponent of the response in the depth of a chain: SGD's c, derived from the graph."""
    return derive_graph("G", plain()).tensors["blocks.0"].c


def chain_response(width: int, depth: int, seed: int) -> float:
    """Of ``depth`` hidden layers of ReLU, above an input layer that stays."""
    draw = _drawing(seed)
    first = draw(1, FEATURES) @ draw(FEATURES, width) / math.sqrt(FEATURES)
    weights = {str(k): draw(width, width) * math.sqrt(2 / width) for k in range(depth)}

    def forward(w: Weights) -> Tensor:
        z = first
        for matrix in w.values():
            z = functional.relu(z) @ matrix.T
        return z

    return response(forward, weights, _mean_field(width, draw))


# --- kernels -----------------------------------------------------------------------------------


def kernel_response(side: int, seed: int) -> float:
    """Of a convolution of side x side, circular, between ``CHANNELS`` channels."""
    draw = _drawing(seed)
    image = draw(1, CHANNELS, IMAGE, IMAGE)
    weights = {"kernel": draw(CHANNELS, CHANNELS, side, side) * math.sqrt(2 / CHANNELS) / side}
    around = (side // 2,) * 4

    def forward(w: Weights) -> Tensor:
        padded = functional.pad(functional.relu(image), around, mode="circular")
        return functional.conv2d(padded, w["kernel"])

    return response(forward, weights, _mean_field(CHANNELS, draw))


def convolution(side: int = 3) -> nn.Module:
    """The network of `kernel_response`, for the graph."""
    kernel = nn.Conv2d(8, 8, side, padding=side // 2, padding_mode="circular", bias=False)
    return nn.Sequential(nn.ReLU(), kernel, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(8, 1, bias=False))  # fmt: skip


@cache
def derived_side() -> Expr:
    """The exponent of the response in the side of a kernel: SGD's c, derived from the graph."""

    def batch() -> tuple[Tensor, Tensor]:
        return torch.zeros(1, 8, IMAGE, IMAGE), torch.zeros(1, 1)

    model = ModelFile(Path(__file__), convolution, batch, None, {"side": 3})
    lowered = graph_of(model, f"side={','.join(map(str, SIDES[:3]))}")
    return derive_graph("G", lowered.graph).tensors["1.weight"].c


# --- graphs of layers --------------------------------------------------------------------------


def random_graph(seed: int) -> Edges:
    """Edges i -> j of a graph of which the last node is reached; each is there by a coin."""
    rng = np.random.default_rng(seed)
    while True:
        kept = [edge for edge in EDGES if rng.random() < 1 / 2]
        alive = {0}
        for j in range(1, NODES):
            if any(k == j and i in alive for i, k in kept):
                alive.add(j)
        if NODES - 1 in alive:
            return tuple((i, j) for i, j in kept if i in alive)


def path_lengths(edges: Edges) -> list[int]:
    """The number of layers on every path from the first node to the last."""
    found, ends = [], [(0, 0)]
    while ends:
        node, length = ends.pop()
        if node == NODES - 1:
            found.append(length)
        ends += [(j, length + 1) for i, j in edges if i == node]
    return found


def path_sum(edges: Edges) -> float:
    """The root of the sum over paths of L_p^3."""
    return math.sqrt(sum(length**3 for length in path_lengths(edges)))


def graph_response(edges: Edges, seed: int) -> float:
    """Of a graph with a layer of ReLU on every edge, drawn by fan_in and in-degree."""
    draw, n = _drawing(seed), GRAPH_WIDTH
    first = draw(1, FEATURES) @ draw(FEATURES, n) / math.sqrt(FEATURES)
    degree = {j: sum(k == j for _, k in edges) for _, j in edges}
    weights = {f"{i} {j}": draw(n, n) * math.sqrt(2 / (n * degree[j])) for i, j in edges}

    def forward(w: Weights) -> Tensor:
        nodes = [first]
        for j in range(1, NODES):
            into = [functional.relu(nodes[i]) @ w[f"{i} {j}"].T for i, k in edges if k == j]
            nodes.append(sum(into, torch.zeros_like(first)))
        return nodes[-1]

    return response(forward, weights, _mean_field(n, draw))


# --- what is measured --------------------------------------------------------------------------


def _tier(context: Environment) -> Tier:
    return Tier.ci if context.tier is Tier.ci else Tier.desk


def _table(
    context: Environment, what: str, sizes: tuple[int, ...], measure: Callable[[int, int], float],
    seeds: int | None = None, **configuration: Any,
) -> NDArray[np.float64]:  # fmt: skip
    """Responses by (seed, size)."""

    def cell(size: int, seed: int) -> Mapping[str, Any]:
        with blas_threads(context.threads):
            return {"response": measure(size, seed)}

    count = seeds or SEEDS[_tier(context)]
    cells = context.cells({"what": what, **configuration}, sizes, count, cell, what)
    return np.array([[one["response"] for one in row] for row in cells]).T


def _depths(context: Environment) -> tuple[tuple[int, ...], NDArray[np.float64]]:
    depths, width = DEPTHS[_tier(context)], WIDTH[_tier(context)]
    measure = partial(chain_response, width)
    return depths, _table(context, "chain of layers", depths, measure, width=width)


def _kernels(context: Environment) -> NDArray[np.float64]:
    return _table(context, "sides of kernels", SIDES, kernel_response,
                  3 * SEEDS[_tier(context)], channels=CHANNELS)  # fmt: skip


def _graphs(context: Environment) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Logarithms of the path sums (graphs) and of the responses (seeds, graphs)."""
    graphs = [random_graph(seed) for seed in range(GRAPHS)]
    found = _table(
        context, "graphs of layers", tuple(range(GRAPHS)),
        lambda k, seed: graph_response(graphs[k], seed), 16, width=GRAPH_WIDTH, nodes=NODES,
    )  # fmt: skip
    return np.log([path_sum(edges) for edges in graphs]), np.log(found)


def _drawn(name: str, title: str, label: str, sizes: tuple[int, ...],
           table: NDArray[np.float64]) -> Figure:  # fmt: skip
    return Figure(name, title, label, "RMS of dz at rate 1", (curve(label, sizes, table),))


def _check_depth(context: Environment, planted: Expr = S.Zero) -> Evidence:
    depths, table = _depths(context)
    fit = estimate(depths, table, decay=DECAY)
    found = judged("response of a chain, derived", fit, derived_depth() + planted, MARGIN)
    title = "a chain of ReLU layers: response against depth"
    return Evidence((found,), figures=(_drawn("13a_depth", title, "depth L", depths, table),))


def _check_kernel(context: Environment, planted: Expr = S.Zero) -> Evidence:
    table = _kernels(context)
    fit = estimate(SIDES, table, decay=DECAY)
    derived = judged("response of a kernel, derived", fit, derived_side() + planted, MARGIN)
    title = "a convolution: response against the side of its kernel"
    figure = _drawn("13b_kernel", title, "side of the kernel", SIDES, table)
    return Evidence((derived,), figures=(figure,))


def _check_code(context: Environment, planted: Expr = S.Zero) -> Evidence:
    fit = estimate(SIDES, _kernels(context), decay=DECAY)
    return Evidence((judged("response of a kernel", fit, S.One + planted, MARGIN),))


def _slope(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float, float]:
    """The slope of log response over log path sum: mean over seeds, and Student's interval."""
    slopes = np.array([np.polyfit(x, row, 1)[0] for row in y])
    half = stats.t.ppf(0.975, len(slopes) - 1) * slopes.std(ddof=1) / math.sqrt(len(slopes))
    return float(slopes.mean()), float(slopes.mean() - half), float(slopes.mean() + half)


def _proportional(context: Environment, predicted: float) -> Finding:
    x, y = _graphs(context)
    slope, low, high = _slope(x, y)
    verdict = Verdict.inconclusive
    if predicted - PROPORTIONAL <= low and high <= predicted + PROPORTIONAL:
        verdict = Verdict.agree
    elif high < predicted - PROPORTIONAL or low > predicted + PROPORTIONAL:
        verdict = Verdict.contradict
    order = stats.spearmanr(x, y.mean(axis=0)).statistic
    note = f"rank correlation {order:.2f} over {GRAPHS} graphs"
    name = "slope of log response over log (sum of L_p^3)^(1/2)"
    return Finding(name, f"{predicted:g}", signed(slope), interval(low, high), verdict, note)


def _check_graphs(context: Environment) -> Evidence:
    x, y = _graphs(context)
    order = np.argsort(x)
    points = Curve("graphs", tuple(np.exp(x[order])), tuple(np.exp(y.mean(axis=0)[order])))
    figure = Figure("13d_graphs", "random graphs of layers: response against the sum over paths",
                    "(sum of L_p^3)^(1/2)", "RMS of dz at rate 1", (points,))  # fmt: skip
    return Evidence((_proportional(context, 1.0),), figures=(figure,))


def _control_graphs(context: Environment) -> Evidence:
    """That the paths have no say, and that their sum enters without the root."""
    return Evidence(tuple(_proportional(context, x) for x in (0.0, 2.0)))


HALF = Rational(1, 2)
GROUP = Group(
    13,
    "depth, kernels and graphs without residuals",
    (
        Claim(
            "13a",
            "the rate of a plain chain of ReLU layers falls as depth^(-3/2) under SGD",
            "At one rate, one step moves the last pre-activations of L equal layers of ReLU in "
            "proportion to L^(3/2), as the graph derives.",
            f"{SOURCE} (code seen), and arXiv 2305.07810 (secondary source)",
            _check_depth,
            partial(_check_depth, planted=-HALF),
        ),
        Claim(
            "13b",
            "the rate of a convolution falls as the number of entries of its kernel",
            "At one rate, one step moves what a kernel of side x side gives in proportion to "
            "side^2, the sum that the graph derives.",
            f"derived here, in the place of the factor of {SOURCE}",
            _check_kernel,
            partial(_check_kernel, planted=-HALF),
        ),
        Claim(
            "13c",
            "the rate of a convolution falls as the side of its kernel",
            "The factor 3/side of the paper's code keeps what one step moves the same for kernels "
            "of every side.",
            f"{SOURCE} (code seen)",
            _check_code,
            partial(_check_code, planted=-HALF),
        ),
        Claim(
            "13d",
            "the rate of a graph of layers falls as (sum over paths of L_p^3)^(-1/2)",
            "At one rate, one step moves the last pre-activations of a graph of layers, drawn by "
            "fan_in and in-degree, in proportion to (sum over paths of L_p^3)^(1/2).",
            f"{SOURCE} (code seen)",
            _check_graphs,
            _control_graphs,
        ),
    ),
)
