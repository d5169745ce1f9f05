"""Constants that no exponent fixes, set once, at the narrowest width.

    radius    the layer's own perturbation has RMS 0.1 / layers, that of all of them 0.1
    damping   a tenth of what it is added to
    eta       the layer's own update, without decay, has RMS 0.1
    decay     the step takes a tenth of the weights away

in this order; at the second step where the first does not move the layer. They are the same at
every width, so they move intercepts, never slopes. What the user gave (``--set rho_A=0.1``) is
taken as it is.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import replace

from empirical.measure.dense_steps import measure
from empirical.measure.measured_sizes import Sums
from empirical.measure.training import Training, damped_sums, dampings_in, dense_network
from empirical.measure.trial import Constants, Trial

OWN_AT_BASE = 0.1
SHALLOW, SMALL = 4, 1 / 8
"""Up to this depth, and down to this h, own updates are a tenth at the base width."""
DAMPING_AT_BASE = 0.1
DECAY_AT_BASE = 0.1
CORRECTIONS, CLOSE = 8, 1.1


def calibrate(trial: Trial, width: int, seed: int = 0) -> Constants:
    """Constants from the narrowest width: dampings first, then learning rates, then decays.

    Step by step: what the first step leaves open, because it does not move a layer, is set at the
    second. A damping or decay that the user gave (``--set rho_A=0.1``) is taken as it is.
    """
    constants = trial.unit_constants()
    places = {(name, symbol) for name, rho in constants.rho.items() for symbol in rho}
    unset = {place for place in places if place[1] not in trial.values}
    idle = set(constants.eta)
    constants = _with_radii(trial, constants, width, seed)
    for step in range(1, trial.problem.step + 1):
        at = replace(trial, problem=replace(trial.problem, step=step))
        constants, balanced = _with_dampings(at, constants, unset, width, seed)
        constants, moved = _with_rates(at, constants, idle, width, seed)
        constants = _with_decays(at, constants, idle, width, seed)
        unset, idle = unset - balanced, idle - moved
    return constants


def _with_radii(trial: Trial, constants: Constants, width: int, seed: int) -> Constants:
    """Each radius such that the layers' perturbations have a tenth to share among them."""
    asked = [symbol for symbol in trial.problem.rule.radii if symbol not in trial.values]
    if not asked:
        return constants
    first = replace(trial, problem=replace(trial.problem, step=1))
    measured = measure(first, _undecayed(trial, constants), width, seed).sizes
    rho = {name: dict(values) for name, values in constants.rho.items()}
    for name, sizes in measured.items():
        for symbol in asked if sizes.ascent else ():
            rho[name][symbol] *= OWN_AT_BASE / len(measured) / (sizes.ascent or 1.0)
    return Constants(constants.eta, rho)


def _with_dampings(
    trial: Trial, constants: Constants, unset: Collection[tuple[str, str]], width: int, seed: int
) -> tuple[Constants, set[tuple[str, str]]]:
    """Each damping a tenth of what it is added to, of the least if those are several; and which.

    One step measures the terms. Where a damping does not enter in proportion (sqrt(rho)), or acts
    on what another one is added to, a few more bring it close.
    """
    damped = damped_sums(trial.problem.rule)
    rho = {name: dict(values) for name, values in constants.rho.items()}
    done: set[tuple[str, str]] = set()
    for _ in range(CORRECTIONS if damped else 0):
        scales = trial.scales(width, Constants(constants.eta, rho))
        training = Training(trial, dense_network(trial, scales, width, seed), scales, seed)
        sums: Sums = {}
        for _ in range(trial.problem.step):
            sums = training.step()
        factors: dict[tuple[str, str], float] = {}
        for (name, total), (other, damping) in sums.items():
            for symbol in dampings_in(damped[total][1]) if total in damped else ():
                if (name, symbol) in unset and other > 0 and damping > 0:
                    factor = DAMPING_AT_BASE * other / damping
                    factors[name, symbol] = min(factor, factors.get((name, symbol), math.inf))
        for (name, symbol), factor in factors.items():
            rho[name][symbol] *= factor
        done |= factors.keys()
        if all(1 / CLOSE < factor < CLOSE for factor in factors.values()):
            break
    return Constants(constants.eta, rho), done


def _with_rates(
    trial: Trial, constants: Constants, idle: Collection[str], width: int, seed: int
) -> tuple[Constants, set[str]]:
    """The wanted own update of every idle layer that moves, without decay; and which do.

    That is a tenth. In deep networks, where h is far smaller (by 2^(-1/2) in each layer of relu)
    and every layer multiplies what those below it changed, it is a part of h, and a smaller one.
    """
    measured = measure(trial, _undecayed(trial, constants), width, seed).sizes
    moved = {name for name in idle if measured[name].own > 0}
    depth = trial.problem.setting.depth
    part = OWN_AT_BASE * min(1.0, SHALLOW / depth)
    eta = dict(constants.eta)
    for layer in trial.problem.setting.layers:
        if layer.name in moved:
            sizes, last = measured[layer.name], layer.position == depth
            own = part if last else part * min(1.0, sizes.init / SMALL)
            eta[layer.name] *= own / sizes.own
    return Constants(eta, constants.rho), moved


def _with_decays(
    trial: Trial, constants: Constants, layers: Collection[str], width: int, seed: int
) -> Constants:
    """Each decay such that the step takes a tenth of the weights away, in some layers.

    At the second step as if no moving average stood before it: shrink is not measured there.
    """
    asked = [symbol for symbol in trial.problem.rule.decays if symbol not in trial.values]
    if not asked:
        return constants
    scales = trial.scales(width, constants)
    rho = {name: dict(values) for name, values in constants.rho.items()}
    for name, symbol in ((name, symbol) for name in layers for symbol in asked):
        rho[name][symbol] *= DECAY_AT_BASE / (scales[name].lr * scales[name].scaled[symbol])
    without = measure(trial, _undecayed(trial, constants), width, seed).sizes
    decayed = measure(trial, Constants(constants.eta, rho), width, seed).sizes
    for name in layers:
        share = (decayed[name].shrink or 0.0) - (without[name].shrink or 0.0)
        for symbol in asked if share > 0 else ():
            rho[name][symbol] *= DECAY_AT_BASE / share  # less than one inside a moving average
    return Constants(constants.eta, rho)


def _undecayed(trial: Trial, constants: Constants) -> Constants:
    """The same without any decay."""
    none = dict.fromkeys(trial.problem.rule.decays, 0.0)
    return Constants(constants.eta, {name: {**x, **none} for name, x in constants.rho.items()})
