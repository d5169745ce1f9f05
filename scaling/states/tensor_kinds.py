"""The kind of every trained tensor of a graph, as recipes select by: told by its use alone.

    hidden      contracts a growing axis and leaves one      readout     contracts one, leaves none
    embedding   leaves a growing axis and contracts none: first layers; tables that are looked up;
                tables of two axes or more that are added: positions, class tokens
    gain        multiplies entry by entry                    bias        one axis that is added
    fixed       a product with data none of whose axes grows

A table that is both looked up and multiplied with (tied to the readout) is an embedding.

>>> from scaling.models.architectures import transformer
>>> from scaling.states.graph_passes import Passes
>>> kinds = tensor_kinds(Passes(transformer("width")))
>>> [str(kinds[k]) for k in ("embedding", "positions", "blocks.query", "norm.gain", "readout")]
['embedding', 'embedding', 'hidden', 'gain', 'readout']
"""

from __future__ import annotations

from scaling.models.chain import Layer
from scaling.models.operations.products import fans
from scaling.models.recipe import TensorKind
from scaling.states.graph_passes import Passes
from scaling.states.tensor_uses import main_use, tensor_sizes, uses


def tensor_kinds(state: Passes) -> dict[str, TensorKind]:
    """The kinds of the trained tensors that something reads."""
    return {name: _kind(state, one.layer) for name, one in tensor_sizes(state).items()}


def _kind(state: Passes, layer: Layer) -> TensorKind:
    if any(node.op == "gather" for node, _ in uses(state, layer.name)):
        return TensorKind.EMBEDDING
    if layer.fan_in != 0:
        return TensorKind.HIDDEN if layer.fan_out != 0 else TensorKind.READOUT
    node, i = main_use(state, layer.name)
    of = fans(state.operands(node), i)
    if of.is_bias:
        table = len(state.parameters[layer.name].axes) > 1
        return TensorKind.EMBEDDING if table else TensorKind.BIAS
    if not of.contracted:
        return TensorKind.GAIN
    return TensorKind.EMBEDDING if layer.fan_out != 0 else TensorKind.FIXED
