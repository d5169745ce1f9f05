"""A law of the final loss in rates and schedules, fitted to short runs, ranks them for whole runs.

    L = L0 + A S1^-alpha - C S2 + E peak^2
    S1 = sum of rates,     S2 = sum over steps of m_t,  m_t = 0.99 m_(t-1) + (lr_(t-1) - lr_t)

Source: arXiv 2409.04777 (Opt-Laws) ranks schedules for large models by a law that is fitted to
small ones; its formula (terms of convergence and of escape, from an SDE) could not be read. L0, A,
alpha and C are the law of arXiv 2408.11029, which has the same role. Ours: the last term, the noise
that a rate keeps up, in the place of their escape terms; the memory 0.99, since runs here are short
(it is 0.999 there); a rate *diverges* beyond the middle (in its logarithm) of the largest peak that
trained and the smallest that did not; the fit is least squares of log L, from several starts.

The budget: half for runs of a quarter of the steps, a quarter for runs of half the steps, at random
rates under all schedules in turn; the rest for whole runs of the best ranks. The law of the former
is judged by the latter: how many of its first three are the first three there, and F1 of what it
says will diverge. Both are told with the answer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from empirical.tuning.rate_schedules import SCHEDULES, multipliers
from empirical.tuning.search_space import axes_of
from empirical.tuning.tuning_run import TunedPoint
from empirical.tuning.tuning_strategy import Tuning, TuningStrategy, TuningTask
from scaling.models.recipe import RATE

MEMORY, TOP, FINE = 0.99, 3, 25
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ShortRun:
    """A run that a law is fitted to: its rates step by step, and log of its loss, or divergence."""

    rates: tuple[float, ...]
    log_loss: float
    diverged: bool = False


def features(rates: Sequence[float]) -> tuple[float, float, float]:
    """S1, S2 and the peak.

    >>> features([1.0, 1.0, 0.5])
    (2.5, 0.5, 1.0)
    """
    momentum, annealed = 0.0, 0.0
    for before, now in pairwise(rates):
        momentum = MEMORY * momentum + before - now
        annealed += momentum
    return float(sum(rates)), annealed, float(max(rates))


@dataclass(frozen=True)
class RateLaw:
    """The fitted law; ``boundary``: the peak beyond which runs diverge."""

    floor: float
    amplitude: float
    power: float
    annealing: float
    noise: float
    boundary: float

    def loss(self, rates: Sequence[float]) -> float:
        """The loss that it foresees; infinite beyond the boundary."""
        s1, s2, peak = features(rates)
        if peak > self.boundary:
            return math.inf
        parameters = self.floor, self.amplitude, self.power, self.annealing, self.noise
        return float(_law(np.array(parameters), np.array([[s1, s2, peak]]))[0])


def _law(parameters: Floats, rows: Floats) -> Floats:
    floor, amplitude, power, annealing, noise = parameters
    s1, s2, peak = rows.T
    fallen = np.exp(np.clip(-power * np.log(s1), -50, 50))
    found = floor + amplitude * fallen - annealing * s2 + noise * peak**2
    return np.asarray(np.maximum(found, 1e-9), float)


def fitted(runs: Sequence[ShortRun]) -> RateLaw:
    """The law of some runs: at least one of them must have trained."""
    stable = [run for run in runs if not run.diverged]
    rows = np.array([features(run.rates) for run in stable])
    logs = np.array([run.log_loss for run in stable])
    scale, peak = float(np.exp(logs.max())), float(rows[:, 2].max())

    def misfit(z: Floats) -> Floats:
        return np.asarray(np.log(_law(_positive(z, scale, peak), rows)) - logs, float)

    starts = [
        np.array([math.log(f), math.log(a), math.log(p), -6.0, e])
        for f in (0.05, 0.5)
        for a in (0.1, 1.0)
        for p in (0.5,)
        for e in (-8.0, -1.0)
    ]
    found = min((least_squares(misfit, z, max_nfev=200) for z in starts), key=lambda x: x.cost)
    largest = max(max(run.rates) for run in stable)
    ended = [max(run.rates) for run in runs if run.diverged and max(run.rates) > largest]
    boundary = math.sqrt(largest * min(ended)) if ended else math.inf
    floor, amplitude, power, annealing, noise = map(float, _positive(found.x, scale, peak))
    return RateLaw(floor, amplitude, power, annealing, noise, boundary)


def _positive(z: Floats, scale: float, peak: float) -> Floats:
    """Parameters that are all positive, from their logarithms in natural units."""
    grown = np.exp(np.clip(z, -30, 10))
    units = [scale, scale, 1.0, scale / peak, scale / peak**2]
    return np.asarray(grown * units, float)


def hits(law: RateLaw, runs: Sequence[ShortRun], top: int = TOP) -> float:
    """The share of the law's best that are the best of some runs."""
    count = min(top, len(runs))
    foreseen = sorted(range(len(runs)), key=lambda i: law.loss(runs[i].rates))[:count]
    true = sorted(range(len(runs)), key=lambda i: (runs[i].diverged, runs[i].log_loss))[:count]
    return len(set(foreseen) & set(true)) / count


def divergence_f1(law: RateLaw, runs: Sequence[ShortRun]) -> float:
    """F1 of the runs that the law says diverge; 1 where none does and none is said to."""
    said = [max(run.rates) > law.boundary for run in runs]
    right = sum(s and run.diverged for s, run in zip(said, runs, strict=True))
    wrong = sum(s != run.diverged for s, run in zip(said, runs, strict=True))
    return 1.0 if not right and not wrong else 2 * right / (2 * right + wrong)


def _tune(task: TuningTask) -> Tuning:
    draw = np.random.default_rng(task.seed)
    short: dict[int, list[ShortRun]] = {}
    names, k = list(SCHEDULES), 0
    for share, part in ((4, 0.5), (2, 0.75)):
        steps = max(1, task.steps // share)
        while task.spent + steps <= part * task.budget:
            point = task.space.at(draw.uniform(size=task.space.dimension).tolist())
            chosen, k = TunedPoint(point, names[k % len(names)]), k + 1
            outcome = yield task.run(chosen, steps)
            rates = _rates(chosen, steps)
            run = ShortRun(rates, outcome.value, bool(outcome.diverged))
            short.setdefault(share, []).append(run)
    every = [run for runs in short.values() for run in runs]
    if not any(not run.diverged for run in every):
        return task.best
    first = [run for run in short.get(4, []) if not run.diverged]
    if first and short.get(2):
        law = fitted(short[4])
        task.told.append(
            f"seed {task.seed}, of its first {min(TOP, len(short[2]))} at twice the steps "
            f"{hits(law, short[2]):.0%} are; F1 of divergence {divergence_f1(law, short[2]):.2f}"
        )
    law = fitted(every)
    ranked = sorted(_candidates(task, names), key=lambda one: law.loss(_rates(one, task.steps)))
    for best in ranked:
        if not task.affords(task.steps):
            break
        outcome = yield task.run(best)
        task.offer(best, outcome.value)
    return task.best


def _candidates(task: TuningTask, names: Sequence[str]) -> list[TunedPoint]:
    """Rates of a fine grid under all schedules; other numbers in the middle."""
    middle = task.space.centre
    rates = axes_of(task.space, FINE**task.space.dimension)[RATE]
    return [TunedPoint({**middle, RATE: rate}, name) for name in names for rate in rates]


def _rates(point: TunedPoint, steps: int) -> tuple[float, ...]:
    rate = 2.0 ** point.numbers[RATE]
    return tuple(rate * x for x in multipliers(point.schedule, steps))


STRATEGIES = {"opt-laws": TuningStrategy("opt-laws", "arXiv 2409.04777", _tune)}
