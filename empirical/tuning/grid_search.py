"""Grid search: the same number of values on every axis, both ends included.

    values an axis = floor(runs^(1/axes)); one value alone is the middle

Optuna's GridSampler takes the points of the grid in random order, so that a budget that ends early
leaves no corner out. The reference at the target is such a grid, too (search_space.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from optuna.samplers import GridSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from empirical.tuning.optuna_studies import searched
from empirical.tuning.search_space import axes_of
from empirical.tuning.tuning_strategy import Tuning, TuningStrategy, TuningTask


class AskedGridSampler(GridSampler):
    """Optuna's grid, for studies that are asked and told: who asks knows when it is done."""

    def after_trial(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Nothing is stopped."""


def _tune(task: TuningTask) -> Tuning:
    axes = axes_of(task.space, task.budget // task.steps)
    points = int(np.prod([len(x) for x in axes.values()]))
    return searched(task, AskedGridSampler(axes, seed=task.seed), points)


STRATEGIES = {"grid": TuningStrategy("grid", "a grid of powers", _tune)}
