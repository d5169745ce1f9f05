"""The rule of inference for per-sample second moments, in any basis.

    sample_square(X) = mean over samples of the squared entries of X, each sample's own gradient
                       standing for G

The claim.  Squares of n = Theta(1) samples add up without cancelling: an entry has the size of the
squared entry of X, and is positive. It vanishes only where every sample's does, hence nowhere but
where X does, so it may divide X; but not wherever X does, so X may not divide it.

Reference: arXiv 1806.03884 (EKFAC). Not covered: samples in eig(L) and eig(R), which hold the
directions of the batch's gradient alone.
"""

from __future__ import annotations

from dataclasses import replace

from sympy import S

from scaling.calculus import directions, entrywise, instead
from scaling.calculus.context import Context
from scaling.calculus.directions import Portions
from scaling.calculus.entrywise import Reading
from scaling.calculus.rotation import NOTHING, corner_context, holds_data
from scaling.calculus.values import Aligned, Behaviour, Parity, Rotated, Value, describe
from scaling.rules.eigenbases import linear_path
from scaling.rules.operators import FUNCTIONS
from scaling.rules.shapes import Dim
from scaling.rules.tree import Call, Node
from scaling.sizes.derivation import SAMPLES, Step


def sample_square(context: Context, node: Call, value: Value, step: Step) -> Reading:
    """The mean over samples of squares: of the size of the squared entry, and positive.

    It vanishes only where all samples do, hence nowhere but where the batch's own value does; but
    not wherever that does.
    """
    inner = value.inner if isinstance(value, Rotated) else value
    if not isinstance(inner, Aligned) or not inner.coherent:
        raise context.not_covered(
            node, f"per-sample squares of {describe(value)}", "such as of G", instead.apart
        )
    entry = (inner.entry / context.mean) ** 2  # linear in G: of one sample, not of their mean
    for _, operand in linear_path(node.argument):
        for part in operand.walk():
            if isinstance(part, Call) and FUNCTIONS[part.function].basis:
                _need_data(context, node, part)
    if isinstance(value, Rotated):
        corner = corner_context(context, value.sides)
        even = Behaviour(Parity.EVEN, S.Zero)
        sides = (
            even if Dim.FAN_OUT in value.sides else _squared(inner.left),
            even if Dim.FAN_IN in value.sides else _squared(inner.right),
        )
        matrix = entrywise.coherent(
            corner, entry, *sides, inner.transposed, _bent(corner, inner), positive=True
        )
        rounding = value.rounding
        if rounding is not None:  # that of single samples
            degree = None if rounding.degree is None else 2 * rounding.degree
            size, of = rounding.size**2, frozenset({str(node)})
            rounding = replace(rounding, degree=degree, size=size, of=of, positive=True)
        squared: Value = Rotated(matrix, NOTHING, value.sides, frozenset(), value.poles, rounding)
    else:
        squared = replace(
            entrywise.coherent(
                context, entry, _squared(inner.left), _squared(inner.right), inner.transposed,
                _bent(context, inner), positive=True, monomial=inner.monomial, mixes=True,
            ),
            covers=not inner.mixes,
        )  # fmt: skip
    numbers = f"({inner.entry / context.mean})^2"
    return squared, Step(SAMPLES, str(node), entry, numbers, (step,), node=node)


def _need_data(context: Context, node: Node, basis: Call) -> None:
    if not holds_data(context, basis, basis.argument):
        raise context.not_covered(
            node,
            f"samples in {basis}, which holds the directions of the batch's gradient alone",
            "eig(B) and eig(A), which hold every sample's",
            instead.apart,
        )


def _squared(side: Behaviour) -> Behaviour:
    return Behaviour(Parity.EVEN, 2 * side.vanishing)


def _bent(context: Context, value: Aligned) -> Portions:
    return directions.bent(value.portions, (0, 1), context.spans, context.bounds)
