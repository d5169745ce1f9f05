"""A refusal offers a rule that is accepted: what was asked, with one part changed.

Candidates for the part come from the rule of inference that refused it (calculus/instead.py). They
are put in its place, or in that of what it stands in, from the inside out, and derived under the
same settings until one is covered, gradient descent at last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import islice

from scaling.calculus.instead import (
    all_damped,
    candidates,
    decays_outside,
    plain,
    positive,
    without_weights,
)
from scaling.rules.rewrites import substitute
from scaling.rules.rule import Rule
from scaling.rules.symbols import SymbolKind, kind_of
from scaling.rules.tree import Matrix, Node, Number, Subtract, Symbol
from scaling.sizes.errors import NotCovered, RuleError, ScalingError
from scaling.states.problem import Problem

MOST = 40
"""Rules that are tried before a refusal is left as it is."""


def offering(
    error: NotCovered, problem: Problem, derive: Callable[[Problem], object]
) -> NotCovered:
    """The same refusal with a rule that ``derive`` accepts, if one is found.

    A rule that lost a symbol to which the settings give a value is none of them.
    """
    rule, settings = problem.rule, problem.settings
    given = {*settings.exponents, *(name for name, _ in settings.d)}
    others = _changed(error, rule, moved=problem.step > 1)
    for other in (*islice(others, MOST), Rule(Matrix("G"))):
        if not given <= {*other.scaled, *other.exponents}:
            continue
        try:
            derive(replace(problem, rule=other))
        except ScalingError:
            continue
        return NotCovered(error.found, error.needed, f"write for example {other.written}")
    return error


def _changed(error: NotCovered, rule: Rule, moved: bool) -> Iterator[Rule]:
    """The rule with the refused part changed, each once, the smallest change first."""
    seen = {rule.expression}
    for part, others in _places(error, rule.expression, moved):
        for other in others:
            try:
                expression = substitute(rule.expression, {part: other})
                changed = Rule(expression, parts=rule.parts)
            except RuleError:
                continue
            if expression not in seen and _descends(expression):
                seen.add(expression)
                yield changed


def _descends(expression: Node) -> bool:
    """Whether a rule follows the gradient, and no part of it is nothing."""
    nodes = set(expression.walk())
    nothing = any(isinstance(x, Subtract) and x.left == x.right for x in nodes)
    return Matrix("G") in nodes and Number(Fraction(0)) not in nodes and not nothing


def _places(error: NotCovered, root: Node, moved: bool) -> Iterator[tuple[Node, tuple[Node, ...]]]:
    """The refused part and what stands around it, each with what could stand in its place."""
    assert isinstance(error.node, Node), "only what refuses a node has candidates"
    path = _path(root, error.node)
    if moved and Matrix("W") in error.node.walk():
        yield root, (without_weights(root),)
    if _is_of_decays(error.node):
        yield root, tuple(decays_outside(root))
    if path:
        yield error.node, tuple(x for x in error.instead if isinstance(x, Node))
        yield root, (all_damped(root),)
    for around in path[1:] or [root]:
        yield around, candidates(around, plain if path else positive)


def _is_of_decays(node: Node) -> bool:
    names = (x.name for x in node.walk() if isinstance(x, Symbol))
    return any(kind_of(name) is SymbolKind.DECAY for name in names)


def _path(root: Node, node: Node) -> list[Node]:
    """From a node up to the root; empty if it is not in the tree."""
    if root == node:
        return [root]
    for child in root.children:
        below = _path(child, node)
        if below:
            return [*below, root]
    return []
