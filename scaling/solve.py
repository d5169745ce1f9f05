"""`derive` solves the conditions for b, c and d.

In triangular stages, each exact linear algebra over the rationals:

    b   from stable start (h_l = Theta(1)) forward through the network, and from maximal readback
        (b_L = 1) at the output;
    d   from balanced damping: each damping equals what it is added to;
    c   from maximal update: the learning rate is the largest that keeps a step stable.

With ``step=2`` a fourth: what the first step leaves open (a layer whose gradient is exactly zero)
is solved from the second, and a rate under which the second step would be unstable is made smaller.

What is given is kept, and the condition that would have fixed it is then not imposed. What no
condition fixes stays a symbol and is reported as free.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import sympy
from sympy import Expr, S, Symbol

from scaling.alignment import Alignment, as_assumption
from scaling.calculus import Update, read_update
from scaling.conditions import (
    BALANCED_DAMPING,
    MAXIMAL_READBACK,
    MAXIMAL_UPDATE,
    STABLE_START,
    STABLE_STEP,
    STANDARD,
    Condition,
)
from scaling.context import Balance, Context, Regime
from scaling.derivation import ALIGNMENT, CONDITION, READBACK, Step
from scaling.errors import Conflict, NotCovered
from scaling.ledger import Layer, Ledger, Setting, ledger
from scaling.problem import Exponents, Problem, rate
from scaling.readback import Carry, reach, through
from scaling.rule import Rule
from scaling.scale import HALF, Bounds, Order
from scaling.second import Second, after_first
from scaling.settings import Settings


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


def derive(
    rule: Rule,
    settings: Settings | None = None,
    setting: Setting | None = None,
    conditions: Iterable[Condition] = STANDARD,
    sampled_fisher: bool = False,
    step: int = 1,
) -> Derived:
    """Solve the conditions for the exponents that are not given.

    Args:
        rule: the update rule.
        settings: exponents and symbols held fixed.
        setting: network, activation and loss.
        conditions: what is asked; see conditions.py.
        sampled_fisher: K-FAC's B from sampled instead of the loss's own cotangents.
        step: 2 asks for what is stable at the second step too, and maximal at the second where
            the first does not move a layer.

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
    problem = Problem(rule, setting or Setting(), settings or Settings(), sampled_fisher, step=step)
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
    contexts: dict[str, Context] = {}
    carry: Carry = partial(through, problem.setting, a=a, b=b)
    for layer in problem.setting.layers:
        name = layer.name

        def first(unknown: list[Symbol], d: Mapping[str, Expr], layer: Layer = layer) -> Context:
            return problem.context(books, layer, d, bounds, unknown)

        start = _start(problem, layer)
        d[name] = _dampings(problem, layer, start, first, imposed)
        contexts[name] = first([], d[name])
        update = read_update(contexts[name], rule.expression)
        c[name], line = _learning_rate(problem, layer, update, carry, bounds, imposed)
        for text in given_b:
            line = line.because(text)
        steps[name], updates[name] = line, update
    found = Derived(
        problem, Exponents(a, b, c, d), (), (), steps, updates,
        {name: tuple(context.regimes) for name, context in contexts.items()}, bounds,
    )  # fmt: skip
    if step == 2:
        found = _at_second(found, contexts, books, imposed)
    return _reported(found, tuple(free), tuple(assumptions))


def _reported(found: Derived, free: tuple[str, ...], assumptions: tuple[str, ...]) -> Derived:
    """The same, with what is free and what was assumed."""
    x, rule = found.exponents, found.problem.rule
    for name, line in found.steps.items():
        symbols = {s.name for value in (x.c[name], *x.d[name].values()) for s in value.free_symbols}
        unknown = (*(f"d_{k}_{name}" for k in rule.dampings), f"c_{name}")
        free = (*free, *(u for u in unknown if u in symbols))
        assumptions = (*assumptions, *line.assumptions())
    return replace(
        found, free=tuple(dict.fromkeys(free)), assumptions=tuple(dict.fromkeys(assumptions))
    )


def _at_second(
    found: Derived,
    contexts: Mapping[str, Context],
    books: Ledger,
    conditions: tuple[Condition, ...],
) -> Derived:
    """Stage 4: what the first step leaves open, and learning rates that the second step bounds.

    A layer whose own second update is larger than a stable step allows takes the smaller rate,
    and the step is evaluated again, since its first update is smaller then.
    """
    problem, bounds, rule = found.problem, found.bounds, found.problem.rule.expression
    x, first, layers = found.exponents, found.updates, found.problem.setting.layers
    c, given = dict(x.c), problem.settings.c
    open_ = {n for n in c if c[n] == Symbol(f"c_{n}") and n not in given}
    for name in open_:
        if not (first[name].coherent.is_zero and first[name].random.is_zero):
            raise NotCovered(
                f"step 2 with a learning rate of {name} that is free",
                "the size of the first step",
                f"impose maximal update, or give c_{name}",
            )
    for _ in range(len(layers) + 1):
        second = after_first(problem, replace(x, c=c), contexts, first, books, bounds)
        d: dict[str, dict[str, Expr]] = {}
        steps, updates, regimes = {}, {}, {}
        larger = dict(c)
        for layer in layers:
            name = layer.name
            d[name] = _dampings(
                problem, layer, x.d[name], partial(_context, second, layer), conditions
            )
            context = second.context(layer, d[name])
            update = second.split(layer, read_update(context, rule))
            limit, line = _learning_rate(problem, layer, update, second.carry, bounds, conditions)
            own = update.coherent.plus(update.random, bounds)
            if name in open_:
                larger[name], steps[name] = limit, line
            elif name not in given and bounds.order(limit, c[name]) is Order.GREATER:
                larger[name] = limit
                steps[name] = replace(line, inputs=(found.steps[name], *line.inputs))
            else:
                now = Step(
                    CONDITION, f"dW h of {name}", own * rate(c[name]), f"M^(-c) x {own}",
                    (update.step,), time=2,
                )  # fmt: skip
                steps[name] = replace(found.steps[name], inputs=(*found.steps[name].inputs, now))
            updates[name], regimes[name] = update, tuple(context.regimes)
        raised = any(larger[name] != c[name] for name in c if name not in open_)
        c = {name: c[name] if name in open_ and raised else larger[name] for name in c}
        if not raised:
            return replace(
                found, exponents=replace(x, c=larger, d=d), steps=steps, updates=updates,
                regimes=regimes,
            )  # fmt: skip
    raise NotCovered(
        "learning rates that grow with every evaluation of the second step",
        "a step that is stable once each rate is",
        "use --step 1",
    )


def _context(
    second: Second, layer: Layer, unknown: list[Symbol], dampings: Mapping[str, Expr]
) -> Context:
    return second.context(layer, dampings, unknown)


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


def _start(problem: Problem, layer: Layer) -> dict[str, Expr]:
    """Every damping's exponent: given, or a symbol of its own."""
    given = {k: v for (k, name), v in problem.settings.d.items() if name == layer.name}
    return {k: given.get(k, Symbol(f"d_{k}_{layer.name}")) for k in problem.rule.dampings}


def _dampings(
    problem: Problem,
    layer: Layer,
    start: Mapping[str, Expr],
    context_of: Callable[[list[Symbol], Mapping[str, Expr]], Context],
    conditions: tuple[Condition, ...],
) -> dict[str, Expr]:
    """Stage 2: d, from the balances that reading the rule records."""
    symbols = [x for k, x in start.items() if x == Symbol(f"d_{k}_{layer.name}")]
    if not symbols or BALANCED_DAMPING not in conditions:
        return dict(start)
    context = context_of(symbols, start)
    read_update(context, problem.rule.expression)
    solution = _solve_balances(context.balances, symbols, layer)
    return {name: sympy.expand(x.subs(solution)) for name, x in start.items()}


def _solve_balances(
    balances: list[Balance], unknowns: list[Symbol], layer: Layer
) -> dict[Symbol, Expr]:
    """Gauss-Jordan elimination of equations affine in the unknowns."""
    solution: dict[Symbol, Expr] = {}
    for balance in balances:
        equation = sympy.expand((balance.left - balance.right).subs(solution))
        pivot = next((u for u in unknowns if equation.has(u)), None)
        if pivot is None:
            if equation != 0:
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


def _learning_rate(
    problem: Problem,
    layer: Layer,
    update: Update,
    carry: Carry,
    bounds: Bounds,
    conditions: tuple[Condition, ...],
) -> tuple[Expr, Step]:
    """Stage 3: c, the smallest for which this layer's update keeps the step stable."""
    own = update.coherent.plus(update.random, bounds)
    symbol, time = Symbol(f"c_{layer.name}"), update.step.time
    if layer.name in problem.settings.c:
        c = problem.settings.c[layer.name]
        text = "given"
        return c, Step(CONDITION, f"c of {layer.name}", rate(c), text, (update.step,))
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
