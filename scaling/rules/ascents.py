"""The looks that a step takes at its network, each with a rule of its own to read.

    first      at W        X of every ascended(X)
    further    at W + X    G' = D' H'^T / n                                  (look_ahead.py)
    then       at W        the rule, in which every ascended(X) is given

Claim.  A rule with ascended(X) is several rules, none of which has to look into another. So X may
go any way that a rule can go, with moving averages of its own, and where the tree of the rule is
asked anything, it ends at ascended(X).

>>> from scaling.rules.parser import parse
>>> rule = parse("ascended(radius * G / norm(G)) + sign(G)")
>>> list(perturbations(rule).values())
[Rule(expression=<rule radius*G/norm(G)>, name='')]
>>> [str(node) for node in here(rule.expression)]
['ascended(radius*G/norm(G))', 'G', 'sign(G)', 'ascended(radius*G/norm(G)) + sign(G)']
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeGuard

from scaling.rules.language import Call, Node
from scaling.rules.rule import Rule


def is_ascended(node: Node) -> TypeGuard[Call]:
    """Whether a node is the gradient at moved weights."""
    return isinstance(node, Call) and node.function == "ascended"


def perturbations(rule: Rule) -> dict[Call, Rule]:
    """Every ascended(X) of a rule, and X as a rule."""
    return {call: Rule(call.argument, rule.name) for call in rule.ascents}


def operands(node: Node) -> tuple[Node, ...]:
    """The operands of a node at W; a gradient at moved weights has none."""
    return () if is_ascended(node) else node.children


def here(node: Node) -> Iterator[Node]:
    """A node and all below it that is read at W with it, operands first."""
    for child in operands(node):
        yield from here(child)
    yield node
