"""Multi-objective search over trajectories: loss against cost, with the epoch as a decision.

    a GP over (x, t)         the log loss of point x after the share t of a run
    cost of (x, t)           t itself
    acquisition of x         E of the hypervolume that the whole trajectory (x, t_1), .., (x, t_K)
                             adds to the front of (cost, loss), by joint samples of the GP
    stop after t_k           if mean - deviation of what remains adds nothing

Source: arXiv 2405.15303 [its abstract: a GP per objective over (x, t), the gain of hypervolume by a
whole trajectory, early stopping, some points of a trajectory alone enter the GP]. Ours: K = 4; the
kernel is Matern 5/2, a quarter of the space long in x and half of a run in t, plus noise, of values
of variance one, by scikit-learn (BoTorch would add gpytorch for one GP of some dozens of points);
the first four trials are random and whole; 48 candidates, 16 samples; of a trajectory the first,
the middle and the last point enter the GP; the reference is the worst loss seen and a cost of 1.1.
The answer is the point of the front with the lowest loss after a whole run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.pruners import BasePruner
from optuna.study import Study
from optuna.trial import FrozenTrial
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Matern, WhiteKernel

from empirical.tuning.float_sampler import FloatSampler, Space, bounds, place, value
from empirical.tuning.hypervolume import Pair, front, hypervolume
from empirical.tuning.optuna_studies import in_rungs, study_of
from empirical.tuning.tuning_strategy import Tuning, TuningStrategy, TuningTask

EPOCHS, RANDOM, CANDIDATES, SAMPLES, MARGIN = 4, 4, 48, 16, 1.1
LENGTH, NOISE = 0.25, 1e-2
Floats = NDArray[np.float64]


class TrajectoryModel:
    """A GP of the loss over (x, t), from the intermediate values of a study's trials.

    Args:
        study: whose trials report their loss at steps.
        space: floats.
        steps: of a whole run.
    """

    def __init__(self, study: Study, space: Space, steps: int) -> None:
        self.space, self.steps = space, steps
        rows, values = [], []
        self.seen: list[Pair] = []
        for trial in study.get_trials(deepcopy=False):
            reported = sorted(trial.intermediate_values.items())
            self.seen += [(step / steps, value) for step, value in reported]
            if not set(space) <= set(trial.params):
                continue
            for k in sorted({0, len(reported) // 2, len(reported) - 1}) if reported else []:
                rows.append([*self.places(trial.params), reported[k][0] / steps])
                values.append(reported[k][1])
        self.reference = (MARGIN, max((y for _, y in self.seen), default=0.0) + 1e-9)
        self.seen = front(self.seen)
        self._mean = float(np.mean(values)) if values else 0.0
        self._scale = (float(np.std(values)) if values else 0.0) or 1.0
        lengths = [LENGTH] * len(space) + [2 * LENGTH]
        kernel = Matern(lengths, nu=2.5) + WhiteKernel(NOISE)
        self.process = GaussianProcessRegressor(kernel, optimizer=None)
        if rows:
            self.process.fit(np.array(rows), (np.array(values) - self._mean) / self._scale)

    def places(self, params: dict[str, Any]) -> list[float]:
        """A point in the unit cube."""
        found = []
        for name, own in self.space.items():
            low, high = bounds(own)
            found.append((place(own, params[name]) - low) / (high - low))
        return found

    def moments(self, at: list[float], shares: Floats) -> tuple[Floats, Floats]:
        """Mean and standard deviation along a trajectory."""
        mean, deviation = self.process.predict(self._rows([at], shares), return_std=True)
        return mean * self._scale + self._mean, deviation * self._scale

    def sampled(self, places: list[list[float]], shares: Floats, seed: int) -> Floats:
        """Joint samples (samples, places, shares)."""
        rows = self._rows(places, shares)
        drawn = self.process.sample_y(rows, SAMPLES, random_state=seed).T
        shape = SAMPLES, len(places), len(shares)
        return np.asarray(drawn.reshape(shape) * self._scale + self._mean, float)

    def gain(self, shares: Floats, losses: Floats) -> float:
        """The hypervolume that a trajectory adds."""
        new = list(zip(map(float, shares), map(float, losses), strict=True))
        return hypervolume([*self.seen, *new], self.reference) - hypervolume(
            self.seen, self.reference
        )

    def _rows(self, places: list[list[float]], shares: Floats) -> Floats:
        return np.array([[*place, share] for place in places for share in shares])


class TrajectoryParetoSampler(FloatSampler):
    """Proposes the point with the largest expected gain of hypervolume by its trajectory.

    Objectives report the value to be minimised at their steps; the cost is the step.

    Args:
        steps: of a whole run.
        seed: of what is drawn.
    """

    def __init__(self, steps: int, seed: int | None = None) -> None:
        super().__init__(seed)
        self.steps = steps

    def known(self, study: Study) -> Sequence[FrozenTrial]:
        """Those that have reported a value, once there are enough."""
        done = [x for x in study.get_trials(deepcopy=False) if x.intermediate_values]
        return done if len(done) >= RANDOM else []

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: Space
    ) -> dict[str, Any]:
        """The best of some candidates."""
        if not search_space:
            return {}
        model = TrajectoryModel(study, search_space, self.steps)
        shares = np.linspace(0, 1, EPOCHS + 1)[1:]
        places = self._draw.uniform(size=(CANDIDATES, len(search_space))).tolist()
        drawn = model.sampled(places, shares, int(self._draw.integers(2**31)))
        gains = [
            float(np.mean([model.gain(shares, drawn[s, k]) for s in range(SAMPLES)]))
            for k in range(CANDIDATES)
        ]
        best = places[int(np.argmax(gains))]
        return {
            name: _at_share(own, share)
            for (name, own), share in zip(search_space.items(), best, strict=True)
        }


class TrajectoryParetoPruner(BasePruner):
    """Stops a trial whose remaining trajectory, seen with hope, adds no hypervolume.

    Args:
        steps: of a whole run.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether to stop it."""
        step = trial.last_step
        others = [x for x in study.get_trials(deepcopy=False) if x.intermediate_values]
        if step is None or step >= self.steps or len(others) <= RANDOM:
            return False
        space = {n: x for n, x in trial.distributions.items() if isinstance(x, FloatDistribution)}
        model = TrajectoryModel(study, dict(space), self.steps)
        shares = np.linspace(0, 1, EPOCHS + 1)[1:]
        left = shares[shares > step / self.steps]
        mean, deviation = model.moments(model.places(trial.params), left)
        return bool(model.gain(left, mean - deviation) <= 0)


def _at_share(own: BaseDistribution, share: float) -> float:
    low, high = bounds(own)
    return value(own, low + (high - low) * share)


def ends_of(steps: int) -> list[int]:
    """The steps at which epochs end.

    >>> ends_of(10), ends_of(2)
    ([2, 5, 8, 10], [1, 2])
    """
    return sorted({max(1, round(steps * k / EPOCHS)) for k in range(1, EPOCHS + 1)})


def _tune(task: TuningTask) -> Tuning:
    pruner = TrajectoryParetoPruner(task.steps)
    sampler = TrajectoryParetoSampler(task.steps, task.seed)
    study = study_of(sampler, pruner=pruner)
    return in_rungs(task, study, ends_of(task.steps))


STRATEGIES = {"pareto": TuningStrategy("pareto", "arXiv 2405.15303", _tune)}
