"""Weights at the start, drawn at the scale that the exponents give."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from empirical.measure.parametrize import LayerScales, draw_
from empirical.your_model.roles import fans_in


def start_stds(
    at_base: nn.Module, scales: Mapping[str, LayerScales], gain: float = 1.0
) -> dict[str, float]:
    """The standard deviation of every weight at the start, see `initialise_`."""
    return {n: gain * fan**-0.5 * scales[n].std for n, fan in fans_in(at_base).items()}


def initialise_(
    model: nn.Module,
    at_base: nn.Module,
    scales: Mapping[str, LayerScales],
    seed: int,
    width: int,
    gain: float = 1.0,
) -> None:
    """Draw every weight from N(0, std^2), std = gain/sqrt(fan_in of ``at_base``) times scales.std.

    So a model of the base width starts with gain/sqrt(fan_in) everywhere, and others as ``scales``
    (see `for_model`) say. Tensors of one axis: biases are set to zero, others left as they are. The
    seed, the width and the position of a tensor name its stream.

    >>> from empirical.your_model.model_scales import for_model
    >>> def build(width):
    ...     return nn.Sequential(nn.Conv2d(1, width, 3), nn.Flatten(), nn.Linear(width, 10))
    >>> scales = for_model("G", build(4), build(8), base=64, width=1024)
    >>> model = build(1024)
    >>> initialise_(model, build(64), scales, seed=0, width=1024)
    >>> readout = model[2].weight.detach()
    >>> round(float(readout.std() * 64**0.5 * 16), 1)  # 1/sqrt(64), times (64/1024)^1
    1.0
    """
    stds = start_stds(at_base, scales, gain)
    for index, (name, tensor) in enumerate(model.named_parameters()):
        if name in stds:
            draw_(tensor, stds[name], seed, width, index)
        elif name.endswith("bias"):
            nn.init.zeros_(tensor)
