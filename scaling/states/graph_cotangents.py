"""Cotangents back through a graph: d loss / d node, and at a parameter its gradient G.

``pieces`` keeps the size of what each reader of a node sends back: what a node's change does to
that reader's result follows from it (graph_passes.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from sympy import Expr, S

from scaling.models.graph import Graph, GraphNode, Repeat
from scaling.models.operations.row import Operands
from scaling.models.operations.table import operation
from scaling.models.terms import GraphValue, add, constant, zero
from scaling.states.graph_forward import ForwardPass, sum_of_blocks
from scaling.states.graph_structure import arguments_of, increments, names_of


class CotangentPass(ForwardPass):
    """A graph with the value and the cotangent of every node; arguments as of `ForwardPass`."""

    def __init__(
        self,
        graph: Graph,
        b: Mapping[str, Expr] | None = None,
        moved: Mapping[str, GraphValue] | None = None,
        limits: Mapping[str, Expr] | None = None,
        extra: Mapping[str, Expr] | None = None,
    ) -> None:
        super().__init__(graph, b, moved, limits, extra)
        self.pieces: dict[tuple[str, int], Expr] = {}
        self.cotangents = self._with_cotangents()

    def _with_cotangents(self) -> dict[str, GraphValue]:
        graph = self.graph
        seeds = {graph.loss: constant(())} if graph.loss else {}
        if not graph.loss:
            seeds = {x: constant(self.nodes[x].axes) for x in graph.outputs}
        found = self._back(graph, seeds)
        return {name: replace(value, axes=self.nodes[name].axes) for name, value in found.items()}

    def _back(self, graph: Graph, seeds: Mapping[str, GraphValue]) -> dict[str, GraphValue]:
        found = dict(seeds)
        for node in reversed(graph.nodes):
            dy = found.get(node.name)
            if dy is None or dy.is_zero or not node.inputs:
                continue
            if isinstance(node.get("repeat"), Repeat):
                pieces = self._back_repeat(node, node.get("repeat"), found)
                for name in {*names_of(node.get("repeat").body)}:
                    if name in pieces:
                        found[name] = pieces.pop(name)
            elif node.op == "item":
                pieces = {f"{node.inputs[0]}[{node.get('index')}]": dy}
            else:
                row, at = operation(node), self.operands(node)
                dy = dy.times(self.extra.get(node.name, S.Zero))
                pieces = {}
                for i, name in enumerate(node.inputs):
                    if name in self.trained:
                        piece = row.cotangent(at, i, dy)
                        self.pieces[node.name, i] = piece.size
                        pieces[name] = add(piece.axes, [pieces.get(name, zero(piece.axes)), piece])
            for name, piece in pieces.items():
                old = found.get(name, zero(piece.axes))
                found[name] = add(piece.axes, [old, piece])
        return found

    def _back_repeat(
        self, node: GraphNode, repeat: Repeat, found: Mapping[str, GraphValue]
    ) -> dict[str, GraphValue]:
        body, arguments = repeat.body, arguments_of(repeat.body)
        outputs = [
            found.get(node.name if k == 0 else f"{node.name}[{k}]", zero(self.nodes[x].axes))
            for k, x in enumerate(body.outputs)
        ]
        own = {p.name for p in body.parameters}
        typical = list(outputs)
        for _ in range(2):
            seeds: dict[str, GraphValue] = {}
            for k, dy in enumerate(typical):
                terms = increments(body, k)
                for x in (body.outputs[k],) if terms is None else terms:
                    seed = _unspread(dy, self.nodes[x].axes)
                    seeds[x] = add(seed.axes, [seeds.get(x, zero(seed.axes)), seed])
            inner = self._back(body, seeds)
            for k, dy in enumerate(outputs):
                below = inner.get(arguments[k], zero(dy.axes))
                if increments(body, k) is not None:
                    below = sum_of_blocks(below, repeat.count, own)
                typical[k] = add(dy.axes, [dy, below])
        pieces = {
            x: typical[k]
            if k < len(typical)
            else inner.get(arguments[k], zero(self.nodes[x].axes)).times(repeat.count)
            for k, x in enumerate(node.inputs)
            if x in self.trained
        }
        return {**inner, **{x: y for x, y in pieces.items() if not y.is_zero}}


def _unspread(value: GraphValue, axes: tuple[Expr, ...]) -> GraphValue:
    if value.axes == axes:
        return value
    node = GraphNode("increment", "add", ("x",), value.axes)
    return operation(node).cotangent(Operands(node, (zero(axes),), (True,)), 0, value)
