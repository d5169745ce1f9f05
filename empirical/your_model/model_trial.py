"""One step of a user's own model at one width: weights drawn, layers watched, sizes taken.

What `measure` does for the plain network of the theory, `ModelTrial` does for any model that a
function of the width builds. The model is known by its layers alone: a hook on each keeps what came
in and what went out, on the probe, before and after the steps (probe.py). A layer is linear in its
weight, so the layer itself, with the change of the weight in the place of the weight, tells what
that change makes of the input (`own`); no kind of layer needs a formula of its own. Of any other
tensor that is trained (a gain, a position table) own is the change of its module's output, to first
order; it is calibrated like the rest, and not judged.

An output layer has few outputs, and its size at the start fluctuates: it is taken over `READOUTS`
independent draws of the weight.

Not covered: layers that are not linear in their weight, or not called; sampled Fisher factors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache, cached_property
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call

from empirical.measure.calibration import DAMPING_AT_BASE, OWN_AT_BASE
from empirical.measure.measured_sizes import MOST_NETWORKS, MeasuredSizes, mean_size
from empirical.measure.parametrize import LayerScales, draw_
from empirical.measure.training import damped_sums, dampings_in, sizes_recorder
from empirical.measure.trial import Constants
from empirical.numbers.layer_samples import KINDS, Layered, as_matrix, refuse_shared
from empirical.numbers.layer_values import LayerValue
from empirical.trace.given_model import model_of
from empirical.trace.model_file import GrowingAxis
from empirical.verify.verification import QUANTITIES
from empirical.your_model.initialise import ModelStart, start_stds, started_
from empirical.your_model.model_scales import ReadModel, read_by, scales_at
from empirical.your_model.probe import (
    Calls,
    Inputs,
    as_trained,
    buffers_of,
    called,
    change_of_output,
    in_float64,
    on_device,
    one_on_device,
    restore_,
    watching,
)
from empirical.your_model.rule_optimizer import RuleOptimizer
from scaling.models.chain import Role
from scaling.models.recipe import as_recipe
from scaling.rules.rule import Rule
from scaling.rules.tree import Node
from scaling.sizes.errors import InvalidInput, unknown

READOUTS = 32
FIRST_READOUT = 1_000_000
"""Streams of extra draws, beyond those of a model's own tensors."""

Build: TypeAlias = Callable[[int], nn.Module]
"""A model of a given width; models of two widths differ in nothing else."""
LossFunction: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""The mean loss of outputs and targets."""
Scales: TypeAlias = Mapping[str, LayerScales]
"""Numbers by the name of a tensor in the model."""
Parametrization: TypeAlias = Callable[[int], Scales]
"""Numbers at a width, relative to the narrowest one, where all are 1."""
MakeOptimizer: TypeAlias = Callable[[nn.Module, Scales], torch.optim.Optimizer]
"""An optimizer for a model whose learning rates (and dampings, decays) are those of the scales."""


@dataclass(frozen=True)
class ModelTrial:
    """A model, a rule and a batch: what is the same at every width."""

    build: Build
    rule: Rule
    inputs: Inputs
    targets: Tensor
    loss: LossFunction
    probe: Inputs
    base: int
    given: Parametrization | None
    optimizer: MakeOptimizer | None
    values: Mapping[str, float]
    fractions: Mapping[str, Fraction]
    steps: int
    device: str
    keep: Sequence[str] = ()
    draw: Sequence[str] = ()

    def __post_init__(self) -> None:
        known = (*self.rule.scaled, *self.rule.constants)
        for symbol in self.values:
            if symbol not in known:
                raise unknown("symbol", symbol, known)
        for symbol in self.rule.decays:
            if symbol not in self.values:
                raise InvalidInput(
                    f"no value for '{symbol}' of the rule {self.rule}",
                    "a number for every decay, at the narrowest width",
                    f"pass values={{'{symbol}': 0.1}}",
                )

    @cached_property
    def roles(self) -> dict[str, Role]:
        """Layer -> role, for the trainable layers whose sizes are looked at."""
        narrow = self.at_base
        layers = [
            name
            for name, module in narrow.named_modules()
            if isinstance(module, Layered) and module.weight.requires_grad
        ]
        if not layers:
            raise InvalidInput(
                f"a model ({type(narrow).__name__}) without trainable {KINDS} layers",
                "at least one",
                "check requires_grad, and that build returns the whole model",
            )
        refuse_shared(narrow)
        return {name: self.read.role(_tensor(name, "weight")) for name in layers}

    @cached_property
    def at_base(self) -> nn.Module:
        """A model of the narrowest width."""
        return self.fresh(self.base, 0)

    @cached_property
    def read(self) -> ReadModel:
        """The exponents of every tensor, by the model's own operations at three widths."""
        file = model_of(self._sized, (self.inputs, self.targets), self._traced_loss)
        sizes = tuple(k * self.base for k in (1, 2, 4))
        axis, recipe = GrowingAxis("width", sizes), as_recipe(self.rule)
        return read_by(recipe, file, axis, self.fractions, self.draw)

    def _sized(self, width: int) -> nn.Module:
        """A model of that width, as the tracer asks for it."""
        return self._built(width)

    def _traced_loss(self, output: Tensor, targets: Tensor) -> Tensor:
        """The loss, of targets in the dtype of the output."""
        same = targets.is_floating_point() and isinstance(output, Tensor)
        return self._checked_loss(output, targets.to(output.dtype) if same else targets)

    @cached_property
    def start(self) -> ModelStart:
        """The tensors that are drawn at the narrowest width, and those that stay."""
        return self._initialised(self.fresh(self.base, 0), self.parametrization(self.base), 0)

    @cached_property
    def parametrization(self) -> Parametrization:
        """The one that was given, or the derived one; computed once a width."""
        given, names = self.given, {name for name, _ in self.at_base.named_parameters()}

        def scales(width: int) -> Scales:
            if given is None:
                return scales_at(self.read, self.base, width)
            found = given(width)
            for name in names.symmetric_difference(found):
                raise InvalidInput(
                    f"scales of {', '.join(sorted(found))}",
                    f"one LayerScales for each of {', '.join(sorted(names))}",
                    f"{'add' if name in names else 'leave out'} '{name}'",
                )
            return found

        return cache(scales)

    def scales(self, width: int, constants: Constants) -> Scales:
        """Numbers at a width: the parametrization's, times the constants."""
        return {
            name: replace(
                own,
                lr=own.lr * constants.eta[name],
                scaled={k: own.scaled.get(k, 1.0) * rho for k, rho in constants.rho[name].items()},
            )
            for name, own in self.parametrization(width).items()
        }

    def fresh(self, width: int, seed: int) -> nn.Module:
        """A model as the user builds it, whatever it draws from torch's generator."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = self._built(width)
        return model.double().to(self.device)

    def _built(self, width: int) -> nn.Module:
        model = self.build(width)
        if not isinstance(model, nn.Module):
            raise InvalidInput(
                f"a {type(model).__name__} from build({width})",
                "a torch.nn.Module",
                "pass a function that builds the model of a given width",
            )
        return model

    def calibrated(self, lr: float | None) -> Constants:
        """Constants from the narrowest width; see coordinate_check.py."""
        names = list(self.parametrization(self.base))
        known = {**{k: float(x) for k, x in self.rule.literals.items()}, **self.values}
        given = {k: known.get(k, 1.0) for k in self.rule.scaled}
        unit = Constants(dict.fromkeys(names, 1.0), {name: dict(given) for name in names})
        rho = {name: dict(given) for name in names}
        if self.optimizer is None:
            for (name, total), (other, damping) in self._damped(unit).items():
                for symbol in dampings_in(total):
                    if symbol not in known and other > 0 and damping > 0:
                        rho[name][symbol] = DAMPING_AT_BASE * other / damping
        if lr is not None:
            return Constants(dict.fromkeys(names, lr), rho)
        model = self.fresh(self.base, 0)
        self._initialised(model, self.scales(self.base, Constants(unit.eta, rho)), 0)
        before = self._seen(model, _with_ancestors(model))
        old, buffers = _copies(model), buffers_of(model)
        self._train(model, Constants(unit.eta, rho), self.base, 1)
        restore_(model, buffers)
        own: dict[str, float] = {}
        for layer in self.roles:
            own |= _own(model, layer, old, before[layer])
        for name, tensor in model.named_parameters():
            if name not in own and tensor.requires_grad:
                own[name] = _own_of_any(model, name, old, before)
        eta = {name: OWN_AT_BASE / size for name, size in own.items() if size > 0}
        still = min(eta.values(), default=1.0)  # what does not move yet moves no faster than others
        return Constants({name: eta.get(name, still) for name in names}, rho)

    def samples(self) -> dict[str, int]:
        """Layer -> samples that its weight sees of the batch: rows, positions, words."""
        model = self.at_base
        with watching(model, list(self.roles)) as seen, torch.no_grad():
            called(model, on_device(self.inputs, self.device))
        outputs = {
            layer: len(as_matrix(module, module.get_parameter("weight")))
            for layer in self.roles
            if isinstance(module := model.get_submodule(layer), Layered)
        }
        return {
            layer: sum(x.numel() for x in calls.outputs) // outputs[layer]
            for layer, calls in seen.items()
        }

    def mean_sizes(
        self, constants: Constants, width: int, seed: int, networks: int
    ) -> dict[str, MeasuredSizes]:
        """The geometric mean over several networks of a narrow width, see `measure_mean`."""
        count = max(1, min(MOST_NETWORKS, networks))
        runs = [self._sizes(constants, width, seed * MOST_NETWORKS + i) for i in range(count)]
        return {
            layer: MeasuredSizes(
                *(mean_size([getattr(run[layer], q) for run in runs]) for q in QUANTITIES)
            )
            for layer in self.roles
        }

    def _sizes(self, constants: Constants, width: int, seed: int) -> dict[str, MeasuredSizes]:
        model, before = self._drawn(constants, width, seed)
        old, buffers = _copies(model), buffers_of(model)
        self._train(model, constants, width, self.steps)
        restore_(model, buffers)
        after = self._seen(model, list(self.roles))
        found = {}
        for layer in self.roles:
            start, end = before[layer].outputs, after[layer].outputs
            own = _own(model, layer, old, before[layer])[_tensor(layer, "weight")]
            moved = [y - x for x, y in zip(start, end, strict=True)]
            init = _rms(start)
            if self.roles[layer] is Role.OUTPUT and _tensor(layer, "weight") in self.start.drawn:
                init = self._readout(model, layer, before[layer].inputs, constants, width, seed)
            found[layer] = MeasuredSizes(init, own, _rms(moved))
        return found

    def _readout(
        self,
        model: nn.Module,
        layer: str,
        inputs: Sequence[Tensor],
        constants: Constants,
        width: int,
        seed: int,
    ) -> float:
        """RMS of an output layer over independent draws of its weight, since it has few outputs."""
        name = _tensor(layer, "weight")
        std = start_stds(self.read, self.at_base, self.scales(width, constants))[name]
        module = model.get_submodule(layer)
        still = {name: torch.zeros_like(x) for name, x in module.named_parameters()}
        weight = torch.empty_like(still["weight"])
        sizes = []
        for draw in range(READOUTS):
            draw_(weight, std, seed, width, FIRST_READOUT + draw)
            with torch.no_grad():
                outputs = [
                    functional_call(module, {**still, "weight": weight}, (x,)) for x in inputs
                ]
            sizes.append(_rms(outputs))
        return math.sqrt(sum(size**2 for size in sizes) / READOUTS)

    def _drawn(
        self, constants: Constants, width: int, seed: int
    ) -> tuple[nn.Module, dict[str, Calls]]:
        """A model with its weights drawn, and its layers' inputs and outputs on the probe."""
        model = self.fresh(width, seed)
        self._initialised(model, self.scales(width, constants), seed, width)
        return model, self._seen(model, list(self.roles))

    def _initialised(
        self, model: nn.Module, scales: Scales, seed: int, width: int | None = None
    ) -> ModelStart:
        return started_(
            model, self.at_base, self.read, scales, seed, width or self.base,
            keep=self.keep, draw=self.draw,
        )  # fmt: skip

    def _seen(self, model: nn.Module, modules: Sequence[str]) -> dict[str, Calls]:
        with watching(model, modules) as seen, as_trained(model), torch.no_grad():
            called(model, on_device(self.probe, self.device))
        for layer in self.roles:
            if not seen[layer].outputs:
                raise InvalidInput(
                    f"the layer '{layer}', which the model does not call",
                    "layers that are used by calling them",
                    "call the module instead of using its weight, or freeze it",
                )
        return seen

    def _train(
        self,
        model: nn.Module,
        constants: Constants,
        width: int,
        steps: int,
        record: Callable[[str, Node, LayerValue], None] | None = None,
    ) -> None:
        scales = self.scales(width, constants)
        if self.optimizer is not None:
            optimizer = self.optimizer(model, scales)
        else:
            trainable = {n for n, p in model.named_parameters() if p.requires_grad}
            own = {n: x for n, x in scales.items() if n in trainable}
            symbols = {k: {n: x.scaled[k] for n, x in own.items()} for k in self.rule.scaled}
            numbers = {k: v for k, v in self.values.items() if k not in symbols}
            powers = {k: float(v) for k, v in self.fractions.items()}
            optimizer = RuleOptimizer(
                model, self.rule, {n: x.lr for n, x in own.items()},
                {**symbols, **numbers, **powers}, record=record,
            )  # fmt: skip

        def closure() -> float:
            optimizer.zero_grad()
            loss = self._loss(model)
            with in_float64():
                torch.autograd.backward(loss)
            return float(loss.detach())

        for _ in range(steps):
            if isinstance(optimizer, RuleOptimizer):
                optimizer.step(closure)
            else:
                closure()
                optimizer.step()

    def _loss(self, model: nn.Module) -> Tensor:
        """The mean loss of the batch."""
        output = called(model, on_device(self.inputs, self.device))
        return self._checked_loss(output, one_on_device(self.targets, self.device))

    def _checked_loss(self, output: Any, targets: Tensor) -> Tensor:
        try:
            loss = self.loss(output, targets)
        except (TypeError, AttributeError) as error:
            if isinstance(output, Tensor):
                raise
            raise InvalidInput(
                f"a {type(output).__name__} from the model, which the loss does not take ({error})",
                "an output that the loss takes first",
                "take the prediction out of it in the loss, or in the model",
            ) from error
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            shape = f"of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"{loss!r}"
            raise InvalidInput(
                f"a loss {shape}", "a tensor with one number, the mean over samples", "take .mean()"
            )
        return loss

    def _damped(self, constants: Constants) -> dict[tuple[str, Node], tuple[float, float]]:
        """(tensor, damped sum) -> sizes of the term without and of the term with the damping."""
        damped = damped_sums(self.rule)
        watched = frozenset(node for terms in damped.values() for node in terms)
        sizes: dict[str, dict[Node, float]] = {}

        def record(name: str, node: Node, value: LayerValue) -> None:
            sizes_recorder(sizes.setdefault(name, {}), watched)(node, value)

        model, _ = self._drawn(constants, self.base, 0)
        self._train(model, constants, self.base, 1, record)
        tensors = dict(model.named_parameters())
        return {
            (name if name in tensors else f"{name}.weight", total): (found[other], found[damping])
            for name, found in sizes.items()
            for total, (other, damping) in damped.items()
            if other in found and damping in found
        }


def _own(model: nn.Module, layer: str, old: Mapping[str, Tensor], seen: Calls) -> dict[str, float]:
    """Tensor -> RMS of what its change makes of the layer's inputs; the bias's is its own RMS."""
    module = model.get_submodule(layer)
    change = {
        name: parameter.detach() - old[_tensor(layer, name)]
        for name, parameter in module.named_parameters()
    }
    found = {}
    for name in change:
        alone = {k: x if k == name else torch.zeros_like(x) for k, x in change.items()}
        with torch.no_grad():
            moved = [functional_call(module, alone, (x,)) for x in seen.inputs]
        found[_tensor(layer, name)] = _rms(moved)
    return found


def _own_of_any(
    model: nn.Module, name: str, old: Mapping[str, Tensor], before: Mapping[str, Calls]
) -> float:
    """RMS of what the change of a tensor makes of the output of the nearest module that is called.

    To first order, per unit of its change.
    """
    path = name.rpartition(".")[0]
    while path and not before[path].outputs:
        path = path.rpartition(".")[0]
    module, prefix = model.get_submodule(path), f"{path}." if path else ""
    inside = {n.removeprefix(prefix): x for n, x in old.items() if n.startswith(prefix)}
    new = model.get_parameter(name).detach()
    return _rms(change_of_output(module, before[path], name.removeprefix(prefix), inside, new))


def _with_ancestors(model: nn.Module) -> list[str]:
    """The modules that trained tensors belong to, and those that hold these, the model included."""
    paths = {""}
    for name, tensor in model.named_parameters():
        parts = name.split(".")[:-1] if tensor.requires_grad else []
        paths |= {".".join(parts[: i + 1]) for i in range(len(parts))}
    return sorted(paths)


def _tensor(layer: str, name: str) -> str:
    """The name of a layer's parameter in the model, which may be that layer itself."""
    return f"{layer}.{name}" if layer else name


def _copies(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def _rms(parts: Sequence[Tensor]) -> float:
    count = sum(x.numel() for x in parts)
    return math.sqrt(sum(float(x.square().sum()) for x in parts) / count)
