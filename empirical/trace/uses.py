"""Where a tensor of a model meets data: the operation of PyTorch, and the axes of its matrix.

    contracted   axes that the product sums over with the data: fan_in
    left         axes of the result alone: fan_out
    batched      axes of which every index has a matrix of its own: experts, groups

A tensor that is used twice (tied embeddings) is read at the use of its largest gradient.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from empirical.trace.lowering import Lowered
from scaling.models.graph import GraphNode
from scaling.models.operations.products import equation_of, fans
from scaling.states.graph_passes import Passes
from scaling.states.tensor_uses import main_use


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

    def batched(self, rank: int) -> tuple[int, ...]:
        """Axes of which every index has a matrix of its own."""
        return tuple(k for k in range(rank) if k not in (*self.contracted, *self.left))

    def fan_in(self, shape: Sequence[int]) -> int:
        """The number of terms that an entry of the product adds up, for a tensor of that shape."""
        return math.prod(shape[k] for k in self.contracted)


def uses(state: Passes, lowered: Lowered, names: Iterable[str]) -> dict[str, Use | None]:
    """The use of each tensor; None where no operation of PyTorch stands for it."""
    return {name: use_of(state, lowered, name) for name in names}


def use_of(state: Passes, lowered: Lowered, name: str) -> Use | None:
    """The product with data that gives a tensor its gradient."""
    node, i = main_use(state, name)
    operation = next(
        (o for o, n in lowered.made.items() if n == node.name or _is_part(n, node.name)), None
    )
    if operation is None:
        return None
    rank = len(state.parameters[name].axes)
    at = state.operands(node)
    of = fans(at, i)
    if node.inputs[i] != name:
        left = (0,) if rank else ()
        return Use(node, operation, tuple(range(1, rank)), left, False, False, of.is_bias)
    direct = node.op == "contract" and len(equation_of(at)[0]) == 2
    summed, kept = tuple(sorted(of.contracted)), tuple(sorted(of.left))
    return Use(node, operation, summed, kept, direct, is_bias=of.is_bias)


def _is_part(last: str, node: str) -> bool:
    """Whether a node is one of several that an operation of PyTorch became."""
    return last.rpartition(".")[0] == node or last.split(".")[0] == node.split(".")[0] != last
