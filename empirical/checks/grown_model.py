"""A user's model along one axis, as a recipe trains it, and the steps that can be taken with it.

by_torch   the optimizer of the file, on plain torch
by_rule    the rules of the recipe, as they are written
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from derivations.recipes import in_practice
from empirical.checks.planned_models import factors_of, given_by
from empirical.checks.torch_steps import TorchSteps
from empirical.plans.plan import ModelPlan
from empirical.plans.planned_axes import answered, at_sizes
from empirical.trace.lowering import Lowered
from empirical.trace.model_file import GrowingAxis, ModelFile
from empirical.trace.trained import TrainedModel, trained
from empirical.trace.uses import Use, uses
from empirical.verify.graph_verification import answer_starts, values_of
from empirical.verify.model_steps import ModelSteps
from scaling.models.recipe import Recipe
from scaling.models.settings import Settings
from scaling.solve.graph_solution import GraphDerived
from scaling.states.graph_passes import Passes
from scaling.states.moved_state import two_states

Plans = Sequence[ModelPlan]
"""At each size of the axis."""


@dataclass(frozen=True)
class GrownModel:
    """A model, what is derived for it, and its graph at the start.

    ``changed``: factors of the code are those that the answer asks for; ``factors``: these, by
    operation, at each size.
    """

    model: TrainedModel
    axis: GrowingAxis
    answer: GraphDerived
    start: Passes
    uses: Mapping[str, Use | None]
    changed: bool
    factors: Sequence[Mapping[str, float]]

    @property
    def lowered(self) -> Lowered:
        """The traced model."""
        return self.model.lowered

    def by_torch(self, steps: int, plans: Plans | None) -> TorchSteps:
        """Steps of the optimizer of the file: with the groups of a plan, or as it is."""
        return TorchSteps(
            self.model.file, self.axis, self.lowered, self.answer, self.uses, steps, plans,
            self.factors,
        )  # fmt: skip

    def by_rule(self, steps: int, plans: Plans | None) -> ModelSteps:
        """Steps of the rules: under the numbers of a plan, or under those of derived exponents."""
        file, groups = self.model.file, self.model.groups
        given = None if plans is None else [
            given_by(one, file, {self.axis.name: size})
            for one, size in zip(plans, self.axis.sizes, strict=True)
        ]  # fmt: skip
        values = {name: values_of(groups[name], Settings()) for name in self.answer.tensors}
        parts = {name: group.parts for name, group in groups.items()}
        return ModelSteps(
            file, self.axis, self.lowered, self.answer, self.start, values, parts, steps, given,
            self.factors,
        )  # fmt: skip


def grown_model(
    file: ModelFile, recipe: Recipe, axis: GrowingAxis, plan: ModelPlan | None
) -> GrownModel:
    """Trace and derive a model along an axis; other axes are at the base of the plan.

    Raises:
        InvalidInput: for what the file of a model, or its recipe, is refused for.
        NotCovered: where the theory or the tracer has no answer.
    """
    at_base = file if plan is None else at_sizes(file, plan.base)
    base = axis.sizes[0] if plan is None else plan.base[axis.name]
    changed = plan is not None and plan.made_from.change_code
    model = trained(in_practice(recipe), at_base, axis)
    lowered, answer = model.lowered, answered(in_practice(recipe), model, changed)
    factors = factors_of(answer, lowered, axis, base) if changed else [{} for _ in axis.sizes]
    powers = answer.missing_powers if changed else None
    start, _ = two_states(lowered.graph, answer_starts(answer), powers)
    looked_at = uses(start, lowered, answer.tensors, answer.products)
    return GrownModel(model, axis, answer, start, looked_at, changed, factors)
