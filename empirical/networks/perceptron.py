"""The plainest network that has every role of a layer: input, hidden, output, and biases.

Formula.  With layers l = 1..L of weights w_l, multipliers m_l = M**(-a_l) and biases v_l,

    h_0 = x        u_l = w_l (m_l h_{l-1}) + v_l        h_l = phi(u_l)        f = u_L

The multiplier acts on the layer's input and not on its bias. Weights are drawn by whoever builds
the network; see building_blocks.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from empirical.networks.building_blocks import (
    Nonlinearity,
    activation_named,
    blank,
    check_at_least,
    checked_multipliers,
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
        activation: Nonlinearity | str = Nonlinearity.tanh,
        bias: bool = False,
        multipliers: Sequence[float] | None = None,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__()
        check_at_least(1, features=features, width=width, classes=classes)
        check_at_least(2, depth=depth)
        self.activation = activation_named(activation)
        self.multipliers = checked_multipliers(multipliers, depth)
        fans = [features, *[width] * (depth - 1), classes]
        self.layers = nn.ModuleList(
            blank(nn.Linear(fan_in, fan_out, bias=bias, device="meta"), dtype, device)
            for fan_in, fan_out in pairwise(fans)
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
