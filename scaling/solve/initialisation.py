"""b, the exponents of the initial weights, from the input to the output.

    b   from stable start (h_l = Theta(1)) forward through the network, and from maximal readback
        (b_L = 1) at the output

Exact linear algebra over the rationals; what no condition fixes stays a symbol.
"""

from __future__ import annotations

from collections.abc import Mapping

from sympy import Expr, S, Symbol

from scaling.models.chain import Layer
from scaling.sizes.errors import Conflict
from scaling.sizes.scale import HALF, Bounds, Order
from scaling.solve import equations
from scaling.solve.conditions import MAXIMAL_READBACK, STABLE_START, Condition, Place
from scaling.states.network_state import NetworkState
from scaling.states.problem import Problem
from scaling.states.start import at_start


def initialisation(
    problem: Problem, conditions: tuple[Condition, ...]
) -> tuple[NetworkState, list[str], list[str]]:
    """The network at the start, with the b of each layer; what of it is free, what was assumed.

    Raises:
        Conflict: if what is given contradicts a stable start.
    """
    setting, given = problem.setting, problem.settings.b
    a = {layer.name: problem.settings.a.get(layer.name, S.Zero) for layer in setting.layers}
    b: dict[str, Expr] = {}
    free: list[str] = []
    assumptions: list[str] = []
    intervals: dict[str, tuple[Expr, Expr]] = {}
    for layer in setting.layers:
        name, last = layer.name, layer.position == setting.depth
        readback = last and not layer.is_bias
        smallest = _solved(STABLE_START, layer, a)  # below it u_l would grow with the width
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
            if readback and given[name] != _solved(MAXIMAL_READBACK, layer, a):
                assumptions.append(f"maximal readback is not imposed: b_{name} is given")
        elif readback and MAXIMAL_READBACK in conditions:
            b[name] = _solved(MAXIMAL_READBACK, layer, a)
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
    return at_start(problem, a, b, bounds), free, assumptions


def _solved(condition: Condition, layer: Layer, a: Mapping[str, Expr]) -> Expr:
    """B of a layer, from the equation of a condition."""
    b = Symbol(f"b_{layer.name}")
    return equations.solve(condition.equations(Place(layer, a[layer.name])), [b], layer)[b]


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
