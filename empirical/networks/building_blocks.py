"""The parts of all networks: entrywise nonlinearities, blank layers, checked options.

A multiplier M**(-a) acts on a layer's input and not on its bias, so a hook that reads the input of
a layer reads what its gradient and its factor A are made of.

Not covered: initialisation. New weights and biases are NaN: one pass over the memory instead of
random numbers that would be thrown away, and a layer that was forgotten shows at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from types import MappingProxyType
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from scaling.sizes.errors import InvalidInput, unknown

Module = TypeVar("Module", bound=nn.Module)


class Nonlinearity(StrEnum):
    """An entrywise nonlinearity, callable on tensors.

    >>> import torch
    >>> Nonlinearity.relu(torch.tensor([-1.0, 2.0]))
    tensor([0., 2.])
    """

    tanh = "tanh"
    relu = "relu"
    gelu = "gelu"
    erf = "erf"
    linear = "linear"

    def __call__(self, u: Tensor) -> Tensor:
        """phi(u), entry by entry."""
        return _FUNCTIONS[self](u)


def _identity(u: Tensor) -> Tensor:
    return u


_FUNCTIONS: Mapping[Nonlinearity, Callable[[Tensor], Tensor]] = MappingProxyType(
    {
        Nonlinearity.tanh: torch.tanh,
        Nonlinearity.relu: torch.relu,
        Nonlinearity.gelu: functional.gelu,
        Nonlinearity.erf: torch.erf,
        Nonlinearity.linear: _identity,
    }
)


def activation_named(name: Nonlinearity | str) -> Nonlinearity:
    """The activation of that name. Raises `InvalidInput` with the nearest known one."""
    if name not in tuple(Nonlinearity):
        raise unknown("activation", name, Nonlinearity)
    return Nonlinearity(name)


def blank(layer: Module, dtype: torch.dtype, device: torch.device | str) -> Module:
    """The layer, built on the device "meta", with storage of its own that is all NaN."""
    if not dtype.is_floating_point:
        raise InvalidInput(
            found=f"dtype={dtype}",
            needed="a floating-point type",
            do_this="pass torch.float64, the type in which exponents are measured",
        )
    layer = layer.to(dtype).to_empty(device=device)
    for parameter in layer.parameters():
        nn.init.constant_(parameter, math.nan)
    return layer


def check_at_least(least: int, **sizes: int) -> None:
    """Refuse sizes that are no whole numbers, or below ``least``."""
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int) or size < least:
            raise InvalidInput(
                found=f"{name}={size!r}",
                needed=f"a whole number, {least} or larger",
                do_this=f"pass for instance {name}={max(least, 3)}",
            )


def checked_multipliers(multipliers: Sequence[float] | None, depth: int) -> tuple[float, ...]:
    """One positive number a layer; 1 where none is given."""
    if multipliers is None:
        return (1.0,) * depth
    if len(multipliers) != depth:
        raise InvalidInput(
            found=f"{len(multipliers)} multipliers for {depth} layers",
            needed="one multiplier a layer",
            do_this=f"pass {depth} numbers, 1 for a layer without a multiplier",
        )
    for l, multiplier in enumerate(multipliers, start=1):
        if not (math.isfinite(multiplier) and multiplier > 0):
            raise InvalidInput(
                found=f"multiplier {multiplier!r} at layer {l}",
                needed="finite multipliers, larger than 0",
                do_this="pass width**(-a) with the exponent a of that layer",
            )
    return tuple(float(multiplier) for multiplier in multipliers)
