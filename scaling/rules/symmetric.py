"""Square matrices that are symmetric by the way they are written, whatever the data.

    A B L R I           and sums, multiples, powers, averages and blocks of symmetric ones
    X @ X.T, X.T @ X    squares
    X @ F @ X.T         with F symmetric, as the factors of KL-Shampoo

>>> from scaling.rules.language import A, B, G, I, L, R
>>> is_symmetric(G @ (R + 2 * I) ** -1 @ G.T), is_symmetric(A @ R), is_symmetric(L + B)
(True, False, True)
"""

from __future__ import annotations

from scaling.rules.operators import FUNCTIONS
from scaling.rules.tree import (
    Add,
    Call,
    Divide,
    MatMul,
    Matrix,
    Multiply,
    Negate,
    Node,
    Power,
    Subtract,
    Transpose,
    is_average,
    transposed,
    untransposed,
)


def is_symmetric(node: Node) -> bool:
    """Whether a square matrix is symmetric by the way it is written."""
    match node:
        case Matrix():
            return node.shape.is_square
        case Negate(x) | Transpose(x) | Power(x):
            return is_symmetric(x)
        case Add(x, y) | Subtract(x, y):
            return is_symmetric(x) and is_symmetric(y)
        case Multiply(x, y) | Divide(x, y):
            return is_symmetric(x if y.shape.is_scalar else y)
        case Call(function, x):
            return (is_average(node) or FUNCTIONS[function].cuts) and is_symmetric(x)
        case MatMul(x, y) if not x.shape.is_square:
            return is_square_of_one(node) or _is_congruence(x, y)
    return False


def _is_congruence(x: Node, y: Node) -> bool:
    match x, y:
        case MatMul(outer, factor), _ if factor.shape.is_square and transposed(outer) == y:
            return is_symmetric(factor)
        case _, MatMul(factor, outer) if factor.shape.is_square and transposed(x) == outer:
            return is_symmetric(factor)
    return False


def is_square_of_one(node: Node) -> bool:
    """Whether a product is X @ X.T or X.T @ X, hence symmetric."""
    left, right = map(untransposed, node.children)
    return left == right
