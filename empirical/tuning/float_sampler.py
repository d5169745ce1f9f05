"""Searches of floats as samplers of Optuna: what both of ours share of the interface.

    a trial asks for all floats that the *known* trials share, together     `sample_relative`
    others are drawn at random, and so is everything while none is shared   `sample_independent`
    a place of a float is its logarithm where it has ``log=True``, else itself

https://optuna.readthedocs.io, BaseSampler.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial

Space = dict[str, BaseDistribution]


class FloatSampler(BaseSampler):
    """A search of floats.

    Args:
        seed: of what is drawn.
    """

    def __init__(self, seed: int | None = None) -> None:
        self._draw = np.random.default_rng(seed)
        self._others = RandomSampler(seed=seed)

    @abstractmethod
    def known(self, study: Study) -> Sequence[FrozenTrial]:
        """The trials that the search rests on; none while everything is to be drawn at random."""

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> Space:
        """Floats of more than one value that all known trials have."""
        known = self.known(study)
        return {
            name: own
            for name, own in (known[0].distributions if known else {}).items()
            if isinstance(own, FloatDistribution)
            and own.low < own.high
            and all(name in x.params for x in known)
        }

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:  # fmt: skip
        """At random."""
        return self._others.sample_independent(study, trial, param_name, param_distribution)


def place(own: BaseDistribution, x: float) -> float:
    """The place of a value.

    >>> place(FloatDistribution(1e-4, 1.0, log=True), 1.0)
    0.0
    """
    return float(math.log(x) if _float(own).log else x)


def bounds(own: BaseDistribution) -> tuple[float, float]:
    """The places of the smallest and the largest value."""
    return place(own, _float(own).low), place(own, _float(own).high)


def value(own: BaseDistribution, at: float) -> float:
    """The value at a place, or the nearest one that there is.

    >>> value(FloatDistribution(0.0, 1.0, step=0.25), 0.6)
    0.5
    """
    one = _float(own)
    found = float(np.clip(math.exp(at) if one.log else at, one.low, one.high))
    if one.step is not None:
        found = one.low + one.step * round((found - one.low) / one.step)
    return min(max(found, one.low), one.high)


def _float(own: BaseDistribution) -> FloatDistribution:
    assert isinstance(own, FloatDistribution), "the space holds floats alone"
    return own
