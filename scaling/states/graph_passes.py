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

A tensor is *used* where it, or what is made of weights alone, meets data. There b is solved:

    b = max(x, r)    x: the size of the product at b = 0 (CLT over fan_in: n/2)
                     r: of a change that follows the cotangents, W W^T delta (n - k/2, k: fan_out)

which is a spectral norm of sqrt(fan_out/fan_in): 1/2 in hidden layers, 1 at a readout, 0 at an
embedding. Factors of the code between the product and what has a scale of its own count as well.

Repeats. A residual block adds its terms to what it carries; M^L of them add up as M^(L/2) where
each has its own random signs, as M^L where they share a direction, as updates do. A change of the
stream passes through the other blocks as the stream itself does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from sympy import Expr, S

from scaling.models.graph import Graph, GraphNode, GraphParameter, Repeat, Start
from scaling.models.operations.row import Operands, OperationRow
from scaling.models.operations.table import operation
from scaling.models.terms import (
    GraphValue,
    add,
    constant,
    drawn,
    larger,
    smaller,
    spread,
    zero,
)
from scaling.sizes.errors import NotCovered
from scaling.sizes.scale import HALF

LEAVES = ("data", "buffer", "constant", "noise", "parameter", "argument")


@dataclass(frozen=True)
class Tolerance:
    """How large a change may be: entry sizes, and the nodes that bind them.

    ``own`` is what the first product with data bears, that is maximal update of the tensor alone;
    each for a change along the cotangents and for a random one.
    """

    coherent: Expr = S.Infinity
    random: Expr = S.Infinity
    by: str = ""
    random_by: str = ""
    own: Expr = S.Infinity
    own_random: Expr = S.Infinity

    def least(self, other: Tolerance) -> Tolerance:
        """The stricter one."""
        first = self if smaller(other.coherent, self.coherent) == self.coherent else other
        second = self if smaller(other.random, self.random) == self.random else other
        return Tolerance(
            first.coherent,
            second.random,
            first.by,
            second.random_by,
            smaller(self.own, other.own),
            smaller(self.own_random, other.own_random),
        )

    def over(self, coherent: Expr, turned: Expr, random: Expr) -> Tolerance:
        """For what is multiplied by so much before it arrives.

        ``coherent``: the part that follows the cotangents and goes on doing so; ``turned``: all of
        it, in whatever direction; ``random``: what did not follow them before.
        """
        along, across = self.coherent - coherent, self.random - turned
        return Tolerance(
            smaller(along, across),
            self.random - random,
            self.by if smaller(across, along) == along else self.random_by,
            self.random_by,
            smaller(self.own - coherent, self.own_random - turned),
            self.own_random - random,
        )


@dataclass
class Passes:
    """One state of a graph; see the module.

    Args:
        graph: the network.
        b: exponents of drawn tensors; those that are missing are solved for and added.
        moved: by tensor, the cotangents that its update follows; empty at the start.
        caps: by tensor, what is known to be borne in other states that its rate must keep stable.
        extra: by node, an exponent of a factor that the result is multiplied by.
    """

    graph: Graph
    b: dict[str, Expr] = field(default_factory=dict)
    moved: Mapping[str, GraphValue] = field(default_factory=dict)
    caps: Mapping[str, Tolerance] = field(default_factory=dict)
    extra: Mapping[str, Expr] = field(default_factory=dict)
    values: dict[str, GraphValue] = field(default_factory=dict)
    cotangents: dict[str, GraphValue] = field(default_factory=dict)
    tolerances: dict[str, Tolerance] = field(default_factory=dict)
    updates: dict[str, Expr] = field(default_factory=dict)
    pieces: dict[tuple[str, int], Expr] = field(default_factory=dict)
    needs: dict[str, dict[str, Expr]] = field(default_factory=dict)
    anchored: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.nodes = {node.name: node for node in self.graph.walk()}
        self.parameters = {p.name: p for g in _graphs(self.graph) for p in g.parameters}
        self.readers = _readers(self.graph)
        self.parts = _parts(self.readers)
        self.stands_for: dict[str, str] = {}
        self.data: set[str] = set()
        self.trained: set[str] = set()
        self._classify(self.graph)
        self.given = frozenset(self.b)
        self.forward(self.graph)
        if self._raise_starts():
            self.updates.clear()
            self.forward(self.graph)
        self.cotangents = self._with_cotangents()
        self._with_tolerances()

    # --- what depends on what --------------------------------------------------------------------

    def _classify(self, graph: Graph) -> None:
        for node in graph.nodes:
            if node.op in ("data", "noise") or any(x in self.data for x in node.inputs):
                self.data.add(node.name)
            owner = self.parameters.get(node.name)
            if (owner and owner.trained) or any(x in self.trained for x in node.inputs):
                self.trained.add(node.name)
            repeat = node.get("repeat")
            if isinstance(repeat, Repeat):
                for _ in range(2):
                    for k, name in enumerate(_arguments(repeat.body)):
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
        """Whether a node is made of parameters alone."""
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
        return [x for one in node.inputs for x in self.tensors(one)]

    # --- forward --------------------------------------------------------------------------------

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
                found[node.name] = self._need(node, i, name)
                self.b[name] = found[node.name] if known is None else known
                self.weight(node.inputs[i])

    def _raise_starts(self) -> bool:
        """Give tensors that are used twice the smaller of two starts; whether there were any."""
        raised = False
        for name, found in self.needs.items():
            most = larger(*found.values())
            if most != self.b[name]:
                self.b[name], raised = most, True
        return raised

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
        return need + self._gain_above(node.name)

    def _passed(self, at: Operands, row: OperationRow, j: int) -> Expr:
        """The size of a change of an input, of its own size and along its cotangents, passed on."""
        down = row.cotangent(at, j, drawn(f"{at.node.name} cotangent", at.axes, S.Zero))
        if down.is_zero:
            return S.NegativeInfinity
        return row.change(at, j, down).size - down.size + larger(at.values[j].size, S.Zero)

    def _gain_above(self, name: str) -> Expr:
        """The exponent of factors of the code between a node and what has a scale of its own."""
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
                case "add" | "subtract" | "repeat":
                    return S.Zero
                case _:
                    return gain
            gain += self.extra.get(node.name, S.Zero)
            name = node.name

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
            bound = self._natural(node, self._result(node))
            self.updates[name] = smaller(bound - factor, self.caps.get(name, Tolerance()).coherent)

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
        body, arguments = repeat.body, _arguments(repeat.body)
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
        """What a typical block is called with: what came first, and what the blocks have added."""
        body = repeat.body
        terms = increments(body, k)
        if terms is None:
            self._need_fixed(node, repeat)
            return add(first.axes, [first, replace(self.values[body.outputs[k]], axes=first.axes)])
        own = {p.name for p in body.parameters}
        added = [
            _sum_of_blocks(spread(self.values[x], first.axes), repeat.count, own) for x in terms
        ]
        return add(first.axes, [first, *added])

    def _need_fixed(self, node: GraphNode, repeat: Repeat) -> None:
        if repeat.count != 0:
            place = f" at {node.where}" if node.where else ""
            raise NotCovered(
                f"a number of blocks that grows, none of which adds to what it is called with, in "
                f"{node.name}{place}",
                "residual blocks: x + F(x)",
                "add the input of the block to its output, or let another axis grow",
            )

    # --- back ----------------------------------------------------------------------------------

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
                for name in {*_names(node.get("repeat").body)}:
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
        body, arguments = repeat.body, _arguments(repeat.body)
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
                    below = _sum_of_blocks(below, repeat.count, own)
                typical[k] = add(dy.axes, [dy, below])
        pieces = {
            x: typical[k]
            if k < len(typical)
            else inner.get(arguments[k], zero(self.nodes[x].axes)).times(repeat.count)
            for k, x in enumerate(node.inputs)
            if x in self.trained
        }
        return {**inner, **{x: y for x, y in pieces.items() if not y.is_zero}}

    def _with_tolerances(self) -> None:
        self.tolerances = self._tolerate(self.graph, {})
        for name, cap in self.caps.items():
            known = self.tolerances.get(name, Tolerance())
            strictest = Tolerance(cap.coherent, by=cap.by)
            self.tolerances[name] = known.least(strictest)

    def _tolerate(self, graph: Graph, seeds: Mapping[str, Tolerance]) -> dict[str, Tolerance]:
        found = dict(seeds)
        for node in reversed(graph.nodes):
            above = found.get(node.name, Tolerance())
            if not node.inputs:
                continue
            if isinstance(node.get("repeat"), Repeat):
                inner = self._tolerate_repeat(node, node.get("repeat"), found)
                for name in _names(node.get("repeat").body):
                    if name in inner:
                        found[name] = inner.pop(name)
            elif node.op == "item":
                inner = {f"{node.inputs[0]}[{node.get('index')}]": above}
            else:
                inner = {}
                for i, name in enumerate(node.inputs):
                    if name in self.trained:
                        one = self._of_input(node, i, above)
                        inner[name] = inner[name].least(one) if name in inner else one
            for name, one in inner.items():
                found[name] = found[name].least(one) if name in found else one
        return found

    def _of_input(self, node: GraphNode, i: int, above: Tolerance) -> Tolerance:
        name, at, row = node.inputs[i], self.operands(node), operation(node)
        factor = self.extra.get(node.name, S.Zero)
        if self.is_weight(name) and not self.is_weight(node.name):
            natural = self._natural(node, self.values[node.name]) + factor
            above = replace(above, own=natural, own_random=natural)
        coherent = turned = S.NegativeInfinity
        along = self.cotangents.get(name)
        if along is not None and not along.is_zero:
            turned = row.change(at, i, along).size - along.size + factor
            coherent = smaller(turned, self._followed(node, i, along))
        across = self._random(name)
        random = row.change(at, i, across).size - across.size + factor
        found = above.over(coherent, turned, random)
        bears = None if self.is_weight(name) else row.bears(at, i)
        if bears is not None:
            label = f"{name} into {node.name}"
            found = Tolerance(bears, bears, label, label).least(found)
        return found

    def _followed(self, node: GraphNode, i: int, along: GraphValue) -> Expr:
        """How large the part of a change is that follows the cotangents above, J dx along delta.

        <J dx, delta> = <dx, J^T delta>, where dx lies along all of the cotangent of x, and J^T
        delta is the part of it that comes from here.
        """
        above = self.cotangents.get(node.name)
        piece = self.pieces.get((node.name, i), S.NegativeInfinity)
        if above is None or above.is_zero or piece is S.NegativeInfinity:
            return S.NegativeInfinity
        length = sum(along.axes, S.Zero) - sum(above.axes, S.Zero)
        return length + 2 * piece - along.size - above.size

    def _natural(self, node: GraphNode, value: GraphValue) -> Expr:
        """The size that a product of a weight with data has, or may come to have."""
        return larger(value.size - self.extra.get(node.name, S.Zero), -self._gain_above(node.name))

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
        body, arguments = repeat.body, _arguments(repeat.body)
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
                    seeds[body.outputs[k]] = one
                elif last:
                    for x in terms:
                        value, own = self.values[x], {p.name for p in body.parameters}
                        grows = _sum_of_blocks(value, repeat.count, own).size - value.size
                        grows = repeat.count if value.is_zero else grows
                        share = one.over(repeat.count, grows, grows)
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
                if k < len(above):
                    one = typical[k] if increments(body, k) is not None else one.least(typical[k])
                else:
                    one = one.over(repeat.count, repeat.count, repeat.count)
                passed[x] = one
        return {**inner, **passed}


# --- parts ---------------------------------------------------------------------------------------


def increments(body: Graph, k: int) -> list[str] | None:
    """The whole branches that a residual body adds to its k-th argument; None if it adds none.

    A branch is one value, biases and its own factors included: a sum is taken apart only where it
    holds the argument itself.
    """
    start = _arguments(body)[k]
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


def _sum_of_blocks(value: GraphValue, count: Expr, own: set[str]) -> GraphValue:
    """The sum over the blocks: random where each block has signs of its own."""
    terms = []
    for term in value.terms:
        fresh = any(s.odd and {name for name, _ in s.odd} <= own for s in term.along)
        terms.append(replace(term, size=term.size + count * (HALF if fresh else S.One)))
    return replace(value, terms=tuple(terms))


def _unspread(value: GraphValue, axes: tuple[Expr, ...]) -> GraphValue:
    if value.axes == axes:
        return value
    node = GraphNode("increment", "add", ("x",), value.axes)
    return operation(node).cotangent(Operands(node, (zero(axes),), (True,)), 0, value)


def _arguments(body: Graph) -> list[str]:
    leaves = [node for node in body.nodes if node.op == "argument"]
    return [node.name for node in sorted(leaves, key=lambda node: int(node.get("position", 0)))]


def _names(graph: Graph) -> list[str]:
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


def _literal(node: GraphNode) -> float | None:
    if node.op != "constant" or node.get("exponent", S.Zero) != 0:
        return None
    try:
        return float(node.get("value", "1"))
    except ValueError:
        return None
