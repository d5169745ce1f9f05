"""The numbers of one tensor: what was tuned at the base, times the factors of all axes.

number at the target = number at the base x product over axes of (target / base)^(-exponent)
                       x (batch / base batch)^power x (samples / base samples)^power
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from sympy import Expr, S
from torch import Tensor

from empirical.plans.planned_axes import PlannedAxis
from empirical.plans.planned_tensors import PlannedTensor
from empirical.trace.execute import root_mean_square
from scaling.models.graph import Start
from scaling.models.recipe import RATE, Recipe, TensorGroup
from scaling.rules.rule import Rule
from scaling.sizes.errors import InvalidInput, NotCovered, is_finite, unknown
from scaling.solve.graph_solution import TensorAnswer
from scaling.solve.sourced_powers import SourcedPowers, degree, sourced_powers

Tuned: TypeAlias = Mapping[str, float | Mapping[str, float]]
"""By symbol, one number, or one for each group of the recipe by its label."""
Powers: TypeAlias = Mapping[str, Mapping[str, Expr]]
"""By batch or samples: powers of lr, decay, damping and 1-beta."""
OPTIONS = (RATE, "eps", "decay")
"""Numbers that have an option of their own on the command line."""
QUANTITIES = {"lr": "lr", "decay": "decay", "damping": "damping", "1-beta": "forgetting"}


class TunedNumbers:
    """Numbers at the base, by group.

    Raises:
        InvalidInput: for a number of no rule, or that is none.
    """

    def __init__(self, recipe: Recipe, tuned: Tuned) -> None:
        self.tuned = tuned
        self.notes: dict[str, None] = {}
        known = dict.fromkeys((RATE, *recipe.scaled, *recipe.averages))
        labels = [group.label for group in recipe.groups]
        for symbol, given in tuned.items():
            if symbol not in known:
                raise unknown("number", symbol, known)
            numbers = given if isinstance(given, Mapping) else {"": given}
            for label, x in numbers.items():
                if label and label not in labels:
                    raise unknown("group of the recipe", label, labels)
                if not is_finite(x) or x < 0:
                    raise InvalidInput(
                        f"{symbol}={x}", "a finite number of at least 0", f"pass {symbol}=0.001"
                    )

    def of(
        self,
        group: TensorGroup,
        own: Mapping[str, float],
        forgets: bool,
        stand: Mapping[str, float] | None = None,
    ) -> dict[str, float]:
        """All numbers of a group's rule.

        Averages that nobody gave are left to the optimizer, unless they change with the sizes.

        Args:
            group: with the constants of practice.
            own: the constants that the recipe itself gives.
            forgets: whether averages change with the sizes.
            stand: constants of the group that stand where a number is given for all groups.

        Raises:
            InvalidInput: for a learning rate or a damping without a number.
        """
        rule = rule_of_group(group)
        found = {**{k: float(x) for k, x in rule.literals.items()}, **group.values}
        for symbol, given in self.tuned.items():
            if not isinstance(given, Mapping):
                if symbol not in (stand or {}):
                    found[symbol] = float(given)
                elif found[symbol] != given:
                    text = (
                        f"{symbol} = {found[symbol]:g} of '{group}', which has a number of its own"
                    )
                    self.notes[text] = None
            elif group.label in given:
                found[symbol] = float(given[group.label])
        for symbol in rule.averages:
            if symbol in found and symbol not in {**self.tuned, **own}:
                if forgets:
                    text = f"{symbol} = {found[symbol]:g} at the base, as usual: none was given"
                    self.notes[text] = None
                else:
                    del found[symbol]
        for symbol in (RATE, *rule.scaled):
            if symbol not in found and symbol in rule.decays:
                found[symbol] = 0.0
                self.notes[f"no {symbol} was given for '{group.label}': it is 0"] = None
            elif symbol not in found:
                option = f"--{symbol} 0.001, in Python " if symbol in OPTIONS else ""
                constants = {**{k: f"{x:g}" for k, x in own.items()}, symbol: "0.001"}
                text = ", ".join(f"{k}={x}" for k, x in constants.items())
                raise InvalidInput(
                    f"no {symbol} for the group '{group}'",
                    "the number that was tuned at the base",
                    f"write '{group.label}: {group.rule_name} with {text}', or give it for all "
                    f"groups: {option}tuned={{'{symbol}': 0.001}}",
                )
        return found


def rule_of_group(group: TensorGroup) -> Rule:
    """The rule of tensors that are trained."""
    assert group.rule is not None, "frozen tensors are not planned"
    return group.rule


@dataclass(frozen=True)
class PlannedGrowth:
    """The factors of one tensor's numbers, from its answers along all axes.

    ``sizes``: by batch and samples that change, the ratio and the powers.
    """

    group: TensorGroup
    axes: Sequence[PlannedAxis]
    answers: Sequence[TensorAnswer]
    sizes: Mapping[str, tuple[float, SourcedPowers]]

    def tensor(
        self, shape: tuple[int, ...], std: float | None, tuned: Mapping[str, float]
    ) -> PlannedTensor:
        """Its numbers at the target."""
        rule = rule_of_group(self.group)
        dampings = {k: tuned[k] * self._damping(rule, k) for k in rule.dampings}
        decays = {k: tuned[k] * self._scaled(k) * self._sized("decay") for k in rule.decays}
        averages = {k: self._average(k, tuned[k]) for k in rule.averages if k in tuned}
        lr = tuned[RATE] * self._axes("c", [x.c for x in self.answers]) * self._sized("lr")
        return PlannedTensor(shape, std, lr, dampings, decays, self.group.label, averages)

    def std(self, at_base: Mapping[str, Tensor], alike: Sequence[str]) -> float | None:
        """The standard deviation at the target of what the code draws; None for what stays.

        Args:
            at_base: the tensors as the code draws them at the base.
            alike: the names of those that this one is like.
        """
        start = self.axes[0].parameter(self.answers[0].name).start
        if start is not Start.DRAWN:
            return None
        found = root_mean_square([at_base[name] for name in alike])
        return found * self._axes("b", [x.b for x in self.answers])

    def _damping(self, rule: Rule, symbol: str) -> float:
        return self._scaled(symbol) * self._sized("damping", degree(rule, symbol))

    def _scaled(self, symbol: str) -> float:
        return self._axes(f"d_{symbol}", [x.d[symbol] for x in self.answers])

    def _average(self, symbol: str, beta: float) -> float:
        factor = self._sized("forgetting")
        forgets = (1 - beta) * factor
        if forgets > 1:
            raise InvalidInput(
                f"1 - {symbol} = {forgets:.4g} at the target, from {symbol} = {beta:g} at the base",
                "an average that remembers something: 1 - beta of at most 1",
                "grow the batch less, or give a power of your own: batch:1-beta=0 with the others",
            )
        return beta if factor == 1 else 1 - forgets

    def _axes(self, what: str, exponents: Sequence[Expr]) -> float:
        """The factor of all axes of the graph."""
        factor = 1.0
        for axis, answer, x in zip(self.axes, self.answers, exponents, strict=True):
            if axis.ratio == 1:
                continue
            if not x.is_number or x.is_infinite:
                raise _no_number(what, x, axis, answer, self.group)
            factor *= axis.ratio ** -float(x)
        return factor

    def _sized(self, quantity: str, times: Expr = S.One) -> float:
        """The factor of the batch and the samples."""
        factor = 1.0
        for ratio, powers in self.sizes.values():
            power: Expr = getattr(powers, quantity)
            factor *= ratio ** float(power * times)
        return factor


def _no_number(
    what: str, x: Expr, axis: PlannedAxis, answer: TensorAnswer, group: TensorGroup
) -> NotCovered:
    own = f"c_{answer.name}"
    symbols = sorted(str(s) for s in x.free_symbols)
    if own in symbols or not symbols:
        do_this = f"freeze it: '{answer.name}: frozen; {group}'"
    else:
        do_this = f"write '{group.label}: {group.rule_name} with {symbols[0]}=1'"
    return NotCovered(
        f"{what} = {x} of '{answer.name}' along the {axis.name}",
        "a number: tensors with a gradient, and exponents of the rule with values",
        do_this,
    )


def powers_of_sizes(
    group: TensorGroup, ratios: Mapping[str, float], given: Powers
) -> tuple[dict[str, tuple[float, SourcedPowers]], list[str]]:
    """Powers of the batch and the samples for a group, and the lines that say where they are from.

    Raises:
        NotCovered: for a rule that no literature has a power for, where none is given.
    """
    found: dict[str, tuple[float, SourcedPowers]] = {}
    lines = []
    for size, ratio in ratios.items():
        if ratio == 1:
            continue
        if size in given:
            own = {field: given[size].get(key, S.Zero) for key, field in QUANTITIES.items()}
            powers = SourcedPowers(**own, source="as given")
        else:
            powers = sourced_powers(rule_of_group(group), size)
        found[size] = ratio, powers
        lines.append(
            f"{size}, for {group.rule_name}: lr x k^({powers.lr}), decay x k^({powers.decay}), "
            f"damping x k^({powers.damping}) per degree, 1 - beta x k^({powers.forgetting}), "
            f"k = {ratio:g}; {powers.source}; not derived here"
        )
    return found, lines
