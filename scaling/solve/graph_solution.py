"""`derive_graph` solves the conditions on a graph: b, c and d of every tensor, for any network.

    b   stable start and maximal readback, where a tensor meets data (states/graph_forward.py)
    d   balanced damping, and balanced decay      (tensor_rates.py)
    c   maximal update: the largest rate at which no node above moves by more than it bears

in two states: at the *start*, and *moved*, with every tensor at W + dW (states/moved_state.py). A
rate must keep both stable, so the smaller one is the answer; d is that of the moved state, in which
all further steps are.

Where another node binds than the tensor's own product, constants of the code keep it from a
maximal update; code_changes.py says what they would have to be, such as logits over head_size and
not its root, or a residual multiplier.

Not covered, and refused: gradients at moved weights (ascended), sums over layers where the number
of layers grows, alignments that are given.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sympy import Expr, S, Symbol

from scaling.models.building import with_multipliers
from scaling.models.chain import Layer
from scaling.models.graph import Graph, Start
from scaling.models.settings import Settings
from scaling.rules.language import Node
from scaling.rules.parser import as_rule
from scaling.rules.rule import Rule
from scaling.sizes.scale import Bounds
from scaling.solve.code_changes import CodeChange, code_changes
from scaling.solve.conditions import STANDARD, Condition
from scaling.solve.graph_assumptions import (
    assumptions,
    refuse_growing_data,
    refuse_what_chains_alone_have,
)
from scaling.solve.tensor_rates import TensorRate, tensor_rates
from scaling.states.graph_passes import Passes
from scaling.states.moved_state import two_states
from scaling.states.problem import Problem
from scaling.states.tensor_uses import tensor_sizes


@dataclass(frozen=True)
class TensorAnswer:
    """The answer for a tensor; exponents as everywhere, see CONVENTION."""

    name: str
    b: Expr
    c: Expr
    d: Mapping[str, Expr]
    binds: str
    fan_in: Expr
    fan_out: Expr
    start: TensorRate
    moved: TensorRate


@dataclass(frozen=True)
class GraphDerived:
    """The answer for a graph."""

    rule: Rule
    graph: Graph
    tensors: Mapping[str, TensorAnswer]
    changes: tuple[CodeChange, ...]
    assumptions: tuple[str, ...]
    free: tuple[str, ...]


def derive_graph(
    rule: Rule | Node | str,
    graph: Graph,
    settings: Settings | None = None,
    conditions: Iterable[Condition] = STANDARD,
    sampled_fisher: bool = False,
) -> GraphDerived:
    """Solve the conditions for every trained tensor of a graph.

    Args:
        rule: the update rule, as an object, a tree or text.
        graph: the network.
        settings: a, b, c, d by the name of a tensor, and symbols of the rule, held fixed.
        conditions: what is asked; see conditions.py.
        sampled_fisher: K-FAC's B from sampled instead of the loss's own cotangents.

    Raises:
        NotCovered: if an operation has no row, or the calculus does not cover the rule.

    >>> from scaling.models.architectures import perceptron
    >>> answer = derive_graph("sign(G)", perceptron(3))
    >>> {name: (x.b, x.c) for name, x in answer.tensors.items()}
    {'input': (0, 0), 'hidden': (1/2, 1), 'output': (1, 1)}
    """
    problem = Problem(as_rule(rule), settings=settings or Settings(), sampled_fisher=sampled_fisher)
    refuse_what_chains_alone_have(problem.rule, graph)
    graph = with_multipliers(graph, problem.settings.a)
    start, moved = two_states(graph, problem.settings.b)
    refuse_growing_data(problem.rule, start)
    imposed, bounds = tuple(conditions), problem.bounds()
    first, second = (tensor_rates(problem, imposed, x, bounds) for x in (start, moved))
    tensors = {
        name: _answer(problem, start, one.layer, first[name], second[name], bounds)
        for name, one in tensor_sizes(start).items()
    }
    free = [f"c_{k}" for k, x in tensors.items() if x.start.c is None and x.moved.c is None]
    return GraphDerived(
        problem.rule,
        graph,
        tensors,
        code_changes(graph, start, moved),
        assumptions(graph, start),
        tuple(free),
    )


def _answer(
    problem: Problem,
    state: Passes,
    layer: Layer,
    start: TensorRate,
    moved: TensorRate,
    bounds: Bounds,
) -> TensorAnswer:
    """The smaller of both rates, unless one is given."""
    name = layer.name
    known = [x for x in (start, moved) if x.c is not None]
    c: Expr = Symbol(f"c_{name}")
    for k, x in enumerate(known):
        c = x.c if k == 0 else bounds.larger(c, x.c)
    binds = next((x.binds for x in reversed(known) if x.c == c), "")
    c = problem.settings.c.get(name, c)
    b = _start_exponent(state, name)
    return TensorAnswer(name, b, c, moved.d, binds, layer.fan_in, layer.fan_out, start, moved)


def _start_exponent(state: Passes, name: str) -> Expr:
    p = state.parameters[name]
    if p.start is Start.ZERO:
        return S.Infinity
    return state.b.get(name, p.b if p.b is not None else S.Zero)
