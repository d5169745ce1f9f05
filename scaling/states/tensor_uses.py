"""A tensor of a graph as a rule sees it: the use where it meets data, its fans, h and delta.

    use      a product of the tensor, or of a weight that is made of it, with data
    fan_in   the axes that the use contracts          fan_out   those that it leaves
    h        what the tensor meets there, factors of the code on the way included
    delta    G over h: the cotangent of the product, summed over the places where the tensor stands

So a rule sees a tensor of any shape as one matrix with G = delta^T h: the kernel of a convolution,
one of many experts, a packed projection, a gain (the diagonal of its matrix, fan_in 0). A tensor
that is used twice is seen at the use that gives it the larger gradient.

>>> from scaling.models.architectures import convolutional
>>> one = tensor_sizes(Passes(convolutional()))["conv_2"]
>>> one.layer.fan_in, one.layer.fan_out, str(one.h), str(one.delta)
(1, 1, '1', 'M^(-1)')
"""

from __future__ import annotations

from collections.abc import Mapping
from weakref import WeakKeyDictionary

from sympy import Expr, S

from scaling.models.chain import Layer
from scaling.models.graph import GraphNode, Repeat
from scaling.models.layer_sizes import LayerSizes
from scaling.models.operations.products import fans
from scaling.models.terms import GraphValue, contract, drawn, larger
from scaling.sizes.derivation import BACKPROP, PRODUCT, Step
from scaling.sizes.scale import Scale, Size
from scaling.states.graph_forward import ForwardPass
from scaling.states.graph_lines import cotangent_line, value_line
from scaling.states.graph_passes import Passes
from scaling.states.graph_structure import arguments_of


def tensor_sizes(state: Passes) -> Mapping[str, LayerSizes]:
    """The sizes that a rule sees in each trained tensor that something reads."""
    if state not in _KEPT:
        names = [p.name for p in state.parameters.values() if p.trained]
        _KEPT[state] = {name: _sizes(state, name) for name in names if state.readers.get(name)}
    return _KEPT[state]


_KEPT: WeakKeyDictionary[Passes, Mapping[str, LayerSizes]] = WeakKeyDictionary()
"""The sizes in a state, which are asked for under each set of dampings."""


def main_use(state: Passes, name: str) -> tuple[GraphNode, int]:
    """The use that gives a tensor its largest gradient, the first of them, and which input it is.

    The input is the tensor, or the weight that is made of it.
    """
    found = uses(state, name)
    sizes = [state.pieces.get((node.name, i), S.NegativeInfinity) for node, i in found]
    return found[sizes.index(larger(*sizes))]


def uses(state: ForwardPass, name: str) -> list[tuple[GraphNode, int]]:
    """The products with data of a tensor, or of weights that are made of it."""
    found: list[tuple[GraphNode, int]] = []
    for node in state.readers.get(name, []):
        repeat = node.get("repeat")
        if isinstance(repeat, Repeat):
            arguments = arguments_of(repeat.body)
            inner = [arguments[k] for k, x in enumerate(node.inputs) if x == name]
            found += [use for x in inner for use in uses(state, x)]
        elif state.is_weight(node.name):
            found += uses(state, node.name)
        else:
            found += [(node, i) for i, x in enumerate(node.inputs) if x == name]
    return found


def _sizes(state: Passes, name: str) -> LayerSizes:
    node, i = main_use(state, name)
    of = fans(state.operands(node), i)
    fan_in, fan_out = (_length(state, name, node.inputs[i], x) for x in (of.contracted, of.left))
    gradient = state.cotangents.get(name)
    size = S.NegativeInfinity if gradient is None else gradient.size
    h = _met(state, name, node, i)
    mean_h = _mean_met(state, node, i, h)
    delta = S.NegativeInfinity if h is S.NegativeInfinity else size - h
    mean_delta = _mean_cotangent(state, node, fan_out, delta)
    layer = Layer(name, 1, fan_in, fan_out, of.is_bias)
    entry = [Scale.of_width(x, Size.ENTRY) for x in (h, delta, mean_h, mean_delta)]
    w = Scale.of_width(state.values[name].size, Size.ENTRY)
    met = next((x for j, x in enumerate(node.inputs) if j != i and x in state.data), "")
    inputs = (value_line(state, met),) if met else ()
    lines = (
        Step(PRODUCT, f"h of {name}", entry[0], f"what it meets in {node.name}", inputs),
        Step(
            BACKPROP, f"delta of {name}", entry[1], f"summed over the places of {node.name}",
            (cotangent_line(state, node.name),),
        ),
    )  # fmt: skip
    return LayerSizes(layer, entry[0], entry[1], w, entry[2], entry[3], *lines)


def _length(state: Passes, name: str, weight: str, axes: frozenset[int]) -> Expr:
    """The length of those axes of a tensor that became these axes of a weight."""
    p = state.parameters[name]
    if weight == name:
        return sum((p.axes[k] for k in axes), S.Zero)
    own = {
        k
        for term in _unit(state, name, weight).terms
        for m in axes
        for tensor, k in term.along[m].sources
        if is_of(tensor, name)
    }
    return sum((p.axes[k] for k in own), S.Zero)


def is_of(source: str, name: str) -> bool:
    """Whether a source is a tensor, or a part that slices take of it."""
    return source == name or source.startswith(f"{name}[")


def _unit(state: Passes, name: str, weight: str) -> GraphValue:
    """A fresh tensor of size one, as a weight carries it."""
    return state.carried(name, drawn(name, state.parameters[name].axes, S.Zero), weight)


def _met(state: Passes, name: str, node: GraphNode, i: int) -> Expr:
    """The size of what a tensor meets, factors on the way included."""
    others = [value for j, value in enumerate(state.operands(node).values) if j != i]
    weight = node.inputs[i]
    scale = S.Zero if weight == name else _unit(state, name, weight).size
    if node.op in ("contract", "multiply", "convolve"):
        return scale + sum((x.size for x in others), S.Zero)
    return scale - others[0].size if node.op == "divide" else scale


def _mean_met(state: Passes, node: GraphNode, i: int, h: Expr) -> Expr:
    """The mean of h over fan_in."""
    at = state.operands(node)
    if node.op == "convolve":
        x = at.values[0]
        return h if x.is_zero else h + x.mean(1) - x.size
    if node.op != "contract" or len(at.values) != 2 or h is S.NegativeInfinity:
        return h
    letters, out = node.get("equation").split("->")
    own, other = letters.split(",")[i], letters.split(",")[1 - i]
    x = at.values[1 - i]
    summed = [c for c in other if c in own and c not in out]
    kept = "".join(c for c in other if c not in summed)
    length = sum((x.axes[other.index(c)] for c in summed), S.Zero)
    return h + contract([(x, other)], kept).size - length - x.size


def _mean_cotangent(state: Passes, node: GraphNode, fan_out: Expr, delta: Expr) -> Expr:
    """The mean of delta over fan_out."""
    dy = state.cotangents.get(node.name)
    if dy is None or dy.is_zero:
        return delta
    if fan_out != 0:
        axis = max(range(len(dy.axes)), key=lambda k: (dy.axes[k] != 0, k))
        return delta + dy.mean(axis) - dy.size
    if _are_logits(state, node.name):
        return S.NegativeInfinity  # softmax - target sums to zero over the classes
    return delta


def _are_logits(state: Passes, name: str) -> bool:
    """Whether a node has the cotangent of a cross-entropy: biases, factors, reshapes may follow."""
    while len(state.readers.get(name, [])) == 1:
        (node,) = state.readers[name]
        others = [x for x in node.inputs if x != name]
        match node.op:
            case "cross_entropy":
                return node.inputs[0] == name
            case "add" if all(map(state.is_weight, others)):
                pass
            case "multiply" if all(state.nodes[x].op == "constant" for x in others):
                pass
            case "reshape" if _keeps_last(node, len(state.nodes[name].axes)):
                pass
            case "identity" if not node.get("detached", False):
                pass
            case _:
                return False
        name = node.name
    return False


def _keeps_last(node: GraphNode, rank: int) -> bool:
    """Whether a reshape leaves the last axis alone."""
    ins, outs = node.get("groups")[-1]
    return tuple(ins) == (rank - 1,) and len(outs) == 1
