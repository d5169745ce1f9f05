"""The sums over all rows that a sample of rows tells: those of what has one sign.

    mean over rows of x_i^2    of the order of x^2, and so is that of some rows: off by rows^(-1/2)
    mean over rows of x_i      of either sign: M^(-1/2) x over all rows, rows^(-1/2) x over some,
                               which is a size that does not scale

norm and rms add up squares. row_mean and col_mean add up what they are given: of one sign if its
tree says so, as in abs(G), G*G + eps, ema(G*G). Debiased averages are what they average in the
first step, so what cancels then, as debiased(col_mean(G), beta) - col_mean(G), needs no rows.

>>> from scaling.rules.parser import parse
>>> [
...     needs_all_rows(parse(x).expression)
...     for x in ("G / rms(G)", "G / col_mean(G*G)", "G - col_mean(G)")
... ]
[None, None, <rule col_mean(G)>]
"""

from __future__ import annotations

from collections.abc import Iterator

from scaling.rules.ascents import operands
from scaling.rules.language import (
    Add,
    Call,
    Divide,
    Matrix,
    Multiply,
    Node,
    Number,
    Power,
    Subtract,
    Symbol,
)
from scaling.rules.like_terms import totals
from scaling.rules.operators import FUNCTIONS, Extreme
from scaling.rules.rewrites import at_first
from scaling.rules.shapes import Dim


def needs_all_rows(node: Node) -> Node | None:
    """The first sum over rows that a sample of them does not tell, in the first step."""
    return next((part for part in _live(node) if _is_signed_sum(part)), None)


def _live(node: Node) -> Iterator[Node]:
    """The parts that the first step sees."""
    if isinstance(node, Add | Subtract) and not any(totals(node, at_first).values()):
        return
    yield node
    for child in operands(node):
        yield from _live(child)


def _is_signed_sum(node: Node) -> bool:
    match node:
        case Call(function, argument) if FUNCTIONS[function].sums and FUNCTIONS[function].linear:
            over_rows = Dim.FAN_OUT in argument.shape.dims and Dim.FAN_OUT not in node.shape.dims
            return over_rows and not is_positive(argument)
    return False


def is_positive(node: Node) -> bool:
    """Whether the tree of a value says that it is never negative: no entry, no eigenvalue."""
    match node:
        case Matrix():
            return node.shape.is_square
        case Number(value):
            return value >= 0
        case Symbol():
            return True
        case Multiply(x, y):
            return x == y or (is_positive(x) and is_positive(y))
        case Power(x, Number(p)) if p.denominator == 1 and p % 2 == 0:
            return True
        case Power(x, _):
            return is_positive(x)
        case Add(x, y) | Divide(x, y):
            return is_positive(x) and is_positive(y)
        case Call(function):
            row = FUNCTIONS[function]
            if isinstance(row.reading, Extreme):
                return (any if row.reading.larger else all)(map(is_positive, node.children))
            return row.never_negative or (row.keeps_sign and all(map(is_positive, node.children)))
    return False
