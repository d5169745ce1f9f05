"""Theory against measurement on a user's own model: every node and tensor of its graph.

    init        of every node                        as the start of the graph has it; no more where
                                                     no weight reaches it (a mask may blank nothing)
    excess      of a cross-entropy whose logits      no more than the logits: what they add, sample
                vanish, in place of init             by sample, to the log of the number of classes
    cotangent   of every node                        likewise
    own         of every trained tensor              borne + own - c: maximal is what is borne,
                                                     of order one unless a factor follows; a bound
                                                     where a damping decides it (own_product)
    bound       of the node that binds a tensor      what it bears: the rate is the largest stable
                                                     one
    change      of every node, all tensors moved     no more than it bears

Each is judged with an interval over sizes and seeds. What a run does not see is listed: nodes that
PyTorch computes inside of one operation, tensors whose matrices are not at hand.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeAlias

import numpy as np
from sympy import Expr, S

from empirical.fit.exponent import Estimate, estimate
from empirical.fit.verdict import Verdict, at_most, judge, overall, remedy
from empirical.trace.model_file import GrowingAxis, ModelFile
from empirical.trace.trained import TrainedModel, trained
from empirical.verify.model_steps import ModelSteps, StepSizes
from scaling.models.graph import Graph
from scaling.models.recipe import Recipe, TensorGroup, as_recipe
from scaling.models.settings import Settings
from scaling.models.terms import larger
from scaling.rules.language import Node
from scaling.rules.rule import Rule
from scaling.sizes.errors import InvalidInput
from scaling.sizes.in_notebook import InNotebook
from scaling.solve.graph_solution import GraphDerived, TensorAnswer, derive_graph
from scaling.states.graph_passes import Passes
from scaling.states.moved_state import two_states

MARGIN = 0.2
SEEDS, MOST_SEEDS = 4, 16
"""Where none are given; doubled up to the second number: two looks beyond the first."""
Rows: TypeAlias = tuple[tuple[float, ...], ...]
EVERYWHERE = ("init", "cotangent")


@dataclass(frozen=True)
class GraphCheck:
    """One prediction beside its measurement.

    ``at_most``: the prediction is a bound. ``node``: that of the graph, where ``name`` is the
    operation of torch. ``sizes``: all that was measured, (seeds, sizes of the axis).
    """

    name: str
    quantity: str
    predicted: Expr
    at_most: bool
    fit: Estimate
    verdict: Verdict
    where: str = ""
    node: str = ""
    sizes: Rows = field(default=(), repr=False, compare=False)


@dataclass(frozen=True)
class GraphVerification(InNotebook):
    """All checks of a model, with what was not looked at."""

    answer: GraphDerived
    axis: GrowingAxis
    checks: tuple[GraphCheck, ...]
    unseen: tuple[str, ...]
    notes: tuple[str, ...]
    seeds: int
    margin: float

    @property
    def verdict(self) -> Verdict:
        """Of all checks together."""
        return overall(check.verdict for check in self.checks)


def verify_graph(
    recipe: Recipe | Rule | Node | str,
    model: TrainedModel | ModelFile | str,
    axis: str | GrowingAxis | None = None,
    settings: Settings | None = None,
    expected: Mapping[tuple[str, str], Expr] | None = None,
    seeds: Sequence[int] | None = None,
    margin: float = MARGIN,
    first_seed: int = 0,
    device: str = "cpu",
) -> GraphVerification:
    """Derive the exponents of a model, step it at every size of the axis, and compare.

    Args:
        recipe: what trains what, or one update rule.
        model: a file with build and batch (model_file.py), or what was traced of it already.
        axis: what grows, and its sizes: at least three.
        settings: exponents held fixed, and numbers of the rules' symbols.
        expected: predictions to put in place of the derived ones, by (node or tensor, quantity).
        seeds: of the networks. Unless they are given: ``SEEDS`` from ``first_seed`` on, doubled to
            ``MOST_SEEDS`` at most while noise leaves a check open that more would settle.
        margin: of exponents, within which they agree.
        first_seed: where seeds begin that are not given.
        device: where the model runs, "cpu" or "cuda".

    Raises:
        InvalidInput: for a model, an axis or an expectation that cannot be used.
        NotCovered: where the theory or the tracer has no answer.
    """
    recipe = as_recipe(recipe)
    settings = settings or Settings()
    if isinstance(model, TrainedModel):
        given = model
    else:
        given = trained(recipe, model, axis, starts=lambda _: settings.b)
    file, lowered = given.file, given.lowered
    grown = file.axis(axis)
    answer = derive_graph(recipe, lowered.graph, settings, kinds=given.kinds)
    start, _ = two_states(lowered.graph, answer_starts(answer))
    values = {name: values_of(given.groups[name], settings) for name in answer.tensors}
    parts = {name: group.parts for name, group in given.groups.items()}
    steps = ModelSteps(file, grown, lowered, answer, start, values, parts, device=device)
    nodes = {operation: node for operation, node in lowered.made.items() if node in start.values}
    asked = tuple(_asked(answer, start, nodes))
    wanted = dict(expected or {})
    drawn, checks = judged(
        asked, steps.sizes, grown.sizes, margin, seeds, first_seed, nodes, lowered.graph, wanted
    )
    wanted = {
        key: x for key, x in wanted.items() if key not in {(c.name, c.quantity) for c in checks}
    }
    if wanted:
        name, quantity = next(iter(wanted))
        raise InvalidInput(
            f"the expectation {quantity} of '{name}', which is not measured",
            "a quantity of a node or a tensor that is listed",
            f"choose one of {', '.join(sorted({c.name for c in checks})[:12])}",
        )
    seen = {c.name for c in checks}
    unseen = [n.name for n in lowered.graph.walk() if n.name not in {*nodes.values(), *seen}]
    unseen += [f"{name} (own)" for name in steps.unseen]
    return GraphVerification(
        answer, grown, tuple(checks), tuple(unseen), (*lowered.notes, *given.notes), drawn, margin
    )


def judged(
    asked: Sequence[Question], sizes_of: Callable[[int, int], StepSizes], sizes: Sequence[int],
    margin: float, seeds: Sequence[int] | None, first_seed: int, nodes: Mapping[str, str],
    graph: Graph, expected: Mapping[tuple[str, str], Expr],
) -> tuple[int, list[GraphCheck]]:  # fmt: skip
    """How many seeds were drawn, and a check for each question that was seen.

    Args:
        asked: the questions.
        sizes_of: what is found at the k-th size under a seed.
        sizes: of the axis.
        margin: of exponents.
        seeds: as `verify_graph` takes them.
        first_seed: likewise.
        nodes: operation -> node of the graph.
        graph: says where a node stands in the code.
        expected: predictions in the place of those that are asked.
    """
    drawn = list(range(first_seed, first_seed + SEEDS) if seeds is None else seeds)
    most, table = MOST_SEEDS if seeds is None else len(drawn), list[list[StepSizes]]()
    while True:
        for seed in drawn[len(table) :]:
            table.append([sizes_of(k, seed) for k in range(len(sizes))])
        checks = _judged(asked, expected, table, sizes, margin)
        if len(drawn) >= most or not any(map(partial(_noisy, margin), checks)):
            break
        drawn += range(drawn[-1] + 1, drawn[-1] + 1 + len(drawn))
    wheres = {node.name: node.where for node in graph.walk()}
    named = [(c, nodes.get(c.name, c.name)) for c in checks]
    return len(drawn), [replace(c, where=wheres.get(n, ""), node=n) for c, n in named]


Question = tuple[str, str, Expr, bool]
"""A name, a quantity, its predicted exponent, and whether that is a bound."""


def _asked(answer: GraphDerived, start: Passes, nodes: Mapping[str, str]) -> Iterator[Question]:
    """All that theory says of the nodes that PyTorch computes, and of every tensor."""
    given = _reached_by_no_weight(start)
    for operation, node in nodes.items():
        logits = _vanishing_logits(start, node)
        if logits is None:
            yield operation, "init", start.values[node].rms, node in given
        else:
            yield operation, "excess", logits, True
        if node in start.cotangents:
            yield operation, "cotangent", start.cotangents[node].rms, False
    for name, x in answer.tensors.items():
        asked = own_product(x)
        if asked is not None:
            yield (name, "own", *asked)
    for operation, node in nodes.items():
        if node in start.tolerances and start.tolerances[node].coherent.is_finite:
            yield operation, "change", start.tolerances[node].coherent, True


def _reached_by_no_weight(start: Passes) -> set[str]:
    """Nodes that follow from the inputs and the code alone, zeros included, outside of repeats."""
    found: set[str] = set()
    for node in start.graph.nodes:
        drawn = node.op == "parameter" and not start.values[node.name].is_zero
        if not drawn and node.op != "repeat" and all(x in found for x in node.inputs):
            found.add(node.name)
    return found


def own_product(x: TensorAnswer, steps: int = 1) -> tuple[Expr, bool] | None:
    """The exponent of the change of a tensor's own product after some steps; whether it is a bound.

    Readings that may differ: at the start, under the damping of later steps; there again, under
    one that follows its gradient; and, from the second step on, at moved weights. Exponents of
    dampings do not say by how much a damping is felt at the start, where gradients are smaller: an
    eps of 1e-8 is not, a tenth of sqrt(v) is. So the larger reading bounds the product. None
    where a tensor does not move, or c is a symbol.
    """
    if not x.c.is_number:
        return None
    readings = [x.start.moves, x.start.followed]
    if steps > 1:
        readings.append(x.moved.moves)
    known = [moves for moves in readings if moves is not None]
    if not known:
        return None
    return larger(*known) - x.c, any(own != known[0] for own in known)


def _vanishing_logits(start: Passes, node: str) -> Expr | None:
    """The size of the logits of a cross-entropy, if they vanish at large sizes."""
    loss = start.nodes[node]
    if loss.op != "cross_entropy":
        return None
    size = start.values[loss.inputs[0]].size
    return size if size.is_negative else None


def _judged(
    asked: Sequence[Question], expected: Mapping[tuple[str, str], Expr],
    table: Sequence[Sequence[StepSizes]], sizes: Sequence[int], margin: float,
) -> list[GraphCheck]:  # fmt: skip
    """A check for each question of which all sizes and seeds were seen."""
    checks = []
    for name, quantity, predicted, bound in asked:
        rows = np.array([[getattr(x, quantity).get(name, math.nan) for x in row] for row in table])
        if np.isnan(rows).any():
            continue
        predicted = expected.get((name, quantity), predicted)
        fit = estimate(sizes, rows)
        target = -math.inf if predicted is S.NegativeInfinity else float(predicted)
        verdict = at_most(fit, target, margin) if bound else judge(fit, target, margin)
        seen = tuple(tuple(map(float, row)) for row in rows)
        checks.append(GraphCheck(name, quantity, predicted, bound, fit, verdict, sizes=seen))
    return checks


def _noisy(margin: float, check: GraphCheck) -> bool:
    """Whether more seeds could settle what a check leaves open."""
    if check.verdict not in (Verdict.crossover, Verdict.inconclusive):
        return False
    if check.at_most:
        allowed = float(check.predicted) + margin
        return (check.fit.slope <= allowed) == (check.fit.limit <= allowed)
    cure = remedy(check.fit, float(check.predicted), margin)
    return cure is not None and cure.width == check.fit.widths[-1]


def values_of(group: TensorGroup, settings: Settings) -> dict[str, float]:
    """Numbers of the symbols of a group's rule."""
    exponents = {**group.exponents, **settings.exponents}
    known = {k: float(x) for k, x in exponents.items() if x.is_number}
    return {**group.values, **settings.values, **known}


def answer_starts(answer: GraphDerived) -> dict[str, Expr]:
    """The b of every drawn tensor of an answer."""
    return {name: x.b for name, x in answer.tensors.items() if x.b is not S.Infinity}


__all__ = [
    "GraphCheck",
    "GraphVerification",
    "Question",
    "StepSizes",
    "judged",
    "own_product",
    "values_of",
    "verify_graph",
]
