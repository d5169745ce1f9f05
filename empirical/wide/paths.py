"""Which way a rule is measured at any width, decided from its tree.

    CORE   dW = D C H^T with a small C that follows from Gram matrices: every matrix is a spectral
           function of A, B, L, R, or G times such
    ROWS   an entry of dW is a function of that entry of such matrices, of what belongs to its row
           and column, and of numbers of the layer: blocks of rows are made and used up, O(M^2) time
           and O(M) memory

What neither covers: the weights W; functions of the whole of a matrix that has no small core, as
orth(sign(G)), A @ sign(G); blocks. Such rules are measured on dense networks.

>>> from scaling.parser import parse
>>> path_of(parse("orth(G @ (A + rho*I)**(-1))")), path_of(parse("sign(G)"))
(<Path.CORE: 'core'>, <Path.ROWS: 'rows'>)
>>> path_of(parse("orth(sign(G))"))
"""

from __future__ import annotations

from enum import StrEnum

from scaling.errors import InvalidInput
from scaling.language import (
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
)
from scaling.rule import Rule
from scaling.shapes import Dim

WIDEST_ROWS = 2**18
"""The widest layer whose entries are made one by one: 7e10 of them, some minutes."""

_SPECTRAL = ("orth", "trace", "norm", "specnorm", "rms", "ema", "debiased")
_ENTRYWISE = ("sign", "abs", "sqrt", "atan", "clip", "ema", "debiased")
SUMS = ("row_mean", "col_mean", "norm", "rms")
"""Functions that add up entries of a matrix."""


class Path(StrEnum):
    """How an update is made at any width."""

    CORE = "core"
    ROWS = "rows"


def path_of(rule: Rule) -> Path | None:
    """The cheapest way that covers a rule, or None."""
    if spans(rule.expression):
        return Path.CORE
    return Path.ROWS if _is_local(rule.expression) else None


def refuse_unless_wide(rule: Rule, width: int = 1) -> None:
    """Raise `InvalidInput` for a rule that no way covers, or none in reasonable time."""
    path = path_of(rule)
    if path is Path.CORE:
        return
    if path is None:
        node = next(node for node in _operands_first(rule.expression) if not _is_covered(node))
        raise InvalidInput(
            f"'{node}' in {rule.name or rule}, which neither follows from the span of the data nor "
            "entry by entry",
            "an update D C H^T, or one whose entries follow from those of G",
            "measure it with --mode dense, at widths up to some thousands",
        )
    if width > WIDEST_ROWS:
        node = next(node for node in rule.expression.walk() if _sees_entries(node))
        raise InvalidInput(
            f"the width {width:,} for '{node}' in {rule.name or rule}, which looks at single "
            f"entries: {width**2:.0e} of them in a hidden layer",
            f"a width of at most {WIDEST_ROWS:,}, or an update D C H^T",
            f"choose smaller widths, such as {WIDEST_ROWS // 16} or {WIDEST_ROWS // 4}",
        )


def spans(node: Node) -> bool:
    """Whether a value follows from the Gram matrices of the data."""
    return not any(_sees_entries(part) for part in node.walk())


def is_diagonal(node: Node) -> bool:
    """Whether a square matrix is a diagonal of one that follows from Gram matrices."""
    match node:
        case Call("diag", argument):
            return spans(argument)
        case (
            Call("ema" | "debiased", argument)
            | Negate(argument)
            | Transpose(argument)
            | Power(argument)
        ):
            return is_diagonal(argument)
        case Add(x, y) | Subtract(x, y) | Multiply(x, y) | Divide(x, y) | MatMul(x, y):
            sides = [
                side for side in (x, y) if side.shape.is_square and not _is_multiple_of_one(side)
            ]
            return node.shape.is_square and bool(sides) and all(map(is_diagonal, sides))
    return False


def _is_multiple_of_one(node: Node) -> bool:
    return node.shape.rows is Dim.ANY


def _is_local(node: Node) -> bool:
    """Whether an entry follows from the same entry of its operands and from sums over entries."""
    if node.shape.is_scalar and spans(node):
        return True
    match node:
        case Matrix(name):
            return name in ("G", "I")
        case Symbol() | Number():
            return True
        case Call("diag", argument):
            return spans(argument)
        case Call("max", x, y):
            return _is_local(x) and y is not None and _is_local(y)
        case Call("clip", x, bound):
            return _is_local(x) and bound is not None and _is_local(bound)
        case Call(function, argument) if function in SUMS:
            return not argument.shape.is_square and _is_local(argument)
        case Call(function, argument) if function in _ENTRYWISE:
            return _is_local(argument)
        case MatMul(x, y):
            if spans(node):
                return node.shape.is_gradient_like
            scaled = any(is_diagonal(side) or _is_multiple_of_one(side) for side in (x, y))
            outer = x.shape.cols is Dim.ONE and node.shape.is_gradient_like
            return (scaled or outer) and _is_local(x) and _is_local(y)
        case Call():
            return spans(node) and node.shape.is_gradient_like
    return all(map(_is_local, node.children))


def _is_covered(node: Node) -> bool:
    return spans(node) or _is_local(node)


def _operands_first(node: Node) -> list[Node]:
    return [*(part for child in node.children for part in _operands_first(child)), node]


def _sees_entries(node: Node) -> bool:
    match node:
        case Matrix(name):
            return name == "W"
        case Call(function, argument):
            return function not in _SPECTRAL and not argument.shape.is_scalar
        case Multiply(left, right) | Divide(left, right):
            return not left.shape.is_scalar and not right.shape.is_scalar
        case Add(left, right) | Subtract(left, right):
            plain = not left.shape.is_square and not right.shape.is_square
            return plain and left.shape != right.shape
        case Power(base):
            return not base.shape.is_square and not base.shape.is_scalar
    return False
