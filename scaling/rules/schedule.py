"""Where the parts of a rule are read, if it is read on tiles: which beforehand, and in which order.

    spectral_nodes   by Gram matrices, once a step             (B + rho*I)**(-1) @ G, norm(A)
    sum_levels       by a sweep over all tiles each            row_mean(G*G)
    blocked_nodes    once for the rows of a tile, or columns   (diag(L) + rho*I)**(-1/2)
    averages         again for all steps so far                ema(G*G, beta)

>>> from scaling.rules.parser import parse
>>> spectral_nodes([parse("sign((B + rho*I)**(-1) @ G) * norm(A)").expression])
[<rule (B + rho*I)**(-1) @ G>, <rule norm(A)>]
"""

from __future__ import annotations

from collections.abc import Sequence

from scaling.rules.ascents import operands
from scaling.rules.dependence import has_matrix, is_blocked, is_cut, is_sum, is_whole, spans
from scaling.rules.language import Call, Node, remembers


def sum_levels(nodes: Sequence[Node]) -> list[list[Call]]:
    """The sums over entries of parts of a rule, each after those that it needs."""
    depth: dict[Call, int] = {}

    def visit(part: Node) -> int:
        if part.shape.is_scalar and spans(part):
            return 0
        below = max((visit(child) for child in operands(part)), default=0)
        if is_sum(part):
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
        number = node.shape.is_scalar and has_matrix(node) and spans(node)
        if number or is_whole(node) or (is_cut(node) and spans(node.children[0])):
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
    """The moving averages and the like that tiles read entry by entry."""
    apart = {*spectral_nodes(nodes), *blocked_nodes(nodes)}
    found: dict[Node, None] = {}

    def visit(node: Node) -> None:
        if node in apart:
            return
        for child in node.children:
            visit(child)
        if remembers(node):
            found[node] = None

    for node in nodes:
        visit(node)
    return list(found)
