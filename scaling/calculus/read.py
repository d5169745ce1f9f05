"""The order calculus: read a rule as sizes instead of numbers. Sound or silent.

`read(context, node)` returns what is known of a node (values.py) together with the derivation
step that says why. What no rule of inference covers raises `NotCovered` naming the node. The
numeric twin that reads the same tree is empirical/numbers/interpreter.py.

Why a few numbers suffice. With n = Theta(1) samples G = D H^T / n, and every matrix that a rule
builds from A, B, L, R acts on the spans of D and H only through n x n matrices whose entries are
all of one order. So a spectral function is one number on the span and one off it, an entrywise
function of G is the size of an entry and its parity, and a sum is its larger term. The sizes of h,
delta and W are those of a state of the network (scaling/states).

This file is the whole recursion. It reads the operands and hands them to a rule of inference:

    G A B L R W I, symbols, numbers                                      leaves.py
    X + Y, X - Y                                                         sums.py
    X * Y, X / Y, X**p of entries                                        entrywise.py
    the same of scalars                                                  scalars.py
    X @ Y, X**p of square matrices                                       spectra.py
    X @ Y of row and column means                                        means.py
    eig(X) @ Y, and what is done in eigenbases                           rotation.py
    functions, by what their rows say of them                            calls.py

`read_update` goes on from what is known of dW to what a step does, dW h (output_change.py).

>>> from scaling.states.problem import Problem
>>> from scaling.states.start import at_start
>>> from scaling.rules.language import G, orth, sign
>>> from scaling.rules.rule import Rule
>>> start = at_start(
...     Problem(Rule(G)),
...     {"input": S.Zero, "hidden": S.Zero, "output": S.Zero},
...     {"input": S.Zero, "hidden": S.Half, "output": S.One},
... )
>>> hidden = Context(start.sizes["hidden"], scaled={})
>>> for rule in (G, sign(G), orth(G)):
...     value, step = read(hidden, rule)
...     print(f"{rule}: entry {value.entry}, gain {value.gain}")
G: entry M^(-1), gain 1
sign(G): entry 1, gain M^(1)
orth(G): entry M^(-1), gain 1
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from functools import reduce

from sympy import Expr, Rational, S

from scaling.calculus import (
    averages,
    cancellation,
    centred,
    entrywise,
    extremes,
    instead,
    leaves,
    means,
    moved_weights,
    output_change,
    rotation,
    scalars,
    singular_values,
    spectra,
    sums,
    weight_entries,
)
from scaling.calculus.calls import call
from scaling.calculus.context import Context
from scaling.calculus.entrywise import Reading
from scaling.calculus.sums import may_be_negative
from scaling.calculus.values import (
    Aligned,
    Rotated,
    Rotation,
    Scalar,
    Spectral,
    Vector,
    Weights,
    describe,
    signed,
    times,
    transposed,
)
from scaling.rules.like_terms import collect
from scaling.rules.rule import evaluate_power
from scaling.rules.shapes import Dim
from scaling.rules.spellings import usual
from scaling.rules.tree import (
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
from scaling.sizes.derivation import GIVEN, PRODUCT, SUM, Step
from scaling.sizes.errors import RuleError
from scaling.sizes.scale import Scale, Size


def read(context: Context, node: Node) -> Reading:
    """The value of a node, and the step that says why.

    Raises:
        NotCovered: where no rule of inference applies, naming the node.
    """
    if node not in context.readings:
        context.readings[node] = _read_anew(context, node)
    return context.readings[node]


def _read_anew(context: Context, node: Node) -> Reading:
    spelled = usual(node)
    if spelled != node:
        value, step = read(context, spelled)
        return value, replace(step, subject=str(node), node=node)
    value, step = _read(context, node)
    return value, step if step.time == context.step else replace(step, time=context.step)


def read_update(context: Context, node: Node) -> output_change.OutputChange:
    """The sizes of dW h for an update dW = node, with learning rate 1.

    Raises:
        NotCovered: for an update that is even in the gradient (it has no descent direction).
    """
    found = output_change.effect(context, node, read)
    few = extremes.counts_few(found.step)
    if few is not None:
        least = output_change.effect(replace(context, counts_few=False), node, read)
        if (least.coherent, least.random) != (found.coherent, found.random):
            raise context.not_covered(
                few,
                f"the few entries of {few} that are not the smaller one's, which alone lead off "
                "the span of the data, or by how much is not known",
                "a bound of the size of the entries, X/(abs(X) + eps) in its place, or a damping "
                "as large as the eigenvalues that acts on it",
                instead.apart,
            )
    return found


def _read(context: Context, node: Node) -> Reading:
    match node:
        case Matrix():
            return leaves.matrix(context, node)
        case Number():
            return leaves.number(node)
        case Symbol():
            return leaves.symbol(context, node)
        case Negate(operand):
            value, step = read(context, operand)
            return signed(value, False), step
        case Transpose(operand):
            value, step = read(context, operand)
            return transposed(value), step
        case Add() | Subtract():
            return _sum(context, node)
        case Multiply() if (x := averages.own_sign(context, node, read)) is not None:
            value, step = read(context, x)
            return value, replace(step, subject=str(node), node=node)
        case Multiply() if (x := weight_entries.masked_by(node)) is not None:
            return weight_entries.masked(context, node, x, read)
        case Multiply() | Divide():
            return _entrywise(context, node)
        case MatMul():
            return _matmul(context, node)
        case Power(base, power):
            return _power(context, node, base, evaluate_power(power, _rational, context.exponent))
        case Call():
            return call(context, node, read)
    raise context.not_covered(
        node, "an unknown kind of node", "a node of the rule language", instead.apart
    )


# --- operators ----------------------------------------------------------------------------------


def _sum(context: Context, node: Node, written: bool = False) -> Reading:
    """A sum; ``written`` says that it is in canonical form."""
    terms = collect(node, averages.simplification(context))
    averages.refuse_unless_moved(context, node)
    moved_weights.refuse_difference(context, node)
    if not terms:
        like = next((c for c in node.children if c.shape == node.shape), node.children[0])
        value, step = read(context, like)
        zero = times(value, Scale.zero(Size.SCALAR))
        return zero, Step(SUM, str(node), zero.main, "the terms cancel exactly", (step,), node=node)
    if node.shape.is_scalar and cancellation.is_positive(context, node):
        size = Scale.one(Size.SCALAR)
        return Scalar(size), Step(GIVEN, str(node), size, "a number between 0 and 1", node=node)
    kept = singular_values.residual_of(node)
    if kept is not None and (left := singular_values.residual(context, node, kept, read)):
        return left
    square = node.shape.is_square
    if not written and len(terms) > 1 and any(map(may_be_negative, terms)):
        form = cancellation.canonical(context, node)
        if form is not None and form.terms is not None:
            return _canonical(context, node, form.terms, terms)
    if square and len({isinstance(term, Negate) for term in terms}) > 1:
        raise context.not_covered(
            node,
            "a difference of square matrices, whose eigenvalues may cancel",
            "a sum",
            instead.positive,
        )
    split = centred.whole(node, terms)
    if split is not None:
        x, mean = split
        found = centred.centred(context, node, mean, *read(context, x))
        if found is not None:
            return found
    total, so_far = read(context, terms[0]), terms[0]
    for term in terms[1:]:
        other = read(context, term)
        rotated = any(isinstance(value, Rotated) for value, _ in (total, other))
        add = rotation.add if rotated else sums.add
        value, step = add(context, node, so_far, term, total, other)
        so_far = Add(so_far, term)
        total = value, replace(step, node=so_far)  # a part of a longer sum is measured as that
    value, step = total
    if so_far.shape != node.shape:  # what cancelled had a shape that the rest lacks
        raise context.not_covered(
            node, "a sum whose matrices cancel", "the sum written without them", instead.positive
        )
    return value, replace(step, subject=str(node), node=node)


def _canonical(
    context: Context, node: Node, form: Sequence[Node], terms: Sequence[Node]
) -> Reading:
    """A sum in canonical form, whose value is that of the sum as it was written."""
    if not form:
        value, step = read(context, terms[0])
        zero = times(value, Scale.zero(Size.SCALAR))
        return zero, Step(SUM, str(node), zero.main, "the terms cancel exactly", (step,), node=node)
    whole = reduce(Add, form)
    value, step = _sum(context, whole, True) if len(form) > 1 else read(context, whole)
    line = Step(SUM, str(node), step.result, f"what is left: {whole}", (step,), node=node)
    return value, line


def _entrywise(context: Context, node: Multiply | Divide) -> Reading:
    invert = isinstance(node, Divide)
    x, step_x = read(context, node.left)
    y, step_y = read(context, node.right)
    x, y = weight_entries.plain(x), weight_entries.plain(y)
    steps = (step_x, step_y)
    if isinstance(y, Rotated) and (invert or not isinstance(x, Scalar)):
        return rotation.product(context, node, (x, step_x), (y, step_y))
    if isinstance(y, Scalar):
        factor = entrywise.reciprocal(context, node, y, x) if invert else y
        value = signed(times(x, factor.main), y.positive)
    elif isinstance(x, Scalar):
        other = entrywise.reciprocal(context, node, y, x) if invert else y
        value = signed(times(other, x.size), x.positive)
    elif isinstance(x, Weights) or isinstance(y, Weights):
        return weight_entries.product(context, node, x, y, steps, invert)
    else:
        return entrywise.product(context, node, x, y, steps, invert)
    numbers = f"{x.main} {'/' if invert else 'x'} {y.main}"
    return value, Step(PRODUCT, str(node), value.main, numbers, steps, node=node)


def _power(context: Context, node: Power, base: Node, p: Expr) -> Reading:
    value, step = read(context, base)
    if not p.is_Symbol and p.has(S.ComplexInfinity, S.NaN, S.Infinity, S.NegativeInfinity):
        raise RuleError(
            f"the power of {node}, which is {p}",
            "a finite number",
            f"write for example {base}**(1/2)",
        )
    match value:
        case Scalar():
            return scalars.power(context, node, value, p, step)
        case Spectral():
            return spectra.power(context, node, value, p, step)
        case Aligned() | Vector():
            return entrywise.power(context, node, value, p, step)
        case Weights() if p.is_positive and (p.is_Integer or value.positive):
            even = bool(p.is_Integer and p % 2 == 0)
            return weight_entries.function(
                context, node, value, p, lambda size: size**p, even, (step,)
            )
        case Rotated():
            return rotation.function(
                context, node, value, lambda c, x: entrywise.power(c, node, x, p, step), p
            )
    raise context.not_covered(
        node, f"a power of {describe(value)}", "a function of G", instead.apart
    )


def _matmul(context: Context, node: MatMul) -> Reading:
    x, step_x = read(context, node.left)
    y, step_y = read(context, node.right)
    steps = (step_x, step_y)
    if isinstance(x, Rotation) or isinstance(y, Rotation):
        return rotation.rotate(context, node, x, y, steps)
    match x, y:
        case Spectral(), Spectral():
            return spectra.product(context, node, x, y, steps)
        case Spectral(), Aligned():
            return spectra.push_through(context, node, x, y, steps)
        case Aligned(), Spectral():
            return spectra.push_through(context, node, y, x, steps)
        case Aligned(), Aligned() if x.transposed is not y.transposed:
            return spectra.gram_product(context, node, x, y, steps)
        case Vector(), Vector():
            return means.product(context, node, x, y, steps)
    for one, other in ((x, y), (y, x)):
        if isinstance(one, Spectral) and one.side is Dim.ANY:
            value = times(other, one.on_span.as_size_of(Size.SCALAR))
            return value, Step(PRODUCT, str(node), value.main, "", steps, node=node)
    raise context.not_covered(
        node,
        f"{describe(x)} @ {describe(y)}",
        "square matrices of A, B, L, R around a function of G (keep W outside of them)",
        instead.apart,
    )


def _rational(value: Fraction) -> Expr:
    return Rational(value.numerator, value.denominator)
