"""Which rules keep the update in the span of the data, decided from the tree.

    dW = D C H^T, C small     if every matrix is a spectral function of A, B, L, R, or G times such

Anything that looks at single entries leaves the span: W, entrywise functions and products of
gradient-like matrices, diagonals and blocks, means of rows and columns. The first such node is the
reason that a refusal names.

>>> from scaling.parser import parse
>>> is_low_rank(parse("orth(G @ (A + rho*I)**(-1))")), is_low_rank(parse("sign(G)"))
(True, False)
"""

from __future__ import annotations

from scaling.errors import InvalidInput
from scaling.language import Add, Call, Divide, Matrix, Multiply, Node, Power, Subtract
from scaling.rule import Rule

_SPECTRAL = ("orth", "trace", "norm", "specnorm", "rms", "ema")


def is_low_rank(rule: Rule) -> bool:
    """Whether the update is D C H^T with a core C that follows from Gram matrices."""
    return entrywise_node(rule) is None


def entrywise_node(rule: Rule) -> Node | None:
    """The first node that looks at single entries, or None."""
    return next((node for node in rule.expression.walk() if _sees_entries(node)), None)


def refuse_unless_low_rank(rule: Rule) -> None:
    """Raise `InvalidInput` for a rule whose update needs the entries of a matrix."""
    node = entrywise_node(rule)
    if node is not None:
        raise InvalidInput(
            f"'{node}' in {rule.name or rule}, which looks at single entries of a matrix",
            "a rule whose update stays in the span of the data: D C H^T",
            "measure it on dense networks, at widths up to some thousands",
        )


def _sees_entries(node: Node) -> bool:
    match node:
        case Matrix(name):
            return name == "W"
        case Call(function, argument):
            return function not in _SPECTRAL and not argument.shape.is_scalar
        case Multiply(left, right) | Divide(left, right):
            return not left.shape.is_scalar and not right.shape.is_scalar
        case Add(left, right) | Subtract(left, right):
            plain = not left.shape.is_square and not right.shape.is_square
            return plain and left.shape != right.shape
        case Power(base):
            return not base.shape.is_square and not base.shape.is_scalar
    return False
