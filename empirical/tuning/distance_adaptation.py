"""D-Adaptation and Prodigy, of a library, as a baseline: rates from the distance that was walked.

    d_k = max(d_(k-1), a lower bound of |w_0 - w*| from the gradients so far);  rate ~ d_k

Source: arXiv 2301.07733 (D-Adaptation) for gradient descent and arXiv 2306.06101 (Prodigy) for
Adam, as `pytorch_optimizer` has them (the extra `libraries`), with their defaults and lr = 1. All
tensors share one rate there, so factors of a recipe's groups are left out.

Ours: what they answer. Of gradient descent it is the rate that would have made the step that was
taken, -<dw, g>/<g, g>; of Prodigy its d, in the place of Adam's rate; the geometric mean over the
last half of the run.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from typing import Any

import torch

from empirical.trace.model_file import ModelFile
from empirical.transfer.transfer_run import Diverged
from empirical.tuning.search_space import SearchSpace
from empirical.tuning.second_derivatives import gradients, inner
from empirical.tuning.tuning_loop import TrainingLoop
from empirical.tuning.tuning_run import TunedPoint
from empirical.tuning.tuning_strategy import Tuning, TuningStrategy, TuningTask
from scaling.models.recipe import RATE, Recipe
from scaling.sizes.errors import InvalidInput

LIBRARY = "pytorch_optimizer"
NAMES = {"G": "DAdaptSGD", "adam": "Prodigy", "adamw": "Prodigy"}


def adapted(recipe: Recipe) -> str | None:
    """The optimizer of the library that stands for a recipe of one group."""
    rules = recipe.rules
    if len(rules) != 1:
        return None
    return NAMES.get(str(rules[0])) or NAMES.get(rules[0].name or "")


def _refuses(recipe: Recipe, file: ModelFile, space: SearchSpace) -> InvalidInput | None:
    del file
    if adapted(recipe) is None or RATE not in space.names:
        return InvalidInput(
            f"the recipe '{recipe}' and a space of {', '.join(space.names)}",
            "gradient descent, adam or adamw of all tensors, and lr in the space: the library has "
            "no other",
            "tune adam, or take --strategy tpe",
        )
    return None


def _adapting(loop: TrainingLoop) -> Mapping[str, Any]:
    tensors = list(loop.trained.values())
    name = adapted(loop.recipe)
    make = getattr(importlib.import_module(LIBRARY), str(name))
    optimizer: torch.optim.Optimizer = make(tensors, lr=1.0)
    found = []
    for step in range(loop.run.steps):
        loss = loop.watched(loop.loss_of_step(loop.batch_of(step), step))
        gradient = gradients(loss, tensors, again=False)
        before = [w.detach().clone() for w in tensors]
        for w, g in zip(tensors, gradient, strict=True):
            w.grad = g
        optimizer.step()
        loop.cost += 1
        if name == "DAdaptSGD":
            moved = [old - w.detach() for old, w in zip(before, tensors, strict=True)]
            rate = float(inner(moved, gradient)) / max(float(inner(gradient, gradient)), 1e-300)
        else:
            rate = float(optimizer.param_groups[0]["d"])
        if not math.isfinite(rate):
            raise Diverged("a rate that is not finite")
        found.append(math.log2(max(rate, 1e-30)))
    half = found[len(found) // 2 :]
    return {"rate": sum(half) / len(half), "last": found[-1]}


def _tune(task: TuningTask) -> Tuning:
    outcome = yield task.run(task.space.centre, loop="adapting")
    if outcome.diverged:
        return task.best
    answer = task.space.inside({**task.space.centre, RATE: outcome.found["rate"]})
    task.offer(answer, outcome.value)
    return TunedPoint(answer)


LOOPS = {"adapting": _adapting}
STRATEGIES = {
    "d-adaptation": TuningStrategy(
        "d-adaptation", "arXiv 2301.07733, 2306.06101", _tune, _refuses, (LIBRARY, "libraries")
    ),
}
