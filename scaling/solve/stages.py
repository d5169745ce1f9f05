"""The stages of `derive` after b, layer by layer: radii, dampings, the learning rate, decays.

    d   of radii: the largest for which the perturbation is a stable step (ascent.py)
    d   of dampings: from the balances that reading the rule records
    c   the smallest for which the layer's update keeps the step stable
    d   of decays: lr m = Theta(1) for the multiple m of W in the update, once c is known

At the second step the same stages are taken with the sizes of that step (derive.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import sympy
from sympy import Expr, S, Symbol

from scaling.calculus.context import Context
from scaling.calculus.output_change import OutputChange
from scaling.calculus.read import read_update
from scaling.calculus.readback import Carry, reach
from scaling.models.alignment import Alignment, as_assumption
from scaling.models.chain import Layer
from scaling.models.layer_sizes import Ledger
from scaling.rules.rule import Rule
from scaling.rules.symbols import SymbolKind
from scaling.rules.tree import Call
from scaling.sizes.derivation import ALIGNMENT, CONDITION, READBACK, Step
from scaling.sizes.errors import Conflict, NotCovered
from scaling.sizes.scale import Bounds, Order, Scale, Size
from scaling.solve import balance
from scaling.solve.conditions import (
    BALANCED_DECAY,
    BOUNDED_DAMPING,
    MAXIMAL_PERTURBATION,
    MAXIMAL_UPDATE,
    STABLE_STEP,
    Condition,
    fixes,
)
from scaling.solve.decay import balanced, decays_alone
from scaling.states.problem import Problem, rate


def unsolved(problem: Problem, layer: Layer) -> dict[str, Expr]:
    """The exponent of every damping, decay and radius: given, or a symbol of its own."""
    given = {k: v for (k, name), v in problem.settings.d.items() if name == layer.name}
    return {k: given.get(k, Symbol(f"d_{k}_{layer.name}")) for k in problem.rule.scaled}


def dampings(
    problem: Problem,
    layer: Layer,
    start: Mapping[str, Expr],
    context_of: Callable[[list[Symbol], Mapping[str, Expr]], Context],
    conditions: tuple[Condition, ...],
) -> tuple[dict[str, Expr], str]:
    """The d of dampings, from the balances that reading the rule records; decays stay as they are.

    With it the assumption that is made where the balances have no solution.

    Raises:
        Conflict: if they have none, and bounded damping is not asked for.
    """
    symbols = [Symbol(f"d_{k}_{layer.name}") for k in problem.rule.dampings]
    unknown = [symbol for symbol in symbols if symbol in start.values()]
    if not unknown or not fixes(SymbolKind.DAMPING, conditions):
        return dict(start), ""
    context = context_of(unknown, start)
    equations = balance.balances(read_update(context, problem.rule.expression).step, unknown)
    try:
        solution, weaker = balance.solve(equations, unknown, layer), ""
    except Conflict:
        if BOUNDED_DAMPING not in conditions:
            raise
        solution, weaker = balance.bounded(equations, unknown, layer, context.bounds)
    return {name: sympy.expand(x.subs(solution)) for name, x in start.items()}, weaker


def radii(
    problem: Problem,
    call: Call,
    start: Mapping[str, Mapping[str, Expr]],
    books: Ledger,
    carry: Carry,
    bounds: Bounds,
    conditions: tuple[Condition, ...],
) -> tuple[dict[str, dict[str, Expr]], dict[str, Step]]:
    """All of d by layer, with the radii and dampings in a perturbation X; and what said so.

    The radius is the largest for which X is stable as a step: as c in `learning_rate`, at a rate
    of one.

    Raises:
        NotCovered: if what X does in one layer depends on the radius of another.
    """
    layers, d = problem.setting.layers, {name: dict(x) for name, x in start.items()}
    settings = replace(problem.settings, c={})
    alone = replace(problem, rule=Rule(call.argument), settings=settings)
    for layer in layers:

        def read(unknown: list[Symbol], d: Mapping[str, Expr], layer: Layer = layer) -> Context:
            return alone.context(books, layer, d, bounds, unknown)

        d[layer.name], _ = dampings(alone, layer, d[layer.name], read, conditions)
    lines: dict[str, Step] = {}
    if not fixes(SymbolKind.RADIUS, conditions):
        return d, lines
    contexts, solved = alone.contexts(books, d, bounds), dict(d)
    for layer in layers:
        name = layer.name
        unknown = [symbol for symbol in _radii_of(alone, layer) if symbol in d[name].values()]
        if not unknown:
            continue
        update = read_update(contexts[name], call.argument)
        stable = (MAXIMAL_UPDATE, STABLE_STEP)
        c, line = learning_rate(alone, layer, update, carry, bounds, stable)
        others = {s for x in layers if x is not layer for s in _radii_of(alone, x)}
        if c.free_symbols & others:
            raise NotCovered(
                f"'{call}', in which the perturbation of {name} depends on the radii of others",
                "a radius beside the norm, not inside a sum over layers",
                "write radius * G / sqrt(over_layers(norm(G)**2))",
            )
        if c == Symbol(f"c_{name}"):  # nothing moves: the radius stays open
            continue
        solution = balance.solve([balance.Balance(call, c, S.Zero)], unknown, layer)
        solved[name] = {k: sympy.expand(x.subs(solution)) for k, x in d[name].items()}
        for k in alone.rule.radii:
            size = rate(solved[name][k])
            text = f"{MAXIMAL_PERTURBATION.name}: X h = 1 with the radius {size}"
            lines[name] = Step(CONDITION, f"{k} of {name}", size, text, line.inputs)
    return solved, lines


def _radii_of(problem: Problem, layer: Layer) -> list[Symbol]:
    return [Symbol(f"d_{k}_{layer.name}") for k in problem.rule.radii]


def decays(problem: Problem, layer: Layer, conditions: tuple[Condition, ...]) -> list[Symbol]:
    """The exponents of decays that are to be solved for."""
    if not fixes(SymbolKind.DECAY, conditions):
        return []
    given = problem.settings.d
    names = [k for k in problem.rule.decays if (k, layer.name) not in given]
    return [Symbol(f"d_{k}_{layer.name}") for k in names]


def descent(update: OutputChange) -> OutputChange:
    """The update without its multiple of W."""
    nothing = Scale.zero(Size.ENTRY)
    return replace(update, random=update.common or nothing, multiple=Scale.zero(Size.SCALAR))


def following(
    rule: Rule,
    layer: Layer,
    update: OutputChange,
    c: Expr,
    start: Mapping[str, Expr],
    unknown: Sequence[Symbol],
) -> dict[str, Expr]:
    """All of d, with the decays that follow a learning rate M^(-c).

    Raises:
        NotCovered: if a decay does anything but shrink the weights.
    """
    decays_alone(update, unknown, layer.name, rule.expression)
    equation = balanced(update, rate(c), rule.expression)
    solution = balance.solve([equation], list(unknown), layer)
    return {k: sympy.expand(x.subs(solution)) for k, x in start.items()}


def with_decays(
    rule: Rule, layer: Layer, line: Step, update: OutputChange, c: Expr, d: Mapping[str, Expr]
) -> Step:
    """The derivation of c, followed by that of the decays."""
    for k in rule.decays:
        text = f"{BALANCED_DECAY.name}: {rate(c)} x {update.multiple} = 1"
        line = Step(CONDITION, f"{k} of {layer.name}", rate(d[k]), text, (line,), time=line.time)
    return line


def learning_rate(
    problem: Problem,
    layer: Layer,
    update: OutputChange,
    carry: Carry,
    bounds: Bounds,
    conditions: tuple[Condition, ...],
) -> tuple[Expr, Step]:
    """c, the smallest for which this layer's update keeps the step stable, or as it is given."""
    settings = problem.settings
    if layer.name in settings.c:
        given = settings.c[layer.name]
        line = Step(CONDITION, f"c of {layer.name}", rate(given), "given", (update.step,))
        free = replace(problem, settings=replace(settings, c={}))
        c, _ = learning_rate(free, layer, update, carry, bounds, conditions)
        if c == Symbol(f"c_{layer.name}") or bounds.order(given, c) is Order.EQUAL:
            return given, line
        text = f"{MAXIMAL_UPDATE.name} is not imposed: c_{layer.name} is given"
        return given, line.because(f"{text}, where the largest stable step has {c}")
    own = update.coherent.plus(update.random, bounds)
    symbol, time = Symbol(f"c_{layer.name}"), update.step.time
    if own.is_zero:
        blank = Step(CONDITION, f"c of {layer.name}", own, "", (update.step,), time=time)
        which = "first" if time == 1 else "second"
        known = [s.result for s in update.step.walk() if s.subject == f"delta_{layer.position}"]
        what = "gradient" if any(size.is_zero for size in known) else "update"
        return symbol, blank.because(
            f"the {which} step does not move the {layer.name} layer: its {what} is exactly zero"
        )
    if MAXIMAL_UPDATE not in conditions:
        return symbol, Step(CONDITION, f"c of {layer.name}", own, "free", (update.step,))
    limit, premises = own, [update.step]
    if STABLE_STEP in conditions:
        given = problem.setting.alignments
        passed: list[Alignment] = []
        for position, size in reach(problem.setting, layer, update, carry, bounds).items():
            last = position == problem.setting.depth
            if position > layer.position:
                passed += [given[x.name] for x in problem.setting.at(position) if x.name in given]
            if last or passed:  # without a given alignment dh stays as large as dW h was
                rule, name = (READBACK, "df") if last else (ALIGNMENT, f"dh_{position}")
                text = f"from dW h {own}"
                name = f"{name} per learning rate"
                step = Step(rule, name, size, text, (update.step,), time=time)
                premises.append(step.because(as_assumption(passed)) if passed else step)
                limit = limit.plus(size, bounds)
    c = sympy.expand(limit.width)
    text = f"{MAXIMAL_UPDATE.name}: M^(-c) x {limit} = 1"
    return c, Step(CONDITION, f"c of {layer.name}", rate(c), text, tuple(premises), time=time)
