"""The user's own optimizer, at one rate for all tensors or at the numbers of a plan.

    standard    lr of a group x rate / largest lr of all groups      groups keep their ratios
    plan        the same x the factor of the tensor's size; so are eps, weight_decay and others

What an optimizer holds is its user's: a plan multiplies these numbers by its factors, and changes
nothing else in a group. Groups are split where tensors of one group have different factors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from empirical.plans.planned_tensors import PlannedTensor
from empirical.trace.wrapped_names import tensors_of
from scaling.sizes.errors import InvalidInput

DECAY = "weight_decay"
EPS = "eps"


def at_one_rate(optimizers: Sequence[torch.optim.Optimizer], rate: float) -> None:
    """Set the largest learning rate of all groups; the others keep their ratio to it."""
    largest = _largest(optimizers)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate * float(group["lr"]) / largest


def at_planned_numbers(
    optimizers: Sequence[torch.optim.Optimizer],
    model: nn.Module,
    factors: Mapping[str, PlannedTensor],
    rate: float,
) -> None:
    """Multiply the numbers of every tensor by its factors, in groups that are split as needed.

    Args:
        optimizers: those that train the model, before a step.
        model: at the size of the plan.
        factors: a plan whose numbers at the base are all one.
        rate: the largest learning rate of all groups, at the base.

    Raises:
        InvalidInput: for tensors that no optimizer trains, a factor of a number that the optimizer
            does not have, and a decay that the rule does not have.
    """
    at_one_rate(optimizers, rate)
    names = {id(p): name for name, p in tensors_of(model).items()}
    seen = set()
    for optimizer in optimizers:
        split: dict[tuple[Any, ...], dict[str, Any]] = {}
        for i, group in enumerate(optimizer.param_groups):
            for p in group["params"]:
                name = names.get(id(p), "")
                seen.add(name)
                numbers = _numbers(optimizer, group, name, factors.get(name))
                made = {**group, **numbers, "params": []}
                split.setdefault((i, *numbers.items()), made)["params"].append(p)
        optimizer.param_groups[:] = split.values()
    missing = [name for name in factors if name not in seen]
    if missing:
        raise InvalidInput(
            f"an optimizer that does not train '{missing[0]}'",
            "optimizers that train every tensor of the recipe",
            f"add it to a group in optimizer(model), or write '{missing[0]}: frozen' in the recipe",
        )


def untold(
    optimizers: Sequence[torch.optim.Optimizer],
    model: nn.Module,
    factors: Mapping[str, PlannedTensor],
) -> Iterator[str]:
    """Numbers that the optimizer has and the rule does not: they stay as they are."""
    names = {id(p): name for name, p in tensors_of(model).items()}
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for p in group["params"]:
                planned = factors.get(names.get(id(p), ""))
                if planned is not None and group.get(EPS) and EPS not in planned.dampings:
                    yield (
                        f"{EPS} = {group[EPS]:g} of {type(optimizer).__name__} stays at every "
                        f"size: the rule of '{planned.group}' has no such number"
                    )


def _numbers(
    optimizer: torch.optim.Optimizer,
    group: Mapping[str, Any],
    name: str,
    planned: PlannedTensor | None,
) -> dict[str, float]:
    """The numbers of a tensor that change."""
    if planned is None:  # frozen: it has no gradient, and no optimizer of torch moves it
        return {}
    kind = type(optimizer).__name__
    if group.get(DECAY) and not planned.decays:
        raise InvalidInput(
            f"{DECAY} = {group[DECAY]:g} of '{name}' in {kind}, and a rule without a decay",
            "a recipe of what the optimizer does",
            f"name a rule with a decay, such as adamw, or pass {DECAY}=0 in optimizer(model)",
        )
    keys = {k: x for k, x in planned.dampings.items()}
    if len(planned.decays) == 1:
        keys[DECAY] = next(iter(planned.decays.values()))
    else:
        keys |= planned.decays
    found = {"lr": float(group["lr"]) * planned.lr}
    for key, factor in keys.items():
        if key in group:
            found[key] = float(group[key]) * factor
        elif factor != 1:
            raise InvalidInput(
                f"{kind}, which has no {key}, while the plan has {factor:.4g} times the {key} of "
                f"the base for '{name}'",
                "a recipe of what the optimizer does",
                f"name a rule without {key}, or leave optimizer out of the file: the rule itself "
                "is the optimizer then",
            )
    return found


def _largest(optimizers: Sequence[torch.optim.Optimizer]) -> float:
    rates = [float(group["lr"]) for x in optimizers for group in x.param_groups]
    largest = max(rates, default=0.0)
    if not largest > 0:
        raise InvalidInput(
            f"optimizer(model) with the learning rates {rates}",
            "one above 0, to which the others have a ratio",
            "pass for example lr=0.01: the rates of --lr take its place",
        )
    return largest
