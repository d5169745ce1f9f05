"""Rules of inference for entries of W, and of W beside the gradient: f(A + r), r independent.

    A    what follows the gradient, a function of its entries; r  a multiple of W, symmetric
    s    the larger of both

An entry of f(A + r) is its mean given A, a function of A alone, and a number of its own around it:

              A >> r                        A << r                          alike
    odd f     f(A)                          f(r)/r A: E f' > 0              f(s), odd in A
    even f    f(A)                          a constant f(r)                 f(s), even in A
    beside    at most f(s) (r/s)^min(p, 1)  f(r)                            f(s)

with f(x) ~ x^p where x is small. The mean does not cancel: f(A + r) with x f(x) > 0 is the odd f
averaged over a symmetric r. What stands beside it has no direction (a CLT), and is never larger
once both have met the layer's input. |W| alone is a constant and a number around it, so that
abs(W)*sign(G), Madam's step, follows the gradient as sign(G) does; means over rows are of the size
of an entry.

W where it has the sign of X is (W + sign(X) |W|)/2: half of W, and half of what follows X as the
step of Madam does.

Refused: entries of W times odd functions of G (W is not independent of them at that order), a
quotient of sums of W and G in which they stand in other ways, divisors that vanish with W, and
entries of orth(G + decay*W).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from sympy import Expr, S

from scaling.calculus import entrywise, instead
from scaling.calculus.context import Context
from scaling.calculus.directions import OFF
from scaling.calculus.entrywise import Reading
from scaling.calculus.values import (
    NOTHING,
    Aligned,
    Behaviour,
    Parity,
    Scalar,
    Value,
    Vector,
    Weights,
    describe,
    times,
)
from scaling.rules.rewrites import with_parts
from scaling.rules.shapes import Dim
from scaling.rules.tree import Call, Matrix, Multiply, Node, is_average
from scaling.sizes.derivation import ENTRYWISE, LLN, Step
from scaling.sizes.errors import NotCovered
from scaling.sizes.scale import HALF, Order, Scale, Size

SizeOf = Callable[[Scale], Scale]
W = Matrix("W")


def source(node: Node) -> Node:
    """A node without averages over steps: sums of W and G of one source are one matrix at a step.

    >>> from scaling.rules.language import G, W, ema
    >>> source(ema(G + W, 0.9))
    <rule G + W>
    """
    if isinstance(node, Call) and is_average(node):
        return source(node.argument)
    return with_parts(node, source)


def plain(value: Value) -> Value:
    """The rest of a sum where the weights are exactly zero."""
    if isinstance(value, Weights) and value.entry.is_zero and value.aligned is not None:
        return value.aligned
    return value


def function(
    context: Context, node: Node, value: Weights, p: Expr, size: SizeOf, even: bool,
    steps: tuple[Step, ...],
) -> Reading:  # fmt: skip
    """f(X): its entries are of ``size``, and go to 0 like |x|^p where those of X do."""
    _need_independent(context, node, value)
    if value.parity is Parity.MIXED:
        raise context.not_covered(
            node, "a function of a sum of odd and even terms", "a function of each term apart",
            instead.apart,
        )  # fmt: skip
    if value.main.is_zero:  # weights that start at zero
        even = even or value.positive
        nothing = entrywise.constant(context, Scale.zero(Size.SCALAR), value.transposed, True)
        zero = replace(value, positive=even, aligned=nothing if even else None)
        return zero, Step(ENTRYWISE, str(node), value.main, "of zero", steps, node=node)
    signal, noise = value.aligned, value.entry
    order = Order.LESS
    if signal is not None:
        order = context.bounds.order(signal.entry.width, noise.width)
    if order is Order.OPEN:
        raise context.not_covered(
            node, "entries of W that are above or below those beside them depending on symbols",
            "a decay that is given, --set d_decay=0, a damping rho*W, or W outside of the function",
            instead.decoupled,
        )  # fmt: skip
    whole = _whole(context, value)
    result, even = size(whole), even or value.positive
    mean = _mean(context, node, value, order, p, size, even, steps)
    beside = result
    if order is Order.GREATER:
        beside = result * (noise / whole) ** (
            p if context.bounds.order(p, S.One) is Order.LESS else S.One
        )
    multiple = NOTHING if even else value.multiple * (result / whole).as_size_of(Size.SCALAR)
    changed = replace(
        value, entry=beside, multiple=multiple, aligned=mean, positive=even,
        parity=Parity.EVEN if even else value.parity, vanishing=p * value.vanishing,
    )  # fmt: skip
    numbers = f"of {signal.entry} that follows G and {noise} beside it" if signal else f"of {noise}"
    return changed, Step(ENTRYWISE, str(node), result, numbers, steps, node=node)


def _mean(
    context: Context, node: Node, value: Weights, order: Order, p: Expr, size: SizeOf, even: bool,
    steps: tuple[Step, ...],
) -> Aligned | None:  # fmt: skip
    """The mean of f(X) given the gradient."""
    signal, noise = value.aligned, value.entry
    transposed = value.transposed
    if signal is None or (even and order is Order.LESS and not value.positive):
        whole = size(noise).as_size_of(Size.SCALAR)
        return entrywise.constant(context, whole, transposed, positive=True) if even else None
    whole = size(signal.entry)
    if not even and order is Order.LESS:
        share = (signal.entry / noise) ** 2
        bent = entrywise.nearly_linear(context, signal, share)
        slope = (size(noise) / noise).as_size_of(Size.SCALAR)
        assert isinstance(bent, Aligned), "what follows the gradient is a matrix"
        return replace(bent, gain=bent.gain * slope, entry=bent.entry * slope)
    covered = order is Order.EQUAL and not value.positive  # it vanishes where A + r does

    def change(old: Behaviour) -> Behaviour:
        parity = Parity.EVEN if even else old.parity
        return old.power(S.Zero if covered and even else p, parity)

    found, _ = entrywise.changed(context, node, signal, whole, change, "", steps, even)
    assert isinstance(found, Aligned), "a function of a matrix"
    return found


def product(
    context: Context, node: Node, x: Value, y: Value, steps: tuple[Step, ...], invert: bool
) -> Reading:
    """X * Y or X / Y, entry by entry, where W stands in one of them; neither is a scalar."""
    x, y = entrywise.broadcast(context, x, y)
    for value in (x, y):
        if isinstance(value, Weights):
            _need_independent(context, node, value)
    if not isinstance(x, Weights | Aligned) or not isinstance(y, Weights | Aligned):
        raise _refused(context, node, x, y)
    if isinstance(node, Multiply) and node.left == node.right and isinstance(x, Weights):
        return function(context, node, x, S(2), lambda s: s**2, True, steps)
    if invert and isinstance(y, Weights) and not y.positive:
        raise context.not_covered(
            node, f"division by {describe(y)}", "a positive function of it, such as abs(X) + eps",
            instead.damped,
        )  # fmt: skip
    _need_one_source(context, node, x, y)
    whole_x, whole_y = _whole(context, x), _whole(context, y)
    if whole_x.is_zero or (whole_y.is_zero and not invert):
        zero = times(y if whole_x.is_zero else x, Scale.zero(Size.SCALAR))
        return zero, Step(ENTRYWISE, str(node), zero.main, "of zero", steps, node=node)
    if whole_y.is_zero:
        raise context.not_covered(
            node, "a division by exactly zero", "a damping or eps", instead.damped
        )
    factor = whole_y**-1 if invert else whole_y
    sign = S.NegativeOne if invert else S.One
    one, other = (v.aligned if isinstance(v, Weights) else v for v in (x, y))
    mean: Aligned | None = None
    if one is not None and other is not None:
        found, _ = entrywise.product(context, node, one, other, steps, invert)
        assert isinstance(found, Aligned), "a product of matrices"
        mean = found
    parts = [v.entry / _whole(context, v) if isinstance(v, Weights) else None for v in (x, y)]
    beside = Scale.zero(Size.ENTRY)
    for part in parts:
        if part is not None:
            beside = context.plus(beside, whole_x * factor * part)
    vanishing = _vanishing(x) + sign * _vanishing(y)
    if not context.exceeds(vanishing, -HALF):
        raise context.not_covered(
            node, f"entries that blow up like |x|^({vanishing}) where a weight x is small, so that "
            "a few of them set the size", "a damping or eps", instead.damped,
        )  # fmt: skip
    multiple = NOTHING
    odd = x if not _is_positive(x) else y
    if isinstance(odd, Weights) and not odd.positive:
        met = factor if odd is x else whole_x
        multiple = odd.multiple * met.as_size_of(Size.SCALAR)
    value = Weights(
        beside, (x if isinstance(x, Weights) else y).transposed, multiple, mean,
        parity=_parity(x).times(_parity(y)), positive=_is_positive(x) and _is_positive(y),
        vanishing=vanishing, source=_source(x) or _source(y),
    )  # fmt: skip
    size = context.plus(mean.entry, beside) if mean is not None else beside
    numbers = f"{whole_x} {'/' if invert else 'x'} {whole_y}"
    return value, Step(ENTRYWISE, str(node), size, numbers, steps, node=node)


def masked_by(node: Multiply) -> Node | None:
    """The X of agree(X, W)*W."""
    for mask, other in ((node.left, node.right), (node.right, node.left)):
        match mask:
            case Call("agree", x, Node() as y) if other == W and W in (x, y) and x != y:
                return y if x == W else x
    return None


def masked(
    context: Context, node: Multiply, x: Node, read: Callable[[Context, Node], Reading]
) -> Reading:
    """agree(X, W)*W, the weights that have the sign of X."""
    both = Multiply(Call("sign", x), Call("abs", W))
    value, step = read(context, both)
    weights, _ = read(context, W)
    if not isinstance(value, Weights) or not isinstance(weights, Weights):
        return value, replace(step, subject=str(node), node=node)
    whole = replace(value, multiple=weights.multiple, parity=Parity.MIXED)
    numbers = f"half of W and half of {both}"
    return whole, Step(ENTRYWISE, str(node), step.result, numbers, (step,), node=node)


def mean(context: Context, node: Call, value: Weights, step: Step) -> Reading:
    """The mean of rows, of columns or of all entries, of numbers of one sign."""
    if not value.positive or value.aligned is None:
        subject = "the mean" if node.shape.is_scalar else "means"
        raise context.not_covered(
            node, f"{subject} of {describe(value)}", f"{node.function}(abs(X)) or that of X*X",
            instead.positive,
        )  # fmt: skip
    _need_independent(context, node, value)
    if node.shape.is_scalar:
        size = value.aligned.entry.as_size_of(Size.SCALAR)
        return Scalar(size), Step(LLN, str(node), size, "all of one sign", (step,), node=node)
    over_fan_in = (node.shape.cols is Dim.ONE) is not value.transposed
    side, across = (Dim.FAN_OUT, Dim.FAN_IN) if over_fan_in else (Dim.FAN_IN, Dim.FAN_OUT)
    kept = value.aligned.left if over_fan_in else value.aligned.right
    many = context.fan(across).width != 0
    # means over many are alike; those over few scatter as single entries do, and may vanish as they
    spread = (value.entry / value.aligned.entry).as_size_of(Size.SCALAR)
    spread = spread * context.fan(across) ** -HALF
    more = S.Zero if many else value.vanishing
    vector = Vector(
        value.aligned.entry, side, replace(kept, vanishing=kept.vanishing + more),
        node.shape.rows is Dim.ONE, Parity.EVEN, True, value.aligned.monomial,
        value.aligned.mixes or not many,
        value.aligned.steps, context.plus(spread, _off(context, value.aligned, over_fan_in)),
    )  # fmt: skip
    return vector, Step(LLN, str(node), vector.entry, "all of one sign", (step,), node=node)


def _off(context: Context, value: Aligned, left: bool) -> Scale:
    return value.portions.at(0 if left else 1, OFF, context.bounds)


def _need_one_source(context: Context, node: Node, x: Value, y: Value) -> None:
    """Refuse W times what changes sign with delta, and quotients of two different sums.

    W h is u, the input of the activation, by parts: with a positive factor its product with delta
    has the random sign of delta, and with delta it would follow the gradient.
    """
    for one, other in ((x, y), (y, x)):
        if not isinstance(one, Weights) or one.positive or one.multiple.is_zero:
            continue  # what stands beside its mean does not change sign with W
        if isinstance(other, Aligned):
            alike = other.positive
        else:
            assert isinstance(other, Weights)
            alike = other.positive and (other.source == one.source or _is_of_weights_alone(other))
        if not alike:
            raise _refused(context, node, x, y)


def _is_of_weights_alone(value: Weights) -> bool:
    assert value.source is not None, "functions of W name what they are of"
    return all(x.name == "W" for x in value.source.walk() if isinstance(x, Matrix))


def _refused(context: Context, node: Node, x: Value, y: Value) -> NotCovered:
    return context.not_covered(
        node, f"entries of {describe(x)} times {describe(y)}", "functions of G entry by entry",
        instead.apart,
    )  # fmt: skip


def _need_independent(context: Context, node: Node, value: Weights) -> None:
    if not value.independent:
        raise context.not_covered(
            node, "entries of a polar factor of the weights", "its norm, or it as it is",
            instead.apart,
        )  # fmt: skip


def _whole(context: Context, value: Value) -> Scale:
    if isinstance(value, Weights) and value.aligned is not None:
        return context.plus(value.aligned.entry, value.entry)
    return value.main


def _is_positive(value: Value) -> bool:
    return isinstance(value, Weights | Aligned) and value.positive


def _parity(value: Value) -> Parity:
    return value.parity if isinstance(value, Weights) else value.left.parity  # type: ignore[union-attr]


def _vanishing(value: Value) -> Expr:
    return value.vanishing if isinstance(value, Weights) else S.Zero


def _source(value: Value) -> Node | None:
    return value.source if isinstance(value, Weights) else None
