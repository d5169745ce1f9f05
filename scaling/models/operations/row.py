"""A row of the table of operations, and the operands that it reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from string import ascii_letters
from typing import TypeAlias

from sympy import Expr, S

from scaling.models.graph import GraphNode
from scaling.models.terms import GraphValue, contract, larger, zero
from scaling.sizes.errors import NotCovered


@dataclass(frozen=True)
class Operands:
    """A node with what is known of its inputs.

    ``live``: by input, whether it depends on a trained tensor, and so can move. ``literals``: by
    input, the number that it is. ``part``: a name for the part of an axis that a slice takes, where
    it overlaps with no other.
    """

    node: GraphNode
    values: tuple[GraphValue, ...]
    live: tuple[bool, ...]
    literals: tuple[float | None, ...] = ()
    part: str = ""

    @property
    def axes(self) -> tuple[Expr, ...]:
        """The axes of the result."""
        return self.node.axes

    def refuse(self, found: str, needed: str, do_this: str) -> NotCovered:
        """The refusal that names the node."""
        place = f" at {self.node.where}" if self.node.where else ""
        return NotCovered(f"{found}, in {self.node.name}{place}", needed, do_this)


Start: TypeAlias = Callable[[Operands], GraphValue]
Carry: TypeAlias = Callable[[Operands, int, GraphValue], GraphValue]
Bears: TypeAlias = Callable[[Operands, int], Expr | None]


def anything(at: Operands, i: int) -> Expr | None:
    """A linear operation bears any change."""
    return None


def one_or_size(at: Operands, i: int) -> Expr | None:
    """A result with a scale of its own bears a change of order one, or of the size of its input."""
    return larger(S.Zero, at.values[i].size)


def own_size(at: Operands, i: int) -> Expr | None:
    """A result without another scale bears a change of the size of its input."""
    return at.values[i].size


def nothing(at: Operands, i: int, x: GraphValue) -> GraphValue:
    """No cotangent."""
    return zero(at.values[i].axes)


def no_change(at: Operands, i: int, dx: GraphValue) -> GraphValue:
    """No change."""
    return zero(at.axes)


@dataclass(frozen=True)
class OperationRow:
    """A row of the table. Without a cotangent nothing is differentiated through it."""

    start: Start
    change: Carry = no_change
    cotangent: Carry = nothing
    bears: Bears = anything


def broadcast_letters(at: Operands) -> tuple[list[str], str]:
    """Letters of the inputs and of the result; an input that is repeated has one of its own."""
    out = ascii_letters[: len(at.axes)]
    spare = iter(ascii_letters[len(at.axes) :])
    letters = []
    for value in at.values:
        start = len(out) - len(value.axes)
        names = [
            out[start + k] if n == at.axes[start + k] else next(spare)
            for k, n in enumerate(value.axes)
        ]
        letters.append("".join(names))
    return letters, out


def resized(value: GraphValue, axes: tuple[Expr, ...]) -> GraphValue:
    """The same along axes of other lengths."""
    return replace(value, axes=axes)


def entrywise_product(x: GraphValue, y: GraphValue) -> GraphValue:
    """A product of two values with the same axes."""
    letters = ascii_letters[: len(x.axes)]
    return contract([(x, letters), (y, letters)], letters)
