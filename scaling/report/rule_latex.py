r"""A rule as mathematics: matrices side by side, entrywise products with a dot in a circle.

>>> from scaling.rules.parser import parse
>>> print(formula(parse("(B + rho_B*I)**(-e_B) @ G").expression))
\left(B + \rho_{B} I\right)^{- e_{B}} G
>>> print(formula(parse("G/(sqrt(G*G) + eps)").expression))
\frac{G}{\sqrt{G \odot G} + \epsilon}
"""

from __future__ import annotations

from collections.abc import Mapping

import sympy

from scaling.rules.rule import Rule
from scaling.rules.tree import (
    Add,
    Call,
    Divide,
    MatMul,
    Multiply,
    Negate,
    Node,
    Number,
    Power,
    Subtract,
    Transpose,
)

_NAMES = {"eps": "epsilon"}
_SUM, _PRODUCT, _ATOM = 1, 2, 3


def equation(rule: Rule) -> str:
    """The update, and the parts that the rule names, as lines of one display."""
    names = {node: name for name, node in rule.parts.items()}
    lines = [rf"\Delta W = {formula(rule.expression, names)}"]
    for name, node in rule.parts.items():
        others = {part: other for part, other in names.items() if part != node}
        lines.append(f"{_symbol(name)} = {formula(node, others)}")
    return r" \\ ".join(lines)


def formula(node: Node, names: Mapping[Node, str] | None = None) -> str:
    """A node, with names in the place of nodes that have one."""
    return _written(node, names or {})[0]


def _symbol(name: str) -> str:
    head, mark, tail = name.partition("_")
    return str(sympy.latex(sympy.Symbol(_NAMES.get(head, head) + mark + tail)))


def _written(node: Node, names: Mapping[Node, str]) -> tuple[str, int]:
    """The text, and how tightly it binds."""
    if node in names:
        return _symbol(names[node]), _ATOM

    def part(child: Node, least: int) -> str:
        text, binds = _written(child, names)
        return text if binds >= least else rf"\left({text}\right)"

    match node:
        case Number(value=value):
            if value.denominator == 1:
                return str(value), _ATOM
            return rf"\frac{{{value.numerator}}}{{{value.denominator}}}", _ATOM
        case Add(left=x, right=y):
            return f"{part(x, _SUM)} + {part(y, _SUM)}", _SUM
        case Subtract(left=x, right=y):
            return f"{part(x, _SUM)} - {part(y, _PRODUCT)}", _SUM
        case Negate(operand=x):
            return f"- {part(x, _PRODUCT)}", _SUM
        case MatMul(left=x, right=y):
            return f"{part(x, _PRODUCT)} {part(y, _PRODUCT)}", _PRODUCT
        case Multiply(left=x, right=y):
            both = not x.shape.is_scalar and not y.shape.is_scalar
            sign = r" \odot " if both else " "
            return f"{part(x, _PRODUCT)}{sign}{part(y, _PRODUCT)}", _PRODUCT
        case Divide(left=x, right=y):
            return rf"\frac{{{part(x, _SUM)}}}{{{part(y, _SUM)}}}", _ATOM
        case Power(base=x, power=p):
            base = part(x, _ATOM)
            base = f"{{{base}}}" if isinstance(x, Power | Transpose | Divide) else base
            return f"{base}^{{{part(p, _SUM)}}}", _ATOM
        case Transpose(operand=x):
            return rf"{{{part(x, _ATOM)}}}^{{\top}}", _ATOM
        case Call(function="sqrt"):
            return rf"\sqrt{{{part(node.children[0], _SUM)}}}", _ATOM
        case Call(function="abs"):
            return rf"\left|{part(node.children[0], _SUM)}\right|", _ATOM
        case Call(function=name):
            inner = ", ".join(part(x, _SUM) for x in node.children)
            written = name.replace("_", r"\_")
            return rf"\operatorname{{{written}}}\left({inner}\right)", _ATOM
    return _symbol(str(node)), _ATOM
