"""Makes a plan: each axis is derived alone, and the factors of all axes are multiplied.

The exponents are those of the model's own graph, traced at the base and two larger sizes of the
axis (scaling/solve/graph_solution.py). Two sizes are no axes of the graph: the batch and the number
of samples, whose powers are those of the literature for the rules that it has one for
(scaling/solve/sourced_powers.py), or given. That factors of several axes multiply is an assumption,
printed with the plan.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from fractions import Fraction
from typing import TypeAlias

from sympy import sympify
from torch import nn

from derivations.ready_made import ready_made
from derivations.recipes import in_practice
from empirical.black_box.handed_over import recipe_with_probes
from empirical.plans.plan import ModelPlan
from empirical.plans.planned_axes import (
    PlannedAxes,
    at_sizes,
    derived_axes,
    named_parameters_of,
    on_meta,
)
from empirical.plans.planned_changes import planned_changes
from empirical.plans.planned_numbers import (
    PlannedGrowth,
    Powers,
    Tuned,
    TunedNumbers,
    powers_of_sizes,
)
from empirical.plans.planned_tensors import PlannedTensor, PlanRequest
from empirical.trace.given_model import GivenBatch, model_of
from empirical.trace.model_file import LossOf, ModelFile
from scaling.models.recipe import Recipe
from scaling.rules.rule import Rule
from scaling.sizes.errors import InvalidInput, unknown
from scaling.solve.sourced_powers import SIZES

AppliedPowers: TypeAlias = Mapping[str, Mapping[str, Fraction]]
"""Powers of a size that an optimizer multiplies steps by itself: axis -> tensor -> power."""
SEVERAL = (
    "each axis is derived with the others at the base, and the factors of several axes multiply"
)


def plan(
    build: Callable[..., nn.Module],
    batch: GivenBatch | None,
    recipe: Recipe | Rule | str,
    base: Mapping[str, int],
    target: Mapping[str, int],
    tuned: Tuned,
    loss: LossOf | None = None,
    keep: Sequence[str] = (),
    powers: Powers | None = None,
    change_code: bool = False,
) -> ModelPlan:
    """The plan of a model.

    Args:
        build: ``build(**axes)`` returns the module.
        batch: (inputs, targets), or a function of the axes that returns them; None for a chain.
        recipe: what trains what: text, a TOML file, a rule, a name of one, or probe:MODULE:CLASS.
        base: sizes at which numbers were tuned, by keyword of build or batch; ``batch`` and
            ``samples`` are the numbers of samples in a step and in all.
        target: sizes to train at; those that are missing stay.
        tuned: numbers at the base: lr, dampings, decays, averages, by symbol of the rules.
        loss: of outputs and targets; whole numbers mean cross-entropy, others squared error.
        keep: patterns of tensors that keep the initialisation of the code.
        powers: of the batch and the samples, in the place of those of the literature.
        change_code: numbers for the model whose factors are changed as the plan lists.

    Raises:
        InvalidInput: for sizes, numbers or a recipe that cannot be used.
        NotCovered: for what neither the theory nor the literature has a power for.

    >>> import torch
    >>> from torch import nn
    >>> def build(width=8):
    ...     return nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, 2, bias=False))
    >>> def batch():
    ...     return torch.ones(4, 3), torch.ones(4, 2)
    >>> found = plan(build, batch, "sign(G)", dict(width=8), dict(width=32), dict(lr=0.1))
    >>> {name: x.lr for name, x in found.tensors.items()}
    {'0.weight': 0.1, '0.bias': 0.1, '2.weight': 0.025}
    """
    file = model_of(build, batch, loss)
    return plan_of_file(file, recipe, base, target, tuned, keep, powers, change_code)


def plan_of_file(
    file: ModelFile,
    recipe: Recipe | Rule | str,
    base: Mapping[str, int],
    target: Mapping[str, int],
    tuned: Tuned,
    keep: Sequence[str] = (),
    powers: Powers | None = None,
    change_code: bool = False,
    derived: PlannedAxes | None = None,
    applied: AppliedPowers | None = None,
) -> ModelPlan:
    """The same for the file of a model; see `plan`.

    ``derived``: its axes, where they are known. ``applied``: powers that the optimizer multiplies
    steps by itself, which learning rates then leave out (checks/composing.py).
    """
    asked, probed = recipe_with_probes(recipe)
    recipe = in_practice(asked)
    numbers = TunedNumbers(recipe, tuned)
    target = _checked(file, base, target)
    at_base = at_sizes(file, base)
    planned = derived or derived_axes(recipe, at_base, base, target, change_code)
    first = planned.axes[0]
    large, drawn = on_meta((planned.blocks or first).model.file, target), at_base.drawn({}, 0)
    names = [name for name, _ in large.named_parameters()]
    _refuse_unknown(keep, names)
    ratios = {size: target[size] / base[size] for size in SIZES if size in base}
    own = {group.label: group.values for group in asked.groups}
    practice = bool(probed) or asked.name in ready_made()
    tensors: dict[str, PlannedTensor] = {}
    frozen: dict[str, tuple[int, ...]] = {}
    notes: dict[str, None] = {}
    for name, p in large.named_parameters():
        shape = tuple(p.shape)
        if not p.requires_grad:
            frozen[name] = shape
            continue
        answers = planned.answers(name)
        group = first.model.groups[answers[0].name]
        sizes, lines = powers_of_sizes(group, ratios, powers or {})
        notes |= dict.fromkeys(lines)
        grows = PlannedGrowth(group, planned.axes, answers, sizes)
        kept = any(fnmatchcase(name, pattern) for pattern in keep)
        std = None if kept else grows.std(drawn, planned.alike(name))
        forgets = any(powers.forgetting != 0 for _, powers in sizes.values())
        given = own[group.label]
        stand = {} if practice else given
        one = grows.tensor(shape, std, numbers.of(group, given, forgets, stand))
        for axis, answer in zip(planned.axes, answers, strict=True):
            power = (applied or {}).get(axis.name, {}).get(answer.name, 0)
            one = replace(one, lr=one.lr * axis.ratio ** -float(power))
        tensors[name] = one
    changes = planned_changes(planned, large)
    grown = [axis for axis in base if target[axis] != base[axis]]
    several = [SEVERAL] if len(grown) > 1 else []
    assumed = dict.fromkeys([*probed, *planned.notes, *several, *notes, *numbers.notes])
    asked_powers = {s: {k: str(x) for k, x in one.items()} for s, one in (powers or {}).items()}
    return ModelPlan(
        str(asked), dict(base), target, tensors, frozen, changes, change_code and bool(changes),
        tuple(assumed),
        PlanRequest(
            dict(tuned), tuple(keep), asked_powers, change_code,
            {axis: {k: str(x) for k, x in one.items()} for axis, one in (applied or {}).items()},
        ),
    )  # fmt: skip


def plan_at(
    made: ModelPlan,
    file: ModelFile,
    recipe: Recipe | Rule | str,
    target: Mapping[str, int],
    applied: AppliedPowers | None = None,
    derived: PlannedAxes | None = None,
) -> ModelPlan:
    """The same plan at other sizes.

    ``applied``: in the place of the powers that it leaves out. ``derived``: its axes, where they
    are known.
    """
    asked = made.made_from
    powers = {size: {k: sympify(x) for k, x in one.items()} for size, one in asked.powers.items()}
    if applied is None:
        applied = {
            axis: {k: Fraction(x) for k, x in one.items()} for axis, one in asked.applied.items()
        }
    return plan_of_file(
        file, recipe, made.base, target, asked.tuned, asked.keep, powers, asked.change_code,
        derived, applied,
    )  # fmt: skip


def _checked(file: ModelFile, base: Mapping[str, int], target: Mapping[str, int]) -> dict[str, int]:
    """The sizes of the target, all of them.

    Raises:
        InvalidInput: for an unknown axis, a size that is none, or a target below the base.
    """
    known = dict.fromkeys([*file.axes, *named_parameters_of(file.batcher), *SIZES])
    for axis in (*base, *target):
        if axis not in known:
            raise unknown("axis", axis, known)
        if axis not in base:
            raise InvalidInput(
                f"{axis}={target[axis]} at the target, and none at the base",
                "the size at which the numbers were tuned",
                f"add {axis}=... to the base",
            )
    found = {**base, **target}
    for axis, size in found.items():
        for value in (base[axis], size):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InvalidInput(
                    f"{axis}={value}", "a whole number, at least 1", f"pass {axis}=64"
                )
        if size < base[axis]:
            raise InvalidInput(
                f"{axis}={base[axis]} at the base, larger than {size} at the target",
                "a base that is no larger than what is trained",
                "tune at the smaller size, or exchange the two",
            )
    return found


def _refuse_unknown(patterns: Sequence[str], names: Sequence[str]) -> None:
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise InvalidInput(
                f"keep='{pattern}', which fits no tensor of the model",
                "a pattern of names",
                f"choose from {', '.join(names[:8])}",
            )
