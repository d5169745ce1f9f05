"""Shapes of values in the rule language: which side of the layer a matrix lives on.

Every value is fan_out x fan_in (gradient-like), square on one side (curvature-like), a row or
column, or a scalar. The shape alone decides what an operator means: powers and products are matrix
operations on square values and entrywise on gradient-like ones.

A side may also be counted in the eigenbasis of a square matrix, its `Frame`. eig(L) leads from the
frame of L to fan_out, so that eig(L).T @ G has rows in that frame (rotated), and two rotated
matrices meet entry by entry only if their frames are the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias


class Dim(StrEnum):
    """The length of one side of a matrix."""

    ONE = "1"
    FAN_OUT = "fan_out"
    FAN_IN = "fan_in"
    ANY = "any"  # the identity, until it meets another matrix


@dataclass(frozen=True)
class Frame:
    """A side in the eigenbasis of a square matrix, which is named by its text."""

    side: Dim
    of: str

    def __str__(self) -> str:
        return f"basis({self.of})"


Side: TypeAlias = Dim | Frame


@dataclass(frozen=True)
class Shape:
    """Rows and columns of a value in the language."""

    rows: Side
    cols: Side

    @property
    def frames(self) -> tuple[Frame, ...]:
        """The sides that are counted in an eigenbasis."""
        return tuple(side for side in (self.rows, self.cols) if isinstance(side, Frame))

    @property
    def dims(self) -> tuple[Dim, Dim]:
        """The sides of the layer that rows and columns stand for, rotated or not."""
        rows, cols = (s.side if isinstance(s, Frame) else s for s in (self.rows, self.cols))
        return rows, cols

    @property
    def is_rotation(self) -> bool:
        """An orthogonal matrix between a side and a frame of that side: eig(X) or eig(X).T."""
        rows, cols = self.dims
        return rows is cols and len(self.frames) == 1

    @property
    def is_rotated(self) -> bool:
        """A gradient-like matrix with one side or both in a frame."""
        return bool(self.frames) and set(self.dims) == {Dim.FAN_OUT, Dim.FAN_IN}

    @property
    def is_corner(self) -> bool:
        """A gradient-like matrix with both sides in frames."""
        return self.is_rotated and len(self.frames) == 2

    @property
    def is_scalar(self) -> bool:
        """1 x 1."""
        return self.rows is Dim.ONE and self.cols is Dim.ONE

    @property
    def is_sided(self) -> bool:
        """A gradient-like matrix with one side in a frame, and entries along the other."""
        return self.is_rotated and len(self.frames) == 1

    @property
    def is_square(self) -> bool:
        """Curvature-like: powers are matrix powers."""
        return self.rows == self.cols and not self.is_scalar

    @property
    def is_vector(self) -> bool:
        """One row or one column; broadcasts against gradient-like matrices."""
        return (self.rows is Dim.ONE) != (self.cols is Dim.ONE)

    @property
    def is_gradient_like(self) -> bool:
        """fan_out x fan_in or its transpose: products and powers are entrywise."""
        return {self.rows, self.cols} == {Dim.FAN_OUT, Dim.FAN_IN}

    @property
    def transposed(self) -> Shape:
        """The shape of the transpose."""
        return Shape(self.cols, self.rows)

    def __str__(self) -> str:
        return "scalar" if self.is_scalar else f"{self.rows} x {self.cols}"


SCALAR = Shape(Dim.ONE, Dim.ONE)
UPDATE = Shape(Dim.FAN_OUT, Dim.FAN_IN)


def broadcast(x: Shape, y: Shape) -> Shape | None:
    """The common shape of an entrywise operation, or None.

    >>> str(broadcast(UPDATE, Shape(Dim.FAN_OUT, Dim.ONE)))
    'fan_out x fan_in'
    """
    if x.is_square or y.is_square:
        return x if x == y else None
    sides = []
    for one, other in ((x.rows, y.rows), (x.cols, y.cols)):
        if one != other and Dim.ONE not in (one, other):
            return None
        sides.append(other if one is Dim.ONE else one)
    shape = Shape(*sides)
    if shape.is_rotated:
        return shape if all(one == shape or one.is_scalar for one in (x, y)) else None
    return shape if shape.is_scalar or shape.is_vector or shape.is_gradient_like else None
