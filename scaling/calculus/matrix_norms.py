"""Rules of inference for norms of matrices: of singular values, or means of entries."""

from __future__ import annotations

from sympy import Expr, Rational

from scaling.calculus import instead, rounding_noise
from scaling.calculus.context import Context
from scaling.calculus.directions import OFF, index, kinds
from scaling.calculus.entrywise import SQUARES, check_tails, need_entries
from scaling.calculus.values import Aligned, Noisy, Spectral, Value, Vector, Weights, describe
from scaling.rules.operators import FUNCTIONS, SpectralSum, SumOfEntries
from scaling.rules.shapes import Dim
from scaling.rules.tree import Call
from scaling.sizes.scale import HALF, Scale, Size


def norm(context: Context, node: Call, value: Value) -> Scale:
    """A norm of singular values (Schatten's), or the same of a mean: trace, norm, specnorm, rms."""
    name, power, mean = node.function, norm_power(node), FUNCTIONS[node.function].mean
    one = Scale.one(Size.SCALAR)
    match value:
        case Spectral(side=side, on_span=on_span, off_span=off_span):
            if not value.symmetric:
                raise context.not_covered(
                    node, "the size of a product", "one factor", instead.apart
                )
            fan = context.fan(side)
            if value.blocks:
                _need_moments(context, node, value.vanishing)
                on_span = off_span = context.plus(on_span, off_span)
            if side is not Dim.ANY:
                there = kinds(context.spans[index(side)])
                for kind in (k for k in there if k is not OFF):
                    on_span = context.plus(on_span, value.eigenvalues[kind])
                off_span = off_span if OFF in there else on_span
            bulk = one if power is None else fan ** Rational(1, power)
            size = context.plus(on_span, off_span * bulk).as_size_of(Size.SCALAR)
            return size / fan if mean else size
        case Aligned(entry=entry, gain=gain):
            if power is None and not value.coherent:
                return gain.as_size_of(Size.SCALAR)
            need_entries(context, node, value, sizes=SQUARES)
            check_tails(context, node, value)
            return entry.as_size_of(Size.SCALAR) * (one if mean else context.spread)
        case Noisy(inner=inside) if power is not None:
            beside = norm(context, node, rounding_noise.alone(value))
            return context.plus(norm(context, node, inside), beside)
        case Weights(aligned=Aligned() as aligned):  # independent, so they do not cancel
            return context.plus(norm(context, node, aligned), norm(context, node, value.alone))
        case Weights(entry=entry):
            fans = context.plus(context.fan(Dim.FAN_IN), context.fan(Dim.FAN_OUT))
            spread = fans.root() if power is None else one if mean else context.spread
            return entry.as_size_of(Size.SCALAR) * spread
        case Vector(entry=entry, side=side):
            return entry.as_size_of(Size.SCALAR) * (one if mean else context.fan(side) ** HALF)
    raise context.not_covered(node, f"{name} of {describe(value)}", "one matrix", instead.apart)


def norm_power(node: Call) -> int | None:
    """The p of the norm (sum s^p)^(1/p) of singular values; None for the largest of them."""
    reading = FUNCTIONS[node.function].reading
    assert isinstance(reading, SumOfEntries | SpectralSum), "a sum over the spectrum"
    return reading.power


def _need_moments(context: Context, node: Call, vanishing: Expr) -> None:
    """Refuse sums and maxima of diagonal entries that blow up where the data are small."""
    largest = norm_power(node) is None
    if not context.exceeds(vanishing, -HALF) or (largest and not vanishing.is_nonnegative):
        raise context.not_covered(
            node,
            f"diagonal entries that blow up like |x|^({vanishing}) where an entry x of the data is "
            "small, so that a few of them set the size",
            "a damping beside the diagonal",
            instead.damped,
        )
