"""Networks for images: a small Myrtle network, and a small residual one.

Both take inputs (n, channels, size, size); all kernels are 3 x 3 with zero padding, every hidden
layer has ``width`` channels, and pooling is the mean over 2 x 2. A multiplier acts on the input of
its layer. Kernel axes and positions do not grow, so a kernel has the role that its channels give.

    CNN       conv - conv - pool - conv - pool - conv - pool - linear, phi after each convolution;
              the linear layer takes every position that is left
    ResNet    h <- conv(x), then per block  h <- pool(h + beta conv(phi(conv(phi(h))))), then
              f = linear(mean over positions of phi(h)); no normalisation

A residual branch is a sum of two terms of order one, so its multiplier beta must not depend on the
width; 1/sqrt(blocks) keeps h of order one in depth as well.

References: Myrtle-5 is the network of Page (myrtle.ai, 2018) in the form of Shankar et al. (arXiv
2003.02237); residual branches without normalisation, Zhang et al. (arXiv 1901.09321).

Not covered: normalisation, strides, channel counts that differ between layers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from empirical.networks.building_blocks import (
    Nonlinearity,
    activation_named,
    blank,
    check_at_least,
    checked_multipliers,
)
from scaling.sizes.errors import InvalidInput


class CNN(nn.Module):
    """Four convolutions and a linear layer, ``layers[0]`` to ``layers[4]``.

    ``multipliers`` holds one positive number for each of these five.

    InvalidInput is raised on sizes below 1, a ``size`` that 8 does not divide, and multipliers
    that do not fit.

    >>> import torch
    >>> network = CNN(width=6)
    >>> [tuple(layer.weight.shape) for layer in network.layers]
    [(6, 1, 3, 3), (6, 6, 3, 3), (6, 6, 3, 3), (6, 6, 3, 3), (10, 6)]
    >>> network(torch.zeros(2, 1, 8, 8).double()).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        width: int,
        channels: int = 1,
        size: int = 8,
        classes: int = 10,
        activation: Nonlinearity | str = Nonlinearity.relu,
        bias: bool = False,
        multipliers: Sequence[float] | None = None,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__()
        check_at_least(1, width=width, channels=channels, size=size, classes=classes)
        _check_divisible(size, by=8)
        self.activation = activation_named(activation)
        self.multipliers = checked_multipliers(multipliers, 5)
        kernels = [_kernel(channels, width, bias), *(_kernel(width, width, bias) for _ in range(3))]
        head = nn.Linear(width * (size // 8) ** 2, classes, bias=bias, device="meta")
        self.layers = nn.ModuleList(blank(x, dtype, device) for x in (*kernels, head))

    def hidden(self, x: Tensor) -> list[Tensor]:
        """[h_1, ..., h_4, f]: maps before pooling, (n, width, side, side), and the output."""
        outputs: list[Tensor] = []
        h = x
        for l, (layer, multiplier) in enumerate(zip(self.layers, self.multipliers, strict=True)):
            if l == len(self.layers) - 1:
                outputs.append(layer(multiplier * h.flatten(1)))
                break
            outputs.append(self.activation(layer(multiplier * h)))
            h = outputs[-1] if l == 0 else avg_pool2d(outputs[-1], 2)
        return outputs

    def forward(self, x: Tensor) -> Tensor:
        """The output f, (n, classes), on inputs (n, channels, size, size)."""
        return self.hidden(x)[-1]


class Block(nn.Module):
    """A residual branch: beta conv(phi(conv(phi(h)))), with a multiplier at each convolution."""

    def __init__(
        self,
        width: int,
        bias: bool,
        activation: Nonlinearity,
        multipliers: tuple[float, float],
        branch: float,
        dtype: torch.dtype,
        device: torch.device | str,
    ) -> None:
        super().__init__()
        self.activation, self.multipliers, self.branch = activation, multipliers, branch
        self.first = blank(_kernel(width, width, bias), dtype, device)
        self.second = blank(_kernel(width, width, bias), dtype, device)

    def forward(self, h: Tensor) -> Tensor:
        """The branch alone, of the shape of h."""
        first, second = self.multipliers
        u: Tensor = self.first(first * self.activation(h))
        u = self.second(second * self.activation(u))
        return self.branch * u


class ResNet(nn.Module):
    """A convolution, residual blocks of two convolutions each, and a linear head.

    ``multipliers`` holds 2 + 2 * blocks positive numbers, in the order stem, blocks, head;
    ``branch`` is beta, 1/sqrt(blocks) where it is not given.

    InvalidInput is raised on sizes below 1, a ``size`` that 2**blocks does not divide, and
    multipliers that do not fit.

    >>> import torch
    >>> network = ResNet(width=6, blocks=3)
    >>> [name for name, _ in network.named_parameters()][:3]
    ['stem.weight', 'blocks.0.first.weight', 'blocks.0.second.weight']
    >>> network(torch.zeros(2, 1, 8, 8).double()).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        width: int,
        channels: int = 1,
        size: int = 8,
        classes: int = 10,
        blocks: int = 2,
        branch: float | None = None,
        activation: Nonlinearity | str = Nonlinearity.relu,
        bias: bool = False,
        multipliers: Sequence[float] | None = None,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__()
        check_at_least(1, width=width, channels=channels, size=size, classes=classes, blocks=blocks)
        _check_divisible(size, by=2**blocks)
        beta = 1 / math.sqrt(blocks) if branch is None else branch
        if not math.isfinite(beta):
            raise InvalidInput(f"branch={branch!r}", "a finite number", "pass for instance 0.5")
        self.activation = activation_named(activation)
        self.multipliers = checked_multipliers(multipliers, 2 + 2 * blocks)
        self.stem = blank(_kernel(channels, width, bias), dtype, device)
        pairs = zip(self.multipliers[1:-1:2], self.multipliers[2:-1:2], strict=True)
        self.blocks = nn.ModuleList(
            Block(width, bias, self.activation, pair, beta, dtype, device) for pair in pairs
        )
        head = nn.Linear(width, classes, bias=bias, device="meta")
        self.head = blank(head, dtype, device)

    def hidden(self, x: Tensor) -> list[Tensor]:
        """The stream h after the stem and after each block, before pooling, and the output f."""
        h: Tensor = self.stem(self.multipliers[0] * x)
        outputs = [h]
        for block in self.blocks:
            outputs.append(h + block(h))
            h = avg_pool2d(outputs[-1], 2)
        outputs.append(self.head(self.multipliers[-1] * self.activation(h).mean(dim=(2, 3))))
        return outputs

    def forward(self, x: Tensor) -> Tensor:
        """The output f, (n, classes), on inputs (n, channels, size, size)."""
        return self.hidden(x)[-1]


def _kernel(channels: int, width: int, bias: bool) -> nn.Conv2d:
    return nn.Conv2d(channels, width, 3, padding=1, bias=bias, device="meta")


def _check_divisible(size: int, by: int) -> None:
    if size % by:
        raise InvalidInput(
            found=f"size={size}",
            needed=f"a side of the images that is a multiple of {by}, to be pooled that far",
            do_this=f"pad or crop the images to {-(-size // by) * by} x {-(-size // by) * by}",
        )
