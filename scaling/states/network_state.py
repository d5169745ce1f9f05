"""A network at one moment: the sizes in all its layers, and what a change of its features becomes.

The start (start.py), the network after one step (second_step.py) and at moved weights (ascent.py)
are made there; what reads a rule, solves for exponents or predicts takes any of them.

    contexts    every layer as a rule sees it, for dampings, decays and radii M^(-d)
    updates     what a step by the rule does in every layer, per learning rate
    carry       what W_l makes of a change dh_(l-1), by its two parts
    followed    an update by what follows W^T delta, and adds up above, and what does not
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from sympy import Expr, S, Symbol

from scaling.calculus.context import Context
from scaling.calculus.output_change import OutputChange
from scaling.calculus.read import read_update
from scaling.calculus.readback import through
from scaling.models.chain import Layer, Loss
from scaling.models.layer_sizes import LayerSizes
from scaling.rules.tree import Node
from scaling.sizes.errors import NotCovered
from scaling.sizes.scale import Bounds, Order, Scale
from scaling.states.data_numbers import with_numbers
from scaling.states.problem import Problem

Dampings = Mapping[str, Mapping[str, Expr]]
"""By layer, the exponent d of every damping, decay and radius."""


@dataclass(frozen=True, kw_only=True)
class NetworkState:
    """The network of a problem at one moment.

    ``a``, ``b``: exponents of multipliers and initial weights, by layer name. ``bounds``: what is
    known of the symbols in them. ``sizes``: by layer name. ``features[l]`` is |h_l|, with the
    output f as the last. ``ascended``: X -> sizes of all layers at W + X; see ascent.py.
    """

    problem: Problem
    a: Mapping[str, Expr]
    b: Mapping[str, Expr]
    bounds: Bounds
    sizes: Mapping[str, LayerSizes]
    features: tuple[Scale, ...]
    ascended: Mapping[Node, Mapping[str, LayerSizes]] = field(default_factory=dict)

    def context(
        self, layer: Layer, scaled: Mapping[str, Expr], unknown: Iterable[Symbol] = ()
    ) -> Context:
        """One layer as the rule sees it, without the others beside it.

        Args:
            layer: which one.
            scaled: exponent d of each damping, decay and radius.
            unknown: symbols among them that are to be solved for.
        """
        problem, setting = self.problem, self.problem.setting
        grows = self.bounds.order(self.features[-1].width, S.Zero) is Order.GREATER
        if problem.sampled_fisher and grows and setting.loss is Loss.MSE:
            raise NotCovered(
                "sampled cotangents under an output that grows: they do not grow with it",
                "an output of order one, or the loss's own cotangents",
                "raise b_output, or use --fisher empirical",
            )
        return Context(
            self.sizes[layer.name],
            scaled,
            problem.settings.exponents,
            self.bounds,
            frozenset(unknown),
            problem.sampled_fisher,
            setting.activation,
            setting.alignments.get(layer.name),
            ascended={node: sizes[layer.name] for node, sizes in self.ascended.items()},
            data=setting.spans(layer, self.features[-1]),
            averages=frozenset(problem.rule.averages),
            batch_grows=setting.batch.grows,
            samples=setting.batch.size,
            mean=setting.batch.mean,
            rounding_noise=problem.rounding_noise,
        )

    def contexts(self, scaled: Dampings) -> dict[str, Context]:
        """The contexts of all layers, each with the others beside it for sums over layers."""
        network: dict[str, Context] = {}
        for layer in self.problem.setting.layers:
            context = self.context(layer, scaled[layer.name])
            network[layer.name] = replace(context, network=network)
        return network

    def updates(self, scaled: Dampings, node: Node | None = None) -> dict[str, OutputChange]:
        """The change of each layer in a step by the rule, or by another tree, per learning rate."""
        tree = self.problem.rule.expression if node is None else node
        setting, output = self.problem.setting, self.features[-1]
        return {
            name: with_numbers(setting, output, x, tree, read_update(x, tree))
            for name, x in self.contexts(scaled).items()
        }

    def followed(self, layer: Layer, update: OutputChange) -> OutputChange:
        """An update of a layer, told apart by what of it follows W^T delta: at first all of it."""
        return update

    def carry(self, position: int, coherent: Scale, random: Scale) -> tuple[Scale, Scale]:
        """W_l dh_(l-1), for the parts of dh along the gradient and in random directions."""
        return through(self.problem.setting, position, coherent, random, self.a, self.b)

    def weights(self, name: str) -> Scale:
        """The entry of a layer's weights."""
        return self.sizes[name].w
