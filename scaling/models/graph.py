"""A network as data: a graph of operations on tensors whose axes grow with one quantity M.

    Graph            nodes in the order of evaluation, the tensors they use, outputs and loss
    GraphNode        one operation: its inputs by name, exponents of its axes, where it is written
    GraphParameter   a tensor: name, axes, whether it is trained, and how it starts
    Repeat           a block that is passed M^count times: its body is a graph of its own

M is one quantity at a time: width, depth, heads, head size, experts, rank, sequence, batch,
vocabulary. An axis of length Theta(M^x) has the exponent x, an exact rational; a fixed length has
0. So a matrix of shape (4 M, 3 M + 7) has the axes (1, 1), a batch of 32 rows of width M (0, 1).
Constants of the code that grow have exponents likewise: ``head_size**-0.5`` has -1/2 where M is
the head size.

Two front ends make graphs: a tracer of PyTorch models, and architectures.py. The table in
operations says what each operation does to sizes. Nothing here knows torch.

Contract, for whoever makes a graph
-----------------------------------

* Names are unique over the graph and the bodies of its repeats. A node's inputs stand before it.
  The name of a parameter's leaf is the name of the tensor, as in ``model.named_parameters()``; a
  tensor used twice (tied embeddings) is one leaf with two consumers. Tensors of a folded block
  bear the name of the first of them; they stand for all.
* Broadcasting is from the right, as in torch. An axis of length one and a fixed axis both have the
  exponent 0.
* ``where`` is "module path: file.py:line", as far as it is known. It is what answers point at.
* What has no operation here gets its own name (``aten.fft_rfft``) and the axes of its result: the
  reader refuses it by that name and its line, and only if a trained tensor or an output needs it.

Leaves
    parameter    --                the tensor of that name
    data         integer: bool     inputs and targets, entries of size one; they do not grow
    buffer       --                a tensor of the code that is not trained, entries of size one:
                                   masks, rotary tables, running statistics
    constant     exponent, value   a number, repeated over the axes of the node; ``value`` as text,
                                   as at the smallest size
    argument     position: int     in the body of a repeat: what it is called with
    noise        --                independent entries of size one, drawn at every step

Products and sums
    contract     equation          sum over the letters that the result lacks, "bi,oi->bo": linear,
                                   matmul, bmm, einsum, outer products; a letter for each axis
    convolve     groups,           (x, w): x (batch, channels, *space), w as in torch (out,
                 transposed: bool  in/groups, *kernel), or (in, out/groups, *kernel) where
                                   transposed; ``groups`` is the exponent of their number
    multiply     --                entry by entry, two inputs or more, with broadcasting
    divide       --                (x, y)
    add          --                two inputs or more, with broadcasting
    subtract     --                (x, y)

Entry by entry
    apply        function: str     a name in node_functions.py: relu, gelu, silu, tanh,
                                   sigmoid, erf, exp, log, abs, sign, sin, ...
    power        exponent          x ** 2, rsqrt as -1/2, sqrt as 1/2
    select       --                (condition, x, y): torch.where, masked_fill
    discrete     --                integers or booleans, through which nothing is differentiated:
                                   comparisons, argmax, arange, indices of topk
    feed         --                the input of a layer, where it is made of tensors of the model
                                   alone: from here on it is an activation
    identity     detached: bool    contiguous, dropout, casts; detached: gradients stop there

Over an axis (axes are counted from 0)
    reduce       kind, over, keep  kind: sum mean max min norm variance std logsumexp product;
                                   over: a tuple of axes; keep: as axes of length one
    accumulate   kind, axis        cumsum, cumprod, cummax
    softmax      axis, log: bool
    normalise    over, centred     (x - mean) / std, or x / rms where not centred, without gain and
                                   bias (a multiply and an add after it). Layer norm: the last
                                   axis; batch norm in training: batch and space; group norm:
                                   after a reshape
    pool         kind, over,       kind mean or max, over axes of space; window: the exponents of
                 window            the kernel, axis by axis
    top_k        axis              the values; their number is an axis of the result
    sort         axis

Shapes
    reshape      groups            pairs (axes in, axes out) of equal length, in order, such as
                                   (((0,), (0,)), ((1,), (1, 2))), which splits axis 1 in two:
                                   views, flatten, squeeze and unsqueeze
    permute      order             transposes
    expand       --                broadcast to the axes of the result
    slice        axis, start, stop a part; the result has the exponent of its length: split, chunk,
                                   narrow, x[..., :k]; an index that drops an axis is a slice and a
                                   reshape. start, stop: integers as at the smallest size, where
                                   they are known: parts that do not overlap are independent
    concatenate  axis              stack: reshape each, then concatenate
    rearrange    --                flip, roll, pad, pixel shuffles of fixed size: same sizes

By index
    gather       axis              (table, index): the axis is replaced by those of the index:
                                   embeddings, index_select
    take_along   axis              (x, index): torch.gather, one rank
    scatter      axis, kind        (x, index, source), kind add or replace
    one_hot      --                (index): adds a last axis, 0 or 1

Losses (the mean over everything that is left)
    cross_entropy       axis       (logits, target); target integers or probabilities
    mean_squared_error  --         (output, target)

Repeats
    repeat       repeat: Repeat    called with its inputs; the result is the first carried value
    item         index             another value that a repeat carries

Scaled dot-product attention is contract, multiply by its constant, add or select for the mask,
softmax, contract; a default scale is a constant with the line of the call. GRU and LSTM cells are
unrolled, or a repeat whose weights come in as arguments. Weight norm is the arithmetic that
PyTorch traces: reduce, divide, multiply. Mixtures: softmax, top_k, and a contract over experts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sympy import Expr, S

from scaling.sizes.errors import InvalidInput
from scaling.sizes.in_notebook import InNotebook


class Start(StrEnum):
    """How a tensor starts: its entries before the first step."""

    DRAWN = "drawn"
    """Independent entries of zero mean; their size M^(-b) is derived, or given by ``b``."""
    ZERO = "zero"
    ONE = "one"
    GIVEN = "given"
    """Numbers of the code: entries of size M^(-b), b = 0 unless given, in no random direction."""


@dataclass(frozen=True)
class GraphParameter:
    """A tensor that the model owns.

    ``axes``: exponents of its axes. ``b``: the exponent of its entries at the start, M^(-b), where
    the model fixes it; None lets it be derived. ``aliases``: further names of the same storage.
    """

    name: str
    axes: tuple[Expr, ...]
    trained: bool = True
    start: Start = Start.DRAWN
    b: Expr | None = None
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class GraphNode:
    """One operation; see the module for the operations and their attributes."""

    name: str
    op: str
    inputs: tuple[str, ...] = ()
    axes: tuple[Expr, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict, hash=False)
    where: str = ""

    def get(self, attribute: str, default: Any = None) -> Any:
        """An attribute."""
        return self.attributes.get(attribute, default)

    def __str__(self) -> str:
        inner = ", ".join(self.inputs)
        place = f" ({self.where})" if self.where else ""
        return f"{self.name} = {self.op}({inner}){place}"


@dataclass(frozen=True)
class Repeat:
    """A block passed M^count times, each time with tensors of its own.

    The body's outputs replace its first arguments at the next pass: x -> body(x, others). Further
    arguments are the same at every pass, such as masks, and weights that all passes share.
    """

    body: Graph
    count: Expr


@dataclass(frozen=True)
class Graph(InNotebook):
    """A network: nodes in the order of evaluation.

    ``axis``: what M is, such as "width". ``outputs``: names of the nodes that the loss reads; for a
    body those that replace its first arguments. ``loss``: the node of the loss; "" in a body.

    Raises:
        InvalidInput: for a name used twice, an input that does not stand before its node, or an
            output that is no node.
    """

    axis: str
    nodes: tuple[GraphNode, ...]
    parameters: tuple[GraphParameter, ...]
    outputs: tuple[str, ...]
    loss: str = ""

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for node in self.nodes:
            late = [name for name in node.inputs if name not in seen]
            if late:
                raise InvalidInput(
                    f"the node '{node}', whose input '{late[0]}' does not stand before it",
                    "nodes in the order of evaluation",
                    "put the nodes that make its inputs first",
                )
            if node.name in seen:
                raise InvalidInput(
                    f"two nodes of the name '{node.name}'", "one name a node", "rename one of them"
                )
            seen.add(node.name)
        owned = {p.name for p in self.parameters}
        leaves = {n.name for n in self.nodes if n.op == "parameter"}
        missing = [
            *(leaves - owned),
            *(x for x in (*self.outputs, self.loss) if x and x not in seen),
        ]
        if missing:
            raise InvalidInput(
                f"the name '{missing[0]}', which belongs to nothing in the graph",
                "a parameter for each of its leaves, and a node for each output",
                "add it, or leave the name out",
            )

    def node(self, name: str) -> GraphNode:
        """The node of that name."""
        return next(node for node in self.nodes if node.name == name)

    def parameter(self, name: str) -> GraphParameter:
        """The parameter of that name."""
        return next(p for p in self.parameters if p.name == name)

    def uses(self, name: str) -> list[GraphNode]:
        """The nodes that read a node or a parameter."""
        return [node for node in self.nodes if name in node.inputs]

    def walk(self) -> Iterator[GraphNode]:
        """All nodes, those in the bodies of repeats before the repeat."""
        for node in self.nodes:
            if isinstance(node.get("repeat"), Repeat):
                yield from node.get("repeat").body.walk()
            yield node


def fixed(count: int) -> tuple[Expr, ...]:
    """The axes of a tensor none of whose axes grows.

    >>> fixed(2)
    (0, 0)
    """
    return (S.Zero,) * count
