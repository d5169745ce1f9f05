"""Powers of the batch and of the number of samples, as the literature has them: not derived here.

                    lr       decay    damping         1 - beta    source
    batch, Adam     1/2      1/2      -degree/2       1           arXiv 2205.10287, 2405.13698
    batch, SGD      1        0                        0           arXiv 1706.02677, 2405.13698
    samples, Adam   -1/2     -1/2     degree/2        -1          arXiv 2512.22382

A number is multiplied by (size / base size)^power. *Adam* is a rule entry by entry that divides by
the root of an averaged square (RMSprop, AdamW); *SGD* one that is linear in G and its averages. A
damping has the degree of what it is added to: 1 in sqrt(v) + eps, 2 in sqrt(v + eps), because the
gradient of a small batch is mostly noise, of size batch^(-1/2). The decay follows from its time
scale: lr x decay x (samples / batch) stays, that is 1/(lr decay) in epochs.

Other rules have no power with a source here, and are refused unless a power is given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from sympy import Expr, Rational, S

from scaling.rules.dependence import is_entrywise
from scaling.rules.language import Node
from scaling.rules.rule import Rule
from scaling.rules.symbols import SymbolKind
from scaling.rules.tree import (
    Add,
    Call,
    Divide,
    Matrix,
    Multiply,
    Negate,
    Number,
    Power,
    Subtract,
    Symbol,
    is_average,
    remembers,
)
from scaling.sizes.errors import NotCovered

HALF = Rational(1, 2)
BATCH = "batch"
SAMPLES = "samples"


class RuleFamily(StrEnum):
    """Rules that the literature has powers for."""

    ADAM = "Adam"
    SGD = "SGD"


@dataclass(frozen=True)
class SourcedPowers:
    """Powers of one size, by quantity.

    ``damping``: per degree of what a damping is added to. ``forgetting``: of 1 - beta.
    """

    lr: Expr
    decay: Expr
    damping: Expr
    forgetting: Expr
    source: str


POWERS: Mapping[tuple[str, RuleFamily], SourcedPowers] = {
    (BATCH, RuleFamily.ADAM): SourcedPowers(
        HALF, HALF, -HALF, S.One, "arXiv 2205.10287; decay: arXiv 2405.13698"
    ),
    (BATCH, RuleFamily.SGD): SourcedPowers(
        S.One, S.Zero, S.Zero, S.Zero, "arXiv 1706.02677; decay: arXiv 2405.13698"
    ),
    (SAMPLES, RuleFamily.ADAM): SourcedPowers(
        -HALF, -HALF, HALF, -S.One, "arXiv 2512.22382, with tokens/batch steps"
    ),
}
SIZES = tuple(dict.fromkeys(size for size, _ in POWERS))


def sourced_powers(rule: Rule, size: str) -> SourcedPowers:
    """The powers of a rule's numbers in the batch or the number of samples.

    Raises:
        NotCovered: for a rule of neither family.

    >>> from scaling.rules.parser import parse
    >>> sourced_powers(parse("G / (sqrt(ema(G*G, beta)) + eps)"), "batch").lr
    1/2
    """
    family = family_of(rule)
    found = None if family is None else POWERS.get((size, family))
    if found is None:
        raise NotCovered(
            f"'{rule.name or rule}' where the {size} grows",
            "a rule with a power in the literature: " + ", ".join(
                f"{family}'s in the {name}" for name, family in POWERS
            ),
            f"keep the {size} of the base, or give powers of your own: {size}:lr=1/2",
        )  # fmt: skip
    return found


def family_of(rule: Rule) -> RuleFamily | None:
    """The family of a rule, if it has one.

    >>> from scaling.rules.parser import parse
    >>> [family_of(parse(x)) for x in ("ema(G, beta)", "sign(G)", "atan(G/sqrt(ema(G*G, beta)))")]
    [<RuleFamily.SGD: 'SGD'>, None, <RuleFamily.ADAM: 'Adam'>]
    """
    if not is_entrywise(rule.expression):
        return None
    nodes = list(rule.expression.walk())
    if any(isinstance(n, Divide) and _is_rooted(n.right) for n in nodes):
        return RuleFamily.ADAM
    return RuleFamily.SGD if all(map(_is_linear, nodes)) else None


def degree(rule: Rule, damping: str) -> Expr:
    """The degree in G of what a damping is added to; 1 where it is added to nothing.

    >>> from scaling.rules.parser import parse
    >>> degree(parse("G / sqrt(ema(G*G, beta) + eps)"), "eps")
    2
    >>> degree(parse("G / (sqrt(ema(G*G, beta)) + eps) + decay*W"), "eps")
    1
    """
    for node in rule.expression.walk():
        if isinstance(node, Add):
            for one, other in ((node.left, node.right), (node.right, node.left)):
                names = {n.name for n in one.walk() if isinstance(n, Symbol | Matrix)}
                if damping in names and not names & {"G", "W"}:
                    return _degree(other)
    return S.One


def _is_rooted(node: Node) -> bool:
    """Whether a denominator holds the root of an averaged square."""
    roots = [n for n in node.walk() if isinstance(n, Call) and n.function == "sqrt"]
    return any(
        isinstance(x, Call) and remembers(x) and _degree(x) == 2
        for root in roots
        for x in root.argument.walk()
    )


def _is_linear(node: Node) -> bool:
    if isinstance(node, Call):
        return is_average(node)
    if isinstance(node, Multiply):
        return any(not _has_gradient(x) for x in (node.left, node.right))
    return not isinstance(node, Power) and not (
        isinstance(node, Divide) and _has_gradient(node.right)
    )


def _has_gradient(node: Node) -> bool:
    return Matrix("G") in node.walk()


def _degree(node: Node) -> Expr:
    """The degree in G of a value, dampings apart."""
    match node:
        case Matrix("G"):
            return S.One
        case Multiply(x, y):
            return _degree(x) + _degree(y)
        case Divide(x, y):
            return _degree(x) - _degree(y)
        case Add(x, y) | Subtract(x, y):
            free = [s for s in (x, y) if not _is_damping(s)]
            return _degree(free[0]) if free else S.Zero
        case Negate(x):
            return _degree(x)
        case Power(x, Number(value)):
            return _degree(x) * Rational(value.numerator, value.denominator)
        case Call("sqrt", x):
            return _degree(x) * HALF
        case Call("abs", x):
            return _degree(x)
        case Call(_, x) if remembers(node):
            return _degree(x)
    return S.Zero


def _is_damping(node: Node) -> bool:
    return isinstance(node, Symbol) and node.kind is SymbolKind.DAMPING
