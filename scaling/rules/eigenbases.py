"""Rotations that are allowed: conditions on a rule's tree that shapes do not tell.

    eig(X)              X a sum of positive multiples of A, B, L, R, their moving averages and I:
                        what holds data has then larger eigenvalues than what does not, so that the
                        data come first in the order of falling eigenvalue
    sample_square(X)    X linear in G: G between square matrices and eigenbases, times numbers.
                        What stands beside G (curvature, eigenbases, numbers) is the batch's own

Not covered: eigenvectors of powers, products and differences; squares of other functions of G.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from fractions import Fraction

from scaling.rules.operators import FUNCTIONS, Follows
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
    Subtract,
    Transpose,
    is_average,
    short,
)
from scaling.sizes.errors import RuleError

_ZERO = Number(Fraction(0))


class Action(StrEnum):
    """An operation on a matrix linear in G."""

    LEFT = "multiplied from the left"
    RIGHT = "multiplied from the right"
    TRANSPOSE = "transposed"
    TIMES = "multiplied by a number"
    OVER = "divided by a number"
    NEGATE = "negated"


def check_frames(node: Node) -> None:
    """Refuse eigenbases and per-sample squares of what has none.

    Raises:
        RuleError: naming the part.
    """
    for part in node.walk():
        match part:
            case Call(function, argument) if FUNCTIONS[function].basis:
                _check_basis(argument)
            case Call(function, argument) if Follows.SAMPLES in FUNCTIONS[function].follows:
                linear_path(argument)


def _check_basis(node: Node) -> None:
    match node:
        case Matrix():
            return
        case Add(left, right):
            _check_basis(left)
            _check_basis(right)
            return
        case Call(_, argument) if is_average(node):
            _check_basis(argument)
            return
        case Multiply(x, y) | Divide(x, y) if x.shape.is_scalar or y.shape.is_scalar:
            square, number = (y, x) if x.shape.is_scalar else (x, y)
            if not any(isinstance(n, Negate | Subtract) or n == _ZERO for n in number.walk()):
                _check_basis(square)
                return
        case MatMul(Transpose(x), y) | MatMul(x, Transpose(y)) if x == y:
            return
    raise RuleError(
        f"the eigenvectors of {short(node)}",
        "a sum of positive multiples of A, B, L, R, X @ X.T, their moving averages and I",
        "take the eigenvectors of the matrix itself: eig(L), eig(ema(L, beta))",
    )


def linear_path(node: Node) -> list[tuple[Action, Node]]:
    """The operations on G, step by step, until it is ``node``; each step with its other operand.

    >>> from scaling.rules.language import A, G, L, eig
    >>> [str(x) for _, x in linear_path(eig(L).T @ (2 * G @ A))]
    ['2', 'A', 'eig(L).T']

    Raises:
        RuleError: for a node that is not linear in G.
    """
    return list(_path(node))


def _path(node: Node) -> Iterator[tuple[Action, Node]]:
    match node:
        case Matrix("G"):
            return
        case Transpose(x):
            yield from _path(x)
            yield Action.TRANSPOSE, node
            return
        case Negate(x):
            yield from _path(x)
            yield Action.NEGATE, node
            return
        case Multiply(x, y) if x.shape.is_scalar or y.shape.is_scalar:
            number, matrix = (x, y) if x.shape.is_scalar else (y, x)
            yield from _path(matrix)
            yield Action.TIMES, number
            return
        case Divide(x, y) if y.shape.is_scalar:
            yield from _path(x)
            yield Action.OVER, y
            return
        case MatMul(x, y) if _is_factor(x):
            yield from _path(y)
            yield Action.LEFT, x
            return
        case MatMul(x, y) if _is_factor(y):
            yield from _path(x)
            yield Action.RIGHT, y
            return
    raise RuleError(
        f"the per-sample square of {short(node)}",
        "a matrix linear in G: G between square matrices and eigenbases, times numbers",
        "write sample_square(G), or sample_square(eig(B).T @ G @ eig(A))",
    )


def _is_factor(node: Node) -> bool:
    return node.shape.is_square or node.shape.is_rotation
