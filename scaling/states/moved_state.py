"""The two states of a graph: at the start, and moved, with every tensor at W + dW.

dW is as large as it may be and along the tensor's own gradient. What starts at zero, or meets
independent weights only at the start, has another gradient from the second step on: LoRA's A below
B = 0, queries and keys below a projection that has begun to follow them.

How large dW may be follows from what the nodes above bear, which follows from dW: the state is read
again with what was found until no tensor has to move less and no gradient appears. A tensor that
had to move less below others which were to move less themselves is then given back what the state
bears of it, if that state is stable too.

>>> from scaling.models.architectures import lora
>>> start, moved = two_states(lora())
>>> "A" in start.cotangents, moved.cotangents["A"].size
(False, 0)
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from sympy import Expr

from scaling.models.graph import Graph
from scaling.models.terms import smaller
from scaling.states.graph_passes import Passes, Tolerance

MOST_ROUNDS = 6


def two_states(
    graph: Graph,
    b: Mapping[str, Expr] | None = None,
    extra: Mapping[str, Expr] | None = None,
    still: Collection[str] = (),
) -> tuple[Passes, Passes]:
    """The graph at the start, and with every tensor moved as far as is stable.

    Args:
        graph: the network.
        b: exponents of drawn tensors that are given.
        extra: by node, an exponent of a factor that the result is multiplied by.
        still: tensors that their rule never moves.
    """
    extra = extra or {}
    start = Passes(graph, dict(b or {}), extra=extra)
    state, caps = start, dict[str, Tolerance]()
    for _ in range(MOST_ROUNDS):
        along = {k: state.cotangents[k] for k in state.parameters if k in state.cotangents}
        along = {k: g for k, g in along.items() if k not in still}
        if state is start:
            caps = {k: start.tolerances[k] for k in along}
        new = Passes(graph, dict(start.b), moved=along, caps=caps, extra=extra)
        stricter = _stricter(new)
        if not stricter and _moving(new, still) == set(along):
            return start, _given_back(start, new, still)
        caps |= stricter
        state = new
    return start, state


def _moving(state: Passes, still: Collection[str]) -> set[str]:
    """The tensors that have a gradient in a state."""
    return {k for k in state.parameters if k in state.cotangents and k not in still}


def _stricter(state: Passes) -> dict[str, Tolerance]:
    """The tolerances that are smaller than how far their tensors move."""
    return {
        k: state.tolerances[k]
        for k in state.moved
        if k in state.updates
        and smaller(state.tolerances[k].coherent, state.updates[k]) != state.updates[k]
    }


def _given_back(start: Passes, state: Passes, still: Collection[str]) -> Passes:
    """The state with caps of an earlier round raised to what it bears now, while it is stable."""
    for _ in range(MOST_ROUNDS):
        raised = {
            k: start.tolerances[k].least(bears)
            for k, bears in state.bears.items()
            if k in state.updates and k in start.tolerances
        }
        raised = {
            k: cap
            for k, cap in raised.items()
            if smaller(cap.coherent, state.caps[k].coherent) != cap.coherent
        }
        if not raised:
            break
        trial = Passes(
            state.graph, dict(start.b), moved=state.moved, caps={**state.caps, **raised},
            extra=state.extra,
        )  # fmt: skip
        if _stricter(trial) or _moving(trial, still) != set(state.moved):
            break
        state = trial
    return state
