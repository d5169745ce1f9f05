"""A plan: the numbers of every tensor of a large model, from those of a small one.

    plan.apply_(model)          draw the weights
    plan.param_groups(model)    groups for any optimizer of torch
    plan.wrap(model)            change factors of the code by hooks, where the plan counts on them
    plan.table()                to read          plan.save(path), ModelPlan.load(path)    to keep

A file holds everything: loading it needs neither the file of the model nor the derivation.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from empirical.measure.store import write_or_refuse
from empirical.plans.code_factors import Wrapped, wrapped
from empirical.plans.planned_start import started
from empirical.plans.planned_tensors import (
    PlannedChange,
    PlannedTensor,
    PlanRequest,
    refuse_another_model,
    refuse_undrawable,
)
from empirical.plans.torch_groups import param_groups, refuse_other_numbers
from empirical.trace.trained import common_name, starred
from scaling.report.tables import Table
from scaling.sizes.errors import InvalidInput
from scaling.sizes.in_notebook import InNotebook

FORMAT = 1


@dataclass(frozen=True)
class ModelPlan(InNotebook):
    """Numbers at the sizes ``at``, from those that were tuned at the sizes ``base``.

    Args:
        recipe: what trains what, as text.
        base: sizes by axis, where it was tuned.
        at: sizes by axis, of the numbers.
        tensors: the trained tensors.
        frozen: shapes of the others.
        changes: factors of the code that keep tensors from a maximal update.
        changed: whether the numbers are those of the model with these changes made.
        assumptions: what the numbers rest on.
        made_from: what was tuned and asked, so that the same plan can be made at other sizes.

    >>> import torch
    >>> from torch import nn
    >>> from empirical.plans.making import plan
    >>> def build(width=8):
    ...     return nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, 2, bias=False))
    >>> def batch():
    ...     return torch.eye(3), torch.ones(3, 2)
    >>> made = plan(build, batch, "sign(G)", dict(width=8), dict(width=32), dict(lr=0.1))
    >>> sorted({group["lr"] for group in made.param_groups(build(width=32))})
    [0.025, 0.1]
    """

    recipe: str
    base: Mapping[str, int]
    at: Mapping[str, int]
    tensors: Mapping[str, PlannedTensor]
    frozen: Mapping[str, tuple[int, ...]]
    changes: tuple[PlannedChange, ...]
    changed: bool
    assumptions: tuple[str, ...]
    made_from: PlanRequest

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every tensor of the model."""
        return {**{name: x.shape for name, x in self.tensors.items()}, **self.frozen}

    def apply_(self, model: nn.Module, seed: int = 0) -> tuple[str, ...]:
        """Draw the weights of a model in place; the names of those that are drawn.

        What is frozen, starts at zero, at one or at given numbers, or was to be kept, stays.

        In several processes each draws its own part: a model under DDP, or sharded by fully_shard,
        has the weights that it would have in one.

        Raises:
            InvalidInput: for a model that the plan was not made for, which stays as it was.
        """
        refuse_another_model(self.shapes, model)
        refuse_undrawable(model)
        return started(model, self.tensors, seed)

    def param_groups(self, model: nn.Module, group: str | None = None) -> list[dict[str, Any]]:
        """Parameter groups of torch, as few as there are different numbers.

        Args:
            model: the model that the plan was made for.
            group: of the recipe, where several optimizers train the model.

        Raises:
            InvalidInput: for a model that the plan was not made for, or an unknown group.
        """
        refuse_another_model(self.shapes, model)
        return param_groups(model, self.tensors, group)

    def require(self, optimizer: torch.optim.Optimizer, model: nn.Module, *groups: str) -> None:
        """Refuse an optimizer that has other numbers than the plan; ``groups``: those it trains.

        Raises:
            InvalidInput: naming the first tensor.
        """
        refuse_another_model(self.shapes, model)
        refuse_other_numbers(optimizer, model, self.tensors, groups)

    def wrap(self, model: nn.Module) -> Wrapped:
        """Make the changes of the plan in a model, by hooks; ``.remove()`` takes them off.

        Raises:
            InvalidInput: for numbers of the code as it is, or a model of another plan.
            NotCovered: for a factor that no hook reaches.
        """
        refuse_another_model(self.shapes, model)
        if self.changes and not self.changed:
            raise InvalidInput(
                "a plan whose numbers are those of the code as it is",
                "one for the model with these factors changed: other rates go with it",
                "make it with change_code=True (--change-code)",
            )
        return wrapped(model, self.changes)

    @property
    def told_changes(self) -> tuple[str, ...]:
        """A line for each factor of the code: to be changed, or counted as changed."""
        made = "made: " if self.changed else "change "
        return tuple(f"{made}{change.text}" for change in self.changes)

    def table(self) -> Table:
        """One row for tensors of equal blocks that have equal numbers."""
        dampings = list(dict.fromkeys(k for x in self.tensors.values() for k in x.dampings))
        decays = list(dict.fromkeys(k for x in self.tensors.values() for k in x.decays))
        averages = list(dict.fromkeys(k for x in self.tensors.values() for k in x.averages))
        rows: dict[tuple[str, ...], list[str]] = {}
        for name, x in self.tensors.items():
            numbers = [x.dampings.get(k) for k in dampings] + [x.decays.get(k) for k in decays]
            numbers += [x.averages.get(k) for k in averages]
            row = (
                starred(name), x.group, "as the code" if x.std is None else _number(x.std),
                _number(x.lr), *map(_number, numbers),
            )  # fmt: skip
            rows.setdefault(row, []).append(name)
        shown = tuple((common_name(names), *row[1:]) for row, names in rows.items())
        notes = list(self.told_changes)
        if self.frozen:
            notes.append(f"not trained: {', '.join(self.frozen)}")
        notes += [f"assumed: {text}" for text in self.assumptions]
        columns = ("tensor", "group", "std", "lr", *dampings, *decays, *averages)
        sizes = ", ".join(f"{k} {self.base[k]} -> {self.at[k]}" for k in self.base)
        return Table(f"{self.recipe}: {sizes}", columns, shown, tuple(notes))

    def as_json(self) -> dict[str, Any]:
        """As it is saved, and printed with --format json."""
        return {
            "format": FORMAT,
            "recipe": self.recipe,
            "base": dict(self.base),
            "at": dict(self.at),
            "tensors": {name: x.as_json() for name, x in self.tensors.items()},
            "frozen": {name: list(shape) for name, shape in self.frozen.items()},
            "changes": [asdict(change) for change in self.changes],
            "changed": self.changed,
            "assumptions": list(self.assumptions),
            "made_from": self.made_from.as_json(),
        }

    def save(self, path: str | Path) -> None:
        """Write it to a file, whole or not at all.

        Raises:
            InvalidInput: for a place that cannot be written.
        """
        text = json.dumps(self.as_json(), indent=1) + "\n"
        write_or_refuse(Path(path), text.encode(), "the place")

    @classmethod
    def load(cls, path: str | Path) -> ModelPlan:
        """Read it from a file.

        Raises:
            InvalidInput: for a file that is not there, or that is no plan.
        """
        try:
            found = json.loads(Path(path).read_text(encoding="utf-8"))
            if found["format"] != FORMAT:
                raise ValueError(f"format {found['format']}")
            return cls(
                found["recipe"],
                found["base"],
                found["at"],
                {name: PlannedTensor.from_json(x) for name, x in found["tensors"].items()},
                {name: tuple(shape) for name, shape in found["frozen"].items()},
                tuple(PlannedChange.from_json(x) for x in found["changes"]),
                found["changed"],
                tuple(found["assumptions"]),
                PlanRequest.from_json(found["made_from"]),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InvalidInput(
                f"the plan {path}, which cannot be read: {type(error).__name__}: {error}",
                "a file that ModelPlan.save or scaling plan --save wrote",
                "make it anew: scaling plan RECIPE --model FILE.py ... --save plan.json",
            ) from None


def _number(x: float | None) -> str:
    return "" if x is None else f"{x:.4g}"
