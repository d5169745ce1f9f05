"""Activations on what neurons hold: phi, its slope in a backward pass, its change in a step.

    slope(u, g) = phi'(u) g        change(u, v) = phi(u + v) - phi(u)

Claim.  A change is accurate relative to itself, however small v is: it is never the difference of
two rounded numbers. With t = tanh(v) and h = tanh(u),

    tanh(u + v) - tanh(u) = t (1 - h^2) / (1 + h t);

for relu it is v cut off at -u and at 0; for erf and gelu the difference is taken in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class ActivatedNeurons:
    """An entrywise nonlinearity, with its slope and its change."""

    value: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor, Tensor], Tensor]
    change: Callable[[Tensor, Tensor], Tensor]


def _tanh_slope(u: Tensor, g: Tensor) -> Tensor:
    return u.tanh().square_().neg_().add_(1).mul_(g)


def _tanh_change(u: Tensor, v: Tensor) -> Tensor:
    h, t = u.tanh(), v.tanh()
    under = (h * t).add_(1)
    return t.mul_(h.square_().neg_().add_(1)).div_(under)


def _relu_slope(u: Tensor, g: Tensor) -> Tensor:
    slope: Tensor = torch.ops.aten.threshold_backward(g, u, 0)
    return slope


def _relu_change(u: Tensor, v: Tensor) -> Tensor:
    return torch.maximum(u.clamp(max=0).add_(v), u.clamp(min=0).neg_())


def _erf_slope(u: Tensor, g: Tensor) -> Tensor:
    return u.square().neg_().exp_().mul_(2 / math.sqrt(math.pi)).mul_(g)


def _gelu_slope(u: Tensor, g: Tensor) -> Tensor:
    below = torch.erf(u / math.sqrt(2)).add_(1).div_(2)
    density = (u.square() / -2).exp_().div_(math.sqrt(2 * math.pi))
    return (below + u * density).mul_(g)


def _change_in_float64(phi: Callable[[Tensor], Tensor], u: Tensor, v: Tensor) -> Tensor:
    exact = u.double()
    return (phi(exact + v) - phi(exact)).to(u.dtype)


def _identity(u: Tensor) -> Tensor:
    return u


def _second(u: Tensor, v: Tensor) -> Tensor:
    return v


ACTIVATIONS: Mapping[str, ActivatedNeurons] = MappingProxyType(
    {
        "tanh": ActivatedNeurons(torch.tanh, _tanh_slope, _tanh_change),
        "relu": ActivatedNeurons(torch.relu, _relu_slope, _relu_change),
        "erf": ActivatedNeurons(torch.erf, _erf_slope, partial(_change_in_float64, torch.erf)),
        "gelu": ActivatedNeurons(
            functional.gelu, _gelu_slope, partial(_change_in_float64, functional.gelu)
        ),
        "linear": ActivatedNeurons(_identity, _second, _second),
    }
)
"""By the label of `scaling.models.chain.Activation`."""
