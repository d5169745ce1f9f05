"""MORL: successive halving, in which the rate is annealed at every rung and restarted at the next.

    rung k ends at step r_0 eta^k; within it lr(t) = lr0 (1 + cos(pi t/T_k))/2, T_k its length
    at the end of a rung the best 1/eta of the runs that got there go on

Source: arXiv 2209.12499 (its abstract; the formula of the rate is a secondary source's): runs are
judged where their rates are annealed, so a large rate is not put off by the noise that it would
lose at the end. Halving is Optuna's, asynchronous (Li et al., arXiv 1810.05934), so that runs come
one by one. eta = 3. Ours: three rungs; the answer is trained at the target under the same rungs.
"""

from __future__ import annotations

from functools import partial

from optuna.pruners import SuccessiveHalvingPruner
from optuna.samplers import RandomSampler

from empirical.tuning.optuna_studies import in_rungs, study_of
from empirical.tuning.rate_schedules import multiplier, recurring
from empirical.tuning.tuning_run import TunedPoint
from empirical.tuning.tuning_strategy import Tuning, TuningStrategy, TuningTask

ETA, RUNGS = 3, 3


class RecurringRatePruner(SuccessiveHalvingPruner):
    """Optuna's successive halving, with the rate that goes with its rungs.

    Report at ``pruner.ends``, and train at ``pruner.multiplier(step)`` times the trial's rate.

    >>> pruner = RecurringRatePruner(steps=90)
    >>> pruner.ends, [round(pruner.multiplier(t), 2) for t in (0, 5, 9, 10, 29, 30)]
    ((10, 30, 90), [1.0, 0.5, 0.02, 1.0, 0.01, 1.0])
    """

    def __init__(self, steps: int, eta: int = ETA, rungs: int = RUNGS) -> None:
        while rungs > 1 and steps < eta ** (rungs - 1):
            rungs -= 1
        first = steps // eta ** (rungs - 1)
        super().__init__(min_resource=first, reduction_factor=eta)
        self.steps = steps
        self.ends = (*(first * eta**k for k in range(rungs - 1)), steps)
        self.schedule = recurring(self.ends)

    def multiplier(self, step: int) -> float:
        """Of the rate, at step 0, 1, ..."""
        return multiplier(self.schedule, step, self.steps)


def _tune(task: TuningTask) -> Tuning:
    pruner = RecurringRatePruner(task.steps)
    study = study_of(RandomSampler(seed=task.seed), pruner=pruner)
    point_of = partial(TunedPoint, schedule=pruner.schedule)
    return in_rungs(task, study, pruner.ends, point_of)


STRATEGIES = {"morl": TuningStrategy("morl", "arXiv 2209.12499", _tune)}
