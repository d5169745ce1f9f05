"""`derive` solves the conditions for b, c and d.

In four triangular stages, each exact linear algebra over the rationals:

    b   from stable start (h_l = Theta(1)) forward through the network, and from maximal readback
        (b_L = 1) at the output;
    d   of dampings from balanced damping: each damping equals what it is added to; where one
        damping meets sizes that differ, from bounded damping: it equals the smallest;
    c   from maximal update: the learning rate is the largest that keeps a step stable;
    d   of decays from balanced decay: a step takes a Theta(1) fraction of the weights away.

What is given is kept, and the condition that would have fixed it is then not imposed. What no
condition fixes stays a symbol and is reported as free.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import islice, permutations

import sympy
from sympy import Expr, S, Symbol

from scaling.alignment import Alignment, as_assumption
from scaling.calculus import Update, read_update
from scaling.conditions import (
    BALANCED_DECAY,
    BOUNDED_DAMPING,
    MAXIMAL_READBACK,
    MAXIMAL_UPDATE,
    STABLE_START,
    STABLE_STEP,
    STANDARD,
    Condition,
    fixes,
)
from scaling.context import Balance, Regime
from scaling.decay import Shrinkage, balanced, decays_alone, shrinkage
from scaling.derivation import ALIGNMENT, CONDITION, READBACK, Step
from scaling.errors import Conflict
from scaling.language import SymbolKind
from scaling.ledger import Layer, Ledger, Setting, ledger
from scaling.problem import Exponents, Problem, rate
from scaling.readback import reach
from scaling.rule import Rule
from scaling.scale import HALF, Bounds, Order, Scale, Size
from scaling.settings import Settings

MOST_ORDERS = 720


@dataclass(frozen=True)
class Derived:
    """The solution of the conditions, with the derivation of each layer."""

    problem: Problem
    exponents: Exponents
    free: tuple[str, ...]
    assumptions: tuple[str, ...]
    steps: Mapping[str, Step]
    updates: Mapping[str, Update]
    regimes: Mapping[str, tuple[Regime, ...]]
    bounds: Bounds

    @property
    def shrinkages(self) -> list[Shrinkage]:
        """What a step takes away of the weights, layer by layer where it does."""
        x = self.exponents.c
        found = (shrinkage(k, u, rate(x[k]), self.bounds) for k, u in self.updates.items())
        return [one for one in found if one is not None]


def derive(
    rule: Rule,
    settings: Settings | None = None,
    setting: Setting | None = None,
    conditions: Iterable[Condition] = STANDARD,
    sampled_fisher: bool = False,
) -> Derived:
    """Solve the conditions for the exponents that are not given.

    Args:
        rule: the update rule.
        settings: exponents and symbols held fixed.
        setting: network, activation and loss.
        conditions: what is asked; see conditions.py.
        sampled_fisher: K-FAC's B from sampled instead of the loss's own cotangents.

    Raises:
        NotCovered: if the calculus does not cover the rule.
        Conflict: if what is given contradicts a condition.

    >>> from scaling.parser import parse
    >>> solution = derive(parse("(B + rho_B*I)**(-1) @ G @ (A + rho_A*I)**(-1)"))
    >>> solution.exponents.c
    {'input': 0, 'hidden': 0, 'output': 0}
    >>> solution.exponents.d["hidden"]
    {'rho_B': 1, 'rho_A': -1}
    """
    problem = Problem(rule, setting or Setting(), settings or Settings(), sampled_fisher)
    imposed = tuple(conditions)
    _check_names(problem)
    names = [layer.name for layer in problem.setting.layers]
    a = {name: problem.settings.a.get(name, S.Zero) for name in names}
    b, free, given_b, bounds = _initialisation(problem, a, imposed)
    assumptions: list[str] = []
    books = ledger(problem.setting, a, b, bounds)
    c: dict[str, Expr] = {}
    d: dict[str, dict[str, Expr]] = {}
    steps: dict[str, Step] = {}
    updates: dict[str, Update] = {}
    regimes: dict[str, tuple[Regime, ...]] = {}
    weaker: dict[str, str] = {}
    for layer in problem.setting.layers:
        d[layer.name], weaker[layer.name] = _dampings(problem, books, layer, bounds, imposed)
    contexts = problem.contexts(books, d, bounds)
    solved = {
        layer.name: _decays(problem, layer, d[layer.name], imposed)
        for layer in problem.setting.layers
    }
    for layer in problem.setting.layers:
        if solved[layer.name]:  # decays follow from c, and c from the descent alone
            update = read_update(contexts[layer.name], rule.expression)
            lr, _ = _learning_rate(problem, layer, descent(update), a, b, bounds, imposed)
            decays_alone(update, solved[layer.name], layer.name, rule.expression)
            equation = balanced(update, rate(lr), rule.expression)
            solution = _gauss_jordan([equation], solved[layer.name], layer)
            d[layer.name] = {k: sympy.expand(x.subs(solution)) for k, x in d[layer.name].items()}
    contexts = problem.contexts(books, d, bounds)
    for layer in problem.setting.layers:
        context = contexts[layer.name]
        update = read_update(context, rule.expression)
        moved = descent(update) if solved[layer.name] else update
        c[layer.name], step = _learning_rate(problem, layer, moved, a, b, bounds, imposed)
        for k in rule.decays if solved[layer.name] else ():
            size, multiple = rate(d[layer.name][k]), update.multiple
            text = f"{BALANCED_DECAY.name}: {rate(c[layer.name])} x {multiple} = 1"
            step = Step(CONDITION, f"{k} of {layer.name}", size, text, (step,))
        if weaker[layer.name]:
            step = step.because(weaker[layer.name])
        for text in given_b:
            step = step.because(text)
        steps[layer.name], updates[layer.name] = step, update
        regimes[layer.name] = tuple(context.regimes)
        values = (c[layer.name], *d[layer.name].values())
        symbols = {x.name for value in values for x in value.free_symbols}
        unknown = (*(f"d_{k}_{layer.name}" for k in rule.scaled), f"c_{layer.name}")
        free += [name for name in unknown if name in symbols]
        assumptions += step.assumptions()
    return Derived(
        problem,
        Exponents(a, b, c, d),
        tuple(dict.fromkeys(free)),
        tuple(dict.fromkeys(assumptions)),
        steps,
        updates,
        regimes,
        bounds,
    )


def _check_names(problem: Problem) -> None:
    """A symbol that the user gives must not bear the name of one that is solved for."""
    s = problem.settings
    given = (*s.a.values(), *s.b.values(), *s.c.values(), *s.d.values(), *s.exponents.values())
    for value in given:
        for symbol in value.free_symbols:
            if re.match(r"[bcd]_", symbol.name):
                raise Conflict(
                    f"the symbol '{symbol}' as a given exponent, where it names an unknown",
                    "a symbol of your own",
                    "choose another name, such as beta",
                )


def _initialisation(
    problem: Problem, a: Mapping[str, Expr], conditions: tuple[Condition, ...]
) -> tuple[dict[str, Expr], list[str], list[str], Bounds]:
    """Stage 1: b, from the input to the output."""
    setting, given = problem.setting, problem.settings.b
    b: dict[str, Expr] = {}
    free: list[str] = []
    assumptions: list[str] = []
    intervals: dict[str, tuple[Expr, Expr]] = {}
    for layer in setting.layers:
        name, last = layer.name, layer.position == setting.depth
        readback = last and not layer.is_bias
        smallest = HALF * layer.fan_in - a[name]  # below it u_l would grow with the width
        if name in given:
            b[name] = given[name]
            if isinstance(b[name], Symbol) and STABLE_START in conditions:
                if not last and not layer.is_bias:
                    raise Conflict(
                        f"b_{name} = {b[name]}, a symbol",
                        f"b_{name} = {smallest}: a stable start leaves no choice there",
                        "leave it out, or use `scaling predict`",
                    )
                intervals[b[name].name] = (smallest, S.Infinity)
                assumptions.append(f"{b[name]} >= {smallest} (stable start)")
            if readback and given[name] != layer.fan_in - a[name]:
                assumptions.append(f"maximal readback is not imposed: b_{name} is given")
        elif readback and MAXIMAL_READBACK in conditions:
            b[name] = layer.fan_in - a[name]
        elif not readback and STABLE_START in conditions:
            b[name] = smallest
        else:
            symbol = Symbol(f"b_{name}")
            b[name] = symbol
            free.append(symbol.name)
            if STABLE_START in conditions:
                intervals[symbol.name] = (smallest, S.Infinity)
    bounds = problem.bounds(intervals)
    if STABLE_START in conditions:
        for layer in setting.layers:
            _check_start(
                layer, b[layer.name] + a[layer.name], bounds, layer.position == setting.depth
            )
    return b, free, assumptions, bounds


def _check_start(layer: Layer, std: Expr, bounds: Bounds, last: bool) -> None:
    order = bounds.order(HALF * layer.fan_in - std, S.Zero)
    if order is Order.GREATER or (order is Order.LESS and not last and not layer.is_bias):
        grows = "grows" if order is Order.GREATER else "vanishes"
        needed = f"a + b = {HALF * layer.fan_in}" if not last else f"a + b >= {HALF * layer.fan_in}"
        raise Conflict(
            f"a + b = {std} in the {layer.name} layer, whose output then {grows} with the width",
            f"{needed} there (stable start: {STABLE_START.statement})",
            "leave b out, or use `scaling predict`, which evaluates any exponents as they are",
        )


def _dampings(
    problem: Problem,
    books: Ledger,
    layer: Layer,
    bounds: Bounds,
    conditions: tuple[Condition, ...],
) -> tuple[dict[str, Expr], str]:
    """Stage 2: d of dampings, from the balances that reading the rule records; decays stay open.

    With it the assumption that is made where the balances have no solution.
    """
    given = {k: v for (k, name), v in problem.settings.d.items() if name == layer.name}
    start = {k: given.get(k, Symbol(f"d_{k}_{layer.name}")) for k in problem.rule.scaled}
    unknown = [start[k] for k in problem.rule.dampings if k not in given]
    if not unknown or not fixes(SymbolKind.DAMPING, conditions):
        return start, ""
    context = problem.context(books, layer, start, bounds, unknown)
    read_update(context, problem.rule.expression)
    try:
        solution, weaker = _gauss_jordan(context.balances, unknown, layer), ""
    except Conflict:
        if BOUNDED_DAMPING not in conditions:
            raise
        solution, weaker = _bounded(context.balances, unknown, layer, bounds)
    return {name: sympy.expand(x.subs(solution)) for name, x in start.items()}, weaker


def _decays(
    problem: Problem, layer: Layer, d: Mapping[str, Expr], conditions: tuple[Condition, ...]
) -> list[Symbol]:
    """The exponents of decays that are to be solved for."""
    if not fixes(SymbolKind.DECAY, conditions):
        return []
    asked = [Symbol(f"d_{k}_{layer.name}") for k in problem.rule.decays]
    return [symbol for symbol in asked if symbol in d.values()]


def descent(update: Update) -> Update:
    """The update without its multiple of W."""
    return replace(update, random=Scale.zero(Size.ENTRY), multiple=Scale.zero(Size.SCALAR))


def _gauss_jordan(
    balances: Iterable[Balance], unknowns: list[Symbol], layer: Layer, strict: bool = True
) -> dict[Symbol, Expr]:
    """Elimination of equations affine in the unknowns; ``strict`` refuses those without solution.

    Otherwise an equation that contradicts the ones before it is left out.
    """
    solution: dict[Symbol, Expr] = {}
    for balance in balances:
        equation = sympy.expand((balance.left - balance.right).subs(solution))
        pivot = next((u for u in unknowns if equation.has(u)), None)
        if pivot is None:
            if equation != 0 and strict:
                raise Conflict(
                    f"a damping in '{balance.node}' of the {layer.name} layer that would have to "
                    f"balance two sizes that differ by M^({equation})",
                    "one damping per size, or one that is given",
                    "use two symbols (rho_A, rho_B), or fix it with --set d_<damping>=...",
                )
            continue
        slope = equation.coeff(pivot)
        if slope == 0 or sympy.expand(equation - slope * pivot).has(pivot):
            raise Conflict(
                f"a damping in '{balance.node}' of the {layer.name} layer that is added to a power "
                "of itself",
                "one damping per sum",
                "leave one of them out, or fix it with --set d_<damping>=...",
            )
        value = sympy.expand((slope * pivot - equation) / slope)
        solution = {u: sympy.expand(x.subs(pivot, value)) for u, x in solution.items()}
        solution[pivot] = value
    return solution


def _bounded(
    balances: list[Balance], unknowns: list[Symbol], layer: Layer, bounds: Bounds
) -> tuple[dict[Symbol, Expr], str]:
    """The largest dampings of which none is larger than what it is added to.

    Some sums are then balanced, and those fix the dampings; the others are left undamped. Which
    is which follows from trying: a few sums have few orders.

    Raises:
        Conflict: if there is no such solution, or symbols leave it open.
    """
    distinct = list({(b.left, b.right): b for b in balances}.values())
    for order in islice(permutations(distinct), MOST_ORDERS):
        solution = _gauss_jordan(order, unknowns, layer, strict=False)
        excess = {b: sympy.expand((b.left - b.right).subs(solution)) for b in distinct}
        if all(bounds.order(x, S.Zero) in (Order.LESS, Order.EQUAL) for x in excess.values()):
            loose = [f"'{b.node}' by M^({x})" for b, x in excess.items() if x != 0]
            return solution, (
                f"balanced damping has no solution in the {layer.name} layer: the largest one that "
                f"drowns nothing is too small in {', '.join(loose)}"
            )
    _gauss_jordan(balances, unknowns, layer)
    raise AssertionError("balances without a conflict are solved before")


def _learning_rate(
    problem: Problem,
    layer: Layer,
    update: Update,
    a: Mapping[str, Expr],
    b: Mapping[str, Expr],
    bounds: Bounds,
    conditions: tuple[Condition, ...],
) -> tuple[Expr, Step]:
    """Stage 3: c, the smallest for which this layer's update keeps the step stable."""
    own = update.coherent.plus(update.random, bounds)
    symbol = Symbol(f"c_{layer.name}")
    if layer.name in problem.settings.c:
        c = problem.settings.c[layer.name]
        text = "given"
        return c, Step(CONDITION, f"c of {layer.name}", rate(c), text, (update.step,))
    if own.is_zero:
        blank = Step(CONDITION, f"c of {layer.name}", own, "", (update.step,))
        return symbol, blank.because(
            f"the first step does not move the {layer.name} layer: its gradient is exactly zero"
        )
    if MAXIMAL_UPDATE not in conditions:
        return symbol, Step(CONDITION, f"c of {layer.name}", own, "free", (update.step,))
    limit, premises = own, [update.step]
    if STABLE_STEP in conditions:
        given = problem.setting.alignments
        passed: list[Alignment] = []
        for position, size in reach(problem.setting, layer, update, a, b, bounds).items():
            last = position == problem.setting.depth
            if position > layer.position:
                passed += [given[x.name] for x in problem.setting.at(position) if x.name in given]
            if last or passed:  # without a given alignment dh stays as large as dW h was
                rule, name = (READBACK, "df") if last else (ALIGNMENT, f"dh_{position}")
                text = f"from dW h {own}"
                step = Step(rule, f"{name} per learning rate", size, text, (update.step,))
                premises.append(step.because(as_assumption(passed)) if passed else step)
                limit = limit.plus(size, bounds)
    c = sympy.expand(limit.width)
    text = f"{MAXIMAL_UPDATE.name}: M^(-c) x {limit} = 1"
    return c, Step(CONDITION, f"c of {layer.name}", rate(c), text, tuple(premises))
