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

from scaling.calculus import entrywise, instead, rank, rounding_noise
from scaling.calculus.context import Context
from scaling.calculus.directions import (
    OFF,
    ONE,
    OWN,
    REST,
    TWIN,
    Direction,
    Portions,
    acted,
    kinds,
    portions,
)
from scaling.calculus.entrywise import SQUARES, Reading, check_tails, need_entries
from scaling.calculus.values import (
    NOTHING,
    Aligned,
    Known,
    Noisy,
    Parity,
    Spectral,
    Value,
    Vector,
    Weights,
    describe,
)
from scaling.models.chain import Activation
from scaling.rules.operators import FUNCTIONS, SpectralSum, SumOfEntries
from scaling.rules.shapes import Dim
from scaling.rules.symmetric import is_square_of_one, is_symmetric
from scaling.rules.tree import Call, MatMul, Node, Number, untransposed
from scaling.sizes.derivation import (
    GRAM,
    PRODUCT,
    PUSH_THROUGH,
    SPECTRAL_POWER,
    Inference,
    Step,
)
from scaling.sizes.scale import HALF, Order, Scale, Size


def power(context: Context, node: Node, value: Spectral, p: Expr, step: Step) -> Reading:
    """X**p of a symmetric matrix."""
    if not value.symmetric:
        raise context.not_covered(
            node, "a power of a product that is not symmetric", "a symmetric matrix", instead.apart
        )
    if p == 0:  # the identity, which keeps every direction, blocks or not
        one = Scale.one(Size.SPECTRAL)
        return Spectral(value.side, one, one), Step(
            SPECTRAL_POWER, str(node), one, "the identity", (step,), node=node
        )
    if value.steps > 1 and not p.is_nonnegative:
        _need_even_spectrum(context, node, value)
    raises = not p.is_nonnegative and _is_uneven(context, value)
    of_data = None if value.of_gradient else value.side
    if raises:
        rank.refuse_where_it_grows(
            context, node,
            "an inverse whose damping is smaller than the eigenvalues: it raises the small ones, "
            "and their number grows",
            "a damping as large as the eigenvalues",
            of_data,
        )  # fmt: skip
    result = replace(
        value.with_eigenvalues(lambda x: x if x.is_zero else x**p), vanishing=p * value.vanishing,
        levelled=value.levelled or raises,
    )  # fmt: skip
    on_span, off_span = result.on_span, result.off_span
    numbers = f"({value.on_span})^({p})"
    if off_span != on_span:
        numbers += f" on the data's span, {off_span} off it"
    line = Step(SPECTRAL_POWER, str(node), on_span, numbers, (step,), node=node)
    if not p.is_nonnegative and _is_singular(context, value):
        line = rounding_noise.of_pseudo_power(context, node, line)
    return result, rank.assumed(context, line, [result] if raises else [], of_data)


def _is_singular(context: Context, value: Spectral) -> bool:
    """Whether it has eigenvalues that are exactly zero, beside others that are not."""
    if value.blocks or value.on_span.is_zero or value.side is Dim.ANY:
        return False
    there = kinds(context.spans[index(value.side)])
    return any(value.eigenvalues[kind].is_zero for kind in there)


def _is_uneven(context: Context, value: Spectral) -> bool:
    """Whether eigenvalues on the span of the data are larger than those off it."""
    if value.blocks or value.off_span == value.on_span or value.on_span.is_zero:
        return False
    if value.off_span.is_zero:
        return True
    order = context.bounds.order(value.on_span.width, value.off_span.width)
    return order is Order.GREATER or (order is Order.OPEN and context.batch_grows)


def _need_even_spectrum(context: Context, node: Node, value: Spectral) -> None:
    """Refuse an inverse that would magnify directions which are new at the second step."""
    order = context.bounds.order(value.on_span.width, value.off_span.width)
    if order not in (Order.EQUAL, Order.LESS):
        raise context.not_covered(
            node,
            "an inverse of an average over steps whose damping is smaller than its eigenvalues: "
            "directions that are new at the second step may be much shorter than the others",
            "a damping as large as the eigenvalues",
            instead.damped,
        )


def product(
    context: Context, node: MatMul, x: Spectral, y: Spectral, steps: tuple[Step, ...]
) -> Reading:
    """X @ Y of two square matrices of one side."""
    side = y.side if x.side is Dim.ANY else x.side
    need_one_basis(context, node, side, x, y)
    on_span = x.on_span * y.on_span
    off_span = x.off_span * y.off_span
    blocks = x.blocks or y.blocks
    if blocks or x.tilt != y.tilt:  # one factor leads out of the other's span
        on_span = context.plus(on_span, x.on_span * y.off_span)
        on_span = context.plus(on_span, x.off_span * y.on_span)
        on_span = context.plus(on_span, off_span) if blocks else on_span
        off_span = on_span if blocks else off_span
    commute = node.left == node.right or Dim.ANY in (x.side, y.side)
    mine, others = x.eigenvalues, y.eigenvalues
    value = Spectral(
        side,
        on_span,
        off_span,
        rest=mine[REST] * others[REST],
        twin=mine[TWIN] * others[TWIN],
        variation=context.plus(x.variation, y.variation),
        of_gradient=x.of_gradient and y.of_gradient,
        tilt=context.plus(x.tilt, y.tilt),
        symmetric=x.symmetric and y.symmetric and commute and not blocks,
        blocks=blocks,
        vanishing=x.vanishing + y.vanishing,
        thin=min(x.thin, y.thin),
        steps=max(x.steps, y.steps),
        levelled=x.levelled or y.levelled,
    )
    numbers = f"{x.on_span} x {y.on_span}"
    return value, Step(PRODUCT, str(node), on_span, numbers, steps, node=node)


def need_one_basis(
    context: Context, node: Node, side: Dim, x: Spectral, y: Spectral, adds: bool = False
) -> None:
    """Refuse A beside R, or B beside L, where the data have directions that the gradient lacks.

    A sum is one of the data where those are no smaller: all of its eigenvalues are of their size.
    """
    span = context.spans[index(side)] if side is not Dim.ANY else None
    if span is None or not (span.rest or span.twin) or x.variation.is_zero or y.variation.is_zero:
        return
    if x.of_gradient is not y.of_gradient:
        own, data = (x, y) if x.of_gradient else (y, x)
        order = context.bounds.order(own.on_span.width, data.on_span.width)
        if adds and span.twin is None and order in (Order.LESS, Order.EQUAL):
            return
        raise context.not_covered(
            node,
            f"a matrix of the data beside one of the gradient, which has fewer directions on the "
            f"{side} side",
            "one of them, or one after the other: (G @ f(A)) @ g(R)",
            instead.apart,
        )


def index(side: Dim) -> int:
    """Where portions and spans have a side: 0 for fan_out, 1 for fan_in."""
    return 1 if side is Dim.FAN_IN else 0


def _mixing(
    context: Context, side: int, spectral: Spectral
) -> dict[tuple[Direction, Direction], Scale]:
    """How far kinds of directions lie along each other in the matrix's own basis."""
    span, amount = context.spans[side], spectral.variation
    inside = [kind for kind in kinds(span) if kind is not OFF]
    found: dict[tuple[Direction, Direction], Scale] = {}
    apart = side == 1 or span.rest  # D f(D^T D) H^T: on the left, twins are those of D as well
    if not spectral.of_gradient and apart and not amount.is_zero:
        found |= {(k, m): amount for k in inside for m in inside if k is not m}
    if not spectral.tilt.is_zero:
        everything = kinds(span)
        found |= {(k, m): spectral.tilt for k in everything for m in everything if k is not m}
    return found


def push_through(
    context: Context, node: MatMul, spectral: Spectral, aligned: Aligned, steps: tuple[Step, ...]
) -> Reading:
    """f(B) @ X or X @ f(A)."""
    on_delta_side = (spectral.side is Dim.FAN_OUT) or spectral.side is Dim.ANY
    side = 0 if on_delta_side else 1
    behaviour = aligned.left if on_delta_side else aligned.right
    if behaviour.parity is not Parity.ODD and spectral.side is not Dim.ANY:
        raise context.not_covered(
            node,
            f"a curvature matrix acting on a side that is {behaviour.parity}, which overlaps with "
            "its span in the mean only",
            "a factor that is odd in delta and in h, such as G",
            instead.odd,
        )
    if aligned.steps > spectral.steps and context.exceeds(S.Zero, spectral.vanishing):
        raise context.not_covered(
            node,
            "an inverse of the diagonal, or of pieces, of this step's factor acting on an average "
            "over steps, which does not vanish where the factor does",
            "a damping as large as the factor, or the average of the factor",
            instead.damped,
        )
    if rank.is_full(aligned) and spectral.side is not Dim.ANY:
        rank.refuse_where_it_grows(
            context, node, "a curvature matrix on a matrix of full rank", "orth(f(B) @ G @ g(A))"
        )
    spectral = _on_its_own(context, node, side, spectral, aligned)
    _need_one_basis_of_twins(context, node, side, spectral, aligned)
    there = kinds(context.spans[side])
    eigenvalues = {
        kind: size if kind in there else spectral.on_span
        for kind, size in spectral.eigenvalues.items()
    }
    mixing = _mixing(context, side, spectral)
    changed, growth = acted(aligned.portions, side, eigenvalues, mixing, context.bounds)
    if spectral.blocks and context.spans[side].off and not spectral.variation.is_zero:
        led = _led_off_by_pieces(context, side, spectral, aligned)
        changed = changed.swapped(side, OFF, led)
    beyond = aligned.portions.at(side, OFF, context.bounds)
    assumption = ""
    before = context.plus(beyond, spectral.tilt)
    if OFF in there and spectral.on_span != spectral.off_span and not before.is_zero:
        after = changed.at(side, OFF, context.bounds)
        assumption = _partly_off(context, spectral, before, after)
        _need_one_turn(context, node, spectral)
        _need_one_step(context, node, spectral, aligned)
    if assumption or spectral.blocks:
        here = replace(behaviour, vanishing=_after_pieces(spectral, behaviour.vanishing, beyond))
        changes = {"left": here} if on_delta_side else {"right": here}
        aligned = replace(aligned, **changes)  # type: ignore[arg-type]
    met = entrywise.overlap(context)
    ratio = growth
    if not growth.is_zero and not aligned.gain.is_zero:
        before = aligned.portions.total(context.bounds, met)
        ratio = growth * changed.total(context.bounds, met) / before
    value = replace(
        aligned, gain=aligned.gain * ratio, entry=aligned.entry * growth, portions=changed,
        positive=False, monomial=False, mixes=aligned.mixes or spectral.side is not Dim.ANY,
        turned_by=_turned_by(spectral) if side == 0 else aligned.turned_by,
        aligned_sums=not aligned.fills_rows and (side == 1 or _keeps_rows(aligned, changed)),
        levelled=aligned.coherent and (aligned.levelled or spectral.levelled), jumps=False,
    )  # fmt: skip
    numbers = f"{ratio} x {aligned.gain}"
    return value, Step(PUSH_THROUGH, str(node), value.gain, numbers, steps, assumption, node)


def _after_pieces(spectral: Spectral, vanishing: Expr, beyond: Scale) -> Expr:
    """How entries behave near zero after pieces act: each on its own under a diagonal.

    A larger piece meets what lies in the span of the data by its own small singular value, and what
    an entrywise function led off it by order one; where it does not raise it, entries are mixed.
    """
    if spectral.thin is S.One:
        return vanishing + spectral.vanishing
    met = spectral.thin * vanishing if beyond.is_zero else S.Zero
    found = met + spectral.vanishing
    return found if found.is_negative else max(vanishing, S.One)


def _led_off_by_pieces(context: Context, side: int, spectral: Spectral, aligned: Aligned) -> Scale:
    """How much of the span pieces lead off it: on the left by f, if f makes what lies there."""
    if side == 0 and spectral.vanishing.is_nonnegative:
        left = replace(aligned.left, vanishing=aligned.left.vanishing + spectral.vanishing)
        f = entrywise.leads_off(context, left, aligned.fills_rows)
        if f is not None:
            return spectral.variation * f
    return spectral.variation


def _keeps_rows(aligned: Aligned, changed: Portions) -> bool:
    """Whether D C H^T is one of strong directions afterwards: rows are as small as those of D."""
    return aligned.low_rank and all(pair[0] is OWN for pair, _ in changed.sizes)


def _on_its_own(
    context: Context, node: MatMul, side: int, spectral: Spectral, aligned: Aligned
) -> Spectral:
    """f(X @ X.T) of a matrix of X's own span: there it has the eigenvalues on the span alone."""
    behaviour = aligned.right if side else aligned.left
    if spectral.tilt.is_zero or not spectral.of_gradient:
        order = context.bounds.order(spectral.off_span.width, spectral.on_span.width)
        if behaviour.centred and order not in (Order.LESS, Order.EQUAL):
            raise context.not_covered(
                node,
                "an inverse whose damping is smaller than the eigenvalues, on a centred matrix: it "
                "raises the direction of the mean, which samples meet by no more than their mean",
                "a damping as large as the eigenvalues, or f(X @ X.T) @ X of the centred X",
                instead.apart,
            )
        return spectral
    if spectral.root is not None and _spans_as(node, spectral.root, side):
        on_span = spectral.on_span
        return replace(spectral, off_span=on_span, rest=None, twin=None, tilt=NOTHING)
    if aligned.low_rank and not aligned.portions.at(side, OFF, context.bounds).is_zero:
        raise context.not_covered(
            node,
            "a matrix made of one that leads out of the gradient's span, on another that does",
            "f(X @ X.T) @ X with one X, or functions of G @ G.T",
            instead.apart,
        )
    return spectral


def _spans_as(node: MatMul, root: Node, side: int) -> bool:
    """Whether a product has the columns (side 0) or rows (1) of X, whatever acts on the others."""
    x = node.right if node.left.shape.is_square else node.left
    x, root = untransposed(x), untransposed(root)
    while x != root:
        match x:
            case MatMul(one, other) if side == 0 and other.shape.is_square:
                x = one
            case MatMul(one, other) if side == 1 and one.shape.is_square:
                x = other
            case _:
                return False
    return True


def _need_one_step(context: Context, node: MatMul, spectral: Spectral, aligned: Aligned) -> None:
    """Refuse an inverse of this step's factor on an average: it lacks what has moved since."""
    order = context.bounds.order(spectral.off_span.width, spectral.on_span.width)
    if aligned.steps > spectral.steps and order not in (Order.LESS, Order.EQUAL):
        raise context.not_covered(
            node,
            "an inverse of this step's factor, whose damping is smaller than its eigenvalues, on "
            "an average over steps: how far the step before leads out of its span depends on how "
            "far that step has moved the network",
            "a damping as large as the eigenvalues, or this step's gradient",
            instead.damped,
        )


def _need_one_turn(context: Context, node: MatMul, spectral: Spectral) -> None:
    """Refuse an inverse of pieces on what pieces have turned: it may lie within their span."""
    order = context.bounds.order(spectral.off_span.width, spectral.on_span.width)
    if not spectral.blocks or order in (Order.LESS, Order.EQUAL):
        return
    square, other = node.left, node.right
    if spectral.side is Dim.FAN_IN:
        square, other = other, square
    if any(_is_of_pieces(part) and part.shape == square.shape for part in other.walk()):
        raise context.not_covered(
            node,
            "an inverse of pieces, whose damping is smaller than they are, on what pieces have "
            "turned out of the span of the data and perhaps not out of theirs",
            "one of the two",
            instead.damped,
        )


def _is_of_pieces(node: Node) -> bool:
    return isinstance(node, Call) and FUNCTIONS[node.function].cuts and _size(node) > 1


def _need_one_basis_of_twins(
    context: Context, node: Node, side: int, spectral: Spectral, aligned: Aligned
) -> None:
    """Refuse B after L, and L after B, where classes repeat: their weak directions differ by f."""
    if side == 1 or context.spans[0].twin is None or spectral.variation.is_zero:
        return
    if context.step > 1 or context.spans[0].rest:
        weak = spectral.eigenvalues[TWIN]
        order = context.bounds.order(weak.width, spectral.on_span.width)
        if weak.is_zero or order in (Order.LESS, Order.EQUAL):
            return  # what is weak stays so
        found = "an inverse beside samples of one class, whose cotangents differ by little"
        found += " at the first step, and by what is not known at the second"
    elif aligned.turned_by in ("", _turned_by(spectral)):
        return
    else:
        found = "B beside L, and samples of one class, whose cotangents differ by little"
    raise context.not_covered(
        node, found, "no class drawn twice, or all classes drawn", instead.apart
    )


def _turned_by(spectral: Spectral) -> str:
    return "" if spectral.variation.is_zero else "gradient" if spectral.of_gradient else "data"


def _partly_off(context: Context, spectral: Spectral, before: Scale, after: Scale) -> str:
    source = "an entrywise function of G, or of its span"
    if not spectral.contains_data:
        source = "a curvature whose span need not hold the gradient"
        source = "B of sampled cotangents" if context.sampled_fisher else source
    parts = "as much of it" if before == after == ONE else f"{before} of it, {after} of the result,"
    return f"{source}: {parts} lies off the span as in it, so the larger of both eigenvalues acts"


def gram_product(
    context: Context, node: MatMul, x: Aligned, y: Aligned, steps: tuple[Step, ...]
) -> Reading:
    """X @ Y.T and X.T @ Y of gradient-like matrices D C H^T."""
    if not (x.low_rank and y.low_rank and is_linear(x) and is_linear(y)):
        raise context.not_covered(
            node,
            "a Gram matrix of a full-rank entrywise function",
            "a Gram matrix of D C H^T",
            instead.apart,
        )
    side = Dim.FAN_IN if x.transposed else Dim.FAN_OUT
    here, bounds = index(side), context.bounds
    turned = any(OFF not in (one, other) and one is not other
                 for v in (x, y) for (one, other), _ in v.portions.sizes)  # fmt: skip
    if turned and context.spans[0].twin is not None:
        raise context.not_covered(
            node,
            "a Gram matrix of what A or B has turned out of the gradient's own directions, where "
            "samples of one class have cotangents that differ by little",
            "G @ G.T or G.T @ G, or no class drawn twice",
            instead.apart,
        )
    size, off = x.gain * y.gain, NOTHING
    for factor in (x, y):
        for kind in (OFF, REST):
            off = context.plus(off, factor.portions.at(here, kind, bounds))
    weak = x.portions.at(here, TWIN, bounds) * y.portions.at(here, TWIN, bounds)
    value = Spectral(
        side, size, Scale.zero(Size.SPECTRAL), rest=Scale.zero(Size.SPECTRAL), twin=size * weak,
        variation=ONE, of_gradient=True, tilt=off, symmetric=is_symmetric(node),
        root=untransposed(node.left) if is_square_of_one(node) else None,
    )  # fmt: skip
    return value, Step(GRAM, str(node), size, f"{x.gain} x {y.gain}", steps, node=node)


def is_linear(value: Aligned) -> bool:
    """Whether a matrix is odd in delta and in h, so that its directions are those of the data."""
    return value.left.parity is value.right.parity is Parity.ODD


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
    if not is_linear(value):
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
        aligned_sums=not value.fills_rows and _keeps_rows(value, equal),
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
        is_linear(signal) and signal.low_rank and signal.portions == Portions()
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
    full = _size(node) == 1 or _size(node) <= context.spans[index(value.side)].rank
    thin = _thin(context, value, _size(node)) if bare else S.Zero
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


def _size(node: Call) -> int:
    """The side of a piece; a diagonal has pieces of one entry."""
    return int(node.option.value) if isinstance(node.option, Number) else 1


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


def norm_power(node: Call) -> int | None:
    """The p of the norm (sum s^p)^(1/p) of singular values; None for the largest of them."""
    reading = FUNCTIONS[node.function].reading
    assert isinstance(reading, SumOfEntries | SpectralSum), "a sum over the spectrum"
    return reading.power


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
