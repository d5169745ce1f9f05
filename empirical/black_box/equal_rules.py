"""The rules that an optimizer equals: those of the catalogue and of ready-made recipes.

A rule U is equal if dW = -k U with one k > 0, for all layers and two steps on two batches, to 1e-5
of the size of dW: the sign of a step and the unit of its rate are conventions. Symbols of the rule
get the numbers that the optimizer has under their names (`NAMES`), or else those that its
declaration names, but not zero: a rule that forgets nothing is a simpler one. A rule with a decay
of the weights is tried at decay = 0 where the optimizer has none and no other rule is equal.

Not covered: rules that take a second gradient (ascended), and optimizers that idle in their first
step, which no rule does.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from derivations.catalogue import catalogue
from derivations.ready_made import ready_made
from empirical.black_box.optimizer_class import OptimizerClass
from empirical.black_box.two_steps import (
    Closure,
    RecordedStep,
    in_full_precision,
    recorded,
    replayed,
)
from scaling.rules.rule import Rule
from scaling.sizes.errors import InvalidInput

RTOL = 1e-5
NAMES: Mapping[str, tuple[str, ...]] = {
    "beta": ("momentum", "alpha", "beta", "beta2", "beta1"),
    "beta1": ("beta1", "momentum"),
    "beta2": ("beta2", "alpha"),
    "shampoo_beta": ("shampoo_beta", "beta2"),
    "decay": ("weight_decay",),
    "eps": ("eps", "epsilon", "eps1", "eps2"),
    "rho": ("damping", "weight_decay", "eps", "epsilon"),
    "rho_A": ("damping", "eps", "epsilon"),
    "rho_B": ("damping", "eps", "epsilon"),
    "rho_L": ("damping", "eps", "epsilon"),
    "rho_R": ("damping", "eps", "epsilon"),
    "bound": ("max_grad_norm", "clip_threshold", "d"),
}
"""Names of the symbols of rules in libraries; the two numbers of ``betas`` are beta1 and beta2."""
_SIDES = (5, 7, 12, 6, 3)
_MOST = 12
"""Choices of numbers that are tried for a rule."""


@dataclass(frozen=True)
class EqualRule:
    """A rule that an optimizer equals: its name, and the numbers at which it does."""

    name: str
    rule: Rule
    values: Mapping[str, float]


def equal_rules(made: OptimizerClass, rtol: float = RTOL) -> tuple[list[EqualRule], list[str]]:
    """The rules that an optimizer equals, and what was done to see it."""
    numbers = numbers_of(made)
    found = _equal(_first_two(made), numbers, rtol)
    if found:
        return found, []
    with in_full_precision():
        steps = _first_two(made)
    found = _equal(steps, numbers, rtol)
    note = "compared with rules in float64: in its own code it rounds to a coarser dtype"
    return found, [note] if found else []


def distance(made: OptimizerClass, rule: Rule, usual: Mapping[str, float], steps: int = 2) -> float:
    """How far dW = -k U with the best k > 0 is from the first two steps, relative to the RMS of dW.

    Formulas are compared, not roundings: the optimizer keeps its dtype where it asks for another.

    Args:
        made: the optimizer, whose numbers the symbols of the rule get where it has them.
        rule: without a second gradient.
        usual: numbers of the symbols that the optimizer has not.
        steps: how many of the two are looked at.
    """
    with in_full_precision():
        taken, numbers = _first_two(made)[:steps], numbers_of(made)
    names = list(taken[0].layers)
    choices = itertools.islice(_choices(rule, numbers, usual), _MOST)
    return min((_apart(taken, rule, values, names) for values in choices), default=math.inf)


def numbers_of(made: OptimizerClass) -> dict[str, float]:
    """The numbers of an optimizer that are not zero, those of ``betas`` one by one."""
    group: Mapping[str, Any] = made.on(_small()).param_groups[0]
    found = {k: float(x) for k, x in group.items() if isinstance(x, int | float)}
    for keyword, name in (("betas", "beta"), ("eps", "eps")):
        several = group.get(keyword)
        if isinstance(several, tuple | list):
            numbers = [float(x) for x in several if isinstance(x, int | float)]
            found |= {f"{name}{k}": x for k, x in enumerate(numbers, 1)}
    return {k: x for k, x in found.items() if x != 0}


def candidates() -> Iterator[tuple[str, Rule, Mapping[str, float]]]:
    """Names, rules and usual numbers, of the catalogue and then of the ready-made recipes."""
    for name, one in catalogue().items():
        yield name, one.rule, {**one.values, **{k: float(x) for k, x in one.exponents.items()}}
    for name, made in ready_made().items():
        for group in made.recipe.groups:
            if group.rule is not None:
                label = name if made.recipe.is_plain else f"{name} ({group.label})"
                yield label, group.rule, dict(group.values)


def _equal(
    steps: Sequence[RecordedStep], numbers: Mapping[str, float], rtol: float
) -> list[EqualRule]:
    if not any(bool(x.any()) for x in steps[0].moved.values()):
        return []
    decays = "weight_decay" in numbers
    plain = [one for one in candidates() if decays or not one[1].decays]
    found = _among(plain, steps, numbers, rtol)
    if found or decays:
        return found
    still = dict.fromkeys((x for _, rule, _ in candidates() for x in rule.decays), 0.0)
    rest = [
        (f"{name} (without decay)", rule, {**usual, **still})
        for name, rule, usual in candidates()
        if rule.decays
    ]
    return _among(rest, steps, numbers, rtol)


def _among(
    rules: Iterable[tuple[str, Rule, Mapping[str, float]]],
    steps: Sequence[RecordedStep],
    numbers: Mapping[str, float],
    rtol: float,
) -> list[EqualRule]:
    names, found = list(steps[0].layers), []
    for name, rule, usual in rules:
        if rule.ascents:
            continue
        for values in itertools.islice(_choices(rule, numbers, usual), _MOST):
            sums = bool(rule.sums_over_layers)
            if not sums and _apart(steps[:1], rule, values, names[:1]) > rtol:
                continue
            if _apart(steps, rule, values, names) <= rtol:
                found.append(EqualRule(name, rule, values))
                break
    return found


def _choices(
    rule: Rule, numbers: Mapping[str, float], usual: Mapping[str, float]
) -> Iterator[dict[str, float]]:
    literal = {k: float(x) for k, x in rule.literals.items()}
    symbols = [
        x for x in (*rule.scaled, *rule.constants, *rule.exponents) if x not in literal
    ]  # fmt: skip
    options = []
    for symbol in symbols:
        own = [numbers[x] for x in NAMES.get(symbol, (symbol,)) if x in numbers]
        own += [usual[symbol]] if symbol in usual else []
        options.append(dict.fromkeys(own))
    for chosen in itertools.product(*options):
        yield {**literal, **dict(zip(symbols, chosen, strict=True))}


def _apart(
    steps: Sequence[RecordedStep], rule: Rule, values: Mapping[str, float], names: Sequence[str]
) -> float:
    """The largest error of dW = -k U with the best k, relative to the RMS entry of dW."""
    try:
        updates = replayed(rule, values, steps, names)
    except InvalidInput:
        return math.inf
    pairs = [
        (-step.moved[name], update[name])
        for step, update in zip(steps, updates, strict=True)
        for name in names
    ]
    first, own = pairs[0]
    k = float((first * own).sum() / own.square().sum().clamp(min=1e-300))
    if not (k > 0 and math.isfinite(k)):
        return math.inf
    return max(_error(moved, k * update) for moved, update in pairs)


def _error(moved: Tensor, expected: Tensor) -> float:
    size = float(moved.square().mean().sqrt())
    return float((moved - expected).abs().max()) / size if size > 0 else math.inf


def _small() -> nn.Sequential:
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential()
    for k, (fan_in, fan_out) in enumerate(itertools.pairwise(_SIDES)):
        layer = nn.Linear(fan_in, fan_out, bias=False, dtype=torch.float64)
        drawn = torch.randn(fan_out, fan_in, generator=generator, dtype=torch.float64)
        layer.weight.data.copy_(drawn / fan_in**0.5)
        model.add_module(f"layer_{k}", layer)
        if k < len(_SIDES) - 2:
            model.add_module(f"tanh_{k}", nn.Tanh())
    return model


def _first_two(made: OptimizerClass) -> list[RecordedStep]:
    """Two steps on two batches, so that a small rate does not make the gradients alike."""
    model, generator = _small(), torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    batches = [(normal(16, _SIDES[0]), normal(16, _SIDES[-1])) for _ in range(2)]
    optimizer, taken = made.on(model), 0

    def loss() -> Tensor:
        x, y = batches[taken]
        outputs: Tensor = model(x)
        return (outputs - y).square().sum(1).mean() / 2

    def step(closure: Closure) -> None:
        nonlocal taken
        made.step(optimizer, closure)
        taken = min(taken + 1, 1)

    return recorded(model, loss, step)
