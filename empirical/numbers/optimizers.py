"""Any rule as an optimizer for any network of Linear, Conv2d and Embedding layers.

    W <- W - lr * rule(H, D, W)            one layer, one param group: lr, values, name

Claim.  An optimizer is its rule: SGD, K-FAC, Shampoo or sign descent are trees, and this class
evaluates trees. Moving averages of the factors are a rewritten tree (`with_factor_ema`), stale
factors a state that refreshes now and then, the true Fisher other cotangents for B.

Nothing hangs on tensors: learning rates and hyper-parameters are in plain param groups, what is
remembered between steps is in ``state_dict()["layers"]``, by layer name.

Not covered: what capture.py does not cover; half-precision training with scaled losses.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from functools import partial
from typing import Any, overload

import torch
from torch import Tensor, nn

from derivations.catalogue import rule_of
from empirical.numbers.capture import Capture, LossFunction
from empirical.numbers.interpreter import FactoredUpdate, evaluate_network, in_layer
from empirical.numbers.layer_matrices import LayerTensors
from empirical.numbers.layer_values import LayerValue
from empirical.numbers.moved_gradient import ascend
from empirical.numbers.state import State
from scaling.rules.language import ema
from scaling.rules.rewrites import substitute
from scaling.rules.rule import Rule
from scaling.rules.tree import Call, Matrix, Node
from scaling.sizes.errors import InvalidInput, is_finite, unknown

__all__ = ["Fisher", "LossFunction", "PerLayer", "RuleOptimizer", "substitute", "with_factor_ema"]

PerLayer = float | Mapping[str, float]
"""One number for all layers, or layer name -> number."""


class Fisher(StrEnum):
    """The cotangents that make B."""

    EMPIRICAL = "empirical"
    """The loss's own."""
    TRUE = "true"
    """Those of targets sampled from the model; see `RuleOptimizer.sample_fisher`."""


def with_factor_ema(rule: Rule, beta: float) -> Rule:
    """The rule with moving averages of A, B, L and R in the place of those matrices.

    The averages start at zero and there is no correction for that: write one into the rule.
    """
    averages: dict[Node, Node] = {Matrix(name): ema(Matrix(name), beta) for name in "ABLR"}
    return Rule(substitute(rule.expression, averages), rule.name)


class RuleOptimizer(torch.optim.Optimizer):
    """Apply a rule to every layer of a model.

    ``lr`` and every entry of ``values`` (symbol -> number) may be one number or a mapping from
    layer names to numbers; "<layer>.bias" is a layer. ``curvature_interval`` k computes the square
    matrices made from A, B, L, R at every k-th step only; ``factor_ema`` averages A, B, L and R
    over those steps. ``record`` is called as (layer name, node, value) for every node that is
    evaluated. Layers that took part in no backward pass since the last step do not move.

    >>> from scaling.rules.parser import parse
    >>> model = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1))
    >>> optimizer = RuleOptimizer(model, parse("G @ (A + rho*I)**(-1)"), 0.1, {"rho": 1e-3})
    >>> [group["name"] for group in optimizer.param_groups]
    ['0', '0.bias', '2', '2.bias']
    >>> model(torch.ones(5, 2)).square().mean().backward()
    >>> optimizer.step()
    >>> optimizer.updates()["0"].dense().shape
    torch.Size([8, 2])

    Raises `InvalidInput` for parameters that it cannot train, for names of layers or symbols that
    do not exist or have no value, and, at a step, for tensors that are not finite.
    """

    def __init__(
        self,
        model: nn.Module,
        rule: Rule | Node | str,
        lr: PerLayer,
        values: Mapping[str, PerLayer] | None = None,
        fisher: Fisher = Fisher.EMPIRICAL,
        curvature_interval: int = 1,
        factor_ema: float | None = None,
        record: Callable[[str, Node, LayerValue], None] | None = None,
    ) -> None:
        if curvature_interval < 1:
            raise InvalidInput(
                f"a curvature interval of {curvature_interval}",
                "a whole number of steps, at least 1",
                "pass 1 to compute the curvature at every step",
            )
        rule = rule_of(rule)
        self.rule = rule if factor_ema is None else with_factor_ema(rule, factor_ema)
        self.fisher = fisher
        self._record = record
        self._capture = Capture(model, outputs=fisher is Fisher.TRUE)
        self._updates: dict[str, FactoredUpdate] = {}
        self._moves: dict[str, FactoredUpdate] = {}
        layers = self._capture.parameters
        self._states = {name: State(curvature_interval) for name in layers}
        rates = _rates(lr, layers)
        numbers = _numbers(self.rule, values or {}, layers)
        groups = [
            {"params": [parameter], "name": name, "lr": rates[name], "values": numbers[name]}
            for name, parameter in layers.items()
        ]
        super().__init__(groups, {})

    def updates(self) -> Mapping[str, FactoredUpdate]:
        """The last step's update of each layer, before the learning rate was applied."""
        return dict(self._updates)

    def moves(self) -> Mapping[str, FactoredUpdate]:
        """The last step's X of each layer, for a rule with ascended(X); the last one of several."""
        return dict(self._moves)

    def sample_fisher(self, output: Tensor, loss: LossFunction, generator: torch.Generator) -> None:
        """Draw targets from the model's output and collect their cotangents for B.

        Call it after the forward pass and before ``backward``; needs ``fisher=Fisher.TRUE``.
        """
        if self.fisher is not Fisher.TRUE:
            raise InvalidInput(
                "sample_fisher on an optimizer with the empirical Fisher",
                "an optimizer with fisher=Fisher.TRUE",
                "pass it, or leave this call out",
            )
        self._capture.sample(output, loss, generator)

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update every layer that took part in a backward pass since the last step.

        A rule with ascended(X) needs the closure, which zeroes the gradients, computes the loss and
        calls ``backward``: it is called again at the moved weights, for every different X.
        """
        if self.rule.ascents and closure is None:
            raise InvalidInput(
                f"a step of {self.rule} without a closure",
                "a closure, to take a gradient at moved weights",
                "pass step a function that zeroes gradients, computes the loss, calls backward",
            )
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._updates = {}
        seen = {group["name"]: self._tensors(group["name"]) for group in self.param_groups}
        layers = {name: layer for name, layer in seen.items() if layer is not None}
        values = {group["name"]: group["values"] for group in self.param_groups}
        ascended: Mapping[Call, Mapping[str, LayerTensors]] = {}
        if closure is not None and self.rule.ascents:
            matrices = {name: self._capture.matrix(name) for name in layers}
            look = partial(self._look, closure, list(layers))
            ascended, self._moves = ascend(self.rule, layers, values, self._states, matrices, look)
        self._updates = evaluate_network(
            self.rule, layers, values, self._states, self._record, ascended=ascended
        )
        for group in self.param_groups:  # after all of them: a refusal leaves the model as it was
            if group["name"] in self._updates:
                weight = self._capture.matrix(group["name"])
                self._updates[group["name"]].add_to_(weight, -group["lr"])
        self._capture.clear()
        return loss

    def _look(self, closure: Callable[[], float], names: Sequence[str]) -> dict[str, LayerTensors]:
        """Some layers as seen in one more pass."""
        self._capture.clear()
        with torch.enable_grad():
            closure()
        seen = {name: self._tensors(name) for name in names}
        for name, layer in seen.items():
            if layer is None:
                raise InvalidInput(
                    f"no gradient of layer '{name}' in the second pass of a step",
                    "a closure whose passes use the same layers",
                    "make it do the same at every call",
                )
        return {name: layer for name, layer in seen.items() if layer is not None}

    def _tensors(self, name: str) -> LayerTensors | None:
        """A layer as the rule sees it; None for one that took no part."""
        with in_layer(name):
            layer = self._capture.tensors(name)
            if layer is None:
                return None
            sampled = self.fisher is Fisher.EMPIRICAL or self._capture.was_sampled(name)
            if self._states[name].refreshes and not sampled:
                raise InvalidInput(
                    "a step with the true Fisher, but no sampled cotangents",
                    "a call of sample_fisher in every pass that refreshes the curvature",
                    "call optimizer.sample_fisher(output, loss, generator) before backward",
                )
            return layer

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Zero the gradients, and forget the passes that they came from."""
        super().zero_grad(set_to_none)
        self._capture.clear_gradients()

    def state_dict(self) -> dict[str, Any]:
        """As in torch; moving averages and kept factors are under "layers", by layer name."""
        layers = {name: state.pack() for name, state in self._states.items()}
        return {**super().state_dict(), "layers": layers}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The inverse of ``state_dict``. Raises `InvalidInput` if the layers are others."""
        layers = state_dict.get("layers", {})
        if list(layers) != list(self._states):
            raise InvalidInput(
                f"the state of the layers {', '.join(layers)}",
                f"that of the layers {', '.join(self._states)}",
                "load it into an optimizer for the same model",
            )
        super().load_state_dict({key: x for key, x in state_dict.items() if key != "layers"})
        self._states = {name: State.unpack(packed) for name, packed in layers.items()}


def _rates(lr: PerLayer, layers: Iterable[str]) -> dict[str, float]:
    rates = _per_layer("lr", lr, layers)
    for name, rate in rates.items():
        if rate < 0:
            raise InvalidInput(
                f"lr = {rate:g} for layer '{name}'",
                "a learning rate of at least 0",
                "turn its sign: a step is W <- W - lr * update",
            )
    return rates


def _numbers(
    rule: Rule, values: Mapping[str, PerLayer], layers: Iterable[str]
) -> dict[str, dict[str, float]]:
    """Layer -> symbol -> number, every symbol of the rule and no other."""
    symbols = (*rule.scaled, *rule.exponents, *rule.constants)
    for symbol in values:
        if symbol not in symbols:
            raise unknown("symbol", symbol, symbols)
    values = {**{name: float(x) for name, x in rule.literals.items()}, **values}
    for symbol in symbols:
        if symbol not in values:
            raise InvalidInput(
                f"no value for '{symbol}' of the rule {rule}",
                "a number for every symbol of the rule",
                f"pass values={{'{symbol}': ...}}",
            )
    table = {symbol: _per_layer(symbol, x, layers) for symbol, x in values.items()}
    return {name: {symbol: table[symbol][name] for symbol in table} for name in layers}


def _per_layer(what: str, x: PerLayer, layers: Iterable[str]) -> dict[str, float]:
    if not isinstance(x, Mapping):
        x = dict.fromkeys(layers, x)
    x = {name.removesuffix(".weight"): value for name, value in x.items()}
    for name in x:
        if name not in layers:
            raise unknown("layer", name, layers)
    for name in layers:
        if not is_finite(x.get(name, math.nan)):
            raise InvalidInput(
                f"{what} = {x.get(name, 'nothing')} for layer '{name}'",
                "a finite number for every layer",
                "pass one number, or a mapping with all layers: " + ", ".join(layers),
            )
    return {name: float(x[name]) for name in layers}
