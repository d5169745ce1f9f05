"""Self-tuning by a filter of the gradient that knows the curvature.

A Kalman filter follows the true gradient m as the weights move by delta, and one the loss f:

    predict  m- = m + B delta        P- = P + Q        f- = f + <delta, m> + <delta, B delta>/2
    update   K = P-/(P- + Sigma)     m = m- + K (g - m-)      P = (1 - K) P-
    step     delta = -alpha F m          F: the factor of each tensor

g is the batch's gradient, Sigma its variance; B delta is a Hessian-vector product, Q its variance.
The rate is the one at which the loss falls most surely, the least mean/deviation over alpha of

    f_(t+1) - f_t ~ N(-alpha <d, m> + alpha^2 <d, B d>/2,
                      2 s + alpha^2 <d, P d> + alpha^4 <d, Q d>/4),      d = F m

with s the variance of f. Signs: delta is -alpha d, so the term in alpha is negative, and that in
alpha^2 has the sign of the curvature.

Source: arXiv 2011.04803 by a secondary source; its printed formulas have slips, so these are worked
out here, and tests hold the filter against a textbook's matrices and the moments against samples.
Averages of variances are 0.999, freed of their start. Ours: variances are those between 8 chunks
of the batch, over 8, in the place of samples one by one; P, Q and Sigma are a number for each
tensor, since entries of different layers differ by powers of the width; alpha moves at most by
a factor of 2 a step. The answer is the geometric mean of alpha over the last half of the run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from empirical.transfer.transfer_run import Diverged
from empirical.tuning.gradient_descent import refuse_other_rules
from empirical.tuning.second_derivatives import gradients, hessian_vector, inner
from empirical.tuning.tuning_loop import TrainingLoop
from empirical.tuning.tuning_run import TunedPoint
from empirical.tuning.tuning_strategy import Tuning, TuningStrategy, TuningTask
from scaling.models.recipe import RATE

CHUNKS, MEMORY, FASTEST = 8, 0.999, 2.0
FINE = 33
"""Values of alpha that are looked at, between a half and twice the last one."""


@dataclass
class IsotropicKalman:
    """A Kalman filter of tensors whose variance is one number each.

    ``mean``: tensors; ``variance``: of every entry, by tensor. Without an update the variance is
    infinite, and the first observation is taken as it is.
    """

    mean: list[Tensor]
    variance: list[float]

    def predict(self, shift: Sequence[Tensor], noise: Sequence[float]) -> None:
        """The mean moves by what is known, the variance grows by what is not."""
        self.mean = [m + u for m, u in zip(self.mean, shift, strict=True)]
        self.variance = [p + q for p, q in zip(self.variance, noise, strict=True)]

    def update(self, seen: Sequence[Tensor], noise: Sequence[float]) -> None:
        """An observation of every entry, with its variance."""
        for i, (y, r) in enumerate(zip(seen, noise, strict=True)):
            p = self.variance[i]
            gain = 1.0 if math.isinf(p) else p / max(p + r, 1e-300)
            self.mean[i] = self.mean[i] + gain * (y - self.mean[i])
            self.variance[i] = r if math.isinf(p) else (1 - gain) * p


@dataclass(frozen=True)
class Outlook:
    """Moments of f_(t+1) - f_t as polynomials of alpha, see above."""

    slope: float
    curvature: float
    loss_variance: float
    gradient_variance: float
    curvature_variance: float

    def mean(self, alpha: float) -> float:
        """By how much the loss changes."""
        return -alpha * self.slope + alpha**2 * self.curvature / 2

    def deviation(self, alpha: float) -> float:
        """The standard deviation of that."""
        return math.sqrt(
            2 * self.loss_variance
            + alpha**2 * self.gradient_variance
            + alpha**4 * self.curvature_variance / 4
        )

    def surest(self, last: float) -> float:
        """The alpha near the last one at which the loss falls most surely.

        Without noise that is the Newton step along d:

        >>> quiet = Outlook(2.0, 4.0, 1e-12, 0.0, 0.0)
        >>> round(quiet.surest(0.45), 1)
        0.5
        """
        alphas = last * FASTEST ** np.linspace(-1, 1, FINE)
        scores = [self.mean(a) / max(self.deviation(a), 1e-300) for a in alphas]
        return float(alphas[int(np.argmin(scores))])


@dataclass
class RunningAverage:
    """An average with memory, freed of its start."""

    memory: float = MEMORY
    total: float = 0.0
    weight: float = 0.0

    def take(self, x: float) -> float:
        """The average with one more."""
        self.total = self.memory * self.total + (1 - self.memory) * x
        self.weight = self.memory * self.weight + (1 - self.memory)
        return self.total / self.weight


@dataclass
class SelfTuned:
    """Tensors that are trained by the filter.

    Args:
        tensors: moved in place.
        factors: of each, beside alpha.
        alpha: the first rate.
    """

    tensors: Sequence[Tensor]
    factors: Sequence[float]
    alpha: float
    gradient: IsotropicKalman = field(init=False)
    loss: IsotropicKalman = field(init=False)

    def __post_init__(self) -> None:
        count = len(self.tensors)
        zeros = [torch.zeros_like(w) for w in self.tensors]
        self.gradient = IsotropicKalman(zeros, [math.inf] * count)
        self.loss = IsotropicKalman([torch.zeros(())], [math.inf])
        self._averages: dict[str, RunningAverage] = {}

    def step(self, losses: Sequence[Tensor]) -> float:
        """One step from the losses of the chunks of a batch; the rate that was taken."""
        sampled = [gradients(loss, self.tensors) for loss in losses]
        count = len(losses)
        seen, noise = self._moments(sampled, "sigma")
        values = torch.stack([loss.detach() for loss in losses])
        self.gradient.update(seen, noise)
        spread = self._smooth("loss", float(values.var()) / count)
        self.loss.update([values.mean()], [spread])
        direction = [f * m for f, m in zip(self.factors, self.gradient.mean, strict=True)]
        products, wobble = self._moments(
            [hessian_vector(g, self.tensors, direction) for g in sampled], "curvature"
        )
        slope = float(inner(direction, self.gradient.mean))
        curvature = float(inner(direction, products))
        squares = [float((d * d).sum()) for d in direction]
        outlook = Outlook(
            slope, curvature, self.loss.variance[0],
            float(np.dot(self.gradient.variance, squares)), float(np.dot(wobble, squares)),
        )  # fmt: skip
        alpha = self.alpha = outlook.surest(self.alpha)
        change = torch.tensor(outlook.mean(alpha))
        grown = outlook.deviation(alpha) ** 2 - 2 * self.loss.variance[0]
        with torch.no_grad():
            for w, d in zip(self.tensors, direction, strict=True):
                w -= alpha * d
        self.gradient.predict([-alpha * h for h in products], [alpha**2 * q for q in wobble])
        self.loss.predict([change], [grown])
        return alpha

    def _moments(
        self, rows: Sequence[Sequence[Tensor]], name: str
    ) -> tuple[list[Tensor], list[float]]:
        """The mean over chunks, and the variance of an entry of that mean, by tensor."""
        means, noise = [], []
        for i, several in enumerate(zip(*rows, strict=True)):
            stacked = torch.stack([x.detach() for x in several])
            means.append(stacked.mean(0))
            found = float(stacked.var(0).mean()) / len(rows)
            noise.append(self._smooth(f"{name} {i}", found))
        return means, noise

    def _smooth(self, name: str, x: float) -> float:
        return self._averages.setdefault(name, RunningAverage()).take(x)


def _chunks(loop: TrainingLoop, step: int) -> list[Tensor]:
    inputs, targets = loop.batch_of(step)
    count = min(CHUNKS, len(targets))
    parts = [
        x.tensor_split(count) if isinstance(x, Tensor) and len(x) == len(targets) else [x] * count
        for x in inputs
    ]
    batches = zip(zip(*parts, strict=True), targets.tensor_split(count), strict=True)
    return [loop.loss_on(batch) for batch in batches]


def _filtered(loop: TrainingLoop) -> Mapping[str, Any]:
    names = list(loop.trained)
    factors = [loop.factors[name] for name in names]
    trained = [loop.trained[name] for name in names]
    tuned = SelfTuned(trained, factors, 2.0 ** loop.run.point.numbers[RATE])
    alphas = []
    for step in range(loop.run.steps):
        losses = _chunks(loop, step)
        loop.watched(torch.stack([loss.detach() for loss in losses]).mean())
        alphas.append(math.log2(tuned.step(losses)))
        loop.cost += 3
        if not math.isfinite(alphas[-1]):
            raise Diverged("a rate that is not finite")
    half = alphas[len(alphas) // 2 :]
    return {"rate": sum(half) / len(half), "last": alphas[-1]}


def _tune(task: TuningTask) -> Tuning:
    point, answer = dict(task.space.centre), task.space.centre
    while task.affords(3 * task.steps):
        outcome = yield task.run(point, loop="filter")
        if outcome.diverged:
            point = task.space.inside({**point, RATE: point[RATE] - 2})
            continue
        answer = task.space.inside({**point, RATE: outcome.found["rate"]})
        task.offer(answer, outcome.value, always=True)
        if abs(answer[RATE] - point[RATE]) < 0.1:
            break
        point = answer
    return TunedPoint(answer)


LOOPS = {"filter": _filtered}
STRATEGIES = {
    "filter": TuningStrategy("filter", "arXiv 2011.04803", _tune, refuse_other_rules),
}
