"""Shapes of values in the rule language: which side of the layer a matrix lives on.

Every value is fan_out x fan_in (gradient-like), square on one side (curvature-like), a row or
column, or a scalar. The shape alone decides what an operator means: powers and products are matrix
operations on square values and entrywise on gradient-like ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Dim(StrEnum):
    """The length of one side of a matrix."""

    ONE = "1"
    FAN_OUT = "fan_out"
    FAN_IN = "fan_in"
    ANY = "any"  # the identity, until it meets another matrix


@dataclass(frozen=True)
class Shape:
    """Rows and columns of a value in the language."""

    rows: Dim
    cols: Dim

    @property
    def is_scalar(self) -> bool:
        """1 x 1."""
        return self.rows is Dim.ONE and self.cols is Dim.ONE

    @property
    def is_square(self) -> bool:
        """Curvature-like: powers are matrix powers."""
        return self.rows is self.cols and not self.is_scalar

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
        if one is not other and Dim.ONE not in (one, other):
            return None
        sides.append(other if one is Dim.ONE else one)
    shape = Shape(*sides)
    return shape if shape.is_scalar or shape.is_vector or shape.is_gradient_like else None
