"""Steps of plain torch: the user's model, the user's optimizer, at one size and seed.

The model is trained as its user does it; the operations of the same model then say what the weights
before and after do to every node (trace/execute.py). Float64, the file's batch at every step, and
the same random numbers in every pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from empirical.checks.own_optimizer import one_step
from empirical.plans.plan import ModelPlan
from empirical.trace.execute import Execution, in_double
from empirical.trace.lowering import Lowered
from empirical.trace.model_file import GrowingAxis, ModelFile
from empirical.trace.uses import Use
from empirical.verify.model_steps import StepSizes, refuse_no_number, step_sizes
from scaling.sizes.errors import NotCovered
from scaling.solve.graph_solution import GraphDerived

CLOSE = 1e-6


@dataclass(frozen=True)
class TorchSteps:
    """Steps of a model by the optimizer of its file; ``plans``: at each size, or None as it is."""

    file: ModelFile
    axis: GrowingAxis
    lowered: Lowered
    answer: GraphDerived
    uses: Mapping[str, Use | None]
    steps: int
    plans: Sequence[ModelPlan] | None
    factors: Sequence[Mapping[str, float]]
    first: dict[int, Execution] = field(default_factory=dict)

    def sizes(self, k: int, seed: int) -> StepSizes:
        """Everything at the k-th size.

        Raises:
            InvalidInput: for a loss that is not finite.
            NotCovered: for a model whose operations, one by one, have another loss.
        """
        size = {self.axis.name: self.axis.sizes[k]}
        where = f"{self.axis.name}={self.axis.sizes[k]}, seed {seed}"
        if k not in self.first:
            standing = self.lowered.standing[k]
            self.first[k] = Execution(self.file, size, seed, standing, self.factors[k])
        run = self.first[k].redrawn(seed)
        with in_double(seed):
            model = self._model(size, seed, k)
            groups = None if self.plans is None else self.plans[k].param_groups(model)
            start = weights_of(model)
            run.parameters |= start
            values = run.values()
            excess = run.grouped(run.excess)
            all_of = self.file.optimizers(model, groups)
            for step in range(self.steps):
                at = f"step {step + 1} of {where}"
                loss = one_step(model, self.file, size, all_of, seed, at)
                if step == 0:
                    refuse_another_loss(loss, float(values["loss"]), where)
        after = weights_of(model)
        moves = {n: after[n] - x for n, x in start.items() if n in run.trained}
        at = f"the end of the steps of {where}"
        refuse_no_number(run.values({n: after[n] for n in moves})["loss"], at)
        passed = {n: x.detach() for n, x in values.items()}, {}, moves  # type: ignore[var-annotated]
        return step_sizes(run, passed, moves, self.answer, self.lowered, self.uses, excess)

    def _model(self, size: Mapping[str, int], seed: int, k: int) -> nn.Module:
        model = self.file.build(size).double().train()
        if self.plans is not None:
            self.plans[k].apply_(model, seed)
            if self.plans[k].changed:
                self.plans[k].wrap(model)
        return model


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the tensors by name."""
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def refuse_another_loss(loss: float, of_operations: float, where: str) -> None:
    """Refuse a model whose operations, one by one, do not have its loss.

    Raises:
        NotCovered: with both numbers.
    """
    if abs(loss - of_operations) > CLOSE * max(abs(loss), 1e-12):
        raise NotCovered(
            f"a loss of {loss:.8g} by the model and {of_operations:.8g} by its operations one by "
            f"one, at {where}",
            "a model whose factors are changed by lines, or that is the same in every pass",
            "edit the lines that the plan lists, and check the edited file",
        )
