"""Terms that dominate in an answer for a graph, and assumptions of its derivation.

The twin of alternatives.py, tensor by tensor. Tensors of one regime share a line.

>>> from scaling.models.architectures import perceptron
>>> from scaling.solve.graph_solution import derive_graph
>>> answer = derive_graph("G/(1 + norm(W))", perceptron(3))
>>> next(iter(unbalanced(answer).items()))
('1 ~ 1, norm(W) ~ M^(1/2): norm(W) dominates', ['input', 'hidden'])
>>> [x.layer for x in decisive_in_graph(answer)]
['input', 'hidden', 'output']
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from sympy import Symbol, expand

from scaling.calculus.context import Regime
from scaling.models.recipe import TensorGroup
from scaling.models.settings import Settings
from scaling.rules.rewrites import substitute
from scaling.rules.rule import Rule
from scaling.rules.tree import Node
from scaling.sizes.errors import ScalingError
from scaling.sizes.scale import Bounds, Order, Scale, Size
from scaling.solve.alternatives import DecisiveRegime, alternative
from scaling.solve.crossing_widths import Crossover, ReadLayer, crossovers_of
from scaling.solve.decay import Shrinkage, shrinkage
from scaling.solve.graph_solution import GraphDerived, TensorAnswer, derive_graph
from scaling.states.problem import rate


def unbalanced(answer: GraphDerived) -> dict[str, list[str]]:
    """Sums that are not balanced, and decays that are not -> the tensors in which they are not."""
    where: dict[str, list[str]] = {}
    for name, regimes in answer.regimes.items():
        for one in (*regimes, _lost(answer.tensors[name])):
            if one is not None and one.order is not Order.EQUAL:
                where.setdefault(str(one), []).append(name)
    return where


def crossovers_in_graph(answer: GraphDerived) -> tuple[Crossover, ...]:
    """The crossovers that numbers which are given bring within reach, tensor by tensor.

    >>> from scaling.models.architectures import perceptron
    >>> from scaling.models.settings import Settings
    >>> from scaling.solve.graph_solution import derive_graph
    >>> given = Settings(values={"eps": 1e-8})
    >>> answer = derive_graph("G/(abs(G) + eps)", perceptron(2), given)
    >>> [(x.layer, f"{x.falling} < {x.rising}", x.width) for x in crossovers_in_graph(answer)]
    [('input', 'abs(G) < eps', 100000000.0)]
    """
    told: dict[Crossover, None] = {}
    for name, regimes in answer.regimes.items():
        x, layer = answer.tensors[name], answer.tensors[name].start.layer
        read = ReadLayer(x.rule, layer, x.b, x.d, x.values, axis=answer.graph.axis)
        told |= dict.fromkeys(crossovers_of(read, regimes))
    return tuple(told)


def decisive_in_graph(
    answer: GraphDerived, settings: Settings | None = None
) -> tuple[DecisiveRegime, ...]:
    """The regimes that exponents depend on, tensor by tensor; ``settings`` as they were given."""
    others: dict[tuple[Node, Node], GraphDerived | None] = {}
    kept: dict[DecisiveRegime, None] = {}
    for name, regime in _open_regimes(answer):
        instead, text = alternative(regime)
        place = regime.node, instead
        if place not in others:
            others[place] = _with(answer, settings, *place)
        otherwise = _difference(answer.tensors[name], others[place], text)
        if otherwise:
            kept.setdefault(DecisiveRegime(name, regime, otherwise))
    return tuple(kept)


def _open_regimes(answer: GraphDerived) -> Iterator[tuple[str, Regime]]:
    for name, regimes in answer.regimes.items():
        for regime in regimes:
            if regime.order in (Order.LESS, Order.GREATER):
                yield name, regime


def _lost(x: TensorAnswer) -> Shrinkage | None:
    """The part of a tensor that a step takes away, at the decays of the answer."""
    update = x.moved.update or x.start.update
    if update is None or update.multiple.is_zero:
        return None
    decays = {Symbol(f"d_{k}_{x.name}"): d for k, d in x.d.items()}
    multiple = Scale.of_width(expand(update.multiple.width.subs(decays)), Size.SCALAR)
    return shrinkage(x.name, replace(update, multiple=multiple), rate(x.c), Bounds())


def _with(
    answer: GraphDerived, settings: Settings | None, node: Node, instead: Node
) -> GraphDerived | None:
    def other(group: TensorGroup) -> TensorGroup:
        rule = group.rule
        if rule is None:
            return group
        return replace(group, rule=Rule(substitute(rule.expression, {node: instead}), rule.name))

    kinds = {name: x.kind for name, x in answer.tensors.items()}
    try:
        return derive_graph(answer.recipe.mapped(other), answer.graph, settings, kinds=kinds)
    except ScalingError:
        return None


def _difference(x: TensorAnswer, other: GraphDerived | None, text: str) -> str:
    if other is None:
        return f"{text} it is not covered"
    y = other.tensors[x.name]
    if x.c != y.c:
        return f"{text} c = {y.c}, not {x.c}"
    found: Mapping[str, object] = x.d
    for name in found.keys() & y.d.keys():
        if x.d[name] != y.d[name]:
            return f"{text} d_{name} = {y.d[name]}, not {x.d[name]}"
    return ""
