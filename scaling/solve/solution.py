"""The answer of `derive`: the exponents that solve the conditions, and how each was derived."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from scaling.calculus.context import Regime, regimes
from scaling.calculus.output_change import OutputChange
from scaling.sizes.derivation import Step
from scaling.sizes.in_notebook import InNotebook
from scaling.sizes.scale import Bounds
from scaling.solve.decay import Shrinkage, shrinkage
from scaling.states.problem import CONVENTION, Exponents, Problem, rate


@dataclass(frozen=True)
class Derived(InNotebook):
    """The solution of the conditions, with the derivation of each layer."""

    problem: Problem
    exponents: Exponents
    free: tuple[str, ...]
    assumptions: tuple[str, ...]
    steps: Mapping[str, Step]
    updates: Mapping[str, OutputChange]
    bounds: Bounds
    convention: str = CONVENTION

    @property
    def regimes(self) -> dict[str, tuple[Regime, ...]]:
        """The decisions of the reading of the rule in each layer."""
        return {name: regimes(update.step) for name, update in self.updates.items()}

    @property
    def shrinkages(self) -> list[Shrinkage]:
        """The part of the weights that a step takes away, layer by layer where it does."""
        x = self.exponents.c
        found = (shrinkage(k, u, rate(x[k]), self.bounds) for k, u in self.updates.items())
        return [one for one in found if one is not None]
