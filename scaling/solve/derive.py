"""`derive` solves the conditions for b, c and d.

In triangular stages, each exact linear algebra over the rationals:

    b   from stable start (h_l = Theta(1)) forward through the network, and from maximal readback
        (b_L = 1) at the output (initialisation.py);
    d   of radii from maximal perturbation: a perturbation is the largest stable step (ascent.py);
    d   of dampings from balanced damping: each damping equals what it is added to; where one
        damping meets sizes that differ, from bounded damping: it equals the smallest (balance.py);
    c   from maximal update: the learning rate is the largest that keeps a step stable;
    d   of decays from balanced decay: a step takes a Theta(1) fraction of the weights away.

With ``step=2`` one more: what the first step leaves open (a layer whose gradient is exactly zero)
is solved from the second, and a rate under which the second step would be unstable is made smaller,
with the decays that follow it.

What is given is kept, and the condition that would have fixed it is then not imposed. What no
condition fixes stays a symbol and is reported as free.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from sympy import Expr, S, Symbol

from scaling.calculus.context import Context, Regime, regimes
from scaling.calculus.output_change import OutputChange
from scaling.calculus.read import read_update
from scaling.calculus.readback import Carry, through
from scaling.models.chain import Layer, Setting
from scaling.models.layer_sizes import Ledger
from scaling.models.settings import Settings
from scaling.rules.language import Node
from scaling.rules.parser import as_rule
from scaling.rules.rule import Rule
from scaling.sizes.derivation import CONDITION, Step
from scaling.sizes.errors import Conflict, NotCovered
from scaling.sizes.scale import Bounds, Order
from scaling.solve.conditions import STANDARD, Condition
from scaling.solve.decay import Shrinkage, shrinkage
from scaling.solve.initialisation import initialisation
from scaling.solve.stages import (
    dampings,
    decays,
    descent,
    following,
    learning_rate,
    radii,
    unsolved,
    with_decays,
)
from scaling.states.ascent import with_ascents
from scaling.states.problem import Exponents, Problem, rate
from scaling.states.second_step import Second, after_first
from scaling.states.start import ledger


@dataclass(frozen=True)
class Derived:
    """The solution of the conditions, with the derivation of each layer."""

    problem: Problem
    exponents: Exponents
    free: tuple[str, ...]
    assumptions: tuple[str, ...]
    steps: Mapping[str, Step]
    updates: Mapping[str, OutputChange]
    bounds: Bounds

    @property
    def regimes(self) -> dict[str, tuple[Regime, ...]]:
        """What the reading of the rule decided in each layer."""
        return {name: regimes(update.step) for name, update in self.updates.items()}

    @property
    def shrinkages(self) -> list[Shrinkage]:
        """What a step takes away of the weights, layer by layer where it does."""
        x = self.exponents.c
        found = (shrinkage(k, u, rate(x[k]), self.bounds) for k, u in self.updates.items())
        return [one for one in found if one is not None]


def derive(
    rule: Rule | Node | str,
    settings: Settings | None = None,
    setting: Setting | None = None,
    conditions: Iterable[Condition] = STANDARD,
    sampled_fisher: bool = False,
    step: int = 1,
) -> Derived:
    """Solve the conditions for the exponents that are not given.

    Args:
        rule: the update rule, as an object, a tree or text.
        settings: exponents and symbols held fixed.
        setting: network, activation and loss.
        conditions: what is asked; see conditions.py.
        sampled_fisher: K-FAC's B from sampled instead of the loss's own cotangents.
        step: 2 asks for what is stable at the second step too, and maximal at the second where
            the first does not move a layer.

    Raises:
        NotCovered: if the calculus does not cover the rule.
        Conflict: if what is given contradicts a condition.

    >>> solution = derive("(B + rho_B*I)**(-1) @ G @ (A + rho_A*I)**(-1)")
    >>> solution.exponents.c
    {'input': 0, 'hidden': 0, 'output': 0}
    >>> solution.exponents.d["hidden"]
    {'rho_B': 1, 'rho_A': -1}
    """
    rule = as_rule(rule)
    problem = Problem(rule, setting or Setting(), settings or Settings(), sampled_fisher, step=step)
    imposed = tuple(conditions)
    _check_names(problem)
    layers = problem.setting.layers
    a = {layer.name: problem.settings.a.get(layer.name, S.Zero) for layer in layers}
    b, free, given_b, bounds = initialisation(problem, a, imposed)
    books = ledger(problem.setting, a, b, bounds)
    carry: Carry = partial(through, problem.setting, a=a, b=b)
    c: dict[str, Expr] = {}
    d = {layer.name: unsolved(problem, layer) for layer in layers}
    radius_lines: list[dict[str, Step]] = []
    for call in rule.ascents:
        d, lines = radii(problem, call, d, books, carry, bounds, imposed)
        radius_lines.append(lines)
    books = with_ascents(problem, a, b, d, books, bounds)
    steps: dict[str, Step] = {}
    updates: dict[str, OutputChange] = {}
    weaker: dict[str, str] = {}
    solved = {layer.name: decays(problem, layer, imposed) for layer in layers}
    for layer in layers:

        def read(unknown: list[Symbol], d: Mapping[str, Expr], layer: Layer = layer) -> Context:
            return problem.context(books, layer, d, bounds, unknown)

        name = layer.name
        d[name], weaker[name] = dampings(problem, layer, d[name], read, imposed)
    contexts = problem.contexts(books, d, bounds)
    for layer in layers:
        if solved[layer.name]:  # decays follow from c, and c from the descent alone
            update = read_update(contexts[layer.name], rule.expression)
            lr, _ = learning_rate(problem, layer, descent(update), carry, bounds, imposed)
            d[layer.name] = following(rule, layer, update, lr, d[layer.name], solved[layer.name])
    contexts = problem.contexts(books, d, bounds)
    for layer in layers:
        name, context = layer.name, contexts[layer.name]
        update = read_update(context, rule.expression)
        moved = descent(update) if solved[name] else update
        c[name], line = learning_rate(problem, layer, moved, carry, bounds, imposed)
        radius = tuple(lines[name] for lines in radius_lines if name in lines)
        line = replace(line, inputs=(*line.inputs, *radius))
        if solved[name]:
            line = with_decays(rule, layer, line, update, c[name], d[name])
        line = line.because(weaker[name]) if weaker[name] else line
        for text in given_b:
            line = line.because(text)
        steps[name], updates[name] = line, update
    found = Derived(
        problem, Exponents(a, b, c, d), (), (), steps, updates,
        bounds,
    )  # fmt: skip
    if step == 2:
        found = _at_second(found, books, imposed)
    return _reported(found, tuple(free))


def _reported(found: Derived, free: tuple[str, ...]) -> Derived:
    """The same, with what is free and what was assumed."""
    x, rule = found.exponents, found.problem.rule
    assumptions = rule.assumptions
    for name, line in found.steps.items():
        symbols = {s.name for value in (x.c[name], *x.d[name].values()) for s in value.free_symbols}
        unknown = (*(f"d_{k}_{name}" for k in rule.scaled), f"c_{name}")
        free = (*free, *(u for u in unknown if u in symbols))
        assumptions = (*assumptions, *line.assumptions())
    return replace(
        found, free=tuple(dict.fromkeys(free)), assumptions=tuple(dict.fromkeys(assumptions))
    )


def _at_second(found: Derived, books: Ledger, conditions: tuple[Condition, ...]) -> Derived:
    """The last stage: what the first step leaves open, and rates that the second step bounds.

    A layer whose own second update is larger than a stable step allows takes the smaller rate,
    its decays follow, and both steps are evaluated again, since the first update is smaller then.
    """
    problem, bounds, x = found.problem, found.bounds, found.exponents
    layers, rule, given = problem.setting.layers, problem.rule, problem.settings.c
    solved = {layer.name: decays(problem, layer, conditions) for layer in layers}
    c, open_ = dict(x.c), _open(found)
    for _ in range(len(layers) + 1):
        second, d = _after_first(found, books, c, solved)
        weaker: dict[str, str] = {}
        for layer in layers:
            name, read = layer.name, partial(_context, second, layer)
            d[name], weaker[name] = dampings(problem, layer, d[name], read, conditions)
        late = _late_dampings(found, d)
        if late:
            return _with_dampings(found, late, weaker, conditions)
        for layer in (layer for layer in layers if layer.name in open_ and solved[layer.name]):
            context = second.contexts(d)[layer.name]
            update = second.split(layer, descent(read_update(context, rule.expression)))
            lr, _ = learning_rate(problem, layer, update, second.carry, bounds, conditions)
            d[layer.name] = {k: v.subs(c[layer.name], lr) for k, v in d[layer.name].items()}
        contexts = second.contexts(d)
        steps, updates, larger = {}, {}, dict(c)
        for layer in layers:
            name = layer.name
            whole = read_update(contexts[name], rule.expression)
            update = second.split(layer, whole)
            moved = second.split(layer, descent(whole)) if solved[name] else update
            limit, line = learning_rate(problem, layer, moved, second.carry, bounds, conditions)
            line = line.because(weaker[name]) if weaker[name] else line
            if solved[name]:
                line = with_decays(rule, layer, line, update, limit, d[name])
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
            updates[name] = update
        raised = any(larger[name] != c[name] for name in c if name not in open_)
        c = {name: c[name] if name in open_ and raised else larger[name] for name in c}
        if not raised:
            return replace(found, exponents=replace(x, c=c, d=d), steps=steps, updates=updates)
    raise NotCovered(
        "learning rates that grow with every evaluation of the second step",
        "a step that is stable once each rate is",
        "use --step 1",
    )


def _late_dampings(
    found: Derived, d: Mapping[str, Mapping[str, Expr]]
) -> dict[tuple[str, str], Expr]:
    """The dampings that the first step leaves free and the second fixes, if rates depend on them.

    >>> late = "G / (norm(G - debiased(G, b)) + eps)"  # the difference is zero at first
    >>> derive(late, step=2).exponents.d["hidden"], derive(late, step=1).free[1]
    ({'eps': 0}, 'd_eps_hidden')
    """
    rates = {symbol for c in found.exponents.c.values() for symbol in c.free_symbols}
    free = {(k, name): Symbol(f"d_{k}_{name}") for name in d for k in found.problem.rule.dampings}
    return {
        (k, name): d[name][k]
        for (k, name), symbol in free.items()
        if symbol in rates and not d[name][k].free_symbols & set(free.values())
    }


def _with_dampings(
    found: Derived,
    dampings: Mapping[tuple[str, str], Expr],
    weaker: Mapping[str, str],
    conditions: tuple[Condition, ...],
) -> Derived:
    """The same from the start, where these dampings are known at the first step already."""
    problem = found.problem
    settings = replace(problem.settings, d={**problem.settings.d, **dampings})
    again = derive(
        problem.rule, settings, problem.setting, conditions, problem.sampled_fisher, problem.step
    )
    steps = {
        name: line.because(weaker[name]) if weaker[name] else line
        for name, line in again.steps.items()
    }
    return replace(again, problem=problem, steps=steps)


def _open(found: Derived) -> set[str]:
    """The layers whose learning rate the first step leaves open, and does not depend on."""
    c, given = found.exponents.c, found.problem.settings.c
    open_ = [name for name in c if c[name] == Symbol(f"c_{name}") and name not in given]
    for name in open_:
        moved = found.updates[name].times(rate(c[name]))
        if any(size.width.has(c[name]) for size in (moved.coherent, moved.random)):
            raise NotCovered(
                f"step 2 with a learning rate of {name} that is free",
                "the size of the first step",
                f"impose maximal update, or give c_{name}",
            )
    return set(open_)


def _after_first(
    found: Derived, books: Ledger, c: Mapping[str, Expr], solved: Mapping[str, list[Symbol]]
) -> tuple[Second, dict[str, dict[str, Expr]]]:
    """The network after a first step at rates M^(-c), and d with the decays that follow them."""
    problem, x, rule = found.problem, found.exponents, found.problem.rule
    start = {
        layer.name: {
            k: Symbol(f"d_{k}_{layer.name}") if Symbol(f"d_{k}_{layer.name}") in solved[layer.name]
            else v for k, v in x.d[layer.name].items()
        }
        for layer in problem.setting.layers
    }  # fmt: skip
    contexts = problem.contexts(books, start, found.bounds)
    d = dict(start)
    for layer in problem.setting.layers:
        name = layer.name
        if solved[name]:
            update = read_update(contexts[name], rule.expression)
            d[name] = following(rule, layer, update, c[name], start[name], solved[name])
    contexts = problem.contexts(books, d, found.bounds)
    first = {name: read_update(context, rule.expression) for name, context in contexts.items()}
    return after_first(problem, replace(x, c=c), contexts, first, books, found.bounds), d


def _context(
    second: Second, layer: Layer, unknown: list[Symbol], scaled: Mapping[str, Expr]
) -> Context:
    return second.context(layer, scaled, unknown)


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
