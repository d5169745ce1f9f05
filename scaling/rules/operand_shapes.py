"""The shapes that operators and functions accept, and the shape of what they return.

    X + Y, X - Y   one shape, and I with any square matrix; over gradient-like matrices scalars and
                   vectors broadcast
    X * Y, X / Y   a factor, or entry by entry: square matrices have no entrywise product here
    X @ Y          the columns of X are the rows of Y. eig(L).T @ X @ eig(R) rotates X and
                   eig(L) @ X @ eig(R).T rotates it back

    f(X)           one kind of shape (`Accepted`)

Shapes are all that decides; what does not fit is refused in the caller's words (`Refuse`), since
only the tree (tree.py) knows how its operands are written. Which of these an operator follows says
its row (operators.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from scaling.rules.shapes import SCALAR, UPDATE, Dim, Frame, Shape, broadcast
from scaling.sizes.errors import RuleError

Refuse: TypeAlias = Callable[[str, str], RuleError]
"""The error that names the operands, from what is needed and what to do."""
Shapes: TypeAlias = Sequence[Shape]
ShapeOf: TypeAlias = Callable[[Shapes, Refuse], Shape]
"""The shape of a result from those of the operands."""


# --- operators ----------------------------------------------------------------------------------


def of_sum(operands: Shapes, refuse: Refuse) -> Shape:
    """X + Y and X - Y."""
    x, y = operands
    if x.is_rotation or y.is_rotation:
        raise refuse("matrices that an eigenbasis was applied to", _ROTATE)
    if x == y:
        return x
    if x.is_square and y.is_square and Dim.ANY in (x.rows, y.rows):
        return y if x.rows is Dim.ANY else x
    if (x.is_scalar and y.is_square) or (y.is_scalar and x.is_square):
        raise refuse("two matrices of the same shape", "multiply the scalar by I")
    return _broadcast(x, y, refuse)


def of_product(operands: Shapes, refuse: Refuse) -> Shape:
    """X * Y."""
    return _of_entries(operands, refuse, inverts=False)


def of_quotient(operands: Shapes, refuse: Refuse) -> Shape:
    """X / Y."""
    return _of_entries(operands, refuse, inverts=True)


def _of_entries(operands: Shapes, refuse: Refuse, inverts: bool) -> Shape:
    x, y = operands
    if y.is_scalar:
        return x
    if x.is_scalar and not ((y.is_square or y.is_rotation) and inverts):
        return y
    if x.is_rotation or y.is_rotation:
        raise refuse("an eigenbasis in matrix products only", _ROTATE)
    if x.is_square or y.is_square:
        raise refuse(
            "a scalar, or entries of gradient-like matrices: square matrices have no "
            "entrywise product here",
            "use @ for the matrix product and **(-1) for the inverse",
        )
    return _broadcast(x, y, refuse)


def of_entries(operands: Shapes, refuse: Refuse) -> Shape:
    """A function of the entries of two values, over which scalars and vectors broadcast."""
    x, y = operands
    if x.is_scalar or y.is_scalar:
        return y if x.is_scalar else x
    return _broadcast(x, y, refuse)


def of_matrix_product(operands: Shapes, refuse: Refuse) -> Shape:
    """X @ Y."""
    x, y = operands
    if x.is_scalar or y.is_scalar:
        raise refuse("two matrices", "use * with a scalar")
    if x.is_rotation or y.is_rotation:
        return _rotate(x, y, refuse)
    if x.is_rotated or y.is_rotated:
        raise refuse("products before matrices are rotated", _ROTATE)
    if Dim.ANY in (x.cols, y.rows):
        return y if x.cols is Dim.ANY else x
    if x.cols is not y.rows:
        raise refuse(
            "as many columns on the left as rows on the right",
            "transpose one side with .T, or put a square matrix of the right side between them",
        )
    return Shape(x.rows, y.cols)


def _rotate(x: Shape, y: Shape, refuse: Refuse) -> Shape:
    turned = y if x.is_rotation else x
    if not (turned.is_gradient_like or turned.is_rotated):
        raise refuse("an eigenbasis beside a gradient-like matrix", _ROTATE)
    if x.cols != y.rows:
        inner = (x.cols, y.rows)
        own = isinstance(inner[0], Frame) and isinstance(inner[1], Frame)
        if own or x.dims[1] is not y.dims[0]:
            raise refuse("the eigenbasis that the matrix is in, on its side", _ROTATE)
        raise refuse(
            "an eigenbasis that is turned the other way",
            "rotate with eig(X).T @ G @ eig(Y), rotate back with eig(X) @ ... @ eig(Y).T",
        )
    return Shape(x.rows, y.cols)


def _broadcast(x: Shape, y: Shape, refuse: Refuse) -> Shape:
    shape = broadcast(x, y)
    if shape is not None:
        return shape
    if x.is_rotated or y.is_rotated:
        raise refuse("two matrices rotated into the same eigenbases", _ROTATE)
    raise refuse("two values of the same shape", "check the sides; .T transposes")


_ROTATE = (
    "rotate last and rotate back before anything else: "
    "eig(L) @ f(eig(L).T @ (...) @ eig(R)) @ eig(R).T"
)


def same(operands: Shapes, _: Refuse) -> Shape:
    """The shape of the first operand."""
    return operands[0]


def transposed(operands: Shapes, _: Refuse) -> Shape:
    """X.T."""
    return operands[0].transposed


# --- functions ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Accepted:
    """A kind of shape that functions take, in words for who passes another."""

    fits: Callable[[Shape], bool]
    words: str


ENTRIES = Accepted(
    lambda x: x.is_gradient_like or x.is_rotated or x.is_vector or x.is_scalar,
    "a gradient-like matrix, a vector or a scalar",
)
GRADIENT_LIKE = Accepted(lambda x: x.is_gradient_like, "a gradient-like matrix")
SQUARE = Accepted(
    lambda x: x.is_square and x.rows is not Dim.ANY, "a square matrix such as A, B, L, R"
)
MATRIX = Accepted(
    lambda x: not (x.is_scalar or x.is_rotation) and x.rows is not Dim.ANY, "a matrix"
)
ENTRIES_UNROTATED = Accepted(
    lambda x: x.is_gradient_like or x.is_vector or x.is_scalar,
    "a gradient-like matrix that is not rotated, a vector or a scalar",
)
NUMBER = Accepted(lambda x: x.is_scalar, "a scalar")
CHANGE = Accepted(lambda x: x == UPDATE, "a change of the weights, fan_out x fan_in")
AVERAGED = Accepted(
    lambda x: x.rows is not Dim.ANY and not x.is_rotation,
    "anything but the bare identity or an eigenbasis: average what is rotated",
)
SAMPLED = Accepted(
    lambda x: x.is_gradient_like or x.is_rotated, "G between square matrices and eigenbases"
)


def to_scalar(_: Shape) -> Shape:
    """1 x 1."""
    return SCALAR


def to_column(x: Shape) -> Shape:
    """As many rows, in one column."""
    return Shape(x.rows, Dim.ONE)


def to_row(x: Shape) -> Shape:
    """As many columns, in one row."""
    return Shape(Dim.ONE, x.cols)
