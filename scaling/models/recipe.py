"""A recipe: what trains what. Groups of tensors in order, each with a rule and constants.

    hidden: muon; rest: adamw
    embedding, *.norm.*: sgd; hidden: shampoo with e=1/2; *.bias: frozen; rest: adamw

A group selects by the kind of a tensor, which the graph of the network knows (`TensorKind`), or by
a pattern of its name, as in the shell. A tensor belongs to the first group that selects it, and
every tensor must have one; ``rest`` takes whatever is left. A rule is a recipe of one group.

>>> from scaling.rules.parser import parse
>>> two = Recipe(
...     (TensorGroup(("hidden",), parse("orth(G)")), TensorGroup((REST,), parse("sign(G)")))
... )
>>> kinds = {"embed": TensorKind.EMBEDDING, "up": TensorKind.HIDDEN}
>>> {name: str(group.rule) for name, group in two.assigned(kinds).items()}
{'embed': 'sign(G)', 'up': 'orth(G)'}
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from enum import StrEnum
from fnmatch import fnmatchcase

from sympy import Expr

from scaling.rules.language import Node
from scaling.rules.parser import as_rule
from scaling.rules.rule import Rule
from scaling.rules.tree import Call, Matrix, Power, Symbol
from scaling.sizes.errors import InvalidInput

REST = "rest"
FROZEN = "frozen"
RATE = "lr"
"""Among the values of a group: the learning rate that was tuned for it."""


class TensorKind(StrEnum):
    """Kinds of tensors, by what their use contracts and leaves (states/tensor_kinds.py)."""

    HIDDEN = "hidden"
    """Contracts a growing axis, and leaves one."""
    EMBEDDING = "embedding"
    """From the data to a growing axis: tables, first layers, positions that are added."""
    READOUT = "readout"
    """Contracts a growing axis and leaves none."""
    GAIN = "gain"
    """Multiplies entry by entry."""
    BIAS = "bias"
    """One axis that is added."""
    FIXED = "fixed"
    """A product with data none of whose axes grows."""


SELECTORS = (*TensorKind, REST)
BY_GROWTH = (TensorKind.HIDDEN, TensorKind.EMBEDDING, TensorKind.READOUT, TensorKind.FIXED)
"""Kinds that are told apart by which axes grow: along the width, whatever else grows."""


@dataclass(frozen=True)
class TensorGroup:
    """Tensors that one rule trains.

    ``selectors``: kinds, ``rest``, or patterns of names. ``rule``: None for tensors that stay as
    they are. ``values``: numbers of the rule's symbols; ``exponents``: those of its exponents.
    ``parts``: how many matrices each tensor packs along its fan_out (queries, keys, values).
    """

    selectors: tuple[str, ...]
    rule: Rule | None
    values: Mapping[str, float] = field(default_factory=dict, hash=False)
    exponents: Mapping[str, Expr] = field(default_factory=dict, hash=False)
    parts: int = 1

    def takes(self, name: str, kind: TensorKind) -> bool:
        """Whether it selects a tensor."""
        return any(_selects(x, name, kind) for x in self.selectors)

    @property
    def label(self) -> str:
        """Its selectors, as text."""
        return ", ".join(self.selectors)

    @property
    def rule_name(self) -> str:
        """The name of its rule, or the rule."""
        return FROZEN if self.rule is None else self.rule.name or str(self.rule)

    def __str__(self) -> str:
        given = {**self.exponents, **{k: _shortest(v) for k, v in self.values.items()}}
        constants = ", ".join(f"{k}={v}" for k, v in given.items())
        parts = f" in {self.parts} parts" if self.parts > 1 else ""
        return f"{self.label}: {self.rule_name}{parts}" + (
            f" with {constants}" if constants else ""
        )


@dataclass(frozen=True)
class Recipe:
    """Groups in order.

    Raises:
        InvalidInput: for no group, a group that selects nothing, a selector that stands twice, or
            a group behind one that takes everything.
    """

    groups: tuple[TensorGroup, ...]
    name: str = ""

    def __post_init__(self) -> None:
        if not self.groups:
            raise InvalidInput("a recipe without groups", "one group or more", "write rest: adamw")
        seen: set[str] = set()
        for group in self.groups:
            if not group.selectors:
                raise InvalidInput(
                    f"the group '{group}', which selects nothing",
                    f"one of {', '.join(SELECTORS)}, or a pattern of names",
                    f"write {REST}: {group.rule_name}",
                )
            for selector in group.selectors:
                if selector in seen:
                    raise InvalidInput(
                        f"'{selector}' twice in the recipe '{self}'",
                        "one group for each tensor",
                        f"leave one '{selector}' out, or select part of it by a pattern before it",
                    )
                if seen & {REST, "*"}:
                    last = self.groups[-1]
                    raise InvalidInput(
                        f"the group '{group.label}' behind '{_everything(seen)}', which takes all "
                        "tensors that are left",
                        f"'{_everything(seen)}' as the last group",
                        f"put '{last}' first",
                    )
                seen.add(selector)
        for rule in self.rules if len(self.rules) > 1 else ():
            if len({_is_of_gradients(x) for x in rule.sums_over_layers}) > 1:
                raise InvalidInput(
                    f"sums over all tensors and over those of a group in one rule: '{rule}'",
                    "sums of one of the two kinds: of G alone, or of what the rule makes of it",
                    f"write one of '{rule.sums_over_layers[0]}' and '{rule.sums_over_layers[1]}'",
                )

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules, each once."""
        return tuple(dict.fromkeys(g.rule for g in self.groups if g.rule is not None))

    @property
    def is_plain(self) -> bool:
        """Whether it is one rule for everything."""
        return len(self.groups) == 1 and self.groups[0].selectors == (REST,)

    @property
    def exponents(self) -> tuple[str, ...]:
        """Names of the symbolic exponents of all rules."""
        return self._names(lambda rule: rule.exponents)

    @property
    def powers(self) -> tuple[Power, ...]:
        """Powers with a symbolic exponent, of all rules."""
        return tuple(dict.fromkeys(power for rule in self.rules for power in rule.powers))

    @property
    def scaled(self) -> tuple[str, ...]:
        """Names of the hyper-parameters M^(-d) of all rules."""
        return self._names(lambda rule: rule.scaled)

    @property
    def constants(self) -> tuple[str, ...]:
        """Names of the hyper-parameters of order one of all rules."""
        return self._names(lambda rule: rule.constants)

    @property
    def decays(self) -> tuple[str, ...]:
        """Names of the decays of the weights of all rules."""
        return self._names(lambda rule: rule.decays)

    @property
    def averages(self) -> tuple[str, ...]:
        """Names of the decays of moving averages of all rules."""
        return self._names(lambda rule: rule.averages)

    def _names(self, of: Callable[[Rule], Iterable[str]]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for rule in self.rules for name in of(rule)))

    @property
    def asks_for_growth(self) -> bool:
        """Whether it selects by a kind that is told by which axes grow."""
        return any(s in BY_GROWTH for group in self.groups for s in group.selectors)

    def assigned(
        self, kinds: Mapping[str, TensorKind], frozen: Iterable[str] = ()
    ) -> dict[str, TensorGroup]:
        """The group of every trained tensor, by name.

        Args:
            kinds: of the trained tensors.
            frozen: names of tensors that are not trained anyway; groups may name them as frozen.

        Raises:
            InvalidInput: for a tensor that no group takes, a pattern that no name fits, or a group
                all of whose tensors are taken by groups before it.
        """
        found: dict[str, TensorGroup] = {}
        for name, kind in kinds.items():
            group = next((g for g in self.groups if g.takes(name, kind)), None)
            if group is None:
                raise InvalidInput(
                    f"the tensor '{name}' ({kind}), which no group of '{self}' takes",
                    "a group for every trained tensor",
                    f"add '{REST}: adamw', or '{name}: {FROZEN}' to keep it as it is",
                )
            found[name] = group
        for group in self.groups:
            for selector in group.selectors:
                _refuse_a_misspelt(group, selector, kinds, tuple(frozen))
            meant = [name for name, kind in kinds.items() if group.takes(name, kind)]
            taken = [found[name] for name in meant]
            if REST not in group.selectors and taken and group not in taken:
                raise InvalidInput(
                    f"the group '{group}', whose tensors are all taken by '{taken[0]}' before it",
                    "groups in the order from the special to the general",
                    f"put '{group}' before '{taken[0]}', or leave it out",
                )
        return found

    def absent(self, kinds: Mapping[str, TensorKind]) -> tuple[str, ...]:
        """The kinds that it names and that no tensor has."""
        named = [TensorKind(s) for g in self.groups for s in g.selectors if s in tuple(TensorKind)]
        return tuple(kind for kind in named if kind not in kinds.values())

    def mapped(self, change: Callable[[TensorGroup], TensorGroup]) -> Recipe:
        """The recipe with every group changed."""
        return replace(self, groups=tuple(change(group) for group in self.groups))

    def __str__(self) -> str:
        only = self.groups[0]
        if self.is_plain and not only.values and not only.exponents and only.parts == 1:
            return self.groups[0].rule_name
        return "; ".join(map(str, self.groups))


def as_recipe(recipe: Recipe | Rule | Node | str) -> Recipe:
    """A recipe as it is, or the recipe of one rule for all tensors.

    Raises:
        InvalidInput: for anything that is no rule; see `as_rule`.

    >>> str(as_recipe("sign(G)")), as_recipe("sign(G)").is_plain
    ('sign(G)', True)
    """
    if isinstance(recipe, Recipe):
        return recipe
    return Recipe((TensorGroup((REST,), as_rule(recipe)),))


def sums_over_everything(rule: Rule) -> bool:
    """Whether the sums over layers of a rule are of G alone, and so of every trained tensor.

    >>> from scaling.rules.parser import parse
    >>> sums_over_everything(parse("G / sqrt(over_layers(norm(G)**2))"))
    True
    >>> sums_over_everything(parse("G / sqrt(over_layers(inner(orth(G @ A), G)))"))
    False
    """
    return all(map(_is_of_gradients, rule.sums_over_layers))


def _is_of_gradients(call: Call) -> bool:
    names = {x.name for x in call.walk() if isinstance(x, Matrix | Symbol)}
    return names <= {"G"}


def _refuse_a_misspelt(
    group: TensorGroup,
    selector: str,
    kinds: Mapping[str, TensorKind],
    frozen: tuple[str, ...],
) -> None:
    """Refuse a selector that is no kind and that no name fits."""
    named = any(_selects(selector, name, kind) for name, kind in kinds.items())
    stays = group.rule is None and any(fnmatchcase(name, selector) for name in frozen)
    if named or stays or selector in SELECTORS:
        return
    near = get_close_matches(selector, [*SELECTORS, *kinds], n=1, cutoff=0.6)
    raise InvalidInput(
        f"the group '{selector}', which is no kind and fits the name of no trained tensor",
        f"a kind ({', '.join(SELECTORS)}) or a pattern of names",
        f"did you mean '{near[0]}'?" if near else f"choose from {_some(kinds)}",
    )


def _selects(selector: str, name: str, kind: TensorKind) -> bool:
    if selector in SELECTORS:
        return selector in (REST, kind)
    return fnmatchcase(name, selector)


def _shortest(x: float) -> str:
    return f"{x:g}" if float(f"{x:g}") == x else repr(x)


def _everything(seen: Iterable[str]) -> str:
    return REST if REST in seen else "*"


def _some(kinds: Mapping[str, TensorKind]) -> str:
    names = [f"{name} ({kind})" for name, kind in kinds.items()]
    return ", ".join(names[:8]) + (f" and {len(names) - 8} others" if len(names) > 8 else "")
