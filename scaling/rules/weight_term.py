"""A rule as a multiple of the weights and all the rest: dW = U + beta W.

Claim.  Of weights that never exist (implicit.py) products are known, and the norm. So a rule may
hold norm(W) and rms(W), as numbers, and W itself in a term that is a number times W.

An average is linear, ema(U + beta W) = ema(U) + ema(beta) W as long as the weights are those of the
start: in the first step. Later ones average weights of several steps.

Not covered: W elsewhere, which stays in the update and is refused there (method.py).

>>> from scaling.rules.parser import parse
>>> parts(parse("norm(W) * (sign(G) + 1/2*W)").expression)
Parts(update=<rule norm(W)*sign(G)>, multiple=<rule norm(W)*(1/2)>, first=None)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from typing import TypeGuard

from scaling.rules.ascents import operands
from scaling.rules.language import (
    Add,
    Call,
    Divide,
    Matrix,
    Multiply,
    Negate,
    Node,
    Number,
    Subtract,
    is_average,
)
from scaling.rules.operators import FUNCTIONS

_ONE = Number(Fraction(1))


@dataclass(frozen=True)
class Parts:
    """A rule taken apart: dW = update + multiple * W, the multiple a number; None: no such term.

    ``first`` is an average of weights, if any: then this holds in the first step alone.
    """

    update: Node | None
    multiple: Node | None
    first: Node | None = None

    @property
    def terms(self) -> tuple[Node, ...]:
        """The terms that there are."""
        return tuple(x for x in (self.update, self.multiple) if x is not None)

    def map(self, function: Callable[[Node], Node]) -> Parts:
        """A linear function of both."""
        update, multiple = (x and function(x) for x in (self.update, self.multiple))
        return replace(self, update=update, multiple=multiple)


@lru_cache(maxsize=1024)
def parts(node: Node) -> Parts:
    """A rule as a multiple of the weights and all the rest."""
    if not has_weights(node):
        return Parts(node, None)
    match node:
        case Matrix("W"):
            return Parts(None, _ONE)
        case Add(x, y):
            return _sum(parts(x), parts(y))
        case Subtract(x, y):
            return _sum(parts(x), parts(y).map(Negate))
        case Negate(x):
            return parts(x).map(Negate)
        case Multiply(x, y) if x.shape.is_scalar:
            return parts(y).map(lambda part: x if part == _ONE else Multiply(x, part))
        case Multiply(x, y) if y.shape.is_scalar:
            return parts(x).map(lambda part: y if part == _ONE else Multiply(part, y))
        case Divide(x, y) if y.shape.is_scalar:
            return parts(x).map(lambda part: Divide(part, y))
        case Call(function, x, beta) if is_average(node):
            return replace(parts(x).map(lambda part: Call(function, part, beta)), first=node)
    return Parts(node, None)


def _sum(x: Parts, y: Parts) -> Parts:
    def both(a: Node | None, b: Node | None) -> Node | None:
        return Add(a, b) if a is not None and b is not None else a or b

    first = x.first if x.first is not None else y.first
    return Parts(both(x.update, y.update), both(x.multiple, y.multiple), first)


def is_weight_size(node: Node) -> TypeGuard[Call]:
    """Whether a number is the norm of the weights or their root mean square."""
    match node:
        case Call(function, Matrix("W")):
            return FUNCTIONS[function].norm and FUNCTIONS[function].sums
    return False


@lru_cache(maxsize=4096)
def has_weights(node: Node) -> bool:
    """Whether the weights stand in a part of a rule other than in their norm, or in ascended(X)."""
    if is_weight_size(node):
        return False
    return node == Matrix("W") or any(map(has_weights, operands(node)))
