"""`derive` solves the conditions for b, c and d; `predict` evaluates any exponents as they are.

derive, in three triangular stages, each exact linear algebra over the rationals:

    b   from stable start (h_l = Theta(1)) forward through the network, and from maximal readback
        (b_L = 1) at the output;
    d   from balanced damping: each damping equals what it is added to;
    c   from maximal update: the learning rate is the largest that keeps a step stable.

What is given is kept, and the condition that would have fixed it is then not imposed. What no
condition fixes stays a symbol and is reported as free.

predict follows one step: own updates dW_l h_{l-1}; features dh_l = own + W_l dh_{l-1}; the output
through the readback; and names the regime of each layer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

import sympy
from sympy import Expr, S, Symbol

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
from scaling.derivation import CONDITION, READBACK, Step
from scaling.errors import Conflict
from scaling.ledger import Layer, Ledger, Setting, ledger
from scaling.rule import Rule
from scaling.scale import HALF, Bounds, Order, Scale, Size
from scaling.settings import Settings

CONVENTION = (
    "weights ~ M^-b, learning rate ~ M^-c, damping ~ M^-d, multiplier M^-a: "
    "a positive exponent means smaller at larger width M"
)


@dataclass(frozen=True)
class Exponents:
    """A parametrization: exponents by layer name (``d`` by layer, then damping)."""

    a: Mapping[str, Expr]
    b: Mapping[str, Expr]
    c: Mapping[str, Expr]
    d: Mapping[str, Mapping[str, Expr]]

    def updated(self, settings: Settings) -> Exponents:
        """The same with what the settings fix, taken literally."""
        d = {name: dict(values) for name, values in self.d.items()}
        for (damping, name), value in settings.d.items():
            d[name][damping] = value
        return Exponents(
            {**self.a, **settings.a}, {**self.b, **settings.b}, {**self.c, **settings.c}, d
        )


@dataclass(frozen=True)
class Problem:
    """A rule in a setting: everything that fixes what an exponent means."""

    rule: Rule
    setting: Setting = field(default_factory=Setting)
    settings: Settings = field(default_factory=Settings)
    sampled_fisher: bool = False

    def bounds(self, extra: Mapping[str, tuple[Expr, Expr]] | None = None) -> Bounds:
        """Exponents of the rule are non-negative."""
        known = {name: (S.Zero, S.Infinity) for name in self.rule.exponents}
        return Bounds({**known, **(extra or {})})

    def context(
        self,
        books: Ledger,
        layer: Layer,
        dampings: Mapping[str, Expr],
        bounds: Bounds,
        unknown: Iterable[Symbol] = (),
    ) -> Context:
        """The context in which the rule is read in one layer."""
        return Context(
            books.sizes[layer.name],
            dampings,
            self.settings.exponents,
            bounds,
            frozenset(unknown),
            self.sampled_fisher,
            self.setting.activation,
        )


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
    names = [layer.name for layer in problem.setting.layers]
    a = {name: problem.settings.a.get(name, S.Zero) for name in names}
    b, free, assumptions, bounds = _initialisation(problem, a, imposed)
    books = ledger(problem.setting, a, b, bounds)
    c: dict[str, Expr] = {}
    d: dict[str, dict[str, Expr]] = {}
    steps: dict[str, Step] = {}
    updates: dict[str, Update] = {}
    regimes: dict[str, tuple[Regime, ...]] = {}
    for layer in problem.setting.layers:
        d[layer.name] = _dampings(problem, books, layer, bounds, imposed)
        context = problem.context(books, layer, d[layer.name], bounds)
        update = read_update(context, rule.expression)
        c[layer.name], step = _learning_rate(problem, layer, update, a, b, bounds, imposed)
        steps[layer.name], updates[layer.name] = step, update
        regimes[layer.name] = tuple(context.regimes)
        free += [str(x) for x in d[layer.name].values() if str(x).startswith("d_")]
        free += [str(c[layer.name])] if str(c[layer.name]).startswith("c_") else []
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
) -> dict[str, Expr]:
    """Stage 2: d, from the balances that reading the rule records."""
    given = {k: v for (k, name), v in problem.settings.d.items() if name == layer.name}
    symbols = {k: Symbol(f"d_{k}_{layer.name}") for k in problem.rule.dampings if k not in given}
    start = {name: given.get(name, symbols.get(name, S.Zero)) for name in problem.rule.dampings}
    if not symbols or BALANCED_DAMPING not in conditions:
        return start
    context = problem.context(books, layer, start, bounds, symbols.values())
    read_update(context, problem.rule.expression)
    solution = _solve_balances(context.balances, list(symbols.values()), layer)
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
        value = sympy.expand((slope * pivot - equation) / slope)
        solution = {u: sympy.expand(x.subs(pivot, value)) for u, x in solution.items()}
        solution[pivot] = value
    return solution


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
        return c, Step(CONDITION, f"c of {layer.name}", _rate(c), text, (update.step,))
    if own.is_zero:
        blank = Step(CONDITION, f"c of {layer.name}", own, "", (update.step,))
        return symbol, blank.because(
            f"the first step does not move the {layer.name} layer: its gradient is exactly zero"
        )
    if MAXIMAL_UPDATE not in conditions:
        return symbol, Step(CONDITION, f"c of {layer.name}", own, "free", (update.step,))
    limit, premises = own, [update.step]
    if STABLE_STEP in conditions:
        output = _reach_output(problem.setting, layer, update, a, b, bounds)
        premises.append(
            Step(READBACK, "df per learning rate", output, f"from dW h {own}", (update.step,))
        )
        limit = limit.plus(output, bounds)
    c = sympy.expand(limit.width)
    text = f"{MAXIMAL_UPDATE.name}: M^(-c) x {limit} = 1"
    return c, Step(CONDITION, f"c of {layer.name}", _rate(c), text, tuple(premises))


def _rate(c: Expr) -> Scale:
    return Scale.of_width(-c, Size.SCALAR)


def _reach_output(
    setting: Setting,
    layer: Layer,
    update: Update,
    a: Mapping[str, Expr],
    b: Mapping[str, Expr],
    bounds: Bounds,
) -> Scale:
    """How far a layer's own update moves the output, per learning rate."""
    coherent, random = update.coherent, update.random
    for position in range(layer.position + 1, setting.depth + 1):
        coherent, random = _through(setting, position, coherent, random, a, b)
    return coherent.plus(random, bounds)


def _through(
    setting: Setting,
    position: int,
    coherent: Scale,
    random: Scale,
    a: Mapping[str, Expr],
    b: Mapping[str, Expr],
) -> tuple[Scale, Scale]:
    """W_l dh_{l-1}: a CLT in hidden layers, a readback (LLN) of the coherent part at the output."""
    layer = next(x for x in setting.at(position) if not x.is_bias)
    if b[layer.name] is S.Infinity:
        zero = Scale.zero(Size.ENTRY)
        return zero, zero
    std = Scale.of_width(-a[layer.name] - b[layer.name], Size.SCALAR)
    clt = std * Scale.of_width(HALF * layer.fan_in, Size.SCALAR)
    lln = std * Scale.of_width(layer.fan_in, Size.SCALAR)
    return coherent * (lln if position == setting.depth else clt), random * clt


class LayerRegime(StrEnum):
    """What one step does to a layer as the width grows."""

    UNSTABLE = "unstable"
    MAXIMAL = "maximal"
    SUB_MAXIMAL = "sub-maximal"
    LAZY = "lazy"
    FROZEN = "frozen"
    OPEN = "open"


@dataclass(frozen=True)
class LayerPrediction:
    """Exponents of what is measured in a layer; ``feature`` of the output layer is df.

    ``feature`` is None above an unstable layer, where the calculus is silent.
    """

    init: Expr
    own: Expr
    feature: Expr | None
    regime: LayerRegime


@dataclass(frozen=True)
class Prediction:
    """Exponents of one step of a rule under given exponents."""

    problem: Problem
    exponents: Exponents
    layers: Mapping[str, LayerPrediction]
    regimes: Mapping[str, tuple[Regime, ...]]
    assumptions: tuple[str, ...]


def predict(problem: Problem, exponents: Exponents, bounds: Bounds | None = None) -> Prediction:
    """Evaluate one step under the given exponents, without solving anything.

    ``bounds`` is what is known of symbols in the exponents (`Derived.bounds` for derived ones).

    Raises:
        NotCovered: if the calculus does not cover the rule, or an activation saturates.
    """
    setting, bounds = problem.setting, bounds or problem.bounds()
    books = ledger(setting, exponents.a, exponents.b, bounds)
    updates: dict[str, Update] = {}
    regimes: dict[str, tuple[Regime, ...]] = {}
    assumptions: list[str] = []
    for layer in setting.layers:
        context = problem.context(books, layer, exponents.d[layer.name], bounds)
        update = read_update(context, problem.rule.expression)
        rate = _rate(exponents.c[layer.name])
        updates[layer.name] = replace(
            update, coherent=update.coherent * rate, random=update.random * rate
        )
        regimes[layer.name] = tuple(context.regimes)
        assumptions += update.step.assumptions()
    features = _features(setting, updates, exponents, bounds)
    layers = {}
    for layer in setting.layers:
        update = updates[layer.name]
        own = update.coherent.plus(update.random, bounds)
        initial = books.sizes[layer.name].w if layer.is_bias else books.features[layer.position]
        feature = features[layer.position]
        regime = _regime(own, feature, features[-1], layer.position == setting.depth, bounds)
        shown = None if feature is None else feature.width
        layers[layer.name] = LayerPrediction(initial.width, own.width, shown, regime)
    return Prediction(problem, exponents, layers, regimes, tuple(dict.fromkeys(assumptions)))


def _features(
    setting: Setting, updates: Mapping[str, Update], exponents: Exponents, bounds: Bounds
) -> list[Scale | None]:
    """|dh_l| for l = 0..L; None above a layer whose change outgrows it."""
    zero = Scale.zero(Size.ENTRY)
    coherent, random, silent = zero, zero, False
    features: list[Scale | None] = [zero]
    for position in range(1, setting.depth + 1):
        if silent:
            features.append(None)
            continue
        coherent, random = _through(setting, position, coherent, random, exponents.a, exponents.b)
        for layer in setting.at(position):
            coherent = coherent.plus(updates[layer.name].coherent, bounds)
            random = random.plus(updates[layer.name].random, bounds)
        change = coherent.plus(random, bounds)
        if bounds.order(change.width, S.Zero) is Order.GREATER and position < setting.depth:
            silent = True
            if setting.activation.bounded:
                change = Scale.one(Size.ENTRY)
        features.append(change)
    return features


def _regime(
    own: Scale, feature: Scale | None, output: Scale | None, last: bool, bounds: Bounds
) -> LayerRegime:
    sizes = [own, feature] if last else [own, feature, output]
    named = [LayerRegime.MAXIMAL, LayerRegime.SUB_MAXIMAL, LayerRegime.LAZY]
    orders = [Order.GREATER if s is None else bounds.order(s.width, S.Zero) for s in sizes]
    if Order.GREATER in orders[:2]:
        return LayerRegime.UNSTABLE
    if own.is_zero and feature is not None and feature.is_zero:
        return LayerRegime.FROZEN
    for order, regime in zip(orders, named, strict=False):
        if order is Order.OPEN:
            return LayerRegime.OPEN
        if order is Order.EQUAL:
            return regime
    return LayerRegime.FROZEN
