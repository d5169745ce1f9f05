"""The order calculus: read a rule as sizes instead of numbers. Sound or silent.

`read(context, node)` returns what is known of a node (values.py) together with the derivation
step that says why. What no rule of inference covers raises `NotCovered` naming the node. The
numeric twin that reads the same tree is empirical/numbers.py.

Why a few numbers suffice. With n = Theta(1) samples G = D H^T / n, and every matrix that a rule
builds from A, B, L, R acts on the spans of D and H only through n x n matrices whose entries are
all of one order. So a spectral function is one number on the span and one off it (spectral.py),
an entrywise function of G is the size of an entry and its parity (entrywise.py), and a sum is its
larger term (sums.py). The sizes of h, delta and W come from the ledger.

>>> from scaling.ledger import Setting, ledger
>>> from scaling.language import G, orth, sign
>>> books = ledger(
...     Setting(),
...     {"input": S.Zero, "hidden": S.Zero, "output": S.Zero},
...     {"input": S.Zero, "hidden": HALF, "output": S.One},
... )
>>> hidden = Context(books.sizes["hidden"], scaled={})
>>> for rule in (G, sign(G), orth(G)):
...     value, step = read(hidden, rule)
...     print(f"{rule}: entry {value.entry}, gain {value.gain}")
G: entry M^(-1), gain 1
sign(G): entry 1, gain M^(1)
orth(G): entry M^(-1), gain 1
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial

from sympy import Expr, Rational, S

from scaling import averages, entrywise, rotation, samples, spectral, sums, uphill
from scaling import common as common_parts
from scaling.context import Context
from scaling.cuts import inward
from scaling.derivation import (
    ALIGNED_UPDATE,
    CLT,
    ENTRYWISE,
    GIVEN,
    GRAM,
    LLN,
    NORMS,
    PRODUCT,
    SUM,
    Step,
)
from scaling.entrywise import Reading
from scaling.errors import RuleError
from scaling.inner import inner
from scaling.network import over_layers
from scaling.rule import evaluate_power
from scaling.scale import HALF, Order, Scale, Size
from scaling.shapes import Dim
from scaling.tree import (
    Add,
    Call,
    Divide,
    MatMul,
    Matrix,
    Multiply,
    Negate,
    Node,
    Number,
    Power,
    Subtract,
    Symbol,
    Transpose,
)
from scaling.values import (
    Aligned,
    Behaviour,
    Gaussian,
    Mixture,
    Parity,
    Rotated,
    Rotation,
    Scalar,
    Spectral,
    Value,
    Vector,
    describe,
    times,
)


def read(context: Context, node: Node) -> Reading:
    """What is known of a node, and the step that says why."""
    value, step = _read(context, node)
    return value, step if step.time == context.step else replace(step, time=context.step)


def _read(context: Context, node: Node) -> Reading:
    match node:
        case Matrix():
            return _matrix(context, node)
        case Number(number):
            size = Scale.zero(Size.SCALAR) if number == 0 else Scale.one(Size.SCALAR)
            return Scalar(size), Step(GIVEN, str(node), size, node=node)
        case Symbol():
            return _symbol(context, node)
        case Negate(operand):
            value, step = read(context, operand)
            if isinstance(value, Scalar | Aligned | Vector):
                value = replace(value, positive=False)
            elif isinstance(value, Rotated):
                value = _signed(value, False)
            return value, step
        case Transpose(operand):
            value, step = read(context, operand)
            return _transposed(value), step
        case Add() | Subtract():
            return _sum(context, node)
        case Multiply() | Divide():
            return _entrywise(context, node)
        case MatMul():
            return _matmul(context, node)
        case Power(base, power):
            return _power(context, node, base, evaluate_power(power, _rational, context.exponent))
        case Call():
            return _call(context, node)
    raise context.not_covered(node, "an unknown kind of node", "a node of the rule language")


NOTHING = Scale.zero(Size.SCALAR)


@dataclass(frozen=True)
class Update:
    """What one step does to a layer's output, per unit of learning rate.

    ``coherent``: entry size of the part of dW h that follows the gradient; ``random``: of the part
    in random directions (a multiple of W, ``common`` to all outputs). Only the first adds up in
    the layers above. ``entry``: the typical entry of dW itself, ``value`` all that is known of it.
    ``multiple``: the size of that multiple of W; zero if there is none.
    """

    coherent: Scale
    random: Scale
    step: Step
    entry: Scale
    multiple: Scale = NOTHING
    value: Value | None = None
    common: Scale | None = None

    def times(self, rate: Scale) -> Update:
        """What the step does at a learning rate of that size."""
        return replace(
            self,
            coherent=self.coherent * rate,
            random=self.random * rate,
            entry=self.entry * rate,
            multiple=self.multiple * rate,
            value=None if self.value is None else times(self.value, rate),
            common=None if self.common is None else self.common * rate,
        )


def read_update(context: Context, node: Node) -> Update:
    """The sizes of dW h for an update dW = node, with learning rate 1.

    Raises:
        NotCovered: for an update that is even in the gradient (it has no descent direction).
    """
    value, step = read(context, node)
    sizes = context.sizes
    signal = value.aligned if isinstance(value, Mixture) else value
    noise = value.gaussian if isinstance(value, Mixture) else value
    coherent = entry = Scale.zero(Size.ENTRY)
    multiple = NOTHING
    numbers = []
    inference = ALIGNED_UPDATE
    common = None
    if isinstance(signal, Aligned) and signal.left.parity is Parity.MIXED:
        signal, common = common_parts.apart(context, node, signal, read)
    if isinstance(signal, Aligned):
        if signal.left.parity is not Parity.ODD and not signal.entry.is_zero:
            raise context.not_covered(
                node,
                f"an update that is {signal.left.parity} in the gradient",
                "an odd one: it must change sign with G to descend",
            )
        entrywise.check_tails(context, node, signal)
        stretch = (context.fan(Dim.FAN_IN) / context.fan(Dim.FAN_OUT)) ** HALF
        coherent = signal.gain.as_size_of(Size.SCALAR) * sizes.h * stretch
        entry = signal.entry
        numbers.append(f"gain {signal.gain} x |h| {sizes.h} x sqrt(fan_in/fan_out) {stretch}")
        if context.alignment is not None:  # fan_in^1 is what the gain and the stretch amount to
            assumed = context.fan(Dim.FAN_IN) ** (context.alignment.of_update - 1)
            coherent = coherent * assumed
            numbers.append(f"fan_in^(alignment - 1) {assumed}")
        if not signal.low_rank:
            inference = LLN
    random = common or Scale.zero(Size.ENTRY)
    if common is not None:
        numbers.append(f"what is common to all outputs {common}")
    if isinstance(noise, Gaussian):
        random = context.plus(random, noise.entry * sizes.h * context.fan(Dim.FAN_IN) ** HALF)
        entry = context.plus(entry, noise.entry)
        multiple = noise.multiple
        numbers.append(f"std {noise.entry} x |h| {sizes.h} x sqrt(fan_in)")
        inference = CLT if signal is noise else inference
    if not isinstance(value, Aligned | Gaussian | Mixture):
        raise context.not_covered(node, f"{describe(value)} as an update", "a function of G")
    total = context.plus(coherent, random)
    line = Step(inference, "dW h per learning rate", total, " + ".join(numbers), (step,))
    if context.alignment is not None:
        line = line.because(context.alignment.assumption)
    line = replace(line, time=context.step)
    return Update(coherent, random, line, entry, multiple, value, common)


# --- leaves -------------------------------------------------------------------------------------


def _symbol(context: Context, node: Symbol) -> Reading:
    if node.is_fan:
        size = context.fan(Dim(node.name))
    elif node.kind.is_scaled:
        size = Scale.of_width(-context.scaled[node.name], Size.SCALAR)
    else:
        size = Scale.one(Size.SCALAR)
    return Scalar(size), Step(GIVEN, str(node), size, node=node)


def _matrix(context: Context, node: Matrix) -> Reading:
    sizes, nothing, one = context.sizes, Scale.zero(Size.SPECTRAL), Scale.one(Size.SPECTRAL)
    h, delta, spread = sizes.h, sizes.delta, context.spread
    entry = delta * h
    gain = (entry * spread).as_size_of(Size.SPECTRAL)
    numbers = f"sqrt(fan_out fan_in) {spread} x |delta| {delta} x |h| {h}"
    gradient = Step(GRAM, "G", gain, numbers, (sizes.h_step, sizes.delta_step), node=node)
    match node.name:
        case "I":
            return Spectral(Dim.ANY, one, one), Step(GIVEN, "I", one, node=node)
        case "W":
            return averages.weights_now(context, node)
        case "G":
            return Aligned(gain, entry), gradient
        case "A":
            return _second_moment(context, node, Dim.FAN_IN, "h", h, sizes.h_step)
        case "B":
            return _second_moment(context, node, Dim.FAN_OUT, "delta", delta, sizes.delta_step)
    side, text = (Dim.FAN_OUT, "G G^T") if node.name == "L" else (Dim.FAN_IN, "G^T G")
    size = gain**2
    value = Spectral(side, size, nothing)
    premise = replace(gradient, node=None, time=context.step)
    return value, Step(GRAM, node.name, size, f"{text}: ({gain})^2", (premise,), node=node)


def _second_moment(
    context: Context, node: Matrix, side: Dim, factor: str, entry: Scale, premise: Step
) -> Reading:
    fan = context.fan(side)
    size = (fan * entry**2).as_size_of(Size.SPECTRAL)
    contains_data = node.name == "A" or not context.sampled_fisher
    value = Spectral(side, size, Scale.zero(Size.SPECTRAL), contains_data)
    numbers = f"{side} {fan} x |{factor}|^2 {entry**2}"
    return value, Step(GRAM, node.name, size, numbers, (premise,), node=node)


# --- operators ----------------------------------------------------------------------------------


def _transposed(value: Value) -> Value:
    match value:
        case Aligned() | Gaussian():
            return replace(value, transposed=not value.transposed)
        case Mixture(aligned, gaussian):
            flip = not aligned.transposed
            return Mixture(replace(aligned, transposed=flip), replace(gaussian, transposed=flip))
        case Vector():
            return replace(value, is_row=not value.is_row)
        case Rotation():
            return replace(value, transposed=not value.transposed)
        case Rotated(inner):
            return replace(value, inner=replace(inner, transposed=not inner.transposed))
    return value


def _sum(context: Context, node: Node) -> Reading:
    terms = sums.collect(node, averages.simplification(context))
    averages.refuse_unless_moved(context, node)
    uphill.refuse_difference(context, node)
    if not terms:
        like = next((c for c in node.children if c.shape == node.shape), node.children[0])
        value, step = read(context, like)
        zero = times(value, Scale.zero(Size.SCALAR))
        return zero, Step(SUM, str(node), zero.main, "the terms cancel exactly", (step,), node=node)
    square = node.shape.is_square
    if square and len({isinstance(term, Negate) for term in terms}) > 1:
        raise context.not_covered(
            node, "a difference of square matrices, whose eigenvalues may cancel", "a sum"
        )
    total, so_far = read(context, terms[0]), terms[0]
    for term in terms[1:]:
        other = read(context, term)
        rotated = any(isinstance(value, Rotated) for value, _ in (total, other))
        add = rotation.add if rotated else sums.add
        total = add(context, node, so_far, term, total, other)
        so_far = Add(so_far, term)
    value, step = total
    if so_far.shape != node.shape:  # what cancelled had a shape that the rest lacks
        raise context.not_covered(
            node, "a sum whose matrices cancel", "the sum written without them"
        )
    return value, replace(step, subject=str(node), node=node)


def _entrywise(context: Context, node: Multiply | Divide) -> Reading:
    invert = isinstance(node, Divide)
    x, step_x = read(context, node.left)
    y, step_y = read(context, node.right)
    steps = (step_x, step_y)
    if isinstance(y, Rotated) and (invert or not isinstance(x, Scalar)):
        return rotation.product(context, node, (x, step_x), (y, step_y))
    if isinstance(y, Scalar):
        factor = entrywise.reciprocal(context, node, y, x) if invert else y
        value = _signed(times(x, factor.main), y.positive)
    elif isinstance(x, Scalar):
        other = entrywise.reciprocal(context, node, y, x) if invert else y
        value = _signed(times(other, x.size), x.positive)
    else:
        return entrywise.product(context, node, x, y, steps, invert)
    numbers = f"{x.main} {'/' if invert else 'x'} {y.main}"
    return value, Step(PRODUCT, str(node), value.main, numbers, steps, node=node)


def _signed(value: Value, positive: bool) -> Value:
    """A value times a scalar: it stays positive if the scalar is."""
    if isinstance(value, Scalar | Aligned | Vector):
        return replace(value, positive=value.positive and positive)
    if isinstance(value, Rotated):
        inner = replace(value.inner, positive=value.inner.positive and positive)
        off = replace(value.off, positive=value.off.positive and positive)
        return replace(value, inner=inner, off=off)
    return value


def _power(context: Context, node: Power, base: Node, p: Expr) -> Reading:
    value, step = read(context, base)
    if not p.is_Symbol and p.has(S.ComplexInfinity, S.NaN, S.Infinity, S.NegativeInfinity):
        raise RuleError(f"the power of {node}, which is {p}", "a finite number", "fix it")
    match value:
        case Scalar(size, positive):
            if not (positive or p.is_Integer) or (p.is_negative and not positive):
                raise context.not_covered(
                    node, "a root or an inverse of a difference", "a sum of positive terms"
                )
            result = size**p
            return Scalar(result), Step(PRODUCT, str(node), result, f"({size})^({p})", (step,))
        case Spectral():
            return spectral.power(context, node, value, p, step)
        case Aligned() | Vector():
            return entrywise.power(context, node, value, p, step)
        case Rotated():
            return rotation.function(
                context, node, value, lambda c, x: entrywise.power(c, node, x, p, step), p
            )
    raise context.not_covered(node, f"a power of {describe(value)}", "a function of G")


def _matmul(context: Context, node: MatMul) -> Reading:
    x, step_x = read(context, node.left)
    y, step_y = read(context, node.right)
    steps = (step_x, step_y)
    if isinstance(x, Rotation) or isinstance(y, Rotation):
        return rotation.rotate(context, node, x, y, steps)
    match x, y:
        case Spectral(), Spectral():
            return spectral.product(context, node, x, y, steps)
        case Spectral(), Aligned():
            return spectral.push_through(context, node, x, y, steps)
        case Aligned(), Spectral():
            return spectral.push_through(context, node, y, x, steps)
        case Aligned(), Aligned() if x.transposed is not y.transposed:
            return spectral.gram_product(context, node, x, y, steps)
        case Vector(), Vector() if not x.is_row and y.is_row and x.side is not y.side:
            left, right = (x, y) if x.side is Dim.FAN_OUT else (y, x)
            first = left.behaviour
            if right.averaged is not Parity.EVEN:  # a mean over delta changes sign with G too
                first = Behaviour(Parity.MIXED, first.vanishing)
            outer = entrywise.coherent(
                context,
                x.entry * y.entry,
                first,
                right.behaviour,
                x.side is not Dim.FAN_OUT,
                x.positive and y.positive,
                x.monomial and y.monomial,
                x.mixes or y.mixes,
                max(x.steps, y.steps),
            )
            outer = replace(outer, low_rank=True)
            return outer, Step(PRODUCT, str(node), outer.entry, "outer product", steps, node=node)
        case Vector(), Vector() if (
            x.is_row
            and not y.is_row
            and (
                spectral.is_square_of_one(node)
                or x.behaviour.parity is y.behaviour.parity is Parity.EVEN
            )
        ):
            size = (x.entry * y.entry * context.fan(x.side)).as_size_of(Size.SCALAR)
            return Scalar(size), Step(LLN, str(node), size, "inner product", steps, node=node)
    for one, other in ((x, y), (y, x)):
        if isinstance(one, Spectral) and one.side is Dim.ANY:
            value = times(other, one.on_span.as_size_of(Size.SCALAR))
            return value, Step(PRODUCT, str(node), value.main, "", steps, node=node)
    raise context.not_covered(
        node,
        f"{describe(x)} @ {describe(y)}",
        "square matrices of A, B, L, R around a function of G (keep W outside of them)",
    )


def _call(context: Context, node: Call) -> Reading:
    if node.function in ("diag", "block") and (moved := inward(node)) != node:
        value, step = read(context, moved)
        return value, replace(step, subject=str(node), node=node)
    value, step = read(context, node.argument)
    match node.function:
        case "ema" | "debiased" if context.before is not None:
            first = read(context.before.context, node.argument)
            return averages.average(context, node, first, (value, step))
        case "ema" | "debiased":
            if isinstance(value, Rotated):
                rotation.average(context, node, value)
            return averages.first_average(node, (value, step))
        case "max":
            return _max(context, node, value, step)
        case "clip" | "atan":
            return _bounded(context, node, value, step)
        case "sign" | "abs" | "sqrt" if isinstance(value, Scalar):
            p = {"sign": S.Zero, "abs": S.One, "sqrt": HALF}[node.function]
            if node.function == "sqrt" and not value.positive:
                raise context.not_covered(node, "the root of a difference", "a positive scalar")
            size = value.size if value.size.is_zero else value.size**p
            return Scalar(size), Step(PRODUCT, str(node), size, "", (step,), node=node)
        case "sign" | "abs" | "sqrt" if isinstance(value, Rotated):
            power = {"sign": S.Zero, "abs": S.One, "sqrt": HALF}[node.function]
            return rotation.function(
                context, node, value, lambda c, x: entrywise.function(c, node, x, step), power
            )
        case "ascended":
            return uphill.gradient(context, node, step, read)
        case "eig":
            return rotation.eigenbasis(context, node, value, step)
        case "sample_square":
            return samples.sample_square(context, node, value, step)
        case "sign" | "abs" | "sqrt":
            return entrywise.function(context, node, value, step)
        case "row_mean" | "col_mean":
            uphill.refuse_mean(context, node, value)
            return entrywise.mean(context, node, value, step)
        case "orth":
            return spectral.orth(context, node, value, step)
        case "newton_schulz":
            return spectral.newton_schulz(context, node, value, step)
        case "inner":
            assert node.option is not None, "an inner product has two operands"
            second = read(context, node.option)
            return inner(context, node, (value, step), second, partial(_is_positive, context))
        case "over_layers":
            return over_layers(context, node, (value, step), read)
        case "diag" | "block":
            return spectral.blocks(context, node, value, step)
    norm = rotation.norm if isinstance(value, Rotated) else spectral.norm
    size = norm(context, node, value)  # type: ignore[arg-type]
    line = Step(NORMS, str(node), size, "", (step,), node=node)
    if node.function == "specnorm" and isinstance(value, Spectral) and value.blocks:
        line = line.because(f"{node}, the largest of many numbers, up to logarithms of the width")
    return Scalar(size), line


def _is_positive(context: Context, node: Node) -> bool:
    value, _ = read(context.alone(), node)
    return isinstance(value, Scalar) and value.positive


def _max(context: Context, node: Call, x: Value, step: Step) -> Reading:
    """The larger of two scalars sets the size, as in a sum."""
    assert node.option is not None, "max has two operands"
    y, other = read(context, node.option)
    if not isinstance(x, Scalar) or not isinstance(y, Scalar):
        raise context.not_covered(node, "max of matrices", "scalars")
    context.decide(node, node.argument, node.option, x.size, y.size)
    larger = Scalar(context.plus(x.size, y.size), x.positive or y.positive)
    return larger, Step(SUM, str(node), larger.size, "the larger", (step, other), node=node)


def _bounded(context: Context, node: Call, value: Value, step: Step) -> Reading:
    """Entries cut off at a bound, smoothly (atan, at a number of order one) or not (clip)."""
    limit: Node = Number(Fraction(1)) if node.option is None else node.option
    bound, other = read(context, limit)
    if not isinstance(bound, Scalar) or not bound.positive:
        raise context.not_covered(node, "a bound that is no positive scalar", "a positive one")
    steps = (step,) if node.option is None else (step, other)
    if isinstance(value, Rotated):
        rotation.need_nothing_outside(context, node, value)
    if value.main.is_zero:
        return value, Step(ENTRYWISE, str(node), value.main, "of zero", steps, node=node)
    order = context.decide(node, node.argument, limit, value.main, bound.size)
    if order is Order.OPEN:
        raise context.not_covered(
            node, "a bound that is above or below the entries depending on symbols", "their values"
        )
    if order is Order.LESS:
        return value, Step(ENTRYWISE, str(node), value.main, "below the bound", steps, node=node)
    if isinstance(value, Scalar):
        return bound, Step(ENTRYWISE, str(node), bound.size, "at the bound", steps, node=node)
    near = order is Order.EQUAL
    if isinstance(value, Rotated):
        return rotation.function(
            context, node, value,
            lambda c, x: entrywise.bounded(c, node, x, bound.size, near, steps), S.One,
        )  # fmt: skip
    return entrywise.bounded(context, node, value, bound.size, near, steps)


def _rational(value: Fraction) -> Expr:
    return Rational(value.numerator, value.denominator)
