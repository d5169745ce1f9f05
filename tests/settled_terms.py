"""Constants under which every sum is what it will be at infinite width, by measurement alone.

An exponent speaks of widths beyond every crossover, and the constants decide where these are. At
each sum x + k*y of a rule (and max(x, k), clip(k*x, 1), atan(k*x)) the ratio of both terms is
measured at two widths, inner sums first. The term that grows faster gets a weight that makes it
`LEAD` times the other at the smallest width; terms that grow alike are made alike. No word of the
calculus is used, so that a term which it takes for the leading one by mistake loses here as well.
A damping is held against the strongest and the weakest direction of its matrix, which may grow in
different ways: it leads both, neither, or the weak one alone. Equal sums have equal weights, so
that what cancels exactly still does.
"""

from __future__ import annotations

import ast
import math
from dataclasses import dataclass, replace

import numpy as np
from simulator import BASE, Array, Layers, Net, Unmet, parsed, state, value

LEAD = 1000.0
TWICE = 2.0
"""Between terms that grow alike, so that equal ones do not cancel."""
ALIKE = 0.2
"""Terms with exponents closer than this have one: less than half of 1/2."""

NOISE = 0.1
"""Standard error of a growth below which no more draws are made."""
CLEAR = 4.0
"""Standard errors between a growth and `ALIKE` that say the same."""
HELD = 2**18
"""Entries of a matrix that one draw may keep from one sum of a rule to the next."""


@dataclass(frozen=True)
class Sights:
    """Where terms are compared: two widths, at most so many draws, and who leads by what."""

    widths: tuple[int, int] = (BASE, 8 * BASE)
    draws: tuple[int, ...] = (4, 16, 48)
    lead: float = LEAD


def settled(
    rule: str, net: Net, names: frozenset[str], step: int = 1, sights: Sights | None = None
) -> Net:
    """The same net, with weights of the terms that these names lead, at one more step."""
    at, tree = sights or Sights(), parsed(rule)
    found: tuple[dict[str, float], ...] = tuple({} for _ in net.names)
    net = replace(net, named_terms=names, weights=(*net.weights[: step - 1], found))
    runs: list[list[Layers]] = []  # by draw and width
    for position in range(net.depth):
        is_met = True
        while is_met:
            for draws in at.draws:
                for seed in range(len(runs), draws):
                    runs.append([state(rule, net, m, seed, step) for m in at.widths])
                met = [[_unmet(tree, layers, position) for layers in run] for run in runs]
                first = met[0][0]
                if is_met := first is not None:
                    logs = np.log([[unmet.ratios for unmet in run if unmet] for run in met])
                    steps = (logs[:, 1] - logs[:, 0]) / math.log(at.widths[1] / at.widths[0])
                if not is_met or _is_decided(steps):
                    break
            if first is not None:
                first.weights[first.site] = _weight(logs[:, 0].mean(0), steps.mean(0), at.lead)
    return net


def _is_decided(steps: Array) -> bool:
    """Whether more draws would change nothing: the growth is known, or who leads is."""
    error = steps.std(0, ddof=1) / math.sqrt(len(steps))
    far = np.abs(np.abs(steps.mean(0)) - ALIKE)
    return bool((~(error > NOISE) | (far > CLEAR * error)).all())


def _weight(logarithms: Array, growth: Array, lead: float) -> float:
    """From the ratios to the strongest and weakest direction, at the smallest width."""
    if not (np.isfinite(logarithms).all() and np.isfinite(growth).all()):
        return 1.0
    strong, weak = np.exp(-logarithms).tolist()
    if growth[0] > ALIKE:  # beyond the strongest direction, hence beyond all
        return lead * strong
    if growth[0] >= -ALIKE:
        return TWICE * strong
    if abs(growth[1]) <= ALIKE:
        return TWICE * weak
    return weak / lead if growth[1] < 0 else math.sqrt(strong * weak)


def _unmet(tree: ast.expr, layers: Layers, position: int) -> Unmet | None:
    """The first sum of a layer's rule that has no weight."""
    try:
        value(tree, layers[position])
    except Unmet as found:
        return found
    finally:
        layers[position].forget(HELD)
    return None
