"""From the operations of PyTorch to those of a graph: the frame in which the rows stand.

A row (aten_algebra.py, aten_shapes.py, aten_layers.py) says in a few lines which nodes one aten
operation makes:

    @row("aten.linear")
    def linear(low, x, w, bias=None):
        ...
        return low.emit("contract", (x, w), shapes, equation="bi,oi->bo")

Arguments that are tensors come as `Tensor` (a name and its shapes at all sizes), numbers that
grow as `Varying`. What has no row becomes a node of its own name, which the theory refuses by that
name and line, if a trained tensor or an output needs it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import lru_cache
from typing import Any, TypeAlias, TypeVar

from sympy import Expr, Rational

from empirical.trace.aligned import (
    AlignedBody,
    AlignedLeaf,
    AlignedOperation,
    AlignedProgram,
    Shapes,
    Varying,
)
from empirical.trace.export import LeafKind, Ref, Where, place
from empirical.trace.growth import growth
from scaling.models.graph import Graph, GraphNode, GraphParameter, Repeat
from scaling.sizes.errors import InvalidInput, NotCovered

Number: TypeAlias = "int | float | Varying"
Made: TypeAlias = "Traced | tuple[Traced, ...]"
ROWS: dict[str, Callable[..., Any]] = {}
Row = TypeVar("Row", bound=Callable[..., Any])


def row(*names: str) -> Callable[[Row], Row]:
    """Register what aten operations make, by their names without overloads."""

    def register(function: Row) -> Row:
        ROWS.update(dict.fromkeys(names, function))
        return function

    return register


@dataclass(frozen=True)
class Traced:
    """A tensor of the graph: the node that makes it, and its shapes at all sizes."""

    name: str
    shapes: Shapes
    whole: bool = False
    """Whether it holds whole numbers or truth values."""

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.shapes[0])

    def length(self, axis: int) -> tuple[int, ...]:
        """The length of an axis at each size."""
        return tuple(shape[axis] for shape in self.shapes)

    def axis(self, index: int) -> int:
        """An axis counted from 0, from one that may be counted from the end."""
        return index % self.rank if self.rank else 0

    def replaced(self, axis: int, lengths: Sequence[int]) -> Shapes:
        """Its shapes with other lengths of one axis."""
        return tuple(
            (*s[:axis], n, *s[axis + 1 :]) for s, n in zip(self.shapes, lengths, strict=True)
        )

    def without(self, *axes: int, keep: bool = False) -> Shapes:
        """Its shapes without some axes, or with length one there."""
        return tuple(
            tuple(
                1 if i in axes else n for i, n in enumerate(s) if keep or i not in axes
            )
            for s in self.shapes
        )  # fmt: skip


@dataclass
class Lowering:
    """A graph in the making."""

    axis: str
    sizes: tuple[int, ...]
    nodes: list[GraphNode] = field(default_factory=list)
    made: dict[str, Made] = field(default_factory=dict)
    leaves: dict[str, AlignedLeaf] = field(default_factory=dict)
    parameters: dict[str, GraphParameter] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    where: Where = field(default_factory=Where)
    current: AlignedOperation | None = None
    results: dict[str, Traced] = field(default_factory=dict)
    """By node, the tensor that it makes."""
    passed_over: set[str] = field(default_factory=set)
    """Nodes of weights that another product was read in the place of."""
    _names: set[str] = field(default_factory=set)
    _met: set[str] = field(default_factory=set)
    """Names of results that depend on data, or are fed to a layer."""

    # --- nodes ----------------------------------------------------------------------------------

    def emit(
        self,
        op: str,
        inputs: Sequence[Traced],
        shapes: Shapes,
        whole: bool = False,
        **attributes: Any,
    ) -> Traced:
        """Add a node, and return its result."""
        name = self._unused(self.current.name if self.current else op)
        node = GraphNode(
            name,
            op,
            tuple(x.name for x in inputs),
            self.exponents(shapes),
            attributes,
            _text(self.where),
        )
        self.nodes.append(node)
        if op in ("argument", "noise", "feed") or any(x.name in self._met for x in inputs):
            self._met.add(name)
        self.results[name] = Traced(name, shapes, whole)
        return self.results[name]

    def read_nodes(self, ends: Sequence[str]) -> tuple[GraphNode, ...]:
        """The nodes without those that nothing reads any more, where a weight was passed over."""
        read = set(ends)
        for node in reversed(self.nodes):
            if node.name in read or node.name not in self.passed_over:
                read |= {node.name, *node.inputs}
        return tuple(node for node in self.nodes if node.name in read or not node.inputs)

    def depends_on_data(self, x: Traced) -> bool:
        """Whether a tensor is made of data, or was fed to a layer."""
        return x.name in self._met

    def fed(self, x: Traced) -> Traced:
        """The input of a layer: where it is made of the model's own tensors, that is where it acts.

        Latents, query vectors, a table of coordinates or times: what a layer is called with is an
        activation, and not a part of the layer's weight.
        """
        if x.name in self._met or x.whole:
            return x
        before, self.current = self.current, None
        found = self.emit("feed", (x,), x.shapes)
        self.current = before
        return found

    def constant(self, value: Number, shapes: Shapes | None = None) -> Traced:
        """A number of the code, whose exponent is read off the sizes."""
        values = value.values if isinstance(value, Varying) else (value,) * len(self.sizes)
        grown = growth(self.sizes, values)
        self._note(grown.note, f"the number {values[0]:g}")
        return self.emit(
            "constant", (), shapes or ((),) * len(self.sizes),
            exponent=_rational(grown.exponent), value=f"{values[0]:g}",
        )  # fmt: skip

    def tensor(self, value: Any) -> Traced:
        """A tensor as it is; a number as a constant."""
        return value if isinstance(value, Traced) else self.constant(value)

    def exponent(self, values: Sequence[float], of: str = "a length") -> Expr:
        """The exponent of a length or a number, from its values at all sizes."""
        found = growth(self.sizes, tuple(values), of)
        self._note(found.note, f"the length {values[0]:g}")
        return _rational(found.exponent)

    def exponents(self, shapes: Shapes, of: str = "a length") -> tuple[Expr, ...]:
        """The exponent of each axis."""
        return tuple(self.exponent(lengths, of) for lengths in zip(*shapes, strict=True))

    def _note(self, note: str, what: str) -> None:
        if note:
            text = f"{what} is read as it grows at large sizes: it is {note}"
            if text not in self.notes:
                self.notes.append(text)

    def _unused(self, base: str) -> str:
        name, count = base, 1
        while name in self._names:
            count += 1
            name = f"{base}.{count}"
        self._names.add(name)
        return name

    def add_leaf(self, aligned: AlignedLeaf) -> None:
        """Add a parameter, a buffer or data."""
        leaf = aligned.leaf
        op = {LeafKind.PARAMETER: "parameter", LeafKind.BUFFER: "buffer"}.get(leaf.kind, "data")
        attributes = {"integer": leaf.whole} if op == "data" else {}
        axes = self.exponents(aligned.shapes, f"a length of '{leaf.name}'")
        self._names.add(leaf.name)
        if op == "data":
            self._met.add(leaf.name)
        self.nodes.append(GraphNode(leaf.name, op, (), axes, attributes, leaf.name))
        self.results[leaf.name] = Traced(leaf.name, aligned.shapes, leaf.whole)
        self.made[leaf.name] = self.results[leaf.name]

    def lowered(self, operation: AlignedOperation) -> Made:
        """The nodes of one operation of PyTorch."""

        def value(x: Any) -> Any:
            if isinstance(x, Ref):
                return self.made[x.name]
            return tuple(value(y) for y in x) if isinstance(x, tuple) else x

        args = [value(x) for x in operation.args]
        kwargs = {k: value(v) for k, v in operation.kwargs.items()}
        if operation.body is not None:
            return self._repeated(operation, operation.body, args, kwargs["count"])
        function = ROWS.get(operation.target) or ROWS.get(operation.base)
        inputs = [x for x in _flat((*args, *kwargs.values())) if isinstance(x, Traced)]
        if function is None:
            if operation.whole or (inputs and all(x.whole for x in inputs)):
                return self.emit("discrete", inputs, operation.shapes, whole=True)
            return self.emit(operation.target, inputs, operation.shapes)
        taken = inspect.signature(function).parameters
        if not any(p.kind is p.VAR_KEYWORD for p in taken.values()):
            kwargs = {k: v for k, v in kwargs.items() if k in taken}
        try:
            made: Made = function(self, *args, **kwargs)
        except InvalidInput as error:  # a number that fits no power: with the line
            raise InvalidInput(
                f"{error.found}, at {place(operation.where)}", error.needed, error.do_this
            ) from None
        if isinstance(made, Traced) and made.shapes != operation.shapes:
            raise self.refused(
                f"{operation.target}, read as of shape {made.shapes[0]} where PyTorch has "
                f"{operation.shapes[0]}",
                f"arguments of {operation.target} that are known here",
                "write it with plain sums, products and views",
            )
        return made

    def _repeated(
        self, operation: AlignedOperation, body: AlignedBody, args: list[Traced], count: Any
    ) -> Made:
        nodes, self.nodes = self.nodes, []
        for leaf in body.leaves:
            self.add_leaf(self.leaves[leaf])
        for i, (name, x) in enumerate(zip(body.arguments, args, strict=True)):
            self.current = replace(operation, name=name)
            self.made[name] = self.emit("argument", (), x.shapes, x.whole, position=i)
        for inner in body.operations:
            self.current, self.where = inner, inner.where
            self.made[inner.name] = self.lowered(inner)
        results = [self.made[name] for name in body.outputs]
        names = tuple(x.name for x in results if isinstance(x, Traced))
        own = tuple(self.parameters[name] for name in body.leaves if name in self.parameters)
        graph = Graph(self.axis, self.read_nodes(names), own, names)
        self.nodes, self.current, self.where = nodes, operation, operation.where
        values = count.values if isinstance(count, Varying) else (count,) * len(self.sizes)
        repeat = Repeat(graph, self.exponent(values))
        first = self.emit("repeat", args, results[0].shapes, repeat=repeat)  # type: ignore[union-attr]
        rest = [
            self.emit("item", (first,), x.shapes, index=i)  # type: ignore[union-attr]
            for i, x in enumerate(results[1:], 1)
        ]
        return (first, *rest)

    # --- shapes ---------------------------------------------------------------------------------

    def reshape(self, x: Traced, shapes: Shapes) -> Traced:
        """The same entries in other axes."""
        if x.shapes == shapes:
            return x
        return self.emit("reshape", (x,), shapes, x.whole, groups=groups(x.shapes, shapes))

    def permute(self, x: Traced, order: Sequence[int]) -> Traced:
        """The axes in another order."""
        order = tuple(i % x.rank for i in order)
        if order == tuple(range(x.rank)):
            return x
        shapes = tuple(tuple(s[i] for i in order) for s in x.shapes)
        return self.emit("permute", (x,), shapes, x.whole, order=order)

    def result(self) -> Shapes:
        """The shapes of the operation that is lowered."""
        assert self.current is not None, "an operation is being lowered"
        return self.current.shapes

    def broadcast(self, *values: Traced) -> Shapes:
        """The shapes of an entrywise operation."""
        rank = max(x.rank for x in values)
        padded = [[(1,) * (rank - len(s)) + s for s in x.shapes] for x in values]
        return tuple(
            tuple(max(lengths) if min(lengths) else 0 for lengths in zip(*several, strict=True))
            for several in zip(*padded, strict=True)
        )

    def pointwise(self, op: str, *values: Any, **attributes: Any) -> Traced:
        """An entrywise operation with broadcasting."""
        found = tuple(self.tensor(x) for x in values)
        return self.emit(op, found, self.broadcast(*found), **attributes)

    def along(self, x: Traced, like: Traced, axis: int) -> Traced:
        """A vector laid along one axis of ``like``, so that it broadcasts from the right."""
        ones = like.rank - 1 - axis
        return self.reshape(x, tuple((*s, *(1,) * ones) for s in x.shapes)) if ones else x

    def refused(self, found: str, needed: str, do_this: str) -> NotCovered:
        """A refusal that names the line of the user's code."""
        return NotCovered(f"{found}, at {place(self.where)}", needed, do_this)


def lower(axis: str, program: AlignedProgram, parameters: Sequence[GraphParameter]) -> Lowered:
    """The graph of a program.

    Args:
        axis: the name of what grows.
        program: the operations at all sizes.
        parameters: how each tensor starts.
    """
    low = Lowering(axis, program.sizes, parameters={p.name: p for p in parameters})
    low.leaves = {x.leaf.name: x for x in program.leaves}
    inside = {name for o in _all(program.operations) if o.body for name in o.body.leaves}
    for leaf in program.leaves:
        if leaf.leaf.name not in inside:
            low.add_leaf(leaf)
    for operation in program.operations:
        low.current, low.where = operation, operation.where
        low.made[operation.name] = low.lowered(operation)
    loss = low.made[program.output]
    assert isinstance(loss, Traced), "a loss is one tensor"
    own = {n.name for n in low.nodes if n.op in ("parameter", "buffer", "data", "constant")}
    above = {n.name for n in low.nodes if n.where.startswith("(loss)")}
    read = [i for n in low.nodes if n.name in above for i in n.inputs if i not in above | own]
    outputs = tuple(dict.fromkeys(read)) or (loss.name,)
    outer = tuple(p for p in parameters if p.name not in inside)
    graph = Graph(axis, low.read_nodes((*outputs, loss.name)), outer, outputs, loss.name)
    known = {node.name for node in graph.walk()}
    found = {k: x.name for k, x in low.made.items() if isinstance(x, Traced)}
    made = {k: name for k, name in found.items() if name in known}
    return Lowered(graph, tuple(low.notes), made, program.standing)


@dataclass(frozen=True)
class Lowered:
    """A graph, what was read into it, and the node that each operation of PyTorch became."""

    graph: Graph
    notes: tuple[str, ...]
    made: Mapping[str, str]
    standing: tuple[Mapping[str, str], ...] = ()
    """At each size: names of operations and tensors there -> those that ``made`` knows."""


def _all(operations: Sequence[AlignedOperation]) -> Iterator[AlignedOperation]:
    for o in operations:
        yield o
        if o.body:
            yield from _all(o.body.operations)


def _flat(values: Sequence[Any]) -> list[Any]:
    return [y for x in values for y in (_flat(x) if isinstance(x, tuple) else [x])]


@lru_cache(maxsize=65536)
def groups(before: Shapes, after: Shapes) -> tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]:
    """Pairs of axes of a reshape that hold the same entries at all sizes, as fine as can be.

    >>> groups(((2, 6, 4), (2, 12, 4)), ((2, 3, 2, 4), (2, 3, 4, 4)))
    (((0,), (0,)), ((1,), (1, 2)), ((2,), (3,)))
    """
    count = len(before)
    found: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    i = j = 0
    ranks = len(before[0]), len(after[0])
    while i < ranks[0] or j < ranks[1]:
        ins: list[int] = []
        outs: list[int] = []
        left, right = [1] * count, [1] * count
        while True:
            if (not ins or _less(left, right)) and i < ranks[0]:
                ins.append(i)
                left = [n * s[i] for n, s in zip(left, before, strict=True)]
                i += 1
            elif (not outs or left != right) and j < ranks[1]:
                outs.append(j)
                right = [n * s[j] for n, s in zip(right, after, strict=True)]
                j += 1
            elif left != right and i < ranks[0]:
                ins.append(i)
                left = [n * s[i] for n, s in zip(left, before, strict=True)]
                i += 1
            else:
                break
        found.append((tuple(ins), tuple(outs)))
    return _joined(found)


def _less(x: Sequence[int], y: Sequence[int]) -> bool:
    return x != y and all(a <= b for a, b in zip(x, y, strict=True))


def _joined(
    pairs: list[tuple[tuple[int, ...], tuple[int, ...]]],
) -> tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]:
    """Axes of length one that have no partner belong to their neighbour."""
    found: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    for ins, outs in pairs:
        if found and (not ins or not outs):
            last = found[-1]
            found[-1] = ((*last[0], *ins), (*last[1], *outs))
        else:
            found.append((ins, outs))
    if len(found) > 1 and not (found[0][0] and found[0][1]):
        (a, b), (c, d), *rest = found
        found = [((*a, *c), (*b, *d)), *rest]
    return tuple(found)


def _rational(x: Fraction) -> Expr:
    return Rational(x.numerator, x.denominator)


def _text(where: Where) -> str:
    module = where.module or "model"
    return f"{module}: {where.file}:{where.line}" if where.file else module
