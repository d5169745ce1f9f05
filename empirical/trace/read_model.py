"""A user's model as a graph: built at a few sizes of an axis, traced, and matched.

file -> export at each size -> fold repeated blocks -> align -> lower -> Graph
"""

from __future__ import annotations

from sympy import S

from empirical.trace import aten_algebra, aten_layers, aten_shapes  # the rows
from empirical.trace.aligned import align
from empirical.trace.export import LeafKind, export
from empirical.trace.fold import fold
from empirical.trace.lowering import Lowered, lower
from empirical.trace.model_file import GrowingAxis, ModelFile, read_model
from empirical.trace.starts import parameters
from scaling.models.graph import Graph, GraphParameter, Start
from scaling.sizes.errors import InvalidInput, NotCovered

ROW_FILES = (aten_algebra, aten_layers, aten_shapes)


def graph_of(model: ModelFile | str, axis: str | GrowingAxis | None = None) -> Lowered:
    """The graph of a model along one axis.

    Args:
        model: a file, or its place as ``FILE.py`` or ``FILE.py:name``.
        axis: ``width``, ``width=64,128,192`` or ``width=64:512``; by default the width, or the
        first
            keyword of ``build``, at 1, 2 and 3 times its default.

    Raises:
        InvalidInput: for a file, an axis or numbers that cannot be used.
        NotCovered: for a model that cannot be traced, or whose sizes have no common operations.
    """
    file = read_model(model) if isinstance(model, str) else model
    grown = file.axis(axis)
    sizes = [{grown.name: size} for size in grown.sizes]
    try:
        programs = fold([export(file, at, lines=at is sizes[0]) for at in sizes])
    except NotCovered:
        programs = fold([export(file, at) for at in sizes])  # for the lines of the refusal
    aligned = align(grown.name, grown.sizes, programs)
    found = lower(grown.name, aligned, parameters(file, grown, aligned.leaves))
    _refuse_standstill(found.graph, grown)
    _refuse_unused(found.graph)
    return found


def graph_at_rest(model: ModelFile) -> Lowered:
    """The graph of a model at one size: its operations, and no axis that grows.

    Raises:
        InvalidInput: for a model or a batch that does not run.
        NotCovered: for a model that cannot be traced.
    """
    program = export(model, {})
    aligned = align("size", (1, 2), (program, program))
    found = [
        GraphParameter(
            x.leaf.name, (S.Zero,) * len(x.leaf.shape), x.leaf.trained, Start.DRAWN, None,
            x.leaf.others,
        )
        for x in aligned.leaves
        if x.leaf.kind is LeafKind.PARAMETER
    ]  # fmt: skip
    return lower("size", aligned, found)


def _refuse_standstill(graph: Graph, axis: GrowingAxis) -> None:
    grows = any(x != 0 for node in graph.walk() for x in node.axes)
    repeats = any(node.op == "repeat" and node.get("repeat").count != 0 for node in graph.walk())
    if not grows and not repeats:
        raise InvalidInput(
            f"the axis '{axis.name}', with which nothing of the model grows",
            f"a keyword {axis.name} of build or batch that changes a length or a number of blocks",
            "use it in build, or pass another axis: --axis NAME=SIZES",
        )


def _refuse_unused(graph: Graph) -> None:
    """Refuse a trained tensor from which no path leads to the loss."""
    reached = _ancestors(graph, {graph.loss})
    bodies = [n.get("repeat").body for n in graph.nodes if n.op == "repeat"]
    unused = [p.name for p in graph.parameters if p.trained and p.name not in reached]
    for body in bodies:
        inside = _ancestors(body, set(body.outputs))
        unused += [p.name for p in body.parameters if p.trained and p.name not in inside]
    if unused:
        raise InvalidInput(
            f"the trained tensor '{unused[0]}', from which no path leads to the loss",
            "tensors that the loss depends on",
            "leave it out of the model, or freeze it: requires_grad_(False)",
        )


def _ancestors(graph: Graph, names: set[str]) -> set[str]:
    found = set(names)
    for node in reversed(graph.nodes):
        if node.name in found:
            found |= set(node.inputs)
    return found
