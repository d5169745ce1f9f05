"""The rule of inference for sums: the larger term sets the size, if the terms do not cancel.

Like terms are collected first, so what cancels exactly is exactly zero. A damping of unknown
scale is balanced with the term that it is added to (`Context.compare`). Everything else is decided
by comparing exponents, and the decision is recorded as a `Regime`: it is the first thing to look
at when a measurement drifts from one exponent to another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sympy import Expr, S

from scaling.calculus import cancellation, instead, rank, spectra, weight_entries
from scaling.calculus.context import Context, Regime, unknown_first
from scaling.calculus.directions import REST, TWIN, Portions, relative
from scaling.calculus.entrywise import Reading, broadcast
from scaling.calculus.values import (
    Aligned,
    Behaviour,
    Known,
    Noisy,
    Parity,
    Scalar,
    Spectral,
    Value,
    Vector,
    Weights,
    describe,
    parts,
    times,
)
from scaling.rules.like_terms import is_damping, is_joint
from scaling.rules.shapes import Dim
from scaling.rules.symbols import SymbolKind
from scaling.rules.tree import (
    Add,
    Divide,
    MatMul,
    Matrix,
    Multiply,
    Negate,
    Node,
    Subtract,
    Symbol,
)
from scaling.sizes.derivation import DAMPING, SUM, Step
from scaling.sizes.scale import Order, Scale, Size


def add(
    context: Context, node: Node, left: Node, right: Node, first: Reading, second: Reading
) -> Reading:
    """One sum of two terms."""
    (x, step_x), (y, step_y) = first, second
    x, y = broadcast(context, x, y)
    steps = (step_x, step_y)
    if isinstance(x, Noisy) or isinstance(y, Noisy):
        return _beside_noise(context, node, left, right, first, second)
    if isinstance(x, Weights) or isinstance(y, Weights):
        value, decided = _mix(context, node, left, right, x, y)
        numbers = "an aligned and a random part, kept apart"
        size = size_of(context, value)
        return value, Step(
            SUM, f"{left} + {right}", size, numbers, steps, node=node, decision=decided
        )
    for zero, other in ((x, y), (y, x)):
        if zero.main.is_zero and isinstance(zero, Aligned) and isinstance(other, Aligned):
            line = Step(SUM, f"{left} + {right}", other.main, "one term is zero", steps, node=node)
            return other, replace(line, time=context.step)
    if context.unknown and any(is_damping(one) and is_joint(other)
                               for one, other in ((left, right), (right, left))):  # fmt: skip
        raise context.not_covered(
            node,
            "a damping of unknown scale added to a sum over layers",
            "one with a given d",
            instead.damped,
        )
    regime = context.decide(node, left, right, x.main, y.main)
    order = regime.order
    if order is Order.EQUAL:
        x, y = balanced(context, x, y)
    value = merged(context, node, x, y, order)
    if isinstance(value, Aligned | Vector):
        value = replace(value, crosses=_crosses(left, right, x, y, order))
    difference = isinstance(left, Negate) or isinstance(right, Negate)
    if order is Order.EQUAL and (may_be_negative(left) or may_be_negative(right)):
        _refuse_cancelling(context, node, Add(left, right), x, y)
    damped = not difference and is_damping(left) != is_damping(right)
    assumption = f"the terms of {node} do not cancel" if order is Order.EQUAL and not damped else ""
    inference = DAMPING if damped else SUM
    line = Step(inference, f"{left} + {right}", value.main, str(regime), steps, assumption, node)
    return value, replace(line, time=context.step, decision=regime)


def _beside_noise(
    context: Context, node: Node, left: Node, right: Node, first: Reading, second: Reading
) -> Reading:
    """A term with rounding noise and one without: the noise stays."""
    (x, step_x), (y, step_y) = first, second
    noisy, other = (x, y) if isinstance(x, Noisy) else (y, x)
    if not isinstance(noisy, Noisy) or not isinstance(other, Aligned | Weights):
        raise context.not_covered(
            node, f"{describe(x)} + {describe(y)}", "one term with noise, and a function of G or W",
            instead.apart,
        )  # fmt: skip
    inner, outer = (x.inner if isinstance(x, Noisy) else x), (y.inner if noisy is y else y)
    value, line = add(context, node, left, right, (inner, step_x), (outer, step_y))
    assert isinstance(value, Aligned | Weights), "a sum of matrices"
    return Noisy(value, noisy.noise), line


def may_be_negative(node: Node) -> bool:
    """Whether a term is subtracted, or multiplied by a difference of numbers."""
    match node:
        case Negate():
            return True
        case Subtract():
            return node.shape.is_scalar
        case Add(x, y) if node.shape.is_scalar:
            return may_be_negative(x) or may_be_negative(y)
        case Multiply(x, y) | Divide(x, y) | MatMul(x, y):
            return may_be_negative(x) or may_be_negative(y)
    return False


def _refuse_cancelling(context: Context, node: Node, both: Node, x: Value, y: Value) -> None:
    """Refuse a difference of terms of one order that are not known to differ."""
    if _independent(x, y) or _weighed(context, both):
        return
    form = cancellation.canonical(context, both)
    if form is not None and form.kinds == 1:
        return
    raise context.not_covered(
        node,
        "a difference of terms of one order, which may cancel",
        "terms that differ by functions of one matrix, or in how they depend on G",
        instead.positive,
    )


def _independent(x: Value, y: Value) -> bool:
    """Whether two terms depend on delta or on h in ways that cannot cancel."""
    match x, y:
        case Aligned(), Aligned():
            return not (x.left.alike(y.left) and x.right.alike(y.right))
        case Vector(), Vector():
            return not x.behaviour.alike(y.behaviour) or x.averaged is not y.averaged
    return False


def _is_constant(node: Symbol) -> bool:
    return node.kind is SymbolKind.CONSTANT and not node.is_fan


def _weighed(context: Context, both: Node) -> bool:
    """Whether a number of order one, or one alone, stands on one side of a difference only."""
    numbers = [
        {n.name for n in term.walk() if isinstance(n, Symbol) and _is_constant(n)}
        - context.averages
        for term in both.children
    ]
    plain = [not any(isinstance(n, Matrix) for n in term.walk()) for term in both.children]
    return numbers[0] != numbers[1] or any(plain)


def balanced(context: Context, x: Value, y: Value) -> tuple[Value, Value]:
    """Give the term of unknown scale the scale of the other one."""
    for one, other in ((x, y), (y, x)):
        if one.main.width.free_symbols & context.unknown and one.main != other.main:
            scaled = times(one, (other.main / one.main).as_size_of(Size.SCALAR))
            return (scaled, y) if one is x else (x, scaled)
    return x, y


def merged(context: Context, node: Node, x: Value, y: Value, order: Order) -> Value:
    """The sum of two values of one kind that do not cancel."""
    plus = context.plus
    match x, y:
        case Scalar(), Scalar():
            return Scalar(plus(x.size, y.size), x.positive and y.positive)
        case Spectral(), Spectral():
            side = y.side if x.side is Dim.ANY else x.side
            spectra.need_one_basis(context, node, side, x, y, adds=True)
            uneven = [v for v in (x, y) if v.off_span != v.on_span]
            if len({v.tilt for v in uneven}) > 1:
                raise context.not_covered(
                    node,
                    "a sum of curvatures, one of which may miss the gradient",
                    "one of them",
                    instead.apart,
                )
            mine, others = x.eigenvalues, y.eigenvalues
            on_span = plus(x.on_span, y.on_span)
            varying = plus(x.on_span * x.variation, y.on_span * y.variation)
            return Spectral(
                side,
                on_span,
                plus(x.off_span, y.off_span),
                rest=plus(mine[REST], others[REST]),
                twin=plus(mine[TWIN], others[TWIN]),
                variation=varying
                if varying.is_zero
                else (varying / on_span).as_size_of(Size.SCALAR),
                of_gradient=all(v.of_gradient for v in (x, y) if not v.variation.is_zero),
                tilt=plus(x.tilt, y.tilt),
                symmetric=x.symmetric and y.symmetric,
                blocks=x.blocks or y.blocks,
                vanishing=_off_span_vanishing(context, x, y, order),
                thin=min(x.thin, y.thin),
                steps=max(x.steps, y.steps),
                levelled=x.levelled or y.levelled,
                root=x.root if y.variation.is_zero else y.root if x.variation.is_zero else None,
            )
        case Vector(), Vector() if x.side is y.side:
            behaviour = _behaviour(context, x.behaviour, y.behaviour, order)
            return replace(
                x, entry=plus(x.entry, y.entry), behaviour=behaviour,
                averaged=x.averaged.plus(y.averaged), positive=x.positive and y.positive,
                monomial=False,
                mixes=x.mixes or y.mixes,
                poles=_poles(x, y, order),
                steps=max(x.steps, y.steps),
                bend=_share(context, [(x.entry, x.bend), (y.entry, y.bend)]),
            )  # fmt: skip
        case Aligned(), Aligned():
            if rank.is_full(x) is not rank.is_full(y):
                rank.refuse_where_it_grows(
                    context, node, "a sum of a matrix of full rank and another", "one of the two"
                )
            return Aligned(
                gain=plus(x.gain, y.gain),
                entry=plus(x.entry, y.entry),
                left=_behaviour(context, x.left, y.left, order),
                right=_behaviour(context, x.right, y.right, order),
                low_rank=x.low_rank and y.low_rank,
                coherent=x.coherent and y.coherent,
                portions=_joined(context, x, y),
                turned_by=x.turned_by if x.turned_by == y.turned_by else "both",
                transposed=x.transposed,
                positive=x.positive and y.positive,
                monomial=False,
                mixes=x.mixes or y.mixes,
                aligned_sums=not (x.fills_rows or y.fills_rows),
                poles=_poles(x, y, order),
                covers=not x.has_holes and not y.has_holes,
                steps=max(x.steps, y.steps),
                levelled=x.levelled or y.levelled,
                known=_known(context, node, x, y),
            )
    raise context.not_covered(
        node, f"{describe(x)} + {describe(y)}", "terms of one kind", instead.apart
    )


def _crosses(left: Node, right: Node, x: Value, y: Value, order: Order) -> bool:
    """Whether a sum vanishes where its terms are equal: not where both follow the sign of G."""
    assert isinstance(x, Aligned | Vector) and isinstance(y, Aligned | Vector)
    if order in (Order.LESS, Order.GREATER):
        return y.crosses if order is Order.LESS else x.crosses
    positive = x.positive and y.positive
    alike = x.monomial and y.monomial and not (x.mixes or y.mixes)
    return not positive and not (alike and not may_be_negative(left) and not may_be_negative(right))


def _poles(x: Aligned | Vector, y: Aligned | Vector, order: Order) -> bool:
    """Whether a sum vanishes where a difference does: not beside a term that is as large."""
    if order in (Order.LESS, Order.GREATER):
        return y.poles if order is Order.LESS else x.poles
    return x.poles and y.poles


def _known(context: Context, node: Node, x: Aligned, y: Aligned) -> Known:
    """How the entries of a sum are known: no better than those of its terms."""
    worse = {x.known, y.known} - {Known.TYPICAL}
    if len(worse) > 1:
        raise context.not_covered(
            node, "a sum of a matrix and its square, of full rank", "one of the two", instead.apart
        )
    return worse.pop() if worse else Known.TYPICAL


def _joined(context: Context, x: Aligned, y: Aligned) -> Portions:
    """The portions of a sum."""
    found = [(pair, size * v.entry.as_size_of(Size.SCALAR)) for v in (x, y)
             for pair, size in v.portions.sizes]  # fmt: skip
    return relative(found, context.bounds)[0]


def _share(context: Context, parts: Sequence[tuple[Scale, Scale]]) -> Scale:
    """Parts of two terms as a part of their sum."""
    whole, part = Scale.zero(Size.ENTRY), Scale.zero(Size.ENTRY)
    for size, share in parts:
        whole, part = context.plus(whole, size), context.plus(part, size * share)
    return part.as_size_of(Size.SCALAR) if part.is_zero else (part / whole).as_size_of(Size.SCALAR)


def _behaviour(context: Context, x: Behaviour, y: Behaviour, order: Order) -> Behaviour:
    """Near zero the slower term stays; but a term that is negligible elsewhere only cuts there."""
    parity = x.parity.plus(y.parity)
    vanishing = _vanishing(context, x.vanishing, y.vanishing, order)
    return Behaviour(parity, vanishing, x.centred or y.centred)


def _vanishing(context: Context, x: Expr, y: Expr, order: Order) -> Expr:
    if order in (Order.LESS, Order.GREATER):
        return y if order is Order.LESS else x
    return -context.bounds.larger(-x, -y)


def _off_span_vanishing(context: Context, x: Spectral, y: Spectral, order: Order) -> Expr:
    """A term that is zero off the data's span shields nothing there from a small diagonal entry.

    Pieces that are larger than the rank of the data are small within it, too.
    """
    if not (x.blocks and y.side is Dim.ANY) and x.off_span.is_zero is not y.off_span.is_zero:
        return y.vanishing if x.off_span.is_zero else x.vanishing
    return _vanishing(context, x.vanishing, y.vanishing, order)


def _mix(
    context: Context, node: Node, left: Node, right: Node, x: Value, y: Value
) -> tuple[Value, Regime | None]:
    aligned, random = parts(x)
    more_aligned, more_random = parts(y)
    if not all(isinstance(v, Weights | Aligned) for v in (x, y)):
        raise context.not_covered(
            node, f"{describe(x)} + {describe(y)}", "terms of one kind", instead.apart
        )
    noise = random or more_random
    if random and more_random:
        raise context.not_covered(
            node, "several terms in W, which may cancel", "one term in W", instead.positive
        )
    signal, regime = aligned or more_aligned, None
    if aligned and more_aligned:
        regime = context.decide(node, left, right, aligned.main, more_aligned.main)
        if regime.order is Order.EQUAL:
            one, other = balanced(context, aligned, more_aligned)
            assert isinstance(one, Aligned) and isinstance(other, Aligned)
            aligned, more_aligned = one, other
            if may_be_negative(left) or may_be_negative(right):
                _refuse_cancelling(context, node, Add(left, right), aligned, more_aligned)
        both = merged(context, node, aligned, more_aligned, regime.order)
        assert isinstance(both, Aligned)
        signal = both
    elif signal is not None and unknown_first(x.main, y.main, context.unknown):
        regime = context.decide(node, left, right, x.main, y.main)  # a penalty, entry by entry
        x, y = balanced(context, x, y)
        signal, noise = parts(x)[0] or parts(y)[0], parts(x)[1] or parts(y)[1]
    assert noise is not None
    whole = x if parts(x)[1] is not None else y
    assert isinstance(whole, Weights)
    found = _beside(context, node, whole, y if whole is x else x, signal, regime)
    keeps = context.unknown or found.positive  # sizes of parts are not those of the terms
    return found, regime if keeps else None


def _beside(
    context: Context, node: Node, weights: Weights, other: Value, signal: Aligned | None,
    regime: Regime | None,
) -> Weights:  # fmt: skip
    """A sum of what holds W and what follows the gradient alone."""
    positive = weights.positive and isinstance(other, Aligned) and other.positive
    parity, vanishing, source = weights.parity, weights.vanishing, weights.source
    if isinstance(other, Aligned):
        parity = parity if parity is other.left.parity else Parity.MIXED
        if not positive:
            source = weight_entries.source(node)
            order = context.bounds.order(other.entry.width, weights.entry.width)
            vanishing = S.Zero if order is Order.GREATER else vanishing
        elif regime is not None and weights.aligned is not None:
            smaller = context.bounds.order(weights.aligned.entry.width, other.entry.width)
            vanishing = vanishing if smaller is Order.GREATER else S.Zero
    return replace(
        weights, aligned=signal, positive=positive, parity=parity, vanishing=vanishing,
        source=source,
    )  # fmt: skip


def size_of(context: Context, value: Value) -> Scale:
    """The typical entry of a value; of W and what is added to it the larger part."""
    if isinstance(value, Weights) and value.aligned is not None:
        return context.plus(value.aligned.entry, value.entry)
    return value.main
