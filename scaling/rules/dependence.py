"""The sources of a rule's values: Gram matrices, entries, or blocks of rows and columns.

    spans        Gram matrices and norms of weights tell it            orth(G @ (A + rho*I)**(-1))
    is_local     an entry follows from the same entry of operands      sign(G), G / row_mean(abs(G))
    is_blocked   a square matrix with diagonal blocks alone            diag(A), block(L, 16)**(-1/4)

Claim.  These are properties of the tree: a function is covered by what its row says that it follows
from (operators.py), and a rule by what it is made of. A gradient at moved weights, ascended(X), is
as good as G: D' H'^T of columns that are known by then (ascents.py).

>>> from scaling.rules.parser import parse
>>> spans(parse("orth(G)").expression), spans(parse("orth(sign(G))").expression)
(True, False)
"""

from __future__ import annotations

from functools import lru_cache
from typing import TypeGuard

from scaling.rules.ascents import here, operands
from scaling.rules.language import (
    Add,
    Call,
    Divide,
    MatMul,
    Matrix,
    Multiply,
    Negate,
    Node,
    Number,
    Power,
    Subtract,
    Symbol,
    Transpose,
    is_average,
    row_of,
)
from scaling.rules.operators import FUNCTIONS, Follows
from scaling.rules.rule import Rule
from scaling.rules.shapes import Dim
from scaling.rules.weight_term import is_weight_size


def sees_samples(rule: Rule) -> bool:
    """Whether a rule looks at inputs or cotangents beyond their product G.

    >>> from scaling.rules.parser import parse
    >>> (
    ...     sees_samples(parse("orth(G) @ (R + rho*I)**(-1)")),
    ...     sees_samples(parse("G @ (A + rho*I)**(-1)")),
    ... )
    (False, True)
    """
    return any(
        (isinstance(x, Matrix) and x.name in ("A", "B"))
        or (isinstance(x, Call) and x.function == "sample_square")
        for x in rule.expression.walk()
    )


@lru_cache(maxsize=4096)
def spans(node: Node) -> bool:
    """Whether a value follows from Gram matrices (those of strips.py too) and norms of weights."""
    if is_weight_size(node):
        return True
    return not sees_entries(node) and all(map(spans, operands(node)))


def is_blocked(node: Node) -> bool:
    """Whether a square matrix has diagonal blocks alone, of one that follows from Gram matrices."""
    match node:
        case Call(_, argument) if is_cut(node):
            return spans(argument) or is_blocked(argument)
        case Call(_, argument) if is_average(node):
            return is_blocked(argument)
        case Negate(argument) | Transpose(argument) | Power(argument):
            return is_blocked(argument)
        case Add(x, y) | Subtract(x, y) | Multiply(x, y) | Divide(x, y) | MatMul(x, y):
            sides = [
                side for side in (x, y) if side.shape.is_square and not _is_multiple_of_one(side)
            ]
            return node.shape.is_square and bool(sides) and all(map(is_blocked, sides))
    return False


def is_block(node: Node) -> bool:
    """Whether a node takes diagonal blocks of a given size."""
    return is_cut(node) and node.option is not None


def _is_multiple_of_one(node: Node) -> bool:
    return node.shape.rows is Dim.ANY


def is_local(node: Node) -> bool:
    """Whether an entry follows from the same entry of its operands and from sums over entries."""
    if node.shape.is_scalar and spans(node):
        return True
    match node:
        case Matrix(name):
            return name in ("G", "I")
        case Symbol() | Number():
            return True
        case Call(_, argument) if is_cut(node):
            return is_blocked(node)
        case Call(_, argument) if Follows.SAMPLES in _follows(node):
            return all(is_local(x) and not isinstance(x, MatMul) for x in here(argument))
        case Call(_, argument) if is_sum(node):
            return not argument.shape.is_square and is_local(argument)
        case MatMul(x, y):
            if spans(node):
                return node.shape.is_gradient_like
            scaled = any(is_blocked(side) or _is_multiple_of_one(side) for side in (x, y))
            outer = x.shape.cols is Dim.ONE and node.shape.is_gradient_like
            return (scaled or outer) and is_local(x) and is_local(y)
        case Call() if Follows.ENTRY not in _follows(node):
            return spans(node) and node.shape.is_gradient_like
    return all(map(is_local, operands(node)))


def is_entrywise(node: Node) -> bool:
    """Whether an entry follows from the same entry of G and W, and from nothing else.

    >>> from scaling.rules.parser import parse
    >>> (
    ...     is_entrywise(parse("sign(G) + 0.1*W").expression),
    ...     is_entrywise(parse("G/norm(G)").expression),
    ... )
    (True, False)
    """
    match node:
        case Matrix(name):
            return name in ("G", "W")
        case MatMul() | Transpose():
            return False
        case Call() if Follows.ENTRY not in _follows(node):
            return not has_matrix(node)
    return all(map(is_entrywise, operands(node)))


def sees_entries(node: Node) -> bool:
    """Whether a node looks at single entries of its operands, in no eigenbasis."""
    if node.shape.is_corner:
        return False
    if node.shape.is_sided:
        return isinstance(node, Call) and Follows.ENTRY not in _follows(node)
    match node:
        case Matrix(name):
            return name == "W"
        case Call():
            plain = all(x.shape.is_scalar for x in node.children)
            return Follows.SPAN not in _follows(node) and not plain
        case Multiply(left, right) | Divide(left, right):
            return not left.shape.is_scalar and not right.shape.is_scalar
        case Add(left, right) | Subtract(left, right):
            plain = not left.shape.is_square and not right.shape.is_square
            return plain and left.shape != right.shape
        case Power(base):
            return not base.shape.is_square and not base.shape.is_scalar
    return False


def block_size(node: Node) -> int:
    """The side of the blocks of block(X, size) or, 1, of diag(X)."""
    match node:
        case Call(_, _, Number(size)):
            return int(size)
    return 1


def is_cut(node: Node) -> TypeGuard[Call]:
    """Whether a node takes the diagonal or diagonal blocks of a matrix."""
    return isinstance(node, Call) and FUNCTIONS[node.function].cuts


def is_sum(node: Node) -> TypeGuard[Call]:
    """Whether a node adds up entries of a matrix."""
    return isinstance(node, Call) and FUNCTIONS[node.function].sums


def takes_mean(node: Node) -> bool:
    """Whether a node is a mean of entries or of their squares, and not a sum."""
    return isinstance(node, Call) and FUNCTIONS[node.function].mean


def is_whole(node: Node) -> bool:
    """Whether a matrix that follows from Gram matrices cannot be read on a tile."""
    return spans(node) and has_matrix(node) and Follows.WHOLE in _follows(node)


def _follows(node: Node) -> frozenset[Follows]:
    row = row_of(node)
    return frozenset() if row is None else row.follows


def has_matrix(node: Node) -> bool:
    """Whether a value is more than a number that the rule is given."""
    return any(isinstance(part, Matrix) for part in node.walk())
