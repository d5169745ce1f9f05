"""The rule language: an optimizer's update, written once, as an expression over a layer's matrices.

    matrices   G A B L R W I, .T
    operators  @  **  +  -  *  /       ** on square matrices is a matrix power;
                                       *, /, ** on gradient-like matrices act entrywise
    functions  sign(G), clip(G, 1), orth(G), norm(G), ema(G, beta): one row each in operators.py,
               a table of which is in docs/language.md
    scalars    fan_in fan_out, numbers, and any other lower-case name: a hyper-parameter;
               rho*, eps* are damping, decay* a decay of the weights, radius* the size of a
               perturbation, e, e_*, e1.. are exponents, all others are Theta(1)

A rule is a tree of frozen nodes (tree.py). Python operators build it from the names of this file;
`parse` (parser.py) builds the same tree from text:

>>> rho_B, e_B = symbol("rho_B"), symbol("e_B")
>>> print((B + rho_B * I) ** (-e_B) @ G)
(B + rho_B*I)**(-e_B) @ G

Shapes are checked while the tree is built, so an impossible rule cannot be written down:

>>> G @ G
Traceback (most recent call last):
    ...
scaling.sizes.errors.RuleError: found: G (fan_out x fan_in) @ G (fan_out x fan_in)
needed: as many columns on the left as rows on the right
do this: transpose one side with .T, such as G @ G.T @ G

Two interpreters read the tree: the order calculus (read.py) and the numeric one
(empirical/numbers/interpreter.py). Neither knows the name of an optimizer.

What names stand for is in symbols.py, what operators and functions are in operators.py, from which
the builders of functions, `orth` and the like, are made. Nodes are at hand here too, for those who
walk a rule.
"""

from __future__ import annotations

from collections.abc import Callable

from scaling.rules.operators import FUNCTIONS, Operator, SecondOperand
from scaling.rules.symbols import FANS, MATRICES, SymbolKind
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
    Operand,
    Power,
    Subtract,
    Symbol,
    Transpose,
    as_node,
    is_average,
    maps_spectrum,
    quotient,
    remembers,
    row_of,
    short,
)
from scaling.sizes.errors import RuleError, unknown

__all__ = [
    "FANS", "MATRICES", "A", "Add", "B", "Call", "Divide", "G", "I", "L", "MatMul", "Matrix",
    "Multiply", "Negate", "Node", "Number", "Operand", "Power", "R", "Subtract", "Symbol",
    "SymbolKind", "Transpose", "W", "as_node", "call", "fan_in", "fan_out", "is_average",
    "quotient", "remembers", "row_of", "short", "symbol",
]  # fmt: skip


def call(name: str, *arguments: Operand) -> Node:
    """Apply a function of the language by name, checking the arguments."""
    if name not in FUNCTIONS:
        raise unknown("function", name, FUNCTIONS, RuleError)
    row = FUNCTIONS[name]
    wanted = 1 if row.second is None else 2
    if len(arguments) != wanted:
        raise RuleError(
            f"{name} with {len(arguments)} argument{'s' * (len(arguments) != 1)}",
            f"{wanted}: {row.signature}",
            f"write for example {row.example}, {row.about}",
        )
    first, *rest = (as_node(argument) for argument in arguments)
    for option in rest:
        _check_second(row, first, option)
    return Call(name, first, *rest)


def _check_second(row: Operator, x: Node, y: Node) -> None:
    constant = isinstance(y, Symbol) and y.kind is SymbolKind.CONSTANT and not y.is_fan
    match row.second:
        case SecondOperand.LIKE_FIRST:
            fits, found = y.shape == x.shape, f" of a {x.shape} and a {y.shape}"
        case SecondOperand.SCALAR:
            fits, found = y.shape.is_scalar, f" with a {y.shape} after the comma"
        case SecondOperand.BESIDE:
            fits = not (y.shape.is_square or y.shape.is_rotation)
            found = f" with a {y.shape} after the comma"
        case SecondOperand.OF_SINGULAR_VALUE:
            nested = any(map(maps_spectrum, y.walk()))
            fits, found = y.shape.is_scalar and not nested, ""
        case SecondOperand.FADING:
            fits, found = constant or (isinstance(y, Number) and y.value <= 1), ""
        case SecondOperand.DECAY:
            fits, found = constant or (isinstance(y, Number) and y.value < 1), ""
        case _:
            whole = isinstance(y, Number) and y.value.denominator == 1 and y.value >= 1
            fits, found = whole, ""
    if not fits:
        raise RuleError(
            f"{row.name}({short(x)}, {short(y)}){found}",
            str(row.second),
            f"write for example {row.example}, {row.about}",
        )


def __getattr__(name: str) -> Callable[..., Node]:
    """The builder of a function of the language, as `orth`; that of max is `maximum`.

    >>> newton_schulz = __getattr__("newton_schulz")
    >>> newton_schulz(G)
    <rule newton_schulz(G, 5)>
    """
    row = next((row for row in FUNCTIONS.values() if row.builder == name), None)
    if row is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def build(*operands: Operand) -> Node:
        given = row.default is not None and len(operands) == 1
        return call(row.name, *operands, *((row.default,) if given else ()))

    build.__name__ = build.__qualname__ = name
    build.__doc__ = f"{row.signature}: {row.about}."
    return build


def __dir__() -> list[str]:
    """All names, the builders of functions too."""
    return sorted([*globals(), *(row.builder for row in FUNCTIONS.values())])


def symbol(name: str) -> Symbol:
    """A hyper-parameter; its kind is read off its name (rho*, eps*: damping; e, e_*: exponent).

    >>> symbol("rho_A").kind.name, symbol("e").kind.name
    ('DAMPING', 'EXPONENT')
    """
    return Symbol(name)


G, A, B, L, R, W, I = (Matrix(name) for name in "GABLRWI")
fan_in, fan_out = (Symbol(name) for name in FANS)
