"""Constants of the code that keep tensors from a maximal update, and what they would have to be.

Where a node above binds a rate, and not the tensor's own product, the tensor learns less than it
could: under logits over the root of the head size, queries and keys have c = 3/2 where 1 would move
their own product by as much as is stable. What would cure it is a factor below the node that
binds: one that stands in the code (the scale of attention, a residual multiplier), or one in front
of a product or a branch. The factor is changed by the gap and the graph read again, until no gap
is left; a factor that cures nothing is no advice. A line that equal blocks share is one factor.

A tensor that is used twice has one start for two uses: the use that needs a smaller one would have
it from a factor of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from sympy import Expr, S

from scaling.models.graph import Graph, GraphNode, Repeat
from scaling.models.terms import larger, smaller
from scaling.sizes.errors import NotCovered
from scaling.states.graph_passes import Passes
from scaling.states.graph_structure import increments
from scaling.states.moved_state import MOST_ROUNDS, two_states

PASSES_ON = ("reshape", "permute", "identity", "slice", "select", "add")


@dataclass(frozen=True)
class CodeChange:
    """A factor of the code that would have to be another: M^found, and M^needed instead.

    ``node``: the product that has the factor; ``where``: its place in the code.
    """

    node: str
    where: str
    found: Expr
    needed: Expr
    why: str
    twins: tuple[str, ...] = ()
    """All nodes of the line, in equal blocks; the first of them is ``node``."""


def code_changes(
    graph: Graph, start: Passes, moved: Passes, still: Collection[str] = ()
) -> tuple[CodeChange, ...]:
    """The factors that would have to be others, for a graph in its two states.

    ``still``: tensors that their rule never moves.
    """
    return (*_of_second_uses(start), *_of_lazy_tensors(graph, start, moved, still))


def _of_second_uses(start: Passes) -> list[CodeChange]:
    found = []
    for name, needs in start.needs.items():
        least = smaller(*needs.values())
        for site, need in needs.items():
            if need != least:
                node = start.nodes[site]
                power = _power(start, node)
                why = f"{name} is used twice, and b = {least} serves both uses then"
                found.append(CodeChange(site, node.where, power, power - need + least, why))
    return found


def _of_lazy_tensors(
    graph: Graph, start: Passes, moved: Passes, still: Collection[str]
) -> list[CodeChange]:
    shifts: dict[str, Expr] = {}
    lazy: dict[str, list[str]] = {}
    states = (start, moved)
    for _ in range(MOST_ROUNDS):
        gaps = _of_lines(start, _gaps(graph, states, lazy))
        if not gaps:
            break
        tried = {site: shifts.get(site, S.Zero) - gap for site, gap in gaps.items()}
        try:
            states = two_states(graph, start.b, shifts | tried, still)
        except NotCovered:  # a factor under which something saturates is no advice
            break
        shifts |= tried
    else:  # a factor that cures nothing is no advice
        shifts = {site: shift for site, shift in shifts.items() if site not in gaps}
    found = []
    for sites in _by_line(start, shifts).values():
        first = sites[0]
        names = dict.fromkeys(name for site in sites for name in lazy.get(site, ()))
        power = _power(start, start.nodes[first])
        why = f"{', '.join(names)} would have a maximal update then"
        where = _place(start, start.nodes[first])
        found.append(CodeChange(first, where, power, power + shifts[first], why, tuple(sites)))
    return found


def _of_lines(state: Passes, gaps: Mapping[str, Expr]) -> dict[str, Expr]:
    """The same gaps for all nodes that a line of the code makes: equal blocks change as one."""
    found = dict(gaps)
    lines = _by_line(state, state.nodes)
    for site, gap in gaps.items():
        for twin in lines[_line(state, site)]:
            found[twin] = larger(gap, found.get(twin, gap))
    return found


def _by_line(state: Passes, sites: Iterable[str]) -> dict[tuple[object, ...], list[str]]:
    found: dict[tuple[object, ...], list[str]] = {}
    for site in sites:
        found.setdefault(_line(state, site), []).append(site)
    return found


def _line(state: Passes, site: str) -> tuple[object, ...]:
    """The line of the code and what it does there; a node with no known line stands for itself.

    A factor that is written there is one for all that run the line. One that would be put there is
    put behind one of its products, `self.head(relu(self.hidden(x)))`: that of its weights, or of
    its operands, in all equal blocks.
    """
    node = state.nodes[site]
    module, _, line = _place(state, node).rpartition(": ")
    if ":" not in line or node.op not in ("multiply", "divide", "contract"):
        return (site,)
    if _has_factor(state, node):
        return (line, node.op, _power(state, node))
    weights = [name for x in node.inputs if state.is_weight(x) for name in state.tensors(x)]
    operands: tuple[object, ...] = tuple(
        (_starred(name), state.parameters[name].axes) for name in weights
    )
    operands = operands or tuple(state.nodes[x].op for x in node.inputs)
    return (line, node.op, _starred(module), node.axes, operands)


def _starred(name: str) -> str:
    """The same for all equal blocks; a number at its end, as in a sequence of layers, stays."""
    parts = name.split(".")
    return ".".join("*" if x.isdecimal() and k else x for k, x in enumerate(parts[::-1]))


def _gaps(
    graph: Graph, states: tuple[Passes, Passes], lazy: dict[str, list[str]]
) -> Mapping[str, Expr]:
    """By node, how much less than a maximal update its factor leaves the tensors in ``lazy``.

    A maximal update is stable in both states, as the rate is that it is compared with.
    """
    gaps: dict[str, Expr] = {}
    for state in states:
        for name, one in state.tolerances.items():
            own = smaller(*(x.tolerances[name].own for x in states if name in x.tolerances))
            gap = own - one.coherent
            p = state.parameters.get(name)
            if p is None or not p.trained or own is S.Infinity:
                continue
            if (name in state.anchored or p in graph.parameters) and larger(gap, S.Zero) != 0:
                for site in _sites(state, one.by):
                    gaps[site] = larger(gap, gaps.get(site, S.Zero))
                    lazy.setdefault(site, [])
                    if name not in lazy[site]:
                        lazy[site].append(name)
    return gaps


def _power(state: Passes, node: GraphNode) -> Expr:
    """The exponent of the factors of a node that are numbers of the code."""
    sign = -1 if node.op == "divide" else 1
    constants = [state.nodes[x] for x in node.inputs if state.nodes[x].op == "constant"]
    return sum((sign * x.get("exponent", S.Zero) for x in constants), S.Zero)


def _place(state: Passes, node: GraphNode) -> str:
    """The line of the factor, or of the node where the factor would stand."""
    inputs = [state.nodes[x] for x in node.inputs]
    return next((x.where for x in inputs if x.op == "constant" and x.where), node.where)


def _sites(state: Passes, by: str) -> list[str]:
    """The nodes below the one that binds where a factor stands, or could: one that grows first."""
    name, fixed = by.split(" into ")[0], list[str]()
    while name in state.nodes:
        node = state.nodes[name]
        if isinstance(node.get("repeat"), Repeat):
            return fixed or _branches(node.get("repeat").body)
        if node.op == "argument":
            owner = _owner(state, name)
            return fixed or ([] if owner is None else _branches(owner))
        if _has_factor(state, node):
            if _power(state, node) != 0:
                return [name]
            fixed = fixed or [name]
        elif node.op == "contract":
            sides = [site for x in node.inputs if (site := _growing_factor(state, x))]
            return sides if len(sides) == 1 else fixed or [name]
        elif node.op not in PASSES_ON:
            return fixed
        name = next((x for x in node.inputs if x in state.trained), "")
    return fixed


def _has_factor(state: Passes, node: GraphNode) -> bool:
    factors = any(state.nodes[x].op == "constant" for x in node.inputs)
    return node.op in ("multiply", "divide") and factors


def _growing_factor(state: Passes, name: str) -> str:
    """The node of a factor that grows in front of one side of a product, such as q * scale."""
    while name in state.trained:
        node = state.nodes[name]
        if _has_factor(state, node) and _power(state, node) != 0:
            return name
        if node.op not in PASSES_ON or node.op == "add":
            return ""
        name = next((x for x in node.inputs if x in state.trained), "")
    return ""


def _owner(state: Passes, argument: str) -> Graph | None:
    """The body of a repeat that is called with an argument."""
    bodies = [n.get("repeat").body for n in state.nodes.values() if n.op == "repeat"]
    return next((x for x in bodies if any(n.name == argument for n in x.nodes)), None)


def _branches(body: Graph) -> list[str]:
    return [x for k in range(len(body.outputs)) for x in increments(body, k) or []]
