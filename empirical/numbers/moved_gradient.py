"""The gradient at moved weights, in numbers: move every layer, look again, move back.

    ascended(X)    W <- W + X in every layer; what the layers see then (H', D'); W <- W

The weights are put back bit by bit, from copies, also if looking fails. X is evaluated without
moving averages moving: they do when the rule itself is evaluated (interpreter.py), which then knows
ascended(X) = D' H'^T / n.

Reference: arXiv 2010.01412 (SAM). Cost: one more forward and backward pass for every different X.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from empirical.numbers.interpreter import FactoredUpdate, evaluate_network
from empirical.numbers.layer_matrices import LayerTensors
from empirical.numbers.state import State
from scaling.rules.rule import Rule
from scaling.rules.tree import Call


def ascend(
    rule: Rule,
    layers: Mapping[str, LayerTensors],
    values: Mapping[str, Mapping[str, float]],
    states: Mapping[str, State],
    weights: Mapping[str, Tensor],
    look: Callable[[], Mapping[str, LayerTensors]],
) -> tuple[dict[Call, Mapping[str, LayerTensors]], dict[str, FactoredUpdate]]:
    """Layers as seen at W + X for every ascended(X) of a rule, and the last X of each layer.

    Args:
        rule: the rule.
        layers: what every layer sees at W.
        values: numbers of the symbols, by layer.
        states: what is remembered, by layer; it stays as it is.
        weights: of the same layers, views that can be changed in place: (fan_out, fan_in), each
            perhaps as several axes.
        look: a forward and backward pass, and what every layer saw.
    """
    found: dict[Call, Mapping[str, LayerTensors]] = {}
    moves: dict[str, FactoredUpdate] = {}
    for call in rule.ascents:
        copies = {name: _copy(state) for name, state in states.items() if name in layers}
        moves = evaluate_network(Rule(call.argument), layers, values, copies)
        before = {name: weights[name].clone() for name in layers}
        try:
            with torch.no_grad():
                for name, move in moves.items():
                    move.add_to_(weights[name], 1.0)
            found[call] = look()
        finally:
            with torch.no_grad():
                for name, weight in before.items():
                    weights[name].copy_(weight)
    return found, moves


def _copy(state: State) -> State:
    """A state whose moving averages move apart."""
    return replace(
        state,
        averages=dict(state.averages),
        factors=dict(state.factors),
        counts=dict(state.counts),
    )
