"""The gradient up to factors: G, its averages over steps, and multiples of them.

>>> from scaling.rules.language import G, ema, norm, orth
>>> is_gradient(2 * ema(G, 0.9) / norm(G)), is_gradient(orth(G))
(True, False)
"""

from __future__ import annotations

from scaling.rules.tree import (
    Call,
    Divide,
    Matrix,
    Multiply,
    Negate,
    Node,
    Transpose,
    is_average,
)


def is_gradient(node: Node) -> bool:
    """Whether a node is a number times the gradient or times an average of gradients."""
    match node:
        case Matrix(name):
            return name == "G"
        case Negate(x) | Transpose(x):
            return is_gradient(x)
        case Multiply(x, y) | Divide(x, y) if y.shape.is_scalar:
            return is_gradient(x)
        case Multiply(x, y) if x.shape.is_scalar:
            return is_gradient(y)
        case Call(_, x) if is_average(node):
            return is_gradient(x)
    return False
