"""Sizes of every node of a graph, beside the graph itself computed in plain torch.

A few lines evaluate the operations that architectures are made of; nothing is shared with the
passes. Values and cotangents are fitted over widths, node by node: on ready-made architectures, and
on random graphs, which meet what no architecture does (products of shared sources, means of odd
and even functions, gains, sums of different sizes).
"""

import math
import random
import statistics
from collections.abc import Mapping

import pytest
import torch
from sympy import Expr, S
from torch import Tensor

from scaling.models.architectures import lora, mixture, perceptron, recurrent, transformer
from scaling.models.building import Builder
from scaling.models.graph import Graph, GraphNode, Repeat, Start, fixed
from scaling.states.graph_passes import Passes

WIDTHS = (64, 256, 1024)
SEEDS = 6
MARGIN = 0.1
"""Beside three standard errors."""
FIXED = 6
ROUNDING = 1e-12
pytestmark = pytest.mark.slow
APPLIED = {
    "relu": torch.relu,
    "gelu": torch.nn.functional.gelu,
    "silu": torch.nn.functional.silu,
    "tanh": torch.tanh,
    "linear": lambda x: x,
    "abs": torch.abs,
}


class Numbers:
    """A graph at one width: every value, and after `backward` its gradient."""

    def __init__(self, graph: Graph, b: Mapping[str, Expr], width: int, seed: int) -> None:
        self.data = torch.Generator().manual_seed(seed)  # the same at all widths
        torch.manual_seed(seed + 1000)
        self.width, self.b, self.values = width, b, dict[str, Tensor]()
        self.run(graph, {})
        self.values[graph.loss].backward()

    def shape(self, axes: tuple[Expr, ...]) -> tuple[int, ...]:
        return tuple(FIXED if n == 0 else round(self.width ** float(n)) for n in axes)

    def run(self, graph: Graph, given: Mapping[str, Tensor]) -> None:
        parameters = {p.name: p for p in graph.parameters}
        for node in graph.nodes:
            if isinstance(node.get("repeat"), Repeat):
                body = node.get("repeat").body
                (name,) = (n.name for n in body.nodes if n.op == "argument")
                self.run(body, {name: self.values[node.inputs[0]]})
                value = self.values[body.outputs[0]]
            elif node.op == "argument":
                value = given[node.name]
            elif node.op == "parameter":
                p = parameters[node.name]
                b = self.b.get(node.name, p.b)
                scale = self.width ** -float(b if b is not None else 0)
                starts = {Start.DRAWN: torch.randn, Start.ZERO: torch.zeros, Start.ONE: torch.ones}
                value = scale * starts[p.start](self.shape(node.axes), dtype=torch.float64)
                value.requires_grad_()
            else:
                value = self.result(node, [self.values[x] for x in node.inputs])
            if value.requires_grad:
                value.retain_grad()
            self.values[node.name] = value

    def result(self, node: GraphNode, x: list[Tensor]) -> Tensor:
        match node.op:
            case "data" if node.get("integer"):
                return torch.randint(FIXED, self.shape(node.axes), generator=self.data)
            case "data":
                shape = self.shape(node.axes)
                return torch.randn(shape, dtype=torch.float64, generator=self.data)
            case "constant":
                exponent = float(node.get("exponent"))
                return torch.tensor(self.width**exponent, dtype=torch.float64)
            case "contract":
                return torch.einsum(node.get("equation"), *x)
            case "multiply":
                return math.prod(x[1:], start=x[0])
            case "add":
                return sum(x[1:], start=x[0])
            case "apply":
                return APPLIED[node.get("function")](x[0])
            case "normalise":
                over = node.get("over")
                centre = x[0].mean(over, keepdim=True) if node.get("centred") else 0
                y = x[0] - centre
                return y / y.pow(2).mean(over, keepdim=True).sqrt()
            case "softmax":
                return x[0].softmax(node.get("axis"))
            case "reshape":
                return x[0].reshape(self.reshaped(node, x[0]))
            case "permute":
                return x[0].permute(node.get("order"))
            case "gather":
                return x[0][x[1]]
            case "reduce":
                return x[0].mean(node.get("over"))
            case "cross_entropy":
                return torch.nn.functional.cross_entropy(x[0].flatten(0, -2), x[1].flatten())
            case "mean_squared_error":
                return torch.nn.functional.mse_loss(x[0], x[1])
        raise AssertionError(node.op)

    def reshaped(self, node: GraphNode, x: Tensor) -> tuple[int, ...]:
        """Heads are two: FIXED need not divide a width."""
        lengths = {}
        for ins, outs in node.get("groups"):
            total = math.prod(x.shape[k] for k in ins)
            if len(outs) == 2:
                lengths |= {outs[0]: 2, outs[1]: total // 2}
            else:
                lengths[outs[0]] = total
        return tuple(lengths[k] for k in sorted(lengths))


def typical(x: Tensor) -> float:
    """The logarithm of a size, averaged over samples: one among few may be far off."""
    count = FIXED if x.dim() and x.shape[0] == FIXED else 1
    rows = x.detach().reshape(count, -1).pow(2).mean(1).sqrt()
    return float(rows.log().mean()) if float(rows.min()) > ROUNDING else -math.inf


Measured = tuple[float, float] | None


def slopes(graph: Graph, b: Mapping[str, Expr]) -> dict[tuple[str, str], Measured]:
    """By kind of size and node: exponent and standard error; None where all is rounding."""
    logs: dict[tuple[str, str], list[list[float]]] = {}
    for seed in range(SEEDS):
        one: dict[tuple[str, str], list[float]] = {}
        for width in WIDTHS:
            for name, value in Numbers(graph, b, width, seed).values.items():
                gradient = value.grad if value.requires_grad else None
                for kind, x in (("value", value), ("cotangent", gradient)):
                    if x is not None and x.is_floating_point():
                        one.setdefault((kind, name), []).append(typical(x))
        for key, sizes in one.items():
            logs.setdefault(key, []).append(sizes)
    x = [math.log(width) for width in WIDTHS]
    middle = sum(x) / len(x)
    weights = [(a - middle) / sum((b - middle) ** 2 for b in x) for a in x]
    found: dict[tuple[str, str], Measured] = {}
    for key, rows in logs.items():
        if any(math.isinf(log) for row in rows for log in row):
            found[key] = None
            continue
        each = [sum(w * log for w, log in zip(weights, row, strict=True)) for row in rows]
        found[key] = (statistics.mean(each), statistics.stdev(each) / SEEDS**0.5)
    return found


def check(graph: Graph, exact: bool = True, planted: Mapping[str, Expr] | None = None) -> int:
    """Compare all nodes; ``exact``: sizes are not only bounds. How many were compared."""
    state = Passes(graph)
    measured = slopes(graph, {**state.b, **(planted or {})})
    compared = 0
    for kind, known in (("value", state.values), ("cotangent", state.cotangents)):
        for name, value in known.items():
            if (kind, name) not in measured or name == graph.loss:
                continue
            found, node = measured[kind, name], str(state.nodes[name])
            if found is None or value.is_zero:  # a norm undoes a factor below it: terms cancel
                assert found is None and (value.is_zero or not exact), (kind, node)
                continue
            slope, error = found
            margin = MARGIN + 3 * error
            assert slope - margin < float(value.size), (kind, node, slope, error, value.size)
            if exact:
                assert float(value.size) < slope + margin, (kind, node, slope, error, value.size)
            compared += 1
    return compared


@pytest.mark.parametrize(
    "graph",
    [
        perceptron(4, biases=True),
        perceptron(3, activation="tanh", loss="cross_entropy"),
        transformer("width"),
        transformer("width", attention=-S.One, gated=True),
        mixture("width"),
        lora("width"),
        recurrent(3),
    ],
    ids=["relu", "tanh", "transformer", "gated", "experts", "adapter", "recurrent"],
)
def test_every_node_of_an_architecture_has_its_size_at_the_start(graph: Graph) -> None:
    assert check(graph) > 8


def drawn_graph(seed: int) -> Graph:
    """A random graph of layers, functions, products, norms, gains and sums."""
    dice, m = random.Random(seed), Builder("width")
    x = m.linear("input", m.data("x", fixed(2)), S.Zero, S.One)
    known = [x]
    for k in range(dice.randint(3, 6)):
        x, other = dice.choice(known), dice.choice(known)
        match dice.randrange(7):
            case 0 | 1:
                x = m.linear(f"w{k}", x, S.One, S.One)
            case 2:
                x = m.apply(dice.choice(["relu", "tanh", "abs", "silu"]), m.norm(x))
            case 3:
                x = m.multiply(m.norm(x), m.norm(other))
            case 4:
                x = m.norm(x, f"gain{k}", dice.choice(["", f"bias{k}"]))
            case 5:
                x = m.add(x, other)
            case 6:
                score = m.scaled(m.contract("bi,bi->b", m.norm(x), m.norm(other)), -S.One)
                x = m.contract("b,bi->bi", m.apply("tanh", score), x)
        known.append(x)
    return m.graph(m.linear("output", m.norm(x), S.One, S.Zero), "mean_squared_error")


@pytest.mark.parametrize("seed", range(24))
def test_every_node_of_a_random_graph_is_within_its_size(seed: int) -> None:
    """Sizes are upper bounds where terms cannot be told apart, and may not be exceeded."""
    assert check(drawn_graph(seed), exact=False) > 8


@pytest.mark.parametrize("b", [S.Zero, S.One])
def test_a_planted_start_is_contradicted(b: Expr) -> None:
    with pytest.raises(AssertionError, match="hidden = parameter"):
        check(perceptron(3), planted={"hidden": b})
