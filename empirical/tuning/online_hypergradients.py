"""OHO: hypergradients of learning rates while a model trains, by recurrence in real time.

    w+ = w - eta_k s (g + 2 lam w)      s the factor of the tensor, eta_k the rate of its group
    Z_k = dw/d eta_k                    starts at zero
    Z_k <- Z_k - eta s (H Z_k + 2 lam Z_k) - s (g + 2 lam w) on the tensors of group k
    Y   <- Y   - eta s (H Y   + 2 lam Y  ) - 2 eta s w,            Y = dw/d lam
    eta_k <- eta_k - m <g_held_out, Z_k>,     lam <- lam - m <g_held_out, Y>, neither below zero

Source: arXiv 2102.07813 and its code (one Hessian-vector product each, every step; hyper-parameters
go on as parameters are reset; global, per tensor or per layer). What H acts on is differentiated at
the w that the step starts from. The published code shares one product among groups, whose slices
are no derivatives; ours takes one for each group, and so agrees with finite differences.

Ours: the strategy tunes rates alone, of the rule without a decay. They move in their logarithm and
by the log of the loss, which makes the step of a rate a pure number, the same at every width (claim
14a measures that, and how m must scale in the published form); it is at most half a doubling a
step. The answer is the geometric mean over the last episode. After an episode that diverged all
rates start the next one at a quarter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from empirical.transfer.transfer_run import Diverged
from empirical.tuning.gradient_descent import refuse_other_rules
from empirical.tuning.second_derivatives import gradients, hessian_vector, inner
from empirical.tuning.tuning_loop import TrainingLoop
from empirical.tuning.tuning_run import TunedPoint
from empirical.tuning.tuning_strategy import Tuning, TuningStrategy, TuningTask
from scaling.models.recipe import RATE

META, LARGEST = 0.1, 0.5 * math.log(2)
GLOBAL, BY_TENSOR, BY_LAYER = "all", "tensor", "layer"


class RateRecurrence:
    """Tensors under gradient descent, with the derivatives of the tensors by the rates.

    Args:
        tensors: that are trained; they are moved in place.
        groups: the number of the group of each.
        rates: by group.
        factors: of each tensor, beside the rate of its group.
        decay: lam.
        by_decay: whether the derivative by lam is kept, too.
    """

    def __init__(
        self, tensors: Sequence[Tensor], groups: Sequence[int], rates: Sequence[float],
        factors: Sequence[float] | None = None, decay: float = 0.0, by_decay: bool = False,
    ) -> None:  # fmt: skip
        self.tensors, self.groups, self.rates = list(tensors), list(groups), list(rates)
        self.factors = list(factors or [1.0] * len(self.tensors))
        self.decay = decay
        self.by_rate = [self._zeros() for _ in self.rates]
        self.by_decay = self._zeros() if by_decay else None

    def _zeros(self) -> list[Tensor]:
        return [torch.zeros_like(w) for w in self.tensors]

    def step(self, loss: Tensor) -> None:
        """One step down a loss, of the tensors and of their derivatives."""
        gradient = gradients(loss, self.tensors)
        products = [hessian_vector(gradient, self.tensors, z) for z in self.by_rate]
        lam = None if self.by_decay is None else hessian_vector(
            gradient, self.tensors, self.by_decay
        )  # fmt: skip
        with torch.no_grad():
            for i, (w, g) in enumerate(zip(self.tensors, gradient, strict=True)):
                rate = self.rates[self.groups[i]] * self.factors[i]
                pull = g + 2 * self.decay * w
                for k, z in enumerate(self.by_rate):
                    z[i] -= rate * (products[k][i] + 2 * self.decay * z[i])
                    if k == self.groups[i]:
                        z[i] -= self.factors[i] * pull
                if self.by_decay is not None and lam is not None:
                    y = self.by_decay[i]
                    y -= rate * (lam[i] + 2 * self.decay * y + 2 * w)
                w -= rate * pull

    def slopes(self, held_out: Tensor) -> list[float]:
        """The derivative of a loss held out by each rate."""
        gradient = gradients(held_out, self.tensors, again=False)
        return [float(inner(gradient, z)) for z in self.by_rate]

    def descend(self, slopes: Sequence[float], meta: float) -> None:
        """The published step: eta <- max(0, eta - m slope)."""
        self.rates = [max(0.0, x - meta * s) for x, s in zip(self.rates, slopes, strict=True)]

    def descend_logs(self, slopes: Sequence[float], meta: float) -> None:
        """The same of log eta, whose slope is eta times that of eta."""
        found = []
        for rate, slope in zip(self.rates, slopes, strict=True):
            move = -meta * rate * slope
            found.append(rate * math.exp(max(-LARGEST, min(LARGEST, move))))
        self.rates = found


def groups_of(names: Sequence[str], by: str) -> tuple[list[str], list[int]]:
    """Names of groups, and the group of each tensor.

    >>> groups_of(["0.weight", "0.bias", "2.weight"], "layer")
    (['0', '2'], [0, 0, 1])
    """
    labels = [
        "" if by == GLOBAL else name if by == BY_TENSOR else name.rpartition(".")[0]
        for name in names
    ]
    known = list(dict.fromkeys(labels))
    return known, [known.index(label) for label in labels]


def _episode(loop: TrainingLoop) -> Mapping[str, Any]:
    """One model from its start; rates begin where the last episode left them."""
    wishes = loop.run.wishes
    names = list(loop.trained)
    labels, groups = groups_of(names, wishes["by"])
    base = 2.0 ** loop.run.point.numbers[RATE]
    rates = [base * 2.0 ** wishes["rates"].get(label, 0.0) for label in labels]
    factors = [loop.factors[name] for name in names]
    tensors = [loop.trained[name] for name in names]
    recurrence = RateRecurrence(tensors, groups, rates, factors)
    sums = [0.0] * len(labels)
    for step in range(loop.run.steps):
        recurrence.step(loop.watched(loop.loss_of_step(loop.batch_of(step), step)))
        held_out = loop.watched(loop.loss_held_out(step))
        slopes = [s / float(held_out.detach()) for s in recurrence.slopes(held_out)]
        loop.cost += 2 + 2 * len(labels)
        if not all(map(math.isfinite, slopes)):
            raise Diverged("a hypergradient is not finite")
        recurrence.descend_logs(slopes, wishes["meta"])
        for k, rate in enumerate(recurrence.rates):
            sums[k] += math.log2(rate / base) / loop.run.steps
    last = [math.log2(rate / base) for rate in recurrence.rates]
    return {
        "mean": dict(zip(labels, sums, strict=True)), "last": dict(zip(labels, last, strict=True)),
        "tensors": dict(zip(names, (sums[k] for k in groups), strict=True)),
    }  # fmt: skip


def _tune(by: str, task: TuningTask) -> Tuning:
    centre = task.space.centre
    low, high = (
        dict(zip(task.space.names, x, strict=True)) for x in (task.space.low, task.space.high)
    )
    rates: dict[str, float] = {}
    answer, price = TunedPoint(centre), 4.0 * task.steps
    while task.affords(price):
        run = task.run(centre, loop="oho", by=by, meta=META, rates=rates)
        outcome = yield run
        price = max(price, outcome.cost)
        if outcome.diverged:
            rates = {label: x - 2 for label, x in (rates or {"": 0.0}).items()}
            if not any(rates):
                rates = {}
            continue
        found = outcome.found
        bounded = {k: centre[RATE] + x for k, x in found["last"].items()}
        rates = {k: min(max(x, low[RATE]), high[RATE]) - centre[RATE] for k, x in bounded.items()}
        means = found["mean"]
        if by == GLOBAL:
            answer = TunedPoint(task.space.inside({**centre, RATE: centre[RATE] + means[""]}))
        else:
            answer = TunedPoint(centre, rates=dict(found["tensors"]))
        task.offer(answer, outcome.value, always=True)
    return answer


LOOPS = {"oho": _episode}
STRATEGIES = {
    name: TuningStrategy(name, "arXiv 2102.07813", partial(_tune, by), refuse_other_rules)
    for name, by in (("oho", GLOBAL), ("oho-layer", BY_LAYER), ("oho-tensor", BY_TENSOR))
}
