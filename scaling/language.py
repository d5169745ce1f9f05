"""The rule language: an optimizer's update, written once, as an expression over a layer's matrices.

    matrices   G A B L R W I, .T
    operators  @  **  +  -  *  /       ** on square matrices is a matrix power;
                                       *, /, ** on gradient-like matrices act entrywise
    functions  sign abs sqrt (entrywise) . orth newton_schulz(X, steps) (polar factor)
               trace norm specnorm rms inner(X, Y) (scalars) . over_layers(x) (their sum)
               diag row_mean col_mean . block(X, size) . ema(X, beta) debiased(X, beta)
               eig (eigenvectors) . sample_square(X) (per-sample second moment)
               ascended(X) (the gradient at W + X)
    scalars    fan_in fan_out, numbers, and any other lower-case name: a hyper-parameter;
               rho*, eps* are damping, decay* a decay of the weights, radius* the size of a
               perturbation, e, e_*, e1.. are exponents, all others are Theta(1)

A rule is a tree of frozen nodes. Python operators build it; `parse` (parser.py) builds the same
tree from text:

>>> rho_B, e_B = symbol("rho_B"), symbol("e_B")
>>> print((B + rho_B * I) ** (-e_B) @ G)
(B + rho_B*I)**(-e_B) @ G

Shapes are checked while the tree is built, so an impossible rule cannot be written down:

>>> G @ G
Traceback (most recent call last):
    ...
scaling.errors.RuleError: found: G (fan_out x fan_in) @ G (fan_out x fan_in)
needed: as many columns on the left as rows on the right
do this: transpose one side with .T, or put a square matrix of the right side between them

Two interpreters read the tree: the order calculus (calculus.py) and the numeric one
(empirical/numbers.py). Neither knows the name of an optimizer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from functools import cached_property

from scaling.errors import RuleError, unknown
from scaling.functions import FUNCTIONS
from scaling.shapes import SCALAR, UPDATE, Dim, Frame, Shape, broadcast

MATRICES: dict[str, tuple[Shape, str]] = {
    "G": (UPDATE, "gradient, D H^T / n"),
    "A": (Shape(Dim.FAN_IN, Dim.FAN_IN), "input second moment, H H^T / n"),
    "B": (Shape(Dim.FAN_OUT, Dim.FAN_OUT), "cotangent second moment, D D^T / n"),
    "L": (Shape(Dim.FAN_OUT, Dim.FAN_OUT), "G G^T"),
    "R": (Shape(Dim.FAN_IN, Dim.FAN_IN), "G^T G"),
    "W": (UPDATE, "the weights"),
    "I": (Shape(Dim.ANY, Dim.ANY), "the identity"),
}
FANS = ("fan_in", "fan_out")


class SymbolKind(StrEnum):
    """What a hyper-parameter is, read off its name."""

    DAMPING = "damping"
    DECAY = "decay"
    RADIUS = "radius"
    EXPONENT = "exponent"
    CONSTANT = "constant"

    @property
    def is_scaled(self) -> bool:
        """Whether it scales with the width, as M^(-d); see conditions.py for what fixes d."""
        return self in (SymbolKind.DAMPING, SymbolKind.DECAY, SymbolKind.RADIUS)


_KINDS = {
    SymbolKind.DAMPING: re.compile(r"(rho|eps)\w*"),
    SymbolKind.DECAY: re.compile(r"decay\w*"),
    SymbolKind.RADIUS: re.compile(r"radius\w*"),
    SymbolKind.EXPONENT: re.compile(r"e(_\w+|\d+)?"),
}
_NAME = re.compile(r"[a-z]\w*")


# --- nodes --------------------------------------------------------------------------------------


class Node:
    """A node of a rule. Nodes compare by structure and never change."""

    @property
    def shape(self) -> Shape:
        """Rows and columns."""
        raise NotImplementedError

    @property
    def children(self) -> tuple[Node, ...]:
        """Operands, left to right."""
        return ()

    def walk(self) -> Iterator[Node]:
        """This node and all below it, children first."""
        for child in self.children:
            yield from child.walk()
        yield self

    @property
    def T(self) -> Node:
        """Transpose; a scalar is its own."""
        return self if self.shape.is_scalar else Transpose(self)

    def __add__(self, other: Operand) -> Node:
        return Add(self, as_node(other))

    def __radd__(self, other: Operand) -> Node:
        return Add(as_node(other), self)

    def __sub__(self, other: Operand) -> Node:
        return Subtract(self, as_node(other))

    def __rsub__(self, other: Operand) -> Node:
        return Subtract(as_node(other), self)

    def __mul__(self, other: Operand) -> Node:
        return Multiply(self, as_node(other))

    def __rmul__(self, other: Operand) -> Node:
        return Multiply(as_node(other), self)

    def __truediv__(self, other: Operand) -> Node:
        return quotient(self, as_node(other))

    def __rtruediv__(self, other: Operand) -> Node:
        return quotient(as_node(other), self)

    def __matmul__(self, other: Operand) -> Node:
        return MatMul(self, as_node(other))

    def __pow__(self, power: Operand) -> Node:
        return Power(self, as_node(power))

    def __neg__(self) -> Node:
        return Negate(self)

    def __abs__(self) -> Node:
        return call("abs", self)

    _precedence = 5
    __array_ufunc__ = None  # a numpy number on the left leaves the operation to the node

    def __str__(self) -> str:
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"<rule {self}>"

    def _wrap(self, child: Node, strictly: bool = False) -> str:
        loose = child._precedence < self._precedence
        tie = strictly and child._precedence == self._precedence
        return f"({child})" if loose or tie else str(child)


Operand = Node | int | float | Fraction


def as_node(value: Operand) -> Node:
    """A node from a node or a number; floats are read as the decimals they print as."""
    if isinstance(value, Node):
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float, Fraction)):
        raise RuleError(
            f"{value!r} ({type(value).__name__}) in a rule",
            "a matrix, a symbol or a number",
            "build symbols with symbol('rho')",
        )
    if isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):
            raise RuleError(f"the number {value}", "a finite number", "write it out")
        return as_node(Fraction(repr(float(value))))
    number = Number(abs(Fraction(value)))
    return Negate(number) if value < 0 else number


@dataclass(frozen=True, repr=False)
class Matrix(Node):
    """A matrix that every layer has: one of G A B L R W I."""

    name: str

    def __post_init__(self) -> None:
        if self.name not in MATRICES:
            raise unknown("matrix", self.name, MATRICES, RuleError)

    @property
    def shape(self) -> Shape:
        """Rows and columns."""
        return MATRICES[self.name][0]

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, repr=False)
class Symbol(Node):
    """A hyper-parameter: a damping, a decay, a radius, an exponent, or a number of order one."""

    name: str

    def __post_init__(self) -> None:
        if self.name in FUNCTIONS or not _NAME.fullmatch(self.name):
            raise RuleError(
                f"'{self.name}' as the name of a hyper-parameter",
                "a name in lower case that is not a function of the language",
                "rename it, or call the function: " + self.name + "(X)",
            )

    @property
    def shape(self) -> Shape:
        """Rows and columns."""
        return SCALAR

    @property
    def kind(self) -> SymbolKind:
        """Read off the name: rho*, eps*, decay*, radius*, e, e_*, e1..; else of order one."""
        kinds = (kind for kind, names in _KINDS.items() if names.fullmatch(self.name))
        return next(kinds, SymbolKind.CONSTANT)

    @property
    def is_fan(self) -> bool:
        """Whether this is fan_in or fan_out."""
        return self.name in FANS

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, repr=False)
class Number(Node):
    """An exact number, not negative."""

    value: Fraction

    @property
    def shape(self) -> Shape:
        """Rows and columns."""
        return SCALAR

    @property
    def _precedence(self) -> int:  # type: ignore[override]
        return 5 if self.value.denominator == 1 else 2

    def __str__(self) -> str:
        return str(self.value)


@dataclass(frozen=True, repr=False)
class _Binary(Node):
    left: Node
    right: Node

    def __post_init__(self) -> None:
        _ = self.shape  # an ill-shaped node must not exist

    @property
    def children(self) -> tuple[Node, ...]:
        """Operands, left to right."""
        return self.left, self.right

    def _shapes(self) -> tuple[Shape, Shape]:
        return self.left.shape, self.right.shape

    def _refuse(self, needed: str, do_this: str) -> RuleError:
        (x, y), op = self._shapes(), self._operator.strip()
        found = f"{short(self.left)} ({x}) {op} {short(self.right)} ({y})"
        return RuleError(found, needed, do_this)

    def _broadcast(self) -> Shape:
        shape = broadcast(*self._shapes())
        if shape is not None:
            return shape
        if any(s.is_rotated for s in self._shapes()):
            raise self._refuse("two matrices rotated into the same eigenbases", _ROTATE)
        raise self._refuse("two values of the same shape", "check the sides; .T transposes")

    _operator = "?"

    def __str__(self) -> str:
        return f"{self._wrap(self.left)}{self._operator}{self._wrap(self.right, strictly=True)}"


class _Sum(_Binary):
    _precedence = 1

    @cached_property
    def shape(self) -> Shape:
        """Rows and columns."""
        x, y = self._shapes()
        if x.is_rotation or y.is_rotation:
            raise self._refuse("matrices that an eigenbasis was applied to", _ROTATE)
        if x == y:
            return x
        if x.is_square and y.is_square and Dim.ANY in (x.rows, y.rows):
            return y if x.rows is Dim.ANY else x
        if (x.is_scalar and y.is_square) or (y.is_scalar and x.is_square):
            raise self._refuse("two matrices of the same shape", "multiply the scalar by I")
        return self._broadcast()


class Add(_Sum):
    """Sum; a scalar or a vector broadcasts over a gradient-like matrix."""

    _operator = " + "


class Subtract(_Sum):
    """Difference."""

    _operator = " - "


class _Entrywise(_Binary):
    _precedence = 2

    @cached_property
    def shape(self) -> Shape:
        """Rows and columns."""
        x, y = self._shapes()
        if y.is_scalar:
            return x
        inverts = isinstance(self, Divide)
        if x.is_scalar and not ((y.is_square or y.is_rotation) and inverts):
            return y
        if x.is_rotation or y.is_rotation:
            raise self._refuse("an eigenbasis in matrix products only", _ROTATE)
        if x.is_square or y.is_square:
            raise self._refuse(
                "a scalar, or entries of gradient-like matrices: square matrices have no "
                "entrywise product here",
                "use @ for the matrix product and **(-1) for the inverse",
            )
        return self._broadcast()


class Multiply(_Entrywise):
    """Product with a scalar, or entry by entry."""

    _operator = "*"


class Divide(_Entrywise):
    """Quotient by a scalar, or entry by entry; 0/0 is 0 (a weight without gradient rests)."""

    _operator = "/"


def quotient(left: Node, right: Node) -> Node:
    """Left / right; a quotient of numbers is a number, so that 1/2 is what 0.5 is."""
    if isinstance(right, Number) and right.value != 0:
        if isinstance(left, Number):
            return Number(left.value / right.value)
        if isinstance(left, Negate) and isinstance(left.operand, Number):
            return Negate(Number(left.operand.value / right.value))
    return Divide(left, right)


class MatMul(_Binary):
    """Matrix product."""

    _operator = " @ "
    _precedence = 2

    @cached_property
    def shape(self) -> Shape:
        """Rows and columns."""
        x, y = self._shapes()
        if x.is_scalar or y.is_scalar:
            raise self._refuse("two matrices", "use * with a scalar")
        if x.is_rotation or y.is_rotation:
            return self._rotate(x, y)
        if x.is_rotated or y.is_rotated:
            raise self._refuse("products before matrices are rotated", _ROTATE)
        if Dim.ANY in (x.cols, y.rows):
            return y if x.cols is Dim.ANY else x
        if x.cols is not y.rows:
            raise self._refuse(
                "as many columns on the left as rows on the right",
                "transpose one side with .T, or put a square matrix of the right side between them",
            )
        return Shape(x.rows, y.cols)

    def _rotate(self, x: Shape, y: Shape) -> Shape:
        turned = y if x.is_rotation else x
        if not (turned.is_gradient_like or turned.is_rotated):
            raise self._refuse("an eigenbasis beside a gradient-like matrix", _ROTATE)
        if x.cols != y.rows:
            inner = (x.cols, y.rows)
            own = isinstance(inner[0], Frame) and isinstance(inner[1], Frame)
            if own or x.dims[1] is not y.dims[0]:
                raise self._refuse("the eigenbasis that the matrix is in, on its side", _ROTATE)
            raise self._refuse(
                "an eigenbasis that is turned the other way",
                "rotate with eig(X).T @ G @ eig(Y), rotate back with eig(X) @ ... @ eig(Y).T",
            )
        return Shape(x.rows, y.cols)


_ROTATE = (
    "rotate last and rotate back before anything else: "
    "eig(L) @ f(eig(L).T @ (...) @ eig(R)) @ eig(R).T"
)


@dataclass(frozen=True, repr=False)
class Power(Node):
    """Matrix power of a square matrix; entrywise power of anything else."""

    base: Node
    power: Node

    _precedence = 4

    def __post_init__(self) -> None:
        if self.base.shape.is_rotation:
            raise RuleError(
                f"a power of the eigenbasis {short(self.base)}",
                "a power of a square matrix, or of entries",
                "write powers of the matrix itself: L**(-1/4) @ G",
            )
        for node in self.power.walk():
            if isinstance(node, Divide) and isinstance(node.right, Number) and not node.right.value:
                raise RuleError(
                    f"the power {short(self.power)}", "a finite number", "do not divide by 0"
                )
            ok = isinstance(node, (Number, Add, Subtract, Multiply, Divide, Negate)) or (
                isinstance(node, Symbol) and node.kind is SymbolKind.EXPONENT
            )
            if not ok:
                raise RuleError(
                    f"the power {short(self.power)}",
                    "a number or a symbol named e, e_*, e1.., with + - * /",
                    f"rename {short(node)} to e_{str(node)[:8]} if it is an exponent"
                    if isinstance(node, Symbol) and not node.is_fan
                    else "write the power as a number or an exponent symbol",
                )

    @property
    def shape(self) -> Shape:
        """Rows and columns."""
        return self.base.shape

    @property
    def children(self) -> tuple[Node, ...]:
        """Operands, left to right."""
        return (self.base,)

    def __str__(self) -> str:
        return f"{self._wrap(self.base, strictly=True)}**{self._wrap(self.power, strictly=True)}"


@dataclass(frozen=True, repr=False)
class Negate(Node):
    """Minus."""

    operand: Node

    _precedence = 3

    @property
    def shape(self) -> Shape:
        """Rows and columns."""
        return self.operand.shape

    @property
    def children(self) -> tuple[Node, ...]:
        """Operands, left to right."""
        return (self.operand,)

    def __str__(self) -> str:
        return f"-{self._wrap(self.operand, strictly=True)}"


@dataclass(frozen=True, repr=False)
class Transpose(Node):
    """Transpose."""

    operand: Node

    @property
    def shape(self) -> Shape:
        """Rows and columns."""
        return self.operand.shape.transposed

    @property
    def children(self) -> tuple[Node, ...]:
        """Operands, left to right."""
        return (self.operand,)

    def __str__(self) -> str:
        return f"{self._wrap(self.operand)}.T"


@dataclass(frozen=True, repr=False)
class Call(Node):
    """A function of the language applied to a matrix, with scalar options."""

    function: str
    argument: Node
    option: Node | None = None

    def __post_init__(self) -> None:
        _ = self.shape

    @cached_property
    def shape(self) -> Shape:
        """Rows and columns."""
        function, shape = FUNCTIONS[self.function], self.argument.shape
        if not function.accepts(shape):
            found = f"{self.function}({short(self.argument)}) of a {shape}"
            raise RuleError(found, function.needs, function.about)
        if function.basis:
            return Shape(shape.rows, Frame(shape.dims[0], str(self.argument)))
        return function.result(shape)

    @property
    def children(self) -> tuple[Node, ...]:
        """Operands, left to right."""
        return (self.argument,) if self.option is None else (self.argument, self.option)

    def __str__(self) -> str:
        return f"{self.function}({', '.join(map(str, self.children))})"


# --- functions --------------------------------------------------------------------------------


def is_average(node: Node) -> bool:
    """Whether a node is a moving average over the steps of training."""
    return isinstance(node, Call) and FUNCTIONS[node.function].average


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


def short(node: Node, limit: int = 40) -> str:
    """The text of a node, cut to fit a message."""
    text = str(node)
    return text if len(text) <= limit else text[: limit - 3] + "..."


G, A, B, L, R, W, I = (Matrix(name) for name in "GABLRWI")
fan_in, fan_out = (Symbol(name) for name in FANS)
