"""`derive` solves the conditions for b, c and d.

The conditions (conditions.py) are triangular, so they are solved one after the other, each by exact
linear algebra over the rationals:

    b   from stable start (h_l = Theta(1)) forward through the network, and from maximal readback
        (b_L = 1) at the output (initialisation.py);
    d   of radii from maximal perturbation: the largest stable step (radii.py);
    d   of dampings from balanced damping: each damping equals what it is added to; where one
        damping meets sizes that differ, from bounded damping: it equals the smallest (damping.py);
    c   from maximal update: the learning rate is the largest that keeps a step stable
        (learning_rate.py);
    d   of decays from balanced decay: a step takes a Theta(1) fraction of the weights away
        (decay.py).

With ``step=2`` the same is asked of the second step (later_step.py).

What is given is kept, and the condition that would have fixed it is then not imposed. What no
condition fixes stays a symbol and is reported as free.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import reduce

from sympy import Expr

from scaling.models.chain import Setting
from scaling.models.settings import Settings
from scaling.rules.language import Node
from scaling.rules.parser import as_rule
from scaling.rules.rule import Rule
from scaling.sizes.derivation import Step
from scaling.sizes.errors import Conflict, NotCovered
from scaling.solve.conditions import STANDARD, Condition
from scaling.solve.damping import dampings, unsolved
from scaling.solve.initialisation import initialisation
from scaling.solve.later_step import at_second
from scaling.solve.learning_rate import decays, learning_rates
from scaling.solve.offers import offering
from scaling.solve.radii import radii
from scaling.solve.solution import Derived
from scaling.states.ascent import with_ascents
from scaling.states.problem import Exponents, Problem

__all__ = ["Derived", "derive"]


def derive(
    rule: Rule | Node | str,
    settings: Settings | None = None,
    setting: Setting | None = None,
    conditions: Iterable[Condition] = STANDARD,
    sampled_fisher: bool = False,
    step: int = 1,
    rounding_noise: bool = False,
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
        rounding_noise: what is exactly zero in an eigenbasis is read as floating point has it, as
            noise of random sign; see scaling/calculus/rounding_noise.py.

    Raises:
        NotCovered: if the calculus does not cover the rule.
        Conflict: if what is given contradicts a condition.

    >>> solution = derive("(B + rho_B*I)**(-1) @ G @ (A + rho_A*I)**(-1)")
    >>> solution.exponents.c
    {'input': 0, 'hidden': 0, 'output': 0}
    >>> solution.exponents.d["hidden"]
    {'rho_B': 1, 'rho_A': -1}
    """
    problem = Problem(
        as_rule(rule), setting or Setting(), settings or Settings(), sampled_fisher, step=step,
        rounding_noise=rounding_noise,
    )  # fmt: skip
    imposed = tuple(conditions)
    _check_names(problem)
    try:
        return _solved(problem, imposed)
    except NotCovered as error:
        if error.node is None:
            raise
        refused = error
    raise offering(refused, problem, lambda other: _solved(other, imposed)) from None


def _solved(problem: Problem, imposed: tuple[Condition, ...]) -> Derived:
    """The conditions solved one after the other."""
    start, free, given_b = initialisation(problem, imposed)
    unknown = {layer.name: unsolved(problem, layer) for layer in problem.setting.layers}
    d, perturbed = radii(start, unknown, imposed)
    state = with_ascents(start, d)
    d, weaker = dampings(state, d, imposed)
    d = decays(state, d, imposed)
    rates = learning_rates(state, d, imposed, perturbed, weaker)
    found = Derived(
        problem,
        Exponents(state.a, state.b, {name: x.c for name, x in rates.items()}, d),
        (),
        (),
        {name: reduce(Step.because, given_b, x.line) for name, x in rates.items()},
        {name: x.update for name, x in rates.items()},
        state.bounds,
    )

    def again(late: Mapping[tuple[str, str], Expr]) -> Derived:
        more = replace(problem.settings, d={**problem.settings.d, **late})
        return _solved(replace(problem, settings=more), imposed)

    if problem.step == 2:
        found = at_second(found, state, imposed, again)
    return _reported(found, tuple(free))


def _reported(found: Derived, free: tuple[str, ...]) -> Derived:
    """A derivation, with what is free and what was assumed."""
    x, rule = found.exponents, found.problem.rule
    assumptions = found.problem.assumptions
    for name, line in found.steps.items():
        symbols = {s.name for value in (x.c[name], *x.d[name].values()) for s in value.free_symbols}
        unknown = (*(f"d_{k}_{name}" for k in rule.scaled), f"c_{name}")
        free = (*free, *(u for u in unknown if u in symbols))
        assumptions = (*assumptions, *line.assumptions())
    return replace(
        found, free=tuple(dict.fromkeys(free)), assumptions=tuple(dict.fromkeys(assumptions))
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
