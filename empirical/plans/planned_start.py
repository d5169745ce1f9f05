"""Weights at the start of a planned model: what is drawn at the planned size, and what stays.

    drawn    tensors that the code draws: N(0, std^2), each from a stream of its own
    stays    zero, one, and given starts; frozen tensors; what the plan was told to keep

The std at the base is the root mean square that the code itself draws there: a plan from a size to
the same size changes nothing but the stream.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from empirical.measure.parametrize import draw_
from empirical.plans.planned_tensors import PlannedTensor
from empirical.trace.wrapped_names import tensors_of


def started(model: nn.Module, planned: Mapping[str, PlannedTensor], seed: int) -> tuple[str, ...]:
    """Draw the tensors of a model; the names of those that were drawn.

    The seed and the position of a tensor name its stream.
    """
    names = []
    for index, (name, tensor) in enumerate(tensors_of(model).items()):
        one = planned.get(name)
        if one is not None and one.std is not None:
            draw_(tensor.data, one.std, seed, 0, index)
            names.append(name)
    return tuple(names)
