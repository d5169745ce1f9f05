"""Rules of inference for diagonal blocks of curvature: pieces of fixed size, fan / size of them.

Each sees O(1) entries of the data, so that it turns vectors out of their span; and of so many some
are nearly singular, which decides whether sums over all of them have a size.
"""

from __future__ import annotations

from dataclasses import replace

from sympy import Expr, Rational, S

from scaling.calculus import entrywise, instead
from scaling.calculus.context import Context
from scaling.calculus.directions import index
from scaling.calculus.entrywise import Reading
from scaling.calculus.values import Aligned, Spectral, Value, describe
from scaling.models.chain import Activation
from scaling.rules.diagonal_blocks import size_of_piece
from scaling.rules.shapes import Dim
from scaling.rules.tree import Call
from scaling.sizes.derivation import GRAM, Step
from scaling.sizes.scale import Scale


def blocks(context: Context, node: Call, value: Value, step: Step) -> Reading:
    """diag(X) and block(X, size): pieces of fixed size, so each sees O(1) entries of the span."""
    if not isinstance(value, Spectral) or not value.symmetric:
        raise context.not_covered(
            node, f"{node.function} of {describe(value)}", "A, B, L or R", instead.apart
        )
    if value.blocks and value.on_span != value.off_span:
        raise context.not_covered(
            node,
            "pieces of what is in blocks already",
            "sizes of which one divides the other",
            instead.apart,
        )
    fan = context.fan(value.side)
    size = context.plus(value.on_span / fan, value.off_span)
    numbers = f"{value.on_span} spread over {value.side} {fan}"
    if not value.off_span.is_zero:
        numbers += f" + {value.off_span}"
    bare = value.off_span.is_zero
    # a piece no larger than the rank of the data has no directions off them
    entries = size_of_piece(node)
    full = entries == 1 or entries <= context.spans[index(value.side)].rank
    thin = _thin(context, value, entries) if bare else S.Zero
    whole = replace(
        value,
        on_span=size,
        off_span=size if full else value.off_span,
        rest=None,
        twin=None,
        of_gradient=False,
        blocks=True,
        vanishing=2 * thin,
        thin=thin or S.One,
    )
    return whole, Step(GRAM, str(node), size, numbers, (step,), node=node)


def _thin(context: Context, value: Spectral, size: int) -> Expr:
    """How small singular values of a piece of the factor are: |x|^thin, x even near 0; 0 if never.

    Of independent entries, size x rank, the smallest has a density like s^|rank - size|. Of classes
    that are not drawn they are as small as f, and of neurons that ReLU lets through for one sample
    alone as small as an entry.
    """
    faint = value.side is Dim.FAN_OUT and context.spans[0].faint
    if size == 1 or faint:
        return S.One
    if not _is_of_neurons(context, value.side):
        return S.Zero
    if context.activation is Activation.RELU:
        return S.One
    spans = context.spans if value.of_gradient else [context.spans[index(value.side)]]
    return Rational(1, abs(min(span.rank for span in spans) - size) + 1)


def _is_of_neurons(context: Context, side: Dim) -> bool:
    """Whether a side is that of neurons, and not of features or classes, whose number is fixed."""
    layer = context.sizes.layer
    return bool((layer.fan_in if side is Dim.FAN_IN else layer.fan_out) != 0)


def entries_near_zero(spectral: Spectral, vanishing: Expr, beyond: Scale) -> Expr:
    """How entries behave near zero after pieces act: each on its own under a diagonal.

    A larger piece meets what lies in the span of the data by its own small singular value, and what
    an entrywise function led off it by order one; where it does not raise it, entries are mixed.
    """
    if spectral.thin is S.One:
        return vanishing + spectral.vanishing
    met = spectral.thin * vanishing if beyond.is_zero else S.Zero
    found = met + spectral.vanishing
    return found if found.is_negative else max(vanishing, S.One)


def led_off(context: Context, side: int, spectral: Spectral, aligned: Aligned) -> Scale:
    """How much of the span pieces lead off it: on the left by f, if f makes what lies there."""
    if side == 0 and spectral.vanishing.is_nonnegative:
        left = replace(aligned.left, vanishing=aligned.left.vanishing + spectral.vanishing)
        f = entrywise.leads_off(context, left, aligned.fills_rows)
        if f is not None:
            return spectral.variation * f
    return spectral.variation
