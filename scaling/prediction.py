"""`predict` evaluates one step under any exponents, as they are, and names each layer's regime.

    own      dW_l h_{l-1}
    shrink   the fraction of its weights that a decay takes away
    feature  dh_l = own + W_l dh_{l-1}; df at the output

    unstable     something grows with the width
    maximal      the layer's own update moves its output by Theta(1)
    sub-maximal  its features move by Theta(1), but not through its own weights
    lazy         the features stand still, the output moves
    frozen       nothing moves

The third term, dW_l dh_{l-1}, is no larger than own while dh = O(h). Above an unstable layer the
alignment of the changed features is unknown: features there are not predicted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from sympy import Expr, S

from scaling.calculus import Update, read_update
from scaling.context import Regime
from scaling.ledger import Setting, ledger
from scaling.problem import Exponents, Problem, rate
from scaling.readback import through
from scaling.scale import Bounds, Order, Scale, Size


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

    ``feature`` is None above an unstable layer, where the calculus is silent; ``shrink`` where no
    decay acts on weights that are not zero.
    """

    init: Expr
    own: Expr
    feature: Expr | None
    regime: LayerRegime
    shrink: Expr | None = None


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
    contexts = problem.contexts(books, exponents.d, bounds)
    for layer in setting.layers:
        context = contexts[layer.name]
        update = read_update(context, problem.rule.expression)
        lr = rate(exponents.c[layer.name])
        updates[layer.name] = replace(
            update,
            coherent=update.coherent * lr,
            random=update.random * lr,
            multiple=update.multiple * lr,
        )
        regimes[layer.name] = tuple(context.regimes)
        assumptions += update.step.assumptions()
    features = _features(setting, updates, exponents, bounds, books.features)
    layers = {}
    for layer in setting.layers:
        update = updates[layer.name]
        own = update.coherent.plus(update.random, bounds)
        initial = books.sizes[layer.name].w if layer.is_bias else books.features[layer.position]
        feature = features[layer.position]
        regime = _regime(own, feature, features[-1], layer.position == setting.depth, bounds)
        lost = update.multiple if problem.rule.decays and not initial.is_zero else None
        if lost is not None and bounds.order(lost.width, S.Zero) is Order.GREATER:
            regime = LayerRegime.UNSTABLE  # a step overshoots zero
        shown = None if feature is None else feature.width
        shrink = None if lost is None or lost.is_zero else lost.width
        layers[layer.name] = LayerPrediction(initial.width, own.width, shown, regime, shrink)
    return Prediction(problem, exponents, layers, regimes, tuple(dict.fromkeys(assumptions)))


def _features(
    setting: Setting,
    updates: Mapping[str, Update],
    exponents: Exponents,
    bounds: Bounds,
    start: Sequence[Scale],
) -> list[Scale | None]:
    """|dh_l| for l = 0..L; None above a layer whose change outgrows it."""
    zero = Scale.zero(Size.ENTRY)
    coherent, random, silent = zero, zero, False
    features: list[Scale | None] = [zero]
    for position in range(1, setting.depth + 1):
        if silent:
            features.append(None)
            continue
        coherent, random = through(setting, position, coherent, random, exponents.a, exponents.b)
        for layer in setting.at(position):
            coherent = coherent.plus(updates[layer.name].coherent, bounds)
            random = random.plus(updates[layer.name].random, bounds)
        change = coherent.plus(random, bounds)
        if bounds.order(change.width, S.Zero) is Order.GREATER and position < setting.depth:
            silent = True
            if setting.activation.bounded:
                change = Scale.one(Size.ENTRY)
        elif bounds.order(change.width, start[position].width) is Order.GREATER:
            silent = position < setting.depth  # dW_l dh_{l-1} may outgrow dW_l h_{l-1}
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
        if order in (Order.EQUAL, Order.GREATER):  # greater: an output that grows still moves
            return regime
    return LayerRegime.FROZEN
