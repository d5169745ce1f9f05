"""A model as it is looked at: called on inputs of any form, its modules watched, its buffers still.

Claim.  What is measured is the function that training sees, and what moves it are the weights.
So batch normalisation normalises by the batch that it gets, as in training, and not by running
statistics; everything else is in evaluation mode (no dropout); and buffers, which training moves
too, are put back to what they were at the start.

Everything is in float64. Tensors that forward makes without a dtype follow, since float64 is
torch's default meanwhile; a forward that insists on another one is refused by name, as is a model
that needs other inputs than it is given.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call

from empirical.measure.machine import default_dtype
from scaling.sizes.errors import InvalidInput

Inputs: TypeAlias = Tensor | Sequence[Tensor] | Mapping[str, Tensor]
"""Arguments of forward: one tensor, several in their order, or by their names."""

_DTYPES = re.compile(r"dtype|scalar type|Input type|data type", re.IGNORECASE)
_ARGUMENTS = re.compile(r"positional argument|unexpected keyword|required keyword")
_STEP = 1e-4
"""Of the difference quotient: the part of a change that is tried."""


def tensors_of(what: str, inputs: object) -> tuple[Tensor, ...]:
    """The tensors of inputs; refused by name where there are others.

    >>> import torch
    >>> len(tensors_of("inputs", (torch.ones(2), torch.ones(3))))
    2
    """
    parts: tuple[object, ...] = (inputs,)
    if isinstance(inputs, Mapping):
        parts = tuple(inputs.values())
    elif isinstance(inputs, tuple | list):
        parts = tuple(inputs)
    tensors = tuple(x for x in parts if isinstance(x, Tensor))
    if len(tensors) < len(parts) or not parts:
        raise InvalidInput(
            f"{what} of type {type(inputs).__name__}",
            "a tensor, or a tuple or a mapping of tensors where forward takes several",
            f"pass torch.as_tensor({what}), or ({what}, mask)",
        )
    return tensors


def on_device(inputs: Inputs, device: str) -> Inputs:
    """On the device, in float64 unless these are word ids or labels."""
    if isinstance(inputs, Tensor):
        return one_on_device(inputs, device)
    if isinstance(inputs, Mapping):
        return {name: one_on_device(x, device) for name, x in inputs.items()}
    return tuple(one_on_device(x, device) for x in inputs)


def one_on_device(x: Tensor, device: str) -> Tensor:
    """The same of one tensor."""
    return x.to(device, torch.float64) if x.is_floating_point() else x.to(device)


@contextmanager
def in_float64() -> Iterator[None]:
    """Tensors are float64 unless they say otherwise; what says otherwise is refused by name.

    Raises:
        InvalidInput: in the place of torch's error about dtypes.
    """
    try:
        with default_dtype(torch.float64):
            yield
    except RuntimeError as error:
        if not _DTYPES.search(str(error)):
            raise
        raise InvalidInput(
            f"a tensor that forward makes in a dtype of its own ({_first_line(error)})",
            "a forward in the dtype of its input: sizes are taken in float64",
            "write dtype=x.dtype or x.new_zeros(...) in the place of torch.float32 or .float()",
        ) from error


def called(model: nn.Module, inputs: Inputs) -> Any:
    """The output of a model.

    Raises:
        InvalidInput: for a model that takes other inputs, or insists on a dtype.
    """
    args: tuple[Tensor, ...] = ()
    kwargs: Mapping[str, Tensor] = {}
    if isinstance(inputs, Tensor):
        args = (inputs,)
    elif isinstance(inputs, Mapping):
        kwargs = inputs
    else:
        args = tuple(inputs)
    try:
        with in_float64():
            return model(*args, **kwargs)
    except TypeError as error:
        if not _ARGUMENTS.search(str(error)):
            raise
        given = f"{len(args)} tensors" if args else f"the names {', '.join(kwargs)}"
        raise InvalidInput(
            f"a {type(model).__name__} that does not take {given} ({_first_line(error)})",
            "inputs as forward takes them",
            "pass a tuple in the order of forward, inputs=(x, mask), or a mapping by name",
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]


# --- still buffers ------------------------------------------------------------------------------


def buffers_of(model: nn.Module) -> dict[str, Tensor]:
    """Copies of the buffers of a model, by name."""
    return {name: buffer.detach().clone() for name, buffer in model.named_buffers()}


def restore_(model: nn.Module, buffers: Mapping[str, Tensor]) -> None:
    """Set every buffer to what it was."""
    for name, value in buffers.items():
        path, _, last = name.rpartition(".")
        setattr(model.get_submodule(path), last, value.clone())


@contextmanager
def as_trained(model: nn.Module) -> Iterator[None]:
    """The function that training sees, without what is random; modes and buffers come back."""
    modes = {module: module.training for module in model.modules()}
    buffers = buffers_of(model)
    for module, training in modes.items():
        module.training = training and isinstance(module, nn.modules.batchnorm._NormBase)
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
        restore_(model, buffers)


# --- watched modules ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Calls:
    """Every call of a module, on the probe."""

    arguments: list[tuple[tuple[Any, ...], Mapping[str, Any]]] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)

    @property
    def inputs(self) -> list[Tensor]:
        """The first argument of each call."""
        return [args[0] if args else kwargs["input"] for args, kwargs in self.arguments]


@contextmanager
def watching(model: nn.Module, modules: Sequence[str]) -> Iterator[dict[str, Calls]]:
    """Inputs and outputs of some modules, by their path."""
    seen = {name: Calls() for name in modules}

    def watch(name: str) -> Callable[..., None]:
        def hook(
            _: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any
        ) -> None:
            still = tuple(map(_still, args)), {key: _still(x) for key, x in kwargs.items()}
            seen[name].arguments.append(still)
            seen[name].outputs.extend(_floats(output))

        return hook

    handles = [
        model.get_submodule(name).register_forward_hook(watch(name), with_kwargs=True)
        for name in modules
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def change_of_output(
    module: nn.Module, calls: Calls, name: str, old: Mapping[str, Tensor], new: Tensor
) -> list[Tensor]:
    """The change of a module's output with one of its tensors, to first order.

    All others are as in ``old``; the module need not be linear in this one.
    """
    buffers = buffers_of(module)
    found = []
    for args, kwargs in calls.arguments:
        with torch.no_grad(), as_trained(module), in_float64():
            outputs = []
            for part in (0.0, _STEP):
                restore_(module, buffers)
                moved = {**old, name: old[name] + part * (new - old[name])}
                outputs.append(_floats(functional_call(module, moved, args, dict(kwargs))))
        before, after = outputs
        found += [(y - x) / _STEP for x, y in zip(before, after, strict=True)]
    return found


def _still(x: Any) -> Any:
    return x.detach().clone() if isinstance(x, Tensor) else x


def _floats(output: Any) -> list[Tensor]:
    """The tensors of numbers in an output of any form."""
    if isinstance(output, Tensor):
        return [output.detach().clone()] if output.is_floating_point() else []
    if isinstance(output, Mapping):
        return [x for part in output.values() for x in _floats(part)]
    if isinstance(output, tuple | list):
        return [x for part in output for x in _floats(part)]
    return []
