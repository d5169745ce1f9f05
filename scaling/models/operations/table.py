"""All rows of the table of operations, by name; leaves and repeats are read by the passes."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from scaling.models.graph import GraphNode
from scaling.models.operations import (
    addition,
    elementwise,
    objectives,
    products,
    rearrangements,
    reductions,
)
from scaling.models.operations.row import OperationRow
from scaling.sizes.errors import NotCovered

OPERATIONS: Mapping[str, OperationRow] = MappingProxyType(
    {
        **products.ROWS,
        **addition.ROWS,
        **elementwise.ROWS,
        **reductions.ROWS,
        **rearrangements.ROWS,
        **objectives.ROWS,
    }
)


def operation(node: GraphNode) -> OperationRow:
    """The row of a node.

    Raises:
        NotCovered: if there is none.
    """
    if node.op not in OPERATIONS:
        place = f" at {node.where}" if node.where else ""
        raise NotCovered(
            f"the operation '{node.op}', in {node.name}{place}",
            f"one of {', '.join(sorted(OPERATIONS))}",
            "write it with these, or add its row: CONTRIBUTING.md, 'Add an operation of models'",
        )
    return OPERATIONS[node.op]
