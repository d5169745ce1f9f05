"""The rule language: an optimizer's update, written once, as an expression over a layer's matrices.

    matrices   G A B L R W I, .T
    operators  @  **  +  -  *  /       ** on square matrices is a matrix power;
                                       *, /, ** on gradient-like matrices act entrywise
    functions  sign abs sqrt (entrywise) . orth (polar factor) . trace norm specnorm rms (scalars)
               diag row_mean col_mean . block(X, size) . ema(X, beta)
    scalars    fan_in fan_out, numbers, and any other lower-case name: a hyper-parameter;
               rho*, eps* are damping, e, e_*, e1.. are exponents, all others are Theta(1)

A rule is a tree of frozen nodes. Python operators build it; `parse` (parser.py) builds the same
tree from text:

>>> rho_B, e_B = symbol("rho_B"), symbol("e_B")
>>> print((B + rho_B * I) ** (-e_B) @ G)
(B + rho_B*I)**(-e_B) @ G

Shapes are checked while the tree is built, so an impossible rule cannot be written down:

>>> G @ G
Traceback (most recent call last):
    ...
scaling.language.RuleError: found: G (fan_out x fan_in) @ G (fan_out x fan_in)
needed: as many columns on the left as rows on the right
do this: transpose one side with .T, or put a square matrix of the right side between them

Two interpreters read the tree: the order calculus (calculus.py) and the numeric one
(empirical/numbers.py). Neither knows the name of an optimizer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from functools import cached_property
from typing import Protocol, TypeVar

from scaling.errors import InvalidInput, unknown


class RuleError(InvalidInput):
    """The rule is malformed. Raised while the tree is built; the parser adds the caret."""


# --- shapes -------------------------------------------------------------------------------------


class Dim(StrEnum):
    """The length of one side of a matrix."""

    ONE = "1"
    FAN_OUT = "fan_out"
    FAN_IN = "fan_in"
    ANY = "any"  # the identity, until it meets another matrix


@dataclass(frozen=True)
class Shape:
    """Rows and columns of a value in the language."""

    rows: Dim
    cols: Dim

    @property
    def is_scalar(self) -> bool:
        """1 x 1."""
        return self.rows is Dim.ONE and self.cols is Dim.ONE

    @property
    def is_square(self) -> bool:
        """Curvature-like: powers are matrix powers."""
        return self.rows is self.cols and not self.is_scalar

    @property
    def is_vector(self) -> bool:
        """One row or one column; broadcasts against gradient-like matrices."""
        return (self.rows is Dim.ONE) != (self.cols is Dim.ONE)

    @property
    def is_gradient_like(self) -> bool:
        """fan_out x fan_in or its transpose: products and powers are entrywise."""
        return {self.rows, self.cols} == {Dim.FAN_OUT, Dim.FAN_IN}

    @property
    def transposed(self) -> Shape:
        """The shape of the transpose."""
        return Shape(self.cols, self.rows)

    def __str__(self) -> str:
        return "scalar" if self.is_scalar else f"{self.rows} x {self.cols}"


SCALAR = Shape(Dim.ONE, Dim.ONE)
UPDATE = Shape(Dim.FAN_OUT, Dim.FAN_IN)
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
    EXPONENT = "exponent"
    CONSTANT = "constant"


_DAMPING = re.compile(r"(rho|eps)\w*")
_EXPONENT = re.compile(r"e(_\w+|\d+)?")
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
        """Transpose."""
        return Transpose(self)

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
        return Divide(self, as_node(other))

    def __rtruediv__(self, other: Operand) -> Node:
        return Divide(as_node(other), self)

    def __matmul__(self, other: Node) -> Node:
        return MatMul(self, other)

    def __pow__(self, power: Operand) -> Node:
        return Power(self, as_node(power))

    def __neg__(self) -> Node:
        return Negate(self)

    def __abs__(self) -> Node:
        return call("abs", self)

    _precedence = 5

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
        return Number(Fraction(repr(value)))
    return Number(Fraction(value))


@dataclass(frozen=True, repr=False)
class Matrix(Node):
    """A matrix that every layer has: one of G A B L R W I."""

    name: str

    def __post_init__(self) -> None:
        if self.name not in MATRICES:
            raise RuleError(*_parts(unknown("matrix", self.name, MATRICES)))

    @property
    def shape(self) -> Shape:
        return MATRICES[self.name][0]

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, repr=False)
class Symbol(Node):
    """A hyper-parameter: a damping, an exponent, or a number of order one."""

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
        return SCALAR

    @property
    def kind(self) -> SymbolKind:
        """Damping (rho*, eps*), exponent (e, e_*, e1..) or a number of order one."""
        if _DAMPING.fullmatch(self.name):
            return SymbolKind.DAMPING
        return SymbolKind.EXPONENT if _EXPONENT.fullmatch(self.name) else SymbolKind.CONSTANT

    @property
    def is_fan(self) -> bool:
        """Whether this is fan_in or fan_out."""
        return self.name in FANS

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, repr=False)
class Number(Node):
    """An exact number."""

    value: Fraction

    @property
    def shape(self) -> Shape:
        return SCALAR

    @property
    def _precedence(self) -> int:  # type: ignore[override]
        return 5 if self.value.denominator == 1 and self.value >= 0 else 2

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
        return self.left, self.right

    def _shapes(self) -> tuple[Shape, Shape]:
        return self.left.shape, self.right.shape

    def _refuse(self, needed: str, do_this: str) -> RuleError:
        (x, y), op = self._shapes(), self._operator.strip()
        found = f"{_short(self.left)} ({x}) {op} {_short(self.right)} ({y})"
        return RuleError(found, needed, do_this)

    _operator = "?"

    def __str__(self) -> str:
        return f"{self._wrap(self.left)}{self._operator}{self._wrap(self.right, strictly=True)}"


class _Sum(_Binary):
    _precedence = 1

    @cached_property
    def shape(self) -> Shape:
        x, y = self._shapes()
        if x == y:
            return x
        if x.is_square and y.is_square and Dim.ANY in (x.rows, y.rows):
            return y if x.rows is Dim.ANY else x
        if (x.is_scalar and y.is_square) or (y.is_scalar and x.is_square):
            raise self._refuse("two matrices of the same shape", "multiply the scalar by I")
        shape = _broadcast(x, y)
        if shape is None:
            raise self._refuse("two values of the same shape", "check the sides; .T transposes")
        return shape


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
        x, y = self._shapes()
        if y.is_scalar:
            return x
        if x.is_scalar and not (y.is_square and isinstance(self, Divide)):
            return y
        if x.is_square or y.is_square:
            raise self._refuse(
                "a scalar, or entries of gradient-like matrices: square matrices have no "
                "entrywise product here",
                "use @ for the matrix product and **(-1) for the inverse",
            )
        shape = _broadcast(x, y)
        if shape is None:
            raise self._refuse("two values of the same shape", "check the sides; .T transposes")
        return shape


class Multiply(_Entrywise):
    """Product with a scalar, or entry by entry."""

    _operator = "*"


class Divide(_Entrywise):
    """Quotient by a scalar, or entry by entry; 0/0 is 0 (a weight without gradient rests)."""

    _operator = "/"


class MatMul(_Binary):
    """Matrix product."""

    _operator = " @ "
    _precedence = 2

    @cached_property
    def shape(self) -> Shape:
        x, y = self._shapes()
        if x.is_scalar or y.is_scalar:
            raise self._refuse("two matrices", "use * with a scalar")
        if Dim.ANY in (x.cols, y.rows):
            return y if x.cols is Dim.ANY else x
        if x.cols is not y.rows:
            raise self._refuse(
                "as many columns on the left as rows on the right",
                "transpose one side with .T, or put a square matrix of the right side between them",
            )
        return Shape(x.rows, y.cols)


@dataclass(frozen=True, repr=False)
class Power(Node):
    """Matrix power of a square matrix; entrywise power of anything else."""

    base: Node
    power: Node

    _precedence = 4

    def __post_init__(self) -> None:
        for node in self.power.walk():
            ok = isinstance(node, (Number, Add, Subtract, Multiply, Divide, Negate)) or (
                isinstance(node, Symbol) and node.kind is SymbolKind.EXPONENT
            )
            if not ok:
                raise RuleError(
                    f"the power {_short(self.power)}",
                    "a number or a symbol named e, e_*, e1.., with + - * /",
                    f"rename {_short(node)} to e_{str(node)[:8]} if it is an exponent"
                    if isinstance(node, Symbol) and not node.is_fan
                    else "write the power as a number or an exponent symbol",
                )

    @property
    def shape(self) -> Shape:
        return self.base.shape

    @property
    def children(self) -> tuple[Node, ...]:
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
        return self.operand.shape

    @property
    def children(self) -> tuple[Node, ...]:
        return (self.operand,)

    def __str__(self) -> str:
        return f"-{self._wrap(self.operand, strictly=True)}"


@dataclass(frozen=True, repr=False)
class Transpose(Node):
    """Transpose."""

    operand: Node

    @property
    def shape(self) -> Shape:
        return self.operand.shape.transposed

    @property
    def children(self) -> tuple[Node, ...]:
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
        return FUNCTIONS[self.function].shape(self)

    @property
    def children(self) -> tuple[Node, ...]:
        return (self.argument,) if self.option is None else (self.argument, self.option)

    def __str__(self) -> str:
        return f"{self.function}({', '.join(map(str, self.children))})"


# --- functions ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Function:
    """A function of the language: what it accepts and the shape of what it returns."""

    name: str
    about: str
    accepts: Callable[[Shape], bool]
    needs: str
    result: Callable[[Shape], Shape]
    option: str | None = None

    def shape(self, node: Call) -> Shape:
        """The shape of a call, or a `RuleError`."""
        shape = node.argument.shape
        if not self.accepts(shape):
            raise RuleError(
                f"{self.name}({_short(node.argument)}) of a {shape}", self.needs, self.about
            )
        return self.result(shape)


def _same(shape: Shape) -> Shape:
    return shape


def _is_matrix(shape: Shape) -> bool:
    return not shape.is_scalar and shape.rows is not Dim.ANY


def _entries(shape: Shape) -> bool:
    return shape.is_gradient_like or shape.is_vector or shape.is_scalar


def _square(shape: Shape) -> bool:
    return shape.is_square and shape.rows is not Dim.ANY


def _gradient(shape: Shape) -> bool:
    return shape.is_gradient_like


_ENTRIES = "a gradient-like matrix, a vector or a scalar"
_SQUARE = "a square matrix such as A, B, L, R"
_GRADIENT = "a gradient-like matrix"
FUNCTIONS: dict[str, Function] = {
    f.name: f
    for f in (
        Function("sign", "the sign of each entry of X", _entries, _ENTRIES, _same),
        Function("abs", "the absolute value of each entry of X", _entries, _ENTRIES, _same),
        Function(
            "sqrt",
            "the square root of each entry; a square matrix takes X**(1/2)",
            _entries,
            _ENTRIES,
            _same,
        ),
        Function(
            "orth",
            "the polar factor U V^T of X = U S V^T, on the span of X",
            _gradient,
            _GRADIENT,
            _same,
        ),
        Function("trace", "the trace of a square X", _square, _SQUARE, lambda _: SCALAR),
        Function("norm", "the Frobenius norm of X", _is_matrix, "a matrix", lambda _: SCALAR),
        Function("specnorm", "the spectral norm of X", _is_matrix, "a matrix", lambda _: SCALAR),
        Function(
            "rms", "the root mean square entry of X", _is_matrix, "a matrix", lambda _: SCALAR
        ),
        Function("diag", "the diagonal part of a square X", _square, _SQUARE, _same),
        Function(
            "row_mean",
            "the mean of each row of X, a column",
            _gradient,
            _GRADIENT,
            lambda s: Shape(s.rows, Dim.ONE),
        ),
        Function(
            "col_mean",
            "the mean of each column of X, a row",
            _gradient,
            _GRADIENT,
            lambda s: Shape(Dim.ONE, s.cols),
        ),
        Function(
            "block",
            "block(X, size): the diagonal blocks of a square X, size x size each",
            _square,
            _SQUARE,
            _same,
            option="size",
        ),
        Function(
            "ema",
            "ema(X, beta): the moving average (1 - beta) sum_t beta^t X_{now - t}",
            lambda shape: shape.rows is not Dim.ANY,
            "anything but the bare identity",
            _same,
            option="beta",
        ),
    )
}


def call(name: str, *arguments: Operand) -> Node:
    """Apply a function of the language by name, checking the arguments."""
    if name not in FUNCTIONS:
        raise RuleError(*_parts(unknown("function", name, FUNCTIONS)))
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
    if function.option == "size" and not (
        isinstance(option, Number) and option.value.denominator == 1 and option.value >= 1
    ):
        raise RuleError(
            f"block size {option}", "a positive whole number", "write for example block(A, 64)"
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


# --- rules --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rule:
    """An update dW = -eta * expression, one per layer, with the names found in it.

    Raises `RuleError` if the expression is not fan_out x fan_in.
    """

    expression: Node
    name: str = ""

    def __post_init__(self) -> None:
        shape = self.expression.shape
        if shape != UPDATE:
            raise RuleError(
                f"the update {_short(self.expression)}, a {shape}",
                f"an update of the shape of the weights, {UPDATE}",
                "multiply the gradient G from the left and from the right; .T transposes",
            )

    def _names(self, kind: SymbolKind) -> tuple[str, ...]:
        nodes = list(self.expression.walk())
        powers = [node.power for node in nodes if isinstance(node, Power)]
        found = [
            node.name
            for root in (nodes, *(list(power.walk()) for power in powers))
            for node in root
            if isinstance(node, Symbol) and node.kind is kind and not node.is_fan
        ]
        return tuple(dict.fromkeys(found))

    @cached_property
    def dampings(self) -> tuple[str, ...]:
        """Names of the dampings, in order of appearance."""
        return self._names(SymbolKind.DAMPING)

    @cached_property
    def exponents(self) -> tuple[str, ...]:
        """Names of the symbolic exponents."""
        return self._names(SymbolKind.EXPONENT)

    @cached_property
    def constants(self) -> tuple[str, ...]:
        """Names of the hyper-parameters of order one."""
        return self._names(SymbolKind.CONSTANT)

    def __str__(self) -> str:
        return str(self.expression)


class _Arithmetic(Protocol):
    def __add__(self, other: object, /) -> object: ...


Value = TypeVar("Value")


def evaluate_power(
    node: Node, number: Callable[[Fraction], Value], symbol: Callable[[str], Value]
) -> Value:
    """Evaluate the power of a `Power` in any arithmetic: sympy's for the calculus, floats."""

    def go(node: Node) -> Value:
        match node:
            case Number(value):
                return number(value)
            case Symbol(name):
                return symbol(name)
            case Negate(operand):
                return -go(operand)  # type: ignore[operator,no-any-return]
            case Add(left, right):
                return go(left) + go(right)  # type: ignore[operator,no-any-return]
            case Subtract(left, right):
                return go(left) - go(right)  # type: ignore[operator,no-any-return]
            case Multiply(left, right):
                return go(left) * go(right)  # type: ignore[operator,no-any-return]
            case Divide(left, right):
                return go(left) / go(right)  # type: ignore[operator,no-any-return]
        raise AssertionError(f"{node} is no power; Power.__post_init__ must refuse it")

    return go(node)


def symbol(name: str) -> Symbol:
    """A hyper-parameter; its kind is read off its name (rho*, eps*: damping; e, e_*: exponent)."""
    return Symbol(name)


def _broadcast(x: Shape, y: Shape) -> Shape | None:
    if x.is_square or y.is_square:
        return x if x == y else None
    sides = []
    for one, other in ((x.rows, y.rows), (x.cols, y.cols)):
        if one is not other and Dim.ONE not in (one, other):
            return None
        sides.append(other if one is Dim.ONE else one)
    shape = Shape(*sides)
    return shape if shape.is_scalar or shape.is_vector or shape.is_gradient_like else None


def _short(node: Node, limit: int = 40) -> str:
    text = str(node)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _parts(error: InvalidInput) -> tuple[str, str, str]:
    return error.found, error.needed, error.do_this


G, A, B, L, R, W, I = (Matrix(name) for name in "GABLRWI")  # noqa: E741
fan_in, fan_out = (Symbol(name) for name in FANS)
