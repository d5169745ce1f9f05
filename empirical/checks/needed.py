"""The questions of a coordinate check, to every node and tensor of a model.

    init     of a node     at most Theta(1), or what the start of the graph gives it
    change   of a node     at most what it bears; of what the loss reads, exactly that: it moves
    own      of a tensor   the change of its own product, as `verify --model` asks it

What only moves from the second step on (A of LoRA below a zero B) is asked for then. Over several
steps queries and keys move as at the start of attention first, and more later: the larger of both
readings bounds them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sympy import S

from empirical.fit.exponent import Estimate
from empirical.verify.graph_verification import Question, own_product
from scaling.models.terms import larger
from scaling.solve.graph_solution import GraphDerived
from scaling.states.graph_passes import Passes


def questions(
    answer: GraphDerived, start: Passes, nodes: Mapping[str, str], steps: int
) -> Iterator[Question]:
    """All that is asked.

    Args:
        answer: the exponents of a plan.
        start: the graph at the start.
        nodes: operation -> node of the graph.
        steps: how many there are.
    """
    for operation, node in nodes.items():
        size = start.values[node].size
        if size is not S.NegativeInfinity:
            yield operation, "init", larger(size, S.Zero), True
    for name, x in answer.tensors.items():
        one = own_product(x, steps)
        if one is not None:
            yield (name, "own", *one)
    for operation, node in nodes.items():
        if node in start.tolerances and start.tolerances[node].coherent.is_finite:
            reads = node in answer.graph.outputs
            yield operation, "change", start.tolerances[node].coherent, not reads


def reading(fit: Estimate, margin: float) -> str:
    """The course of a size over the axis, in a word; empty where its interval leaves it open."""
    if fit.low > margin:
        return "grows"
    if fit.high < -margin:
        return "shrinks"
    return "flat" if -margin <= fit.low and fit.high <= margin else ""
