"""`derive_graph` solves the conditions on a graph: b, c and d of every tensor, for any network.

    b   stable start and maximal readback, where a tensor meets data (states/graph_passes.py)
    d   balanced damping: a rule is read in each tensor with the h, delta and G of its use
    c   maximal update: the largest rate at which no node above moves by more than it bears
    d   balanced decay: learning rate x decay = Theta(1)

in two states: at the *start*, and *moved*, with every tensor at W + dW, dW as large as it may be
and along its gradient. What starts at zero, or meets independent weights only at the start, has
another gradient from the second step on. A rate must keep both stable, so the smaller one is the
answer; d is that of the moved state, in which all further steps are.

Where another node binds than the tensor's own product, constants of the code keep it from a
maximal update; `CodeChange` says what they would have to be, such as logits over head_size and not
its root, or a residual multiplier.

Not covered, and refused: gradients at moved weights (ascended), sums over layers where the number
of layers grows, alignments that are given.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import sympy
from sympy import Expr, S, Symbol

from scaling.calculus.context import Context
from scaling.calculus.moved_weights import at_start
from scaling.calculus.output_change import OutputChange
from scaling.calculus.read import read_update
from scaling.models.building import with_multipliers
from scaling.models.chain import Activation, Layer
from scaling.models.graph import Graph, GraphNode, Repeat, Start
from scaling.models.layer_sizes import LayerSizes
from scaling.models.operations.products import fans
from scaling.models.settings import Settings
from scaling.models.terms import contract, drawn, larger, smaller
from scaling.rules.dependence import is_entrywise
from scaling.rules.language import Node
from scaling.rules.parser import as_rule
from scaling.rules.rule import Rule
from scaling.rules.tree import Call, MatMul, Matrix
from scaling.sizes.derivation import BACKPROP, PRODUCT, Step
from scaling.sizes.errors import NotCovered
from scaling.sizes.scale import HALF, Bounds, Scale, Size
from scaling.solve.conditions import STANDARD, Condition
from scaling.solve.damping import in_layer, unsolved
from scaling.solve.decay import derived_decays, descent, following
from scaling.states.graph_lines import cotangent_line, tolerance_line, value_line
from scaling.states.graph_passes import Passes, Tolerance
from scaling.states.graph_structure import arguments_of, increments
from scaling.states.problem import Problem

MOST_ROUNDS = 6


@dataclass(frozen=True)
class InState:
    """A tensor in one state: its gradient, rate and dampings; c is None where G is zero.

    ``own``: the rate of a maximal update of the tensor alone; ``bound``: the line of what binds it
    beyond that.
    """

    gradient: Expr
    c: Expr | None
    own: Expr | None
    d: Mapping[str, Expr]
    binds: str
    update: OutputChange | None = None
    bound: Step | None = None


@dataclass(frozen=True)
class TensorAnswer:
    """The answer for a tensor; exponents as everywhere, see CONVENTION."""

    name: str
    b: Expr
    c: Expr
    d: Mapping[str, Expr]
    binds: str
    fan_in: Expr
    fan_out: Expr
    start: InState
    moved: InState


@dataclass(frozen=True)
class CodeChange:
    """A factor of the code that would have to be another: M^found, and M^needed instead."""

    node: str
    where: str
    found: Expr
    needed: Expr
    why: str


@dataclass(frozen=True)
class GraphDerived:
    """The answer for a graph."""

    rule: Rule
    graph: Graph
    tensors: Mapping[str, TensorAnswer]
    changes: tuple[CodeChange, ...]
    assumptions: tuple[str, ...]
    free: tuple[str, ...]


@dataclass(frozen=True)
class _Asked:
    rule: Rule
    settings: Settings
    conditions: tuple[Condition, ...]
    sampled_fisher: bool = False

    @property
    def problem(self) -> Problem:
        return Problem(self.rule, settings=self.settings, sampled_fisher=self.sampled_fisher)


def derive_graph(
    rule: Rule | Node | str,
    graph: Graph,
    settings: Settings | None = None,
    conditions: Iterable[Condition] = STANDARD,
    sampled_fisher: bool = False,
) -> GraphDerived:
    """Solve the conditions for every trained tensor of a graph.

    Args:
        rule: the update rule, as an object, a tree or text.
        graph: the network.
        settings: a, b, c, d by the name of a tensor, and symbols of the rule, held fixed.
        conditions: what is asked; see conditions.py.
        sampled_fisher: K-FAC's B from sampled instead of the loss's own cotangents.

    Raises:
        NotCovered: if an operation has no row, or the calculus does not cover the rule.

    >>> from scaling.models.architectures import perceptron
    >>> answer = derive_graph("sign(G)", perceptron(3))
    >>> {name: (x.b, x.c) for name, x in answer.tensors.items()}
    {'input': (0, 0), 'hidden': (1/2, 1), 'output': (1, 1)}
    """
    asked = _Asked(as_rule(rule), settings or Settings(), tuple(conditions), sampled_fisher)
    _refuse(asked.rule, graph)
    graph = with_multipliers(graph, asked.settings.a)
    start, moved = two_states(graph, asked.settings.b)
    _refuse_growing_data(asked.rule, start)
    bounds = asked.problem.bounds()
    first, second = (_in_state(asked, one, bounds) for one in (start, moved))
    tensors, free = {}, []
    for name, layer in _layers(start).items():
        one, other = first[name], second[name]
        known = [x for x in (one, other) if x.c is not None]
        symbol = Symbol(f"c_{name}")
        if not known:
            free.append(symbol.name)
        c = symbol
        for k, x in enumerate(known):
            c = x.c if k == 0 else bounds.larger(c, x.c)
        given = asked.settings.c.get(name)
        binds = next((x.binds for x in reversed(known) if x.c == c), "")
        tensors[name] = TensorAnswer(
            name, _start_exponent(start, name), c if given is None else given, other.d, binds,
            layer.fan_in, layer.fan_out, one, other,
        )  # fmt: skip
    changes = _changes(graph, asked.settings.b, start, moved)
    assumptions = _assumptions(graph, start)
    return GraphDerived(asked.rule, graph, tensors, changes, assumptions, tuple(free))


def _refuse(rule: Rule, graph: Graph) -> None:
    if rule.ascents:
        raise NotCovered(
            f"'{rule.ascents[0]}' on a graph",
            "gradients at the weights as they are: those at moved weights are derived for a chain",
            f"derive '{at_start(rule.expression)}' here, or leave --model out",
        )
    sums = [
        n for n in rule.expression.walk() if isinstance(n, Call) and n.function == "over_layers"
    ]
    grows = [
        n
        for n in graph.walk()
        if isinstance(n.get("repeat"), Repeat) and n.get("repeat").count != 0
    ]
    if sums and grows:
        raise NotCovered(
            f"'{sums[0]}' where the number of layers grows",
            "a sum over a fixed number of layers",
            f"write '{sums[0].argument}' of each layer alone, or let another axis grow",
        )


INDEPENDENCE = "gradient independence: a weight passes cotangents back as if drawn anew (start)"
ALONG = "a change follows the gradient: dW h adds up over fan_in, products of changes likewise"
NO_CANCELLATION = "branches do not cancel in a sum"
FIXED_DATA = "inputs and targets are of order one, and not fitted yet"
FIXED_BATCH = "the batch is fixed"
COHERENT_PLACES = "places that grow in number (a batch, a sequence) add up in the gradient"
BLOCKS = "blocks pass a change on as they pass what they add to"
TRAINED_STATISTICS = "statistics kept by the model are of order one"
RARE = "of a table that grows, the rows that occur are spoken of: the others have no gradient"
SHARED = "a tensor used twice is read at the use of its largest gradient; uses do not cancel"


def _assumptions(graph: Graph, state: Passes) -> tuple[str, ...]:
    """The assumptions beyond the inferences, for this graph."""
    nodes = list(graph.walk())
    grows = any(x != 0 for n in nodes if n.op == "data" for x in n.axes)
    tables = any(n.op == "gather" and state.nodes[n.inputs[0]].axes[0] != 0 for n in nodes)
    found = [INDEPENDENCE, ALONG, NO_CANCELLATION, FIXED_DATA]
    found.append(COHERENT_PLACES if grows else FIXED_BATCH)
    found += [BLOCKS] if any(n.op == "repeat" for n in nodes) else []
    found += [TRAINED_STATISTICS] if any(n.op == "buffer" for n in nodes) else []
    found += [RARE] if tables else []
    shared = [p for p in state.parameters if len(_uses(state, p)) > 1]
    return (*found, *([SHARED] if shared else []))


def _refuse_growing_data(rule: Rule, state: Passes) -> None:
    """Refuse what the calculus does not know where samples, or rows without gradient, grow.

    Raises:
        NotCovered: naming the tensor.
    """
    if is_entrywise(rule.expression):
        return
    for name, one in books(state).items():
        gradient = state.cotangents.get(name)
        if gradient is None:
            continue
        node, _ = main_use(state, name)
        places = sum(state.nodes[node.name].axes, S.Zero) - one.layer.fan_out
        if larger(places, S.Zero) != 0 and not _is_of_any_rank(rule.expression):
            raise NotCovered(
                f"'{rule.expression}' of {name}, whose samples grow in number like M^({places})",
                "a fixed number of samples: ranks and spans of the data are known for these",
                "let another axis grow, or derive an entrywise rule such as sign(G)",
            )
        if any(s.few is not None for term in gradient.terms for s in term.along):
            raise NotCovered(
                f"'{rule.expression}' of {name}, of whose growing rows few have a gradient",
                "a rule entry by entry: norms, means and spans over all rows are not known",
                "let another axis grow, or derive an entrywise rule such as sign(G)",
            )


def _is_of_any_rank(node: Node) -> bool:
    """Whether a rule has no function of a whole matrix whose size depends on its rank."""
    return not any(isinstance(n, MatMul) or _is_spectral(n) for n in node.walk())


def _is_spectral(node: Node) -> bool:
    if isinstance(node, Matrix):
        return node.name in ("A", "B", "L", "R")
    return isinstance(node, Call) and node.function in ("orth", "newton_schulz", "eig")


def two_states(
    graph: Graph, b: Mapping[str, Expr] | None = None, extra: Mapping[str, Expr] | None = None
) -> tuple[Passes, Passes]:
    """The graph at the start, and with every tensor moved as far as is stable."""
    extra = extra or {}
    start = Passes(graph, dict(b or {}), extra=extra)
    state, caps = start, dict[str, Tolerance]()
    for _ in range(MOST_ROUNDS):
        along = {k: state.cotangents[k] for k in state.parameters if k in state.cotangents}
        if state is start:
            caps = {k: start.tolerances[k] for k in along}
        new = Passes(graph, dict(start.b), moved=along, caps=caps, extra=extra)
        stricter = {
            k: new.tolerances[k]
            for k in along
            if k in new.updates
            and smaller(new.tolerances[k].coherent, new.updates[k]) != new.updates[k]
        }
        later = {k for k in new.parameters if k in new.cotangents}
        if not stricter and later == set(along):
            return start, new
        caps |= stricter
        state = new
    return start, state


# --- a rule in each tensor -----------------------------------------------------------------------


def _layers(state: Passes) -> dict[str, Layer]:
    return {x.layer.name: x.layer for x in books(state).values()}


def books(state: Passes) -> dict[str, LayerSizes]:
    """The sizes that a rule sees in each trained tensor."""
    found = {}
    for p in state.parameters.values():
        if p.trained and state.readers.get(p.name):
            found[p.name] = _sizes(state, p.name)
    return found


def _sizes(state: Passes, name: str) -> LayerSizes:
    node, i = main_use(state, name)
    at = state.operands(node)
    of = fans(at, i)
    fan_in, fan_out = _fan(state, name, node, i, of.contracted), _fan(state, name, node, i, of.left)
    gradient = state.cotangents.get(name)
    size = S.NegativeInfinity if gradient is None else gradient.size
    h = _size_met(state, name, node, i)
    mean_h = _mean_input(state, node, i, h)
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


def main_use(state: Passes, name: str) -> tuple[GraphNode, int]:
    """The product with data that gives the tensor its largest gradient, the first of them."""
    uses = _uses(state, name)
    sizes = [state.pieces.get((node.name, i), S.NegativeInfinity) for node, i in uses]
    return uses[sizes.index(larger(*sizes))]


def _uses(state: Passes, name: str) -> list[tuple[GraphNode, int]]:
    """The products with data of a tensor, or of weights that are made of it."""
    found: list[tuple[GraphNode, int]] = []
    for node in state.readers.get(name, []):
        repeat = node.get("repeat")
        if isinstance(repeat, Repeat):
            arguments = arguments_of(repeat.body)
            inner = [arguments[k] for k, x in enumerate(node.inputs) if x == name]
            found += [use for x in inner for use in _uses(state, x)]
        elif state.is_weight(node.name):
            found += _uses(state, node.name)
        else:
            found += [(node, i) for i, x in enumerate(node.inputs) if x == name]
    return found


def _fan(state: Passes, name: str, node: GraphNode, i: int, axes: frozenset[int]) -> Expr:
    """The length of those axes of a tensor that became these axes of a weight."""
    p = state.parameters[name]
    if node.inputs[i] == name:
        return sum((p.axes[k] for k in axes), S.Zero)
    fresh = state.carried(name, drawn(name, p.axes, S.Zero), node.inputs[i])
    own = {
        k
        for term in fresh.terms
        for m in axes
        for (tensor, k), _ in term.along[m].seen
        if tensor == name
    }
    return sum((p.axes[k] for k in own), S.Zero)


def _size_met(state: Passes, name: str, node: GraphNode, i: int) -> Expr:
    """The size of what a tensor meets, factors on the way included."""
    at = state.operands(node)
    others = [value for j, value in enumerate(at.values) if j != i]
    scale = S.Zero
    if node.inputs[i] != name:
        p = state.parameters[name]
        scale = state.carried(name, drawn(name, p.axes, S.Zero), node.inputs[i]).size
    if node.op in ("contract", "multiply", "convolve"):
        return scale + sum((x.size for x in others), S.Zero)
    if node.op == "divide":
        return scale - others[0].size
    return scale


def _mean_input(state: Passes, node: GraphNode, i: int, h: Expr) -> Expr:
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
    dy = state.cotangents.get(node.name)
    if dy is None or dy.is_zero:
        return delta
    if fan_out != 0:
        axis = max(range(len(dy.axes)), key=lambda k: (dy.axes[k] != 0, k))
        return delta + dy.mean(axis) - dy.size
    if any(n.op == "cross_entropy" and n.inputs[0] == node.name for n in state.graph.nodes):
        return S.NegativeInfinity  # softmax - target sums to zero over the classes
    return delta


def _in_state(asked: _Asked, state: Passes, bounds: Bounds) -> dict[str, InState]:
    problem, rule = asked.problem, asked.rule
    sizes = books(state)
    alive = {k: x for k, x in sizes.items() if not x.delta.is_zero and not x.h.is_zero}
    d = {k: unsolved(problem, x.layer) for k, x in sizes.items()}
    network = _network(asked, alive, d, bounds)
    for name, one in alive.items():

        def read(unknown: list[Symbol], d: Mapping[str, Expr], one: LayerSizes = one) -> Context:
            return replace(_context(asked, one, d, bounds, unknown), network=network)

        d[name], _ = in_layer(problem, one.layer, d[name], read, asked.conditions)
    found = {}
    for name, one in sizes.items():
        if name not in alive:
            found[name] = InState(S.NegativeInfinity, None, None, d[name], "its gradient is zero")
            continue
        solved = derived_decays(problem, one.layer, asked.conditions)
        update = read_update(_network(asked, alive, d, bounds)[name], rule.expression)
        c, own, binds = _rate(state, one, descent(update) if solved else update, bounds)
        if solved and c is not None:
            given = asked.settings.c.get(name, c)
            d[name] = following(rule, one.layer, update, given, d[name], solved)
        gradient = (one.h * one.delta).width
        bound = tolerance_line(state, name) if c != own else None
        found[name] = InState(gradient, c, own, d[name], binds, update, bound)
    return found


def _network(
    asked: _Asked,
    sizes: Mapping[str, LayerSizes],
    d: Mapping[str, Mapping[str, Expr]],
    bounds: Bounds,
) -> dict[str, Context]:
    network: dict[str, Context] = {}
    for name, one in sizes.items():
        network[name] = replace(_context(asked, one, d[name], bounds), network=network)
    return network


def _context(
    asked: _Asked,
    sizes: LayerSizes,
    d: Mapping[str, Expr],
    bounds: Bounds,
    unknown: Iterable[Symbol] = (),
) -> Context:
    activation = Activation.RELU if sizes.mean_h == sizes.h else Activation.TANH
    return Context(
        sizes, d, asked.settings.exponents, bounds, frozenset(unknown), asked.sampled_fisher,
        activation,
    )  # fmt: skip


def _rate(
    state: Passes, sizes: LayerSizes, update: OutputChange, bounds: Bounds
) -> tuple[Expr | None, Expr | None, str]:
    """The rate, that of the tensor alone, and the node that binds."""
    layer, h = sizes.layer, sizes.h.width
    bears = state.tolerances[layer.name]
    if update.coherent.plus(update.random, bounds).is_zero:
        return None, None, "its update is zero"
    along = sympy.expand(update.coherent.width - h - layer.fan_in)
    across = sympy.expand(update.random.width - h - HALF * layer.fan_in)
    own = bounds.larger(along - bears.own, across - bears.own_random)
    limits = [
        (own, f"its own product in {main_use(state, layer.name)[0].name}"),
        (along - bears.coherent, bears.by),
        (across - bears.random, bears.random_by),
    ]
    c, binds = limits[0]
    for x, by in limits[1:]:
        if x is not S.NegativeInfinity and bounds.larger(c, x) != c:
            c, binds = bounds.larger(c, x), by
    return sympy.expand(c), sympy.expand(own), binds


def _start_exponent(state: Passes, name: str) -> Expr:
    p = state.parameters[name]
    if p.start is Start.ZERO:
        return S.Infinity
    return state.b.get(name, p.b if p.b is not None else S.Zero)


# --- constants of the code -----------------------------------------------------------------------


def _changes(
    graph: Graph, b: Mapping[str, Expr], start: Passes, moved: Passes
) -> tuple[CodeChange, ...]:
    """Factors that keep tensors from a maximal update, and what they would have to be."""
    extra: dict[str, Expr] = {}
    reasons: dict[str, list[str]] = {}
    states = (start, moved)
    for _ in range(MOST_ROUNDS):
        gaps: dict[str, Expr] = {}
        for state in states:
            for name, one in state.tolerances.items():
                gap = one.own - one.coherent
                p = state.parameters.get(name)
                if p is None or not p.trained or one.own is S.Infinity:
                    continue
                lazy = name in state.anchored or p in graph.parameters
                if lazy and larger(gap, S.Zero) != 0:
                    for site in _sites(state, one.by):
                        gaps[site] = larger(gap, gaps.get(site, S.Zero))
                        reasons.setdefault(site, [])
                        if name not in reasons[site]:
                            reasons[site].append(name)
        if not gaps:
            break
        for site, gap in gaps.items():
            extra[site] = extra.get(site, S.Zero) - gap
        states = two_states(graph, start.b, extra)
    else:  # a factor that cures nothing is no advice
        extra = {site: shift for site, shift in extra.items() if site not in gaps}
    found = []
    for name, needs in start.needs.items():
        least = smaller(*needs.values())
        for site, need in needs.items():
            if need != least:
                node = start.nodes[site]
                power = _power_of_code(start, node)
                why = f"{name} is used twice, and b = {least} serves both uses then"
                found.append(CodeChange(site, node.where, power, power - need + least, why))
    for site, shift in extra.items():
        node = start.nodes[site]
        names = ", ".join(reasons[site])
        why = f"{names} would have a maximal update then"
        power = _power_of_code(start, node)
        where = next(
            (
                start.nodes[x].where
                for x in node.inputs
                if start.nodes[x].op == "constant" and start.nodes[x].where
            ),
            node.where,
        )
        found.append(CodeChange(site, where, power, power + shift, why))
    return tuple(found)


def _power_of_code(state: Passes, node: GraphNode) -> Expr:
    sign = -1 if node.op == "divide" else 1
    return sum(
        (
            sign * state.nodes[x].get("exponent", S.Zero)
            for x in node.inputs
            if state.nodes[x].op == "constant"
        ),
        S.Zero,
    )


def _sites(state: Passes, by: str) -> list[str]:
    """The nodes whose factor could be another, below the node that binds."""
    name = by.split(" into ")[0]
    while name in state.nodes:
        node = state.nodes[name]
        if isinstance(node.get("repeat"), Repeat):
            return _branches(state, node.get("repeat").body)
        if node.op == "argument":
            owner = next(
                (
                    n
                    for n in state.nodes.values()
                    if isinstance(n.get("repeat"), Repeat)
                    and any(x.name == name for x in n.get("repeat").body.nodes)
                ),
                None,
            )
            return [] if owner is None else _branches(state, owner.get("repeat").body)
        if node.op in ("multiply", "divide") and any(
            state.nodes[x].op == "constant" for x in node.inputs
        ):
            return [name]
        if node.op in ("reshape", "permute", "identity", "slice", "select", "add"):
            name = next((x for x in node.inputs if x in state.trained), "")
            continue
        return [name] if node.op == "contract" else []
    return []


def _branches(state: Passes, body: Graph) -> list[str]:
    return [x for k in range(len(body.outputs)) for x in increments(body, k) or []]
