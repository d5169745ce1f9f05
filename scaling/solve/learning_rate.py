"""c, the exponent of the learning rate: the largest rate that keeps a step stable.

    maximal update   dW_l h_(l-1) <= M^c      and, where a stable step is asked for too,
    stable step      dh_m, df     <= M^c      in every layer m above l

the largest of these sizes is reached. At the second step the same is asked of that step's update
(later_step.py), and of a perturbation at a rate of one (radii.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import reduce

import sympy
from sympy import Expr, Symbol

from scaling.calculus.output_change import OutputChange
from scaling.calculus.read import read_update
from scaling.calculus.readback import reach
from scaling.models.alignment import Alignment, as_assumption
from scaling.models.chain import Layer
from scaling.sizes.derivation import ALIGNMENT, CONDITION, READBACK, Step
from scaling.sizes.scale import Order, Scale
from scaling.solve.conditions import MAXIMAL_UPDATE, STABLE_STEP, Condition, Place
from scaling.solve.decay import derived_decays, descent, following, with_decays
from scaling.states.network_state import Dampings, NetworkState
from scaling.states.problem import rate


@dataclass(frozen=True)
class LayerRate:
    """The exponent c of a layer, the line that gave it, and the update per learning rate."""

    c: Expr
    line: Step
    update: OutputChange


def learning_rates(
    state: NetworkState,
    scaled: Dampings,
    conditions: tuple[Condition, ...],
    premises: Mapping[str, tuple[Step, ...]],
    weaker: Mapping[str, str],
) -> dict[str, LayerRate]:
    """The rate of every layer, by the descent alone where a decay follows it.

    Args:
        state: the network that takes the step.
        scaled: exponents of dampings, decays and radii.
        conditions: what is imposed.
        premises: by layer, what the rate rests on beside the update.
        weaker: by layer, what was assumed of its dampings; may be empty.
    """
    problem, found = state.problem, {}
    for name, whole in state.updates(scaled).items():
        layer = problem.setting.layer(name)
        update = state.followed(layer, whole)
        decays = derived_decays(problem, layer, conditions)
        moved = state.followed(layer, descent(whole)) if decays else update
        c, line = learning_rate(state, layer, moved, conditions)
        line = replace(line, inputs=(*line.inputs, *premises.get(name, ())))
        line = line.because(weaker[name]) if weaker[name] else line
        if decays:
            line = with_decays(problem.rule, layer, line, update, c, scaled[name])
        found[name] = LayerRate(c, line, update)
    return found


def decays(state: NetworkState, scaled: Dampings, conditions: tuple[Condition, ...]) -> Dampings:
    """All of d, with the decays that follow from c, as c does from the descent alone."""
    d, contexts = dict(scaled), state.contexts(scaled)
    for layer in state.problem.setting.layers:
        unknown = derived_decays(state.problem, layer, conditions)
        if unknown:
            update = read_update(contexts[layer.name], state.problem.rule.expression)
            c, _ = learning_rate(state, layer, descent(update), conditions)
            d[layer.name] = following(state.problem.rule, layer, update, c, d[layer.name], unknown)
    return d


def learning_rate(
    state: NetworkState, layer: Layer, update: OutputChange, conditions: tuple[Condition, ...]
) -> tuple[Expr, Step]:
    """The smallest c for which the layer's update keeps the step stable, or c as it is given."""
    c, line = _smallest(state, layer, update, conditions)
    given = state.problem.settings.c.get(layer.name)
    if given is None:
        return c, line
    line = Step(CONDITION, f"c of {layer.name}", rate(given), "given", (update.step,))
    if c == Symbol(f"c_{layer.name}") or state.bounds.order(given, c) is Order.EQUAL:
        return given, line
    text = f"{MAXIMAL_UPDATE.name} is not imposed: c_{layer.name} is given"
    return given, line.because(f"{text}, where the largest stable step has {c}")


def never_moves(size: str) -> str:
    """Why a weight stays zero under a rule that multiplies its update by the weight's size."""
    return (
        f"never moves while {size} multiplies its update: trust({size}, y) in the place of "
        f"{size}/y is 1 there, max({size}, eps) has a floor"
    )


def _smallest(
    state: NetworkState, layer: Layer, update: OutputChange, conditions: tuple[Condition, ...]
) -> tuple[Expr, Step]:
    own = update.coherent.plus(update.random, state.bounds)
    symbol, time = Symbol(f"c_{layer.name}"), update.step.time
    if own.is_zero:
        blank = Step(
            CONDITION, f"c of {layer.name}", rate(symbol), "free", (update.step,), time=time
        )  # fmt: skip
        which = "first" if time == 1 else "second"
        known = [s.result for s in update.step.walk() if s.subject == f"delta_{layer.position}"]
        what = "gradient" if any(size.is_zero for size in known) else "update"
        text = f"the {which} step does not move the {layer.name} layer: its {what} is exactly zero"
        sizes = state.problem.rule.weight_sizes
        if what == "update" and sizes:
            text += f". A weight that is zero {never_moves(str(sizes[0]))}"
        return symbol, blank.because(text)
    if MAXIMAL_UPDATE not in conditions:
        return symbol, Step(
            CONDITION, f"c of {layer.name}", rate(symbol), "free", (update.step,), time=time
        )  # fmt: skip
    moved, passed = _moved(state, layer, update)
    place = Place(layer, state.a[layer.name], update, moved, rate(symbol))
    equations, premises = MAXIMAL_UPDATE.equations(place), [update.step]
    if STABLE_STEP in conditions:
        above = STABLE_STEP.equations(place)
        equations += above
        for equation in above:
            inference = READBACK if equation.subject == "df" else ALIGNMENT
            subject, text = f"{equation.subject} per learning rate", f"from dW h {own}"
            step = Step(inference, subject, equation.left, text, (update.step,), time=time)
            assumed = as_assumption(passed[equation.subject])
            premises.append(step.because(assumed) if assumed else step)
    limit = reduce(lambda x, y: x.plus(y, state.bounds), (e.left for e in equations))
    c = sympy.expand(limit.width)
    text = f"{MAXIMAL_UPDATE.name}: M^(-c) x {limit} = 1"
    return c, Step(CONDITION, f"c of {layer.name}", rate(c), text, tuple(premises), time=time)


def _moved(
    state: NetworkState, layer: Layer, update: OutputChange
) -> tuple[dict[int, Scale], dict[str, list[Alignment]]]:
    """How far the update moves its own output, those above that may move further, and f.

    With it the given alignments that each of those rests on: without one dh stays as large as dW h.
    """
    setting = state.problem.setting
    moved: dict[int, Scale] = {}
    passed: dict[str, list[Alignment]] = {}
    given: list[Alignment] = []
    for position, size in reach(setting, layer, update, state.carry, state.bounds).items():
        last, above = position == setting.depth, position > layer.position
        if above:
            names = (x.name for x in setting.at(position))
            given = given + [setting.alignments[x] for x in names if x in setting.alignments]
        if last or given or not above:
            moved[position] = size
            passed["df" if last else f"dh_{position}"] = given
    return moved, passed
