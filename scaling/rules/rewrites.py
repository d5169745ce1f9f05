"""Trees made of trees: a rule with some of its parts written otherwise.

rebuilt             a node with each of its operands changed; with_parts: where they still fit
substitute          a tree in which some parts are replaced wherever they stand
at_first            a tree without debiased averages, which are what they average at the first step
without_row_means   a tree without row means, as a bias has it
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace

from scaling.rules.operators import FUNCTIONS
from scaling.rules.tree import Call, Node
from scaling.sizes.errors import RuleError


def rebuilt(node: Node, change: Callable[[Node], Node]) -> Node:
    """A node with its operands changed.

    Raises:
        RuleError: for operands that do not fit there.

    >>> from scaling.rules.language import A, G
    >>> rebuilt(G @ A, lambda x: 2 * x)
    <rule 2*G @ (2*A)>
    """
    assert is_dataclass(node), "every node of the language is a dataclass"
    parts = {f.name: getattr(node, f.name) for f in fields(node)}
    changed = {name: change(x) for name, x in parts.items() if isinstance(x, Node)}
    return replace(node, **changed) if changed else node


def substitute(node: Node, replacements: Mapping[Node, Node]) -> Node:
    """The tree with every occurrence of a key replaced; what is put in is not searched again.

    >>> from scaling.rules.language import A, G, ema
    >>> substitute(G @ A, {A: ema(A, 0.9)})
    <rule G @ ema(A, 9/10)>
    """
    if node in replacements:
        return replacements[node]
    return rebuilt(node, lambda x: substitute(x, replacements))


def at_first(node: Node) -> Node:
    """The tree with debiased averages replaced by what they are at the first step.

    >>> from scaling.rules.language import G, debiased, sqrt
    >>> at_first(sqrt(debiased(G * G, 0.9)))
    <rule sqrt(G*G)>
    """
    if not any(isinstance(n, Call) and FUNCTIONS[n.function].debiased for n in node.walk()):
        return node
    if isinstance(node, Call) and FUNCTIONS[node.function].debiased:
        return at_first(node.argument)
    return with_parts(node, at_first)


def without_row_means(node: Node) -> Node:
    """The tree with every row mean replaced by what it averages: a bias has one input."""
    if isinstance(node, Call) and _is_row_mean(node):
        return without_row_means(node.argument)
    return with_parts(node, without_row_means)


def _is_row_mean(node: Call) -> bool:
    row, sides = FUNCTIONS[node.function], (node.shape.rows, node.argument.shape.rows)
    return row.mean and row.linear and not node.shape.is_scalar and sides[0] == sides[1]


def with_parts(node: Node, change: Callable[[Node], Node]) -> Node:
    """A node with its operands changed, where they still fit."""
    try:
        return rebuilt(node, change)
    except RuleError:  # a column that became a matrix does not fit here: as it was written, then
        return node
