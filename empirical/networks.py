"""The plainest network that has every role of a layer: input, hidden, output, and biases.

Formula.  With layers l = 1..L of weights w_l, multipliers m_l = M**(-a_l) and biases v_l,

    h_0 = x        u_l = w_l (m_l h_{l-1}) + v_l        h_l = phi(u_l)        f = u_L

The multiplier acts on the layer's input and not on its bias, so a hook that reads the input of a
layer reads what its gradient and its factor A are made of.

Not covered: initialisation. New weights and biases are NaN: one pass over the memory instead of
random numbers that would be thrown away, and a layer that was forgotten shows at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from itertools import pairwise
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn import functional

from scaling.errors import InvalidInput, unknown


class Activation(StrEnum):
    """An entrywise nonlinearity, callable on tensors.

    >>> Activation.relu(torch.tensor([-1.0, 2.0]))
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


_FUNCTIONS: Mapping[Activation, Callable[[Tensor], Tensor]] = MappingProxyType(
    {
        Activation.tanh: torch.tanh,
        Activation.relu: torch.relu,
        Activation.gelu: functional.gelu,
        Activation.erf: torch.erf,
        Activation.linear: _identity,
    }
)


class MLP(nn.Module):
    """``depth`` dense layers, features -> width -> ... -> width -> classes.

    ``multipliers`` holds one positive number a layer, 1 where it is not given. Weights have shape
    (fan_out, fan_in) and are NaN until they are initialised.

    InvalidInput is raised on sizes below 1, a depth below 2, and multipliers that do not fit.

    >>> network = MLP(features=3, width=5, classes=2, depth=3)
    >>> [tuple(layer.weight.shape) for layer in network.layers]
    [(5, 3), (5, 5), (2, 5)]
    """

    def __init__(
        self,
        features: int,
        width: int,
        classes: int,
        depth: int = 3,
        activation: Activation | str = Activation.tanh,
        bias: bool = False,
        multipliers: Sequence[float] | None = None,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__()
        _check_at_least(1, features=features, width=width, classes=classes)
        _check_at_least(2, depth=depth)
        if activation not in tuple(Activation):
            raise unknown("activation", activation, Activation)
        if not dtype.is_floating_point:
            raise InvalidInput(
                found=f"dtype={dtype}",
                needed="a floating-point type",
                do_this="pass torch.float64, the type in which exponents are measured",
            )
        self.activation = Activation(activation)
        self.multipliers = _checked_multipliers(multipliers, depth)
        fans = [features, *[width] * (depth - 1), classes]
        self.layers = nn.ModuleList(
            _blank(fan_in, fan_out, bias, dtype, device) for fan_in, fan_out in pairwise(fans)
        )

    def linear(self, position: int) -> nn.Linear:
        """The l-th layer, l = 1..depth."""
        layer = self.layers[position - 1]
        assert isinstance(layer, nn.Linear)
        return layer

    def hidden(self, x: Tensor) -> list[Tensor]:
        """[h_1, ..., h_{L-1}, f] on inputs (n, features)."""
        outputs: list[Tensor] = []
        h, last = x, len(self.layers) - 1
        for l, (layer, multiplier) in enumerate(zip(self.layers, self.multipliers, strict=True)):
            u = layer(multiplier * h)
            h = u if l == last else self.activation(u)
            outputs.append(h)
        return outputs

    def forward(self, x: Tensor) -> Tensor:
        """The output f, (n, classes), on inputs (n, features)."""
        return self.hidden(x)[-1]


def _blank(
    fan_in: int, fan_out: int, bias: bool, dtype: torch.dtype, device: torch.device | str
) -> nn.Linear:
    layer = nn.Linear(fan_in, fan_out, bias=bias, dtype=dtype, device="meta")
    layer = layer.to_empty(device=device)
    for parameter in layer.parameters():
        nn.init.constant_(parameter, math.nan)
    return layer


def _check_at_least(least: int, **sizes: int) -> None:
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int) or size < least:
            raise InvalidInput(
                found=f"{name}={size!r}",
                needed=f"a whole number, {least} or larger",
                do_this=f"pass for instance {name}={max(least, 3)}",
            )


def _checked_multipliers(multipliers: Sequence[float] | None, depth: int) -> tuple[float, ...]:
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
