"""Settings: ``key=value`` pairs, checked against the rule and the layers.

Keys are ``a``, ``b``, ``c`` and ``d_<name>`` of a damping, a decay or a radius, each bare (all
layers) or with ``_input``, ``_hidden``, ``_output`` (or a layer's full name); or a symbol of the
rule: an exponent (``e_A=1/2``), or the constant in front of a scaled or another hyper-parameter
(``rho_A=0.1``, ``decay=0.01``, ``beta=0.9``), which only measurements use.

Exponents are exact: ``1/2``, ``oo`` and symbols such as ``beta - 1`` are accepted; a decimal is
read as the fraction that it writes. Text is parsed by the rule parser, never evaluated.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from fractions import Fraction
from typing import Protocol, TypeVar

import sympy
from sympy import Expr, Rational, S

from scaling.models.chain import Layer
from scaling.rules.parser import parse_scalar
from scaling.rules.rule import evaluate_power
from scaling.sizes.errors import InvalidInput, RuleError, unknown

K = TypeVar("K")


@dataclass(frozen=True)
class Settings:
    """Fixed exponents by layer name, and values of the rule's symbols.

    >>> import sympy
    >>> Settings(
    ...     exponents={"e": Rational(1, 2)}, d={("rho", "hidden"): sympy.Symbol("e")}
    ... ).closed().d
    {('rho', 'hidden'): 1/2}
    """

    a: Mapping[str, Expr] = field(default_factory=dict)
    b: Mapping[str, Expr] = field(default_factory=dict)
    c: Mapping[str, Expr] = field(default_factory=dict)
    d: Mapping[tuple[str, str], Expr] = field(default_factory=dict)
    exponents: Mapping[str, Expr] = field(default_factory=dict)
    values: Mapping[str, float] = field(default_factory=dict)

    def closed(self) -> Settings:
        """The same with the symbols of the rule that are given put into what else is given.

        Raises:
            InvalidInput: for symbols that are given by one another.
        """
        exponents = {k: v for k, v in self.exponents.items() if v != sympy.Symbol(k)}
        known = {sympy.Symbol(k): v for k, v in exponents.items()}

        def put(value: Expr) -> Expr:
            for _ in known:
                value = sympy.expand(value.subs(known, simultaneous=True))
            return value

        def put_all(given: Mapping[K, Expr]) -> dict[K, Expr]:
            return {key: finite(value, put(value)) for key, value in given.items()}

        def finite(written: Expr, value: Expr) -> Expr:
            if value != written and value.has(S.Infinity, -S.Infinity, sympy.zoo, sympy.nan):
                raise InvalidInput(
                    f"the exponent {written}, which is {value} for the values that are given",
                    "a finite exponent",
                    "change one of them",
                )
            return value

        exponents = {k: finite(v, put(v)) for k, v in exponents.items()}
        for name, value in exponents.items():
            if value.free_symbols & set(known):
                raise InvalidInput(
                    f"{name} = {self.exponents[name]}, which goes back to what it gives",
                    "exponents that are not given by one another",
                    f"give {name} a value, or leave one of them out",
                )

        a, b, c, d = put_all(self.a), put_all(self.b), put_all(self.c), put_all(self.d)
        return Settings(a, b, c, d, exponents, self.values)


def exact(text: str) -> Expr:
    """An exponent from text.

    >>> exact("1/2"), exact("oo"), exact("2*b - 1"), exact("0.25")
    (1/2, oo, 2*b - 1, 1/4)
    """

    def number(value: Fraction) -> Expr:
        return Rational(value.numerator, value.denominator)

    def symbol(name: str) -> Expr:
        if name in ("nan", "inf", "infinity"):
            raise InvalidInput(
                f"the exponent '{text}'", "a number, or oo for infinity", "write for example 1/2"
            )
        return S.Infinity if name == "oo" else sympy.Symbol(name)

    try:
        value = evaluate_power(parse_scalar(text), number, symbol)
    except RuleError as error:
        raise InvalidInput(
            f"the exponent '{text}' ({error.found})",
            "a number such as 1/2, oo, or an expression in symbols",
            "write for example b_output=1/2",
        ) from None
    if value.has(sympy.nan, sympy.zoo):
        raise InvalidInput(f"the exponent '{text}'", "a number, or oo", "write for example 1/2")
    return sympy.expand(value)


class HasSymbols(Protocol):
    """A rule, or a recipe of several: the names of their hyper-parameters, by kind."""

    @property
    def exponents(self) -> tuple[str, ...]:
        """Symbolic exponents."""

    @property
    def scaled(self) -> tuple[str, ...]:
        """Hyper-parameters M^(-d)."""

    @property
    def constants(self) -> tuple[str, ...]:
        """Hyper-parameters of order one."""

    @property
    def averages(self) -> tuple[str, ...]:
        """Decays of moving averages."""


def read_settings(pairs: Iterable[str], rule: HasSymbols, layers: Iterable[Layer]) -> Settings:
    """Settings from ``key=value`` texts; later pairs override earlier ones.

    Raises:
        InvalidInput: for a malformed pair, an unknown key or layer, or a value out of range.

    >>> from scaling.models.chain import mlp
    >>> from scaling.rules.parser import parse
    >>> read_settings(["b_output=1/2", "c_hidden=0.25"], parse("G"), mlp()).c
    {'hidden': 1/4}

    A pattern names several layers, such as the queries of all blocks:

    >>> read_settings(["b_hidden_*=1"], parse("G"), mlp(4)).b
    {'hidden_1': 1, 'hidden_2': 1}
    """
    layers = list(layers)
    a: dict[str, Expr] = {}
    b: dict[str, Expr] = {}
    c: dict[str, Expr] = {}
    d: dict[tuple[str, str], Expr] = {}
    exponents: dict[str, Expr] = {}
    values: dict[str, float] = {}
    for pair in pairs:
        key, equals, text = (part.strip() for part in pair.partition("="))
        if not equals or not key or not text:
            raise InvalidInput(
                f"the setting '{pair}'", "key=value", "write for example --set b_output=1/2"
            )
        if key in rule.exponents:
            exponents[key] = exact(text)
            if exponents[key].has(S.Infinity, -S.Infinity):
                raise InvalidInput(
                    f"{key}={text}", "a finite exponent", f"write for example {key}=1/2"
                )
        elif key in rule.scaled or key in rule.constants:
            values[key] = positive(key, text)
            if key in rule.averages and values[key] >= 1:
                raise InvalidInput(
                    f"{key}={text}, the decay of a moving average",
                    "a number in [0, 1)",
                    f"write for example {key}=9/10",
                )
        else:
            letter, scaled, names = _place(key, rule, layers)
            value = exact(text)
            taken = [x.name for x in value.free_symbols if re.match(r"[abcd]_", x.name)]
            if taken:
                raise InvalidInput(
                    f"the symbol '{taken[0]}' in {pair}, which names an exponent itself",
                    "a symbol of your own",
                    "choose another name, such as beta",
                )
            if value.has(S.Infinity, -S.Infinity) and not (letter == "b" and value is S.Infinity):
                raise InvalidInput(
                    f"{key}={text}",
                    "a finite exponent (only b may be oo: zero)",
                    f"write for example {key}=1/2",
                )
            for name in names:
                if letter == "d":
                    d[scaled, name] = value
                else:
                    {"a": a, "b": b, "c": c}[letter][name] = value
    return Settings(a, b, c, d, exponents, values).closed()


def places(layers: Iterable[Layer]) -> dict[str, list[str]]:
    """The names that a user may give layers, own or role -> the layers that are meant.

    >>> from scaling.models.chain import mlp
    >>> places(mlp(4))["hidden"]
    ['hidden_1', 'hidden_2']
    """
    layers = list(layers)
    found = {layer.name: [layer.name] for layer in layers}
    for layer in layers:
        if layer.name.startswith(layer.role) and layer.name not in found.get(layer.role, []):
            found.setdefault(layer.role, []).append(layer.name)
    return found


def positive(key: str, text: str) -> float:
    """A number that is not negative, from text.

    Raises:
        InvalidInput: for anything else.
    """
    value = exact(text)
    if not value.is_Rational or value < 0:
        raise InvalidInput(
            f"{key}={text}", "a number that is not negative", f"write for example {key}=0.1"
        )
    return float(value)


def _place(key: str, rule: HasSymbols, layers: list[Layer]) -> tuple[str, str, list[str]]:
    """The letter, the scaled symbol (for d) and the layers that a key names."""
    named = places(layers)
    everywhere = [layer.name for layer in layers]
    heads = {"a": "", "b": "", "c": "", **{f"d_{name}": name for name in rule.scaled}}
    for head in sorted(heads, key=len, reverse=True):
        if key == head:
            return head[0], heads[head], everywhere
        place = key.removeprefix(f"{head}_")
        if place == key:
            continue
        if place in named:
            return head[0], heads[head], named[place]
        if matching := [name for name in everywhere if "*" in place and fnmatchcase(name, place)]:
            return head[0], heads[head], matching
    known = [*heads, *rule.exponents, *rule.scaled, *rule.constants]
    known += [f"{head}_{place}" for head in heads for place in named]
    if rule.scaled and (key == "d" or key.removeprefix("d_") in named):
        raise InvalidInput(
            f"the setting '{key}', which names no damping or decay of the rule",
            ", ".join(f"d_{name}" for name in rule.scaled) + ", perhaps with _hidden and the like",
            f"write for example --set d_{rule.scaled[0]}=1",
        )
    if re.fullmatch(r"[a-z]\w*", key) is None:
        raise InvalidInput(
            f"the key '{key}'",
            "a, b, c, d_<name> or a symbol",
            "write for example --set b_output=1/2",
        )
    raise unknown("setting", key, known)
