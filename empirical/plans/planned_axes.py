"""The axes of a plan: each derived alone, all others at the base; which tensor stands for which.

A tensor of the target has the answer of the same name at the base, or, where blocks grow in number,
of the tensors at the base that one block stands for as well. Blocks at the base need not have one
answer: a node above may bind all but the last, and what is trained below may ask all but the first
for a smaller start. The last one at the base is not the last one at the target, so all of them are
trained like the slowest, and start like the smallest.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from empirical.trace.model_file import ModelFile
from empirical.trace.trained import WIDTH, TrainedModel, trained
from scaling.models.graph import GraphParameter
from scaling.models.recipe import Recipe
from scaling.models.settings import Settings
from scaling.sizes.errors import NotCovered
from scaling.solve.graph_regimes import unbalanced
from scaling.solve.graph_solution import GraphDerived, TensorAnswer, derive_graph
from scaling.solve.sourced_powers import SIZES

UNEVEN = (
    "all blocks are trained like the slowest at the base: a node above binds some of them and not "
    "the last"
)
UNEVEN_START = (
    "all blocks start like the smallest at the base: the first has nothing below that its tensors "
    "pass a change on to"
)


@dataclass(frozen=True)
class PlannedAxis:
    """An axis, and the answer for the model as it grows.

    ``ratio``: target over base. ``at_target``, ``at_base``: where blocks grow in number, tensors by
    name -> the tensor that stands for it.
    """

    name: str
    ratio: float
    model: TrainedModel
    answer: GraphDerived
    at_target: Mapping[str, str] = field(default_factory=dict)
    at_base: Mapping[str, str] = field(default_factory=dict)

    def parameter(self, name: str) -> GraphParameter:
        """A tensor of the graph."""
        bodies = [n.get("repeat").body for n in self.answer.graph.walk() if n.op == "repeat"]
        every: list[GraphParameter] = [*self.answer.graph.parameters]
        for body in bodies:
            every += body.parameters
        return next(p for p in every if p.name == name)


@dataclass(frozen=True)
class PlannedAxes:
    """All axes of a plan; the first has an answer even where nothing grows."""

    axes: tuple[PlannedAxis, ...]

    @property
    def blocks(self) -> PlannedAxis | None:
        """The axis along which blocks grow in number."""
        return next((axis for axis in self.axes if axis.at_target), None)

    def at(self, axis: str, ratio: float) -> PlannedAxes | None:
        """The same answers for another size along the only axis that grows.

        None where blocks grow in number: which tensor stands for which depends on the size then.
        """
        if self.blocks is not None or [x.name for x in self.axes] != [axis]:
            return None
        return PlannedAxes((replace(self.axes[0], ratio=ratio),))

    def alike(self, name: str) -> list[str]:
        """The tensors at the base that a tensor of the target is like."""
        blocks = self.blocks
        if blocks is None:
            return [name]
        stands = blocks.at_target.get(name, name)
        return [own for own, template in blocks.at_base.items() if template == stands] or [stands]

    def answers(self, name: str) -> list[TensorAnswer]:
        """The answer along each axis for a tensor of the target.

        Raises:
            NotCovered: for a tensor that none at the base stands for.
        """
        return [self._answer(axis, name) for axis in self.axes]

    def _answer(self, axis: PlannedAxis, name: str) -> TensorAnswer:
        known = axis.answer.tensors
        names = [axis.at_target.get(name, name)] if axis.at_target else self.alike(name)
        alike = [known[own] for own in names if own in known]
        slowest = [x for x in alike if all(y.c == x.c or (x.c - y.c).is_positive for y in alike)]
        slowest = [
            x for x in slowest if all(y.b == x.b or (x.b - y.b).is_positive for y in slowest)
        ]
        if not slowest or len({(tuple(x.d.items()), x.group) for x in slowest}) > 1:
            raise NotCovered(
                f"the tensor '{name}' of the target, which "
                + ("no tensor" if not alike else f"neither '{alike[0].name}' nor another")
                + " at the base stands for",
                "blocks of equal build",
                "plan without the axis along which blocks grow in number",
            )
        return slowest[0]

    @property
    def notes(self) -> list[str]:
        """Terms that dominate, assumptions, and readings of the code."""
        found = [
            f"{axis.name}: in {', '.join(names[:2])}{' and others' if len(names) > 2 else ''}: {x}"
            for axis in self.axes if axis.ratio != 1
            for x, names in unbalanced(axis.answer).items()
        ]  # fmt: skip
        found += [t for axis in self.axes for t in (*axis.answer.assumptions, *axis.model.notes)]
        blocks = self.blocks
        for axis in self.axes if blocks is not None else ():
            for text, exponent in ((UNEVEN, "c"), (UNEVEN_START, "b")):
                several: dict[str, set[Any]] = {}
                for name, x in axis.answer.tensors.items():
                    assert blocks is not None
                    stands = several.setdefault(blocks.at_base.get(name, name), set())
                    stands.add(getattr(x, exponent))
                found += [text] if any(len(one) > 1 for one in several.values()) else []
        return found


def derived_axes(
    recipe: Recipe,
    file: ModelFile,
    base: Mapping[str, int],
    target: Mapping[str, int],
    change_code: bool,
) -> PlannedAxes:
    """The answers along the axes that grow; along one of them, at no exponent, where none does.

    Args:
        recipe: what trains what.
        file: what builds the model, with the sizes of the base for defaults.
        base: sizes by axis, where numbers were tuned.
        target: sizes by axis, to train at.
        change_code: whether factors of the code are changed as the answers say.

    Raises:
        NotCovered: for two axes along which blocks grow in number, or one block at the base.
    """
    grown = [axis for axis in base if axis not in SIZES and target[axis] != base[axis]]
    grown.sort(key=lambda axis: axis != WIDTH)
    names = tensor_names(file, {})

    def adds_blocks(axis: str) -> bool:
        return tensor_names(file, {axis: 2 * (file.axes[axis] or 1)}) != names

    known = [axis for axis in dict.fromkeys((*base, *file.axes)) if axis in file.axes]
    axes = grown or sorted(known, key=adds_blocks)[:1]  # any has the answer of sizes that stay
    found: list[PlannedAxis] = []
    kinds = None
    for axis in axes:
        size = base.get(axis, file.axes[axis] or 1)
        last = target.get(axis, size)
        more = tensor_names(file, {axis: last if axis in grown else 2 * size}) != names
        if more and size == 1:
            raise NotCovered(
                f"{axis}=1 at the base, where no block repeats",
                "two blocks or more, which show how a block follows another",
                f"tune at {axis}=2, or keep {axis}=1 at the target",
            )
        third = last if more and last > 2 * size else 3 * size
        sizes = sorted({size, 2 * size, third, *([last] if more else [])})
        model = trained(recipe, file, f"{axis}={','.join(map(str, sizes))}", kinds)
        kinds = model.kinds
        answer = answered(recipe, model, change_code)
        maps: tuple[Mapping[str, str], Mapping[str, str]] = ({}, {})
        if more:
            standing = model.lowered.standing
            large = tensor_names(file, {axis: last})
            maps = (
                {name: standing[sizes.index(last)].get(name, name) for name in large},
                {name: standing[0].get(name, name) for name in names},
            )
            earlier = next((x for x in found if x.at_target), None)
            if earlier is not None:
                raise NotCovered(
                    f"the axes {earlier.name} and {axis}, along which blocks grow in number",
                    "one such axis at a time",
                    f"make a plan along the {axis} alone, and one along the {earlier.name}",
                )
        found.append(PlannedAxis(axis, target.get(axis, size) / size, model, answer, *maps))
    return PlannedAxes(tuple(found))


def answered(recipe: Recipe, model: TrainedModel, change_code: bool) -> GraphDerived:
    """The answer for a model, with the factors of its code changed where that is asked."""
    graph = model.lowered.graph
    answer = derive_graph(recipe, graph, Settings(), kinds=model.kinds)
    if not (change_code and answer.changes):
        return answer
    factors = answer.missing_powers
    changed = derive_graph(recipe, graph, Settings(), kinds=model.kinds, factors=factors)
    return replace(changed, changes=answer.changes)


def at_sizes(file: ModelFile, base: Mapping[str, int]) -> ModelFile:
    """The file with these sizes for defaults."""
    taken = {axis: size for axis, size in base.items() if axis in file.axes}
    known, every = named_parameters_of(file.batcher), takes_any(file.batcher)
    wanted = {k: x for k, x in base.items() if k in known or (every and k in file.axes)}

    @functools.wraps(file.builder)
    def build(**sizes: int) -> nn.Module:
        return file.builder(**{**taken, **sizes})

    @functools.wraps(file.batcher)
    def batch(**sizes: int) -> tuple[Any, Tensor]:
        return file.batcher(**{**wanted, **sizes})

    return replace(file, builder=build, batcher=batch, axes={**file.axes, **taken})


def named_parameters_of(function: Callable[..., Any]) -> list[str]:
    """The names of the parameters that a function has by name."""
    several = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    found = inspect.signature(function).parameters.values()
    return [p.name for p in found if p.kind not in several]


def takes_any(function: Callable[..., Any]) -> bool:
    """Whether a function takes whatever is named."""
    found = inspect.signature(function).parameters.values()
    return any(p.kind is p.VAR_KEYWORD for p in found)


def on_meta(file: ModelFile, sizes: Mapping[str, int]) -> nn.Module:
    """The module at these sizes, without memory for its tensors."""
    with torch.device("meta"):
        return file.build({k: x for k, x in sizes.items() if k in file.axes})


def tensor_names(file: ModelFile, sizes: Mapping[str, int]) -> Sequence[str]:
    """The names of its tensors at these sizes."""
    return [name for name, _ in on_meta(file, sizes).named_parameters()]
