"""Tiny numbers that are added to a size: dampings that were written as literals.

    ema(G, 0.9)/(sqrt(ema(G*G, 0.999)) + 1e-8)   is read as   ... + eps_1   with eps_1 = 1e-8
    G @ (A + 1e-4*I)**(-1)                                    A + eps_1*I        eps_1 = 1e-4

and printed as it was written.

Claim.  A positive literal of at most `TINIEST_OF_ORDER_ONE` that is added to a size, or bounds one
from below in max(x, 1e-12), is meant to be small beside it. Read as a number of order one it would
outgrow every size that falls with the width, and Adam would have the rates of gradient descent. So
it is a damping: it has a name, an exponent d that follows from what it is added to, and the
literal as its value at the base width. d = 0 keeps it as it is written (``--set d_eps_1=0``).

Why 1/1000. In use are 1e-30 (Adafactor), 1e-16, 1e-12, 1e-10, 1e-8, 1e-7, 1e-6, 1e-4 and 1e-3
(K-FAC, Yogi), all of which guard a division; what is added on purpose as a number of order one (1,
0.5, 0.1, 0.01) is larger. Such a number keeps its size, and where it decides an exponent the
regime says so.

A literal counts as added to a size if a matrix of the layer stands in another term of the sum.
Equal sums share a name. Not covered: literals in front of something (1e-4*W, 1e-3*trace(A)*I),
which follow the size of that by themselves.

>>> from scaling.rules.parser import parse
>>> rule = parse("G/(norm(G) + 1e-8) + G/(1 + norm(G))")
>>> rule.expression, rule.dampings
(<rule G/(norm(G) + 1e-08) + G/(1 + norm(G))>, ('eps_1',))
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction

from scaling.rules.operators import FUNCTIONS, Extreme
from scaling.rules.rewrites import rebuilt
from scaling.rules.tree import Add, Call, Matrix, Multiply, Node, Number, Subtract, Symbol

TINIEST_OF_ORDER_ONE = Fraction(1, 1000)
"""Up to here a literal beside a size is a damping, from here on a number of order one."""


@dataclass(frozen=True, repr=False)
class LiteralDamping(Symbol):
    """A damping that was written as a number, which is its value at the base width."""

    value: Fraction = Fraction(0)

    @property
    def _precedence(self) -> int:  # type: ignore[override]
        return 2 if "/" in str(self) else 5

    def _text(self, names: Mapping[Node, str]) -> str:
        decimal = f"{float(self.value):g}"
        return decimal if Fraction(decimal) == self.value else str(self.value)


def with_named_literals(expression: Node) -> Node:
    """The tree with every tiny literal beside a size as a damping of its own name."""
    taken = {node.name for node in expression.walk() if isinstance(node, Symbol)}
    fresh = (name for name in _names() if name not in taken)
    named: dict[tuple[Node, int], str] = {}

    def go(node: Node) -> Node:
        if isinstance(node, Add | Subtract):
            return summed(node)
        if _is_larger(node):
            return summed(node)
        return rebuilt(node, go)

    def summed(top: Node) -> Node:
        """The terms of a sum, or of a maximum; ``place`` counts the literals among them."""
        place = -1

        def term(node: Node, beside: bool) -> Node:
            nonlocal place
            match node:
                case Add(x, y) if type(top) is not Call:
                    return Add(term(x, beside or _is_size(y)), term(y, beside or _is_size(x)))
                case Subtract(x, y) if type(top) is not Call:
                    return Subtract(term(x, beside), go(y))
                case Call(function, x, Node() as y) if node is top:
                    return Call(function, term(x, _is_size(y)), term(y, _is_size(x)))
                case Number(value) if beside and 0 < value <= TINIEST_OF_ORDER_ONE:
                    place += 1
                    if (top, place) not in named:
                        named[top, place] = next(fresh)
                    return LiteralDamping(named[top, place], value)
                case Multiply(Number() as x, Matrix("I") as y):
                    return Multiply(term(x, beside), y)
                case Multiply(Matrix("I") as x, Number() as y):
                    return Multiply(x, term(y, beside))
            return go(node)

        return term(top, beside=False)

    return go(expression)


def _is_larger(node: Node) -> bool:
    """Whether a node is the larger of two numbers, so that either bounds the other from below."""
    return isinstance(node, Call) and FUNCTIONS[node.function].reading == Extreme(larger=True)


def _names() -> Iterator[str]:
    number = 0
    while True:
        number += 1
        yield f"eps_{number}"


def _is_size(node: Node) -> bool:
    """Whether a term is made of what a layer has, and not of numbers alone."""
    return any(isinstance(x, Matrix) and x.name != "I" for x in node.walk())


def literals(expression: Node) -> tuple[LiteralDamping, ...]:
    """The literal dampings of a tree, each once."""
    return tuple(dict.fromkeys(x for x in expression.walk() if isinstance(x, LiteralDamping)))
