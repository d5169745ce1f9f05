"""A network drawn: modules in the order of evaluation, and the operations of each, as SVG.

Every edge bears the size of a typical entry of what goes along it, M^x. A drawing is text with
classes and `currentColor`, so that a page decides on its colours; `sizes` says what edges bear.

    layers    a node stands one row below the lowest of its inputs, tensors just above their use
    lanes     an edge that passes rows goes around them on the right
    modules   neighbours of one module are one box in the overview, and a drawing of their own

>>> from scaling.models.architectures import perceptron
>>> from sympy import S
>>> graph = perceptron(2)
>>> (whole,) = drawings(graph, {node.name: S.Zero for node in graph.walk()}, "M")
>>> whole.title, whole.svg.startswith("<svg")
('model: 4 operations, 2 tensors', True)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby

from sympy import Expr

from scaling.models.graph import Graph, GraphNode, Repeat

LEAVES = {"parameter", "data", "buffer", "constant", "argument", "noise"}
_LINE = re.compile(r"(?!\(loss\)|.*site-packages).*: .+:\d+")
ROW, LETTER, HIGH, GAP, LANE = 76, 6.6, 36, 20, 16
"""Pixels: between rows, of a letter, of a box, between boxes, between lanes."""


@dataclass(frozen=True)
class Drawing:
    """A picture of a part of a network, and a line of the code where it begins."""

    title: str
    svg: str
    where: str = ""


@dataclass(frozen=True)
class _Box:
    name: str
    head: str
    foot: str
    kind: str

    @property
    def width(self) -> float:
        return max(len(self.head), len(self.foot), 6) * LETTER + 18


@dataclass(frozen=True)
class _Edge:
    start: str
    end: str
    size: str


def drawings(graph: Graph, sizes: Mapping[str, Expr], letter: str = "M") -> list[Drawing]:
    """The overview, then every module and every body of a repeat.

    Args:
        graph: the network.
        sizes: by node, the exponent of a typical entry; nodes without one have edges without label.
        letter: the name of what grows.
    """
    return list(_drawn(graph, sizes, letter, "overview"))


def axis_letter(graph: Graph) -> str:
    """The letter for what grows: the width has its own, other axes their names."""
    return "M" if graph.axis == "width" else graph.axis


def size_text(exponent: Expr | None, letter: str) -> str:
    """A size as an edge bears it: 1, M, M^(-1/2)."""
    if exponent is None:
        return ""
    if exponent == 0:
        return "1"
    if exponent.is_infinite:
        return "0" if exponent < 0 else "oo"
    return letter if exponent == 1 else f"{letter}^({exponent})"


def _drawn(graph: Graph, sizes: Mapping[str, Expr], letter: str, title: str) -> Iterator[Drawing]:
    groups = _modules(graph)
    place = {node.name: i for i, (_, nodes) in enumerate(groups) for node in nodes}
    operations = {node.name: node for node in graph.nodes}
    edges = [
        (source, node.name) for node in graph.nodes for source in dict.fromkeys(node.inputs)
    ]  # fmt: skip

    def edge(start: str, end: str, source: str) -> _Edge:
        return _Edge(start, end, size_text(sizes.get(source), letter))

    boxes = [
        _Box(str(i), name, _contents(nodes), "module") for i, (name, nodes) in enumerate(groups)
    ]
    between = {
        (place[a], place[b], a): edge(str(place[a]), str(place[b]), a)
        for a, b in edges
        if place[a] != place[b]
    }
    if len(groups) > 1:
        yield Drawing(title, _svg(boxes, list(between.values()), f"{title}: modules"))
    for name, nodes in groups:
        inside = {node.name for node in nodes}
        near = [(a, b) for a, b in edges if a in inside or b in inside]
        outer = dict.fromkeys(x for pair in near for x in pair if x not in inside)
        shown = [_box(node, letter) for node in nodes]
        shown += [
            _Box(x, x, f"{operations[x].op}, in {groups[place[x]][0]}", "outside") for x in outer
        ]
        drawn = _svg(shown, [edge(a, b, a) for a, b in near], f"operations of {name}")
        where = next((x.where for x in nodes if _LINE.fullmatch(x.where)), "")
        prefix = "" if title == "overview" else f"{title} / "
        yield Drawing(f"{prefix}{name}: {_contents(nodes)}", drawn, where.partition(": ")[2])
        for node in nodes:
            repeat = node.get("repeat")
            if isinstance(repeat, Repeat):
                times = size_text(repeat.count, letter)
                within = f"{node.name}, repeated {times} times"
                yield from _drawn(repeat.body, sizes, letter, within)


def _modules(graph: Graph) -> list[tuple[str, list[GraphNode]]]:
    """Neighbours of one module; leaves stand with the first node that uses them."""
    users: dict[str, GraphNode] = {}
    for node in graph.nodes:
        for source in node.inputs:
            users.setdefault(source, node)
    order = {node.name: i for i, node in enumerate(graph.nodes)}

    def at(node: GraphNode) -> GraphNode:
        while node.op in LEAVES and node.name in users:
            node = users[node.name]
        return node

    ranked = sorted(graph.nodes, key=lambda n: (order[at(n).name], n.op not in LEAVES))
    runs = groupby(ranked, key=lambda n: module_of(at(n)))
    return [(name, list(nodes)) for name, nodes in runs]


def module_of(node: GraphNode) -> str:
    """The module path in which a node stands, or the whole model."""
    head = node.where.split(":")[0].strip()
    return head or "model"


def _contents(nodes: Sequence[GraphNode]) -> str:
    tensors = [node.name for node in nodes if node.op == "parameter"]
    count = sum(node.op not in LEAVES for node in nodes)
    text = f"{count} operation{'s' * (count != 1)}"
    return text + (f", {len(tensors)} tensor{'s' * (len(tensors) != 1)}" if tensors else "")


def _box(node: GraphNode, letter: str) -> _Box:
    axes = " x ".join(size_text(x, letter) for x in node.axes) or "a number"
    kind = "tensor" if node.op == "parameter" else "leaf" if node.op in LEAVES else "operation"
    what = "" if node.op == node.name else f"{node.op}, "
    return _Box(node.name, node.name, f"{what}{axes}", kind)


# --- layout ---------------------------------------------------------------------------------------


def _ranks(boxes: Sequence[_Box], edges: Sequence[_Edge]) -> dict[str, int]:
    """Rows: below all inputs; what has none stands just above its first use."""
    above: dict[str, list[str]] = {box.name: [] for box in boxes}
    below: dict[str, list[str]] = {box.name: [] for box in boxes}
    for edge in edges:
        above[edge.end].append(edge.start)
        below[edge.start].append(edge.end)
    rank: dict[str, int] = {}

    def of(name: str) -> int:
        if name not in rank:
            rank[name] = 0
            rank[name] = 1 + max((of(x) for x in above[name]), default=-1)
        return rank[name]

    for box in boxes:
        of(box.name)
    for box in boxes:
        if not above[box.name] and below[box.name]:
            rank[box.name] = max(0, min(rank[x] for x in below[box.name]) - 1)
    return rank


def _svg(boxes: Sequence[_Box], edges: Sequence[_Edge], title: str) -> str:
    rank = _ranks(boxes, edges)
    rows: dict[int, list[_Box]] = {}
    for box in boxes:
        rows.setdefault(rank[box.name], []).append(box)
    middle: dict[str, float] = {}

    def sources_of(name: str) -> float:
        known = (middle[e.start] for e in edges if e.end == name and e.start in middle)
        return _mean(known, widest / 2)

    widest = max(sum(b.width + GAP for b in row) for row in rows.values())
    for k in sorted(rows):
        row = rows[k]
        total = sum(box.width + GAP for box in row) - GAP
        left = (widest - total) / 2
        row.sort(key=lambda box: sources_of(box.name))
        for box in row:
            middle[box.name] = left + box.width / 2
            left += box.width + GAP
    lanes = [edge for edge in edges if rank[edge.end] - rank[edge.start] > 1]
    width = widest + GAP + LANE * len(lanes) + 60 * bool(lanes)
    height = ROW * len(rows) - ROW + HIGH + 12
    lines = [_line(e, rank, middle, lanes, widest) for e in edges]
    drawn = [part for parts in zip(*lines, strict=True) for part in parts]  # sizes over all paths
    drawn += [_shape(box, middle[box.name], rank[box.name] * ROW + 4) for box in boxes]
    return (
        f'<svg class="graph" role="img" aria-label="{escape(title)}" width="{width:.0f}" '
        f'height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}">'
        f"<title>{escape(title)}</title>{''.join(drawn)}</svg>"
    )


def _mean(values: Iterable[float], otherwise: float) -> float:
    found = list(values)
    return sum(found) / len(found) if found else otherwise


def _line(
    edge: _Edge, rank: Mapping[str, int], middle: Mapping[str, float], lanes: Sequence[_Edge],
    right: float,
) -> tuple[str, str]:  # fmt: skip
    """The path of an edge, and its size."""
    x, y = middle[edge.start], rank[edge.start] * ROW + 4 + HIGH
    u, v = middle[edge.end], rank[edge.end] * ROW + 4
    if edge in lanes:
        lane = right + GAP / 2 + LANE * lanes.index(edge)
        half = (y + v) / 2
        path = (
            f"M{x:.0f} {y} C{x:.0f} {y + 30} {lane:.0f} {y} {lane:.0f} {half:.0f} "
            f"S{u:.0f} {v - 30} {u:.0f} {v}"
        )
        at = (lane + 5, half)
    else:
        path = f"M{x:.0f} {y} C{x:.0f} {(y + v) / 2:.0f} {u:.0f} {(y + v) / 2:.0f} {u:.0f} {v}"
        at = ((x + u) / 2 + 5, (y + v) / 2 + 4)
    label = f'<text class="size" x="{at[0]:.0f}" y="{at[1]:.0f}">{escape(edge.size)}</text>'
    arrow = f'<path class="arrow" d="M{u - 4:.0f} {v - 7} L{u:.0f} {v} L{u + 4:.0f} {v - 7}"/>'
    return f'<path class="edge" d="{path}"/>{arrow}', label


def _shape(box: _Box, x: float, y: float) -> str:
    left, corner = x - box.width / 2, 12 if box.kind in ("leaf", "tensor") else 3
    return (
        f'<rect class="{box.kind}" x="{left:.0f}" y="{y}" width="{box.width:.0f}" '
        f'height="{HIGH}" rx="{corner}"/>'
        f'<text class="head" x="{x:.0f}" y="{y + 15}">{escape(box.head)}</text>'
        f'<text class="foot" x="{x:.0f}" y="{y + 29}">{escape(box.foot)}</text>'
    )
