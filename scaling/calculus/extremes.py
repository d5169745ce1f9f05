"""Rules of inference for extremes of entries: the larger of two, the smaller of two, of many.

    max(X, Y)   of the size of X + Y, where neither is negative: (X + Y)/2 <= max(X, Y) <= X + Y;
                it is read as that sum, so that a damping in it is balanced as in one
    min(X, Y)   = 1/(1/X + 1/Y) up to a factor of 2: of the size of the smaller, and it vanishes
                where either of them does, as fast as the faster one. Where Y is of a smaller order
                it is Y itself, but for a share (Y/X)^(1/v) of the entries at most, if X vanishes
                like |x|^v; what leads off the span there is between nothing and that share, and
                `read_update` refuses a rule of which that decides the size
    row_max(X)  of M entries with Gaussian tails: of the size of a mean, up to a root of log M,
                which an exponent over finite widths sees as 1/(2 log M)

Refused: entries that may be negative, of which the larger is neither odd nor even in the gradient;
the smaller of entries that blow up where a factor is small; the smaller of functions of W; the
largest of entries that blow up, which a few of them set.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from sympy import S

from scaling.calculus import entrywise, instead, means, sums
from scaling.calculus.context import Context, regimes
from scaling.calculus.directions import ONE, portions
from scaling.calculus.entrywise import Reading
from scaling.calculus.values import (
    Aligned,
    Behaviour,
    Rotated,
    Scalar,
    Value,
    Vector,
    Weights,
    describe,
)
from scaling.rules.operators import Extreme
from scaling.rules.tree import Add, Call, Node, row_of
from scaling.sizes.derivation import ENTRYWISE, Step
from scaling.sizes.scale import Order, Scale, Size

LOGARITHMS = "up to logarithms of the width"


def of_entries(
    context: Context,
    node: Call,
    which: Extreme,
    operands: Sequence[Reading],
    read: Callable[[Context, Node], Reading],
) -> Reading:
    """max(X, Y) and min(X, Y) of entries, one of which may be a number or a vector."""
    (x, step), (y, other) = operands
    for value in (x, y):
        if not _is_positive(value):
            raise context.not_covered(
                node,
                f"{node.function} of {describe(value)} whose entries may be negative",
                "entries of at least zero, such as abs(X) or X*X",
                instead.positive,
            )
    assert node.option is not None, f"{node.function} has two operands"
    if which.larger:
        value, line = read(context, Add(node.argument, node.option))
        regime = context.decide(node, node.argument, node.option, x.main, y.main)
        return value, replace(line, subject=str(node), node=node, decision=regime)
    return _smaller(context, node, x, y, (step, other))


def _smaller(context: Context, node: Call, x: Value, y: Value, steps: tuple[Step, Step]) -> Reading:
    x, y = entrywise.broadcast(context, x, y)
    assert node.option is not None, "two operands"
    if not isinstance(x, Aligned | Vector) or not isinstance(y, Aligned | Vector):
        raise context.not_covered(
            node, f"min of {describe(x)} and {describe(y)}", "functions of G entry by entry",
            instead.apart,
        )  # fmt: skip
    regime = context.decide(node, node.argument, node.option, x.main, y.main)
    if regime.order is Order.EQUAL:
        one, two = sums.balanced(context, x, y)
        assert isinstance(one, Aligned | Vector)
        assert isinstance(two, Aligned | Vector)
        x, y = one, two
    for behaviour in (*_behaviours(x), *_behaviours(y)):
        if not behaviour.vanishing.is_nonnegative:
            raise context.not_covered(
                node,
                f"the smaller of entries that blow up like |x|^({behaviour.vanishing}) where an "
                "entry x of h or delta is small",
                "a damping or eps in their divisors",
                instead.damped,
            )
    both = sums.merged(context, node, x, y, regime.order)
    assert isinstance(both, Aligned | Vector), "entries of one kind"
    size = _lesser(context, x.main, y.main)
    lesser, share = _nearly(context, x, y, regime.order)
    value: Value
    if isinstance(both, Vector) and isinstance(x, Vector) and isinstance(y, Vector):
        value = replace(
            both, entry=size, behaviour=_faster(context, both.behaviour, x.behaviour, y.behaviour),
            monomial=False, mixes=x.mixes or y.mixes, poles=x.poles or y.poles,
        )  # fmt: skip
        if isinstance(lesser, Vector):
            value = replace(value, bend=context.plus(lesser.bend, both.bend * share))
    else:
        assert isinstance(both, Aligned) and isinstance(x, Aligned) and isinstance(y, Aligned)
        bent = entrywise.function_of(context, both, both.left)
        if isinstance(lesser, Aligned):
            few = [(pair, part * share) for pair, part in bent.sizes]
            bent = portions([*lesser.portions.sizes, *few], context.bounds)
        entries = entrywise.coherent(
            context, size, _faster(context, both.left, x.left, y.left),
            _faster(context, both.right, x.right, y.right), both.transposed,
            bent, positive=True, monomial=False,
            mixes=x.mixes or y.mixes, steps=both.steps,
        )  # fmt: skip
        alike = not (x.fills_rows or y.fills_rows)
        value = replace(entries, poles=x.poles or y.poles, aligned_sums=alike)
    line = Step(ENTRYWISE, str(node), size, "the smaller", steps, node=node, decision=regime)
    return value, line


def _nearly(
    context: Context, x: Aligned | Vector, y: Aligned | Vector, order: Order
) -> tuple[Value | None, Scale]:
    """The smaller of two orders, and the share of entries in which it is not the smaller one.

    The share is what the others may lead off the span at most; none is counted at all where the
    context says so.
    """
    if order not in (Order.LESS, Order.GREATER):
        return None, ONE
    lesser, other = (x, y) if order is Order.LESS else (y, x)
    fastest = max((v.vanishing for v in _behaviours(other)), default=S.Zero)
    if not context.counts_few or fastest == 0:
        return lesser, Scale.zero(Size.SCALAR)
    share = (lesser.main / other.main).as_size_of(Size.SCALAR) ** (1 / fastest)
    return lesser, share


def counts_few(step: Step) -> Node | None:
    """The first min in a derivation of which the smaller one is of a smaller order."""
    for regime in regimes(step):
        row = row_of(regime.node)
        strict = regime.order in (Order.LESS, Order.GREATER)
        if strict and row and isinstance(row.reading, Extreme) and not row.reading.larger:
            return regime.node
    return None


def largest(context: Context, node: Call, value: Value, step: Step) -> Reading:
    """The largest entry of each row, of each column or of all."""
    if not isinstance(value, Aligned) or not value.positive:
        raise context.not_covered(
            node,
            f"the largest entry of {describe(value)}, which may be negative",
            f"{node.function}(abs(X)), or that of X*X",
            instead.positive,
        )
    for behaviour in (value.left, value.right):
        if not behaviour.vanishing.is_nonnegative:
            raise context.not_covered(
                node,
                f"the largest of entries that blow up like |x|^({behaviour.vanishing}) where an "
                "entry x of h or delta is small",
                "a damping or eps in their divisors",
                instead.damped,
            )
    entrywise.need_entries(context, node, value)
    found, line = means.mean(context, node, value, step)
    return found, replace(line, subject=str(node)).because(f"{node} is read {LOGARITHMS}")


def _is_positive(value: Value) -> bool:
    match value:
        case Scalar() | Aligned() | Vector() | Weights():
            return value.positive
        case Rotated(inner, off):
            return inner.positive and (off.positive or off.size.is_zero)
    return False


def _behaviours(value: Aligned | Vector) -> tuple[Behaviour, ...]:
    return (value.behaviour,) if isinstance(value, Vector) else (value.left, value.right)


def _faster(context: Context, like: Behaviour, x: Behaviour, y: Behaviour) -> Behaviour:
    """Where either vanishes the smaller does, as fast as the faster one."""
    vanishing = context.bounds.larger(x.vanishing, y.vanishing)
    return Behaviour(x.parity.plus(y.parity), vanishing, like.centred)


def _lesser(context: Context, x: Scale, y: Scale) -> Scale:
    """1/(1/x + 1/y)."""
    if x.is_zero or y.is_zero:
        return Scale.zero(x.of)
    return context.plus(x**-1, y**-1) ** -1
