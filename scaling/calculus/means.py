"""Rules of inference for products of means: a column times a row, and a row times a column.

    col @ row       entries |x| |y|, one direction. It behaves in delta as the column does and in h
                    as the row does, so outer products of means of G*G are even, Adafactor's V
    row @ col       fan |x| |y| for the side that both live on, where no terms of the sum cancel:
                    X.T @ X, or means of even functions

A mean over delta changes sign with the gradient like G itself, so that a column times such a row is
odd and even at once (`Parity.MIXED`).
"""

from __future__ import annotations

from dataclasses import replace

from scaling.calculus import entrywise, spectra
from scaling.calculus.context import Context
from scaling.calculus.entrywise import Reading
from scaling.calculus.values import Behaviour, Parity, Scalar, Vector, describe
from scaling.rules.shapes import Dim
from scaling.rules.tree import MatMul
from scaling.sizes.derivation import LLN, PRODUCT, Step
from scaling.sizes.scale import Size


def product(
    context: Context, node: MatMul, x: Vector, y: Vector, steps: tuple[Step, Step]
) -> Reading:
    """X @ Y of two vectors."""
    if not x.is_row and y.is_row and x.side is not y.side:
        return _outer(context, node, x, y, steps)
    even = x.behaviour.parity is y.behaviour.parity is Parity.EVEN
    if x.is_row and not y.is_row and (spectra.is_square_of_one(node) or even):
        size = (x.entry * y.entry * context.fan(x.side)).as_size_of(Size.SCALAR)
        return Scalar(size), Step(LLN, str(node), size, "inner product", steps, node=node)
    raise context.not_covered(
        node,
        f"{describe(x)} @ {describe(y)}",
        "square matrices of A, B, L, R around a function of G (keep W outside of them)",
    )


def _outer(
    context: Context, node: MatMul, x: Vector, y: Vector, steps: tuple[Step, Step]
) -> Reading:
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
