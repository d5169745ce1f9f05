"""TPE: tree-structured Parzen estimators, by Optuna.

Source: Bergstra et al., "Algorithms for Hyper-Parameter Optimization" (NIPS 2011): a density of the
good points and one of the others; the next point has the largest ratio. Optuna's TPESampler with
its defaults, and with as many random points at the start as a quarter of the budget, at most 10.
"""

from __future__ import annotations

from optuna.samplers import TPESampler

from empirical.tuning.optuna_studies import searched
from empirical.tuning.tuning_strategy import Tuning, TuningStrategy, TuningTask


def _tune(task: TuningTask) -> Tuning:
    first = max(1, min(10, task.budget // task.steps // 4))
    return searched(task, TPESampler(seed=task.seed, n_startup_trials=first))


STRATEGIES = {"tpe": TuningStrategy("tpe", "NIPS 2011", _tune)}
