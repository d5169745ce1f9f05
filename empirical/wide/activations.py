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

EntryFunction = Callable[..., object]
"""f(*columns, out=x) of columns entry by entry, written into memory x that is there already."""


@dataclass(frozen=True)
class ActivatedNeurons:
    """An entrywise nonlinearity, with its slope and its change."""

    value: EntryFunction
    slope: EntryFunction
    change: EntryFunction


def _tanh_slope(u: Tensor, g: Tensor, *, out: Tensor) -> None:
    torch.tanh(u, out=out).square_().neg_().add_(1).mul_(g)


def _tanh_change(u: Tensor, v: Tensor, *, out: Tensor) -> None:
    h, t = u.tanh(), torch.tanh(v, out=out)
    under = (h * t).add_(1)
    t.mul_(h.square_().neg_().add_(1)).div_(under)


def _relu(u: Tensor, *, out: Tensor) -> None:
    torch.clamp(u, min=0, out=out)


def _relu_slope(u: Tensor, g: Tensor, *, out: Tensor) -> None:
    torch.ops.aten.threshold_backward(g, u, 0, grad_input=out)


def _relu_change(u: Tensor, v: Tensor, *, out: Tensor) -> None:
    torch.clamp(u, max=0, out=out).add_(v)
    torch.maximum(out, u.clamp(min=0).neg_(), out=out)


def _erf_slope(u: Tensor, g: Tensor, *, out: Tensor) -> None:
    torch.square(u, out=out).neg_().exp_().mul_(2 / math.sqrt(math.pi)).mul_(g)


def _gelu(u: Tensor, *, out: Tensor) -> None:
    torch.ops.aten.gelu(u, out=out)


def _gelu_slope(u: Tensor, g: Tensor, *, out: Tensor) -> None:
    below = torch.erf(u / math.sqrt(2)).add_(1).div_(2)
    density = torch.square(u, out=out).div_(-2).exp_().div_(math.sqrt(2 * math.pi))
    density.mul_(u).add_(below).mul_(g)


def _change_in_float64(
    phi: Callable[[Tensor], Tensor], u: Tensor, v: Tensor, *, out: Tensor
) -> None:
    exact = u.double()
    out.copy_(phi(exact + v) - phi(exact))


def _identity(u: Tensor, *, out: Tensor) -> None:
    out.copy_(u)


def _second(u: Tensor, v: Tensor, *, out: Tensor) -> None:
    out.copy_(v)


ACTIVATIONS: Mapping[str, ActivatedNeurons] = MappingProxyType(
    {
        "tanh": ActivatedNeurons(torch.tanh, _tanh_slope, _tanh_change),
        "relu": ActivatedNeurons(_relu, _relu_slope, _relu_change),
        "erf": ActivatedNeurons(torch.erf, _erf_slope, partial(_change_in_float64, torch.erf)),
        "gelu": ActivatedNeurons(_gelu, _gelu_slope, partial(_change_in_float64, functional.gelu)),
        "linear": ActivatedNeurons(_identity, _second, _second),
    }
)
"""By the label of `scaling.models.chain.Activation`."""
