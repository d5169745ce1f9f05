"""The coordinate check of a user's own model: which node or tensor grows, shrinks, or stays.

    what is trained    weights and numbers                        who steps
    a plan             the plan's, made anew at every size        optimizer(model, groups) of the
                                                                  file, or the rule as it is written
    as it is           the file's own                             optimizer(model) of the file
    neither            derived exponents, constants set at the    the rule as it is written
                       smallest size, as in verify

The model is trained for t steps on its batch at every size of one axis, under several seeds, and
each node and tensor is judged by an interval against what it needs (needed.py). What is needed is
that of the plan, whatever trains: PyTorch's defaults are held against it too.

Where `check_model` (your_model/) watches layers by hooks and judges them by their roles, this check
runs the model's operations one by one, as `verify --model` does, and knows of each node what it
bears. Not covered: schedules, fresh batches, precision below float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from empirical.black_box.handed_over import recipe_with_probes
from empirical.checks.grown_model import grown_model
from empirical.checks.needed import questions
from empirical.checks.own_optimizer import place_of, refuse_ignored_groups, takes_groups
from empirical.checks.planned_models import plans_along
from empirical.checks.remedies import remedies
from empirical.fit.verdict import Verdict, overall
from empirical.plans.plan import ModelPlan
from empirical.trace.given_model import GivenBatch, model_of
from empirical.trace.model_file import GrowingAxis, LossOf, ModelFile, read_axis
from empirical.trace.trained import WIDTH
from empirical.verify.graph_verification import GraphCheck, judged
from scaling.models.recipe import Recipe
from scaling.rules.rule import Rule
from scaling.sizes.errors import InvalidInput
from scaling.sizes.in_notebook import InNotebook
from scaling.solve.graph_solution import GraphDerived

MARGIN = 0.25
"""Half of the way to the next exponent: those of a step are halves."""
DOUBLINGS = 3


@dataclass(frozen=True)
class ModelCheck(InNotebook):
    """The result of a coordinate check.

    Args:
        recipe: what trains what, as it was asked for.
        subject: what was trained, and by what.
        answer: the exponents that everything is held against.
        axis: what grew.
        steps: of each size and seed.
        seeds: how many.
        margin: of exponents.
        checks: by node or tensor.
        to_change: lines to change where something does not agree.
        unseen: nodes and tensors that were not looked at.
        notes: readings of the code.

    >>> import torch
    >>> from torch import nn
    >>> def build(width=8):
    ...     return nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, 2, bias=False))
    >>> def batch():
    ...     return torch.eye(3), torch.ones(3, 2)
    >>> found = check(build, batch, "sign(G)", "width=8,16,32", seeds=(0, 1))
    >>> found.seeds, found.unseen
    (2, ())
    """

    recipe: str
    subject: str
    answer: GraphDerived
    axis: GrowingAxis
    steps: int
    seeds: int
    margin: float
    checks: tuple[GraphCheck, ...]
    to_change: tuple[str, ...]
    unseen: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def verdict(self) -> Verdict:
        """Of all checks together."""
        return overall(check.verdict for check in self.checks)


def check(
    build: Callable[..., nn.Module],
    batch: GivenBatch | None,
    recipe: Recipe | Rule | str,
    axis: str | GrowingAxis | None = None,
    *,
    plan: ModelPlan | None = None,
    optimizer: Callable[..., Any] | None = None,
    as_is: bool = False,
    loss: LossOf | None = None,
    steps: int = 1,
    seeds: Sequence[int] | None = None,
    margin: float = MARGIN,
) -> ModelCheck:
    """The coordinate check of a model.

    Args:
        build: ``build(**axes)`` returns the module.
        batch: (inputs, targets), or a function of the axes that returns them; None for a chain.
        recipe: what trains what: text, a TOML file, a rule, a name of one, or probe:MODULE:CLASS.
        axis: what grows, and its sizes: "width=64:512".
        plan: whose numbers are checked; other axes are at its base.
        optimizer: of the user's own: a function of the model, or of the model and the groups.
        as_is: the numbers of ``optimizer(model)`` and the weights of the code.
        loss: of outputs and targets; whole numbers mean cross-entropy, others squared error.
        steps: how many; a tensor is moved by all of them together.
        seeds: of the weights; 4 to 16 by need where none are given.
        margin: of exponents, within which they agree.

    Raises:
        InvalidInput: for a plan of another model or recipe, an optimizer that ignores the groups of
            the plan, a loss that is not finite, and what the file of a model is refused for.
        NotCovered: where the theory or the tracer has no answer.

    >>> import torch
    >>> from torch import nn
    >>> def build(width=16):
    ...     return nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, 2, bias=False))
    >>> def batch():
    ...     return torch.ones(4, 3), torch.ones(4, 2)
    >>> def usual(model):
    ...     return torch.optim.Adam(model.parameters(), lr=1e-3)
    >>> found = check(build, batch, "sign(G)", "width=32:256", optimizer=usual, as_is=True)
    >>> found.verdict.name
    'contradict'
    """
    file = replace(model_of(build, batch, loss), optimizer_of=optimizer)
    return check_file(
        file, recipe, axis, plan=plan, as_is=as_is, steps=steps, seeds=seeds, margin=margin
    )


def check_file(
    file: ModelFile,
    recipe: Recipe | Rule | str,
    axis: str | GrowingAxis | None = None,
    *,
    plan: ModelPlan | None = None,
    as_is: bool = False,
    steps: int = 1,
    seeds: Sequence[int] | None = None,
    first_seed: int = 0,
    margin: float = MARGIN,
) -> ModelCheck:
    """The same for the file of a model; see `check`."""
    if plan is not None and as_is:
        raise InvalidInput("a plan beside --as-is", "one of the two", "leave one of them out")
    asked, probed = recipe_with_probes(recipe)
    along = _axis(file, axis, plan)
    plans = None if plan is None else plans_along(plan, file, asked, along)
    grown = grown_model(file, asked, along, plan)
    model, lowered, start = grown.model, grown.lowered, grown.start
    answer = grown.answer.assuming(probed)
    by_torch = as_is or (plans is not None and takes_groups(file))
    if plan is not None and plan.made_from.applied and not by_torch:
        raise InvalidInput(
            "a plan that leaves out factors of an optimizer, and steps by the rule without them",
            "the optimizer that it was composed for: optimizer(model, groups) of the file",
            "write it into the file, or make the plan without --compose",
        )
    if by_torch and plans is not None:  # the largest: its groups are as many as there can be
        refuse_ignored_groups(model.file, plans[-1], {along.name: along.sizes[-1]})
    steps_of = grown.by_torch(steps, plans) if by_torch else grown.by_rule(steps, plans)
    nodes = {operation: node for operation, node in lowered.made.items() if node in start.values}
    drawn, checks = judged(
        tuple(questions(answer, start, nodes, steps)), steps_of.sizes, along.sizes, margin, seeds,
        first_seed, nodes, lowered.graph, {},
    )  # fmt: skip
    seen = {c.name for c in checks}
    unseen = [n.name for n in lowered.graph.walk() if n.name not in {*nodes.values(), *seen}]
    unseen += [f"{name} (own)" for name in answer.tensors if (name, "own") not in _asked(checks)]
    lines = remedies(
        checks, replace(answer, changes=()) if grown.changed else answer, file, along, grown.uses,
        start.parameters, as_is,
    )  # fmt: skip
    return ModelCheck(
        str(asked), _subject(file, plan, as_is, by_torch), answer, along, steps, drawn, margin,
        tuple(checks), tuple(lines), tuple(unseen), (*lowered.notes, *model.notes),
    )  # fmt: skip


def _axis(file: ModelFile, asked: str | GrowingAxis | None, plan: ModelPlan | None) -> GrowingAxis:
    """The axis, at doublings of the base or the default where no sizes are given."""
    axis = read_axis(asked) if isinstance(asked, str) else asked
    if axis is not None and axis.sizes:
        return file.axis(axis)
    named = None if axis is None else axis.name
    if named is None and plan is not None:
        named = WIDTH if WIDTH in plan.base else next(iter(plan.base))
    found = file.axis(GrowingAxis(named, ()) if named else None)
    first = found.sizes[0] if plan is None else plan.base.get(found.name, found.sizes[0])
    return GrowingAxis(found.name, tuple(first * 2**k for k in range(DOUBLINGS + 1)))


def _asked(checks: Iterable[GraphCheck]) -> set[tuple[str, str]]:
    return {(c.name, c.quantity) for c in checks}


def _subject(file: ModelFile, plan: ModelPlan | None, as_is: bool, by_torch: bool) -> str:
    if as_is:
        return f"as it is, by the optimizer of {place_of(file)}"
    steps = f"by the optimizer of {place_of(file)}" if by_torch else "by the rule as it is written"
    if plan is not None:
        sizes = ", ".join(f"{k}={v}" for k, v in plan.base.items())
        return f"the plan from {sizes}, {steps}"
    return f"derived exponents, {steps}"
