"""A recipe on a user's model: kinds of tensors along the width, and frozen tensors frozen in it.

Which matrices are hidden, embeddings or readouts shows as the width grows, whatever else is asked
about, so the model is traced along it too where another axis is asked for. Tensors that a recipe
freezes are frozen in the module before it is traced and run: they keep the size that the code gives
them. Blocks that are folded into one must be trained alike.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from sympy import Expr
from torch import nn

from empirical.trace.lowering import Lowered
from empirical.trace.model_file import GrowingAxis, ModelFile, read_model
from empirical.trace.read_model import graph_of
from scaling.models.graph import Graph
from scaling.models.recipe import Recipe, TensorGroup, TensorKind
from scaling.sizes.errors import InvalidInput
from scaling.states.graph_passes import Passes
from scaling.states.tensor_kinds import tensor_kinds

WIDTH = "width"


@dataclass(frozen=True)
class TrainedModel:
    """A model as a recipe trains it.

    ``file``: builds it, with frozen tensors frozen. ``groups``: of the trained tensors by name.
    """

    file: ModelFile
    lowered: Lowered
    kinds: Mapping[str, TensorKind]
    groups: Mapping[str, TensorGroup]
    notes: tuple[str, ...] = ()


def trained(
    recipe: Recipe,
    model: ModelFile | str,
    axis: str | GrowingAxis | None = None,
    kinds: Mapping[str, TensorKind] | None = None,
    starts: Callable[[Graph], Mapping[str, Expr]] | None = None,
) -> TrainedModel:
    """Trace a model along an axis, and see what of it a recipe trains.

    Args:
        recipe: what trains what.
        model: the file, or what was read of it.
        axis: what grows, and at which sizes it is traced.
        kinds: of the tensors along the width, where they are known.
        starts: b of the tensors of a graph that are given, without which it may have no start.

    Raises:
        InvalidInput: for a recipe that does not fit the tensors of the model.
        NotCovered: for a model that cannot be traced.
    """
    file = read_model(model) if isinstance(model, str) else model
    lowered, notes = graph_of(file, axis), []
    given = starts or (lambda _: {})
    own = tensor_kinds(Passes(lowered.graph, given(lowered.graph)))
    if kinds is None and recipe.asks_for_growth and lowered.graph.axis != WIDTH:
        along = lowered.graph.axis
        if WIDTH in file.axes:
            graph = graph_of(file, WIDTH).graph
            wide = tensor_kinds(Passes(graph, given(graph)))
            along, kinds = WIDTH, {name: wide.get(name, kind) for name, kind in own.items()}
        notes.append(f"kinds of tensors along the {along}")
    kinds = {name: (kinds or {}).get(name, kind) for name, kind in own.items()}
    still = [p.name for p in _all_parameters(lowered) if not p.trained]
    groups = recipe.assigned(kinds, still)
    _refuse_unlike_blocks(recipe, groups, kinds, lowered.standing)
    still = [name for name, group in groups.items() if group.rule is None]
    if still:
        file = _with_frozen(file, file.axis(axis), lowered.standing, still)
        lowered = graph_of(file, axis)
        notes.append(f"frozen by the recipe: {', '.join(still)}")
    kept = {name: group for name, group in groups.items() if group.rule is not None}
    return TrainedModel(file, lowered, kinds, kept, tuple(notes))


def _all_parameters(lowered: Lowered) -> list[Any]:
    bodies = [n.get("repeat").body for n in lowered.graph.walk() if n.op == "repeat"]
    return [p for graph in (lowered.graph, *bodies) for p in graph.parameters]


def _with_frozen(
    file: ModelFile, axis: GrowingAxis, standing: Sequence[Mapping[str, str]], still: Sequence[str]
) -> ModelFile:
    """The file with these tensors frozen, and at each size of the axis those they stand for.

    At a size that was not traced a tensor is known by its name, numbers of blocks apart.
    """
    same = dict.fromkeys(axis.sizes, dict.fromkeys(still))
    for size, names in zip(axis.sizes, standing, strict=True):
        same[size] = {own: None for own, name in names.items() if name in still}
    patterns = {
        common_name(
            [own for names in same.values() for own in names if _stands(own, one, standing)]
        )
        for one in still
    }

    def build(**sizes: int) -> nn.Module:
        model: nn.Module = file.builder(**sizes)
        names = same.get(sizes.get(axis.name, file.axes.get(axis.name) or 0), {})
        for name, tensor in model.named_parameters():
            if name in names or (not names and any(fnmatchcase(name, x) for x in patterns)):
                tensor.requires_grad_(False)
        return model

    return replace(file, builder=build)


def _stands(own: str, name: str, standing: Sequence[Mapping[str, str]]) -> bool:
    return any(names.get(own) == name for names in standing)


def _refuse_unlike_blocks(
    recipe: Recipe,
    groups: Mapping[str, TensorGroup],
    kinds: Mapping[str, TensorKind],
    standing: Sequence[Mapping[str, str]],
) -> None:
    """Refuse blocks that one stands for and that a pattern tells apart."""
    for names in standing:
        for own, name in names.items():
            if name not in groups:
                continue
            other = next((g for g in recipe.groups if g.takes(own, kinds[name])), None)
            if other is not groups[name]:
                raise InvalidInput(
                    f"'{own}', which '{other or 'no group'}' trains, unlike '{name}', where the "
                    "number of blocks grows",
                    "one group for a tensor of all blocks",
                    f"select for example '{common_name([own, name])}'",
                )


def starred(name: str) -> str:
    """The name of a tensor or a module with the numbers of blocks blanked.

    >>> starred("blocks.3.up.weight"), starred("0.weight"), starred("norm1.weight")
    ('blocks.*.up.weight', '*.weight', 'norm1.weight')
    """
    return re.sub(r"(?<=\.)\d+(?=\.|$)|^\d+(?=\.|$)", "*", name)


def common_name(names: Sequence[str]) -> str:
    """The name of the tensors that one of a block stands for: the number of the block is blanked.

    >>> common_name(["blocks.0.mlp.2.weight", "blocks.1.mlp.2.weight"]), common_name(["0.weight"])
    ('blocks.*.mlp.2.weight', '0.weight')
    """
    parts = zip(*(name.split(".") for name in names), strict=True)
    return ".".join(several[0] if len(set(several)) == 1 else "*" for several in parts)
