"""The questions of a coordinate check, to every node and tensor of a model.

    init     of a node     at most Theta(1), or what the start of the graph gives it
    change   of a node     at most what it bears; of what the loss reads, exactly that: it moves
    own      of a tensor   the change of its own product, as at the largest stable rate

At the first step a tensor may be bound by what it only does later (queries and keys at the start of
attention), so that its product moves less, and by yet less where its damping is that of later steps
and is felt: the larger of the two readings bounds it. What only moves from the second step on (A of
LoRA below a zero B) is asked for then.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sympy import Expr, S

from empirical.fit.exponent import Estimate
from empirical.verify.graph_verification import Question
from scaling.models.terms import larger
from scaling.solve.graph_solution import GraphDerived, TensorAnswer
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
        one = _own(x, steps)
        if one is not None:
            yield (name, "own", *one)
    for operation, node in nodes.items():
        if node in start.tolerances and start.tolerances[node].coherent.is_finite:
            reads = node in answer.graph.outputs
            yield operation, "change", start.tolerances[node].coherent, not reads


def _own(x: TensorAnswer, steps: int) -> tuple[Expr, bool] | None:
    if not x.c.is_number:
        return None
    first, later = (state.own for state in (x.start, x.moved))
    if first is None:
        return None if later is None or steps == 1 else (later - x.c, False)
    if later is None or first == later:
        return first - x.c, False
    return larger(first, later) - x.c, True


def reading(fit: Estimate, margin: float) -> str:
    """The course of a size over the axis, in a word; empty where its interval leaves it open."""
    if fit.low > margin:
        return "grows"
    if fit.high < -margin:
        return "shrinks"
    return "flat" if -margin <= fit.low and fit.high <= margin else ""
