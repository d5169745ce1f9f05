"""d of dampings, layer by layer: each damping is as large as what it is added to.

Reading the rule with unknown dampings records an equation wherever one meets another term. Where
those have no solution, the largest dampings of which none drowns what it is added to (bounded
damping), and the assumption says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import sympy
from sympy import Expr, Symbol

from scaling.calculus.context import Context
from scaling.calculus.read import read_update
from scaling.models.chain import Layer
from scaling.rules.symbols import SymbolKind
from scaling.sizes.errors import Conflict
from scaling.solve import equations
from scaling.solve.conditions import BALANCED_DAMPING, BOUNDED_DAMPING, Condition, Place, fixes
from scaling.states.network_state import Dampings, NetworkState
from scaling.states.problem import Problem

ContextOf = Callable[[list[Symbol], Mapping[str, Expr]], Context]
"""(unknown dampings, all of d) -> the layer as the rule sees it."""


def unsolved(problem: Problem, layer: Layer) -> dict[str, Expr]:
    """The exponent of every damping, decay and radius: given, or a symbol of its own."""
    given = {k: v for (k, name), v in problem.settings.d.items() if name == layer.name}
    return {k: given.get(k, Symbol(f"d_{k}_{layer.name}")) for k in problem.rule.scaled}


def dampings(
    state: NetworkState, start: Dampings, conditions: tuple[Condition, ...]
) -> tuple[dict[str, dict[str, Expr]], dict[str, str]]:
    """All of d with the dampings solved for, and by layer what was assumed, which may be empty.

    Raises:
        Conflict: if the equations have no solution, and bounded damping is not asked for.
    """
    d, weaker = dict[str, dict[str, Expr]](), dict[str, str]()
    network = state.contexts(start)
    for layer in state.problem.setting.layers:

        def read(unknown: list[Symbol], d: Mapping[str, Expr], layer: Layer = layer) -> Context:
            return replace(state.context(layer, d, unknown), network=network)

        name = layer.name
        d[name], weaker[name] = in_layer(state.problem, layer, start[name], read, conditions)
    return d, weaker


def in_layer(
    problem: Problem,
    layer: Layer,
    start: Mapping[str, Expr],
    context_of: ContextOf,
    conditions: tuple[Condition, ...],
) -> tuple[dict[str, Expr], str]:
    """The d of one layer with its dampings solved for, and what was assumed."""
    symbols = [Symbol(f"d_{k}_{layer.name}") for k in problem.rule.dampings]
    unknown = [symbol for symbol in symbols if symbol in start.values()]
    if not unknown or not fixes(SymbolKind.DAMPING, conditions):
        return dict(start), ""
    context = context_of(unknown, start)
    update = read_update(context, problem.rule.expression)
    place = Place(layer, update=update, unknown=frozenset(unknown))
    try:
        solution, weaker = equations.solve(BALANCED_DAMPING.equations(place), unknown, layer), ""
    except Conflict:
        if BOUNDED_DAMPING not in conditions:
            raise
        asked = BOUNDED_DAMPING.equations(place)
        solution, weaker = equations.largest(asked, unknown, layer, context.bounds)
    return {name: sympy.expand(x.subs(solution)) for name, x in start.items()}, weaker
