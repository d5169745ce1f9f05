"""The numbers of a plan at each size of an axis, as steps by a rule take them.

A plan holds the numbers of one size; what it was made from is in it too, so that it is made anew at
every size of the axis. At its own sizes it must come out as it is: a plan of another model, of an
edited recipe, or an edited plan is refused, with the tensor and the number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from derivations.recipes import in_practice
from empirical.checks.torch_steps import weights_of
from empirical.plans.making import plan_at
from empirical.plans.plan import ModelPlan
from empirical.plans.planned_axes import at_sizes, derived_axes, on_meta
from empirical.plans.planned_tensors import PlannedTensor, refuse_another_model
from empirical.trace.execute import in_double
from empirical.trace.lowering import Lowered
from empirical.trace.model_file import GrowingAxis, ModelFile
from empirical.trace.uses import is_part
from empirical.verify.model_steps import GivenNumbers
from scaling.models.recipe import Recipe
from scaling.sizes.errors import InvalidInput, unknown
from scaling.solve.graph_solution import GraphDerived


def plans_along(
    made: ModelPlan, file: ModelFile, recipe: Recipe, axis: GrowingAxis
) -> list[ModelPlan]:
    """The plan at each size of an axis.

    Raises:
        InvalidInput: for a plan of another recipe, another model, or without the axis.
    """
    if made.recipe != str(recipe):
        raise InvalidInput(
            f"a plan for the recipe '{made.recipe}'",
            f"one for '{recipe}'",
            f"check the recipe of the plan: scaling check '{made.recipe}'",
        )
    if axis.name not in made.base:
        raise unknown("axis of the plan", axis.name, made.base)
    if min(axis.sizes) < made.base[axis.name]:
        raise InvalidInput(
            f"{axis.name}={min(axis.sizes)}, smaller than {made.base[axis.name]} at the base of "
            "the plan",
            "sizes from the base on: a plan holds from there",
            f"pass --axis {axis.name}={made.base[axis.name]}:{4 * made.base[axis.name]}",
        )
    refuse_another_model(made.shapes, on_meta(file, made.at))
    again = plan_at(made, file, recipe, made.at)
    for name, x in made.tensors.items():
        for what, (own, now) in _numbers(x, again.tensors[name]).items():
            if not math.isclose(own, now, rel_tol=1e-6):
                raise InvalidInput(
                    f"{what} = {own:.6g} of '{name}' in the plan, where the model and the recipe "
                    f"have {now:.6g} now",
                    "the plan as it was made, for the model as it was then",
                    "make it anew: scaling plan RECIPE --model FILE.py ... --save plan.json",
                )
    base, last = made.base[axis.name], {**made.base, axis.name: max(axis.sizes)}
    derived = derived_axes(
        in_practice(recipe), at_sizes(file, made.base), made.base, last, made.made_from.change_code
    )
    return [
        plan_at(
            made, file, recipe, {axis.name: size}, derived=derived.at(axis.name, size / base)
        )
        for size in axis.sizes
    ]  # fmt: skip


def _numbers(one: PlannedTensor, other: PlannedTensor) -> dict[str, tuple[float, float]]:
    """Numbers by what they are, in both; NaN where one has none."""
    found = {"lr": (one.lr, other.lr)}
    if one.std is not None or other.std is not None:
        found["std"] = (one.std or math.nan, other.std or math.nan)
    for mine, its in ((one.dampings, other.dampings), (one.decays, other.decays),
                      (one.averages, other.averages)):  # fmt: skip
        found |= {k: (mine.get(k, math.nan), its.get(k, math.nan)) for k in {**mine, **its}}
    return found


def given_by(plan: ModelPlan, file: ModelFile, size: Mapping[str, int]) -> GivenNumbers:
    """The numbers of a plan, as steps by a rule take them."""

    def weights(seed: int) -> dict[str, Tensor]:
        with in_double(seed):
            model = file.build(size).double()
            plan.apply_(model, seed)
        return weights_of(model)

    numbers = {n: {**x.dampings, **x.decays, **x.averages} for n, x in plan.tensors.items()}
    return GivenNumbers(weights, {n: x.lr for n, x in plan.tensors.items()}, numbers)


def factors_of(
    answer: GraphDerived, lowered: Lowered, axis: GrowingAxis, base: int
) -> list[dict[str, float]]:
    """The factors of the code that an answer changes: by operation, at each size of an axis."""
    powers: dict[str, float] = {}
    for node, power in answer.missing_powers.items():
        for operation, last in lowered.made.items():
            if last == node or is_part(last, node):
                powers[operation] = float(power)
                break
    return [{o: (size / base) ** x for o, x in powers.items()} for size in axis.sizes]
