"""The second step: what the first leaves open, and rates that the second bounds.

A layer that the first step does not move (its gradient is exactly zero) takes its rate, and a
damping that only the second step fixes its exponent, from the sizes of the second step. A layer
whose own second update is larger than a stable step allows takes the smaller rate, its decays
follow, and both steps are evaluated again, since the first update is smaller then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from sympy import Expr, Symbol

from scaling.calculus.read import read_update
from scaling.sizes.derivation import CONDITION, Step
from scaling.sizes.errors import NotCovered
from scaling.sizes.scale import Order
from scaling.solve.conditions import Condition
from scaling.solve.damping import dampings
from scaling.solve.decay import derived_decays, descent, following
from scaling.solve.learning_rate import LayerRate, learning_rate, learning_rates
from scaling.solve.solution import Derived
from scaling.states.network_state import Dampings, NetworkState
from scaling.states.problem import rate
from scaling.states.second_step import AfterStep, after_step

Late = Mapping[tuple[str, str], Expr]
"""Exponents of dampings, by name and layer."""


def at_second(
    found: Derived,
    start: NetworkState,
    conditions: tuple[Condition, ...],
    again: Callable[[Late], Derived],
) -> Derived:
    """The solution at the first step, with what the second one adds.

    Args:
        found: the solution at the first step.
        start: the network that takes it.
        conditions: what is imposed.
        again: derives everything anew, where these dampings are known from the start.

    Raises:
        NotCovered: if the first step is unstable, or rates grow with every evaluation.
    """
    c, open_ = dict(found.exponents.c), _open(found)
    lines = dict(found.steps)  # the line that gave each rate, as it is so far

    def lowered(name: str) -> bool:
        return lines[name] is not found.steps[name]

    for _ in range(len(c) + 1):
        d = _with_decays_at(found, start, c, conditions)
        second = after_step(start, c, d)
        d, weaker = dampings(second, d, conditions)
        late = _late_dampings(found, d)
        if late:
            return _resting_on(again(late), found, weaker)
        d = _with_open_decays(second, d, c, open_, conditions)
        rates = learning_rates(second, d, conditions, {}, weaker)
        larger, steps = dict(c), {}
        for name, one in rates.items():
            given = name in found.problem.settings.c
            if name in open_:
                larger[name], steps[name] = one.c, one.line
                continue
            order = found.bounds.order(one.c, c[name])
            if not given and (order is Order.GREATER or (lowered(name) and order is Order.EQUAL)):
                larger[name] = one.c
                lines[name] = replace(one.line, inputs=(found.steps[name], *one.line.inputs))
                steps[name] = lines[name]
            else:
                steps[name] = _kept(lines[name], name, one, c[name], start)
        raised = any(larger[name] != c[name] for name in c if name not in open_)
        if not raised:
            return replace(
                found,
                exponents=replace(found.exponents, c=larger, d=d),
                steps=steps,
                updates={name: one.update for name, one in rates.items()},
            )
        c = {name: c[name] if name in open_ else larger[name] for name in c}
    raise NotCovered(
        "learning rates that grow with every evaluation of the second step",
        "a step that is stable once each rate is",
        "use --step 1",
    )


def _kept(line: Step, name: str, found: LayerRate, c: Expr, start: NetworkState) -> Step:
    """The derivation of a rate, followed by what it does at the second step."""
    own = found.update.coherent.plus(found.update.random, start.bounds)
    now = Step(
        CONDITION, f"dW h of {name}", own * rate(c), f"M^(-c) x {own}", (found.update.step,), time=2
    )  # fmt: skip
    return replace(line, inputs=(*line.inputs, now))


def _with_decays_at(
    found: Derived, start: NetworkState, c: Mapping[str, Expr], conditions: tuple[Condition, ...]
) -> Dampings:
    """All of d, with the decays that follow first steps at rates M^(-c)."""
    problem, d = found.problem, {name: dict(x) for name, x in found.exponents.d.items()}
    unknown = {x.name: derived_decays(problem, x, conditions) for x in problem.setting.layers}
    for name, symbols in unknown.items():
        d[name] |= {k: s for k in d[name] for s in symbols if s == Symbol(f"d_{k}_{name}")}
    contexts = start.contexts(d)
    for layer in problem.setting.layers:
        if symbols := unknown[layer.name]:
            update = read_update(contexts[layer.name], problem.rule.expression)
            d[layer.name] = following(
                problem.rule, layer, update, c[layer.name], d[layer.name], symbols
            )
    return d


def _with_open_decays(
    second: AfterStep,
    scaled: Dampings,
    c: Mapping[str, Expr],
    open_: set[str],
    conditions: tuple[Condition, ...],
) -> Dampings:
    """All of d, with the decays that follow the rates that the second step fixes."""
    problem, d = second.problem, dict(scaled)
    for layer in problem.setting.layers:
        name = layer.name
        if name in open_ and derived_decays(problem, layer, conditions):
            update = read_update(second.contexts(d)[name], problem.rule.expression)
            moved = second.followed(layer, descent(update))
            found, _ = learning_rate(second, layer, moved, conditions)
            d[name] = {k: x.subs(c[name], found) for k, x in d[name].items()}
    return d


def _late_dampings(found: Derived, d: Dampings) -> Late:
    """The dampings that the first step leaves free and the second fixes, if rates depend on them.

    >>> from scaling.solve.derive import derive
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


def _resting_on(again: Derived, found: Derived, weaker: Mapping[str, str]) -> Derived:
    """A second solution as that of the problem that was asked, with what its dampings assume."""
    steps = {
        name: line.because(weaker[name]) if weaker[name] else line
        for name, line in again.steps.items()
    }
    return replace(again, problem=found.problem, steps=steps)


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
