"""Optimizers of libraries on one small model, beside the ready-made recipes that stand for them.

Weights of four shapes and two vectors, float64, one seed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from derivations.ready_made import ready_made
from empirical.black_box.two_steps import (
    Closure,
    RecordedStep,
    deviation,
    in_full_precision,
    recorded,
)
from scaling.models.recipe import Recipe, TensorGroup, TensorKind

Tensors = Mapping[str, list[nn.Parameter]]
"""By the label of a group of the recipe."""
Runs = Callable[[Tensors, float], Sequence[Any]]
"""Makes the optimizers of a recipe at a learning rate."""
KINDS = {
    "0": TensorKind.EMBEDDING, "0.bias": TensorKind.BIAS, "2": TensorKind.HIDDEN,
    "4": TensorKind.HIDDEN, "4.bias": TensorKind.BIAS, "6": TensorKind.READOUT,
}  # fmt: skip


def small_model(biases: bool = True) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [
        nn.Linear(5, 7, bias=biases), nn.Tanh(), nn.Linear(7, 12, bias=False), nn.Tanh(),
        nn.Linear(12, 6, bias=biases), nn.Tanh(), nn.Linear(6, 3, bias=False),
    ]  # fmt: skip
    return nn.Sequential(*layers).double()


def small_batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(16, 5, generator=generator, dtype=torch.float64)
    return x, torch.randint(3, (16,), generator=generator)


def with_values(recipe: Recipe, values: Mapping[str, float]) -> Recipe:
    """The recipe with other constants, in every group whose rule has them."""

    def changed(group: TensorGroup) -> TensorGroup:
        assert group.rule is not None
        own = (*group.rule.scaled, *group.rule.constants)
        return replace(
            group, values={**group.values, **{k: x for k, x in values.items() if k in own}}
        )

    return recipe.mapped(changed)


def run(
    recipe: Recipe,
    runs: Runs,
    lr: float,
    held: bool = False,
    biases: bool = True,
    model: nn.Sequential | None = None,
) -> tuple[list[RecordedStep], Recipe, float]:
    """Two steps of a library."""
    model = small_model(biases) if model is None else model
    inputs, targets = small_batch()
    by_name = {name.removesuffix(".weight"): p for name, p in model.named_parameters()}
    tensors: dict[str, list[nn.Parameter]] = {}
    for name, group in recipe.assigned({n: KINDS[n] for n in by_name}).items():
        tensors.setdefault(group.label, []).append(by_name[name])
    optimizers = runs(tensors, lr)

    def step(closure: Closure) -> None:
        for optimizer in optimizers:
            optimizer.step()

    def loss() -> Tensor:
        return nn.functional.cross_entropy(model(inputs), targets)

    with in_full_precision():
        return recorded(model, loss, step, held=held), recipe, lr


def apart(steps: Sequence[RecordedStep], recipe: Recipe, lr: float) -> float:
    """How far a recipe is from those steps."""
    groups = recipe.assigned({name: KINDS[name] for name in steps[0].layers})
    return deviation(steps, groups, dict.fromkeys(groups, lr))


def ready(name: str, **values: float) -> Recipe:
    return with_values(ready_made()[name].recipe, values)
