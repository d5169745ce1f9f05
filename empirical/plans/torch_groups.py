"""A plan as plain parameter groups of torch: as few as there are different numbers.

    rule        torch
    lr          lr
    decay       weight_decay, where a rule has one decay
    beta1, beta2    betas, where the plan changes them or knows both
    eps, others     by their own names

Nothing hangs on tensors: any optimizer that takes groups takes these, and schedulers, FSDP, DDP,
torch.compile and state_dict see nothing unusual. An optimizer keeps keys that it does not know. A
wrapper's part of a name is dropped (trace/wrapped_names.py); groups are made once the model is
wrapped, since FSDP puts tensors of its own in the place of the model's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from empirical.plans.planned_tensors import PlannedTensor
from empirical.trace.wrapped_names import tensors_of
from scaling.sizes.errors import InvalidInput, unknown


def param_groups(
    model: nn.Module, planned: Mapping[str, PlannedTensor], group: str | None = None
) -> list[dict[str, Any]]:
    """The groups of a model's trained tensors.

    Args:
        model: the model that the plan was made for.
        planned: the numbers of its tensors.
        group: of the recipe, by its label: one of several optimizers takes it alone.

    Raises:
        InvalidInput: for a group that the plan does not have.
    """
    labels = list(dict.fromkeys(x.group for x in planned.values()))
    if group is not None and group not in labels:
        raise unknown("group of the recipe", group, labels)
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    tensors = tensors_of(model)
    for name, one in planned.items():
        if group is None or one.group == group:
            options = _options(one)
            key = (one.group, *options.items())
            made = found.setdefault(key, {"params": [], **options, "group": one.group})
            made["params"].append(tensors[name])
    return list(found.values())


def refuse_other_numbers(
    optimizer: torch.optim.Optimizer,
    model: nn.Module,
    planned: Mapping[str, PlannedTensor],
    groups: Iterable[str],
) -> None:
    """Refuse an optimizer that does not have the numbers of the plan.

    Raises:
        InvalidInput: naming the first tensor with another number, or that it does not train.
    """
    wanted = set(groups)
    for group in wanted - {x.group for x in planned.values()}:
        raise unknown("group of the recipe", group, {x.group for x in planned.values()})
    owners = {id(p): own for own in optimizer.param_groups for p in own["params"]}
    tensors = tensors_of(model)
    for name, one in planned.items():
        if wanted and one.group not in wanted:
            continue
        own = owners.get(id(tensors[name]))
        if own is None:
            raise InvalidInput(
                f"an optimizer that does not train '{name}'",
                "one that takes the groups of the plan",
                f"pass {type(optimizer).__name__}(plan.param_groups(model))",
            )
        for key, value in _options(one).items():
            if key in own and own[key] != value:
                raise InvalidInput(
                    f"{key} = {own[key]} of '{name}' in {type(optimizer).__name__}, which has "
                    f"{value} in the plan",
                    "an optimizer that keeps the numbers of its groups",
                    "set no number after it is made, or set lr in each group; check before a "
                    "scheduler has moved it",
                )


def _options(one: PlannedTensor) -> dict[str, Any]:
    found: dict[str, Any] = {"lr": one.lr, **one.dampings}
    if len(one.decays) == 1:
        found["weight_decay"] = next(iter(one.decays.values()))
    else:
        found |= one.decays
    if set(one.averages) == {"beta1", "beta2"}:
        found["betas"] = (one.averages["beta1"], one.averages["beta2"])
    else:
        found |= one.averages
    return found
