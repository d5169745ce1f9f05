"""Text to rule: Python's own grammar, read through a white-list. Text is never evaluated.

`ast.parse` only builds a syntax tree; every node of it that is not in the language is refused,
with a caret under the offending column.

>>> from scaling.rules.language import A, G, I, symbol
>>> parse("G @ (A + rho*I)**(-e)").expression == G @ (A + symbol("rho") * I) ** (-symbol("e"))
True
>>> parse("G @ A @ B")
Traceback (most recent call last):
    ...
scaling.sizes.errors.RuleError: found: G @ A (fan_out x fan_in) @ B (fan_out x fan_out)
    G @ A @ B
          ^
needed: as many columns on the left as rows on the right
do this: write B, of fan_out, on the left: B @ (G @ A)

What is long or repeats may have a name, after ``where`` (named_parts.py); the tree is the same:

>>> parse("P / norm(P) where P = (B + rho*I)**(-1) @ G") == parse(
...     "(B + rho*I)**(-1) @ G / norm((B + rho*I)**(-1) @ G)"
... )
True
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import TypeVar

from scaling.rules.foreign_spellings import translated
from scaling.rules.language import call
from scaling.rules.named_parts import Part, faults, split
from scaling.rules.operators import FUNCTIONS
from scaling.rules.rule import DEEPEST, Rule, too_deep
from scaling.rules.tree import (
    Add,
    Divide,
    MatMul,
    Matrix,
    Multiply,
    Negate,
    Node,
    Number,
    Power,
    Subtract,
    Symbol,
    quotient,
)
from scaling.sizes.errors import InvalidInput, RuleError, unknown

T = TypeVar("T")
LONGEST = 4000
SHOWN = 96
_BINARY: dict[type[ast.operator], tuple[str, Callable[[Node, Node], Node]]] = {
    ast.Add: ("+", Add),
    ast.Sub: ("-", Subtract),
    ast.Mult: ("*", Multiply),
    ast.Div: ("/", quotient),
    ast.MatMult: ("@", MatMul),
    ast.Pow: ("**", Power),
}


def parse(text: str, name: str = "") -> Rule:
    """Read a rule from text.

    Raises `RuleError` (found / needed / do this, with a caret) for anything outside the language.

    >>> parse("sign(G) + decay*W").decays
    ('decay',)
    """
    return _Source(text).rule(name)


def as_rule(rule: Rule | Node | str) -> Rule:
    """A rule as it is, of a tree, or parsed from text: what functions for users of Python take.

    Raises:
        InvalidInput: for anything else; `RuleError` for text or a tree that is no rule.

    >>> as_rule("G") == as_rule(parse("G")) == as_rule(parse("G").expression)
    True
    """
    if isinstance(rule, Rule):
        return rule
    if isinstance(rule, Node):
        return Rule(rule)
    if not isinstance(rule, str):
        raise InvalidInput(
            f"a {type(rule).__name__} as a rule",
            "a Rule, a tree of the language, or text",
            "pass for example 'orth(G)'",
        )
    return parse(rule)


def parse_scalar(text: str) -> Node:
    """Read an exponent: numbers and lower-case names joined by + - * /.

    Raises `RuleError` for anything else.
    """
    node = _Source(text).expression()
    allowed = (Number, Symbol, Add, Subtract, Multiply, Divide, Negate)
    for part in node.walk():
        if not isinstance(part, allowed) or (isinstance(part, Symbol) and part.is_fan):
            raise RuleError(
                f"{part} in an exponent",
                "numbers and names joined by + - * /",
                "write for example e + 1/2",
            )
    return node


def parse_formula(text: str) -> Node:
    """Read any expression of the language, be it an update or not.

    Raises `RuleError` for anything outside the language.

    >>> parse_formula("1 + sign(x*y)").shape.is_scalar
    True
    """
    return _Source(text).tree()[0]


class _Source:
    """The whole text of a rule, on which every refusal points with a caret."""

    def __init__(self, text: str) -> None:
        lines = (line.partition("#")[0] for line in text.splitlines())
        self.text = " ".join(" ".join(lines).split())

    def rule(self, name: str) -> Rule:
        """The text as a rule with its named parts."""
        expression, parts = self.tree()
        try:
            return Rule(expression, name, parts)
        except RuleError as error:
            meant = _Expression(self, Part("", 0, 0, self.text), {}).translation(Rule)
            offer = RuleError(error.found, error.needed, meant) if meant else error
            raise self.at(0, offer) from None

    def tree(self) -> tuple[Node, dict[str, Node]]:
        """The text as a tree, and the parts of it that have names."""
        head, definitions = split(self.text)
        for column, error in faults(head, definitions):
            raise self.at(column, error)
        parts: dict[str, Node] = {}
        for part in definitions:
            parts[part.name] = _Expression(self, part, parts).whole()
        return _Expression(self, head, parts).whole(), parts

    def expression(self) -> Node:
        """The text as an expression, without parts."""
        return _Expression(self, Part("", 0, 0, self.text), {}).whole()

    def at(self, column: int, error: InvalidInput) -> InvalidInput:
        """The error, with a caret under a column."""
        if "\n" in error.found:  # already has its caret
            return error
        start = max(0, column - 60)
        line = self.text[start : start + SHOWN]
        caret = " " * (column - start) + "^"
        return RuleError(f"{error.found}\n    {line}\n    {caret}", error.needed, error.do_this)


class _Expression:
    """One stretch of the text as a tree; named parts stand in it as what they name."""

    def __init__(self, source: _Source, part: Part, parts: Mapping[str, Node]) -> None:
        self.source, self.part, self.parts = source, part, parts
        self.text = part.text.rstrip()
        self.bytes = self.text.encode("utf-8", "replace")

    def whole(self) -> Node:
        """All of it as a tree."""
        if not self.text:
            raise RuleError("an empty rule", "an expression over G, A, B, L, R, W, I", "try 'G'")
        if len(self.text) > LONGEST:
            raise RuleError(
                f"a rule of {len(self.text)} characters",
                f"at most {LONGEST}",
                "build a long rule from Python objects",
            )
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tree = ast.parse(self.text, mode="eval").body
        except SyntaxError as error:
            column = max(0, (error.offset or 1) - 1)
            raise self._at(
                column,
                RuleError(
                    f"no expression ({error.msg})",
                    "matrices, names and numbers joined by @ ** + - * /",
                    self.translation() or "check the brackets and operators near the caret",
                ),
            ) from None
        except (ValueError, RecursionError, MemoryError, OverflowError):
            raise RuleError(
                "text that cannot be read as an expression",
                "matrices, names and numbers joined by @ ** + - * /",
                "shorten it, and remove control characters",
            ) from None
        try:
            node = self._node(tree, 0)
            operations = _written_out(node) if self.parts else 0
        except RecursionError:
            raise self._at(0, too_deep()) from None
        if operations > LONGEST:
            raise self._at(
                0,
                RuleError(
                    f"a rule of more than {LONGEST} operands and operators, its parts written out",
                    f"at most {LONGEST}",
                    "leave out parts that are made of others several times",
                ),
            )
        return node

    def _node(self, tree: ast.expr, depth: int) -> Node:
        if depth > DEEPEST:
            raise self._at(self._column(tree), too_deep())
        deeper = depth + 1
        match tree:
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
                text, build = _BINARY[type(op)]
                x, y = self._node(left, deeper), self._node(right, deeper)
                return self._checked(tree, lambda: build(x, y), self._operator(tree, text))
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return Negate(self._node(operand, deeper))
            case ast.UnaryOp(op=ast.UAdd(), operand=operand):
                return self._node(operand, deeper)
            case ast.Constant(value=value) if type(value) in (int, float):
                return self._checked(tree, lambda: self._number(tree))
            case ast.Name(id=identifier):
                return self._checked(tree, lambda: self._name(identifier))
            case ast.Attribute(value=value, attr="T"):
                return self._node(value, deeper).T
            case ast.Call(func=ast.Name(id=function), args=args, keywords=[]) if not any(
                isinstance(arg, ast.Starred) for arg in args
            ):
                if function not in FUNCTIONS:
                    error = unknown("function", function, FUNCTIONS, RuleError)
                    meant = self.translation() or self._translation_of(tree)
                    offer = RuleError(error.found, error.needed, meant) if meant else error
                    raise self._at(self._column(tree), offer)
                nodes = [self._node(arg, deeper) for arg in args]
                return self._checked(tree, lambda: call(function, *nodes))
        raise self._at(
            self._column(tree),
            RuleError(
                f"'{ast.get_source_segment(self.text, tree) or type(tree).__name__}', which is "
                "not in the rule language",
                "matrices G A B L R W I, names, numbers, @ ** + - * /, .T and "
                + " ".join(FUNCTIONS),
                self.translation() or "rewrite this part with those",
            ),
        )

    def translation(self, checked: Callable[[Node], object] = lambda tree: tree) -> str:
        """The offer of a rule in the place of code of another library; "" if it makes none.

        ``checked`` raises where the tree is not what is asked for.
        """
        try:
            other = translated(self.text)
            if "".join(other.split()) == "".join(self.text.split()):
                return ""
            checked(_Expression(_Source(other), Part("", 0, 0, other), self.parts).whole())
        except (InvalidInput, SyntaxError, ValueError, RecursionError):
            return ""
        return f"write for example {other}"

    def _translation_of(self, tree: ast.expr) -> str:
        segment = ast.get_source_segment(self.text, tree) or ""
        meant = _Expression(_Source(segment), Part("", 0, 0, segment), self.parts).translation()
        return meant.replace("write for example", f"in the place of {segment} write")

    def _number(self, tree: ast.expr) -> Number:
        digits = (ast.get_source_segment(self.text, tree) or "").replace("_", "")
        refuse = RuleError(
            f"the number {digits[:40]}",
            "a decimal number of at most 30 characters, at most 1e30",
            "put its size into the exponents instead",
        )
        if len(digits) > 30:
            raise refuse
        try:
            mantissa, _, power = digits.lower().partition("e")
            if abs(int(power or 0)) > 30:
                raise refuse
            return Number(Fraction(mantissa) * Fraction(10) ** int(power or 0))
        except ValueError:
            raise refuse from None

    def _column(self, tree: ast.expr) -> int:
        return len(self.bytes[: tree.col_offset].decode("utf-8", "replace"))

    def _operator(self, tree: ast.BinOp, text: str) -> int:
        start = len(self.bytes[: tree.left.end_col_offset].decode("utf-8", "replace"))
        found = self.text.find(text, start)
        return found if found >= 0 else start

    def _checked(self, tree: ast.expr, build: Callable[[], T], column: int | None = None) -> T:
        try:
            return build()
        except RuleError as error:
            meant = self.translation()
            offer = RuleError(error.found, error.needed, meant) if meant else error
            raise self._at(self._column(tree) if column is None else column, offer) from None

    def _at(self, column: int, error: InvalidInput) -> InvalidInput:
        return self.source.at(self.part.start + column, error)

    def _name(self, identifier: str) -> Node:
        if identifier in self.parts:
            return self.parts[identifier]
        return Matrix(identifier) if identifier[:1].isupper() else Symbol(identifier)


def _written_out(node: Node) -> int:
    """How many nodes a tree has, those that stand in several places counted in each."""
    known: dict[int, int] = {}

    def count(x: Node) -> int:
        if id(x) not in known:
            known[id(x)] = 1 + sum(count(child) for child in x.children)
        return known[id(x)]

    return count(node)
