"""A rule under exponents, beside all that is known of both: the subject of a measurement."""

from __future__ import annotations

from dataclasses import dataclass, replace

from derivations.declaration import Optimizer
from empirical.data.sources import Data
from scaling.sizes.scale import Bounds
from scaling.states.problem import Exponents, Problem


@dataclass(frozen=True)
class Subject:
    """A rule in its setting, the exponents that it is measured under, and where it comes from.

    ``bounds`` is what is known of the symbols of the exponents, ``declared`` has the numbers that
    practice gives to the symbols of the rule.
    """

    problem: Problem
    exponents: Exponents
    bounds: Bounds
    declared: Optimizer

    def on(self, data: Data) -> Subject:
        """The same on these data, whose numbers decide which directions there are."""
        setting = self.problem.setting
        batch = replace(data.numbers, growth=setting.batch.growth)
        return replace(self, problem=replace(self.problem, setting=replace(setting, batch=batch)))

    @property
    def name(self) -> str:
        """The name of the rule, or its text where it has none."""
        rule = self.problem.rule
        return rule.name or str(rule)
