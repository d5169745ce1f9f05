"""Which way a rule is measured at any width, decided from its tree.

    CORE   dW = U V^T of few columns that follow from Gram matrices, as in D C H^T: every matrix is
           a spectral function of A, B, L, R, or G times such; entries count if one side or both
           are in eigenbases (strips.py)
    ROWS   an entry of dW is a function of that entry of such matrices, of what belongs to its row
           and column, and of numbers of the layer: blocks of rows are made and used up, O(M^2) time
           and O(M) memory
    SAMPLE the same for some rows alone, O(M) time: enough where own updates are all that is asked,
           since neurons are exchangeable (sample.py); sums over all rows of what has either sign
           rule it out (estimable.py)

Any of them may also see the weights in two ways: by the numbers norm(W) and rms(W), and in a term
that is a multiple of them, dW = U + beta*W. Both follow from products of W, exactly in law
(implicit.py, weight.py); parts.py takes a rule apart accordingly. Averages of weights do so in the
first step, and are measured there if own updates of it are all that is asked.

What none covers: W elsewhere, as in specnorm(W), sign(W), W*G; functions of the whole of a matrix
that has no small core, as orth(sign(G)), A @ sign(G), and sums of such over layers; blocks that no
tile can hold; per-sample squares with one side in an eigenbasis. They are measured densely.

>>> from scaling.parser import parse
>>> path_of(parse("orth(G @ (A + rho*I)**(-1))")), path_of(parse("sign(G)"))
(<Path.CORE: 'core'>, <Path.ROWS: 'rows'>)
>>> path_of(parse("sign(G)"), own_only=True)
<Path.SAMPLE: 'sample'>
>>> path_of(parse("orth(sign(G))"))
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum
from typing import TypeGuard

from empirical.wide.estimable import needs_all_rows
from empirical.wide.parts import is_weight_size, parts
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
    is_average,
)
from scaling.rule import Rule
from scaling.shapes import UPDATE, Dim

WIDEST_ROWS = 2**18
"""The widest layer whose entries are made one by one: 7e10 of them, some minutes."""
SAMPLED_ROWS = 1024
"""Rows that are a sample; a layer with no more of them is taken whole."""
WIDEST_SAMPLE = WIDEST_ROWS**2 // SAMPLED_ROWS
"""The widest layer of which a sample of rows is made: as many entries."""
LARGEST_BLOCK = 256
"""Rows of a tile (tiles.py), which has to hold the blocks of block(X, size)."""

_SPECTRAL = (
    "orth", "newton_schulz", "inner", "trace", "norm", "specnorm", "rms", "ema", "debiased", "eig",
)  # fmt: skip
_ENTRYWISE = ("sign", "abs", "sqrt", "atan", "clip", "ema", "debiased")
SUMS = ("row_mean", "col_mean", "norm", "rms")
"""Functions that add up entries of a matrix."""


class Path(StrEnum):
    """How an update is made at any width."""

    CORE = "core"
    ROWS = "rows"
    SAMPLE = "sample"


# --- choosing a path ----------------------------------------------------------------------------


def path_of(rule: Rule, own_only: bool = False) -> Path | None:
    """The cheapest way that covers a rule, or None. ``own_only``: own updates of a single step."""
    found = parts(rule.expression)
    if found.update is None or found.update.shape != UPDATE or (found.first and not own_only):
        return None
    if all(map(spans, found.terms)):
        return Path.CORE
    if not all(map(_is_local, found.terms)) or block_unit(rule) > LARGEST_BLOCK:
        return None
    return Path.SAMPLE if own_only and _needs_all_rows(rule) is None else Path.ROWS


def refuse_unless_wide(rule: Rule, width: int = 1, own_only: bool = False) -> None:
    """Raise `InvalidInput` for a rule that no way covers, or none in reasonable time."""
    path = path_of(rule, own_only)
    if path is Path.CORE:
        return
    name = rule.name or rule
    if path is None:
        alone = path_of(rule, own_only=True) is not None
        first = ", or own updates of the first step alone with --quantity own" if alone else ""
        raise InvalidInput(
            f"'{_culprit(rule)}' in {name}, which neither follows from the span of the data nor "
            "entry by entry",
            "an update D C H^T, or one whose entries follow from those of G, plus a multiple of W; "
            f"blocks of at most {LARGEST_BLOCK} rows",
            f"measure it with --mode dense, at widths up to some thousands{first}",
        )
    widest = WIDEST_SAMPLE if path is Path.SAMPLE else WIDEST_ROWS
    if width > widest:
        whole = _needs_all_rows(rule) if own_only else None
        seen = next(node for node in rule.expression.walk() if _sees_entries(node))
        node, why = (seen, "looks at single") if whole is None else (whole, "adds up")
        entries = width * (SAMPLED_ROWS if path is Path.SAMPLE else width)
        reach = ", --quantity own" if not own_only and _needs_all_rows(rule) is None else ""
        raise InvalidInput(
            f"the width {width:,} for '{node}' in {name}, which {why} entries: {entries:.0e} of "
            "them in a hidden layer",
            f"a width of at most {widest:,}{reach}, or an update D C H^T",
            f"choose smaller widths, such as {widest // 16} or {widest // 4}",
        )


def _culprit(rule: Rule) -> Node:
    """The first part of a rule that no path covers."""
    found = parts(rule.expression)
    for term in found.terms:
        for node in _operands_first(term):
            if node.children and not _is_covered(node):
                return node
    if found.first is not None:
        return found.first
    blocks = [node for node in rule.expression.walk() if _is_block(node)]
    too_large = found.update is not None and block_unit(rule) > LARGEST_BLOCK
    return blocks[-1] if too_large else rule.expression


def block_unit(rule: Rule) -> int:
    """What tiles must be multiples of: the least common multiple of all block sizes."""
    return math.lcm(*(block_size(node) for node in rule.expression.walk() if _is_block(node)))


def block_size(node: Node) -> int:
    """The side of the blocks of block(X, size) or, 1, of diag(X)."""
    match node:
        case Call("block", _, Number(size)):
            return int(size)
    return 1


def _needs_all_rows(rule: Rule) -> Node | None:
    """What a sample of rows does not tell: sums of either sign over all, and blocks it cuts."""
    for term in parts(rule.expression).terms:
        if (total := needs_all_rows(term)) is not None:
            return total
    blocks = (node for node in rule.expression.walk() if LARGEST_BLOCK % block_size(node))
    return next(blocks, None)


# --- what a value follows from ------------------------------------------------------------------


def spans(node: Node) -> bool:
    """Whether a value follows from Gram matrices (those of strips.py too) and norms of weights."""
    if is_weight_size(node):
        return True
    return not _sees_entries(node) and all(map(spans, node.children))


def is_blocked(node: Node) -> bool:
    """Whether a square matrix has diagonal blocks alone, of one that follows from Gram matrices."""
    match node:
        case Call("diag" | "block", argument):
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


def _is_block(node: Node) -> bool:
    return isinstance(node, Call) and node.function == "block"


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
        case Call("diag" | "block"):
            return is_blocked(node)
        case Call("max", x, y):
            return _is_local(x) and y is not None and _is_local(y)
        case Call("clip", x, bound):
            return _is_local(x) and bound is not None and _is_local(bound)
        case Call("sample_square", argument):
            return not any(isinstance(part, MatMul) for part in argument.walk()) and all(
                _is_local(part) for part in argument.walk()
            )
        case Call(function, argument) if function in SUMS:
            return not argument.shape.is_square and _is_local(argument)
        case Call(function, argument) if function in _ENTRYWISE:
            return _is_local(argument)
        case MatMul(x, y):
            if spans(node):
                return node.shape.is_gradient_like
            scaled = any(is_blocked(side) or _is_multiple_of_one(side) for side in (x, y))
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
    if node.shape.is_corner:
        return False
    if node.shape.is_sided:
        return isinstance(node, Call) and node.function not in _ENTRYWISE
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


# --- where the parts are read -------------------------------------------------------------------


def sum_levels(nodes: Sequence[Node]) -> list[list[Call]]:
    """The sums over entries of parts of a rule, each after those that it needs."""
    depth: dict[Call, int] = {}

    def visit(part: Node) -> int:
        if part.shape.is_scalar and spans(part):
            return 0
        below = max((visit(child) for child in part.children), default=0)
        if isinstance(part, Call) and part.function in SUMS:
            depth[part] = below
            return below + 1
        return below

    for node in nodes:
        visit(node)
    return [[n for n, at in depth.items() if at == level] for level in sorted(set(depth.values()))]


def spectral_nodes(nodes: Sequence[Node]) -> list[Node]:
    """The largest parts of a rule that tiles cannot read and Gram matrices can."""
    found: dict[Node, None] = {}

    def visit(node: Node) -> None:
        product = isinstance(node, MatMul) or (isinstance(node, Call) and node.function == "orth")
        whole = spans(node) and has_matrix(node) and (node.shape.is_scalar or product)
        if whole or (is_cut(node) and spans(node.children[0])):
            found[node] = None
            return
        for child in node.children:
            visit(child)

    for node in nodes:
        visit(node)
    return list(found)


def blocked_nodes(nodes: Sequence[Node]) -> list[Node]:
    """The largest square parts that a tile reads of its rows alone, or of its columns alone."""
    if not nodes:
        return []
    spectral = spectral_nodes(nodes)
    here = [node for node in nodes if is_blocked(node)]
    below = [
        child
        for node in nodes
        if not is_blocked(node) and node not in spectral
        for child in node.children
    ]
    return list(dict.fromkeys([*here, *blocked_nodes(below)]))


def averages(nodes: Sequence[Node]) -> list[Node]:
    """The moving averages that tiles read entry by entry."""
    apart = {*spectral_nodes(nodes), *blocked_nodes(nodes)}
    found: dict[Node, None] = {}

    def visit(node: Node) -> None:
        if node in apart:
            return
        for child in node.children:
            visit(child)
        if is_average(node):
            found[node] = None

    for node in nodes:
        visit(node)
    return list(found)


def is_cut(node: Node) -> TypeGuard[Call]:
    """Whether a node takes the diagonal or diagonal blocks of a matrix."""
    return isinstance(node, Call) and node.function in ("diag", "block")


def has_matrix(node: Node) -> bool:
    """Whether a value is more than a number that the rule is given."""
    return any(isinstance(part, Matrix) for part in node.walk())
