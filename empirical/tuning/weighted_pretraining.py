"""Meta-learned pre-training: the weights of the tasks that the first steps are trained on.

    P steps         w <- w - lr d L_PT(w; phi)/dw,     L_PT = sum_k a_k (n_k/n) loss of task k,
                    a = K softmax(phi) of K tasks
    one fine step   of the head, on all tasks alike:   h' = h - lr dL_FT/dh
    g               d L_held_out(w, h')/dw, through the fine step
    v               lr sum over j <= J of (I - lr H)^j g,   H the Hessian of L_PT
    hypergradient   - d <dL_PT/dw, v> / d phi
    phi             by Adam on the hypergradient

Source: arXiv 2111.01754 and its code: P = 10, one differentiable fine step, J = 1. With J + 1 terms
that is the derivative of the last J + 1 pre-training steps at a w that does not move, which tests
hold it against.

Ours: the tasks are those of ``tasks(inputs, targets)`` in the model's file, or the classes of whole
numbers; the head is the last module with tensors; half of the budget is a search for the rate (the
grid of ``axes_of``), the other half are episodes of P steps from the start. The weights are
the answer if a whole run with them is better than without; the first P steps at the target have
them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from empirical.trace.model_file import ModelFile
from empirical.tuning.gradient_descent import refuse_other_rules
from empirical.tuning.losses_by_task import (
    PRETRAINED,
    no_tasks,
    tasks_of,
    weighted_loss,
    weights_of,
)
from empirical.tuning.search_space import SearchSpace, grid_of
from empirical.tuning.second_derivatives import gradients, hessian_vector, inner
from empirical.tuning.tuning_loop import TrainingLoop
from empirical.tuning.tuning_run import TunedPoint
from empirical.tuning.tuning_strategy import Tuning, TuningStrategy, TuningTask
from scaling.models.recipe import RATE, Recipe
from scaling.sizes.errors import InvalidInput

Moments = tuple[list[float], list[float]]
TERMS, META, BETA1, BETA2 = 2, 0.3, 0.9, 0.999
"""Terms of v (J + 1); the rate of Adam on phi, and its averages."""


def response(
    loss: Tensor, tensors: Sequence[Tensor], g: Sequence[Tensor], phi: Tensor,
    rates: Sequence[float], terms: int = TERMS,
) -> Tensor:  # fmt: skip
    """The hypergradient by phi of a value with gradient g after ``terms`` steps down a loss.

    Args:
        loss: L_PT of phi at the tensors, with its graph.
        tensors: w.
        g: of what is held out, by tensor.
        phi: the numbers behind the weights.
        rates: of each tensor.
        terms: J + 1.
    """
    gradient = gradients(loss, tensors)
    power, v = list(g), [torch.zeros_like(x) for x in g]
    for j in range(terms):
        v = [a + lr * b for a, b, lr in zip(v, power, rates, strict=True)]
        if j + 1 < terms:
            scaled = hessian_vector(
                gradient, tensors, [lr * x for x, lr in zip(power, rates, strict=True)]
            )
            power = [x - h for x, h in zip(power, scaled, strict=True)]
    product = inner(gradient, [x.detach() for x in v])
    (found,) = torch.autograd.grad(product, [phi])
    return -found


def _episode(loop: TrainingLoop) -> Mapping[str, Any]:
    """P steps from the start under the weights of phi, and the hypergradient there."""
    steps = loop.run.steps
    first = loop.batch_of(0)
    given = loop.run.wishes["phi"]
    count = int(tasks_of(loop.file, *first).max()) + 1
    phi = torch.tensor(given) if given else torch.zeros(count)
    phi = phi.to(first[1].device).requires_grad_()
    tensors, names = list(loop.trained.values()), list(loop.trained)
    rates = [2.0 ** loop.run.point.numbers[RATE] * loop.factors[name] for name in names]

    def pretraining(step: int) -> Tensor:
        return weighted_loss(loop.model, loop.file, loop.batch_of(step), weights_of(phi))

    for step in range(steps):
        gradient = gradients(loop.watched(pretraining(step)), tensors, again=False)
        loop.cost += 1
        with torch.no_grad():
            for w, pull, rate in zip(tensors, gradient, rates, strict=True):
                w.sub_(rate * pull)
    g = _through_the_head(loop, names, tensors, rates)
    found = response(pretraining(steps), tensors, g, phi, rates)
    loop.cost += 1 + 2 * (TERMS - 1) + 2
    return {"hypergradient": found.tolist()}


def _through_the_head(
    loop: TrainingLoop, names: Sequence[str], tensors: Sequence[Tensor], rates: Sequence[float]
) -> list[Tensor]:
    """The gradient of the loss held out after one fine step of the head, by all tensors."""
    owner = names[-1].rpartition(".")[0]
    head = [i for i, name in enumerate(names) if name.rpartition(".")[0] == owner]
    fine = loop.loss_on(loop.batch_of(loop.run.steps + 1))
    pulls = torch.autograd.grad(fine, [tensors[i] for i in head], create_graph=True)
    moved = {names[i]: tensors[i] - rates[i] * g for i, g in zip(head, pulls, strict=True)}
    inputs, targets = loop.held_out[0]
    outputs = torch.func.functional_call(loop.model, moved, inputs)
    held_out = loop.file.loss_for(targets)(outputs, targets)
    loop.cost += 4
    return gradients(held_out, tensors, again=False)


def _tune(task: TuningTask) -> Tuning:
    first = max(1, task.budget // task.steps // 2 - 1)
    for point in grid_of(task.space, first):
        if task.affords(task.steps):
            outcome = yield task.run(point)
            task.offer(point, outcome.value)
    numbers, phi = task.best.numbers, list[float]()
    moments: Moments = ([], [])
    steps = min(PRETRAINED, task.steps)
    price, t = steps + 9, 0
    while task.affords(price + task.steps):
        run = task.run(TunedPoint(numbers), steps, loop="pretraining", phi=phi)
        outcome = yield run
        if outcome.diverged:
            break
        t += 1
        phi, moments = adam(phi, outcome.found["hypergradient"], moments, t)
    if phi and task.affords(task.steps):
        weighted = TunedPoint(numbers, weights=tuple(weights_of(torch.tensor(phi)).tolist()))
        outcome = yield task.run(weighted)
        task.offer(weighted, outcome.value)
    return task.best


def adam(
    phi: Sequence[float], slope: Sequence[float], moments: Moments, t: int
) -> tuple[list[float], Moments]:
    """One step of Adam, number t = 1, 2, ...

    >>> adam([], [2.0, -4.0], ([], []), 1)[0]
    [-0.3, 0.3]
    """
    zeros = [0.0] * len(slope)
    one = [BETA1 * m + (1 - BETA1) * s for m, s in zip(moments[0] or zeros, slope, strict=True)]
    two = [BETA2 * v + (1 - BETA2) * s * s for v, s in zip(moments[1] or zeros, slope, strict=True)]
    moved = []
    for x, m, v in zip(phi or zeros, one, two, strict=True):
        root = math.sqrt(v / (1 - BETA2**t)) + 1e-12
        moved.append(round(x - META * m / (1 - BETA1**t) / root, 9))
    return moved, (one, two)


def _refuses(recipe: Recipe, file: ModelFile, space: SearchSpace) -> InvalidInput | None:
    """Other rules than descent, and models without tasks."""
    inputs, targets = file.batch({})
    whole = targets.ndim == 1 and not targets.is_floating_point()
    if file.tasks_of is None and not whole:
        return no_tasks(file)
    del inputs
    return refuse_other_rules(recipe, file, space)


LOOPS = {"pretraining": _episode}
STRATEGIES = {
    "pretraining": TuningStrategy("pretraining", "arXiv 2111.01754", _tune, _refuses),
}
