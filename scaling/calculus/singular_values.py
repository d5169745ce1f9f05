"""Rules of inference for functions of singular values: spectral_map(X, f) and project(X, r).

X = U S V^T of n = Theta(1) directions, whose singular values are of one order s, but for those of
samples of one class (directions.py):

    U f(S) V^T = F(X X^T) X    with F(s^2) = f(s)/s, which stretches X by f(s)/s (push-through)

f is read as a number, with the size of the singular value for sigma: what decides in it, as which
is the smaller in min(sigma, tau), is a regime, and a damping in it is balanced with sigma. Of a
matrix of unknown or of full rank, as an entrywise function of G, only the largest singular values
have a known size, its gain. Cutting all off at a bound, f = min(sigma, tau), needs no more:

    gain <= tau    X itself
    gain > tau     what X does along the data becomes tau; entries are unknown then

project(X, r) keeps r of the largest singular directions, a part of X of its own order that every
sample meets, or all of X where r grows with the width and X has O(1) directions.

X - project(X, r), an error that is fed back, is what X does in its other directions, and like X
itself: n = Theta(1) singular values of one order are more than r. Where r grows it is zero.

Refused: f that may be negative; singular values that are alike, of which no r are the largest; r
where some directions are weaker than others; what is left of a matrix of unknown rank, or of one
of no more than r directions.

References: arXiv 2505.21799 (PolarGrad), arXiv 2403.03507 (GaLore), arXiv 2504.05295 (Dion).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from sympy import S

from scaling.calculus import instead, rank, spectra, sums
from scaling.calculus.context import Context
from scaling.calculus.entrywise import Reading, need_entries
from scaling.calculus.values import Aligned, Scalar, Spectral, Value, describe, times
from scaling.rules.like_terms import totals
from scaling.rules.symbols import SymbolKind
from scaling.rules.tree import Call, MatMul, Node, Number, Symbol, Transpose
from scaling.sizes.derivation import SPECTRAL_POWER, SUM, Step
from scaling.sizes.scale import Order, Scale, Size

Read = Callable[[Context, Node], Reading]


def spectral_map(context: Context, node: Call, operands: Sequence[Reading], read: Read) -> Reading:
    """U f(S) V^T."""
    value, step = operands[0]
    assert node.option is not None, "a function of singular values"
    aligned = _of_gradient(context, node, value)
    if aligned.entry.is_zero:
        return aligned, replace(step, subject=str(node), node=node)
    if not aligned.low_rank or not aligned.coherent:
        return _cut_off(context, node, node.option, (aligned, step), read)
    square = MatMul(node.argument, Transpose(node.argument))
    other = replace(aligned, transposed=not aligned.transposed)
    gram, _ = spectra.gram_product(context, square, aligned, other, (step,))
    assert isinstance(gram, Spectral), "a Gram matrix"
    lines: list[Step] = []

    def stretched(eigenvalue: Scale) -> Scale:
        """f(s)/s for s^2."""
        if eigenvalue.is_zero:
            return eigenvalue
        sigma = eigenvalue.root().as_size_of(Size.SCALAR)
        size, line = _at(context, node, sigma, read)
        lines.append(line)
        return (size / sigma).as_size_of(eigenvalue.of)

    mapped = gram.with_eigenvalues(stretched)
    uneven = not _is_sigma(node.option)
    if uneven:
        rank.refuse_where_it_grows(
            context, node,
            "a function of singular values, which may raise the small ones, and their number grows",
            f"orth({node.argument})",
        )  # fmt: skip
    mapped = replace(mapped, levelled=uneven)
    found, line = spectra.push_through(
        context, MatMul(square, node.argument), mapped, aligned, (step, *dict.fromkeys(lines))
    )
    assert isinstance(found, Aligned), "a matrix of two sides"
    numbers = f"singular values {lines[0].result}"
    told = replace(
        line, inference=SPECTRAL_POWER, subject=str(node), result=found.gain, numbers=numbers,
        node=node,
    )  # fmt: skip
    return found, rank.assumed(context, told, [found])


def _at(context: Context, node: Call, sigma: Scale, read: Read) -> tuple[Scale, Step]:
    """The size of f at a singular value of that size."""
    assert node.option is not None, "a function of singular values"
    value, step = read(replace(context, singular=sigma), node.option)
    assert isinstance(value, Scalar), "the language refuses anything else"
    if not value.positive:
        raise context.not_covered(
            node, f"the function {node.option} of singular values, which may be negative",
            "a sum of positive terms, or min(sigma, bound)", instead.positive,
        )  # fmt: skip
    return value.size, step


def _cut_off(context: Context, node: Call, f: Node, reading: Reading, read: Read) -> Reading:
    """min(sigma, bound) of a matrix of which the gain alone is known."""
    aligned, step = reading
    assert isinstance(aligned, Aligned), "a matrix of two sides"
    bound = _bound(f)
    if bound is None:
        raise context.not_covered(
            node,
            "a function of the singular values of a matrix of full or unknown rank",
            "min(sigma, bound), which cuts off the largest, or a function of G",
            instead.of_gradient,
        )
    limit, line = read(context, bound)
    if not isinstance(limit, Scalar) or not limit.positive:
        raise context.not_covered(
            node, "a bound that may be negative", "a positive one", instead.positive
        )
    gain = aligned.gain.as_size_of(Size.SCALAR)
    sigma = next(n for n in f.children if n != bound)
    regime = context.decide(f, sigma, bound, gain, limit.size)
    if regime.order is Order.OPEN:
        raise context.not_covered(
            node, "a bound that is above or below singular values depending on symbols",
            "their values", instead.damped,
        )  # fmt: skip
    if regime.order is Order.EQUAL:
        _, balanced = sums.balanced(context, Scalar(gain), limit)
        assert isinstance(balanced, Scalar), "a number"
        limit = balanced
    if regime.order is Order.LESS:
        value = aligned
        numbers = "below the bound"
    else:
        need_entries(context, node, aligned)
        factor = limit.size / gain
        value = replace(
            aligned, gain=aligned.gain * factor, entry=aligned.entry * factor, low_rank=False,
            coherent=False, levelled=False, positive=False, monomial=False, mixes=True, jumps=False,
            aligned_sums=not aligned.fills_rows and context.spans[0].twin is None,
        )  # fmt: skip
        numbers = "at the bound" if regime.order is Order.GREATER else "near the bound"
    told = Step(
        SPECTRAL_POWER, str(node), value.gain, numbers, (step, line), node=node, decision=regime
    )
    return value, told


def _bound(f: Node) -> Node | None:
    """The bound of min(sigma, bound)."""
    match f:
        case Call("min", x, Node() as y):
            for sigma, bound in ((x, y), (y, x)):
                if _is_sigma(sigma) and not any(map(_is_sigma, bound.walk())):
                    return bound
    return None


def _is_sigma(node: Node) -> bool:
    return isinstance(node, Symbol) and node.kind is SymbolKind.SINGULAR_VALUE


def _of_gradient(context: Context, node: Call, value: Value) -> Aligned:
    if not isinstance(value, Aligned):
        raise context.not_covered(
            node, f"{node.function} of {describe(value)}", "a function of G", instead.apart
        )
    if not value.entry.is_zero and not value.is_linear:
        raise context.not_covered(
            node,
            f"{node.function} of a matrix that is not odd in delta and in h",
            "such as G",
            instead.apart,
        )
    return value


def residual_of(node: Node) -> Call | None:
    """The project(X, r) of X - project(X, r) times a number.

    >>> from scaling.rules.language import G, project
    >>> residual_of(2 * G - 2 * project(G, 4))
    <rule project(G, 4)>
    """
    found = totals(node)
    for x, factor in found.items():
        if isinstance(x, Call) and x.function == "project" and len(found) == 2:
            return x if found.get(x.argument) == -factor else None
    return None


def residual(context: Context, node: Node, kept: Call, read: Read) -> Reading | None:
    """X - project(X, r); None where the rank of X is not known."""
    value, step = read(context, kept.argument)
    part, line = read(context, kept)
    assert kept.option is not None, "a projection has a rank"
    r, _ = read(context, kept.option)
    if not (isinstance(value, Aligned) and value.low_rank and isinstance(part, Aligned)):
        return None
    if value.entry.is_zero or not isinstance(r, Scalar):
        return None
    most = min(span.rank for span in context.spans)
    alone = most == 1 and value.steps == 1  # a bias, or one sample
    if alone or context.bounds.order(r.size.width, S.Zero) is Order.GREATER:
        zero = times(value, Scale.zero(Size.SCALAR))
        return zero, Step(SUM, str(node), zero.main, "all of it is kept", (line,), node=node)
    few = isinstance(kept.option, Number) and kept.option.value >= most
    if few or most == 1:
        raise context.not_covered(
            node,
            f"what {kept} leaves of a matrix of {most} directions, which may be nothing",
            "fewer directions than samples and outputs have",
            instead.apart,
        )
    left = replace(part, crosses=True)
    text = f"{kept.argument} has more directions than {kept} keeps, as samples and outputs are more"
    told = Step(SUM, str(node), left.entry, "what is left", (step, line), text, node)
    return left, told


def project(context: Context, node: Call, operands: Sequence[Reading], _: Read) -> Reading:
    """The part of X on its r largest singular directions."""
    (value, step), (r, other) = operands
    aligned = _of_gradient(context, node, value)
    if not isinstance(r, Scalar) or not r.positive:
        raise context.not_covered(node, "a rank that may be negative", "a positive one",
                                  instead.positive)  # fmt: skip
    if aligned.entry.is_zero:
        return aligned, replace(step, subject=str(node), node=node)
    rank.refuse_where_it_grows(
        context, node, "the largest of many singular values", str(node.argument)
    )
    order = context.bounds.order(r.size.width, S.Zero)
    steps = (step, other)
    if order is Order.GREATER and aligned.low_rank:
        numbers = "more directions than it has"
        return aligned, Step(SPECTRAL_POWER, str(node), aligned.gain, numbers, steps, node=node)
    if order in (Order.LESS, Order.OPEN):
        raise context.not_covered(
            node, "a rank that falls with the width, or may", "a fixed number, or fan_in/4",
            instead.apart,
        )  # fmt: skip
    if aligned.levelled or not aligned.coherent:
        raise context.not_covered(
            node,
            "the largest of singular values that are alike: nothing says which they are",
            f"{node.function} before they are made alike, as orth(project(G, 4))",
            instead.of_gradient,
        )
    if context.spans[0].twin is not None:
        raise context.not_covered(
            node,
            "the largest singular directions where samples of one class make some of them weak, so "
            "that their number decides which are kept",
            "no class drawn twice, or all classes drawn",
            instead.apart,
        )
    kept = replace(
        aligned, low_rank=aligned.low_rank or order is Order.EQUAL, monomial=False, mixes=True,
        aligned_sums=not aligned.fills_rows, positive=False, jumps=False,
    )  # fmt: skip
    return kept, Step(SPECTRAL_POWER, str(node), kept.gain, "the largest", steps, node=node)
