"""Updates by blocks of rows: entry for entry what the interpreter makes of whole matrices."""

import numpy as np
import pytest
import torch
from torch import Tensor

from empirical.measure.training import size_of
from empirical.numbers.interpreter import LayerTensors, State, evaluate
from empirical.numbers.layer_values import LayerValue
from empirical.wide import tiles
from empirical.wide.columns import NeuronAxis
from empirical.wide.implicit import ImplicitGaussian, Span
from empirical.wide.method import Path, path_of
from empirical.wide.noise import Stream
from empirical.wide.rows import RowLearner, learner
from empirical.wide.span_update import Coordinates, Source
from empirical.wide.streaming import Streaming
from empirical.wide.weight import Weight
from scaling.rules.parser import parse
from scaling.rules.rule import Rule
from scaling.rules.tree import Node
from scaling.sizes.errors import InvalidInput

VALUES = {"rho": 0.3, "eps": 0.01, "beta": 0.6, "beta2": 0.9, "e": 0.5}
RULES = [
    "sign(G)",
    "ema(G, beta) / (sqrt(ema(G*G, beta2)) + eps)",
    "sign(ema(G, beta))",
    "G / sqrt(row_mean(G*G) @ col_mean(G*G) / rms(G)**2 + eps)",
    "G / (sqrt(ema(row_mean(G*G), beta2) @ col_mean(ema(G*G, beta2))) + eps)",
    "(diag(B) + rho*I)**(-1/2) @ G @ (diag(ema(A, beta)) + rho*I)**(-e)",
    "sign((B + rho*I)**(-1) @ G @ (A + rho*I)**(-1))",
    "G*G*orth(G) / (norm(abs(G)) + norm(A) + norm(row_mean(abs(G))))",
    "(sign(G.T) * rms(sqrt(abs(G)) / rms(abs(G)))).T * fan_in / fan_out",
    "G - row_mean(G) - col_mean(G) + trace(B) * row_mean(abs(G)) @ col_mean(G)",
    "abs(G)**e * sign(G) * specnorm(A)",
    "(diag(L) + rho*I)**(-1/2) @ sign(G) @ diag(R)",
    "ema(G, beta) / (sqrt(ema(sample_square(2*G), beta2)) + eps) * rms(sample_square(-G.T))",
    "(block(L, 4) + rho*I)**(-e) @ G @ (block(R, 4) + trace(A)*I)**(-1/2)",
    "(block(ema(B, beta), 2) + rho*I)**(-1) @ sign(ema(G, beta)) @ ema(block(A, 3) + rho*I, beta2)",
    "ema(G, beta)*agree(ema(G, beta), G) / (mean(agree(ema(G, beta), G)) + eps)",
    "tanh(G/mean(abs(G))) * min(rms(G), mean(G*G))",
    "atan(newton_schulz(ema(G, beta), 4)) + newton_schulz(G, 2) * abs(G)",
    "(G - beta*previous(G)) / (sqrt(running_max(ema(G*G, beta2), 1)) + eps) * yogi(abs(G), beta)",
    "running_sum(G) / max(min(abs(G), 1), eps) * max(row_mean(abs(G)), col_mean(abs(G)))",
    "ema((block(B, 3) + norm(sign(G))*I)**(-1/2) @ G, beta) @ (diag(A) @ block(A, 2) + rho*I)",
]


def axis(side: int, limit: int = 2**28) -> NeuronAxis:
    streaming = Streaming(torch.float64, limit)
    return NeuronAxis(side, torch.float64, streaming, streaming.memory())


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Layer:
    """Some steps of one layer, by rows (or another path) and with whole matrices."""

    paths, values, dense = (Path.ROWS,), VALUES, False

    def __init__(self, text: str, fan_out: int, fan_in: int, steps: int, fisher: bool) -> None:
        self.rule: Rule = parse(text)
        path = path_of(self.rule)
        assert path in self.paths
        self.above, self.below = axis(fan_out), axis(fan_in)
        coordinates = Coordinates(Span(self.above), Span(self.below), steps)
        taught = learner(Source(self.rule, self.values, coordinates), path)
        weight = Weight(ImplicitGaussian.between(self.above, self.below, 1.0, Stream(0, ())))
        watched = frozenset(self.rule.expression.walk())
        state = State()
        self.sizes: dict[Node, float] = {}
        for step in range(steps):
            d, h = normal(3 * step, fan_out, 4), normal(3 * step + 1, fan_in, 4)
            d[::5], h[1::7] = 0, 0  # dead units
            self.change(step, d)
            f = normal(3 * step + 2, fan_out, 4) if fisher else None
            self.update = taught.update(
                self.above.given(d),
                self.below.given(h),
                None if f is None else self.above.given(f),
                weight,
                watched,
            )
            self.seen = LayerTensors(h, d, torch.zeros(fan_out, fan_in, dtype=torch.float64), f)
            self.whole = evaluate(
                self.rule, self.seen, self.values, state, self._record, dense=self.dense
            )

    def change(self, step: int, d: Tensor) -> None:
        """What is peculiar to the cotangents of a step: nothing."""

    def _record(self, node: Node, value: LayerValue) -> None:
        self.sizes[node] = size_of(node, value)


@pytest.mark.parametrize("fisher", [False, True], ids=["empirical", "sampled"])
@pytest.mark.parametrize("sides", [(40, 30), (3, 30), (40, 1)])
@pytest.mark.parametrize("text", RULES)
def test_tiles_are_those_of_whole_matrices(
    text: str, sides: tuple[int, int], fisher: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiles, "TILE", (7, 11))
    for steps in (1, 3):
        layer = Layer(text, *sides, steps, fisher)
        dense = layer.whole.dense()
        x, y = normal(90, sides[1], 5), normal(91, sides[0], 5)
        ahead = layer.above.values(-2 * layer.update @ layer.below.given(x))
        back = layer.below.values(layer.update.T @ layer.above.given(y))
        torch.testing.assert_close(ahead, -2 * dense @ x, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(back, dense.T @ y, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("text", RULES)
def test_sizes_of_watched_nodes_are_those_of_whole_matrices(text: str) -> None:
    layer = Layer(text, 40, 30, 2, fisher=False)
    _ = layer.update @ layer.below.given(normal(90, 30, 2))
    for node, size in layer.update.sizes.items():
        if node in layer.sizes:
            assert size == pytest.approx(layer.sizes[node], rel=1e-9), node
    assert layer.rule.expression in layer.update.sizes


def test_an_image_is_made_once() -> None:
    layer = Layer("sign(G)", 40, 30, 1, fisher=False)
    x = layer.below.given(normal(90, 30, 2))
    first, again = layer.update @ x, layer.update @ (3 * x)
    assert set(first.atoms) == set(again.atoms)
    np.testing.assert_allclose(layer.above.values(again), 3 * layer.above.values(first))


def test_workers_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for task in (2**25, 200):
        monkeypatch.setattr(tiles, "TASK", task)
        monkeypatch.setattr(tiles, "TILE", (5, 30))
        layer = Layer(RULES[4], 40, 30, 2, fisher=False)
        assert (len(layer.update.tiles.tasks()) > 1) == (task == 200)
        found.append(layer.above.values(layer.update @ layer.below.given(normal(9, 30, 3))))
    torch.testing.assert_close(*found, rtol=1e-12, atol=0)


def test_a_memory_limit_below_what_must_be_held_is_refused() -> None:
    above, below = axis(40, 1000), axis(30)
    coordinates = Coordinates(Span(above), Span(below), 1)
    taught = RowLearner(Source(parse("sign(G)"), VALUES, coordinates))
    weight = Weight(ImplicitGaussian.between(above, below, 1.0, Stream(0, ())))
    with pytest.raises(InvalidInput, match=r"found: a memory limit of 0\.0 MiB"):
        taught.update(above.given(normal(0, 40, 4)), below.given(normal(1, 30, 4)), None, weight)
