"""Factors of a size that an optimizer applies by itself, and a plan that leaves them out.

`torch.optim.Muon(..., adjust_lr_fn="match_rms_adamw")` multiplies steps by 0.2 sqrt(max(fan_out,
fan_in)). A plan that was derived for orth(G), handed to it, scales twice. What an optimizer applies
is seen by its steps, so no list of optimizers is needed: at three sizes the model takes one step by
the optimizer, under the numbers of the plan, and one by the rule of the recipe, from the same
weights on the same batch. Where the change of a tensor's own product by one over that by the other
grows as a power of the size, the optimizer applies that power beside the rule, and the learning
rates leave it out.

Not covered: factors that are no power of the size between the three (refused by name), and what an
optimizer does from the second step on.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

from torch import nn

from empirical.black_box.handed_over import recipe_with_probes
from empirical.checks.grown_model import grown_model
from empirical.checks.own_optimizer import place_of, refuse_ignored_groups, takes_groups
from empirical.checks.planned_models import plans_along
from empirical.plans.making import plan_at
from empirical.plans.plan import ModelPlan
from empirical.trace.given_model import GivenBatch, model_of
from empirical.trace.model_file import GrowingAxis, LossOf, ModelFile
from scaling.models.recipe import Recipe
from scaling.rules.rule import Rule
from scaling.sizes.errors import InvalidInput, NotCovered
from scaling.solve.sourced_powers import SIZES

SEEDS = (0, 1)
GRAIN, CLOSE = 4, 0.08
"""Powers are quarters; a slope has to be as close to one of them, at both doublings."""


def compose(
    made: ModelPlan,
    build: Callable[..., nn.Module],
    batch: GivenBatch | None,
    optimizer: Callable[..., Any],
    loss: LossOf | None = None,
) -> ModelPlan:
    """The plan for an optimizer that applies factors of its own.

    Args:
        made: the plan for the rules of its recipe.
        build: ``build(**axes)`` returns the module.
        batch: (inputs, targets), or a function of the axes that returns them; None for a chain.
        optimizer: ``optimizer(model, groups)`` returns one optimizer of torch or several.
        loss: of outputs and targets; whole numbers mean cross-entropy, others squared error.

    Raises:
        InvalidInput: for a plan of another model, or an optimizer that ignores the groups.
        NotCovered: for a factor that is no power of the size.

    >>> import torch
    >>> from torch import nn
    >>> from empirical.plans.making import plan
    >>> def build(width=8):
    ...     return nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, 2, bias=False))
    >>> def batch():
    ...     return torch.eye(3), torch.ones(3, 2)
    >>> def sgd(model, groups):
    ...     return torch.optim.SGD(groups)
    >>> made = plan(build, batch, "G", dict(width=8), dict(width=32), dict(lr=0.1))
    >>> compose(made, build, batch, sgd).made_from.applied  # plain SGD applies no factors
    {'width': {}}
    """
    file = replace(model_of(build, batch, loss), optimizer_of=optimizer)
    return compose_file(made, file, made.recipe)


def compose_file(made: ModelPlan, file: ModelFile, recipe: Recipe | Rule | str) -> ModelPlan:
    """The same for the file of a model; see `compose`."""
    if not takes_groups(file):
        raise InvalidInput(
            f"no optimizer in {file.path} that takes the groups of a plan",
            "optimizer(model, groups), whose factors are to be left out",
            "write def optimizer(model, groups): return torch.optim.AdamW(groups)",
        )
    asked, _ = recipe_with_probes(recipe)
    made = plan_at(made, file, asked, made.at, {})
    grown = [axis for axis in made.base if made.at[axis] != made.base[axis] and axis not in SIZES]
    applied = {axis: own_powers(made, file, asked, axis) for axis in grown}
    again = plan_at(made, file, asked, made.at, applied)
    lines = [
        f"{place_of(file)} multiplies the step of {_names(names)} by {_letter(axis)}^({power}) "
        "itself: twice, if the learning rate had it too, which leaves it out here (measured at "
        f"{', '.join(map(str, _sizes(made, axis)))})"
        for axis, powers in applied.items()
        for power, names in _by_power(powers).items()
    ]
    none = f"{place_of(file)} applies no power of a size beside the recipe, measured at the base"
    return replace(again, assumptions=(*again.assumptions, *(lines or [none])))


def own_powers(made: ModelPlan, file: ModelFile, recipe: Recipe, axis: str) -> dict[str, Fraction]:
    """By tensor, the power of an axis that the optimizer applies beside the recipe, if it does."""
    sizes = GrowingAxis(axis, _sizes(made, axis))
    grown = grown_model(file, recipe, sizes, made)
    plans = plans_along(made, file, recipe, sizes)
    refuse_ignored_groups(grown.model.file, plans[0], {axis: sizes.sizes[0]})
    by_torch, by_rule = grown.by_torch(1, plans), grown.by_rule(1, plans)
    logs: dict[str, list[float]] = {}
    for k in range(len(plans)):
        found = [(by_torch.sizes(k, seed).own, by_rule.sizes(k, seed).own) for seed in SEEDS]
        for name in grown.answer.tensors:
            pairs = [(one.get(name, 0.0), other.get(name, 0.0)) for one, other in found]
            if all(one > 0 and other > 0 for one, other in pairs):
                ratios = [math.log2(one / other) for one, other in pairs]
                logs.setdefault(name, []).append(sum(ratios) / len(ratios))
    steps = {n: (x[1] - x[0], x[2] - x[1]) for n, x in logs.items() if len(x) == len(plans)}
    powers = {name: _power(name, slopes, axis, file) for name, slopes in steps.items()}
    return {name: power for name, power in powers.items() if power}


def _power(name: str, slopes: tuple[float, float], axis: str, file: ModelFile) -> Fraction:
    power = Fraction(round(GRAIN * sum(slopes) / 2), GRAIN)
    if any(abs(slope - power) > CLOSE for slope in slopes):
        told = " and ".join(f"{slope:+.2f}" for slope in slopes)
        raise NotCovered(
            f"steps of {place_of(file)} in '{name}' that are {axis}^x times those of the rule, "
            f"with x = {told} at two doublings",
            "a factor that is a power of the size",
            "write the rule of the recipe as the optimizer has it (scaling list --recipes)",
        )
    return power


def _sizes(made: ModelPlan, axis: str) -> tuple[int, int, int]:
    return made.base[axis], 2 * made.base[axis], 4 * made.base[axis]


def _by_power(powers: dict[str, Fraction]) -> dict[Fraction, list[str]]:
    found: dict[Fraction, list[str]] = {}
    for name, power in powers.items():
        found.setdefault(power, []).append(name)
    return found


def _names(names: list[str]) -> str:
    shown = names if len(names) < 4 else [*names[:2], f"{len(names) - 2} others"]
    return ", ".join(shown)


def _letter(axis: str) -> str:
    return "M" if axis == "width" else axis
