"""Trees made of trees: a rule with some of its parts written otherwise.

rebuilt      a node with each of its operands changed
substitute   a tree in which some parts are replaced wherever they stand
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace

from scaling.tree import Node


def rebuilt(node: Node, change: Callable[[Node], Node]) -> Node:
    """A node with its operands changed.

    Raises:
        RuleError: for operands that do not fit there.

    >>> from scaling.language import A, G
    >>> rebuilt(G @ A, lambda x: 2 * x)
    <rule 2*G @ (2*A)>
    """
    assert is_dataclass(node), "every node of the language is a dataclass"
    parts = {f.name: getattr(node, f.name) for f in fields(node)}
    changed = {name: change(x) for name, x in parts.items() if isinstance(x, Node)}
    return replace(node, **changed) if changed else node


def substitute(node: Node, replacements: Mapping[Node, Node]) -> Node:
    """The tree with every occurrence of a key replaced; what is put in is not searched again.

    >>> from scaling.language import A, G, ema
    >>> substitute(G @ A, {A: ema(A, 0.9)})
    <rule G @ ema(A, 9/10)>
    """
    if node in replacements:
        return replacements[node]
    return rebuilt(node, lambda x: substitute(x, replacements))
