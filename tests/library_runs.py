"""Optimizers of libraries on one small model, beside the ready-made recipes that stand for them.

Weights of four shapes and two vectors, float64, one seed. Libraries that no package index has, or
that are too large to install for a test, have their steps in recorded_steps/: RECORD_STEPS=1 writes
these anew where the library is there, and the tests hold the library against them otherwise.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
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
RECORDS = Path(__file__).with_name("recorded_steps")
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


def parameters_of(by: Tensors) -> list[nn.Parameter]:
    return [p for parameters in by.values() for p in parameters]


def replayed(name: str) -> Runs:
    """The library in the place of which its recorded steps move the weights."""
    steps: Iterator[list[list[float]]] = iter(
        json.loads((RECORDS / f"{name}.json").read_text())["moved"]
    )

    class Replay:
        def __init__(self, parameters: list[nn.Parameter]) -> None:
            self.parameters = parameters

        def step(self) -> None:
            for p, moved in zip(self.parameters, next(steps), strict=True):
                p.data.add_(torch.tensor(moved, dtype=p.dtype).reshape(p.shape))

    return lambda by, lr: [Replay(parameters_of(by))]


def held_against_record(name: str, runs: Runs, version: str) -> Runs:
    """The library itself, step by step beside what is recorded of it, or writing that."""
    path, writes = RECORDS / f"{name}.json", bool(os.environ.get("RECORD_STEPS"))
    taken: list[list[list[float]]] = []

    class Recording:
        def __init__(self, by: Tensors, lr: float) -> None:
            self.parameters, self.inner = parameters_of(by), runs(by, lr)

        def step(self) -> None:
            before = [p.detach().clone() for p in self.parameters]
            for optimizer in self.inner:
                optimizer.step()
            moved = [p.detach() - q for p, q in zip(self.parameters, before, strict=True)]
            taken.append([x.flatten().tolist() for x in moved])
            if writes:
                RECORDS.mkdir(exist_ok=True)
                path.write_text(json.dumps({"library": version, "moved": taken}) + "\n")
                return
            there = json.loads(path.read_text())["moved"][len(taken) - 1]
            for x, y in zip(moved, there, strict=True):
                known = torch.tensor(y, dtype=x.dtype).reshape(x.shape)
                assert float((x - known).norm()) <= 1e-7 * float(known.norm()), name

    return lambda by, lr: [Recording(by, lr)]
