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
        file = _with_frozen(file, _patterns(lowered, still))
        lowered = graph_of(file, axis)
        notes.append(f"frozen by the recipe: {', '.join(still)}")
    kept = {name: group for name, group in groups.items() if group.rule is not None}
    return TrainedModel(file, lowered, kinds, kept, tuple(notes))


def _all_parameters(lowered: Lowered) -> list[Any]:
    bodies = [n.get("repeat").body for n in lowered.graph.walk() if n.op == "repeat"]
    return [p for graph in (lowered.graph, *bodies) for p in graph.parameters]


def _patterns(lowered: Lowered, names: Sequence[str]) -> list[str]:
    """The names of all tensors that these stand for, as patterns."""
    alone = {p.name for p in lowered.graph.parameters}
    return [n if n in alone else starred(n) for n in names]


def _with_frozen(file: ModelFile, patterns: Sequence[str]) -> ModelFile:
    def build(**sizes: int) -> nn.Module:
        model: nn.Module = file.builder(**sizes)
        for name, tensor in model.named_parameters():
            if any(fnmatchcase(name, pattern) for pattern in patterns):
                tensor.requires_grad_(False)
        return model

    return replace(file, builder=build)


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
                    f"select for example '{starred(name)}'",
                )


def starred(name: str) -> str:
    """The name of a tensor or a module with the numbers of blocks blanked.

    >>> starred("blocks.3.up.weight"), starred("0.weight"), starred("norm1.weight")
    ('blocks.*.up.weight', '*.weight', 'norm1.weight')
    """
    return re.sub(r"(?<=\.)\d+(?=\.|$)|^\d+(?=\.|$)", "*", name)
