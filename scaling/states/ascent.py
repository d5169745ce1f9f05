"""The gradient at moved weights: sharpness-aware minimization, and the radius that it needs.

    ascended(X) = G at W + X, every layer l moved by its own X_l        X = radius G / norm(G): SAM
    radius ~ M^-d                                                      maximal perturbation fixes d

The claim.  A perturbation is a step that is taken back: the sizes of h and delta at W + X are those
after a first step with dW = X (second_step.py, read here at a rate of one), and G there is D' H'^T
with them. So an update made of it has the sizes of one made of G wherever X is stable, that is
where it moves h_l and f by O(1). Maximal perturbation asks for the most: X_l h_(l-1) = Theta(1) in
every layer, or as much as leaves the output stable, which is the equation of maximal update with
the radius in the place of the rate (scaling/solve/radii.py). For G / norm(G) by layers it is the
spectral condition of arXiv 2411.00075; with the norm of all layers (over_layers) the last one alone
is perturbed unless the radii differ by layers, as derived there.

D' and H' are not D and H: products with A, B, L, R have no push-through, and what is divided by a
function of G' vanishes elsewhere than G' does.

Not covered, and refused: the second step; a perturbation that outgrows what it moves; weights
above that are smaller than their perturbation (a readout that starts at zero), where delta' follows
the features and not W^T delta; an alignment that is given; sums over layers in which the radii of
several layers meet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from sympy import S

from scaling.models.layer_sizes import LayerSizes
from scaling.rules.tree import Node
from scaling.sizes.derivation import Step
from scaling.sizes.errors import NotCovered
from scaling.sizes.scale import Order, Scale
from scaling.states.network_state import Dampings, NetworkState
from scaling.states.second_step import CANCEL, AfterStep, after_step


def with_ascents(state: NetworkState, scaled: Dampings) -> NetworkState:
    """The network at W, with its sizes at W + X for every ascended(X) of the rule.

    Raises:
        NotCovered: for what the module does not cover.
    """
    found: dict[Node, Mapping[str, LayerSizes]] = {}
    for call in state.problem.rule.ascents:
        if state.problem.step > 1:
            raise NotCovered(
                f"'{call}' at the second step",
                "the sizes at W + dW_1 + X",
                "use --step 1, or measure: scaling measure RULE --steps 2",
            )
        updates = state.updates(scaled, call.argument)
        try:
            moved = after_step(state, dict.fromkeys(state.sizes, S.Zero), scaled, updates)
        except NotCovered as error:
            raise NotCovered(
                f"'{call}', whose perturbation is no stable step: {error.found}",
                error.needed,
                "raise d of its radius",
            ) from error
        _refuse_turned(call, moved)
        found[call.argument] = {name: _renamed(x) for name, x in moved.sizes.items()}
    return replace(state, ascended=found)


def perturbations(state: NetworkState, scaled: Dampings) -> dict[str, Scale]:
    """The size of X_l h_(l-1) in every layer, of the largest X; nothing for a rule without one."""
    found: dict[str, Scale] = {}
    for call in state.problem.rule.ascents:
        for name, update in state.updates(scaled, call.argument).items():
            own = update.coherent.plus(update.random, state.bounds)
            found[name] = found[name].plus(own, state.bounds) if name in found else own
    return found


def _refuse_turned(call: Node, moved: AfterStep) -> None:
    """Refuse cotangents that follow what was added to the weights above, not these weights."""
    for layer in moved.problem.setting.layers:
        delta = moved.deltas[layer.position]
        order = moved.bounds.order(delta.noise.width, delta.whole(moved.bounds).width)
        if order is not Order.EQUAL:
            raise NotCovered(
                f"'{call}', whose cotangents in the {layer.name} layer follow the perturbation "
                "above and not the weights",
                "weights above that are as large as what is added to them",
                "use a readout with b_output <= 1 + a_output, or a smaller radius",
            )


def _renamed(sizes: LayerSizes) -> LayerSizes:
    known: dict[Step, Step] = {}
    h, delta = _at_moved(sizes.h_step, known), _at_moved(sizes.delta_step, known)
    return replace(sizes, h_step=h, delta_step=delta)


def _at_moved(step: Step, known: dict[Step, Step]) -> Step:
    """A line that second_step.py wrote, as a line of the first step at W + X."""
    if step not in known:
        known[step] = _renamed_line(step, tuple(_at_moved(x, known) for x in step.inputs))
    return known[step]


def _renamed_line(step: Step, inputs: tuple[Step, ...]) -> Step:
    if step.time == 1:
        return replace(step, inputs=inputs)
    text = "what a perturbation adds does not cancel what was there"
    assumption = text if step.assumption == CANCEL else step.assumption
    subject = f"{step.subject} at W + X"
    return replace(step, subject=subject, inputs=inputs, assumption=assumption, time=1)
