"""Sizes forward through a graph: the value of every node, and b of tensors where data meet them.

A tensor is *used* where it, or what is made of weights alone, meets data. There b is solved:

    b = max(x, r)    x: the size of the product at b = 0 (CLT over fan_in: n/2)
                     r: of a change that follows the cotangents, W W^T delta (n - k/2, k: fan_out)

which is a spectral norm of sqrt(fan_out/fan_in): 1/2 in hidden layers, 1 at a readout, 0 at an
embedding. Factors of the code between the product and what has a scale of its own count as well.

Repeats. A residual block adds its terms to what it carries; M^L of them add up as M^(L/2) where
each has its own random signs, as M^L where they share a direction. A body is read as a typical
block: called with what came first, and with what the blocks have added. Blocks that add nothing to
what they are called with are critical_chain.py's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from sympy import Expr, S

from scaling.models.graph import Graph, GraphNode, GraphParameter, Repeat, Start
from scaling.models.operations.row import Operands, OperationRow
from scaling.models.operations.table import operation
from scaling.models.terms import GraphValue, add, constant, drawn, larger, smaller, spread, zero
from scaling.sizes.errors import NotCovered
from scaling.sizes.scale import HALF
from scaling.states.critical_chain import refuse_unless_critical
from scaling.states.graph_structure import GraphStructure, arguments_of, increments

MOST_STARTS = 4
LEAVES = ("data", "buffer", "constant", "noise", "parameter", "argument")


class ForwardPass(GraphStructure):
    """A graph with the value of every node.

    Args:
        graph: the network.
        b: exponents of drawn tensors; those that are missing are solved for and added.
        moved: by tensor, the cotangents that its update follows; empty at the start.
        limits: by tensor, the largest update that is known to be stable.
        extra: by node, an exponent of a factor that the result is multiplied by.
    """

    def __init__(
        self,
        graph: Graph,
        b: Mapping[str, Expr] | None = None,
        moved: Mapping[str, GraphValue] | None = None,
        limits: Mapping[str, Expr] | None = None,
        extra: Mapping[str, Expr] | None = None,
    ) -> None:
        super().__init__(graph)
        self.b, self.given = dict(b or {}), frozenset(b or {})
        self.moved, self.limits, self.extra = moved or {}, limits or {}, extra or {}
        self.values: dict[str, GraphValue] = {}
        self.updates: dict[str, Expr] = {}
        self.needs: dict[str, dict[str, Expr]] = {}
        self.forward(graph)
        if self._raised():
            self._again(graph)
            for _ in range(MOST_STARTS):
                self.needs.clear()
                self._again(graph)
                if not self._lowered():
                    break
            else:
                self._again(graph)

    def _again(self, graph: Graph) -> None:
        self.updates.clear()
        self.forward(graph)

    def forward(self, graph: Graph) -> None:
        """The value of every node."""
        for node in graph.nodes:
            if isinstance(node.get("repeat"), Repeat):
                self._repeat(node, node.get("repeat"))
            elif node.op not in ("argument", "item") and not self.is_weight(node.name):
                self.values[node.name] = self._value(node)
            elif node.op == "item":
                self.values[node.name] = self.values[f"{node.inputs[0]}[{node.get('index')}]"]

    def _value(self, node: GraphNode) -> GraphValue:
        if node.op in ("data", "buffer"):
            return constant(node.axes)
        if node.op == "constant":
            known = _literal(node)
            return (
                zero(node.axes) if known == 0 else constant(node.axes, node.get("exponent", S.Zero))
            )
        if node.op == "noise":
            return drawn(node.name, node.axes, S.Zero)
        if not any(self.is_weight(x) for x in node.inputs):
            return self._result(node)
        for i, name in enumerate(node.inputs):
            if self.is_weight(name):
                self._start(node, i)
        for i, name in enumerate(node.inputs):
            if self.is_weight(name):
                self._move(node, i)
        for name in node.inputs:
            if self.is_weight(name):
                self.weight(name)
        return self._result(node)

    def _result(self, node: GraphNode) -> GraphValue:
        value = operation(node).start(self.operands(node))
        return value.times(self.extra.get(node.name, S.Zero))

    def weight(self, name: str) -> GraphValue:
        """The value of a node that is made of parameters alone, as its tensors are known so far."""
        node = self.nodes[name]
        if node.op == "parameter":
            value = self._parameter(self.parameters[name])
        elif node.op == "argument":
            value = self.weight(self.stands_for[name])
        elif node.op in LEAVES:
            value = self._value(node)
        else:
            for one in node.inputs:
                if self.is_weight(one) or one not in self.values:
                    self.weight(one)
            value = self._result(node)
        self.values[name] = value
        return value

    def _parameter(self, p: GraphParameter) -> GraphValue:
        b = self.b.get(p.name, p.b if p.b is not None else S.Zero)
        if p.start is Start.DRAWN:
            value = zero(p.axes) if b is S.Infinity else drawn(p.name, p.axes, -b)
        elif p.start is Start.ZERO:
            value = zero(p.axes)
        else:
            value = constant(p.axes, -b)
        if p.name in self.updates:
            along = self.moved[p.name]
            value = add(p.axes, [value, along.times(self.updates[p.name] - along.size)])
        return value

    def operands(self, node: GraphNode) -> Operands:
        """A node with the values of its inputs."""
        return Operands(
            node,
            tuple(self.values[x] for x in node.inputs),
            tuple(x in self.trained for x in node.inputs),
            tuple(_literal(self.nodes[x]) for x in node.inputs),
            self.parts.get(node.name, ""),
        )

    def _start(self, node: GraphNode, i: int) -> None:
        """Solve b of the tensors in a weight that meets data here, at their first use."""
        for name in self.tensors(node.inputs[i]):
            p = self.parameters[name]
            if p.start is not Start.DRAWN or p.b is not None or name in self.given:
                continue
            found = self.needs.setdefault(name, {})
            if node.name not in found:
                known = self.b.get(name)
                need = self._need(node, i, name)
                if need is S.NegativeInfinity:  # nothing yet: a state that starts at zero
                    self.b.pop(name)
                    self.b |= {} if known is None else {name: known}
                else:
                    found[node.name] = need
                    self.b[name] = need if known is None else larger(known, need)
                self.weight(node.inputs[i])

    def _raised(self) -> bool:
        """Whether a tensor that is used twice has got a smaller start than at its first use."""
        needs = [list(found.values()) for found in self.needs.values() if found]
        return any(larger(*found) != found[0] for found in needs)

    def _lowered(self) -> bool:
        """Whether a tensor that is used twice may start larger than its first use let it seem.

        A readout has a smaller start where the stream is large; tied to the embeddings that the
        stream begins with, it makes the stream smaller itself.
        """
        lower = {name: larger(*found.values()) for name, found in self.needs.items() if found}
        lower = {name: b for name, b in lower.items() if b != self.b[name]}
        self.b |= lower
        return bool(lower)

    def _need(self, node: GraphNode, i: int, name: str) -> Expr:
        """The b that a product with data needs."""
        self.b[name] = S.One
        for x in node.inputs:
            if self.is_weight(x):
                self.weight(x)
        unit = self.values[node.inputs[i]].size
        self.b[name] = S.Zero
        if self.weight(node.inputs[i]).size == unit:
            return S.Zero  # such as the direction of a weight norm
        at, row = self.operands(node), operation(node)
        need = row.change(at, i, at.values[i]).size
        for j, x in enumerate(node.inputs):
            if x in self.data and x in self.trained and x not in node.inputs[:j]:
                need = larger(need, self._passed(at, row, j))
        return need + self.gain_above(node.name)

    def _passed(self, at: Operands, row: OperationRow, j: int) -> Expr:
        """The size of a change of an input, of its own size and along its cotangents, passed on."""
        down = row.cotangent(at, j, drawn(f"{at.node.name} cotangent", at.axes, S.Zero))
        if down.is_zero:
            return S.NegativeInfinity
        return row.change(at, j, down).size - down.size + larger(at.values[j].size, S.Zero)

    def gain_above(self, name: str, through_sums: bool = False) -> Expr:
        """The exponent of factors of the code between a node and what has a scale of its own.

        A term of a sum need not be of order one, so that its start does not make up for a factor
        in front of it; its change may be as large as the sum bears, ``through_sums``. What a block
        adds to its stream is kept at order one. A factor in front of one side of a product of two
        activations is one of the product: q * scale before k as well as behind it.
        """
        gain = self.extra.get(name, S.Zero)
        while True:
            readers = self.readers.get(name, [])
            if len(readers) != 1:
                return S.Zero
            node = readers[0]
            others = [x for x in node.inputs if x != name]
            match node.op:
                case "multiply" if all(self.nodes[x].op == "constant" for x in others):
                    gain += sum((self.nodes[x].get("exponent", S.Zero) for x in others), S.Zero)
                case "divide" if node.inputs[0] == name and self.nodes[others[0]].op == "constant":
                    gain -= self.nodes[others[0]].get("exponent", S.Zero)
                case "add" | "subtract" if all(self.is_weight(x) for x in others):
                    pass
                case "reshape" | "permute" | "identity" | "slice":
                    pass
                case "add" | "subtract" if through_sums and name not in self.branches:
                    pass
                case "add" | "subtract" | "repeat":
                    return S.Zero
                case "contract" | "multiply" if self._is_inner(node, others):
                    return S.Zero
                case _:
                    return gain
            gain += self.extra.get(node.name, S.Zero)
            name = node.name

    def _is_inner(self, node: GraphNode, others: list[str]) -> bool:
        """Whether a product sums two activations over an axis: q @ k, or (q * k).sum(-1)."""
        if not any(x in self.data and x in self.trained for x in others):
            return False
        readers = self.readers.get(node.name, [])
        sums = len(readers) == 1 and readers[0].op == "reduce" and readers[0].get("kind") == "sum"
        return node.op == "contract" or sums

    def natural(self, node: GraphNode, value: GraphValue) -> Expr:
        """The size that a product of a weight with data has, or may come to have."""
        return larger(
            value.size - self.extra.get(node.name, S.Zero),
            -self.gain_above(node.name, through_sums=True),
        )

    def _move(self, node: GraphNode, i: int) -> None:
        """Add to the tensors of a weight what their product with data bears, if no cap is below."""
        for name in self.tensors(node.inputs[i]):
            if name not in self.moved or name in self.updates:
                continue
            for x in node.inputs:
                if self.is_weight(x):
                    self.weight(x)
            factor = self._factor_to(name, node, i)
            if factor is S.NegativeInfinity:
                continue
            bound = self.natural(node, self._result(node))
            self.updates[name] = smaller(bound - factor, self.limits.get(name, S.Infinity))

    def _factor_to(self, name: str, node: GraphNode, i: int) -> Expr:
        """How much larger a node's change is than that of a tensor in its input."""
        dx, unit = self.carried(name, self.moved[name], node.inputs[i]), self.moved[name].size
        if dx.is_zero:
            return S.NegativeInfinity
        return operation(node).change(self.operands(node), i, dx).size - unit

    def carried(self, name: str, dx: GraphValue, weight: str) -> GraphValue:
        """A change of a tensor, as what a weight makes of it."""
        if weight == name:
            return dx
        node = self.nodes[weight]
        if node.op == "argument":
            return self.carried(name, dx, self.stands_for[weight])
        found = [zero(node.axes)]
        for i, x in enumerate(node.inputs):
            if name in self.tensors(x):
                change = self.carried(name, dx, x)
                found.append(operation(node).change(self.operands(node), i, change))
        return add(node.axes, found)

    def _repeat(self, node: GraphNode, repeat: Repeat) -> None:
        body, arguments = repeat.body, arguments_of(repeat.body)
        carried = len(body.outputs)
        for name, source in zip(arguments[carried:], node.inputs[carried:], strict=True):
            if not self.is_weight(name):
                self.values[name] = self.values[source]
        first = [self.values[x] for x in node.inputs[:carried]]
        self.values.update(zip(arguments, first, strict=False))
        self.forward(body)
        for _ in range(2):
            now = [self._stream(node, repeat, k, first[k]) for k in range(carried)]
            old = [self.values[name].size for name in arguments[:carried]]
            self.values.update(zip(arguments, now, strict=False))
            self.forward(body)
        for k, (size, value) in enumerate(zip(old, now, strict=True)):
            last = self._stream(node, repeat, k, first[k])
            if not last.size == value.size == size:
                place = f" at {node.where}" if node.where else ""
                raise NotCovered(
                    f"a block that multiplies what it carries by M^({last.size - value.size}), "
                    f"in {node.name}{place}",
                    "blocks that leave the size of what they carry alone",
                    "multiply the residual branch by count**-0.5, or normalise its input",
                )
            self.values[node.name if k == 0 else f"{node.name}[{k}]"] = last

    def _stream(self, node: GraphNode, repeat: Repeat, k: int, first: GraphValue) -> GraphValue:
        """The input of a typical block: what came first, and what the blocks have added."""
        body = repeat.body
        terms = increments(body, k)
        if terms is None:
            if repeat.count != 0:
                refuse_unless_critical(self, node, repeat, self._starts_at_zero)
            return add(first.axes, [first, replace(self.values[body.outputs[k]], axes=first.axes)])
        own = {p.name for p in body.parameters}
        added = [
            sum_of_blocks(spread(self.values[x], first.axes), repeat.count, own) for x in terms
        ]
        return add(first.axes, [first, *added])

    def _starts_at_zero(self, weight: str) -> bool:
        """Whether all tensors of a weight do, in whichever state this is."""
        tensors = [self.parameters[name] for name in self.tensors(weight)]
        return all(p.start is Start.ZERO or self.b.get(p.name) is S.Infinity for p in tensors)


def sum_of_blocks(value: GraphValue, count: Expr, own: set[str]) -> GraphValue:
    """The sum over the blocks: random where each block has signs of its own."""
    terms = []
    for term in value.terms:
        fresh = any(s.odd and {name for name, _ in s.odd} <= own for s in term.along)
        terms.append(replace(term, size=term.size + count * (HALF if fresh else S.One)))
    return replace(value, terms=tuple(terms))


def _literal(node: GraphNode) -> float | None:
    if node.op != "constant" or node.get("exponent", S.Zero) != 0:
        return None
    try:
        return float(node.get("value", "1"))
    except ValueError:
        return None
