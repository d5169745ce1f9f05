"""Rules of inference for ascended(X), the gradient at W + X, whose sizes ascent.py finds.

It is D' H'^T, aligned with data of its own: no factor of this step's A and B has exactly its span,
and it vanishes elsewhere than G does. Two things do not follow from its sizes and are refused:

    ascended(X) - G      as large as either only if X moves the cotangents by their own size
    col_mean(ascended)   D' has parts along the features, whose mean is not that of D
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

from scaling.calculus import instead
from scaling.calculus.averages import everywhere, simplification
from scaling.calculus.context import Context
from scaling.calculus.entrywise import Reading
from scaling.calculus.values import Aligned, Parity, Value
from scaling.rules.like_terms import totals
from scaling.rules.rewrites import with_parts
from scaling.rules.tree import Call, Matrix, Node
from scaling.sizes.derivation import ASCENT, Step

G = Matrix("G")


def gradient(
    context: Context, node: Call, step: Step, read: Callable[[Context, Node], Reading]
) -> Reading:
    """G with the sizes at W + X; ``step`` is what is known of X."""
    if node.argument not in context.ascended:
        raise context.not_covered(
            node,
            "a gradient at moved weights, of which one layer is read alone",
            "them all",
            instead.apart,
        )
    moved = replace(context, sizes=context.ascended[node.argument])
    value, line = read(moved, G)
    assert isinstance(value, Aligned), "a gradient is aligned with the data"
    value = replace(value, portions=everywhere(context, value), mixes=True)
    line = replace(line, subject="G at W + X", node=None)
    numbers = f"G at W + X with X = {node.argument}"
    return value, Step(ASCENT, str(node), line.result, numbers, (step, line), node=node)


def refuse_difference(context: Context, node: Node) -> None:
    """Refuse a sum in which terms would cancel if the weights had not moved."""
    if not any(map(_is_uphill, node.walk())):
        return
    simplify = simplification(context)
    left: dict[Node, Fraction] = {}
    for term, factor in totals(node, simplify).items():
        for part, times in totals(term, lambda n: at_start(simplify(n))).items():
            left[part] = left.get(part, Fraction(0)) + factor * times
    for part, factor in left.items():
        if factor == 0:
            raise context.not_covered(
                node,
                f"the difference of {part} at W + X and at W, which may be smaller than either",
                "a sum of both, or one of them",
                instead.positive,
            )


def refuse_mean(context: Context, node: Call, value: Value) -> None:
    """Refuse a mean of both signs of what is made of a gradient at moved weights."""
    odd = isinstance(value, Aligned) and (value.left.parity, value.right.parity) != (
        Parity.EVEN,
        Parity.EVEN,
    )
    if odd and any(map(_is_uphill, node.walk())):
        raise context.not_covered(
            node,
            "a mean of a gradient at moved weights, in which features and cotangents meet",
            "the mean of an even function, such as of its square",
            instead.apart,
        )


def at_start(node: Node) -> Node:
    """The tree with G in the place of every gradient at moved weights.

    >>> from scaling.rules.language import ascended, sign
    >>> at_start(sign(ascended(G)))
    <rule sign(G)>
    """
    return G if _is_uphill(node) else with_parts(node, at_start)


def _is_uphill(node: Node) -> bool:
    return isinstance(node, Call) and node.function == "ascended"
