"""Optuna runs the studies: samplers propose points, pruners stop runs.

    sampler    any optuna.samplers.BaseSampler; ours are ordinary ones
    value      log of the loss, at most that before training: of a run that diverged, it

https://optuna.readthedocs.io: studies are asked and told, so that runs are made elsewhere.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import Trial

from empirical.tuning.search_space import SearchSpace
from empirical.tuning.tuning_run import TunedPoint
from empirical.tuning.tuning_strategy import Tuning, TuningTask

optuna.logging.set_verbosity(optuna.logging.WARNING)


def study_of(sampler: BaseSampler, directions: int = 1, **options: object) -> Study:
    """A study in memory: what is kept of it are the runs, in the store."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.create_study(
            sampler=sampler, directions=["minimize"] * directions,
            **options,  # type: ignore[arg-type]
        )  # fmt: skip


def distributions(space: SearchSpace) -> dict[str, BaseDistribution]:
    """The space, in doublings."""
    rows = zip(space.names, space.low, space.high, strict=True)
    return {name: FloatDistribution(low, high) for name, low, high in rows}


def asked(study: Study, space: SearchSpace) -> tuple[Trial, dict[str, float]]:
    """A trial and its point."""
    trial = study.ask(distributions(space))
    return trial, {name: float(trial.params[name]) for name in space.names}


def searched(task: TuningTask, sampler: BaseSampler, most: int = 2**31) -> Tuning:
    """Whole runs at the points of a sampler, for as long as the budget lasts; ``most``: of them."""
    study = study_of(sampler)
    while task.affords(task.steps) and len(study.trials) < most:
        trial, point = asked(study, task.space)
        outcome = yield task.run(point)
        study.tell(trial, outcome.value)
        task.offer(point, outcome.value)
    return task.best


def in_rungs(
    task: TuningTask, study: Study, ends: Sequence[int],
    point_of: Callable[[dict[str, float]], TunedPoint] = TunedPoint,
) -> Tuning:  # fmt: skip
    """Runs that go on from rung to rung, until the study's pruner stops them.

    Args:
        task: what is tuned.
        study: proposes numbers; its pruner sees the value at the end of each rung.
        ends: the steps at which rungs end; the last is a whole run.
        point_of: the point that numbers stand for.
    """
    while task.affords(ends[0]):
        trial, numbers = asked(study, task.space)
        point, value, begun = point_of(numbers), 0.0, 0
        for end in ends:
            if not task.affords(end - begun):
                break
            outcome = yield task.run(point, end, task.steps, paid=begun)
            value, begun = outcome.value, end
            trial.report(value, end)
            if end == task.steps:
                task.offer(point, value)
            elif outcome.diverged or trial.should_prune():
                break
        study.tell(trial, value)
    return task.best
