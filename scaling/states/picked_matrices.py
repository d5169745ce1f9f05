"""Matrices that are picked from a table by an index, such as an expert's for each token.

    rows of an embedding    E[ids]: what is picked is data, and the table meets data there
    matrices of experts     bmm(W[best], x): what is picked is a weight still, which meets data in a
                            product that contracts one of the table's own axes and leaves another

The second kind keeps fan_in and fan_out of the product, as if each expert were written by itself.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from scaling.models.graph import GraphNode

KEEPS = ("identity", "slice", "expand")


def picked_matrices(
    node: GraphNode,
    nodes: Mapping[str, GraphNode],
    readers: Mapping[str, Sequence[GraphNode]],
    data: Collection[str],
) -> frozenset[str]:
    """The nodes from a gather to the products in which its matrices meet data; none if it has none.

    Args:
        node: any node.
        nodes: all of them by name.
        readers: by name, who reads it.
        data: names of nodes that depend on data.
    """
    if node.op != "gather" or node.inputs[0] in data or node.get("axis") != 0:
        return frozenset()
    left = [(node.name, frozenset(range(len(nodes[node.inputs[1]].axes))))]
    found: set[str] = set()
    while left:
        name, index = left.pop()
        found.add(name)
        for reader in readers.get(name, []):
            moved = _moved(reader, index)
            if moved is not None:
                left.append((reader.name, moved))
            elif not _is_product_with_data(reader, name, index, data):
                return frozenset()
    return frozenset(found)


def _moved(node: GraphNode, index: frozenset[int]) -> frozenset[int] | None:
    """The axes of the index after an operation that hands entries on; None if it does not."""
    if node.op in KEEPS:
        return index
    if node.op == "permute":
        return frozenset(k for k, axis in enumerate(node.get("order")) if axis in index)
    if node.op != "reshape":
        return None
    found: set[int] = set()
    for ins, outs in node.get("groups"):
        if ins and set(ins) <= index:
            found |= set(outs)
        elif set(ins) & index:
            return None
    return frozenset(found)


def _is_product_with_data(
    node: GraphNode, name: str, index: frozenset[int], data: Collection[str]
) -> bool:
    if node.op != "contract" or any(x not in data for x in node.inputs):
        return False
    letters, out = node.get("equation").replace(" ", "").split("->")
    pairs = dict(zip(node.inputs, letters.split(","), strict=True))
    own = {c for k, c in enumerate(pairs.pop(name)) if k not in index}
    others = set("".join(pairs.values()))
    return bool(own - set(out)) and bool((own & set(out)) - others)
