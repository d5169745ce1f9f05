"""Inputs and cotangents of the layers of a model, taken while autograd runs.

    H (fan_in, N): the layer's samples as the layer gets them, any multiplier of the model included
    D (fan_out, N): N times the gradient of the loss by the layer's output

Claim.  D H^T / N is the gradient that autograd writes to ``.grad``. Where the loss is a mean over
its samples, the columns of D are the gradients of the samples' own losses. (For a sum, G is still
``.grad``, but B is in other units.) Leading dimensions are samples; so are repeated uses of a
layer, and several backward passes before the layers are cleared. What a sample is in Conv2d and
Embedding layers, and in which units B then is, layer_samples.py says.

Under autocast some of these come in half precision: they are read in the dtype of the weights, and
compared with ``.grad`` as closely as half precision allows.

A bias is a layer of its own, "<layer>.bias", whose input is the constant 1: fan_in 1, H all ones.

Each call of a layer puts a hook on its output, which pairs that call's input with that call's
gradient. So a pass that is never differentiated, or runs under no_grad, leaves no trace.

Not covered: parameters outside Linear, Conv2d, Embedding and EmbeddingBag layers; weights that two
modules share; a change of ``.grad`` after the backward pass, such as clipping (refused, since the
rule would not see it).
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.utils.hooks import RemovableHandle

from empirical.numbers.layer_matrices import LayerTensors
from empirical.numbers.layer_samples import (
    KINDS,
    Layered,
    SampleColumns,
    as_matrix,
    columns,
    cotangents,
    refuse_shared,
    refuse_unless_covered,
    source,
)
from scaling.sizes.errors import InvalidInput


class LossFunction(StrEnum):
    """The losses whose targets can be sampled from the model; both are means over the samples."""

    CROSS_ENTROPY = "cross-entropy"
    """Of the softmax over the last dimension of the output."""
    MSE = "mse"
    """Half the squared distance: targets are normal about the output, with variance 1 each."""


def sampled_cotangents(output: Tensor, loss: LossFunction, generator: torch.Generator) -> Tensor:
    """The gradient of each sample's loss by the output, at a target drawn from the model.

    The Fisher matrix is their second moment:

    >>> import torch
    >>> logits = torch.zeros(10000, 2)
    >>> c = sampled_cotangents(logits, LossFunction.CROSS_ENTROPY, torch.Generator().manual_seed(0))
    >>> torch.allclose(c.T @ c / 10000, torch.tensor([[0.25, -0.25], [-0.25, 0.25]]))
    True
    """
    output = output.detach()
    if loss is LossFunction.MSE:
        shape, dtype, device = output.shape, output.dtype, output.device
        return torch.randn(shape, generator=generator, dtype=dtype, device=device)
    p = output.softmax(dim=-1)
    labels = torch.multinomial(p.reshape(-1, p.shape[-1]), 1, generator=generator)
    return p.scatter_add(-1, labels.reshape(*p.shape[:-1], 1), p.new_full((1,), -1.0).expand_as(p))


def drawn_cotangents(
    output: Tensor, loss: LossFunction, generator: torch.Generator, edges: Sequence[GradientEdge]
) -> list[Tensor | None]:
    """Gradients of the mean loss at targets drawn from the model, at edges of its last pass.

    None where the output does not depend on an edge. They are of the mean, as the loss's own are.
    """
    cotangents = sampled_cotangents(output, loss, generator)
    found = torch.autograd.grad(
        [output], list(edges), [cotangents], retain_graph=True, allow_unused=True
    )
    samples = output.numel() // output.shape[-1]
    return [None if x is None else x / samples for x in found]


@dataclass
class _Seen:
    """Inputs of one module as it got them, and gradients with one row a sample."""

    inputs: list[Tensor] = field(default_factory=list)
    gradients: list[Tensor] = field(default_factory=list)
    outputs: list[GradientEdge] = field(default_factory=list)
    sampled: list[Tensor] = field(default_factory=list)


class Capture:
    """Watches the layers of a model for as long as it lives.

    ``outputs`` keeps each call's place in the graph for `sample`; without it no graph is kept.

    Raises `InvalidInput` for a trainable parameter outside the layers that layer_samples.py covers,
    or of two of them.
    """

    def __init__(self, model: nn.Module, outputs: bool = False) -> None:
        self._modules = _layers(model)
        self._outputs, self._sampling = outputs, False
        self._seen = {name: _Seen() for name in self._modules}
        handles = [
            module.register_forward_hook(_watch(weakref.ref(self), name), with_kwargs=True)
            for name, module in self._modules.items()
        ]
        weakref.finalize(self, _remove, handles)

    @property
    def parameters(self) -> Mapping[str, nn.Parameter]:
        """Layer name -> its trainable weight; biases under "<layer>.bias"."""
        return {
            name if kind == "weight" else _bias(name): parameter
            for name, module in self._modules.items()
            for kind, parameter in module.named_parameters(recurse=False)
            if parameter.requires_grad
        }

    def clear(self) -> None:
        """Forget everything seen so far."""
        self._seen = {name: _Seen() for name in self._modules}

    def clear_gradients(self) -> None:
        """Forget the passes that were differentiated; one that is under way goes on."""
        for name, seen in self._seen.items():
            if seen.gradients:
                self._seen[name] = _Seen(outputs=seen.outputs)

    def matrix(self, name: str) -> Tensor:
        """The layer's weight as a view of shape (fan_out, fan_in), to be changed in place."""
        return as_matrix(self._module(name), self.parameters[name].detach())

    def views(self, name: str) -> list[Tensor]:
        """The one matrix of a layer; see `LayerSource`."""
        return [self.matrix(name)]

    def layers(self, name: str) -> list[LayerTensors] | None:
        """The one layer of that name; see `LayerSource`."""
        layer = self.tensors(name)
        return None if layer is None else [layer]

    def tensors(self, name: str) -> LayerTensors | None:
        """Inputs, cotangents and weights of a layer, or None if no gradient came by."""
        module, parameter = self._module(name), self.parameters[name]
        seen = self._seen[_owner(name)]
        if not seen.gradients:
            if parameter.grad is not None:
                raise InvalidInput(
                    f"a gradient of '{name}', though its layer was not called",
                    "layers that are used by calling them, once the optimizer exists",
                    "call the module instead of using its weight, or zero the gradients first",
                )
            return None
        samples = sum(len(gradient) for gradient in seen.gradients)
        rounding = max(_rounding(x) for x in (*seen.inputs, *seen.gradients, parameter))
        gradients = [x.to(parameter.dtype) for x in seen.gradients]
        if name == _owner(name):
            inputs = [_like(x, parameter) for x in seen.inputs]
            found = columns(module, inputs, gradients)
        else:
            d = torch.cat(gradients)
            found = SampleColumns(d.new_ones(1, samples), samples * d.T)
        if parameter.grad is not None:
            _refuse_unless_gradient(name, as_matrix(module, parameter.grad), found, rounding)
        sampled = [x.to(parameter.dtype) for x in seen.sampled]
        fisher = samples * torch.cat(sampled).T if sampled else found.cotangents
        return LayerTensors(found.H, found.D, self.matrix(name), fisher)

    def was_sampled(self, name: str) -> bool:
        """Whether cotangents of sampled targets came by at a layer."""
        return bool(self._seen[_owner(name)].sampled)

    def sample(self, output: Tensor, loss: LossFunction, generator: torch.Generator) -> None:
        """Draw targets from the model for the last pass, and collect their cotangents."""
        calls = [(name, edge) for name, seen in self._seen.items() for edge in seen.outputs]
        self._sampling = True
        try:
            gradients = drawn_cotangents(output, loss, generator, [edge for _, edge in calls])
        finally:
            self._sampling = False
        for (name, _), gradient in zip(calls, gradients, strict=True):
            if gradient is not None:
                self._seen[name].sampled.append(cotangents(self._modules[name], gradient))
            self._seen[name].outputs.clear()

    def _record(self, name: str, x: Tensor, output: Tensor) -> None:
        """Pair the input of one call with the gradient by its output, once that is known."""
        module, given, watcher = self._modules[name], x.detach(), weakref.ref(self)

        def hook(gradient: Tensor) -> None:
            capture = watcher()
            if capture is not None and not capture._sampling:
                capture._seen[name].inputs.append(given)
                capture._seen[name].gradients.append(cotangents(module, gradient.detach()))

        output.register_hook(hook)  # type: ignore[no-untyped-call]
        if self._outputs:
            self._seen[name].outputs.append(get_gradient_edge(output))

    def _module(self, name: str) -> Layered:
        return self._modules[_owner(name)]


def _remove(handles: Iterable[RemovableHandle]) -> None:
    for handle in handles:
        handle.remove()


def _watch(watcher: weakref.ref[Capture], name: str) -> Callable[..., Tensor]:
    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> Tensor:
        capture = watcher()
        if capture is not None and output.requires_grad:
            capture._record(name, source(name, capture._modules[name], args, kwargs), output)
            return output.clone()  # an activation in place would take the hook off the output
        return output

    return hook


def _bias(name: str) -> str:
    return f"{name}.bias"


def _owner(name: str) -> str:
    """The module behind a layer's name."""
    return name.removesuffix(_bias(""))


def _layers(model: nn.Module) -> dict[str, Layered]:
    found: dict[str, Layered] = {}
    refuse_shared(model)
    for name, module in model.named_modules():
        if any(p.requires_grad for p in module.parameters(recurse=False)):
            found[name] = refuse_unless_covered(name, module)
    if not found:
        raise InvalidInput(
            f"a model ({type(model).__name__}) without trainable {KINDS} layers",
            "at least one",
            "check requires_grad",
        )
    return found


def _like(x: Tensor, parameter: Tensor) -> Tensor:
    """Numbers in the dtype of the weights; word ids as they are."""
    return x.to(parameter.dtype) if x.is_floating_point() else x


def _rounding(x: Tensor) -> float:
    return torch.finfo(x.dtype).eps if x.is_floating_point() else 0.0


def _refuse_unless_gradient(
    name: str, gradient: Tensor, found: SampleColumns, rounding: float
) -> None:
    """Compare the row of D H^T / k that should be largest with that of ``.grad``: O(N fan).

    ``rounding``: of the coarsest dtype that the pass went through.
    """
    every = found.D if found.cotangents is None else found.cotangents
    row = int(every.square().sum(dim=1).argmax())
    expected, count = found.H @ found.D[row] / found.H.shape[1], every.shape[1]
    size = torch.linalg.vector_norm(every[row]) * torch.linalg.matrix_norm(found.H)
    allowed = rounding**0.5 * size / (count * found.H.shape[1]) ** 0.5
    if bool(torch.linalg.vector_norm(expected - gradient[row]) > allowed):
        raise InvalidInput(
            f"a .grad of '{name}' other than what its layer's inputs and cotangents give",
            "gradients as the backward pass left them",
            "do not clip or scale .grad, call zero_grad after every step, and call the module "
            "instead of using its weight",
        )
