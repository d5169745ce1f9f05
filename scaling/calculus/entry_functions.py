"""The rule of inference for functions of single entries: sign, abs, sqrt, clip, atan, ..

All that is asked of a function f is in its row (scaling/rules/operators.py): |f(x)| ~ |x|^p as x
goes to 0 and ~ |x|^q as x grows, and its symmetry. With X ~ the size of an entry, and f turning at
T = 1 or at the second operand, f(x, T) = T f(x/T):

    p = q              X^p
    X below T          T^(1-p) X^p        f(x) = x there, as of clip: X itself, whatever it is
                                          f(x) ~ x, as of atan: X, but of no exact rank
    X ~ T              T
    X beyond T         T^(1-q) X^q

An odd function keeps the parities of X in delta and in h, an even one makes them even, and one of
positive numbers, as sqrt, refuses entries of both signs. Where an entry x of a factor goes to 0, X
goes to 0 like |x|^v, and f(X) like |x|^(pv), or |x|^(qv) if X grows there, whatever its typical
size is: a bound that is reached leaves the zeros where they are.

Which of both holds is kept as a regime; a bound that is above or below the entries depending on
symbols is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction

from sympy import Expr, Rational, S

from scaling.calculus import entrywise, instead, rotation, sums, weight_entries
from scaling.calculus.context import Context
from scaling.calculus.entrywise import Reading
from scaling.calculus.values import (
    Aligned,
    Behaviour,
    Noisy,
    Parity,
    Rotated,
    Scalar,
    Value,
    Vector,
    Weights,
    describe,
)
from scaling.rules.operators import OfEntries, Symmetry
from scaling.rules.scalings import is_gradient
from scaling.rules.tree import Call, Number
from scaling.sizes.derivation import ENTRYWISE, PRODUCT, Step
from scaling.sizes.errors import NotCovered
from scaling.sizes.scale import Order, Scale, Size

ONE = Number(Fraction(1))


def function(context: Context, node: Call, f: OfEntries, operands: Sequence[Reading]) -> Reading:
    """f(X), or f(X, bound)."""
    value, step = operands[0]
    if f.power is not None:
        return _power(context, node, f, value, step)
    limit = ONE if node.option is None else node.option
    bound = operands[1][0] if len(operands) > 1 else Scalar(Scale.one(Size.SCALAR))
    steps = tuple(step for _, step in operands)
    if not isinstance(bound, Scalar) or not bound.positive:
        raise context.not_covered(
            node, "a bound that is no positive scalar", "a positive one", instead.positive
        )
    if isinstance(value, Noisy):
        raise _no_entries(context, node, value)
    if isinstance(value, Rotated):
        rotation.need_nothing_outside(context, node, value)
    if value.main.is_zero:
        return value, Step(ENTRYWISE, str(node), value.main, "of zero", steps, node=node)
    regime = context.decide(node, node.argument, limit, value.main, bound.size)
    if regime.order is Order.EQUAL:
        value, balanced = sums.balanced(context, value, bound)
        assert isinstance(balanced, Scalar), "a balance is of one kind"
        bound = balanced
    result, line = _turning(context, node, f, regime.order, value, bound.size, steps)
    return result, replace(line, decision=regime)


def _power(context: Context, node: Call, f: OfEntries, value: Value, step: Step) -> Reading:
    """|x|^p and its signs: no size is singled out."""
    p = _exponent(f.at_zero)
    if isinstance(value, Scalar):
        if f.symmetry is Symmetry.NONE and not value.positive:
            raise context.not_covered(
                node, "the root of a difference", "a positive scalar", instead.positive
            )
        size = value.size if value.size.is_zero else value.size**p
        scalar = Scalar(size, value.positive or f.symmetry is Symmetry.EVEN)
        return scalar, Step(PRODUCT, str(node), size, "", (step,), node=node)

    def act(context: Context, x: Value) -> Reading:
        x = weight_entries.plain(x)
        if isinstance(x, Weights):
            return _of_weights(context, node, f, x, lambda s: s**p, (step,))
        if not isinstance(x, Aligned | Vector):
            raise _no_entries(context, node, x)
        entry = x.entry if x.entry.is_zero else x.entry**p
        numbers = f"{node.function} of {x.entry}"
        found, line = _entries(context, node, f, x, entry, numbers, (step,))
        jumps = p == 0 and f.symmetry is Symmetry.ODD and is_gradient(node.argument)
        return replace(found, jumps=True) if jumps and isinstance(found, Aligned) else found, line

    if isinstance(value, Rotated):
        return rotation.function(context, node, value, act, p)
    return act(context, value)


def _of_weights(
    context: Context, node: Call, f: OfEntries, value: Weights, size: Callable[[Scale], Scale],
    steps: tuple[Step, ...],
) -> Reading:  # fmt: skip
    if f.symmetry is Symmetry.NONE and not value.positive:
        raise _no_entries(context, node, value)
    small, even = _exponent(f.at_zero), f.symmetry is Symmetry.EVEN
    return weight_entries.function(context, node, value, small, size, even, steps)


def _no_entries(context: Context, node: Call, value: Value) -> NotCovered:
    return context.not_covered(
        node, f"{node.function} of {describe(value)}", "a function of G", instead.apart
    )


def _turning(
    context: Context,
    node: Call,
    f: OfEntries,
    order: Order,
    value: Value,
    bound: Scale,
    steps: tuple[Step, ...],
) -> Reading:
    """A function that turns at the bound, of what is below it, at it or beyond it."""
    if order is Order.OPEN:
        raise context.not_covered(
            node,
            "a bound that is above or below the entries depending on symbols",
            "their values",
            instead.damped,
        )
    p = _exponent(f.at_zero if order is Order.LESS else f.at_infinity)
    numbers = {Order.LESS: "below", Order.EQUAL: "near", Order.GREATER: "at"}[order] + " the bound"
    if order is Order.LESS and f.straight:
        return value, Step(ENTRYWISE, str(node), value.main, numbers, steps, node=node)

    def size(x: Scale) -> Scale:
        limit = bound.as_size_of(x.of)
        return limit if order is Order.EQUAL else limit ** (1 - p) * x**p

    def act(context: Context, x: Value) -> Reading:
        x = weight_entries.plain(x)
        if isinstance(x, Weights):
            return _of_weights(context, node, f, x, size, steps)
        if not isinstance(x, Aligned | Vector):
            raise _no_entries(context, node, x)
        if order is Order.LESS and p == 1 and f.symmetry is Symmetry.ODD:
            line = Step(ENTRYWISE, str(node), x.entry, numbers, steps, node=node)
            share = (x.entry / bound.as_size_of(x.entry.of)) ** 2  # x - x^3/3, as of atan
            return entrywise.nearly_linear(context, x, share), line
        return _entries(context, node, f, x, size(x.entry), numbers, steps)

    match value:
        case Scalar():
            if f.symmetry is Symmetry.NONE and not value.positive:
                raise context.not_covered(
                    node, "a root of a difference", "a positive scalar", instead.positive
                )
            positive = value.positive or f.symmetry is not Symmetry.ODD
            scalar = Scalar(size(value.size), positive)
            return scalar, Step(ENTRYWISE, str(node), scalar.size, numbers, steps, node=node)
        case Rotated():
            return rotation.function(context, node, value, act, S.One)
    return act(context, value)


def _entries(
    context: Context,
    node: Call,
    f: OfEntries,
    value: Aligned | Vector,
    entry: Scale,
    numbers: str,
    steps: tuple[Step, ...],
) -> Reading:
    def change(old: Behaviour) -> Behaviour:
        parity = old.parity
        if parity is Parity.ODD and f.symmetry is Symmetry.NONE:
            raise context.not_covered(
                node,
                f"{node.function} of entries that take both signs",
                f"{node.function}(abs(X)) or {node.function}(X*X)",
                instead.positive,
            )
        if parity is Parity.ODD and f.symmetry is Symmetry.EVEN:
            parity = Parity.EVEN
        return Behaviour(parity, _vanishing(context, node, f, old.vanishing), old.centred)

    positive = value.positive or f.symmetry is not Symmetry.ODD
    result = entrywise.changed(context, node, value, entry, change, numbers, steps, positive)
    if f.symmetry is Symmetry.NONE:
        entrywise.need_positive(context, node, value)
    return result


def _vanishing(context: Context, node: Call, f: OfEntries, v: Expr) -> Expr:
    """How f(X) goes to 0 where X does so like |x|^v, or grows."""
    low, high = context.bounds.range(v)
    if f.power is None and not (low.is_nonnegative or high.is_nonpositive):
        raise context.not_covered(
            node,
            f"{node.function} of entries like |x|^({v}) where an entry x of h or delta is small, "
            "which vanish or blow up there depending on symbols",
            "values of the symbols in powers",
            instead.damped,
        )
    return v * _exponent(f.at_zero if low.is_nonnegative else f.at_infinity)


def _exponent(p: Fraction) -> Expr:
    return Rational(p.numerator, p.denominator)
