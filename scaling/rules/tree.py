"""The tree of a rule: one frozen node for every matrix, symbol, number, operator and function.

    leaves      Matrix  Symbol  Number
    operators   Add  Subtract  Multiply  Divide  MatMul  Power  Negate  Transpose
    functions   Call

The tree is all that an interpreter sees. Nodes compare by structure, print as text that parses to
them, and know their shape (operators.py), which is checked as they are built: an
impossible rule does not exist. How rules are written is in language.py.

>>> G, e = Matrix("G"), Symbol("e")
>>> rule = (G @ G.T) ** (-e) @ G
>>> rule == MatMul(Power(MatMul(G, Transpose(G)), Negate(e)), G), rule, str(rule.shape)
(True, <rule (G @ G.T)**(-e) @ G>, 'fan_out x fan_in')
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from types import MappingProxyType
from typing import Any, ClassVar

from scaling.rules.operators import FUNCTIONS, OPERATORS, Operator, SecondOperand
from scaling.rules.shapes import SCALAR, UPDATE, Frame, Shape
from scaling.rules.symbols import FANS, MATRICES, SymbolKind, check_matrix, check_symbol, kind_of
from scaling.sizes.errors import RuleError

NO_NAMES: Mapping[Any, str] = MappingProxyType({})


class Node:
    """A node of a rule. Nodes compare by structure and never change."""

    operator: ClassVar[str] = ""
    """The name of its row (operators.py); a leaf has none, a call that of its function."""

    def __init_subclass__(cls) -> None:
        cls.__hash__ = Node.__hash__  # type: ignore[method-assign]  # which a dataclass then keeps

    def __hash__(self) -> int:
        """By structure, computed once: a node is looked up far more often than it is made."""
        known = self.__dict__.get("_hash")
        if known is None:
            fields = (self.__dict__[name] for name in self.__match_args__)  # type: ignore[attr-defined]
            known = self.__dict__["_hash"] = hash((type(self), *fields))
        return int(known)

    def __getstate__(self) -> dict[str, object]:
        """The fields: a hash is another one in another process, and the rest is soon found."""
        return {name: self.__dict__[name] for name in self.__match_args__}  # type: ignore[attr-defined]

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
        return iter(self._walked)

    @cached_property
    def _walked(self) -> tuple[Node, ...]:
        return (*(node for child in self.children for node in child._walked), self)

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
        return Call("abs", self)

    _precedence = 5
    __array_ufunc__ = None  # a numpy number on the left leaves the operation to the node

    def written(self, names: Mapping[Node, str] = NO_NAMES) -> str:
        """The text of this node, with a name in place of each node that has one.

        >>> G = Matrix("G")
        >>> ((G @ G.T) ** Symbol("e") @ G).written({G @ G.T: "P"})
        'P**e @ G'
        """
        return names[self] if names and self in names else self._text(names)

    def __str__(self) -> str:
        return self.written()

    def __repr__(self) -> str:
        return f"<rule {self}>"

    def _text(self, names: Mapping[Node, str]) -> str:
        raise NotImplementedError

    def _wrap(self, child: Node, names: Mapping[Node, str], strictly: bool = False) -> str:
        loose = child._precedence < self._precedence
        tie = strictly and child._precedence == self._precedence
        named = bool(names) and child in names
        text = child.written(names)
        return f"({text})" if (loose or tie) and not named else text


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
            raise RuleError(f"the number {value}", "a finite number", "write for example 0.1")
        return as_node(Fraction(repr(float(value))))
    number = Number(abs(Fraction(value)))
    return Negate(number) if value < 0 else number


@dataclass(frozen=True, repr=False)
class _Named(Node):
    name: str

    def _text(self, names: Mapping[Node, str]) -> str:
        return self.name


@dataclass(frozen=True, repr=False)
class Matrix(_Named):
    """A matrix that every layer has: one of G A B L R W I."""

    def __post_init__(self) -> None:
        check_matrix(self.name)

    @property
    def shape(self) -> Shape:
        """Rows and columns."""
        return MATRICES[self.name][0]


@dataclass(frozen=True, repr=False)
class Symbol(_Named):
    """A hyper-parameter: a damping, a decay, a radius, an exponent, or a number of order one."""

    def __post_init__(self) -> None:
        check_symbol(self.name)

    @property
    def shape(self) -> Shape:
        """Rows and columns."""
        return SCALAR

    @property
    def kind(self) -> SymbolKind:
        """Read off the name: rho*, eps*, decay*, radius*, e, e_*, e1..; else of order one."""
        return kind_of(self.name)

    @property
    def is_fan(self) -> bool:
        """Whether this is fan_in or fan_out."""
        return self.name in FANS


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

    def _text(self, names: Mapping[Node, str]) -> str:
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

    @cached_property
    def shape(self) -> Shape:
        """Rows and columns."""
        return OPERATORS[self.operator].shape((self.left.shape, self.right.shape), self._refuse)

    def _refuse(self, needed: str, do_this: str) -> RuleError:
        x, y = self.left, self.right
        found = f"{short(x)} ({x.shape}) {self.operator} {short(y)} ({y.shape})"
        return RuleError(found, needed, self._instead or do_this)

    @property
    def _instead(self) -> str:
        """Advice with a rule in the place of operands that do not fit; "" if none is known."""
        return ""

    def _text(self, names: Mapping[Node, str]) -> str:
        sign = self.operator if self.operator in "*/" else f" {self.operator} "
        left, right = self._wrap(self.left, names), self._wrap(self.right, names, strictly=True)
        return f"{left}{sign}{right}"


class Add(_Binary):
    """Sum; a scalar or a vector broadcasts over a gradient-like matrix."""

    operator = "+"
    _precedence = 1


class Subtract(_Binary):
    """Difference."""

    operator = "-"
    _precedence = 1


class Multiply(_Binary):
    """Product with a scalar, or entry by entry."""

    operator = "*"
    _precedence = 2


class Divide(_Binary):
    """Quotient by a scalar, or entry by entry; 0/0 is 0 (a weight without gradient rests)."""

    operator = "/"
    _precedence = 2


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

    operator = "@"
    _precedence = 2

    @property
    def _instead(self) -> str:
        x, y = self.left, self.right
        if not x.shape == y.shape == UPDATE:
            return self._other_order
        if not any(n == Matrix("W") for n in self.walk()):
            one, other = (self._wrap(z, {}, strictly=True) for z in (x, y))
            return f"transpose one side with .T, such as {one} @ {other}.T @ {other}"
        kept = [z for z in (x, y) if not any(n == Matrix("W") for n in z.walk())]
        descent = self._wrap(kept[0], {}, strictly=True) if kept else "G"
        return (
            "keep W out of products: write it as a term of its own, such as "
            f"{descent} + decay*W, or take its size, norm(W)*{descent}"
        )

    @property
    def _other_order(self) -> str:
        """The product in the order in which its sides fit; "" if none does."""
        x, y = self.left.shape, self.right.shape
        one, other = (self._wrap(z, {}, strictly=True) for z in (self.left, self.right))
        if x.is_square and y.is_square:
            left, right = (one, other) if x.rows is UPDATE.rows else (other, one)
            return f"put the gradient between them: {left} @ G @ {right}"
        if (x.is_square or y.is_square) and y.cols is x.rows:
            square, of, side = (other, y, "left") if y.is_square else (one, x, "right")
            return f"write {square}, of {of.rows}, on the {side}: {other} @ {one}"
        return ""


MOST_TERMS = 100
"""Of a power: exponents are compared with their products multiplied out."""


def _terms(power: Node) -> int:
    """How many terms a power has then."""
    match power:
        case Add(left, right) | Subtract(left, right):
            return _terms(left) + _terms(right)
        case Multiply(left, right):
            return _terms(left) * _terms(right)
        case Divide(operand, _) | Negate(operand):
            return _terms(operand)
    return 1


@dataclass(frozen=True, repr=False)
class Power(Node):
    """Matrix power of a square matrix; entrywise power of anything else."""

    base: Node
    power: Node

    operator = "**"
    _precedence = 4

    def __post_init__(self) -> None:
        if self.base.shape.is_rotation:
            raise RuleError(
                f"a power of the eigenbasis {short(self.base)}",
                "a power of a square matrix, or of entries",
                "write powers of the matrix itself: L**(-1/4) @ G",
            )
        found = f"the power {short(self.power)}"
        if _terms(self.power) > MOST_TERMS:
            raise RuleError(
                f"{found}, of {_terms(self.power):,} terms when its products are multiplied out",
                f"at most {MOST_TERMS}",
                "write one exponent symbol, such as e, in its place",
            )
        for node in self.power.walk():
            if isinstance(node, Divide) and node.right == Number(Fraction(0)):
                raise RuleError(found, "a finite number", "do not divide by 0")
            arithmetic = isinstance(node, Number | Add | Subtract | Multiply | Divide | Negate)
            symbol = node if isinstance(node, Symbol) else None
            if not arithmetic and (symbol is None or symbol.kind is not SymbolKind.EXPONENT):
                raise RuleError(
                    found,
                    "a number or a symbol named e, e_*, e1.., with + - * /",
                    f"rename {short(symbol)} to e_{symbol.name[:8]} if it is an exponent"
                    if symbol is not None and not symbol.is_fan
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

    def _text(self, names: Mapping[Node, str]) -> str:
        base, power = (self._wrap(x, names, strictly=True) for x in (self.base, self.power))
        return f"{base}**{power}"


@dataclass(frozen=True, repr=False)
class _Unary(Node):
    operand: Node

    @property
    def children(self) -> tuple[Node, ...]:
        """The operand."""
        return (self.operand,)


class Negate(_Unary):
    """Minus."""

    operator = "neg"

    @property
    def _precedence(self) -> int:  # type: ignore[override]
        return 2 if self._is_fraction else 3  # -1/2 reads as (-1)/2, which is the same number

    @property
    def shape(self) -> Shape:
        """Rows and columns."""
        return self.operand.shape

    def _text(self, names: Mapping[Node, str]) -> str:
        if self._is_fraction and self.operand not in names:
            return f"-{self.operand}"
        return f"-{self._wrap(self.operand, names, strictly=True)}"

    @property
    def _is_fraction(self) -> bool:
        return isinstance(self.operand, Number) and self.operand.value.denominator != 1


class Transpose(_Unary):
    """Transpose."""

    operator = ".T"

    @property
    def shape(self) -> Shape:
        """Rows and columns."""
        return self.operand.shape.transposed

    def _text(self, names: Mapping[Node, str]) -> str:
        return f"{self._wrap(self.operand, names)}.T"


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
        row = FUNCTIONS[self.function]
        shape = row.shape([x.shape for x in self.children], self._refuse)
        if row.basis:
            return Shape(shape.rows, Frame(shape.dims[0], str(self.argument)))
        return shape

    def _refuse(self, needed: str, do_this: str) -> RuleError:
        x = self.argument
        return RuleError(f"{self.function}({short(x)}) of a {x.shape}", needed, do_this)

    @property
    def children(self) -> tuple[Node, ...]:
        """Operands, left to right."""
        return (self.argument,) if self.option is None else (self.argument, self.option)

    def _text(self, names: Mapping[Node, str]) -> str:
        return f"{self.function}({', '.join(x.written(names) for x in self.children)})"


def row_of(node: Node) -> Operator | None:
    """The row of a node in the table of operators; a leaf has none."""
    return FUNCTIONS[node.function] if isinstance(node, Call) else OPERATORS.get(node.operator)


def transposed(node: Node) -> Node:
    """X.T, and X of X.T."""
    return node.operand if isinstance(node, Transpose) else Transpose(node)


def untransposed(node: Node) -> Node:
    """X of X and of X.T."""
    return node.operand if isinstance(node, Transpose) else node


def is_average(node: Node) -> bool:
    """Whether a node sums over the steps of training, as a moving average does."""
    return isinstance(node, Call) and FUNCTIONS[node.function].average


def remembers(node: Node) -> bool:
    """Whether a node is made of what its operand has been at each step of training."""
    return isinstance(node, Call) and FUNCTIONS[node.function].remembers


def maps_spectrum(node: Node) -> bool:
    """Whether a node is a function of singular values, written with sigma."""
    if not isinstance(node, Call):
        return False
    return FUNCTIONS[node.function].second is SecondOperand.OF_SINGULAR_VALUE


def outside_of_spectra(node: Node) -> Iterator[Node]:
    """A node and all below it, but for functions of singular values."""
    yield node
    for child in node.children[:1] if maps_spectrum(node) else node.children:
        yield from outside_of_spectra(child)


def short(node: Node, limit: int = 40) -> str:
    """The text of a node, cut to fit a message."""
    text = str(node)
    return text if len(text) <= limit else text[: limit - 3] + "..."
