"""Rules of inference for spectra: powers, products, push-through, orth, blocks and norms.

On the data's span every eigenvalue of a curvature matrix is of one order, so a spectral function
is two numbers, one on the span and one off it. Applied to D C H^T, f(B) meets only the span:
f(D D^T) D = D f(D^T D) (push-through). Where the span need not contain the gradient (B of sampled
cotangents, or an entrywise function of G on the right) both numbers act, and the larger one wins.

Powers of undamped singular matrices are pseudo-powers: zero stays zero.
"""

from __future__ import annotations

from dataclasses import replace

from sympy import Expr, Rational, S

from scaling.calculus.context import Context
from scaling.calculus.entrywise import Reading, check_tails, need_entries
from scaling.calculus.values import (
    Aligned,
    Behaviour,
    Parity,
    Spectral,
    Value,
    Vector,
    Weights,
    describe,
)
from scaling.rules.shapes import Dim
from scaling.rules.tree import Call, MatMul, Node, Transpose
from scaling.sizes.derivation import (
    GRAM,
    NEWTON_SCHULZ,
    PRODUCT,
    PUSH_THROUGH,
    SPECTRAL_POWER,
    Step,
)
from scaling.sizes.scale import HALF, Order, Scale, Size


def power(context: Context, node: Node, value: Spectral, p: Expr, step: Step) -> Reading:
    """X**p of a symmetric matrix."""
    if not value.symmetric:
        raise context.not_covered(
            node, "a power of a product that is not symmetric", "a symmetric matrix"
        )
    if p == 0:  # the identity, which keeps every direction, blocks or not
        one = Scale.one(Size.SPECTRAL)
        return Spectral(value.side, one, one), Step(
            SPECTRAL_POWER, str(node), one, "the identity", (step,), node=node
        )
    if value.steps > 1 and not p.is_nonnegative:
        _need_even_spectrum(context, node, value)
    on_span, off_span = (
        size if size.is_zero and p != 0 else size**p for size in (value.on_span, value.off_span)
    )
    numbers = f"({value.on_span})^({p})"
    if off_span != on_span:
        numbers += f" on the data's span, {off_span} off it"
    vanishing = p * value.vanishing
    result = replace(value, on_span=on_span, off_span=off_span, vanishing=vanishing)
    return result, Step(SPECTRAL_POWER, str(node), on_span, numbers, (step,), node=node)


def _need_even_spectrum(context: Context, node: Node, value: Spectral) -> None:
    """Refuse an inverse that would magnify directions which are new at the second step."""
    order = context.bounds.order(value.on_span.width, value.off_span.width)
    if order not in (Order.EQUAL, Order.LESS):
        raise context.not_covered(
            node,
            "an inverse of an average over steps whose damping is smaller than its eigenvalues: "
            "directions that are new at the second step may be much shorter than the others",
            "a damping as large as the eigenvalues",
        )


def product(
    context: Context, node: MatMul, x: Spectral, y: Spectral, steps: tuple[Step, ...]
) -> Reading:
    """X @ Y of two square matrices of one side."""
    on_span = x.on_span * y.on_span
    off_span = x.off_span * y.off_span
    same_span = x.contains_data and y.contains_data
    blocks = x.blocks or y.blocks
    if blocks or not same_span:  # one factor leads out of the other's span
        on_span = context.plus(on_span, x.on_span * y.off_span)
        on_span = context.plus(on_span, x.off_span * y.on_span)
        on_span = context.plus(on_span, off_span) if blocks else on_span
        off_span = on_span if blocks else off_span
    commute = node.left == node.right or Dim.ANY in (x.side, y.side)
    value = Spectral(
        y.side if x.side is Dim.ANY else x.side,
        on_span,
        off_span,
        same_span,
        x.symmetric and y.symmetric and commute and not blocks,
        blocks,
        x.vanishing + y.vanishing,
        max(x.steps, y.steps),
    )
    numbers = f"{x.on_span} x {y.on_span}"
    return value, Step(PRODUCT, str(node), on_span, numbers, steps, node=node)


def push_through(
    context: Context, node: MatMul, spectral: Spectral, aligned: Aligned, steps: tuple[Step, ...]
) -> Reading:
    """f(B) @ X or X @ f(A)."""
    on_delta_side = (spectral.side is Dim.FAN_OUT) or spectral.side is Dim.ANY
    factor_exact = aligned.left_exact if on_delta_side else aligned.right_exact
    size, assumption = spectral.on_span, ""
    behaviour = aligned.left if on_delta_side else aligned.right
    if behaviour.parity is not Parity.ODD and spectral.side is not Dim.ANY:
        raise context.not_covered(
            node,
            f"a curvature matrix acting on a side that is {behaviour.parity}, which overlaps with "
            "its span in the mean only",
            "a factor that is odd in delta and in h, such as G",
        )
    if aligned.steps > spectral.steps and context.exceeds(S.Zero, spectral.vanishing):
        raise context.not_covered(
            node,
            "an inverse of the diagonal of this step's factor acting on an average over steps, "
            "which does not vanish where the factor does",
            "a damping as large as the factor, or the average of the factor",
        )
    if not (factor_exact and spectral.contains_data) and spectral.on_span != spectral.off_span:
        size = context.plus(spectral.on_span, spectral.off_span)
        source = "an entrywise function of G, or of its span"
        if not spectral.contains_data:
            source = "a curvature whose span need not hold the gradient"
            source = "B of sampled cotangents" if context.sampled_fisher else source
        assumption = (
            f"{source}: the gradient lies partly in the span and partly off it, so the larger of "
            "the two eigenvalues acts"
        )
    if assumption or spectral.blocks:
        bent = Behaviour(behaviour.parity, behaviour.vanishing + spectral.vanishing)
        changes = {"left_exact": False, "left": bent}
        if not on_delta_side:
            changes = {"right_exact": False, "right": bent}
        aligned = replace(aligned, **changes)  # type: ignore[arg-type]
    factor = size.as_size_of(Size.SCALAR)
    value = replace(
        aligned, gain=aligned.gain * factor, entry=aligned.entry * factor, positive=False,
        monomial=False, mixes=aligned.mixes or spectral.side is not Dim.ANY,
    )  # fmt: skip
    numbers = f"{size} x {aligned.gain}"
    return value, Step(PUSH_THROUGH, str(node), value.gain, numbers, steps, assumption, node)


def gram_product(
    context: Context, node: MatMul, x: Aligned, y: Aligned, steps: tuple[Step, ...]
) -> Reading:
    """X @ Y.T and X.T @ Y of gradient-like matrices D C H^T."""
    if not (x.low_rank and y.low_rank and _is_linear(x) and _is_linear(y)):
        raise context.not_covered(
            node, "a Gram matrix of a full-rank entrywise function", "a Gram matrix of D C H^T"
        )
    on_fan_in = x.transposed
    exact = all(v.right_exact if on_fan_in else v.left_exact for v in (x, y))
    side = Dim.FAN_IN if on_fan_in else Dim.FAN_OUT
    size = x.gain * y.gain
    value = Spectral(side, size, Scale.zero(Size.SPECTRAL), exact, is_square_of_one(node))
    return value, Step(GRAM, str(node), size, f"{x.gain} x {y.gain}", steps, node=node)


def _is_linear(value: Aligned) -> bool:
    return value.left.parity is value.right.parity is Parity.ODD


def is_square_of_one(node: Node) -> bool:
    """Whether a product is X @ X.T or X.T @ X, hence symmetric."""
    left, right = (c.operand if isinstance(c, Transpose) else c for c in node.children)
    return left == right


def orth(context: Context, node: Call, value: Value, step: Step) -> Reading:
    """The polar factor: every singular value becomes 1."""
    if not isinstance(value, Aligned):
        raise context.not_covered(node, f"orth of {describe(value)}", "a function of G")
    need_entries(context, node, value)
    if value.entry.is_zero:
        return value, replace(step, subject=str(node), node=node)
    if not _is_linear(value):
        raise context.not_covered(
            node, "the polar factor of a matrix that is not odd in delta and in h", "such as G"
        )
    one = Scale.one(Size.SPECTRAL)
    layer = context.sizes.layer
    known_rank = value.low_rank or S.Zero in (layer.fan_in, layer.fan_out)
    entry = (context.spread**-1).as_size_of(Size.ENTRY)
    # an entrywise function has some rank between O(1) and full: its entries are then unknown
    result = replace(
        value,
        gain=one,
        entry=entry,
        coherent=known_rank,
        positive=False,
        monomial=False,
        mixes=True,
    )
    numbers = "every singular value becomes 1"
    return result, Step(SPECTRAL_POWER, str(node), one, numbers, (step,), node=node)


def newton_schulz(context: Context, node: Call, value: Value, step: Step) -> Reading:
    """A fixed number of steps towards the polar factor.

    Each multiplies a singular value s of at most one by 3.44 - 4.78 s^2 + 2.03 s^4, which lies
    between 0.6 and 3.5: order one stays order one, and what vanishes as the width grows still
    vanishes. So the sizes are those of the polar factor where singular values are of one order.
    """
    polar, _ = orth(context, node, value, step)
    if isinstance(value, Aligned) and not value.low_rank:
        raise context.not_covered(
            node,
            "Newton-Schulz on a matrix with singular values that vanish beside others",
            "a matrix D C H^T, such as G or (B + rho*I)**(-1) @ G",
        )
    numbers, one = "from singular values / norm ~ 1", Scale.one(Size.SPECTRAL)
    assumption = f"the singular values of {node.argument} are of one order"
    if polar.main.is_zero:
        return polar, replace(step, subject=str(node), node=node)
    return polar, Step(NEWTON_SCHULZ, str(node), one, numbers, (step,), assumption, node)


def blocks(context: Context, node: Call, value: Value, step: Step) -> Reading:
    """diag(X) and block(X, size): pieces of fixed size, so each sees O(1) entries of the span."""
    if not isinstance(value, Spectral) or not value.symmetric:
        raise context.not_covered(node, f"{node.function} of {describe(value)}", "A, B, L or R")
    if value.blocks and value.on_span != value.off_span:
        raise context.not_covered(
            node, "pieces of what is in blocks already", "sizes of which one divides the other"
        )
    fan = context.fan(value.side)
    size = context.plus(value.on_span / fan, value.off_span)
    numbers = f"{value.on_span} spread over {value.side} {fan}"
    if not value.off_span.is_zero:
        numbers += f" + {value.off_span}"
    bare = value.off_span.is_zero
    whole = replace(
        value,
        on_span=size,
        off_span=size if node.function == "diag" else value.off_span,
        contains_data=value.contains_data,
        blocks=True,
        vanishing=Rational(2) if bare and node.function == "diag" else S.Zero,
    )
    return whole, Step(GRAM, str(node), size, numbers, (step,), node=node)


def _need_moments(context: Context, node: Call, vanishing: Expr) -> None:
    """Refuse sums and maxima of diagonal entries that blow up where the data are small."""
    largest = node.function == "specnorm"
    if not context.exceeds(vanishing, -HALF) or (largest and not vanishing.is_nonnegative):
        raise context.not_covered(
            node,
            f"diagonal entries that blow up like |x|^({vanishing}) where an entry x of the data is "
            "small, so that a few of them set the size",
            "a damping beside the diagonal",
        )


def norm(context: Context, node: Call, value: Value) -> Scale:
    """trace, norm (Frobenius), specnorm and rms."""
    name = node.function
    one = Scale.one(Size.SCALAR)
    match value:
        case Spectral(side=side, on_span=on_span, off_span=off_span):
            if not value.symmetric:
                raise context.not_covered(node, "the size of a product", "one factor")
            fan = context.fan(side)
            if value.blocks:
                _need_moments(context, node, value.vanishing)
                on_span = off_span = context.plus(on_span, off_span)
            if fan == one and context.plus(on_span, off_span) != on_span:
                raise context.not_covered(
                    node, "directions off the data's span of a side that does not grow", "a damping"
                )
            bulk = {"trace": fan, "norm": fan**HALF, "specnorm": one, "rms": fan**HALF}[name]
            size = context.plus(on_span, off_span * bulk).as_size_of(Size.SCALAR)
            return size / fan if name == "rms" else size
        case Aligned(entry=entry, gain=gain):
            if name == "specnorm" and not value.coherent:
                return gain.as_size_of(Size.SCALAR)
            need_entries(context, node, value)
            check_tails(context, node, value)
            return entry.as_size_of(Size.SCALAR) * (one if name == "rms" else context.spread)
        case Weights(aligned=Aligned() as aligned):  # independent, so they do not cancel
            return context.plus(norm(context, node, aligned), norm(context, node, value.alone))
        case Weights(entry=entry):
            fans = context.plus(context.fan(Dim.FAN_IN), context.fan(Dim.FAN_OUT))
            spread = {"rms": one, "norm": context.spread, "specnorm": fans.root()}[name]
            return entry.as_size_of(Size.SCALAR) * spread
        case Vector(entry=entry, side=side):
            return entry.as_size_of(Size.SCALAR) * (
                one if name == "rms" else context.fan(side) ** HALF
            )
    raise context.not_covered(node, f"{name} of {describe(value)}", "one matrix")
