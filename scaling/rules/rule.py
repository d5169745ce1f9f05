"""A rule: the update of an optimizer, with the hyper-parameters that occur in it.

>>> from scaling.rules.language import A, G, I, symbol
>>> rule = Rule(G @ (A + symbol("rho") * I) ** (-symbol("e")), "foof")
>>> rule.dampings, rule.exponents
(('rho',), ('e',))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import TypeVar

from scaling.rules.eigenbases import check_frames
from scaling.rules.literal_dampings import literals, with_named_literals
from scaling.rules.named_parts import one_line, written
from scaling.rules.operators import FUNCTIONS
from scaling.rules.shapes import UPDATE
from scaling.rules.symbols import SymbolKind, check_meaning
from scaling.rules.tree import (
    Add,
    Call,
    Divide,
    Matrix,
    Multiply,
    Negate,
    Node,
    Number,
    Power,
    Subtract,
    Symbol,
    outside_of_spectra,
    remembers,
    short,
)
from scaling.sizes.errors import RuleError
from scaling.sizes.in_notebook import InNotebook

DEEPEST = 100


@dataclass(frozen=True)
class Rule(InNotebook):
    """An update dW = -eta * expression, one per layer, with the names found in it.

    Tiny literals that are added to a size are dampings, see literal_dampings.py.

    ``parts`` are what its text gave names to. They change how it is printed and nothing else: rules
    of one tree are equal, and ``str`` is the text without names.

    Raises `RuleError` if the expression is not fan_out x fan_in.

    >>> from scaling.rules.parser import parse
    >>> parse("G @ (A + rho*I)**(-e)").scaled
    ('rho',)
    """

    expression: Node
    name: str = ""
    parts: Mapping[str, Node] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        _check_depth(self.expression)
        given = self.expression
        object.__setattr__(self, "expression", with_named_literals(given))
        object.__setattr__(self, "parts", _found(self.parts, given, self.expression))
        shape = self.expression.shape
        if shape != UPDATE:
            raise RuleError(
                f"the update {short(self.expression)}, a {shape}",
                f"an update of the shape of the weights, {UPDATE}",
                "rotate back: eig(L) @ X @ eig(R).T"
                if shape.frames
                else "multiply the gradient G from the left and from the right; .T transposes",
            )
        check_frames(self.expression)
        for name in self.constants:
            check_meaning(name)
        for node in outside_of_spectra(self.expression):
            if isinstance(node, Symbol) and node.kind is SymbolKind.SINGULAR_VALUE:
                raise RuleError(
                    f"'{node}' outside of a function of singular values",
                    "sigma, a singular value of X, in spectral_map(X, f) alone",
                    "write for example spectral_map(G, min(sigma, 1)), or another name",
                )
        for call in self.ascents:
            _check_ascent(call)

    def _names(self, *kinds: SymbolKind) -> tuple[str, ...]:
        nodes = list(self.expression.walk())
        powers = [node.power for node in nodes if isinstance(node, Power)]
        found = [
            node.name
            for root in (nodes, *(list(power.walk()) for power in powers))
            for node in root
            if isinstance(node, Symbol) and node.kind in kinds and not node.is_fan
        ]
        return tuple(dict.fromkeys(found))

    @cached_property
    def dampings(self) -> tuple[str, ...]:
        """Names of the dampings, in order of appearance."""
        return self._names(SymbolKind.DAMPING)

    @cached_property
    def literals(self) -> dict[str, Fraction]:
        """The dampings that were written as numbers, with those numbers."""
        return {node.name: node.value for node in literals(self.expression)}

    @cached_property
    def exponents(self) -> tuple[str, ...]:
        """Names of the symbolic exponents."""
        return self._names(SymbolKind.EXPONENT)

    @cached_property
    def powers(self) -> tuple[Power, ...]:
        """Powers with a symbolic exponent, in order of appearance."""
        nodes = (x for x in self.expression.walk() if isinstance(x, Power))
        return tuple(
            x for x in dict.fromkeys(nodes) if any(isinstance(s, Symbol) for s in x.power.walk())
        )

    @cached_property
    def decays(self) -> tuple[str, ...]:
        """Names of the decays of the weights, in order of appearance."""
        return self._names(SymbolKind.DECAY)

    @cached_property
    def scaled(self) -> tuple[str, ...]:
        """Names of all hyper-parameters M^(-d), in order of appearance."""
        return self._names(*(kind for kind in SymbolKind if kind.is_scaled))

    @cached_property
    def averages(self) -> tuple[str, ...]:
        """Names of the decays of moving averages, beta."""
        nodes = self.expression.walk()
        options = (n.option for n in nodes if remembers(n) and isinstance(n, Call))
        return tuple(dict.fromkeys(x.name for x in options if isinstance(x, Symbol)))

    @cached_property
    def radii(self) -> tuple[str, ...]:
        """Names of the radii of perturbations, in order of appearance."""
        return self._names(SymbolKind.RADIUS)

    @cached_property
    def ascents(self) -> tuple[Call, ...]:
        """Every ascended(X): with one, a step takes a second gradient."""
        return tuple(dict.fromkeys(self._calls("ascended")))

    @cached_property
    def sums_over_layers(self) -> tuple[Call, ...]:
        """Every over_layers(x), operands first: with one, layers are not updated each by itself."""
        return tuple(dict.fromkeys(self._calls("over_layers")))

    def _calls(self, function: str) -> list[Call]:
        nodes = self.expression.walk()
        return [n for n in nodes if isinstance(n, Call) and n.function == function]

    @cached_property
    def weight_sizes(self) -> tuple[Call, ...]:
        """The norms of the weights, outside of trust ratios, which are zero with the weights."""
        whole = {node for call in self._calls("trust") for node in call.walk()}
        calls = (n for n in self.expression.walk() if isinstance(n, Call) and n not in whole)
        found = (x for x in calls if FUNCTIONS[x.function].norm and x.argument == Matrix("W"))
        return tuple(dict.fromkeys(found))

    @cached_property
    def constants(self) -> tuple[str, ...]:
        """Names of the hyper-parameters of order one."""
        return self._names(SymbolKind.CONSTANT)

    @property
    def assumptions(self) -> tuple[str, ...]:
        """The readings of names in a rule that no declaration explains."""
        plain = [] if self.name else [x for x in self.constants if x not in self.averages]
        tiny = (
            f"the literal {node} is the damping {node.name}: it follows what it is added to, from "
            f"that value at the base width (d_{node.name} = 0 keeps it)"
            for node in literals(self.expression)
        )
        return (*(f"{name} is a number of order one" for name in plain), *tiny)

    @cached_property
    def written(self) -> str:
        """The text with named parts, as one line that parses to the same tree.

        >>> from scaling.rules.parser import parse
        >>> parse("P @ (P @ G) where P = (B + rho*I)**-1").written
        'P @ (P @ G) where P = (B + rho*I)**(-1)'
        """
        return one_line(*written(self.expression, self.parts))

    def __str__(self) -> str:
        return str(self.expression)


Value = TypeVar("Value")


def _check_depth(expression: Node) -> None:
    """Refuse a tree that is so deep that functions which follow it down could not return."""
    level = {id(expression): expression}
    for _ in range(DEEPEST + 2):
        level = {id(child): child for node in level.values() for child in node.children}
        if not level:
            return
    raise too_deep()


def too_deep() -> RuleError:
    """The refusal of a tree that is too deep."""
    return RuleError(
        f"operations nested more than {DEEPEST} deep",
        "a flatter rule",
        "put terms side by side in brackets: (a + b) + (c + d) is flatter than a + b + c + d",
    )


def _found(parts: Mapping[str, Node], before: Node, after: Node) -> dict[str, Node]:
    """The parts of a tree that became another one, leaf by leaf."""
    if before == after:
        return dict(parts)
    became: dict[Node, Node] = {}
    for old, new in zip(before.walk(), after.walk(), strict=True):
        became.setdefault(old, new)
    return {name: became.get(part, part) for name, part in parts.items()}


def _check_ascent(call: Call) -> None:
    inside = [x for x in call.argument.walk() if isinstance(x, Call) and x.function == "ascended"]
    if inside:
        raise RuleError(
            f"{short(inside[0])} inside {short(call)}",
            "a perturbation made of what is known at W",
            "perturb once: ascended(radius*G/norm(G))",
        )


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

    try:
        return go(node)
    except ZeroDivisionError:
        raise RuleError(f"the power {node}", "a finite number", "do not divide by 0") from None
