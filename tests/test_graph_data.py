"""A graph refuses what could not be evaluated in its order."""

import re

import pytest
from sympy import Rational, S

from scaling.models.graph import Graph, GraphNode, GraphParameter, Repeat, fixed
from scaling.sizes.errors import InvalidInput

ONE = S.One
X = GraphNode("x", "data", axes=fixed(2))
W = GraphNode("w", "parameter", axes=(ONE, S.Zero))
F = GraphNode("f", "contract", ("x", "w"), (S.Zero, ONE), {"equation": "bi,oi->bo"}, "head: m.py:3")
TENSOR = GraphParameter("w", (ONE, S.Zero))


def test_a_graph_knows_its_nodes_tensors_and_uses() -> None:
    graph = Graph("width", (X, W, F), (TENSOR,), ("f",))
    assert graph.node("f").get("equation") == "bi,oi->bo"
    assert graph.uses("w") == [F]
    assert graph.parameter("w").trained
    assert str(F) == "f = contract(x, w) (head: m.py:3)"


def test_the_body_of_a_repeat_is_walked() -> None:
    body = Graph(
        "depth",
        (GraphNode("in", "argument", axes=fixed(2), attributes={"position": 0}),),
        (),
        ("in",),
    )
    again = GraphNode("r", "repeat", ("x",), fixed(2), {"repeat": Repeat(body, Rational(1))})
    graph = Graph("depth", (X, again), (), ("r",))
    assert [node.name for node in graph.walk()] == ["x", "in", "r"]


@pytest.mark.parametrize(
    ("nodes", "outputs", "found"),
    [
        ((F, X, W), ("f",), "node 'f = contract(x, w) (head: m.py:3)', whose input 'x' does not"),
        ((X, X), ("x",), "two nodes of the name 'x'"),
        ((X, W, F), ("g",), "the name 'g', which belongs to nothing"),
        ((X, GraphNode("v", "parameter"), W), ("x",), "the name 'v', which belongs to nothing"),
    ],
)  # fmt: skip
def test_what_has_no_order_or_no_owner_is_refused(
    nodes: tuple[GraphNode, ...], outputs: tuple[str, ...], found: str
) -> None:
    with pytest.raises(InvalidInput, match=re.escape(found)):
        Graph("width", nodes, (TENSOR,), outputs)
