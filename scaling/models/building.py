"""A few lines make a graph: each call adds a node and returns its name.

>>> from sympy import S
>>> m = Builder("width")
>>> x = m.data("x", fixed(2))
>>> h = m.apply("relu", m.linear("first", x, m.axes(x)[-1], S.One))
>>> graph = m.graph(m.linear("last", h, S.One, S.Zero))
>>> [p.name for p in graph.parameters], graph.node(graph.outputs[0]).axes
(['first', 'last'], (0, 0))
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sympy import Expr

from scaling.models.graph import Graph, GraphNode, GraphParameter, Repeat, Start, fixed
from scaling.models.terms import larger

Shape = tuple[Expr, ...]


class Builder:
    """Collects the nodes of a graph, or of the body of a repeat."""

    def __init__(self, axis: str, prefix: str = "") -> None:
        self.axis = axis
        self.prefix = prefix
        self.nodes: list[GraphNode] = []
        self.parameters: list[GraphParameter] = []

    def axes(self, name: str) -> Shape:
        """The axes of a node."""
        return next(node for node in self.nodes if node.name == name).axes

    def add_node(
        self, op: str, inputs: Sequence[str], axes: Shape, name: str = "", **attributes: Any
    ) -> str:
        """A node of any operation."""
        name = name or f"{self.prefix}{op}_{len(self.nodes)}"
        where = str(attributes.pop("where", ""))
        self.nodes.append(GraphNode(name, op, tuple(inputs), axes, attributes, where))
        return name

    def data(self, name: str, axes: Shape, integer: bool = False) -> str:
        """Inputs or targets."""
        return self.add_node("data", (), axes, name, integer=integer)

    def constant(self, x: Expr, name: str = "", where: str = "") -> str:
        """A number of the code, M^x."""
        return self.add_node("constant", (), (), name, exponent=x, value="1", where=where)

    def parameter(
        self,
        name: str,
        axes: Shape,
        start: Start = Start.DRAWN,
        b: Expr | None = None,
        trained: bool = True,
    ) -> str:
        """A tensor."""
        name = self.prefix + name
        self.parameters.append(GraphParameter(name, axes, trained, start, b))
        return self.add_node("parameter", (), axes, name)

    def contract(self, equation: str, *inputs: str, name: str = "") -> str:
        """A product, by its equation."""
        left, out = equation.split("->")
        lengths = {
            letter: n
            for x, letters in zip(inputs, left.split(","), strict=True)
            for letter, n in zip(letters, self.axes(x), strict=True)
        }
        axes = tuple(lengths[letter] for letter in out)
        return self.add_node("contract", inputs, axes, name, equation=equation)

    def linear(
        self,
        name: str,
        x: str,
        fan_in: Expr,
        fan_out: Expr,
        bias: bool = False,
        start: Start = Start.DRAWN,
        b: Expr | None = None,
        trained: bool = True,
    ) -> str:
        """A dense layer over the last axis; its weight is (fan_out, fan_in), as in torch."""
        w = self.parameter(name, (fan_out, fan_in), start, b, trained)
        rest = "abcdefgh"[: len(self.axes(x)) - 1]
        y = self.contract(f"{rest}i,oi->{rest}o", x, w)
        return self.add(y, self.parameter(f"{name}_bias", (fan_out,))) if bias else y

    def add(self, *inputs: str) -> str:
        """A sum."""
        return self._broadcast("add", inputs)

    def multiply(self, *inputs: str) -> str:
        """A product entry by entry."""
        return self._broadcast("multiply", inputs)

    def _broadcast(self, op: str, inputs: Sequence[str]) -> str:
        shapes = [self.axes(x) for x in inputs]
        rank = max(map(len, shapes))
        padded = [(*fixed(rank - len(shape)), *shape) for shape in shapes]
        return self.add_node(op, inputs, tuple(larger(*ns) for ns in zip(*padded, strict=True)))

    def scaled(self, x: str, exponent: Expr, where: str = "") -> str:
        """M^exponent times x."""
        return self.multiply(x, self.constant(exponent, where=where)) if exponent != 0 else x

    def apply(self, function: str, x: str) -> str:
        """A function entry by entry."""
        return self.add_node("apply", (x,), self.axes(x), function=function)

    def softmax(self, x: str, axis: int = -1) -> str:
        """Over an axis."""
        return self.add_node("softmax", (x,), self.axes(x), axis=axis)

    def norm(self, x: str, gain: str = "", bias: str = "", over: Sequence[int] = (-1,)) -> str:
        """A normalisation, with a gain and a bias over the last axis where they have a name."""
        rank = len(self.axes(x))
        axes = tuple(k % rank for k in over)
        y = self.add_node("normalise", (x,), self.axes(x), over=axes, centred=bool(bias))
        if gain:
            y = self.multiply(y, self.parameter(gain, self.axes(x)[-1:], Start.ONE))
        if bias:
            y = self.add(y, self.parameter(bias, self.axes(x)[-1:], Start.ZERO))
        return y

    def reshape(
        self, x: str, axes: Shape, groups: Sequence[tuple[Sequence[int], Sequence[int]]]
    ) -> str:
        """Other axes of the same entries; see graph.py for the groups."""
        return self.add_node(
            "reshape", (x,), axes, groups=tuple((tuple(a), tuple(b)) for a, b in groups)
        )

    def part(self, x: str, axis: int, start: int, stop: int) -> str:
        """A part of an axis, as large as the axis up to a constant."""
        return self.add_node("slice", (x,), self.axes(x), axis=axis, start=start, stop=stop)

    def permute(self, x: str, *order: int) -> str:
        """Axes in another order."""
        axes = self.axes(x)
        return self.add_node("permute", (x,), tuple(axes[k] for k in order), order=order)

    def embedding(self, name: str, index: str, rows: Expr, width: Expr) -> str:
        """Rows of a table."""
        table = self.parameter(name, (rows, width))
        axes = (*self.axes(index), width)
        return self.add_node("gather", (table, index), axes, axis=0)

    def repeat(self, body: Builder, outputs: Sequence[str], count: Expr, *inputs: str) -> str:
        """A block, passed M^count times."""
        inner = Graph(self.axis, tuple(body.nodes), tuple(body.parameters), tuple(outputs))
        return self.add_node("repeat", inputs, body.axes(outputs[0]), repeat=Repeat(inner, count))

    def argument(self, name: str, position: int, axes: Shape) -> str:
        """The argument of the body of a repeat."""
        return self.add_node("argument", (), axes, self.prefix + name, position=position)

    def loss(self, kind: str, output: str) -> str:
        """The cross-entropy over the last axis, or the mean squared error."""
        axes = self.axes(output)
        shape = axes[:-1] if kind == "cross_entropy" else axes
        target = self.data("target", shape, integer=kind == "cross_entropy")
        return self.add_node(kind, (output, target), (), axis=len(axes) - 1)

    def graph(self, output: str, loss: str = "cross_entropy") -> Graph:
        """The graph, with its loss."""
        end = self.loss(loss, output)
        return Graph(self.axis, tuple(self.nodes), tuple(self.parameters), (output,), end)


def with_multipliers(graph: Graph, a: Mapping[str, Expr]) -> Graph:
    """The graph with M^(-a) in front of tensors, by name, as a factor of the code.

    >>> m = Builder("width")
    >>> f = m.linear("w", m.data("x", fixed(2)), fixed(1)[0], fixed(1)[0])
    >>> graph = with_multipliers(m.graph(f), {"w": fixed(1)[0] + 1})
    >>> [n.op for n in graph.nodes]
    ['data', 'parameter', 'constant', 'multiply', 'contract', 'data', 'cross_entropy']
    """
    given = {name: x for name, x in a.items() if x != 0}
    if not given:
        return graph
    nodes: list[GraphNode] = []
    for node in graph.nodes:
        repeat = node.get("repeat")
        if isinstance(repeat, Repeat):
            inner = replace(repeat, body=with_multipliers(repeat.body, given))
            node = replace(node, attributes={**node.attributes, "repeat": inner})
        inputs = tuple(f"{x}, scaled" if x in given else x for x in node.inputs)
        nodes.append(replace(node, inputs=inputs))
        if node.op == "parameter" and node.name in given:
            factor = f"{node.name}, multiplier"
            attributes = {"exponent": -given[node.name], "value": "1"}
            nodes.append(GraphNode(factor, "constant", (), (), attributes, "a, as it is given"))
            scaled = f"{node.name}, scaled"
            nodes.append(GraphNode(scaled, "multiply", (node.name, factor), node.axes))
    return replace(graph, nodes=tuple(nodes))


def with_frozen(graph: Graph, names: Collection[str]) -> Graph:
    """The graph with tensors of these names that are not trained.

    >>> from scaling.models.architectures import residual
    >>> graph = with_frozen(residual(), ["input", "blocks.0"])
    >>> [p.name for p in graph.parameters if p.trained]
    ['output']
    """
    if not names:
        return graph
    nodes = []
    for node in graph.nodes:
        repeat = node.get("repeat")
        if isinstance(repeat, Repeat):
            inner = replace(repeat, body=with_frozen(repeat.body, names))
            node = replace(node, attributes={**node.attributes, "repeat": inner})
        nodes.append(node)
    parameters = tuple(
        replace(p, trained=p.trained and p.name not in names) for p in graph.parameters
    )
    return replace(graph, nodes=tuple(nodes), parameters=parameters)
