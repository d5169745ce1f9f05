"""The rule language: an optimizer's update, written once, as an expression over a layer's matrices.

    matrices   G A B L R W I, .T
    operators  @  **  +  -  *  /       ** on square matrices is a matrix power;
                                       *, /, ** on gradient-like matrices act entrywise
    functions  sign abs sqrt atan clip(X, bound) (entrywise)
               orth newton_schulz(X, steps) (polar factor)
               trace norm specnorm rms inner(X, Y) (scalars) . max(x, y) . over_layers(x) (a sum)
               diag row_mean col_mean . block(X, size) . ema(X, beta) debiased(X, beta)
               eig (eigenvectors) . sample_square(X) (per-sample second moment)
               ascended(X) (the gradient at W + X)
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
do this: transpose one side with .T, or put a square matrix of the right side between them

Two interpreters read the tree: the order calculus (read.py) and the numeric one
(empirical/numbers/interpreter.py). Neither knows the name of an optimizer.

What names stand for is in symbols.py, what operators and functions accept in operators.py and
functions.py. Nodes are at hand here too, for those who walk a rule.
"""

from __future__ import annotations

from scaling.rules.functions import FUNCTIONS
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
    quotient,
    short,
)
from scaling.sizes.errors import RuleError, unknown

__all__ = [
    "FANS", "MATRICES", "A", "Add", "B", "Call", "Divide", "G", "I", "L", "MatMul", "Matrix",
    "Multiply", "Negate", "Node", "Number", "Operand", "Power", "R", "Subtract", "Symbol",
    "SymbolKind", "Transpose", "W", "as_node", "ascended", "atan", "block", "call", "clip",
    "col_mean", "debiased", "diag", "eig", "ema", "fan_in", "fan_out", "inner", "is_average",
    "maximum", "newton_schulz", "norm", "orth", "over_layers", "quotient", "rms", "row_mean",
    "sample_square", "short", "sign", "specnorm", "sqrt", "symbol", "trace",
]  # fmt: skip


def call(name: str, *arguments: Operand) -> Node:
    """Apply a function of the language by name, checking the arguments."""
    if name not in FUNCTIONS:
        raise unknown("function", name, FUNCTIONS, RuleError)
    function = FUNCTIONS[name]
    wanted = 1 if function.option is None else 2
    if len(arguments) != wanted:
        signature = "X" if function.option is None else f"X, {function.option}"
        raise RuleError(
            f"{name} with {len(arguments)} argument{'s' * (len(arguments) != 1)}",
            f"{wanted}: {name}({signature})",
            function.about,
        )
    nodes = [as_node(argument) for argument in arguments]
    option = nodes[1] if function.option else None
    if function.option in ("size", "steps") and not (
        isinstance(option, Number) and option.value.denominator == 1 and option.value >= 1
    ):
        example = {"size": "block(A, 64)", "steps": "newton_schulz(G, 5)"}[function.option]
        raise RuleError(
            f"{name} {function.option} {option}",
            "a positive whole number",
            f"write for example {example}",
        )
    if function.option == "Y" and option is not None and option.shape != nodes[0].shape:
        raise RuleError(
            f"{name}({short(nodes[0])}, {short(option)}) of a {nodes[0].shape} and a "
            f"{option.shape}",
            "two matrices of one shape",
            function.about,
        )
    if function.option in ("bound", "y") and option is not None and not option.shape.is_scalar:
        raise RuleError(
            f"{name}({short(nodes[0])}, {short(option)}) with a {option.shape} after the comma",
            "a scalar there",
            function.about,
        )
    if function.option == "beta" and not (
        (isinstance(option, Number) and 0 <= option.value < 1)
        or (isinstance(option, Symbol) and option.kind is SymbolKind.CONSTANT and not option.is_fan)
    ):
        raise RuleError(
            f"the decay {option}",
            "a number in [0, 1) or a constant such as beta",
            "write for example ema(G, beta)",
        )
    return Call(name, nodes[0], option)


def sign(x: Node) -> Node:
    """Sign of each entry."""
    return call("sign", x)


def sqrt(x: Node) -> Node:
    """Square root of each entry."""
    return call("sqrt", x)


def orth(x: Node) -> Node:
    """Polar factor U V^T of X = U S V^T, on the span of X."""
    return call("orth", x)


def newton_schulz(x: Node, steps: int = 5) -> Node:
    """X/norm(X) after so many steps of Muon's quintic iteration."""
    return call("newton_schulz", x, steps)


def inner(x: Node, y: Node) -> Node:
    """The sum over entries of X times Y."""
    return call("inner", x, y)


def over_layers(x: Node) -> Node:
    """The sum of a scalar over all layers of the network."""
    return call("over_layers", x)


def atan(x: Node) -> Node:
    """Arctangent of each entry."""
    return call("atan", x)


def clip(x: Node, bound: Operand) -> Node:
    """Each entry cut off at -bound and bound."""
    return call("clip", x, bound)


def maximum(x: Operand, y: Operand) -> Node:
    """The larger of two scalars."""
    return call("max", x, y)


def trace(x: Node) -> Node:
    """Trace of a square matrix."""
    return call("trace", x)


def norm(x: Node) -> Node:
    """Frobenius norm."""
    return call("norm", x)


def specnorm(x: Node) -> Node:
    """Spectral norm."""
    return call("specnorm", x)


def rms(x: Node) -> Node:
    """Root mean square entry."""
    return call("rms", x)


def diag(x: Node) -> Node:
    """Diagonal part of a square matrix."""
    return call("diag", x)


def row_mean(x: Node) -> Node:
    """Mean of each row, a column."""
    return call("row_mean", x)


def col_mean(x: Node) -> Node:
    """Mean of each column, a row."""
    return call("col_mean", x)


def block(x: Node, size: int) -> Node:
    """Diagonal blocks, size x size each."""
    return call("block", x, size)


def ema(x: Node, beta: Operand) -> Node:
    """Moving average over steps; (1 - beta) X at the first step."""
    return call("ema", x, beta)


def debiased(x: Node, beta: Operand) -> Node:
    """Moving average divided by what its weights add up to, 1 - beta^t; X at the first step."""
    return call("debiased", x, beta)


def eig(x: Node) -> Node:
    """The orthogonal matrix of eigenvectors, by falling eigenvalue."""
    return call("eig", x)


def ascended(x: Node) -> Node:
    """The gradient after the weights of every layer have moved by x."""
    return call("ascended", x)


def sample_square(x: Node) -> Node:
    """Mean over samples of the squared entries of x, with each sample's own gradient for G."""
    return call("sample_square", x)


def symbol(name: str) -> Symbol:
    """A hyper-parameter; its kind is read off its name (rho*, eps*: damping; e, e_*: exponent)."""
    return Symbol(name)


G, A, B, L, R, W, I = (Matrix(name) for name in "GABLRWI")
fan_in, fan_out = (Symbol(name) for name in FANS)
