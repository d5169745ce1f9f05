"""Rules of inference for leaves: the matrices of a layer, symbols and numbers.

    G   D H^T / n       entries |delta| |h|, gain sqrt(fan_out fan_in) |delta| |h|
    A   H H^T / n       eigenvalues fan_in |h|^2 on the span of H, zero off it            (Gram)
    B   D D^T / n       eigenvalues fan_out |delta|^2 on the span of D, zero off it       (Gram)
    L   G G^T           the squared gain on the span of D, R = G^T G on that of H
    W                   independent entries, and after a first step what that has added
    I                   one on every side

n = Theta(1) samples, so the span of the data has O(1) directions. Sizes of h, delta and W are those
of the state of the network that is read. B of sampled cotangents need not hold the
gradient in its span. A damping, a decay or a radius is M^(-d), any other symbol a number of order
one. Powers are not read here: their symbols stay in the exponents.
"""

from __future__ import annotations

from dataclasses import replace

from scaling.calculus import averages
from scaling.calculus.context import Context
from scaling.calculus.directions import ONE, OWN, TWIN, Portions
from scaling.calculus.entrywise import Reading
from scaling.calculus.values import NOTHING, Aligned, Scalar, Spectral
from scaling.rules.shapes import Dim
from scaling.rules.symbols import SymbolKind
from scaling.rules.tree import Matrix, Number, Symbol
from scaling.sizes.derivation import GIVEN, GRAM, Step
from scaling.sizes.scale import Scale, Size


def number(node: Number) -> Reading:
    """An exact number: of order one, or zero."""
    size = Scale.zero(Size.SCALAR) if node.value == 0 else Scale.one(Size.SCALAR)
    return Scalar(size), Step(GIVEN, str(node), size, node=node)


def symbol(context: Context, node: Symbol) -> Reading:
    """A hyper-parameter, fan_in or fan_out."""
    if node.is_fan:
        size = context.fan(Dim(node.name))
    elif node.kind is SymbolKind.SINGULAR_VALUE:
        assert context.singular is not None, "a rule refuses sigma elsewhere"
        size = context.singular.as_size_of(Size.SCALAR)
    elif node.kind.is_scaled:
        size = Scale.of_width(-context.scaled[node.name], Size.SCALAR)
    else:
        size = Scale.one(Size.SCALAR)
    return Scalar(size), Step(GIVEN, str(node), size, node=node)


def matrix(context: Context, node: Matrix) -> Reading:
    """One of G A B L R W I."""
    sizes, nothing, one = context.sizes, Scale.zero(Size.SPECTRAL), Scale.one(Size.SPECTRAL)
    h, delta, spread = sizes.h, sizes.delta, context.spread
    entry = delta * h * context.mean
    gain = (entry * spread).as_size_of(Size.SPECTRAL)
    numbers = f"sqrt(fan_out fan_in) {spread} x |delta| {delta} x |h| {h}"
    if context.mean != ONE:
        numbers += f" x mean over samples {context.mean}"
    gradient = Step(GRAM, "G", gain, numbers, (sizes.h_step, sizes.delta_step), node=node)
    match node.name:
        case "I":
            return Spectral(Dim.ANY, one, one), Step(GIVEN, "I", one, node=node)
        case "W":
            return averages.weights_now(context, node)
        case "G":
            weak = context.spans[0].twin
            twins = () if weak is None else (((TWIN, TWIN), weak),)
            return Aligned(gain, entry, portions=Portions((((OWN, OWN), ONE), *twins))), gradient
        case "A":
            return _second_moment(context, node, Dim.FAN_IN, "h", h, sizes.h_step)
        case "B":
            return _second_moment(context, node, Dim.FAN_OUT, "delta", delta, sizes.delta_step)
    side, text = (Dim.FAN_OUT, "G G^T") if node.name == "L" else (Dim.FAN_IN, "G^T G")
    size = gain**2
    weak = context.spans[0].twin
    value = Spectral(
        side, size, nothing, nothing, None if weak is None else size * weak**2, ONE,
        of_gradient=True,
    )  # fmt: skip
    premise = replace(gradient, node=None, time=context.step)
    return value, Step(GRAM, node.name, size, f"{text}: ({gain})^2", (premise,), node=node)


def _second_moment(
    context: Context, node: Matrix, side: Dim, factor: str, entry: Scale, premise: Step
) -> Reading:
    fan = context.fan(side)
    size = (fan * entry**2).as_size_of(Size.SPECTRAL)
    weak = context.spans[0].twin if side is Dim.FAN_OUT else None
    value = Spectral(
        side, size, Scale.zero(Size.SPECTRAL), None, None if weak is None else size * weak**2, ONE,
        tilt=ONE if node.name == "B" and context.sampled_fisher else NOTHING,
    )  # fmt: skip
    numbers = f"{side} {fan} x |{factor}|^2 {entry**2}"
    return value, Step(GRAM, node.name, size, numbers, (premise,), node=node)
