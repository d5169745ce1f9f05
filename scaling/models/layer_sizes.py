"""The sizes of h, delta and W in every layer: all that a rule sees of a network.

    |h|      entry size of the layer's input, the multiplier M^(-a) included
    |delta|  entry size of d loss_i / d u_l
    |w|      entry size of the weights, M^(-b)

The states of the network (scaling/states) make them: at the start, after a step, at moved weights.
"""

from __future__ import annotations

from dataclasses import dataclass

from scaling.models.chain import Activation, Layer, Loss, Setting
from scaling.sizes.derivation import MEANS, Step
from scaling.sizes.scale import HALF, Scale, Size


@dataclass(frozen=True)
class LayerSizes:
    """The sizes that a rule sees in one layer, with the steps that gave them."""

    layer: Layer
    h: Scale
    delta: Scale
    w: Scale
    mean_h: Scale
    mean_delta: Scale
    h_step: Step
    delta_step: Step


def mean_delta(setting: Setting, layer: Layer, delta: Scale) -> Scale:
    """The mean of delta over the outputs, for delta in random directions."""
    if layer.fan_out != 0:
        return delta * Scale.of_width(-HALF, Size.SCALAR)
    if setting.loss is Loss.CROSS_ENTROPY:  # softmax(f) - y sums to zero over the classes
        return Scale.zero(Size.ENTRY)
    return delta


def mean_step(sizes: LayerSizes, of_rows: bool, activation: Activation) -> Step:
    """The step that gives the mean of h (for row means) or of delta (for column means)."""
    scale = sizes.mean_h if of_rows else sizes.mean_delta
    name = "mean of h" if of_rows else "mean of delta"
    text, time = f"activation {activation.label}", sizes.h_step.time
    return Step(MEANS, f"{name} in {sizes.layer.name}", scale, text, time=time)
