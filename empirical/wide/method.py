"""The way a rule is measured at any width, decided from its tree.

    CORE   dW = U V^T of few columns that follow from Gram matrices, as in D C H^T: every matrix is
           a spectral function of A, B, L, R, or G times such; entries count if one side or both
           are in eigenbases (strips.py)
    ROWS   an entry of dW is a function of that entry of such matrices, of what belongs to its row
           and column, and of numbers of the layer: blocks of rows are made and used up, O(M^2) time
           and O(M) memory
    SAMPLE the same for some rows alone, O(M) time: enough where own updates are all that is asked,
           since neurons are exchangeable (sample.py); sums over all rows of what has either sign
           rule it out (estimable_sums.py)

Any of them may also see the weights in two ways: by the numbers norm(W) and rms(W), and in a term
that is a multiple of them, dW = U + beta*W. Both follow from products of W, exactly in law
(implicit.py, weight.py); weight_term.py takes a rule apart accordingly. Averages of weights do so
in the first step, and are measured there if own updates of it are all that is asked.

A rule with ascended(X) is several rules, one a look (ascents.py): X and the rule itself each go a
way of their own, and the rule is measured the dearer one.

What none covers: W elsewhere, as in specnorm(W), sign(W), W*G; functions of the whole of a matrix
that has no small core, as orth(sign(G)), A @ sign(G), and sums of such over layers; blocks that no
tile can hold; per-sample squares with one side in an eigenbasis. They are measured densely.

>>> from scaling.rules.parser import parse
>>> path_of(parse("orth(G @ (A + rho*I)**(-1))")), path_of(parse("sign(G)"))
(<Path.CORE: 'core'>, <Path.ROWS: 'rows'>)
>>> path_of(parse("sign(G)"), own_only=True)
<Path.SAMPLE: 'sample'>
>>> path_of(parse("orth(sign(G))"))
"""

from __future__ import annotations

import math
from enum import StrEnum

from scaling.rules.ascents import here, perturbations
from scaling.rules.dependence import block_size, is_block, is_local, sees_entries, spans
from scaling.rules.estimable_sums import needs_all_rows
from scaling.rules.language import Node
from scaling.rules.rule import Rule
from scaling.rules.shapes import UPDATE
from scaling.rules.weight_term import parts
from scaling.sizes.errors import InvalidInput

WIDEST_ROWS = 2**18
"""The widest layer whose entries are made one by one: 7e10 of them, some minutes."""
SAMPLED_ROWS = 1024
"""Rows that are a sample; a layer with no more of them is taken whole."""
WIDEST_SAMPLE = WIDEST_ROWS**2 // SAMPLED_ROWS
"""The widest layer of which a sample of rows is made: as many entries."""
DEVICE_ENTRIES = 2**8
"""Times as many entries on a GPU, whose memory is about as many times as fast."""
LARGEST_BLOCK = 256
"""Rows of a tile (tiles.py), which has to hold the blocks of block(X, size)."""


class Path(StrEnum):
    """How an update is made at any width."""

    CORE = "core"
    ROWS = "rows"
    SAMPLE = "sample"


# --- choosing a path ----------------------------------------------------------------------------


def path_of(rule: Rule, own_only: bool = False) -> Path | None:
    """The cheapest way that covers a rule, or None. ``own_only``: own updates of a single step.

    With ascended(X) in it that is the way of its dearest look: what X moves goes through the
    network whole, so a sample of its rows is not enough.
    """
    moves = [way_of(x) for x in perturbations(rule).values()]
    own = way_of(rule, own_only)
    if own is None or None in moves:
        return None
    return Path.ROWS if Path.ROWS in moves else own


def way_of(rule: Rule, own_only: bool = False) -> Path | None:
    """The way of a rule by itself, once every ascended(X) is known; see `path_of`."""
    found = parts(rule.expression)
    if found.update is None or found.update.shape != UPDATE or (found.first and not own_only):
        return None
    if all(map(spans, found.terms)):
        return Path.CORE
    if not all(map(is_local, found.terms)) or block_unit(rule) > LARGEST_BLOCK:
        return None
    return Path.SAMPLE if own_only and _needs_all_rows(rule) is None else Path.ROWS


def refuse_unless_wide(
    rule: Rule, width: int = 1, own_only: bool = False, device: str = "cpu"
) -> None:
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
    faster = 1 if device == "cpu" else DEVICE_ENTRIES
    whole_layer = path is not Path.SAMPLE
    widest = WIDEST_ROWS * math.isqrt(faster) if whole_layer else WIDEST_SAMPLE * faster
    if width > widest:
        whole = _needs_all_rows(rule) if own_only and way_of(rule) is Path.ROWS else None
        seen = next(node for node in rule.expression.walk() if sees_entries(node))
        node, why = (seen, "looks at single") if whole is None else (whole, "adds up")
        entries = width * (SAMPLED_ROWS if path is Path.SAMPLE else width)
        reach = ", --quantity own" if path_of(rule, True) not in (path, Path.ROWS) else ""
        raise InvalidInput(
            f"the width {width:,} for '{node}' in {name}, which {why} entries: {entries:.0e} of "
            "them in a hidden layer",
            f"a width of at most {widest:,}{reach}, or an update D C H^T",
            f"choose smaller widths, such as {widest // 16} or {widest // 4}",
        )


def _culprit(rule: Rule) -> Node:
    """The first part of a rule, or of what it perturbs the weights by, that no way covers."""
    for move in perturbations(rule).values():
        if way_of(move) is None:
            return _culprit(move)
    found = parts(rule.expression)
    for term in found.terms:
        for node in here(term):
            if node.children and not spans(node) and not is_local(node):
                return node
    if found.first is not None:
        return found.first
    blocks = [node for node in here(rule.expression) if is_block(node)]
    too_large = found.update is not None and block_unit(rule) > LARGEST_BLOCK
    return blocks[-1] if too_large else rule.expression


def block_unit(rule: Rule) -> int:
    """The unit of tiles: the least common multiple of all block sizes."""
    return math.lcm(*(block_size(node) for node in here(rule.expression) if is_block(node)))


def _needs_all_rows(rule: Rule) -> Node | None:
    """Parts that no sample of rows tells: sums of either sign over all, and blocks it cuts."""
    for term in parts(rule.expression).terms:
        if (total := needs_all_rows(term)) is not None:
            return total
    blocks = (node for node in here(rule.expression) if LARGEST_BLOCK % block_size(node))
    return next(blocks, None)
