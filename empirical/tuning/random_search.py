"""Random search: every number is drawn evenly in its logarithm.

Source: Bergstra and Bengio, "Random Search for Hyper-Parameter Optimization" (JMLR 2012). Drawn by
Optuna's RandomSampler.
"""

from __future__ import annotations

from optuna.samplers import RandomSampler

from empirical.tuning.optuna_studies import searched
from empirical.tuning.tuning_strategy import Tuning, TuningStrategy, TuningTask


def _tune(task: TuningTask) -> Tuning:
    return searched(task, RandomSampler(seed=task.seed))


STRATEGIES = {"random": TuningStrategy("random", "JMLR 13 (2012) 281", _tune)}
