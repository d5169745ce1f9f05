"""Quotients that are bounded by the way they are written: a matrix by the norms of its own rows.

    X / sqrt(row_mean(X*X))                    rows of root mean square 1, or 0 where X has none
    X / sqrt(ema(row_mean(X*X), beta))         at most 1/sqrt(1 - beta), as the average holds X*X
    ema(X, b) / sqrt(row_mean(ema(X*X, b)))    bounded, by Cauchy-Schwarz

and the same with columns. Wherever the divisor vanishes, the row does, and 0/0 is 0. So it does not
matter where else a sum over samples or steps may vanish, as orth(G) does where G does not.

>>> from scaling.rules.parser import parse
>>> [is_one(parse(x).expression) for x in ("G/sqrt(row_mean(G*G))", "G/sqrt(row_mean(L@G*G))")]
[True, False]
>>> is_one(parse("orth(G)/sqrt(row_mean(G*G))").expression)
False
"""

from __future__ import annotations

from fractions import Fraction

from scaling.rules.operators import FUNCTIONS
from scaling.rules.tree import Call, Divide, Multiply, Node, Number, Power, is_average

HALF, TWO = Number(Fraction(1, 2)), Number(Fraction(2))


def is_one(node: Node) -> bool:
    """Whether a node is X / sqrt(row_mean(X*X)), with averages over steps where they bound it."""
    match node:
        case Divide(x, Call("sqrt", inside)):
            return _bounds(inside, x)
        case Divide(x, Power(inside, exponent)) if exponent == HALF:
            return _bounds(inside, x)
    return False


def _bounds(divisor: Node, x: Node) -> bool:
    inside, averaged = _without_averages(divisor)
    match inside:
        case Call(function, squares) if FUNCTIONS[function].mean and not inside.shape.is_scalar:
            squares, within = _without_averages(squares)
        case _:
            return False
    match squares:
        case Multiply(p, q) if p == q:
            root = p
        case Power(p, exponent) if exponent == TWO:
            root = p
        case _:
            return False
    own = isinstance(x, Call) and is_average(x) and x.argument == root  # by Cauchy-Schwarz
    return x == root or ((averaged or within) and own)


def _without_averages(node: Node) -> tuple[Node, bool]:
    averaged = False
    while isinstance(node, Call) and _holds_this_step(node):
        node, averaged = node.argument, True
    return node, averaged


def _holds_this_step(node: Call) -> bool:
    """Whether a sum over steps is at least some part of what it sums, as previous(X) is not."""
    weights = FUNCTIONS[node.function].weights
    return weights is not None and weights.now != "0"
