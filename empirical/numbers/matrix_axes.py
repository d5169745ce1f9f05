"""A tensor of any shape as matrices (fan_out, fan_in): which axes are rows, columns, or count them.

    batched      axes of which every index has a matrix of its own: experts
    left         axes of the rows: fan_out
    contracted   axes of the columns: fan_in
    parts        how many matrices the first axis of the rows packs: three for queries, keys, values

>>> experts = MatrixAxes((0,), (2,), (1,))
>>> experts.sides((4, 8, 16))
(4, 16, 8)
>>> MatrixAxes((), (0,), (1,), parts=3).sides((24, 8))
(3, 8, 8)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scaling.sizes.errors import InvalidInput


@dataclass(frozen=True)
class MatrixAxes:
    """The axes of a tensor by what they are in its matrices; each axis stands in one of three."""

    batched: tuple[int, ...]
    left: tuple[int, ...]
    contracted: tuple[int, ...]
    parts: int = 1

    @property
    def order(self) -> tuple[int, ...]:
        """All axes: those that count matrices, those of rows, those of columns."""
        return (*self.batched, *self.left, *self.contracted)

    def sides(self, shape: Sequence[int]) -> tuple[int, int, int]:
        """Matrices, rows and columns of a tensor of that shape."""
        count, rows, columns = (
            math.prod(shape[a] for a in axes) for axes in (self.batched, self.left, self.contracted)
        )
        return count * self.parts, rows // self.parts, columns

    def check(self, name: str, shape: Sequence[int]) -> None:
        """Refuse a number of parts that does not divide the rows.

        Raises:
            InvalidInput: naming the tensor.
        """
        rows = shape[self.left[0]] if self.left else 1
        if rows % self.parts:
            raise InvalidInput(
                f"'{name}' of shape {tuple(shape)} as {self.parts} matrices",
                f"a number that divides its {rows} rows",
                f"leave 'in {self.parts} parts' out for '{name}'",
            )

    def views(self, tensor: Tensor) -> list[Tensor]:
        """Each matrix as a view of shape (*rows, *columns), to be changed in place."""
        x = tensor.permute(self.order)
        lead = len(self.batched)
        if self.parts > 1:
            x = torch.unflatten(x, lead, (self.parts, -1))
            lead += 1
        found = [x]
        for _ in range(lead):
            found = [y for x in found for y in x.unbind(0)]
        return found

    def stacked(self, tensor: Tensor) -> Tensor:
        """All matrices, (count, rows, columns)."""
        x = tensor.permute(self.order)
        return x.reshape(self.sides(tensor.shape))

    def unstacked(self, matrices: Tensor, shape: Sequence[int]) -> Tensor:
        """The tensor of that shape whose matrices these are, (count, rows, columns)."""
        back = sorted(range(len(shape)), key=lambda i: self.order[i])
        return matrices.reshape([shape[a] for a in self.order]).permute(back)
