"""Rows of sums and of repetition: the larger term, and the sum over what was repeated."""

from __future__ import annotations

from scaling.models.operations.row import Operands, OperationRow, broadcast_letters
from scaling.models.terms import GraphValue, add, contract, spread

NEGLIGIBLE = 1e-3
"""A literal number added to something, such as an eps, is left out if it is not larger."""


def _sum(at: Operands) -> GraphValue:
    terms = [
        spread(value, at.axes)
        for value, literal in zip(at.values, at.literals or (None,) * len(at.values), strict=True)
        if literal is None or abs(literal) > NEGLIGIBLE
    ]
    return add(at.axes, terms)


def repeated(at: Operands, i: int, dx: GraphValue) -> GraphValue:
    """An input, repeated over the axes of the result."""
    return spread(dx, at.axes)


def summed_back(at: Operands, i: int, dy: GraphValue) -> GraphValue:
    """The adjoint: the sum over what was repeated."""
    letters, out = broadcast_letters(at)
    return spread(contract([(dy, out)], letters[i]), at.values[i].axes)


ROWS = {
    "add": OperationRow(_sum, repeated, summed_back),
    "subtract": OperationRow(_sum, repeated, summed_back),
    "expand": OperationRow(lambda at: spread(at.values[0], at.axes), repeated, summed_back),
}
