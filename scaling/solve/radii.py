"""d of radii: the largest perturbation X of ascended(X) that is a stable step (ascent.py).

The equation is that of the learning rate, at a rate of one, with the radius as the unknown. The
dampings inside X are balanced before.
"""

from __future__ import annotations

from dataclasses import replace

import sympy
from sympy import Symbol

from scaling.calculus.read import read_update
from scaling.models.chain import Layer
from scaling.rules.rule import Rule
from scaling.rules.symbols import SymbolKind
from scaling.rules.tree import Call
from scaling.sizes.derivation import CONDITION, Step
from scaling.sizes.errors import NotCovered
from scaling.sizes.scale import Scale, Size
from scaling.solve import equations
from scaling.solve.conditions import (
    MAXIMAL_PERTURBATION,
    MAXIMAL_UPDATE,
    STABLE_STEP,
    Condition,
    Place,
    fixes,
)
from scaling.solve.damping import dampings
from scaling.solve.learning_rate import learning_rate
from scaling.states.network_state import Dampings, NetworkState
from scaling.states.problem import Problem, rate


def radii(
    state: NetworkState, start: Dampings, conditions: tuple[Condition, ...]
) -> tuple[Dampings, dict[str, tuple[Step, ...]]]:
    """All of d by layer, with the radii and dampings of every perturbation; and what said so.

    Raises:
        NotCovered: if what X does in one layer depends on the radius of another.
    """
    d, lines = start, dict[str, tuple[Step, ...]]()
    for call in state.problem.rule.ascents:
        d, found = _of_perturbation(state, call, d, conditions)
        for name, line in found.items():
            lines[name] = (*lines.get(name, ()), line)
    return d, lines


def _of_perturbation(
    state: NetworkState, call: Call, start: Dampings, conditions: tuple[Condition, ...]
) -> tuple[Dampings, dict[str, Step]]:
    settings = replace(state.problem.settings, c={})
    alone = replace(state.problem, rule=Rule(call.argument), settings=settings)
    stepped = replace(state, problem=alone)
    d, _ = dampings(stepped, start, conditions)
    lines: dict[str, Step] = {}
    if not fixes(SymbolKind.RADIUS, conditions):
        return d, lines
    contexts, solved = stepped.contexts(d), dict(d)
    for layer in alone.setting.layers:
        name = layer.name
        unknown = [symbol for symbol in _symbols(alone, layer) if symbol in d[name].values()]
        if not unknown:
            continue
        update = read_update(contexts[name], call.argument)
        c, line = learning_rate(stepped, layer, update, (MAXIMAL_UPDATE, STABLE_STEP))
        others = {s for x in alone.setting.layers if x is not layer for s in _symbols(alone, x)}
        if c.free_symbols & others:
            raise NotCovered(
                f"'{call}', in which the perturbation of {name} depends on the radii of others",
                "a radius beside the norm, not inside a sum over layers",
                "write radius * G / sqrt(over_layers(norm(G)**2))",
            )
        if c == Symbol(f"c_{name}"):  # nothing moves: the radius stays open
            continue
        largest = Scale.of_width(c, Size.SCALAR)  # of what X moves, X h and all above it
        (asked,) = MAXIMAL_PERTURBATION.equations(Place(layer, moved={layer.position: largest}))
        solution = equations.solve([replace(asked, subject=str(call))], unknown, layer)
        solved[name] = {k: sympy.expand(x.subs(solution)) for k, x in d[name].items()}
        for k in alone.rule.radii:
            size = rate(solved[name][k])
            text = f"{MAXIMAL_PERTURBATION.name}: X h = 1 with the radius {size}"
            lines[name] = Step(CONDITION, f"{k} of {name}", size, text, line.inputs)
    return solved, lines


def _symbols(problem: Problem, layer: Layer) -> list[Symbol]:
    return [Symbol(f"d_{k}_{layer.name}") for k in problem.rule.radii]
