"""A rule on a network, as a question that can be asked again with other exponents given.

    OnChain    a rule on the chain of dense layers      `derive`
    OnGraph    a recipe on a user's model               `derive_graph`

Both answer with exponents by the name of a layer or a tensor; inverse.py solves for what they are
asked with.

>>> from scaling.models.architectures import perceptron
>>> from scaling.models.recipe import as_recipe
>>> graph = OnGraph(as_recipe("G @ (A + rho*I)**(-e)"), perceptron(3))
>>> [layer.name for layer in graph.layers], graph.exponents(graph.derived(Settings())).c["output"]
(['input', 'hidden', 'output'], 1 - e)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from sympy import Expr, S, Symbol

from scaling.models.chain import Layer
from scaling.models.graph import Graph
from scaling.models.recipe import Recipe, TensorKind
from scaling.models.settings import HasSymbols, Settings
from scaling.solve.derive import Derived, derive
from scaling.solve.graph_solution import GraphDerived, derive_graph
from scaling.states.problem import Exponents, Problem

Names = Mapping[Symbol, Symbol]


class AskedNetwork(Protocol):
    """A question without its unknowns: what trains, on which layers, with what given."""

    @property
    def rule(self) -> HasSymbols:
        """The names of hyper-parameters."""

    @property
    def layers(self) -> Sequence[Layer]:
        """Layers, or tensors that are trained."""

    @property
    def settings(self) -> Settings:
        """The exponents that are held fixed."""

    def derived(self, settings: Settings) -> Any:
        """The answer under other settings."""

    def exponents(self, answer: Any) -> Exponents:
        """Its exponents, by layer."""

    def renamed(self, answer: Any, names: Names) -> Any:
        """The answer with other symbols in its exponents."""


@dataclass(frozen=True)
class OnChain:
    """A rule on the chain of dense layers."""

    problem: Problem

    @property
    def rule(self) -> HasSymbols:
        """The rule."""
        return self.problem.rule

    @property
    def layers(self) -> Sequence[Layer]:
        """Of the chain."""
        return self.problem.setting.layers

    @property
    def settings(self) -> Settings:
        """Those of the problem."""
        return self.problem.settings

    def derived(self, settings: Settings) -> Derived:
        """`derive`."""
        p = self.problem
        return derive(
            p.rule, settings, p.setting, sampled_fisher=p.sampled_fisher, step=p.step,
            rounding_noise=p.rounding_noise,
        )  # fmt: skip

    def exponents(self, answer: Derived) -> Exponents:
        """As they are."""
        return answer.exponents

    def renamed(self, answer: Derived, names: Names) -> Derived:
        """Other symbols in the table."""
        x, put = answer.exponents, _putting(names)
        d = {name: put(values) for name, values in x.d.items()}
        return replace(answer, exponents=Exponents(put(x.a), put(x.b), put(x.c), d))


@dataclass(frozen=True)
class OnGraph:
    """A recipe on the graph of a model.

    Args:
        recipe: what trains what.
        graph: the model.
        settings: exponents held fixed, by the name of a tensor.
        kinds: of the tensors along the width, for a graph along another axis.
        notes: what was read into the code, and what a probed rule rests on.
    """

    recipe: Recipe
    graph: Graph
    settings: Settings = field(default_factory=Settings)
    kinds: Mapping[str, TensorKind] | None = None
    notes: tuple[str, ...] = ()

    @property
    def rule(self) -> HasSymbols:
        """The recipe."""
        return self.recipe

    @property
    def layers(self) -> Sequence[Layer]:
        """The tensors that are trained, within repeated blocks as well."""
        return trained_layers(self.graph)

    def derived(self, settings: Settings) -> GraphDerived:
        """`derive_graph`."""
        found = derive_graph(self.recipe, self.graph, settings, kinds=self.kinds)
        return found.assuming(self.notes)

    def exponents(self, answer: GraphDerived) -> Exponents:
        """By tensor; a multiplier is what is given, else one."""
        tensors = answer.tensors
        return Exponents(
            {name: self.settings.a.get(name, S.Zero) for name in tensors},
            {name: x.b for name, x in tensors.items()},
            {name: x.c for name, x in tensors.items()},
            {name: x.d for name, x in tensors.items()},
        )

    def renamed(self, answer: GraphDerived, names: Names) -> GraphDerived:
        """Other symbols in the answers of the tensors."""
        put = _putting(names)
        tensors = {
            name: replace(x, b=x.b.xreplace(names), c=x.c.xreplace(names), d=put(x.d))
            for name, x in answer.tensors.items()
        }
        return replace(answer, tensors=tensors)


def _putting(names: Names) -> Callable[[Mapping[str, Expr]], dict[str, Expr]]:
    return lambda values: {key: x.xreplace(names) for key, x in values.items()}


def trained_layers(graph: Graph) -> list[Layer]:
    """The tensors of a graph that are trained, as settings name them; of repeated blocks as well.

    >>> from scaling.models.architectures import perceptron
    >>> [layer.name for layer in trained_layers(perceptron(3))]
    ['input', 'hidden', 'output']
    """
    bodies = [x.get("repeat").body for x in graph.walk() if x.op == "repeat"]
    every = [p for one in (graph, *bodies) for p in one.parameters if p.trained]
    return [Layer(name, 1, S.One, S.One) for name in dict.fromkeys(p.name for p in every)]
