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
    """Refuse a trained tensor from which no path leads to the loss, or none for its gradient."""
    bodies = [n.get("repeat").body for n in graph.nodes if n.op == "repeat"]
    ends = [(graph, {graph.loss}), *((body, set(body.outputs)) for body in bodies)]
    if not any(p.trained for part, _ in ends for p in part.parameters):
        raise InvalidInput(
            "a model without a trained tensor",
            "one that an optimizer trains",
            "leave requires_grad_(False) out for one tensor at the least",
        )
    for part, outputs in ends:
        own = [p.name for p in part.parameters if p.trained]
        reached, moved = _ancestors(part, outputs), _ancestors(part, outputs, by_gradients=True)
        for name in own:
            if name not in reached:
                raise InvalidInput(
                    f"the trained tensor '{name}', from which no path leads to the loss",
                    "tensors that the loss depends on",
                    "leave it out of the model, or freeze it: requires_grad_(False)",
                )
            if name not in moved:
                raise InvalidInput(
                    f"the trained tensor '{name}', whose gradient stops on every path from the "
                    f"loss, in {_stop(part, name, reached)}",
                    "tensors that a gradient reaches",
                    "leave .detach() or no_grad out there, or freeze it: requires_grad_(False)",
                )


def _stop(graph: Graph, name: str, reached: set[str]) -> str:
    """The first place above a tensor where gradients stop."""
    above = {name}
    for node in graph.nodes:
        if above & set(node.inputs) and node.name in reached:
            if node.get("detached", False):
                return node.where
            above.add(node.name)
    return "the model"


def _ancestors(graph: Graph, names: set[str], by_gradients: bool = False) -> set[str]:
    """All that nodes are made of; ``by_gradients``: without what gradients do not flow back to."""
    found = set(names)
    for node in reversed(graph.nodes):
        if node.name in found and not (by_gradients and node.get("detached", False)):
            found |= set(node.inputs)
    return found
