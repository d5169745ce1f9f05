"""How a change of the features travels to the output.

hidden   W_l dh is a CLT: sqrt(fan_in) std |dh|, for whatever direction dh has
output   the part of dh that follows the gradient lies along W_L^T delta, so W_L dh adds up
         over fan_in (LLN): M^(1 - b_L) |dh|; a random part is a CLT again

Where a layer's alignment is given (alignment.py), its omega takes the place of both, for the part
that follows the gradient.
"""

from __future__ import annotations

from collections.abc import Mapping

from sympy import Expr, S

from scaling.calculus import Update
from scaling.ledger import Layer, Setting
from scaling.scale import HALF, Bounds, Scale, Size


def reach(
    setting: Setting,
    layer: Layer,
    update: Update,
    a: Mapping[str, Expr],
    b: Mapping[str, Expr],
    bounds: Bounds,
) -> dict[int, Scale]:
    """How far a layer's own update moves what it feeds, per learning rate: by position, df last."""
    coherent, random = update.coherent, update.random
    sizes = {layer.position: coherent.plus(random, bounds)}
    for position in range(layer.position + 1, setting.depth + 1):
        coherent, random = through(setting, position, coherent, random, a, b)
        sizes[position] = coherent.plus(random, bounds)
    return sizes


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
