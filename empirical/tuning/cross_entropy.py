"""Cross-entropy: a normal law over log numbers moves to the best of what it drew.

    draw N points of N(mu, sigma^2) in each number's logarithm
    elite = the best ceil(rho N); mu_e, sigma_e: their mean and standard deviation
    mu    <- a mu_e + (1 - a) mu
    sigma <- b_t sigma_e + (1 - b_t) sigma,      b_t = b - b (1 - 1/t)^q

Source: arXiv 2409.09240 names the method; the formulas are those of Rubinstein and Kroese, "The
Cross-Entropy Method" (2004), with their dynamic smoothing b_t. rho = 0.2 for N <= 50, a = 0.7, b =
0.8 and q = 5 stand in the ranges that they give. Ours: the first law has the middle of the space as
mu and a quarter of its width as sigma; draws are cut off at the bounds; N is a fifth of the runs
that the budget allows, 4 at the least, unless it is given.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from empirical.tuning.float_sampler import FloatSampler, Space, bounds, place, value
from empirical.tuning.optuna_studies import searched
from empirical.tuning.tuning_strategy import Tuning, TuningStrategy, TuningTask

RHO, A, B, Q = 0.2, 0.7, 0.8, 5.0


class CrossEntropySampler(FloatSampler):
    """Cross-entropy for floats that every trial has; others are drawn at random.

    The law is worked out anew from the finished trials, so that a study may be taken up later.
    Floats with ``log=True`` are drawn in their logarithm.

    >>> import optuna
    >>> optuna.logging.set_verbosity(optuna.logging.WARNING)
    >>> study = optuna.create_study(sampler=CrossEntropySampler(population=10, seed=0))
    >>> study.optimize(lambda trial: (trial.suggest_float("x", -8, 8) - 3) ** 2, n_trials=100)
    >>> abs(study.best_params["x"] - 3) < 0.3
    True
    """

    def __init__(
        self, population: int = 10, rho: float = RHO, a: float = A, b: float = B, q: float = Q,
        seed: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__(seed)
        self.population, self.rho, self.a, self.b, self.q = population, rho, a, b, q

    def known(self, study: Study) -> Sequence[FrozenTrial]:
        """Those that are finished."""
        states = [TrialState.COMPLETE, TrialState.PRUNED]
        return study.get_trials(deepcopy=False, states=states)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: Space
    ) -> dict[str, Any]:
        """A draw of the law of this generation."""
        if not search_space:
            return {}
        mean, deviation = self.law(study, search_space)
        drawn = self._draw.normal(mean, deviation)
        return {
            name: value(own, x) for (name, own), x in zip(search_space.items(), drawn, strict=True)
        }

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:  # fmt: skip
        """Floats of the first trial, of the first law; others at random."""
        if isinstance(param_distribution, FloatDistribution):
            only: Space = {param_name: param_distribution}
            return self.sample_relative(study, trial, only)[param_name]
        return super().sample_independent(study, trial, param_name, param_distribution)

    def law(self, study: Study, space: Space) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation after the generations that are whole."""
        low, high = np.array([bounds(own) for own in space.values()]).T
        mean, deviation = (low + high) / 2, (high - low) / 4
        done = [
            trial
            for trial in study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
            if set(space) <= set(trial.params)
        ]
        sign = -1.0 if study.direction is StudyDirection.MAXIMIZE else 1.0
        for t in range(1, len(done) // self.population + 1):
            several = done[(t - 1) * self.population : t * self.population]
            several.sort(key=lambda trial: sign * float(trial.value or 0.0))
            elite = several[: math.ceil(self.rho * self.population)]
            places = np.array(
                [[place(own, x.params[n]) for n, own in space.items()] for x in elite]
            )
            smooth = smoothing(t, self.b, self.q)
            mean = self.a * places.mean(axis=0) + (1 - self.a) * mean
            deviation = smooth * places.std(axis=0) + (1 - smooth) * deviation
        return mean, deviation


def smoothing(t: int, b: float = B, q: float = Q) -> float:
    """b_t, of generation t = 1, 2, ...

    >>> smoothing(1), round(smoothing(2), 4)
    (0.8, 0.775)
    """
    return float(b - b * (1 - 1 / t) ** q)


def _tune(task: TuningTask) -> Tuning:
    population = max(4, task.budget // task.steps // 5)
    return searched(task, CrossEntropySampler(population, seed=task.seed))


STRATEGIES = {
    "cross-entropy": TuningStrategy("cross-entropy", "arXiv 2409.09240", _tune),
}
