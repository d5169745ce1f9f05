"""The optimizer of a user's file: what trains the model today, or what takes the groups of a plan.

    def optimizer(model):               as it is: its learning rates are the user's own
        return torch.optim.AdamW(model.parameters(), lr=1e-3)

    def optimizer(model, groups=None):  with a plan: its groups, each with a key "group"
        return torch.optim.AdamW(groups or model.parameters(), lr=1e-3)

Either may return several optimizers. Whether the groups of a plan arrive is seen by the steps: with
other learning rates in the groups, the step of each tensor must be other by its group's factor.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from empirical.plans.plan import ModelPlan
from empirical.trace.execute import double_of, in_double
from empirical.trace.model_file import ModelFile
from empirical.trace.wrapped_names import tensors_of
from empirical.verify.model_steps import refuse_no_number
from scaling.sizes.errors import InvalidInput

Optimizers = Sequence[torch.optim.Optimizer]
WITH_GROUPS = "def optimizer(model, groups): return torch.optim.AdamW(groups)"
CLOSE = 1e-3


def takes_groups(file: ModelFile) -> bool:
    """Whether the optimizer of a file takes the groups of a plan."""
    if file.optimizer_of is None:
        return False
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    known = inspect.signature(file.optimizer_of).parameters.values()
    return len([p for p in known if p.kind in kinds]) > 1


def place_of(file: ModelFile) -> str:
    """The line of the optimizer in its file."""
    own = file.optimizer_of
    try:
        assert own is not None, "asked for where there is one"
        home = inspect.getsourcefile(own) or ""
        same = Path(home).resolve() == Path(file.path).resolve()
        return f"{file.path if same else home}:{inspect.getsourcelines(own)[1]}"
    except (OSError, TypeError):
        return str(file.path)


def one_step(model: nn.Module, file: ModelFile, sizes: Mapping[str, int], all_of: Optimizers,
             seed: int, where: str) -> float:  # fmt: skip
    """One step on the file's batch; the loss before it.

    Raises:
        InvalidInput: for a loss that is not finite.
    """
    inputs, targets = file.batch(sizes)
    data, y = [double_of(x) for x in inputs], double_of(targets)

    def closure() -> torch.Tensor:
        for optimizer in all_of:
            optimizer.zero_grad()
        torch.manual_seed(seed)
        loss = file.loss_for(y)(model(*data), y)
        refuse_no_number(loss, where)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    first = float(closure().detach())
    for optimizer in all_of:
        needs = inspect.signature(type(optimizer).step).parameters.get("closure")
        if needs is not None and needs.default is inspect.Parameter.empty:
            optimizer.step(lambda: float(closure().detach()))
        else:
            optimizer.step()
    return first


def refuse_ignored_groups(file: ModelFile, plan: ModelPlan, sizes: Mapping[str, int]) -> None:
    """Refuse an optimizer whose steps do not follow the groups of a plan.

    Every group gets a learning rate that is 2, 3, 4.. times its own. A step that is as it was, or
    that follows the rate of another group, shows that the optimizer ignores the groups.

    Raises:
        InvalidInput: naming the first tensor, or one that no optimizer trains.
    """
    steps: list[dict[str, torch.Tensor]] = []
    factors: dict[str, float] = {}
    for raised in (False, True):
        with in_double(0):
            model = file.build(sizes).double().train()
            plan.apply_(model)
            tensors, names = tensors_of(model), {id(p): n for n, p in tensors_of(model).items()}
            groups = plan.param_groups(model)
            for i, group in enumerate(groups if raised else []):
                factors |= {names[id(p)]: 2.0 + i for p in group["params"]}
                group["lr"] *= 2.0 + i
            all_of = file.optimizers(model, groups)
            trained = {id(p) for one in all_of for g in one.param_groups for p in g["params"]}
            for name in plan.tensors:
                if id(tensors[name]) not in trained:
                    raise InvalidInput(
                        f"an optimizer in {place_of(file)} that does not train '{name}'",
                        "optimizers that train every tensor of the plan, each once",
                        "pass all groups on, or freeze the tensor in the recipe",
                    )
            before = {n: p.detach().clone() for n, p in tensors.items()}
            where = ", ".join(f"{k}={v}" for k, v in sizes.items())
            one_step(model, file, sizes, all_of, 0, where)
            steps.append({n: p.detach() - before[n] for n, p in tensors.items()})
    for name, factor in factors.items():
        one, two = (float(x[name].norm()) for x in steps)
        if one == 0:
            continue
        others = {1.0, *factors.values()} - {factor}
        if any(abs(two / one - other) < CLOSE * other for other in others):
            raise InvalidInput(
                f"an optimizer in {place_of(file)} that ignores the groups of the plan: with "
                f"{factor:g} times the learning rate the step of '{name}' is {two / one:.4g} times "
                "what it was",
                "an optimizer that takes lr from the group of each tensor",
                f"write for example: {WITH_GROUPS}",
            )
