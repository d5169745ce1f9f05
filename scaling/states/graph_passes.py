"""The three passes over a graph: sizes forward, cotangents back, tolerances back.

    forward     the value of every node; where b of a drawn tensor is not given, the largest start
                for which its product is of order one, and passes on changes of order one
    cotangent   d loss / d node; at a parameter that is its gradient G
    tolerance   how large a change of a node may be so that nothing above it moves by more than it
                bears; a change that follows the gradient, and one in random directions

The sizes of one state of the network follow from its weights alone: at the start, and *moved*,
where every trained tensor has one more term, as large as it may be and along its own gradient. So
second steps need no rules of their own: dW^T delta, logits between aligned queries and keys, and
the gradient below a readout that started at zero come out of the same products.

The passes are built on one another: graph_structure.py says what depends on what, graph_forward.py
solves b, graph_cotangents.py goes back. This file has the tolerances. A change of the stream of a
repeat passes through the other blocks as the stream itself does, and one of a vector k that a
matrix k v^T is made of is followed to where the matrix is summed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

from sympy import Expr, S

from scaling.models.graph import Graph, GraphNode, Repeat, Start
from scaling.models.operations.table import operation
from scaling.models.terms import GraphValue, add, drawn, smaller
from scaling.states.critical_chain import FROM_BELOW, is_chain, powers_of
from scaling.states.graph_cotangents import CotangentPass
from scaling.states.graph_forward import sum_of_blocks
from scaling.states.graph_structure import arguments_of, increments, names_of

Path: TypeAlias = tuple[str, "Path"] | None
"""Nodes from here to the one that binds, as (first, the rest)."""


@dataclass(frozen=True)
class Tolerance:
    """How large a change may be: entry sizes, the nodes that bind them, and the ways there.

    ``own`` is what the first product with data bears, that is maximal update of the tensor alone;
    each for a change along the cotangents and for a random one; ``own_by`` is that product.
    """

    coherent: Expr = S.Infinity
    random: Expr = S.Infinity
    by: str = ""
    random_by: str = ""
    own: Expr = S.Infinity
    own_random: Expr = S.Infinity
    own_by: str = ""
    path: Path = None
    random_path: Path = None

    def least(self, other: Tolerance) -> Tolerance:
        """The stricter one."""
        first = self if smaller(other.coherent, self.coherent) == self.coherent else other
        second = self if smaller(other.random, self.random) == self.random else other
        product = self if smaller(other.own, self.own) == self.own else other
        return Tolerance(
            first.coherent,
            second.random,
            first.by,
            second.random_by,
            smaller(self.own, other.own),
            smaller(self.own_random, other.own_random),
            product.own_by,
            first.path,
            second.random_path,
        )

    def over(self, node: str, coherent: Expr, turned: Expr, random: Expr) -> Tolerance:
        """For what is multiplied by so much in a node before it arrives.

        ``coherent``: the part that follows the cotangents and goes on doing so; ``turned``: all of
        it, in whatever direction; ``random``: what did not follow them before.
        """
        along, across = self.coherent - coherent, self.random - turned
        follows = smaller(across, along) == along
        return Tolerance(
            smaller(along, across),
            self.random - random,
            self.by if follows else self.random_by,
            self.random_by,
            smaller(self.own - coherent, self.own_random - turned),
            self.own_random - random,
            self.own_by,
            (node, self.path if follows else self.random_path),
            (node, self.random_path),
        )

    @property
    def way(self) -> tuple[str, ...]:
        """The nodes from here to the one that binds a change along the cotangents."""
        found, left = [], self.path
        while left is not None:
            found.append(left[0])
            left = left[1]
        return tuple(found)


class Passes(CotangentPass):
    """One state of a graph, with all three passes; see the module.

    Args:
        graph: the network.
        b: exponents of drawn tensors; those that are missing are solved for and added.
        moved: by tensor, the cotangents that its update follows; empty at the start.
        caps: by tensor, what is known to be borne in other states that its rate must keep stable.
        extra: by node, an exponent of a factor that the result is multiplied by.

    ``bears``: by tensor, what this state alone bears of it, whatever its cap.
    """

    def __init__(
        self,
        graph: Graph,
        b: Mapping[str, Expr] | None = None,
        moved: Mapping[str, GraphValue] | None = None,
        caps: Mapping[str, Tolerance] | None = None,
        extra: Mapping[str, Expr] | None = None,
    ) -> None:
        limits = {name: cap.coherent for name, cap in (caps or {}).items()}
        super().__init__(graph, b, moved, limits, extra)
        self.caps = caps or {}
        self.anchored: set[str] = set()
        self.tolerances = self._with_tolerances()

    def _with_tolerances(self) -> dict[str, Tolerance]:
        found = self._tolerate(self.graph, {})
        self.bears = {name: found[name] for name in self.caps if name in found}
        for name, cap in self.caps.items():
            strictest = Tolerance(cap.coherent, by=cap.by, path=cap.path)
            found[name] = found.get(name, Tolerance()).least(strictest)
        return found

    def _tolerate(self, graph: Graph, seeds: Mapping[str, Tolerance]) -> dict[str, Tolerance]:
        found = dict(seeds)
        for node in reversed(graph.nodes):
            above = found.get(node.name, Tolerance())
            if not node.inputs:
                continue
            if isinstance(node.get("repeat"), Repeat):
                inner = self._tolerate_repeat(node, node.get("repeat"), found)
                for name in names_of(node.get("repeat").body):
                    if name in inner:
                        found[name] = inner.pop(name)
            elif node.op == "item":
                inner = {f"{node.inputs[0]}[{node.get('index')}]": above}
            else:
                inner = {}
                for i, name in enumerate(node.inputs):
                    if name in self.trained and not self._is_followed(node, i):
                        one = self._of_input(node, i, above)
                        if self._is_outer(node, i):
                            one = one.least(self._of_outer(graph, node, i, found))
                        inner[name] = inner[name].least(one) if name in inner else one
            for name, one in inner.items():
                found[name] = found[name].least(one) if name in found else one
        return found

    def _of_input(self, node: GraphNode, i: int, above: Tolerance) -> Tolerance:
        name, at, row = node.inputs[i], self.operands(node), operation(node)
        factor = self.extra.get(node.name, S.Zero)
        if self.is_weight(name) and not self.is_weight(node.name):
            natural = self.natural(node, self.values[node.name]) + factor
            above = replace(above, own=natural, own_random=natural, own_by=node.name)
        coherent = turned = S.NegativeInfinity
        along = self.cotangents.get(name)
        if along is not None and not along.is_zero:
            turned = row.change(at, i, along).size - along.size + factor
            coherent = smaller(turned, self._followed(node, i, along))
        across = self._random(name)
        random = row.change(at, i, across).size - across.size + factor
        found = above.over(node.name, coherent, turned, random)
        bears = None if self._bears_anything(node, i) else row.bears(at, i)
        if bears is not None:
            label = f"{name} into {node.name}"
            found = Tolerance(bears, bears, label, label).least(found)
        return found

    def _is_outer(self, node: GraphNode, i: int) -> bool:
        """Whether it makes a matrix of vectors, such as k v^T, of which one is the input."""
        if node.op not in ("multiply", "contract") or self.is_weight(node.inputs[i]):
            return False
        most = max(_growing(self.values[x]) for x in node.inputs)
        return most < _growing(self.values[node.name])

    def _of_outer(
        self, graph: Graph, node: GraphNode, i: int, found: Mapping[str, Tolerance]
    ) -> Tolerance:
        """The tolerance of k where k v^T is made, from where an axis of the matrix is summed.

        Its change dk v^T follows the cotangents q delta^T along one axis and not along the other:
        neither kind of change that the nodes between have a tolerance for. So it is taken on to
        each product q (k v^T), however often the matrix is scaled and added to before.
        """
        along, least = self.cotangents.get(node.inputs[i]), Tolerance()
        if along is None or along.is_zero:
            return least
        change = operation(node).change(self.operands(node), i, along).times(-along.size)
        changes = {node.name: change}
        for reader in graph.nodes[graph.nodes.index(node) + 1 :]:
            if changes.keys().isdisjoint(reader.inputs) or reader.name not in found:
                continue
            if isinstance(reader.get("repeat"), Repeat) or reader.op == "item":
                continue
            row, at, factor = operation(reader), self.operands(reader), self.extra.get(reader.name)
            parts = [
                row.change(at, j, changes[x]) for j, x in enumerate(reader.inputs) if x in changes
            ]
            after = add(reader.axes, parts).times(factor or S.Zero)
            if after.is_zero:
                continue
            if _growing(after) == _growing(change):
                changes[reader.name] = after
                continue
            never = S.NegativeInfinity
            one = found[reader.name].over(reader.name, never, after.size, never)
            least = least.least(replace(one, own=S.Infinity, own_random=S.Infinity, own_by=""))
        return least

    def _bears_anything(self, node: GraphNode, i: int) -> bool:
        """A weight in a product of weights does: what its product bears is judged further up.

        Where a weight is divided by, as under a spectral norm, an update larger than the weight
        would take its place.
        """
        product = node.op in ("contract", "multiply", "convolve") or (
            node.op == "divide" and i == 0
        )
        return product and self.is_weight(node.inputs[i])

    def _is_followed(self, node: GraphNode, i: int) -> bool:
        """Whether a weight meets a kept vector where gradients stop: a power iteration's.

        The vector turns with the weight, to first order without a change of what is made of both.
        """
        kept = any(self.nodes[x].op == "buffer" for x in node.inputs)
        return kept and self.is_weight(node.inputs[i]) and node.name not in self.cotangents

    def _followed(self, node: GraphNode, i: int, along: GraphValue) -> Expr:
        """How large the part of a change is that follows the cotangents above, J dx along delta.

        <J dx, delta> = <dx, J^T delta>, where dx lies along all of the cotangent of x, and J^T
        delta is the part of it that comes from here.
        """
        above = self.cotangents.get(node.name)
        piece = self.pieces.get((node.name, i), S.NegativeInfinity)
        if above is None or above.is_zero or piece is S.NegativeInfinity:
            return S.NegativeInfinity
        return along.count - above.count + 2 * piece - along.size - above.size

    def _random(self, name: str) -> GraphValue:
        """A change in random directions: a multiple of what is there, or fresh."""
        value = self.values[name]
        p = self.parameters.get(name)
        if value.is_zero or (p and p.start is Start.DRAWN):
            return drawn(name, value.axes, S.Zero)
        return value

    def _tolerate_repeat(
        self, node: GraphNode, repeat: Repeat, found: Mapping[str, Tolerance]
    ) -> dict[str, Tolerance]:
        body, arguments = repeat.body, arguments_of(repeat.body)
        above = [
            found.get(node.name if k == 0 else f"{node.name}[{k}]", Tolerance())
            for k in range(len(body.outputs))
        ]
        typical = list(above)
        inner: dict[str, Tolerance] = {}
        for last in (False, True):
            seeds: dict[str, Tolerance] = {}
            for k, one in enumerate(typical):
                terms = increments(body, k)
                if terms is None:
                    grows = last and is_chain(repeat)
                    share = one.over(node.name, *powers_of(repeat.count)) if grows else one
                    seeds[body.outputs[k]] = share
                elif last:
                    for x in terms:
                        value, own = self.values[x], {p.name for p in body.parameters}
                        grows = sum_of_blocks(value, repeat.count, own).size - value.size
                        grows = repeat.count if value.is_zero else grows
                        share = one.over(node.name, repeat.count, grows, grows)
                        seeds[x] = seeds[x].least(share) if x in seeds else share
            inner = self._tolerate(body, seeds)
            if not last:
                self.anchored |= {x for x, one in inner.items() if one.coherent is not S.Infinity}
                typical = [
                    one.least(inner.get(arguments[k], Tolerance())) for k, one in enumerate(above)
                ]
        passed = {}
        for k, x in enumerate(node.inputs):
            if x in self.trained:
                one = inner.get(arguments[k], Tolerance())
                if k < len(above) and increments(body, k) is not None:
                    one = typical[k]
                elif k < len(above) and is_chain(repeat):
                    spread = FROM_BELOW * repeat.count
                    one = typical[k].over(node.name, S.Zero, spread, S.Zero)
                elif k < len(above):
                    one = one.least(typical[k])
                else:
                    one = one.over(node.name, repeat.count, repeat.count, repeat.count)
                passed[x] = one
        return {**inner, **passed}


def _growing(value: GraphValue) -> int:
    """The number of axes that grow."""
    return sum(n != 0 for n in value.axes)
