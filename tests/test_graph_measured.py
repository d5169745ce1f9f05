"""What graphs foretell, beside loops in plain torch that share no code with them.

Each takes one step of one tensor, at the derived rate, in float64, at three sizes, and fits the
exponent of a size: of logits, of the output, of a gradient. Seeds are fixed; the margin is 0.2.
"""

import math
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise

import pytest
import torch
from sympy import Rational, S
from torch import Tensor

from empirical.trace.given_model import model_of
from empirical.trace.read_model import graph_of
from scaling.models.architectures import (
    convolutional,
    perceptron,
    plain,
    residual,
    transformer,
)
from scaling.models.building import Builder
from scaling.models.graph import Graph, fixed
from scaling.models.settings import Settings
from scaling.solve.graph_solution import derive_graph
from scaling.states.moved_state import two_states

SIGN = "sign(G)"
WIDTHS = (96, 320, 1024)
SEEDS = range(3)
MARGIN = 0.2
pytestmark = pytest.mark.slow


def slope(sizes: Sequence[int], measured: Callable[[int, int], float]) -> float:
    """The exponent of a size: least squares over the sizes, of means over the seeds."""
    x = [math.log(n) for n in sizes]
    y = [sum(math.log(measured(n, seed)) for seed in SEEDS) / len(SEEDS) for n in sizes]
    middle, level = sum(x) / len(x), sum(y) / len(y)
    covariance = sum((a - middle) * (b - level) for a, b in zip(x, y, strict=True))
    return covariance / sum((a - middle) ** 2 for a in x)


def rms(x: Tensor) -> float:
    return float(x.detach().pow(2).mean().sqrt())


def normed(x: Tensor) -> Tensor:
    return (x - x.mean(-1, keepdim=True)) / x.std(-1, unbiased=False, keepdim=True)


class Block:
    """One block of attention and one dense part, as transformer("width") has them."""

    def __init__(self, width: int, seed: int, scale: float, query: float = 0.5) -> None:
        torch.manual_seed(seed)
        words, length = 12, 6

        def drawn(*shape: int, b: float) -> Tensor:
            entries = torch.randn(*shape, dtype=torch.float64) * width**-b
            return entries.requires_grad_()

        square = {k: drawn(width, width, b=0.5) for k in ("query", "key", "value", "projection")}
        square["query"] = (square["query"].detach() * width ** (0.5 - query)).requires_grad_()
        self.w = {
            "embedding": drawn(words, width, b=0),
            "positions": drawn(length, width, b=0),
            **square,
            "up": drawn(width, width, b=0.5),
            "down": drawn(width, width, b=0.5),
            "readout": drawn(words, width, b=1),
        }
        self.scale = width**scale
        self.tokens, self.targets = (torch.randint(words, (2, length)) for _ in range(2))

    def __call__(self, w: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The logits of attention, and the loss."""
        x = w["embedding"][self.tokens] + w["positions"]
        h = normed(x)
        query, key, value = (h @ w[k].T for k in ("query", "key", "value"))
        logits = query @ key.transpose(1, 2) * self.scale
        x = x + logits.softmax(-1) @ value @ w["projection"].T
        x = x + torch.nn.functional.gelu(normed(x) @ w["up"].T) @ w["down"].T
        output = normed(x) @ w["readout"].T
        return logits, torch.nn.functional.cross_entropy(
            output.flatten(0, 1), self.targets.flatten()
        )

    def gradients(self, w: dict[str, Tensor]) -> dict[str, Tensor]:
        return dict(zip(w, torch.autograd.grad(self(w)[1], list(w.values())), strict=True))

    def moved(
        self, w: dict[str, Tensor], names: Sequence[str], rates: dict[str, float]
    ) -> dict[str, Tensor]:
        """After a step of sign descent of some tensors."""
        g = self.gradients(w)
        step = {k: (w[k] - rates[k] * g[k].sign()).detach().requires_grad_() for k in names}
        return {**w, **step}


def sign_rates(width: int, scale: float) -> dict[str, float]:
    answer = derive_graph(SIGN, transformer("width", attention=Rational(scale)))
    names = {name.removeprefix("blocks."): float(x.c) for name, x in answer.tensors.items()}
    return {name: 0.1 * width**-c for name, c in names.items()}


@pytest.mark.parametrize("tensor", ["query", "key", "embedding"])
@pytest.mark.parametrize("scale", [-0.5, -1.0])
def test_logits_move_by_order_one_at_the_derived_rate(tensor: str, scale: float) -> None:
    """Under 1/sqrt(d) the embedding is bound too: it learns along W_q^T k as much as elsewhere."""

    def moved(width: int, seed: int) -> float:
        model = Block(width, seed, scale)
        new = model.moved(model.w, [tensor], sign_rates(width, scale))
        return rms(model(new)[0] - model(model.w)[0])

    # under 1/d the embedding's own product binds, and logits lag behind at the start
    expected = -0.5 if (tensor, scale) == ("embedding", -1.0) else 0
    assert abs(slope(WIDTHS, moved) - expected) < MARGIN


def test_logits_without_a_factor_move_by_order_one_where_queries_start_small() -> None:
    """T5: no factor of the logits, queries of entries 1/d; at the usual rate of 1/d they grow."""
    small = Settings(b={"blocks.query": S.One})
    answer = derive_graph(SIGN, transformer("width", attention=S.Zero), small)
    for tensor, c in (("query", 2.0), ("key", 1.5)):
        assert float(answer.tensors[f"blocks.{tensor}"].c) == c

        def moved(width: int, seed: int, power: float, tensor: str = tensor) -> float:
            model = Block(width, seed, 0.0, query=1.0)
            new = model.moved(model.w, [tensor], {tensor: 0.1 * width**-power})
            return rms(model(new)[0] - model(model.w)[0])

        assert abs(slope((64, 256, 1024), lambda n, seed, c=c: moved(n, seed, c))) < MARGIN
        assert slope((64, 256, 1024), lambda n, seed: moved(n, seed, 1.0)) > 0.3


@pytest.mark.parametrize("tensor", ["query", "embedding"])
def test_at_the_rate_of_other_tensors_logits_of_the_root_grow(tensor: str) -> None:
    """The negative control: c = 1 for queries, c = 0 for embeddings, as under 1/d."""

    def moved(width: int, seed: int) -> float:
        model = Block(width, seed, -0.5)
        new = model.moved(model.w, [tensor], sign_rates(width, -1.0))
        return rms(model(new)[0] - model(model.w)[0])

    assert abs(slope(WIDTHS, moved) - 0.5) < MARGIN


def test_the_gradient_of_queries_grows_once_the_weights_above_have_moved() -> None:
    """Two states: M^(-3/2) at the start, M^(-1) once weights have moved."""
    start, moved = two_states(transformer("width", attention=-S.One))
    name = "blocks.query"
    foretold = [float(state.cotangents[name].size) for state in (start, moved)]
    assert foretold == [-1.5, -1]

    def before(width: int, seed: int) -> float:
        model = Block(width, seed, -1.0)
        return rms(model.gradients(model.w)["query"])

    def after(width: int, seed: int) -> float:
        """What the update of the projection adds to it, without what was there at the start."""
        model = Block(width, seed, -1.0)
        new = model.moved(model.w, ["projection"], sign_rates(width, -1.0))
        update = (new["projection"] - model.w["projection"]).detach().requires_grad_()
        return rms(model.gradients({**model.w, "projection": update})["query"])

    assert abs(slope(WIDTHS, before) - foretold[0]) < MARGIN
    assert abs(slope(WIDTHS, after) - foretold[1]) < MARGIN


def shared_keys(heads: int, seed: int, b: float) -> dict[str, float]:
    """Sizes of gradients where all heads of a fixed size share one key and one value."""
    torch.manual_seed(seed)
    size, length, words, width = 4, 6, 12, 4 * heads

    def drawn(*shape: int, b: float) -> Tensor:
        return (torch.randn(*shape, dtype=torch.float64) * width**-b).requires_grad_()

    w = {
        "query": drawn(width, width, b=0.5),
        "key": drawn(size, width, b=b),
        "value": drawn(size, width, b=b),
        "projection": drawn(width, width, b=0.5),
    }
    x = torch.randn(2, length, width, dtype=torch.float64)
    h = normed(x)
    query = (h @ w["query"].T).reshape(2, length, heads, size)
    key, value = h @ w["key"].T, h @ w["value"].T
    logits = torch.einsum("bshd,btd->bhst", query, key)
    mixed = torch.einsum("bhst,btd->bshd", logits.softmax(-1), value).reshape(2, length, width)
    y = normed(x + mixed @ w["projection"].T) @ drawn(words, width, b=1).T
    targets = torch.randint(words, (2 * length,))
    loss = torch.nn.functional.cross_entropy(y.flatten(0, 1), targets)
    gradients = torch.autograd.grad(loss, list(w.values()))
    return {name: rms(g) for name, g in zip(w, gradients, strict=True)}


@pytest.mark.parametrize("name", ["query", "key", "value", "projection"])
@pytest.mark.parametrize("b", [None, Rational(1, 2)])
def test_gradients_around_keys_that_all_heads_share(name: str, b: Rational | None) -> None:
    """Sizes as of readouts: at b = 1, which is derived, and at 1/2, as a hidden matrix would be."""
    graph = transformer("heads", attention=S.Zero, grouped=True)
    given = {} if b is None else {"blocks.key": b, "blocks.value": b}
    start, _ = two_states(graph, given)
    assert {start.b["blocks.key"], start.b["blocks.value"]} == {S.One if b is None else b}
    foretold = float(start.cotangents[f"blocks.{name}"].size)

    def measured(heads: int, seed: int) -> float:
        return shared_keys(heads, seed, 1 if b is None else float(b))[name]

    assert abs(slope((32, 128, 512), measured) - foretold) < MARGIN


def dense_step(width: int, seed: int, tensor: int, b: Sequence[float], c: float) -> float:
    """How far the output moves when one of three layers takes a step of sign descent."""
    torch.manual_seed(seed)
    shapes = [(8, width), (width, width), (width, 3)]
    w = [
        (torch.randn(*shape, dtype=torch.float64) * width**-x).requires_grad_()
        for shape, x in zip(shapes, b, strict=True)
    ]
    x = torch.randn(4, 8, dtype=torch.float64)

    def output(w: Sequence[Tensor]) -> Tensor:
        return torch.relu(torch.relu(x @ w[0]) @ w[1]) @ w[2]

    y = output(w)
    g = torch.autograd.grad(torch.nn.functional.mse_loss(y, torch.ones(4, 3)), w)[tensor]
    new = [v - 1e-3 * width**-c * g.sign() if k == tensor else v for k, v in enumerate(w)]
    return rms(output(new) - y)


@pytest.mark.parametrize(("tensor", "name"), [(0, "input"), (1, "hidden")])
def test_a_readout_of_entries_m_to_the_minus_half_binds_what_is_below(
    tensor: int, name: str
) -> None:
    """arXiv 2407.05872 has c = 0, 1 there in the standard parametrization, for omega = 1/2.

    After one step dh lies along W_L^T delta, and f moves by M^(1/2) at these rates.
    """
    given = {"input": S.Zero, "hidden": Rational(1, 2), "output": Rational(1, 2)}
    answer = derive_graph(SIGN, perceptron(), Settings(b=given)).tensors[name]
    own, b = answer.start.own, [float(x) for x in given.values()]
    assert own is not None and answer.c - own == Rational(1, 2)
    for c, expected in ((answer.c, 0.0), (own, 0.5)):

        def moved(width: int, seed: int, c: float = float(c)) -> float:
            return dense_step(width, seed, tensor, b, c)

        assert abs(slope(WIDTHS, moved) - expected) < MARGIN


DEPTHS = (8, 32, 128)


def residual_step(
    depth: int, seed: int, layers: int, power: float, rate: float
) -> tuple[float, float]:
    """(gradient of the first block, change of the output) for x + L^power W_k relu(... W_1 x)."""
    torch.manual_seed(seed)
    width = 24
    shape = (depth, layers, width, width)
    w = (torch.randn(*shape, dtype=torch.float64) / width**0.5).requires_grad_()
    x0 = torch.randn(4, width, dtype=torch.float64)
    readout = torch.randn(width, 3, dtype=torch.float64) / width

    def output(w: Tensor) -> Tensor:
        x = x0
        for block in w:
            h = x
            for k, layer in enumerate(block):
                h = h @ layer.T
                h = h.relu() if k < layers - 1 else h
            x = x + depth**power * h
        return x @ readout

    y = output(w)
    (g,) = torch.autograd.grad(torch.nn.functional.mse_loss(y, torch.ones(4, 3)), w)
    with torch.no_grad():
        return rms(g[0]), rms(output(w - rate * g.sign()) - y)


@pytest.mark.parametrize(("layers", "power"), [(2, -1.0), (2, -0.5), (1, -0.5)])
def test_residual_blocks_move_the_output_by_order_one_at_the_derived_rate(
    layers: int, power: float
) -> None:
    activation = "relu" if layers > 1 else "linear"
    graph = residual("depth", layers, Rational(power), norms=False, activation=activation)
    answer = derive_graph(SIGN, graph).tensors["blocks.0"]

    def changed(depth: int, seed: int) -> float:
        return residual_step(depth, seed, layers, power, 3e-3 * depth ** -float(answer.c))[1]

    def gradient(depth: int, seed: int) -> float:
        return residual_step(depth, seed, layers, power, 0.0)[0]

    assert abs(slope(DEPTHS, changed)) < MARGIN
    assert abs(slope(DEPTHS, gradient) - float(answer.start.gradient)) < MARGIN


def test_blocks_of_one_relu_layer_grow_under_the_root_of_the_depth() -> None:
    """Its mean adds up: what is refused on the graph does blow up."""
    torch.manual_seed(0)
    sizes = []
    for depth in DEPTHS:
        x = torch.randn(4, 64, dtype=torch.float64)
        for _ in range(depth):
            x = x + (x @ torch.randn(64, 64, dtype=torch.float64) / 8).relu() * depth**-0.5
        sizes.append(rms(x))
    ratios = [math.log(b / a) for a, b in pairwise(sizes)]
    assert ratios[1] > ratios[0] > 0.5  # faster than any power of the depth


ROWS = (4, 8, 16, 32)


def plain_step(
    depth: int, seed: int, tensor: str, rate: float, signs: bool = False
) -> tuple[float, float]:
    """(change of the last features, of the output) of relu layers in a row, sqrt(2/n) each.

    Per |h|^2, or per |h| for signs: its logarithm spreads by depth/width from draw to draw.
    """
    torch.manual_seed(seed)
    width = 384
    hidden = torch.randn(depth, width, width, dtype=torch.float64) * (2 / width) ** 0.5
    w = [torch.randn(width, 8, dtype=torch.float64), *hidden]
    x = torch.randn(1, 8, dtype=torch.float64)
    readout = torch.randn(width, 3, dtype=torch.float64) / width

    def features(w: Sequence[Tensor]) -> Tensor:
        h = x
        for one in w:
            h = torch.relu(h @ one.T)
        return h

    for one in w:
        one.requires_grad_()
    h = features(w)
    g = torch.autograd.grad(((h @ readout - 1) ** 2).mean(), w)
    moved = range(1) if tensor == "input" else range(1, depth + 1)
    with torch.no_grad():
        step = [rate * (y.sign() / width if signs else y) for y in g]
        change = features([v - step[k] if k in moved else v for k, v in enumerate(w)]) - h
        size = rms(h) if signs else rms(h) ** 2
        return rms(change) / size, rms(change @ readout) / size


@pytest.mark.parametrize(
    ("name", "signs"), [("blocks.0", False), ("blocks.0", True), ("input", True)]
)
def test_features_bind_the_rate_of_layers_in_a_row(name: str, signs: bool) -> None:
    """J J^T delta grows as k^(1/2): f alone would allow the rates L^-1 and 1."""
    c = float(derive_graph(SIGN if signs else "G", plain()).tensors[name].c)

    @cache
    def moved(depth: int, seed: int) -> tuple[float, float]:
        return plain_step(depth, seed, name, 1e-6 * depth**-c, signs)

    assert abs(slope(ROWS, lambda depth, seed: moved(depth, seed)[0])) < MARGIN
    assert abs(slope(ROWS, lambda depth, seed: moved(depth, seed)[1]) + 0.5) < MARGIN


class Directions(torch.nn.Module):
    """A dense layer whose rows have a length of their own: weight norm, by hand."""

    def __init__(self, fan_in: int, fan_out: int) -> None:
        super().__init__()
        self.rows = torch.nn.Parameter(torch.randn(fan_out, fan_in))
        self.length = torch.nn.Parameter(torch.randn(fan_out, 1))
        self.bias = torch.nn.Parameter(torch.randn(fan_out))

    def forward(self, x: Tensor) -> Tensor:
        w = self.length * self.rows / self.rows.norm(dim=1, keepdim=True)
        return torch.nn.functional.linear(x, w, self.bias)


def directions(width: int = 32) -> torch.nn.Sequential:
    """Four hidden layers of directions, and a readout."""
    sides = pairwise([6, *[width] * 4])
    hidden = (y for i, o in sides for y in (Directions(i, o), torch.nn.ReLU()))
    return torch.nn.Sequential(*hidden, torch.nn.Linear(width, 3, bias=False))


def directions_step(width: int, seed: int, rates: dict[str, float], steps: int) -> float:
    """RMS of the change of the last features by signed steps of all tensors."""
    torch.manual_seed(seed)
    net = directions(width).double()
    x, y = (torch.randn(6, n, dtype=torch.float64) for n in (6, 3))
    with torch.no_grad():
        net[-1].weight /= width
    before = net[:-1](x).detach()
    for _ in range(steps):
        net.zero_grad()
        (net(x) - y).square().mean().backward()
        with torch.no_grad():
            for name, p in net.named_parameters():
                assert p.grad is not None
                p -= 0.02 * (width / 32) ** -rates[name] * p.grad.sign()
    return rms(net[:-1](x) - before)


def test_gains_of_directions_move_features_alike_over_steps() -> None:
    """A moved gain keeps the random signs of its row: c = 0, and 1/2 would be too slow."""
    generator = torch.manual_seed(0)
    batch = torch.randn(6, 6, generator=generator), torch.randn(6, 3, generator=generator)
    answer = derive_graph(SIGN, graph_of(model_of(directions, batch), "width=32,64,96").graph)
    rates = {name: float(x.c) for name, x in answer.tensors.items()}
    vectors = [name for name in rates if name.endswith(("length", "bias"))]
    assert {rates[name] for name in vectors} == {0.0}
    slower = {**dict.fromkeys(rates, 9.0), **dict.fromkeys(vectors, 0.5)}
    sizes = (32, 96, 288)
    assert abs(slope(sizes, lambda n, seed: directions_step(n, seed, rates, 3))) < MARGIN
    assert abs(slope(sizes, lambda n, seed: directions_step(n, seed, slower, 3)) + 0.5) < MARGIN


def edges() -> Graph:
    """relu of the sum of M layers that are called with one value, as edges into one node."""
    m = Builder("in-degree")
    x = m.apply("relu", m.linear("input", m.data("x", fixed(2)), S.Zero, S.Zero))
    w = m.parameter("edges", (S.One, S.Zero, S.Zero))
    y = m.apply("relu", m.contract("bi,eoi->bo", x, w))
    return m.graph(m.linear("output", y, S.Zero, S.Zero), "mean_squared_error")


def test_the_in_degree_of_a_node_gives_its_start_and_not_its_rate_as_a_sum_over_paths() -> None:
    """arXiv 2402.17440: std = gain/sqrt(fan_in x in-degree), rate (sum over paths of depth^3)^-1/2.

    M paths of one depth would have M^(-1/2). Their updates are alike and add up: M^(-1) is derived,
    and measured.
    """
    x = derive_graph("G", edges()).tensors["edges"]
    assert (x.b, x.c) == (Rational(1, 2), 1)
    width = 64

    def moved(degree: int, seed: int) -> float:
        torch.manual_seed(seed)
        h = torch.relu(torch.randn(1, width, dtype=torch.float64))
        w = torch.randn(degree, width, width, dtype=torch.float64) / (degree * width) ** 0.5
        readout = torch.randn(width, 3, dtype=torch.float64) / width**0.5
        w.requires_grad_()
        y = torch.einsum("bi,eoi->bo", h, w)
        (g,) = torch.autograd.grad(((torch.relu(y) @ readout - 1) ** 2).mean(), w)
        return rms(torch.einsum("bi,eoi->bo", h, 1e-4 * g))

    assert abs(slope((4, 16, 64), moved) - 1) < MARGIN


def test_the_side_of_a_kernel_has_the_rate_of_its_area() -> None:
    """arXiv 2402.17440 has 3/side. Features after relu have a mean, and all of a kernel adds up."""
    c = derive_graph("G", convolutional(3, S.One, "kernel")).tensors["conv_2"].c
    assert c == 2

    def moved(side: int, seed: int) -> float:
        torch.manual_seed(seed)
        channels, x = 8, torch.randn(1, 4, 24, 24, dtype=torch.float64)

        def conv(x: Tensor, w: Tensor) -> Tensor:
            around = torch.nn.functional.pad(x, (side // 2,) * 4, mode="circular")
            return torch.nn.functional.conv2d(around, w)

        first, second = (
            torch.randn(channels, n, side, side, dtype=torch.float64) / (n * side**2) ** 0.5
            for n in (4, channels)
        )
        readout = torch.randn(channels, 3, dtype=torch.float64)
        second.requires_grad_()
        h = torch.relu(conv(x, first))
        y = torch.relu(conv(h, second)).mean((2, 3)) @ readout
        (g,) = torch.autograd.grad(((y - 1) ** 2).mean(), second)
        return rms(conv(h, 1e-4 * g))

    assert abs(slope((3, 7, 15), moved) - float(c)) < MARGIN
