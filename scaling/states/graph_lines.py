"""Why a node of a graph has its size: the derivation of h, of delta, and of what binds a rate.

One line a node, along the one input (or the one reader) that sets the size. Nodes that only move
entries about, or add something smaller, have no line; a normalisation needs no premise, since its
result has the size 1 whatever comes in.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

from sympy import Expr

from scaling.models.graph import GraphNode, Repeat
from scaling.sizes.derivation import BACKPROP, CLT, DATA, LLN, NORMS, PRODUCT, Inference, Step
from scaling.sizes.scale import Scale, Size
from scaling.states.graph_passes import Passes

NORMALISATION = Inference("normalise", "a normalisation divides by the size: the result has size 1")
SOFTMAX = Inference("softmax", "over n entries with logits of order one each has size 1/n")
FUNCTION = Inference("function", "a function of entries of order one has entries of order one")
ADJOINT = Inference("adjoint", "a cotangent goes back through the transpose of what a change meets")
BORNE = Inference(
    "tolerance",
    "a change may be as large as what it changes, or of order one before a function with a scale",
    "arXiv 2011.14522, Sec. 3",
)
SILENT = {
    "reshape", "permute", "expand", "identity", "feed", "concatenate", "rearrange", "pool", "slice",
}  # fmt: skip
_KEPT: WeakKeyDictionary[Passes, dict[tuple[str, str], Step]] = WeakKeyDictionary()
"""The lines of a state that were asked for: those of deep nodes rest on all below or above."""
SUMS = {"add", "subtract", "select", "item", "repeat", "scatter"}


def value_line(state: Passes, name: str) -> Step:
    """The derivation of the size of a node."""
    kept = _KEPT.setdefault(state, {})
    if ("value", name) not in kept:
        kept["value", name] = _value_line(state, name)
    return kept["value", name]


def cotangent_line(state: Passes, name: str) -> Step:
    """The derivation of the size of d loss / d node."""
    kept = _KEPT.setdefault(state, {})
    if ("cotangent", name) not in kept:
        kept["cotangent", name] = _cotangent_line(state, name)
    return kept["cotangent", name]


def _value_line(state: Passes, name: str) -> Step:
    node = state.nodes[name]
    size = _entry(state.values[name].size if name in state.values else None)
    if not node.inputs or node.op in ("discrete", "one_hot"):
        return Step(DATA, f"|{name}|", size, _leaf(node))
    if node.op == "normalise":
        return Step(NORMALISATION, f"|{name}|", size, "whatever comes in")
    source = _main_input(state, node)
    if node.op in SILENT or (node.op in SUMS and source is not None):
        return value_line(state, source) if source else Step(DATA, f"|{name}|", size)
    inputs = (value_line(state, source),) if source else ()
    numbers = " x ".join(f"|{x}| {_entry(state.values[x].size)}" for x in node.inputs[:3])
    return Step(_inference(state, node), f"|{name}|", size, numbers, inputs)


def _cotangent_line(state: Passes, name: str) -> Step:
    found = state.cotangents.get(name)
    size = _entry(None if found is None else found.size)
    subject = f"|d loss / d {name}|"
    best: tuple[GraphNode, int] | None = None
    for node in state.readers.get(name, []):
        for i, x in enumerate(node.inputs):
            piece = state.pieces.get((node.name, i))
            if x != name or found is None or piece != found.size:
                continue
            if best is None or node.op in SUMS | SILENT:
                best = (node, i)
    if best is None:
        return Step(DATA, subject, size, "as the loss, or the blocks above, send it back")
    node, _ = best
    if node.op in SUMS | SILENT and node.name in state.cotangents:
        above = cotangent_line(state, node.name)
        return above if above.result == size else Step(ADJOINT, subject, size, node.op, (above,))
    if node.name == state.graph.loss:
        return Step(DATA, subject, size, f"{node.op}: of order one for each sample")
    inputs = (cotangent_line(state, node.name),)
    rule = BACKPROP if node.op in ("contract", "convolve") else ADJOINT
    return Step(rule, subject, size, f"back through {node.op} {node.name}", inputs)


def tolerance_line(state: Passes, name: str) -> Step:
    """How far the tensor's own maximal update would move the node that binds, and by which way."""
    one = state.tolerances[name]
    way = [x for x in one.way if state.nodes[x].op not in SILENT | SUMS]
    shown = way if len(way) < 7 else [*way[:3], "...", *way[-2:]]
    excess = Scale.of_width(one.own - one.coherent, Size.ENTRY)
    text = f"dW of {name} -> {' -> '.join(shown)}"
    return Step(BORNE, f"change of {one.by}, per what it bears", excess, text)


def _entry(size: Expr | None) -> Scale:
    return Scale.zero(Size.ENTRY) if size is None else Scale.of_width(size, Size.ENTRY)


def _leaf(node: GraphNode) -> str:
    return {"data": "the data", "argument": "what the block is called with"}.get(node.op, node.op)


def _main_input(state: Passes, node: GraphNode) -> str | None:
    """The input that sets the size: the largest of a sum, the first that depends on data."""
    if isinstance(node.get("repeat"), Repeat):
        return node.inputs[0]
    known = [x for x in node.inputs if x in state.values and x in state.data]
    if node.op in SUMS | SILENT:
        size = state.values[node.name].size
        return next((x for x in known if state.values[x].size == size), None)
    return known[0] if known else None


def _inference(state: Passes, node: GraphNode) -> Inference:
    if node.op == "softmax":
        return SOFTMAX
    if node.op in ("apply", "power"):
        return FUNCTION
    if node.op == "reduce":
        return NORMS if node.get("kind") in ("norm", "std", "variance") else LLN
    if node.op in ("contract", "convolve"):
        weights = any(state.is_weight(x) for x in node.inputs)
        return CLT if weights else LLN
    return PRODUCT
