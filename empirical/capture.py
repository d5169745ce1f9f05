"""Inputs and cotangents of every Linear layer of a model, taken while autograd runs.

    H (fan_in, N): the layer's input as the Linear gets it, any multiplier of the model included
    D (fan_out, N): N times the gradient of the loss by the layer's output

Claim.  D H^T / N is the gradient that autograd writes to ``.grad``. Where the loss is a mean over
its samples, the columns of D are the gradients of the samples' own losses. (For a sum, G is still
``.grad``, but B is in other units.) Leading dimensions are samples; so are repeated uses of a
layer, and several backward passes before the layers are cleared.

A bias is a layer of its own, "<layer>.bias", whose input is the constant 1: fan_in 1, H all ones.

Each call of a layer puts a hook on its output, which pairs that call's input with that call's
gradient. So a pass that is never differentiated, or runs under no_grad, leaves no trace.

Not covered: parameters outside Linear layers; weights that two modules share; a change of ``.grad``
after the backward pass, such as clipping (refused, since the rule would not see it).
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.utils.hooks import RemovableHandle

from empirical.layer import LayerTensors
from scaling.errors import InvalidInput


class Loss(StrEnum):
    """The losses whose targets can be sampled from the model; both are means over the samples."""

    CROSS_ENTROPY = "cross-entropy"
    """Of the softmax over the last dimension of the output."""
    MSE = "mse"
    """Half the squared distance: targets are normal about the output, with variance 1 each."""


def sampled_cotangents(output: Tensor, loss: Loss, generator: torch.Generator) -> Tensor:
    """The gradient of each sample's loss by the output, at a target drawn from the model.

    The Fisher matrix is their second moment:

    >>> logits = torch.zeros(10000, 2)
    >>> c = sampled_cotangents(logits, Loss.CROSS_ENTROPY, torch.Generator().manual_seed(0))
    >>> torch.allclose(c.T @ c / 10000, torch.tensor([[0.25, -0.25], [-0.25, 0.25]]))
    True
    """
    output = output.detach()
    if loss is Loss.MSE:
        shape, dtype, device = output.shape, output.dtype, output.device
        return torch.randn(shape, generator=generator, dtype=dtype, device=device)
    p = output.softmax(dim=-1)
    labels = torch.multinomial(p.reshape(-1, p.shape[-1]), 1, generator=generator)
    return p.scatter_add(-1, labels.reshape(*p.shape[:-1], 1), p.new_full((1,), -1.0).expand_as(p))


@dataclass
class _Seen:
    """What came by at one module; one row a sample."""

    inputs: list[Tensor] = field(default_factory=list)
    gradients: list[Tensor] = field(default_factory=list)
    outputs: list[GradientEdge] = field(default_factory=list)
    sampled: list[Tensor] = field(default_factory=list)


class Capture:
    """Watches the Linear layers of a model for as long as it lives.

    ``outputs`` keeps each call's place in the graph for `sample`; without it no graph is kept.

    Raises `InvalidInput` for a trainable parameter outside a Linear layer, or of two of them.
    """

    def __init__(self, model: nn.Module, outputs: bool = False) -> None:
        self._modules = _linear_modules(model)
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

    def tensors(self, name: str) -> LayerTensors | None:
        """What a rule sees of a layer, or None if no gradient came by."""
        parameter = self.parameters[name]
        is_bias = parameter.ndim == 1
        seen = self._seen[name.removesuffix(_bias("")) if is_bias else name]
        if not seen.gradients:
            if parameter.grad is not None:
                raise InvalidInput(
                    f"a gradient of '{name}', though its layer was not called",
                    "layers that are used by calling them, once the optimizer exists",
                    "call the module instead of using its weight, or zero the gradients first",
                )
            return None
        h, d = torch.cat(seen.inputs), torch.cat(seen.gradients)
        h = h.new_ones(len(h), 1) if is_bias else h
        _refuse_unless_gradient(name, parameter, h, d)
        fisher = len(d) * torch.cat(seen.sampled).T if seen.sampled else None
        return LayerTensors(h.T, len(d) * d.T, as_matrix(parameter.detach()), fisher)

    def sample(self, output: Tensor, loss: Loss, generator: torch.Generator) -> None:
        """Draw targets from the model for the last pass, and collect their cotangents."""
        calls = [(seen, edge) for seen in self._seen.values() for edge in seen.outputs]
        self._sampling = True
        try:
            gradients = torch.autograd.grad(
                [output],
                [edge for _, edge in calls],
                [sampled_cotangents(output, loss, generator)],
                retain_graph=True,
                allow_unused=True,
            )
        finally:
            self._sampling = False
        samples = output.numel() // output.shape[-1]
        for (seen, _), gradient in zip(calls, gradients, strict=True):
            if gradient is not None:
                seen.sampled.append(_rows(gradient) / samples)  # of the mean loss, as D has it
            seen.outputs.clear()

    def _record(self, name: str, x: Tensor, output: Tensor) -> None:
        """Pair the input of one call with the gradient by its output, once that is known."""
        rows, watcher = _rows(x.detach()), weakref.ref(self)

        def hook(gradient: Tensor) -> None:
            capture = watcher()
            if capture is not None and not capture._sampling:
                capture._seen[name].inputs.append(rows)
                capture._seen[name].gradients.append(_rows(gradient.detach()))

        output.register_hook(hook)  # type: ignore[no-untyped-call]
        if self._outputs:
            self._seen[name].outputs.append(get_gradient_edge(output))


def as_matrix(parameter: Tensor) -> Tensor:
    """A view of shape (fan_out, fan_in); a bias is a column."""
    return parameter if parameter.ndim == 2 else parameter[:, None]


def _remove(handles: Iterable[RemovableHandle]) -> None:
    for handle in handles:
        handle.remove()


def _watch(watcher: weakref.ref[Capture], name: str) -> Callable[..., Tensor]:
    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> Tensor:
        capture = watcher()
        if capture is not None and output.requires_grad:
            capture._record(name, args[0] if args else kwargs["input"], output)
            return output.clone()  # an activation in place would take the hook off the output
        return output

    return hook


def _rows(x: Tensor) -> Tensor:
    return x.reshape(-1, x.shape[-1])


def _bias(name: str) -> str:
    return f"{name}.bias"


def _linear_modules(model: nn.Module) -> dict[str, nn.Linear]:
    owners: dict[nn.Parameter, str] = {}
    found: dict[str, nn.Linear] = {}
    for name, module in model.named_modules():
        trainable = [p for p in module.parameters(recurse=False) if p.requires_grad]
        if trainable and not isinstance(module, nn.Linear):
            raise InvalidInput(
                f"trainable parameters of '{name or 'the model itself'}' ({type(module).__name__})",
                "a model whose trainable parameters all belong to Linear layers",
                "freeze them with requires_grad_(False), or replace the module",
            )
        for parameter in trainable:
            if parameter in owners:
                raise InvalidInput(
                    f"a parameter shared by '{owners[parameter]}' and '{name}'",
                    "a weight of its own for every layer",
                    "use one module twice instead of sharing its weight",
                )
            owners[parameter] = name
        if trainable and isinstance(module, nn.Linear):
            found[name] = module
    if not found:
        raise InvalidInput(
            f"a model ({type(model).__name__}) without trainable Linear layers",
            "at least one",
            "check requires_grad",
        )
    return found


def _refuse_unless_gradient(name: str, parameter: Tensor, h: Tensor, d: Tensor) -> None:
    """Compare the row of D^T H that should be largest with that of ``.grad``: O(N fan)."""
    if parameter.grad is None:
        return
    row = int(d.square().sum(dim=0).argmax())
    expected, found = d[:, row] @ h, as_matrix(parameter.grad)[row]
    size = torch.linalg.vector_norm(d[:, row]) * torch.linalg.matrix_norm(h)
    allowed = torch.finfo(d.dtype).eps ** 0.5 * size
    if bool(torch.linalg.vector_norm(expected - found) > allowed):
        raise InvalidInput(
            f"a .grad of '{name}' other than what its layer's inputs and cotangents give",
            "gradients as the backward pass left them",
            "do not clip or scale .grad, call zero_grad after every step, and call the module "
            "instead of using its weight",
        )
