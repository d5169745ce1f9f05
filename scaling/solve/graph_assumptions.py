"""Assumptions of an answer for a graph, line by line, and the questions that it refuses.

An assumption is printed where the graph has the place that it is about: a sequence that grows,
blocks, running statistics, a table, a tensor used twice, a start that is given. Refused are rules
and settings whose reading is known for chains alone, each with the rule or the line that would do.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from sympy import Expr, S

from scaling.calculus.moved_weights import at_start
from scaling.models.graph import Graph, GraphNode, Repeat
from scaling.models.recipe import Recipe, TensorKind, sums_over_everything
from scaling.models.settings import Settings
from scaling.models.terms import larger
from scaling.rules.dependence import is_entrywise
from scaling.rules.language import Node
from scaling.rules.operators import FUNCTIONS
from scaling.rules.rule import Rule
from scaling.rules.tree import Call, MatMul, Matrix
from scaling.sizes.errors import NotCovered
from scaling.solve.conditions import (
    MAXIMAL_READBACK,
    MAXIMAL_UPDATE,
    STABLE_START,
    STABLE_STEP,
    Condition,
)
from scaling.states.critical_chain import is_chain
from scaling.states.graph_passes import Passes
from scaling.states.tensor_uses import main_use, tensor_sizes, uses

INDEPENDENCE = "gradient independence: a weight passes cotangents back as if drawn anew (start)"
ALONG = "a change follows the gradient: dW h adds up over fan_in, products of changes likewise"
NO_CANCELLATION = "branches do not cancel in a sum"
FIXED_DATA = "inputs and targets are of order one, and not fitted yet"
FIXED_BATCH = "the batch is fixed"
COHERENT_PLACES = "places that grow in number (a batch, a sequence) add up in the gradient"
BLOCKS = "blocks pass a change on as they pass what they add to"
TYPICAL = (
    "one rate stands for all blocks, that of a typical one: where the stream grows, the k-th can "
    "have a gradient that is larger by a power of depth/k, which no rate here follows"
)
CRITICAL = (
    "blocks in a row pass on exactly the size that they are given (a critical start, such as std = "
    "sqrt(2/fan_in) under relu), and the width is far beyond the depth"
)
TRAINED_STATISTICS = "statistics kept by the model are of order one"
RARE = "of a table that grows, the rows that occur are spoken of: the others have no gradient"
PAIRS = (
    "all products of rows of {} with each other are as large as that of one with itself, an upper "
    "bound where others are picked"
)
REARRANGED = frozenset({"reshape", "permute", "identity", "expand", "rearrange"})
SHARED = "a tensor used twice is read at the use of its largest gradient; uses do not cancel"


def assumptions(graph: Graph, state: Passes) -> tuple[str, ...]:
    """The assumptions beyond the inferences, for this graph."""
    nodes = list(graph.walk())
    grows = any(x != 0 for n in nodes if n.op == "data" for x in n.axes)
    tables = any(n.op == "gather" and state.nodes[n.inputs[0]].axes[0] != 0 for n in nodes)
    found = [INDEPENDENCE, ALONG, NO_CANCELLATION, FIXED_DATA]
    found.append(COHERENT_PLACES if grows else FIXED_BATCH)
    repeats = [n.get("repeat") for n in nodes if n.op == "repeat"]
    found += [BLOCKS] if any(not is_chain(x) for x in repeats) else []
    found += [TYPICAL] if any(_grows_on_the_way(state, n) for n in graph.nodes) else []
    found += [CRITICAL] if any(is_chain(x) for x in repeats) else []
    found += [TRAINED_STATISTICS] if any(n.op == "buffer" for n in nodes) else []
    found += [RARE] if tables else []
    shared = [p for p in state.parameters if len(uses(state, p)) > 1]
    found += [SHARED] if shared else []
    found += [PAIRS.format(name) for name in dict.fromkeys(_met_by_themselves(nodes))]
    large = {x: state.values[x].size for x in graph.outputs if graph.loss}
    return (
        *found,
        *(
            f"outputs grow at the start, with the exponent {size}, in {name}: read as they are"
            for name, size in large.items()
            if larger(size, S.Zero) != 0
        ),
    )


def _met_by_themselves(nodes: Sequence[GraphNode]) -> list[str]:
    """The values whose rows meet each other in a product, as z @ z.T has it."""
    by_name = {node.name: node for node in nodes}

    def origin(name: str) -> str:
        node = by_name.get(name)
        while node is not None and node.op in REARRANGED:
            name = node.inputs[0]
            node = by_name.get(name)
        return name

    met = [[origin(x) for x in n.inputs] for n in nodes if n.op == "contract"]
    return [pair[0] for pair in met if len(pair) == 2 and pair[0] == pair[1]]


def _grows_on_the_way(state: Passes, node: GraphNode) -> bool:
    """Whether the stream of blocks that grow in number is larger at its end than at its start."""
    repeat = node.get("repeat")
    if repeat is None or repeat.count == 0 or is_chain(repeat):
        return False
    before, after = (state.values[x].size for x in (node.inputs[0], node.name))
    return bool(larger(before, after) != before)


def of_recipe(
    recipe: Recipe, kinds: Mapping[str, TensorKind], frozen: Sequence[str]
) -> tuple[str, ...]:
    """The assumptions that a recipe adds."""
    found = [f"no tensor of the model is of the kind '{kind}'" for kind in recipe.absent(kinds)]
    groups = recipe.assigned(kinds, frozen) if any(g.parts > 1 for g in recipe.groups) else {}
    for group in recipe.groups:
        names = [name for name, own in groups.items() if own == group]
        if group.parts > 1 and names:
            found.append(
                f"{group.parts} matrices in each, along fan_out, which changes no exponent: "
                + ", ".join(names)
            )
    if frozen:
        found.append(f"{', '.join(frozen)}: frozen, at the size that stable start gives")
    sums = [(rule, sums_over_everything(rule)) for rule in recipe.rules if rule.sums_over_layers]
    if len(recipe.rules) > 1:
        found += [
            f"'{rule.sums_over_layers[0]}' of {rule.name or rule} runs over "
            + ("all trained tensors, whatever trains them" if every else "the tensors of its group")
            for rule, every in sums
        ]
    found += [text for rule in recipe.rules for text in rule.assumptions]
    return tuple(dict.fromkeys(found))


def of_settings(
    given: Mapping[str, Expr], derived: Mapping[str, Expr], letter: str, condition: str
) -> list[str]:
    """Exponents that are given where a condition has another, tensors with one answer together."""
    found: dict[str, list[str]] = {}
    for name, value in given.items():
        if name in derived and value != derived[name]:
            other = f"{letter} = {value} is given where {condition} has {derived[name]}"
            found.setdefault(other, []).append(name)
    return [f"{text}: {', '.join(names)}" for text, names in found.items()]


def refuse_open_starts(settings: Settings, derived: Mapping[str, Expr]) -> None:
    """Refuse a and b that are symbols, or hold one.

    ``derived``: b of every drawn tensor, where nothing is given.

    Raises:
        NotCovered: naming the exponent, with the value that a stable start has.
    """
    for letter, exponents in (("a", settings.a), ("b", settings.b)):
        for name, value in exponents.items():
            if value.free_symbols:
                known = S.Zero if letter == "a" else derived.get(name, S.Zero)
                raise NotCovered(
                    f"{letter}_{name} = {value} on a graph, which names a symbol",
                    "a number: which of two sizes of a node is the larger one is decided by it",
                    f"write for example --set {letter}_{name}={known}, or leave --model out: the "
                    "chain keeps symbols",
                )


def refuse_fewer_conditions(conditions: Iterable[Condition]) -> None:
    """Refuse to leave out what all nodes of a graph are solved for together.

    Raises:
        NotCovered: naming the condition.
    """
    left = set(conditions)
    for condition in (STABLE_START, MAXIMAL_READBACK, STABLE_STEP, MAXIMAL_UPDATE):
        if condition not in left:
            raise NotCovered(
                f"an answer for a graph without {condition.name}",
                "stable start, maximal readback, stable step and maximal update together",
                "impose it, and give what it shall not fix, such as --set c=0",
            )


def refuse_what_chains_alone_have(rule: Rule, graph: Graph) -> None:
    """Refuse gradients at moved weights, and sums over layers where their number grows.

    Raises:
        NotCovered: naming the part of the rule.
    """
    if rule.ascents:
        raise NotCovered(
            f"'{rule.ascents[0]}' on a graph",
            "gradients at the weights as they are: those at moved weights are derived for a chain",
            f"derive '{at_start(rule.expression)}' here, or leave --model out",
        )
    sums = [
        n for n in rule.expression.walk() if isinstance(n, Call) and n.function == "over_layers"
    ]
    if sums and any(_grows(node) for node in graph.walk()):
        raise NotCovered(
            f"'{sums[0]}' where the number of layers grows",
            "a sum over a fixed number of layers",
            f"write '{sums[0].argument}' of each layer alone, or let another axis grow",
        )


def refuse_growing_data(rule: Rule, state: Passes, names: Collection[str]) -> None:
    """Refuse what the calculus does not know where samples, or rows without gradient, grow.

    ``names``: the tensors that the rule trains.

    Raises:
        NotCovered: naming the tensor.
    """
    if is_entrywise(rule.expression):
        return
    for name, one in tensor_sizes(state).items():
        if name not in names:
            continue
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


def _grows(node: GraphNode) -> bool:
    repeat = node.get("repeat")
    return isinstance(repeat, Repeat) and repeat.count != 0


def _is_of_any_rank(node: Node) -> bool:
    """Whether a rule has no function of a whole matrix whose size depends on its rank."""
    return not any(isinstance(n, MatMul) or _is_spectral(n) for n in node.walk())


def _is_spectral(node: Node) -> bool:
    if isinstance(node, Matrix):
        return node.name in ("A", "B", "L", "R")
    return isinstance(node, Call) and FUNCTIONS[node.function].depends_on_rank
