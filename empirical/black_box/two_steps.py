"""The first steps of an optimizer, and those that a rule would have taken in its place.

    recorded    H, D and W of every layer before each step, and W after minus W before
    deviation   max over layers and steps of |dW + lr U|_max / |dW|_rms,  U the rule's update

Claim.  The rule is told what the optimizer saw: the gradients at the weights that the *optimizer*
reached. So one wrong constant shows at the step where it enters, and no error builds up.

Not covered: rules with ascended(X), whose second gradient an optimizer takes inside its step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from empirical.numbers.capture import Capture
from empirical.numbers.interpreter import State, evaluate_network
from empirical.numbers.layer_matrices import LayerTensors
from scaling.models.recipe import TensorGroup
from scaling.rules.rule import Rule

Closure = Callable[[], Tensor]
"""Zeroes gradients, computes the loss, calls backward."""


@dataclass(frozen=True)
class RecordedStep:
    """One step: what layers saw before it, and how their weights (fan_out, fan_in) moved."""

    layers: Mapping[str, LayerTensors]
    moved: Mapping[str, Tensor]


def recorded(
    model: nn.Module,
    loss: Callable[[], Tensor],
    step: Callable[[Closure], object],
    steps: int = 2,
    held: bool = False,
) -> list[RecordedStep]:
    """The first steps of an optimizer on a model of Linear layers.

    Args:
        model: what is trained, in place.
        loss: the loss at the weights of the model, a mean over samples.
        step: moves the weights; gradients are there, and the closure makes them anew.
        steps: how many.
        held: whether weights are put back after every step, so that all see one gradient.
    """

    def closure() -> Tensor:
        model.zero_grad()
        found = loss()
        found.backward()  # type: ignore[no-untyped-call]
        return found

    capture, found = Capture(model), []
    for _ in range(steps):
        capture.clear()
        with torch.enable_grad():
            closure()
        seen = {name: capture.tensors(name) for name in capture.parameters}
        layers = {
            name: replace(one, W=one.W.clone()) for name, one in seen.items() if one is not None
        }
        step(closure)
        after = {name: capture.matrix(name) for name in layers}
        moved = {name: after[name] - one.W for name, one in layers.items()}
        if held:
            for name, one in layers.items():
                after[name].copy_(one.W)
        found.append(RecordedStep(layers, moved))
    return found


@contextmanager
def in_full_precision() -> Iterator[None]:
    """Tensors keep their dtype where code asks for bfloat16 or float32.

    So that formulas are compared, not roundings. Code that asks in other ways is not reached.
    """
    usual = {name: getattr(Tensor, name) for name in ("bfloat16", "float")}
    for name in usual:
        setattr(Tensor, name, Tensor.clone)
    try:
        yield
    finally:
        for name, method in usual.items():
            setattr(Tensor, name, method)


def replayed(
    rule: Rule, values: Mapping[str, float], steps: Sequence[RecordedStep], names: Sequence[str]
) -> list[dict[str, Tensor]]:
    """The updates of a rule in the place of the optimizer, by layer, for these layers."""
    states, found = {name: State() for name in names}, []
    for step in steps:
        layers = {name: step.layers[name] for name in names}
        given = dict.fromkeys(names, values)
        updates = evaluate_network(rule, layers, given, states)
        found.append({name: update.dense() for name, update in updates.items()})
    return found


def deviation(
    steps: Sequence[RecordedStep], groups: Mapping[str, TensorGroup], rates: Mapping[str, float]
) -> float:
    """How far the steps are from those of a recipe, relative to their size.

    Args:
        steps: of the optimizer.
        groups: of the recipe, by layer, with a value for every symbol.
        rates: the learning rate by layer.
    """
    worst = 0.0
    for group in dict.fromkeys(map(id, groups.values())):
        names = [name for name, x in groups.items() if id(x) == group]
        one = groups[names[0]]
        assert one.rule is not None, "frozen tensors take no step"
        usual = {k: float(x) for k, x in one.rule.literals.items()}
        values = {**usual, **one.values, **{k: float(x) for k, x in one.exponents.items()}}
        updates = replayed(one.rule, values, steps, names)
        for step, update in zip(steps, updates, strict=True):
            errors = [_error(step.moved[name], -rates[name] * update[name]) for name in names]
            worst = max(worst, *errors)
    return worst


def _error(moved: Tensor, expected: Tensor) -> float:
    size = float(moved.square().mean().sqrt())
    error = float((moved - expected).abs().max())
    if size == 0:
        return 0.0 if error == 0 else math.inf
    return error / size
