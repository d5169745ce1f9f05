"""`predict` evaluates a step under any exponents, as they are, and names each layer's regime.

    own      dW_l h_{l-1}
    shrink   the fraction of its weights that a decay takes away
    ascent   X_l h_{l-1}, of the perturbation in ascended(X)
    feature  dh_l = own + W_l dh_{l-1}; df at the output

    unstable     something grows with the width
    maximal      the layer's own update moves its output by Theta(1)
    sub-maximal  its features move by Theta(1), but not through its own weights
    lazy         the features stand still, the output moves
    frozen       nothing moves

The third term, dW_l dh_{l-1}, is no larger than own while dh = O(h). Above an unstable layer the
alignment of the changed features is unknown: features there are not predicted.

The second step (`Problem.step`) is measured from where the first one left the network: own is
dW_2 h with h after the first step, feature is h after the second minus h after the first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from sympy import Expr, S

from scaling.calculus.context import Regime, regimes
from scaling.calculus.readback import features
from scaling.sizes.in_notebook import InNotebook
from scaling.sizes.scale import Bounds, Order, Scale
from scaling.states.ascent import perturbations, with_ascents
from scaling.states.problem import CONVENTION, Exponents, Problem, rate
from scaling.states.second_step import after_step
from scaling.states.start import at_start


class LayerRegime(StrEnum):
    """The fate of a layer in one step as the width grows."""

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
    decay acts on weights that are not zero; ``ascent`` for rules that perturb no weights. ``gaps``
    holds how soon a size has its exponent, up to M^-gap, where terms were dropped (`Scale.gap`).
    """

    init: Expr
    own: Expr
    feature: Expr | None
    regime: LayerRegime
    shrink: Expr | None = None
    ascent: Expr | None = None
    gaps: Mapping[str, Expr] = field(default_factory=dict)


@dataclass(frozen=True)
class Prediction(InNotebook):
    """Exponents of one step of a rule under given exponents."""

    problem: Problem
    exponents: Exponents
    layers: Mapping[str, LayerPrediction]
    regimes: Mapping[str, tuple[Regime, ...]]
    assumptions: tuple[str, ...]
    convention: str = CONVENTION

    @property
    def regime_lines(self) -> tuple[str, ...]:
        """Sums that are not balanced, one line each: which of the terms was taken to dominate."""
        found = [(name, x) for name, decided in self.regimes.items() for x in decided]
        taken = [f"regime in {name}: {x}" for name, x in found if x.order is not Order.EQUAL]
        return tuple(dict.fromkeys(taken))


def predict(problem: Problem, exponents: Exponents, bounds: Bounds | None = None) -> Prediction:
    """Evaluate the problem's step under the given exponents, without solving anything.

    ``bounds`` is what is known of symbols in the exponents (`Derived.bounds` for derived ones).

    Raises:
        NotCovered: if the calculus does not cover the rule, or an activation saturates.

    >>> from scaling.solve.derive import derive
    >>> found = derive("sign(G)")
    >>> str(predict(found.problem, found.exponents).layers["hidden"].regime)
    'maximal'
    """
    setting, bounds, x = problem.setting, bounds or problem.bounds(), exponents
    state = with_ascents(at_start(problem, x.a, x.b, bounds), x.d)
    ascents = perturbations(state, x.d)
    updates = state.updates(x.d)
    if problem.step == 2:
        state = after_step(state, x.c, x.d, updates)
        updates = {
            name: state.followed(setting.layer(name), update)
            for name, update in state.updates(x.d).items()
        }
    decided = {name: regimes(update.step) for name, update in updates.items()}
    assumptions = list(problem.assumptions)
    assumptions += [text for u in updates.values() for text in u.step.assumptions()]
    moved = {name: u.times(rate(x.c[name])) for name, u in updates.items()}
    changes = features(setting, moved, state.carry, bounds, state.features)
    layers = {}
    for layer in setting.layers:
        update = moved[layer.name]
        own = update.coherent.plus(update.random, bounds)
        start = state.weights(layer.name) if layer.is_bias else state.features[layer.position]
        feature = changes[layer.position]
        regime = _regime(own, feature, changes[-1], layer.position == setting.depth, bounds)
        lost = update.multiple if problem.rule.decays and not start.is_zero else None
        if lost is not None and bounds.order(lost.width, S.Zero) is Order.GREATER:
            regime = LayerRegime.UNSTABLE  # a step overshoots zero
        shown = None if feature is None else feature.width
        shrink = None if lost is None or lost.is_zero else lost.width
        ascent = ascents[layer.name].width if ascents else None
        gaps = {"own": own.gap} if feature is None else {"own": own.gap, "feature": feature.gap}
        layers[layer.name] = LayerPrediction(
            start.width, own.width, shown, regime, shrink, ascent, gaps
        )
    return Prediction(problem, exponents, layers, decided, tuple(dict.fromkeys(assumptions)))


def _regime(
    own: Scale, feature: Scale | None, output: Scale | None, last: bool, bounds: Bounds
) -> LayerRegime:
    sizes = [own, feature] if last else [own, feature, output]
    orders = [Order.GREATER if s is None else bounds.order(s.width, S.Zero) for s in sizes]
    return regime_of(orders, own.is_zero and feature is not None and feature.is_zero)


def regime_of(orders: Sequence[Order], still: bool) -> LayerRegime:
    """The regime of a layer.

    Args:
        orders: how own and feature compare with order one, and df where it is not the feature.
        still: whether own and feature are exactly zero.
    """
    named = [LayerRegime.MAXIMAL, LayerRegime.SUB_MAXIMAL, LayerRegime.LAZY]
    if Order.GREATER in orders[:2]:
        return LayerRegime.UNSTABLE
    if still:
        return LayerRegime.FROZEN
    for order, regime in zip(orders, named, strict=False):
        if order is Order.OPEN:
            return LayerRegime.OPEN
        if order in (Order.EQUAL, Order.GREATER):  # greater: an output that grows still moves
            return regime
    return LayerRegime.FROZEN
