"""Rules of inference for entries: broadcast, products, quotients and powers.

An entrywise function of G = D H^T is known by the size of its entries and by how it behaves in
delta and in h. Odd in h: its rows stay aligned with h, so dW h adds up over fan_in (LLN). Even in
h: it meets h only through h's mean, which is of order |h| for ReLU and M^(-1/2) |h| for odd
activations (means). Odd in delta: the change keeps the direction of the gradient.

Refused: entries so heavy-tailed that a few of them set the size (|x|^p with p <= -1/2), and
functions that are neither odd nor even where the activation has zero mean.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace

from sympy import Expr, Min, S

from scaling.calculus import directions, instead, rank
from scaling.calculus.context import Context
from scaling.calculus.directions import OFF, ONE, Pair, Portions, bent
from scaling.calculus.values import (
    CONSTANT,
    Aligned,
    Behaviour,
    Known,
    Parity,
    Scalar,
    Value,
    Vector,
    Weights,
    describe,
    times,
)
from scaling.rules import bounded_quotients
from scaling.rules.diagonal_blocks import is_of_pieces
from scaling.rules.shapes import Dim
from scaling.rules.tree import Call, Multiply, Node, Power
from scaling.sizes.derivation import ENTRYWISE, Step
from scaling.sizes.errors import NotCovered
from scaling.sizes.scale import HALF, Scale, Size

Reading = tuple[Value, Step]
SQUARES, MEANS = (Known.TYPICAL, Known.MEAN_SQUARE), (Known.TYPICAL, Known.MEAN)
"""How entries may be known where they are squared and added up, and where they are added up."""


def coherent(
    context: Context,
    entry: Scale,
    left: Behaviour,
    right: Behaviour,
    transposed: bool,
    portions: Portions,
    positive: bool = False,
    monomial: bool = True,
    mixes: bool = False,
    steps: int = 1,
) -> Aligned:
    """A matrix with entries of that size and behaviour, made by O(1) directions."""
    gain = (entry * context.spread).as_size_of(Size.SPECTRAL)
    sizes = context.sizes
    if right.parity is not Parity.ODD and not sizes.h.is_zero:
        gain = gain * (sizes.mean_h / sizes.h).as_size_of(Size.SCALAR)
    elif right.parity is Parity.ODD:
        gain = gain * portions.total(context.bounds, overlap(context))
    return Aligned(
        gain, entry, left, right, low_rank=False, portions=portions,
        transposed=transposed, positive=positive, monomial=monomial, mixes=mixes, steps=steps,
    )  # fmt: skip


def overlap(context: Context) -> Callable[[Pair], Scale]:
    """How a sample held out meets a portion: what lies off the data by less, maybe."""
    met = context.spans[1].overlap
    return lambda pair: met if pair[1] is OFF else ONE


def function_of(context: Context, value: Aligned, left: Behaviour) -> Portions:
    """The portions after a function that is not linear: it bends what is odd.

    ``left``: the behaviour of the result on the left.
    """
    sides = [i for i, x in enumerate((value.left, value.right)) if x.parity is not Parity.EVEN]
    off = leads_off(context, left, value.fills_rows)
    return bent(value.portions, sides, context.spans, context.bounds, off)


def leads_off(context: Context, left: Behaviour, filled: bool) -> Scale | None:
    """How much of the span lies off it on the left after a function of entries, if f decides that.

    Entries of classes that are not drawn are f. An odd function like |x|^p makes f^p of them, and
    the span itself leans by f towards them. ``filled``: whether rows were added up before, so that
    those of such classes need not be small.
    """
    f = context.spans[0].bend
    if f is None or filled or left.parity is not Parity.ODD or not left.vanishing.is_nonnegative:
        return None
    found: Scale = f ** Min(left.vanishing, 1)
    return found


def broadcast(context: Context, x: Value, y: Value) -> tuple[Value, Value]:
    """Spread a scalar or a vector over the matrix that it meets."""
    match x, y:
        case ((Aligned() | Vector()), Scalar()):
            return x, _spread_scalar(context, y, x)
        case Scalar(), (Aligned() | Vector()):
            return _spread_scalar(context, x, y), y
        case Weights(), Scalar():
            return x, constant(context, y.size, x.transposed, y.positive)
        case Scalar(), Weights():
            return constant(context, x.size, y.transposed, x.positive), y
        case Weights(), Vector():
            return x, spread_vector(context, y, x.transposed)
        case Vector(), Weights():
            return spread_vector(context, x, y.transposed), y
        case Aligned(), Vector():
            return x, spread_vector(context, y, x.transposed)
        case Vector(), Aligned():
            return spread_vector(context, x, y.transposed), y
        case Vector(), Vector() if x.is_row is not y.is_row:
            row = x if x.is_row else y
            transposed = row.side is Dim.FAN_OUT
            return spread_vector(context, x, transposed), spread_vector(context, y, transposed)
    return x, y


def product(
    context: Context, node: Node, x: Value, y: Value, steps: tuple[Step, ...], invert: bool
) -> Reading:
    """X * Y or X / Y, entry by entry; neither is a scalar."""
    if invert:
        if isinstance(y, Vector) and bounded_quotients.is_one(node):
            y = replace(y, mixes=False, monomial=True, poles=False)
        elif isinstance(x, Aligned | Vector) and isinstance(y, Aligned | Vector):
            holes = y.has_holes if isinstance(y, Aligned) else y.mixes
            y = replace(y, mixes=x.mixes or holes or x.steps > y.steps)
        y = reciprocal(context, node, y, x)
    for one, other in ((x, y), (y, x)):
        if isinstance(one, Aligned) and rank.is_full(one) and isinstance(other, Vector):
            return _full_times_vector(context, node, one, other, steps)
    x, y = broadcast(context, x, y)
    match x, y:
        case Aligned(), Aligned():
            square = isinstance(node, Multiply) and node.left == node.right
            need_entries(context, node, x, y, sizes=SQUARES if square else ())
            entry = x.entry * y.entry
            left, right = x.left.times(y.left), x.right.times(y.right)
            check(context, node, left, right)
            bends = [Parity.EVEN not in (p.parity, q.parity)
                     for p, q in ((x.left, y.left), (x.right, y.right))]  # fmt: skip
            off = leads_off(context, left, x.fills_rows or y.fills_rows)
            portions = directions.product(
                x.portions, y.portions, (bends[0], bends[1]), context.spans, context.bounds, off
            )
            value = coherent(
                context, entry, left, right, x.transposed, portions, _positive(node, x, y),
                _monomial(x, y), x.mixes or y.mixes, max(x.steps, y.steps),
            )  # fmt: skip
            full = rank.is_full(x)
            crosses, poles = x.crosses or y.crosses, x.poles or y.poles
            if square and x.crosses:
                crosses, poles = False, True
            value = replace(
                value, coherent=not full, levelled=full, poles=poles, crosses=crosses,
                aligned_sums=not (x.fills_rows or y.fills_rows),
                known=Known.TYPICAL if x.known is Known.TYPICAL else Known.MEAN,
            )  # fmt: skip
            line = _step(node, value, f"{x.entry} x {y.entry}", steps)
            return value, rank.assumed(context, line, [x, y])
        case Vector(), Vector():
            behaviour = x.behaviour.times(y.behaviour)
            check(context, node, behaviour)
            averaged = x.averaged.times(y.averaged)
            vector = Vector(
                x.entry * y.entry, x.side, behaviour, x.is_row, averaged, _positive(node, x, y),
                _monomial(x, y), x.mixes or y.mixes, max(x.steps, y.steps),
                ONE if Parity.EVEN not in (x.behaviour.parity, y.behaviour.parity)
                else context.plus(x.bend, y.bend),
            )  # fmt: skip
            return vector, _step(node, vector, f"{x.entry} x {y.entry}", steps)
    raise context.not_covered(
        node,
        f"entries of {describe(x)} times {describe(y)}",
        "functions of G entry by entry",
        instead.apart,
    )


def _full_times_vector(
    context: Context, node: Node, x: Aligned, y: Vector, steps: tuple[Step, ...]
) -> Reading:
    """A matrix of full rank with rows or columns rescaled by numbers of one order and one sign."""
    if not y.positive or y.behaviour.parity is not Parity.EVEN:
        need_entries(context, node, x)
    size = y.entry.as_size_of(Size.SCALAR)
    value = times(x, size)
    assert isinstance(value, Aligned), "a matrix times a number"
    value = replace(value, monomial=False, mixes=True, aligned_sums=False, positive=False)
    return value, _step(node, value, f"{x.entry} x {y.entry}", steps)


def reciprocal(context: Context, node: Node, y: Value, numerator: Value) -> Value:
    """1/Y, entry by entry; 0/0 is 0, because a weight without gradient rests."""
    if y.main.is_zero:
        if numerator.main.is_zero:
            return times(y, Scale.zero(Size.SCALAR))
        raise context.not_covered(
            node, "a division by exactly zero", "a damping or eps", instead.damped
        )
    if isinstance(y, Scalar | Aligned | Vector):
        _need_no_poles(context, node, y)
    match y:
        case Scalar(size):
            return replace(y, size=size**-1)
        case Aligned():
            need_entries(context, node, y)
            sides = y.left.reciprocal(), y.right.reciprocal()
            return coherent(
                context, y.entry**-1, *sides, y.transposed, function_of(context, y, sides[0]),
                y.positive, y.monomial, y.mixes, y.steps,
            )  # fmt: skip
        case Vector():
            behaviour = y.behaviour.reciprocal()
            return replace(y, entry=y.entry**-1, behaviour=behaviour, bend=_bent_vector(y))
    raise context.not_covered(
        node,
        f"division by {describe(y)}",
        "a scalar, entries of G, or **(-1) of a square matrix",
        instead.damped,
    )


def power(context: Context, node: Power, value: Aligned | Vector, p: Expr, step: Step) -> Reading:
    """X**p, entry by entry."""
    if value.entry.is_zero and not p.is_positive:
        raise context.not_covered(
            node, f"zero to the power {p}", "a damping or eps", instead.damped
        )
    if not (p.is_positive or p.is_nonnegative):
        _need_no_poles(context, node, value)

    def change(old: Behaviour) -> Behaviour:
        parity = old.parity
        if parity is Parity.ODD:
            if not p.is_Integer:
                raise context.not_covered(
                    node,
                    f"entries that take both signs to the power {p}",
                    "a whole power; sign(X)*abs(X)**p is odd, abs(X)**p is even",
                    instead.positive,
                )
            parity = Parity.ODD if p % 2 else Parity.EVEN
        return old.power(p, parity)

    if p == 1:
        return value, replace(step, subject=str(node), node=node)
    even = bool(p.is_Integer and p % 2 == 0)
    positive = value.positive or even
    numbers = f"({value.entry})^({p})"
    result = changed(context, node, value, value.entry**p, change, numbers, (step,), positive)
    if not p.is_Integer:
        need_positive(context, node, value)
    return result


def nearly_linear(context: Context, value: Aligned | Vector, share: Scale) -> Aligned | Vector:
    """The value x up to terms of higher order, a ``share`` of it in directions of their own."""
    share = share.as_size_of(Size.SCALAR)
    if isinstance(value, Vector):
        return replace(value, bend=context.plus(value.bend, share * _bent_vector(value)))
    more = [(pair, x * share) for pair, x in function_of(context, value, value.left).sizes]
    found = directions.portions([*value.portions.sizes, *more], context.bounds)
    return replace(value, portions=found, low_rank=False)


def need_entries(
    context: Context, node: Node, *values: Value, sizes: Collection[Known] = ()
) -> None:
    """Refuse values whose entries are not made by O(1) directions.

    ``sizes``: their sizes will do, known in one of these ways, of singular values made alike
    (rank.py).
    """
    for value in values:
        if not isinstance(value, Aligned) or value.coherent:
            continue
        if rank.is_full(value) and value.known in sizes:
            continue
        found, needed = "entries of a full-rank polar factor", "entries made by O(1) directions"
        if value.known is not Known.TYPICAL:
            found += ", of which a few near zeros of the gradient set the mean square"
            needed = "its norm, means of its squares, or the polar factor of G itself"
            polar = (n for n in node.walk() if isinstance(n, Call) and n.function == "orth")
            raise context.not_covered(next(polar, node), found, needed, instead.of_gradient)
        raise context.not_covered(node, found, needed, instead.apart)


def changed(
    context: Context,
    node: Node,
    value: Aligned | Vector,
    entry: Scale,
    change: Callable[[Behaviour], Behaviour],
    numbers: str,
    steps: tuple[Step, ...],
    positive: bool,
) -> Reading:
    """A function of each entry: the size of an entry, and how its behaviour on each side changes.

    Raises:
        NotCovered: for entries of a full-rank polar factor, and for sums of odd and even terms.
    """
    need_entries(context, node, value, sizes=(Known.TYPICAL,) if positive else ())
    result: Aligned | Vector
    if isinstance(value, Vector):
        averaged = change(Behaviour(value.averaged, S.Zero)).parity
        result = replace(
            value, entry=entry, behaviour=change(value.behaviour), averaged=averaged,
            positive=positive, bend=_bent_vector(value),
        )  # fmt: skip
    else:
        sides = change(value.left), change(value.right)
        if Parity.MIXED in (sides[0].parity, sides[1].parity):
            raise context.not_covered(
                node,
                "a function of a sum of odd and even terms",
                "a function of each term apart",
                instead.apart,
            )
        result = coherent(
            context, entry, *sides, value.transposed, function_of(context, value, sides[0]),
            positive, value.monomial, value.mixes, value.steps,
        )  # fmt: skip
        full = rank.is_full(value)
        result = replace(
            result, covers=value.covers, coherent=not full, levelled=full and value.levelled,
            aligned_sums=not value.fills_rows,
        )  # fmt: skip
    poles = value.poles or (positive and value.crosses)
    result = replace(result, poles=poles, crosses=value.crosses and not positive)
    return result, rank.assumed(context, _step(node, result, numbers, steps), [value])


def _step(node: Node, value: Aligned | Vector, numbers: str, inputs: tuple[Step, ...]) -> Step:
    if isinstance(value, Aligned):
        numbers += f", {value.left.parity} in delta, {value.right.parity} in h"
    return Step(ENTRYWISE, str(node), value.entry, numbers, inputs, node=node)


def _positive(node: Node, x: Aligned | Vector, y: Aligned | Vector) -> bool:
    first, second = node.children
    return (x.positive and y.positive) or (isinstance(node, Multiply) and first == second)


def _monomial(x: Aligned | Vector, y: Aligned | Vector) -> bool:
    return x.monomial and y.monomial


def need_positive(context: Context, node: Node, value: Scalar | Aligned | Vector) -> None:
    """Refuse the root of what may be below zero."""
    if not value.positive:
        raise context.not_covered(
            node,
            "a root of values that may be negative",
            "sqrt(X*X), abs(X)**p, or sign(X)*abs(X)**p for an odd function",
            instead.positive,
        )


def _need_no_poles(context: Context, node: Node, value: Scalar | Aligned | Vector) -> None:
    if not value.positive and (isinstance(value, Scalar) or not value.monomial):
        raise _difference(context, node)
    if isinstance(value, Scalar):
        return
    sides = (value.behaviour,) if isinstance(value, Vector) else (value.left, value.right)
    sums = value.mixes or (value.steps > 1 and not value.monomial)
    if sums and not all(context.exceeds(HALF, side.vanishing) for side in sides):
        raise context.not_covered(
            node,
            "a division by a sum over samples, neurons or steps, which vanishes where G does not",
            "a damping or eps, or a mean of G*G",
            instead.damped,
        )
    if value.poles:
        raise _difference(context, node)


def _difference(context: Context, node: Node) -> NotCovered:
    return context.not_covered(
        node,
        "a division by a difference, which may vanish",
        "a sum of positive terms",
        instead.positive,
    )


def check(context: Context, node: Node, *behaviours: Behaviour) -> None:
    """Refuse what has no typical entry, or no definite alignment with h."""
    sizes = context.sizes
    for behaviour in behaviours:
        if not context.exceeds(behaviour.vanishing, -HALF):
            raise context.not_covered(
                node,
                f"entries that blow up like |x|^({behaviour.vanishing}) where {_small(node)} is "
                "small, so that a few of them set the size",
                "a growth slower than |x|^(-1/2); give symbols in powers a value",
                instead.damped,
            )
        if behaviour.parity is Parity.MIXED and sizes.mean_h != sizes.h:
            raise context.not_covered(
                node,
                "an entrywise function neither odd nor even, under an activation of zero mean",
                "odd and even parts apart, or an activation whose mean does not vanish",
                instead.apart,
            )


def _small(node: Node) -> str:
    """How a value blows up: a piece of several entries is small in a direction of its own."""
    if any(map(is_of_pieces, node.walk())):
        return "x, a singular value of a piece of h or delta,"
    return "an entry x of h or delta"


def check_tails(context: Context, node: Node, value: Aligned) -> None:
    """Refuse a norm or an update whose entries are so heavy-tailed that a few of them set it."""
    for behaviour in (value.left, value.right):
        check(context, node, Behaviour(Parity.ODD, behaviour.vanishing))


def _spread_scalar(context: Context, scalar: Scalar, like: Aligned | Vector) -> Aligned | Vector:
    entry = scalar.size.as_size_of(Size.ENTRY)
    if isinstance(like, Vector):
        return Vector(entry, like.side, CONSTANT, like.is_row, positive=scalar.positive)
    return constant(context, scalar.size, like.transposed, scalar.positive)


def constant(context: Context, size: Scale, transposed: bool, positive: bool) -> Aligned:
    """A matrix of one number."""
    entry = size.as_size_of(Size.ENTRY)
    return coherent(context, entry, CONSTANT, CONSTANT, transposed, Portions(), positive)


def _bent_vector(value: Vector) -> Scale:
    return value.bend if value.behaviour.parity is Parity.EVEN else ONE


def spread_vector(context: Context, vector: Vector, transposed: bool) -> Aligned:
    """A row or a column, repeated over the matrix that it meets."""
    on_left = vector.side is Dim.FAN_OUT
    # constant along what was averaged; but a mean over delta still changes sign with the gradient
    sign = CONSTANT if vector.averaged is Parity.EVEN else Behaviour(Parity.MIXED, S.Zero)
    left = vector.behaviour if on_left else sign
    right = CONSTANT if on_left else vector.behaviour
    portions = Portions().swapped(0 if on_left else 1, OFF, vector.bend)
    return coherent(
        context, vector.entry, left, right, transposed, portions, vector.positive, vector.monomial,
        vector.mixes, vector.steps,
    )  # fmt: skip
