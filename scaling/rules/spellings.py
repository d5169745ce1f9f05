"""One spelling of what a rule may write in several: what is equal must have equal answers.

    block(X, 1)                 diag(X)
    trace(X @ Y.T)              inner(X, Y), for X and Y of the gradient's shape
    trace(F @ R), trace(L @ F)  inner(G @ F, G), inner(F @ G, G), as R = G.T @ G and L = G @ G.T
    trace(F @ F)                norm(F)**2
    X @ (F @ E), (F @ E) @ X    (X @ F) @ E, F @ (E @ X), for square F and E
    x * X * W                   x * (X*W), for a number x
    x * W * agree(X, W)         x * (agree(X, W)*W), in any order
    x * X * X, X / y * X        x * (X*X), X*X / y, in any order, for a number y
    x * x                       x**2, for a number x that is no symbol

>>> from scaling.rules.language import A, G, R, block, trace
>>> usual(block(A, 1)), usual(trace(A @ R)), usual(G @ (A @ R))
(<rule diag(A)>, <rule inner(G @ A, G)>, <rule G @ A @ R>)
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from fractions import Fraction

from scaling.rules.tree import (
    Call,
    Divide,
    MatMul,
    Matrix,
    Multiply,
    Node,
    Number,
    Power,
    Symbol,
    transposed,
)

G, L, R, W = (Matrix(name) for name in "GLRW")


def usual(node: Node) -> Node:
    """A node in the spelling that the inferences know; itself where it is in that already."""
    match node:
        case Call("block", x, Number(size)) if size == 1:
            return Call("diag", x)
        case Call("trace", MatMul(x, y)) if x.shape.is_gradient_like:
            if x.shape == G.shape:
                return Call("inner", x, transposed(y))
            return Call("inner", transposed(x), y)
        case Call("trace", MatMul(x, y)) if x == y and isinstance(x, Matrix):
            return Power(Call("norm", x), Number(Fraction(2)))
        case Call("trace", MatMul(x, y)) if R in (x, y) or L in (x, y):
            own = x if x in (L, R) else y
            other = y if own is x else x
            factor = MatMul(G, other) if own == R else MatMul(other, G)
            return Call("inner", factor, G)
        case Multiply() if (masked := _masked_weights(node)) is not None:
            return masked
        case Multiply(Multiply(x, y), z) if x.shape.is_scalar and z == W and y.shape == z.shape:
            return Multiply(x, Multiply(y, z))
        case Multiply() if (squared := _with_squares(node)) is not None:
            return squared
        case MatMul(x, MatMul(y, z)) if x.shape.is_gradient_like and y.shape.is_square:
            if z.shape.is_square:
                return MatMul(MatMul(x, y), z)
        case MatMul(MatMul(x, y), z) if z.shape.is_gradient_like and x.shape.is_square:
            if y.shape.is_square:
                return MatMul(x, MatMul(y, z))
    return node


def _masked_weights(node: Multiply) -> Node | None:
    """A product of W, its mask and more, the mask beside W."""
    left = list(_factors(node))
    mask = next((x for x in left if isinstance(x, Call) and x.function == "agree"), None)
    if mask is None or W not in left or W not in mask.children or len(left) < 3:
        return None
    left.remove(mask)
    left.remove(W)
    return Multiply(functools.reduce(Multiply, left), Multiply(mask, W))


def _with_squares(node: Multiply) -> Node | None:
    """A product in which a factor and another like it make a square; None where none do.

    The square is positive, whatever its sign; apart, its two factors are not seen to be one.
    """
    factors: list[Node] = []
    divisors: list[Node] = []
    for factor in _factors(node):
        while isinstance(factor, Divide) and factor.right.shape.is_scalar:
            divisors.append(factor.right)
            factor = factor.left
        factors.extend(_factors(factor))
    pairs = {x: factors.count(x) // 2 for x in factors if not isinstance(x, Number | Symbol)}
    squares = [_square(x) for x, number in pairs.items() for _ in range(number)]
    if not squares or squares == [node]:
        return None
    for x in [x for x, number in pairs.items() for _ in range(2 * number)]:
        factors.remove(x)
    return functools.reduce(Divide, divisors, functools.reduce(Multiply, [*factors, *squares]))


def _square(x: Node) -> Node:
    return Power(x, Number(Fraction(2))) if x.shape.is_scalar else Multiply(x, x)


def _factors(node: Node) -> Iterator[Node]:
    """The factors of an entrywise product, from left to right."""
    if isinstance(node, Multiply):
        yield from _factors(node.left)
        yield from _factors(node.right)
    else:
        yield node
