"""Dependence in a graph: data, trained tensors, weights, parts, repeated blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from scaling.models.graph import Graph, GraphNode, Repeat
from scaling.states.picked_matrices import picked_matrices


class GraphStructure:
    """A graph with its bodies: nodes and tensors by name, and who reads them.

    ``data``: names of nodes that depend on data; ``trained``: on a trained tensor; ``stands_for``:
    what an argument of a body is outside, where it is the same at every pass; ``parts``: names of
    the parts that slices take, where none overlap; ``branches``: what blocks add to their stream.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.nodes = {node.name: node for node in graph.walk()}
        self.parameters = {p.name: p for g in _graphs(graph) for p in g.parameters}
        self.readers = _readers(graph)
        self.parts = _parts(self.readers)
        bodies = _graphs(graph)[1:]
        added = [increments(body, k) or [] for body in bodies for k in range(len(body.outputs))]
        self.branches = frozenset(x for terms in added for x in terms)
        self.stands_for: dict[str, str] = {}
        self.data: set[str] = set()
        self.trained: set[str] = set()
        self._classify(graph)
        for node in self.nodes.values():
            self.data -= picked_matrices(node, self.nodes, self.readers, self.data)

    def _classify(self, graph: Graph) -> None:
        for node in graph.nodes:
            if node.op in ("data", "noise", "feed") or any(x in self.data for x in node.inputs):
                self.data.add(node.name)
            owner = self.parameters.get(node.name)
            if (owner and owner.trained) or any(x in self.trained for x in node.inputs):
                self.trained.add(node.name)
            repeat = node.get("repeat")
            if isinstance(repeat, Repeat):
                for _ in range(2):
                    for k, name in enumerate(arguments_of(repeat.body)):
                        sources = [node.inputs[k], *repeat.body.outputs[k : k + 1]]
                        for known in (self.data, self.trained):
                            if any(x in known for x in sources):
                                known.add(name)
                        if k >= len(repeat.body.outputs):
                            self.stands_for[name] = node.inputs[k]
                    self._classify(repeat.body)
                if any(x in self.data for x in repeat.body.outputs):
                    self.data.add(node.name)
                if any(x in self.trained for x in repeat.body.outputs):
                    self.trained.add(node.name)

    def is_weight(self, name: str) -> bool:
        """Whether a node is made of parameters alone, or of matrices that are picked from them."""
        node = self.nodes[name]
        if name in self.data:
            return False
        if node.op == "argument":
            return name in self.stands_for and self.is_weight(self.stands_for[name])
        return node.op == "parameter" or any(self.is_weight(x) for x in node.inputs)

    def tensors(self, name: str) -> list[str]:
        """The parameters that a weight is made of."""
        node = self.nodes[name]
        if node.op == "parameter":
            return [name]
        if node.op == "argument":
            return self.tensors(self.stands_for[name]) if name in self.stands_for else []
        return [x for one in node.inputs if self.is_weight(one) for x in self.tensors(one)]


def increments(body: Graph, k: int) -> list[str] | None:
    """The whole branches that a residual body adds to its k-th argument; None if it adds none.

    A branch is one value, biases and its own factors included: a sum is taken apart only where it
    holds the argument itself.
    """
    start = arguments_of(body)[k]
    nodes = {node.name: node for node in body.nodes}

    def is_stream(name: str) -> bool:
        node = nodes[name]
        passes = node.op == "add" or (node.op == "identity" and not node.get("detached", False))
        return name == start or (passes and any(is_stream(x) for x in node.inputs))

    if not is_stream(body.outputs[k]):
        return None
    found: list[str] = []
    left = [body.outputs[k]]
    while left:
        name = left.pop()
        for x in nodes[name].inputs if name != start else ():
            (left if is_stream(x) else found).append(x)
    return found


def arguments_of(body: Graph) -> list[str]:
    """The names of what a body is called with, in order."""
    leaves = [node for node in body.nodes if node.op == "argument"]
    return [node.name for node in sorted(leaves, key=lambda node: int(node.get("position", 0)))]


def names_of(graph: Graph) -> list[str]:
    """The names of all nodes, those of bodies too."""
    return [node.name for node in graph.walk()]


def _graphs(graph: Graph) -> list[Graph]:
    inner = [n.get("repeat").body for n in graph.nodes if isinstance(n.get("repeat"), Repeat)]
    return [graph, *(x for one in inner for x in _graphs(one))]


def _readers(graph: Graph) -> dict[str, list[GraphNode]]:
    found: dict[str, list[GraphNode]] = {}
    for node in graph.walk():
        for name in dict.fromkeys(node.inputs):
            found.setdefault(name, []).append(node)
    return found


def _parts(readers: Mapping[str, Sequence[GraphNode]]) -> dict[str, str]:
    """Names of the parts that slices take of a value along an axis, where none overlap."""
    found: dict[str, str] = {}
    for nodes in readers.values():
        by_axis: dict[int, dict[str, tuple[int, int]]] = {}
        for node in nodes:
            if node.op == "slice" and node.get("start") is not None:
                extent = (int(node.get("start")), int(node.get("stop")))
                by_axis.setdefault(int(node.get("axis")), {})[node.name] = extent
        for extents in by_axis.values():
            distinct = sorted(set(extents.values()))
            if all(x[1] <= y[0] for x, y in pairwise(distinct)):
                found |= {one: f"{first}:{last}" for one, (first, last) in extents.items()}
    return found
