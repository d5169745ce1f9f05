"""How a change of the features travels to the output.

hidden   W_l dh is a CLT: sqrt(fan_in) std |dh|, for whatever direction dh has
output   the part of dh that follows the gradient lies along W_L^T delta, so W_L dh adds up
         over fan_in (LLN): M^(1 - b_L) |dh|; a random part is a CLT again

Where a layer's alignment is given (alignment.py), its omega takes the place of both, for the part
that follows the gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from sympy import Expr, S

from scaling.calculus.output_change import OutputChange
from scaling.models.chain import Layer, Setting
from scaling.sizes.scale import HALF, Bounds, Order, Scale, Size

Carry: TypeAlias = Callable[[int, Scale, Scale], tuple[Scale, Scale]]
"""(position, parts of dh_{l-1} along the gradient and not) -> what W_l makes of both."""


def reach(
    setting: Setting, layer: Layer, update: OutputChange, carry: Carry, bounds: Bounds
) -> dict[int, Scale]:
    """How far a layer's own update moves what it feeds, per learning rate: by position, df last."""
    coherent, random = update.coherent, update.random
    sizes = {layer.position: coherent.plus(random, bounds)}
    for position in range(layer.position + 1, setting.depth + 1):
        coherent, random = carry(position, coherent, random)
        sizes[position] = coherent.plus(random, bounds)
    return sizes


def features(
    setting: Setting,
    updates: Mapping[str, OutputChange],
    carry: Carry,
    bounds: Bounds,
    start: Sequence[Scale],
) -> list[Scale | None]:
    """|dh_l| for l = 0..L; None above a layer whose change outgrows it."""
    zero = Scale.zero(Size.ENTRY)
    coherent, random, silent = zero, zero, False
    features: list[Scale | None] = [zero]
    for position in range(1, setting.depth + 1):
        if silent:
            features.append(None)
            continue
        coherent, random = carry(position, coherent, random)
        for layer in setting.at(position):
            coherent = coherent.plus(updates[layer.name].coherent, bounds)
            random = random.plus(updates[layer.name].random, bounds)
        change = coherent.plus(random, bounds)
        if bounds.order(change.width, S.Zero) is Order.GREATER and position < setting.depth:
            silent = True
            if setting.activation.bounded:
                change = Scale.one(Size.ENTRY)
        elif bounds.order(change.width, start[position].width) is Order.GREATER:
            silent = position < setting.depth  # dW_l dh_{l-1} may outgrow dW_l h_{l-1}
        features.append(change)
    return features


def through(
    setting: Setting,
    position: int,
    coherent: Scale,
    random: Scale,
    a: Mapping[str, Expr],
    b: Mapping[str, Expr],
) -> tuple[Scale, Scale]:
    """W_l dh_{l-1}, for the part of dh along the gradient and the part in random directions."""
    layer = next(x for x in setting.at(position) if not x.is_bias)
    if b[layer.name] is S.Infinity:
        zero = Scale.zero(Size.ENTRY)
        return zero, zero
    std = Scale.of_width(-a[layer.name] - b[layer.name], Size.SCALAR)
    clt = std * Scale.of_width(HALF * layer.fan_in, Size.SCALAR)
    if layer.name in setting.alignments:
        omega = setting.alignments[layer.name].omega
        return coherent * std * Scale.of_width(omega * layer.fan_in, Size.SCALAR), random * clt
    lln = std * Scale.of_width(layer.fan_in, Size.SCALAR)
    return coherent * (lln if position == setting.depth else clt), random * clt
