"""The terms of a sum, like terms collected: what cancels as it is written is exactly zero.

>>> from scaling.rules.language import G, A, I, symbol
>>> collect(A + symbol("rho") * I - A)
[<rule rho*I>]
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

from scaling.rules.symbols import SymbolKind
from scaling.rules.tree import (
    Add,
    Call,
    Divide,
    MatMul,
    Matrix,
    Multiply,
    Negate,
    Node,
    Number,
    Subtract,
    Symbol,
)


def collect(node: Node, simplify: Callable[[Node], Node] = lambda node: node) -> list[Node]:
    """The terms of a sum with like terms collected; those that cancel exactly are gone.

    A term that is subtracted keeps its sign. Terms are compared as ``simplify`` writes them.

    >>> from scaling.rules.language import G, A, I, symbol
    >>> collect(A + symbol("rho") * I - A)
    [<rule rho*I>]
    >>> collect(2 * G - (G + G))
    []
    """
    written: dict[Node, Node] = {}
    total = totals(node, simplify, written)
    kept = [(written.get(term, term), x) for term, x in total.items() if x != 0]
    return [term if factor > 0 else Negate(term) for term, factor in kept]


def totals(
    node: Node,
    simplify: Callable[[Node], Node] = lambda node: node,
    written: dict[Node, Node] | None = None,
) -> dict[Node, Fraction]:
    """The terms of a sum, as ``simplify`` writes them, and the number in front of each.

    ``written`` is told how each was written first.
    """
    total: dict[Node, Fraction] = {}
    originals = {} if written is None else written

    def go(node: Node, factor: Fraction, original: Node | None = None) -> None:
        match node:
            case Add(left, right):
                go(left, factor)
                go(right, factor)
            case Subtract(left, right):
                go(left, factor)
                go(right, -factor)
            case Negate(operand):
                go(operand, -factor)
            case Multiply(Number(value), other) | Multiply(other, Number(value)):
                go(other, factor * value)
            case Divide(other, Number(value)) if value != 0:
                go(other, factor / value)
            case MatMul(Matrix("I"), other) | MatMul(other, Matrix("I")):
                go(other, factor)
            case Number(value):
                one = Number(Fraction(1))
                total[one] = total.get(one, Fraction(0)) + factor * value
            case _:
                simple = simplify(node)
                if simple != node:
                    go(simple, factor, node)
                    return
                originals.setdefault(simple, original or node)
                total[simple] = total.get(simple, Fraction(0)) + factor

    go(node, Fraction(1))
    return total


def in_full(node: Node, term: Node) -> Node | None:
    """A term of a sum with the number in front of it; None for a part of a longer sum.

    >>> from scaling.rules.language import W, norm
    >>> in_full(1 + norm(W) / 100, norm(W))
    <rule 1/100*norm(W)>
    """
    if not isinstance(node, Add | Subtract):
        return term
    bare = term.operand if isinstance(term, Negate) else term
    if isinstance(bare, Add | Subtract):
        return None
    factor = totals(node).get(bare)
    if factor is None or factor == 0:
        return None
    number = Number(abs(factor))
    if isinstance(bare, Number):
        return number
    return bare if number.value == 1 else Multiply(number, bare)


def is_joint(node: Node) -> bool:
    """Whether a node sums over the layers of the network numbers that follow from dampings.

    >>> from scaling.rules.language import G, norm, over_layers, symbol
    >>> is_joint(over_layers(norm(G))), is_joint(over_layers(norm(G) / symbol("eps")))
    (False, True)
    """
    sums = (n for n in node.walk() if isinstance(n, Call) and n.function == "over_layers")
    return any(isinstance(x, Symbol) and x.kind.is_scaled for n in sums for x in n.argument.walk())


def is_damping(node: Node) -> bool:
    """Whether a node is a damping times something, and not a matrix with one inside.

    >>> from scaling.rules.language import A, G, I, symbol, trace
    >>> damping = symbol("rho") * trace(A) * I
    >>> is_damping(damping), is_damping(G @ (A + damping) ** (-1))
    (True, False)
    """
    match node:
        case Symbol():
            return node.kind is SymbolKind.DAMPING
        case Add() | Subtract():
            return all(map(is_damping, node.children))
    return any(map(is_damping, node.children))


def contains_damping(node: Node) -> bool:
    """Whether a damping symbol occurs in a node."""
    return any(isinstance(n, Symbol) and n.kind is SymbolKind.DAMPING for n in node.walk())
