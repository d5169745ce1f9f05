"""Rules of inference for the polar factor: orth and steps towards it make singular values alike.

Directions in which the gradient is weak count as much as the strong ones afterwards. Of a matrix
D C H^T there are O(1) of them; what has more is of full rank (rank.py), and beside W all are.
"""

from __future__ import annotations

from dataclasses import replace

from sympy import S

from scaling.calculus import instead, rank
from scaling.calculus.context import Context
from scaling.calculus.directions import OFF, ONE, Portions, portions
from scaling.calculus.entrywise import Reading, need_entries
from scaling.calculus.matrix_norms import norm
from scaling.calculus.spectra import keeps_rows
from scaling.calculus.values import Aligned, Known, Parity, Value, Weights, describe
from scaling.rules.tree import Call
from scaling.sizes.derivation import SPECTRAL_POWER, Inference, Step
from scaling.sizes.scale import Order, Scale, Size


def orth(context: Context, node: Call, value: Value, step: Step) -> Reading:
    """The polar factor: every singular value becomes 1."""
    if isinstance(value, Weights):
        return _orth_beside_weights(context, node, value, step)
    if not isinstance(value, Aligned):
        raise context.not_covered(
            node, f"orth of {describe(value)}", "a function of G", instead.apart
        )
    need_entries(context, node, value)
    if value.entry.is_zero:
        return value, replace(step, subject=str(node), node=node)
    if not value.is_linear:
        raise context.not_covered(
            node,
            "the polar factor of a matrix that is not odd in delta and in h",
            "such as G",
            instead.apart,
        )
    one = Scale.one(Size.SPECTRAL)
    layer = context.sizes.layer
    known_rank = value.low_rank or S.Zero in (layer.fan_in, layer.fan_out)
    raised = rank.is_raised_by_jumps(context, value)
    full = raised or (value.low_rank and rank.grows(context))
    # any other entrywise function has some rank between O(1) and full: entries are then unknown
    equal = _levelled_portions(context, value)
    result = replace(
        value,
        gain=one,
        entry=rank.levelled_entry(context, full, of_batch=not raised),
        portions=equal,
        coherent=known_rank and not full,
        low_rank=value.low_rank and not full,
        levelled=value.low_rank or raised,
        known=Known.MEAN_SQUARE if raised else Known.TYPICAL,
        positive=False,
        monomial=False,
        mixes=True,
        aligned_sums=not value.fills_rows and keeps_rows(value, equal),
    )
    numbers = "every singular value becomes 1"
    return result, Step(SPECTRAL_POWER, str(node), one, numbers, (step,), node=node)


def _levelled_portions(context: Context, value: Aligned) -> Portions:
    """Singular values made alike; what leads out of a direction does so as before."""
    if not value.low_rank:
        return portions(((pair, ONE) for pair, _ in value.portions.sizes), context.bounds)
    found = []
    for (left, right), size in value.portions.sizes:
        own = (left, right)
        along = context.plus(
            value.portions.at(0, left, context.bounds), value.portions.at(1, right, context.bounds)
        )
        share = size if left is right is OFF else ONE if left is right else size / along
        found.append((own, share))
    return portions(found, context.bounds)


def _orth_beside_weights(context: Context, node: Call, value: Weights, step: Step) -> Reading:
    """orth(X + m W): what leads of both is levelled, and takes the other along in proportion.

    W has min(fan_in, fan_out) singular values of one order, n m sqrt(fan_in + fan_out); X has O(1)
    of the size of its gain g. Along X the sum acts by min(g/n, 1), and all other directions are
    those of W: entries of the size of a levelled matrix of full rank, independent of the data.
    """
    signal = value.aligned
    if signal is not None and value.entry.is_zero:
        return orth(context, node, signal, step)
    plain = signal is None or (
        signal.is_linear and signal.low_rank and signal.portions == Portions()
    )
    if not (plain and value.independent and value.parity is Parity.ODD):
        raise context.not_covered(
            node, f"orth of {describe(value)}", "orth(G + decay*W)", instead.decoupled
        )
    rank.refuse_where_it_grows(context, node, "orth beside W", f"orth(G) + {node.argument}")
    if value.entry.is_zero:
        return value, replace(step, subject=str(node), node=node)
    one = Scale.one(Size.SPECTRAL)
    noise = (norm(context, Call("specnorm", node.argument), value.alone)).as_size_of(Size.SPECTRAL)
    entry = rank.levelled_entry(context, True)
    aligned, numbers = None, f"of W {noise}"
    if signal is not None:
        order = context.bounds.order(signal.gain.width, noise.width)
        if order is Order.OPEN:
            raise context.not_covered(
                node, "a decay that is above or below the gradient depending on symbols",
                "a decay that is given, --set d_decay=0, a damping rho*W, or W outside of orth",
                instead.decoupled,
            )  # fmt: skip
        gain = signal.gain / noise * one if order is Order.LESS else one
        small = (gain * context.spread**-1).as_size_of(Size.ENTRY)
        aligned = replace(
            signal, gain=gain, entry=small, low_rank=False, coherent=False, levelled=False,
            positive=False, monomial=False, mixes=True,
        )  # fmt: skip
        numbers = f"singular values {signal.gain} of what follows G, {noise} of W"
    multiple = value.multiple * (entry / value.entry).as_size_of(Size.SCALAR)
    whole = replace(value, entry=entry, multiple=multiple, aligned=aligned, independent=False)
    line = Step(SPECTRAL_POWER, str(node), one, numbers, (step,), node=node)
    return whole, line


def polar_steps(
    inference: Inference, context: Context, node: Call, value: Value, step: Step
) -> Reading:
    """A fixed number of steps towards the polar factor: Newton-Schulz, the Polar Express.

    Each multiplies a singular value s of at most one by a positive polynomial in s^2, that of
    Newton-Schulz 3.44 - 4.78 s^2 + 2.03 s^4, which lies between 0.6 and 3.5, those of the Polar
    Express between 0.1 and 8.3: order one stays order one, and what vanishes as the width grows
    still vanishes. So the sizes are those of the polar factor where singular values are of one
    order.
    """
    alone = context.samples_grow
    if not alone:
        rank.refuse_where_it_grows(
            context, node, f"{inference.name}, whose steps leave small singular values below 1",
            f"orth({node.argument})",
        )  # fmt: skip
    polar, _ = orth(context, node, value, step)
    if isinstance(polar, Aligned) and alone and rank.is_full(polar):  # raised, but how many?
        polar = replace(polar, levelled=False)
    if not isinstance(value, Aligned) or not value.low_rank:
        raise context.not_covered(
            node,
            f"{inference.name} on a matrix with singular values that vanish beside others",
            "a matrix D C H^T, such as G or (B + rho*I)**(-1) @ G",
            instead.decoupled,
        )
    numbers, one = "from singular values / norm ~ 1", Scale.one(Size.SPECTRAL)
    assumption = f"the singular values of {node.argument} are of one order"
    if polar.main.is_zero:
        return polar, replace(step, subject=str(node), node=node)
    return polar, Step(inference, str(node), one, numbers, (step,), assumption, node)
