"""Any rule as an optimizer, for the matrices that a source finds in a model.

    W <- W - lr * rule(H, D, W)            one tensor, one param group: lr, values, name

`Capture` (capture.py) is a source: the Linear, Conv2d and Embedding layers of a model, by hooks on
modules. The one that reads a model's own operations is empirical/your_model/rule_optimizer.py.

Claim.  An optimizer is its rule: SGD, K-FAC, Shampoo or sign descent are trees, and this class
evaluates trees. Moving averages of the factors are a rewritten tree (`with_factor_ema`), stale
factors a state that refreshes now and then, the true Fisher other cotangents for B.

Nothing hangs on tensors: learning rates and hyper-parameters are in plain param groups, what is
remembered between steps is in ``state_dict()["layers"]``, by the name of a matrix.

>>> import torch
>>> from torch import nn
>>> from empirical.numbers.capture import Capture
>>> from scaling.rules.parser import parse
>>> model = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1))
>>> optimizer = LayerOptimizer(Capture(model), parse("G @ (A + rho*I)**(-1)"), 0.1, {"rho": 1e-3})
>>> [group["name"] for group in optimizer.param_groups]
['0', '0.bias', '2', '2.bias']
>>> model(torch.ones(5, 2)).square().mean().backward()
>>> optimizer.step()
>>> optimizer.updates()["0"].dense().shape
torch.Size([8, 2])

Not covered: half-precision training with scaled losses.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from functools import partial
from typing import Any, Protocol, overload

import torch
from torch import Tensor, nn

from empirical.numbers.capture import LossFunction
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

__all__ = [
    "Fisher",
    "LayerOptimizer",
    "LayerSource",
    "LossFunction",
    "PerLayer",
    "substitute",
    "with_factor_ema",
]

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


class LayerSource(Protocol):
    """Where an optimizer finds the trained tensors of a model, and what it sees of them.

    A tensor is one matrix or several (experts, packed projections), in one order everywhere.
    """

    @property
    def parameters(self) -> Mapping[str, nn.Parameter]:
        """Trained tensors by name."""

    def views(self, name: str) -> list[Tensor]:
        """Each matrix of a tensor as a view (*rows, *columns), to be changed in place."""

    def layers(self, name: str) -> list[LayerTensors] | None:
        """Each matrix as a rule sees it; None for a tensor that took part in no backward pass."""

    def was_sampled(self, name: str) -> bool:
        """Whether cotangents of sampled targets came by."""

    def sample(self, output: Tensor, loss: LossFunction, generator: torch.Generator) -> None:
        """Draw targets from the model for the last pass, and collect their cotangents."""

    def clear(self) -> None:
        """Forget everything seen so far."""

    def clear_gradients(self) -> None:
        """Forget the passes that were differentiated; one that is under way goes on."""


class LayerOptimizer(torch.optim.Optimizer):
    """Apply a rule to every matrix that a source finds in a model.

    ``rule`` is that of all tensors, or by tensor. ``lr`` and every entry of ``values`` (symbol ->
    number) may be one number or a mapping from names of tensors to numbers. ``curvature_interval``
    k computes the square matrices made from A, B, L, R at every k-th step only; ``factor_ema``
    averages A, B, L and R over those steps. ``record`` is called as (name, node, value) for every
    node that is evaluated. Tensors that took part in no backward pass since the last step do not
    move.

    Raises `InvalidInput` for names of tensors or symbols that do not exist or have no value, and,
    at a step, for tensors that are not finite.
    """

    def __init__(
        self,
        source: LayerSource,
        rule: Rule | Mapping[str, Rule],
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
        tensors = source.parameters
        rules = dict.fromkeys(tensors, rule) if isinstance(rule, Rule) else rule
        if factor_ema is not None:
            averaged = {x: with_factor_ema(x, factor_ema) for x in set(rules.values())}
            rules = {name: averaged[x] for name, x in rules.items()}
        self.rules = dict(rules)
        self.fisher = fisher
        self._record = record
        self._source = source
        self._updates: dict[str, FactoredUpdate] = {}
        self._moves: dict[str, FactoredUpdate] = {}
        self._keys = {name: _keys(name, len(source.views(name))) for name in tensors}
        self._owner = {key: name for name, keys in self._keys.items() for key in keys}
        self._states = {key: State(curvature_interval) for key in self._owner}
        rates = _rates(lr, tensors)
        numbers = _numbers(self.rules, values or {})
        groups = [
            {"params": [parameter], "name": name, "lr": rates[name], "values": numbers[name]}
            for name, parameter in tensors.items()
        ]
        super().__init__(groups, {})

    @property
    def ascends(self) -> bool:
        """Whether a step takes gradients at moved weights, and so needs a closure."""
        return any(rule.ascents for rule in self.rules.values())

    def updates(self) -> Mapping[str, FactoredUpdate]:
        """The last step's update of each matrix, before the learning rate was applied.

        By the name of the tensor; ``name[i]`` for the i-th of several.
        """
        return dict(self._updates)

    def moves(self) -> Mapping[str, FactoredUpdate]:
        """The last step's X of each matrix, for a rule with ascended(X); of several the last."""
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
        self._source.sample(output, loss, generator)

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update every tensor that took part in a backward pass since the last step.

        A rule with ascended(X) needs the closure, which zeroes the gradients, computes the loss and
        calls ``backward``: it is called again at the moved weights, for every different X.
        """
        rules = {key: self.rules[name] for key, name in self._owner.items()}
        ascents = next((x for x in self.rules.values() if x.ascents), None)
        if ascents is not None and closure is None:
            raise InvalidInput(
                f"a step of {ascents} without a closure",
                "a closure, to take a gradient at moved weights",
                "pass optimizer.step a function that zeroes the gradients, computes the loss, "
                "calls backward and returns the loss",
            )
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        layers = self._seen(self._keys)
        groups = {group["name"]: group for group in self.param_groups}
        values = {key: groups[name]["values"] for key, name in self._owner.items()}
        ascended: Mapping[Call, Mapping[str, LayerTensors]] = {}
        if closure is not None and ascents is not None:
            views = {k: x for name in self._keys for k, x in self._views(name).items()}
            look = partial(self._look, closure, list(layers))
            ascended, self._moves = ascend(ascents, layers, values, self._states, views, look)
        self._updates = evaluate_network(
            rules, layers, values, self._states, self._recorded, ascended=ascended
        )
        for (
            name,
            group,
        ) in groups.items():  # after all of them: a refusal leaves the model as it was
            for key, view in self._views(name).items():
                if key in self._updates:
                    self._updates[key].add_to_(view, -group["lr"])
        self._source.clear()
        return loss

    def _recorded(self, key: str, node: Node, value: LayerValue) -> None:
        if self._record is not None:
            self._record(self._owner[key], node, value)

    def _views(self, name: str) -> dict[str, Tensor]:
        return dict(zip(self._keys[name], self._source.views(name), strict=True))

    def _look(self, closure: Callable[[], float], keys: Sequence[str]) -> dict[str, LayerTensors]:
        """Some matrices as seen in one more pass."""
        self._source.clear()
        with torch.enable_grad():
            closure()
        names = list(dict.fromkeys(self._owner[key] for key in keys))
        seen = self._seen(names)
        for key in keys:
            if key not in seen:
                raise InvalidInput(
                    f"no gradient of layer '{key}' in the second pass of a step",
                    "a closure whose passes use the same layers",
                    "make it do the same at every call",
                )
        return seen

    def _seen(self, names: Iterable[str]) -> dict[str, LayerTensors]:
        """The matrices of tensors as a rule sees them, without those that took no part."""
        found: dict[str, LayerTensors] = {}
        for name in names:
            with in_layer(name):
                layers = self._source.layers(name)
                if layers is None:
                    continue
                sampled = self.fisher is Fisher.EMPIRICAL or self._source.was_sampled(name)
                if self._states[self._keys[name][0]].refreshes and not sampled:
                    raise InvalidInput(
                        "a step with the true Fisher, but no sampled cotangents",
                        "a call of sample_fisher in every pass that refreshes the curvature",
                        "call optimizer.sample_fisher(output, loss, generator) before backward",
                    )
                found |= zip(self._keys[name], layers, strict=True)
        return found

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Zero the gradients, and forget the passes that they came from."""
        super().zero_grad(set_to_none)
        self._source.clear_gradients()

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
    rules: Mapping[str, Rule], values: Mapping[str, PerLayer]
) -> dict[str, dict[str, float]]:
    """Layer -> symbol -> number, every symbol of its rule and no other."""
    found: dict[str, dict[str, float]] = {name: {} for name in rules}
    known = dict.fromkeys(symbol for rule in rules.values() for symbol in _symbols(rule))
    for symbol in values:
        if symbol not in known:
            raise unknown("symbol", symbol, tuple(known))
    for symbol in known:
        asked = [name for name, rule in rules.items() if symbol in _symbols(rule)]
        literals = {
            n: float(rules[n].literals[symbol]) for n in asked if symbol in rules[n].literals
        }
        given = values.get(symbol, literals)
        if not given and given != 0:
            raise InvalidInput(
                f"no value for '{symbol}' of the rule {rules[asked[0]]}",
                "a number for every symbol of the rule",
                f"pass values={{'{symbol}': ...}}",
            )
        for name, x in _per_layer(symbol, given, asked, rules).items():
            found[name][symbol] = x
    return found


def _symbols(rule: Rule) -> tuple[str, ...]:
    return (*rule.scaled, *rule.exponents, *rule.constants)


def _keys(name: str, count: int) -> list[str]:
    """The names of the matrices of a tensor."""
    return [name] if count == 1 else [f"{name}[{i}]" for i in range(count)]


def _per_layer(
    what: str, x: PerLayer, layers: Iterable[str], known: Iterable[str] | None = None
) -> dict[str, float]:
    """The number of every layer; ``known``: layers that may have one too, which nobody asks for."""
    known = tuple(layers if known is None else known)
    if not isinstance(x, Mapping):
        x = dict.fromkeys(layers, x)
    x = {name.removesuffix(".weight"): value for name, value in x.items()}
    for name in x:
        if name not in known:
            raise unknown("layer", name, known)
    for name in layers:
        if not is_finite(x.get(name, math.nan)):
            raise InvalidInput(
                f"{what} = {x.get(name, 'nothing')} for layer '{name}'",
                "a finite number for every layer",
                "pass one number, or a mapping with all layers: " + ", ".join(layers),
            )
    return {name: float(x[name]) for name in layers}
