"""Rules of inference for spectra: powers, products, push-through and Gram matrices.

On the data's span every eigenvalue of a curvature matrix is of one order, so a spectral function
is two numbers, one on the span and one off it. Applied to D C H^T, f(B) meets only the span:
f(D D^T) D = D f(D^T D) (push-through). Where the span need not contain the gradient (B of sampled
cotangents, or an entrywise function of G on the right) both numbers act, and the larger one wins.

Powers of undamped singular matrices are pseudo-powers: zero stays zero.
"""

from __future__ import annotations

from dataclasses import replace

from sympy import Expr, S

from scaling.calculus import entrywise, instead, pieces, rank, rounding_noise
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
    index,
    kinds,
)
from scaling.calculus.entrywise import Reading
from scaling.calculus.values import (
    NOTHING,
    Aligned,
    Parity,
    Spectral,
)
from scaling.rules.diagonal_blocks import is_of_pieces
from scaling.rules.shapes import Dim
from scaling.rules.symmetric import is_square_of_one, is_symmetric
from scaling.rules.tree import MatMul, Node, untransposed
from scaling.sizes.derivation import (
    GRAM,
    PRODUCT,
    PUSH_THROUGH,
    SPECTRAL_POWER,
    Step,
)
from scaling.sizes.scale import Order, Scale, Size


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
        led = pieces.led_off(context, side, spectral, aligned)
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
        here = replace(
            behaviour, vanishing=pieces.entries_near_zero(spectral, behaviour.vanishing, beyond)
        )
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
        aligned_sums=not aligned.fills_rows and (side == 1 or keeps_rows(aligned, changed)),
        levelled=aligned.coherent and (aligned.levelled or spectral.levelled), jumps=False,
    )  # fmt: skip
    numbers = f"{ratio} x {aligned.gain}"
    return value, Step(PUSH_THROUGH, str(node), value.gain, numbers, steps, assumption, node)


def keeps_rows(aligned: Aligned, changed: Portions) -> bool:
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
    if any(is_of_pieces(part) and part.shape == square.shape for part in other.walk()):
        raise context.not_covered(
            node,
            "an inverse of pieces, whose damping is smaller than they are, on what pieces have "
            "turned out of the span of the data and perhaps not out of theirs",
            "one of the two",
            instead.damped,
        )


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
    if not (x.low_rank and y.low_rank and x.is_linear and y.is_linear):
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
