"""Diagonals and blocks of a matrix: what a cut does to the matrix that it is taken of.

    diag(X + Y) = diag(X) + diag(Y)        diag(c X) = c diag(X)        diag(I) = I
    diag(X.T) = diag(X).T                  diag(ema(X)) = ema(diag(X))
    diag(block(X, s)) = diag(X)            block(block(X, s), t) = block(X, min(s, t))

and likewise for block(X, s), where of s and t one divides the other. A cut is linear and keeps
multiples of the identity, so it is read where it meets a matrix of the data. Then a damping inside
a cut is compared with the pieces that it meets there, and equal rules have equal exponents.

>>> from scaling.rules.language import A, I, block, diag, symbol
>>> rho = symbol("rho")
>>> inward(diag(2 * A + rho * I)), inward(diag(block(A, 4)))
(<rule 2*diag(A) + rho*I>, <rule diag(A)>)
>>> inward(block(diag(A), 4)), inward(block(block(A, 4), 6))
(<rule diag(A)>, <rule block(block(A, 4), 6)>)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from scaling.rules.operators import FUNCTIONS
from scaling.rules.shapes import Dim
from scaling.rules.tree import (
    Add,
    Call,
    Divide,
    Multiply,
    Negate,
    Node,
    Number,
    Subtract,
    Transpose,
)


def inward(node: Call) -> Node:
    """A diagonal or blocks of something, with the cut moved inwards as far as it goes."""
    cut = _cut_like(node)
    match node.argument:
        case Add(x, y):
            return Add(cut(x), cut(y))
        case Subtract(x, y):
            return Subtract(cut(x), cut(y))
        case Negate(x):
            return Negate(cut(x))
        case Transpose(x):
            return Transpose(cut(x))
        case Multiply(x, y):
            return Multiply(x, cut(y)) if x.shape.is_scalar else Multiply(cut(x), y)
        case Divide(x, y):
            return Divide(cut(x), y)
        case Call(function, x) as average if FUNCTIONS[function].average:
            return replace(average, argument=cut(x))
        case Call(function, x) as inner if FUNCTIONS[function].cuts:
            sizes = sorted((size_of_piece(node), size_of_piece(inner)))
            if sizes[1] % sizes[0] == 0:
                smaller = node if size_of_piece(node) == sizes[0] else inner
                return cut(x) if smaller is node else _cut_like(inner)(x)
    return node


def _cut_like(node: Call) -> Callable[[Node], Node]:
    """The same cut of another matrix; a multiple of the identity stays as it is."""

    def cut(x: Node) -> Node:
        return x if x.shape.rows is Dim.ANY else inward(replace(node, argument=x))

    return cut


def is_of_pieces(node: Node) -> bool:
    """Whether it keeps blocks of more than one entry."""
    return isinstance(node, Call) and FUNCTIONS[node.function].cuts and size_of_piece(node) > 1


def size_of_piece(node: Call) -> int:
    """The side of a piece; a diagonal has pieces of one entry."""
    return int(node.option.value) if isinstance(node.option, Number) else 1
