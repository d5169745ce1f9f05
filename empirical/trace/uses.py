"""Where a tensor of a model meets data: the operation of PyTorch, and the axes of its matrix.

    contracted   axes that the product sums over with the data: fan_in
    left         axes of the result alone: fan_out
    looked_up    axes whose rows are looked up: columns of a matrix that words, one-hot, are fed to
    batched      axes of which every index has a matrix of its own: experts

A tensor that is used twice (tied embeddings) is read at the use of its largest gradient; where the
graph is read at one size, so that no gradient is the larger one, at the first that contracts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from sympy import S

from empirical.numbers.matrix_axes import MatrixAxes
from empirical.trace.lowering import Lowered
from scaling.models.graph import GraphNode
from scaling.models.operations.products import Fans, equation_of, fans
from scaling.models.terms import drawn
from scaling.states.graph_forward import ForwardPass
from scaling.states.graph_passes import Passes
from scaling.states.tensor_uses import is_of, main_use
from scaling.states.tensor_uses import uses as uses_of


@dataclass(frozen=True)
class Use:
    """A product of a tensor with data.

    ``direct``: a product of two factors, the tensor itself and data, so that H and D are at hand;
    ``is_factor``: whether the tensor itself is the factor, and not a weight that is made of it.
    """

    node: GraphNode
    operation: str
    contracted: tuple[int, ...]
    left: tuple[int, ...]
    direct: bool
    is_factor: bool = True
    is_bias: bool = False
    looked_up: tuple[int, ...] = ()

    def axes(self, rank: int, parts: int = 1) -> MatrixAxes:
        """The axes of a tensor by what they are in its matrices."""
        columns = (*self.contracted, *self.looked_up)
        batched = tuple(k for k in range(rank) if k not in (*columns, *self.left))
        return MatrixAxes(batched, self.left, columns, parts)

    def fan_in(self, shape: Sequence[int]) -> int:
        """The number of terms that an entry of the product adds up, for a tensor of that shape."""
        return math.prod(shape[k] for k in self.contracted)


def uses(
    state: Passes, lowered: Lowered, names: Iterable[str], products: Mapping[str, str] | None = None
) -> dict[str, Use | None]:
    """The use of each tensor; None where no operation of PyTorch stands for it.

    Args:
        state: the graph at the start.
        lowered: the operations behind it.
        names: of the tensors.
        products: by tensor, the node whose change is looked at, if not that of its use.
    """
    found = {name: use_of(state, lowered, name) for name in names}
    for name, node in (products or {}).items():
        use = found.get(name)
        if use is not None and node not in ("", use.node.name):
            operation = _operation_of(state, lowered, node)
            found[name] = None if operation is None else replace(use, operation=operation)
    return found


def at_rest(state: ForwardPass, lowered: Lowered, name: str) -> Use | None:
    """The use of a tensor in a graph that was read at one size; None where nothing reads it."""
    every = uses_of(state, name)
    contracts = [(node, i) for node, i in every if fans(state.operands(node), i).contracted]
    return _use(state, lowered, name, *(contracts or every)[0]) if every else None


def use_of(state: Passes, lowered: Lowered, name: str) -> Use | None:
    """The product with data that gives a tensor its gradient."""
    return _use(state, lowered, name, *main_use(state, name))


def _use(state: ForwardPass, lowered: Lowered, name: str, node: GraphNode, i: int) -> Use | None:
    operation = _operation_of(state, lowered, node.name)
    if operation is None:
        return None
    rank = len(state.parameters[name].axes)
    at = state.operands(node)
    of = fans(at, i)
    if node.inputs[i] != name:
        summed, kept = _own_axes(state, name, node.inputs[i], of)
        return Use(node, operation, summed, kept, False, False, of.is_bias)
    direct = node.op == "contract" and len(equation_of(at)[0]) == 2
    summed, kept = tuple(sorted(of.contracted)), tuple(sorted(of.left))
    looked_up = (0,) if node.op == "gather" and rank else ()
    return Use(node, operation, summed, kept, direct, True, of.is_bias, looked_up)


def _operation_of(state: ForwardPass, lowered: Lowered, node: str) -> str | None:
    """The operation of PyTorch that a node stands for."""
    made = {o: n for o, n in lowered.made.items() if state.nodes[n].inputs}  # no leaves
    return next((o for o, n in made.items() if n == node or is_part(n, node)), None)


def _own_axes(
    state: ForwardPass, name: str, weight: str, of: Fans
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The axes of a tensor that became those of a weight, contracted and left.

    Where a weight mixes them, its first axis counts as left and the others as contracted.
    """
    p = state.parameters[name]
    unit = state.carried(name, drawn(name, p.axes, S.Zero), weight)

    def became(axes: frozenset[int]) -> tuple[int, ...]:
        seen = {
            k
            for term in unit.terms
            for m in axes
            for tensor, k in term.along[m].sources
            if is_of(tensor, name)
        }
        return tuple(sorted(seen))

    summed, kept = became(of.contracted), became(of.left)
    rank = len(p.axes)
    if not of.contracted:
        return (), tuple(range(rank))
    if set(summed) & set(kept) or len(summed) + len(kept) != rank:
        return tuple(range(1, rank)), (0,) if rank else ()
    return summed, kept


def is_part(last: str, node: str) -> bool:
    """Whether a node is one of several that an operation of PyTorch became."""
    return last.rpartition(".")[0] == node or last.split(".")[0] == node.split(".")[0] != last
