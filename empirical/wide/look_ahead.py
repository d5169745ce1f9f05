"""A look at moved weights, at any width: W + X in every layer, a forward and a backward pass.

    X from D H^T of all layers     H', D' at W + X     then on at W, where ascended(X) = D' H'^T / n

Claim.  A perturbation is a step that nobody goes on from. A network at some time is a value, and a
weight that never exists (implicit.py) remembers what it was asked: products with W_0 that the look
asked for are as good as any others, and what is asked at W afterwards is answered in the law that
they leave. So nothing is taken back, and a rule with ascended(X) has exactly the law that it has on
a dense network, where weights are moved and put back (empirical/numbers/moved_gradient.py).

X is a rule of its own (ascents.py), made by Gram matrices or by rows. A look costs what a step
costs.

Not covered: X that no way makes, as radius*W alone; those are refused by method.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

from empirical.wide.method import way_of
from empirical.wide.rows import RowLearner, learner
from empirical.wide.span_update import (
    ALONE,
    LayerBatch,
    Learner,
    MovedFactors,
    NetworkValues,
    Source,
    sums_over_layers,
)
from empirical.wide.weight import Change
from scaling.rules.ascents import perturbations
from scaling.rules.language import Call
from scaling.rules.rule import Rule

Moves: TypeAlias = Mapping[str, Change]
"""Layer -> X."""


@dataclass(frozen=True)
class Ascents:
    """The perturbations of a rule, by ascended(X): a learner of X for every layer."""

    learners: Mapping[Call, Mapping[str, Learner | RowLearner]]

    @classmethod
    def of(cls, rule: Rule, source: Callable[[Rule], Mapping[str, Source]]) -> Ascents:
        """Those of a rule; ``source`` makes a rule's source on every layer."""
        found = {}
        for call, move in perturbations(rule).items():
            way = way_of(move)
            found[call] = {name: learner(x, way) for name, x in source(move).items()}
        return cls(found)

    def looked(
        self, seen: Mapping[str, LayerBatch], look: Callable[[Moves], Mapping[str, MovedFactors]]
    ) -> tuple[dict[str, NetworkValues], Moves]:
        """Every layer at moved weights, and the last X of each layer.

        Args:
            seen: what every layer sees at W.
            look: a forward and a backward pass at W + X: D' and H' of every layer.
        """
        told, moves = dict.fromkeys(seen, ALONE), dict[str, Change]()
        for call, learners in self.learners.items():
            joint = sums_over_layers({name: x.source for name, x in learners.items()}, seen)
            moves = {name: x.update(*seen[name], joint[name]) for name, x in learners.items()}
            for name, found in look(moves).items():
                before = told[name]
                sizes = {**before.sizes, **moves[name].sizes}
                told[name] = replace(
                    before, sizes=sizes, moved_factors={**before.moved_factors, call: found}
                )
        return told, moves
