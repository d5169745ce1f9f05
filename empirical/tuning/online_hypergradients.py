"""OHO: hypergradients of rates and a decay while a model trains, by recurrence in real time.

    w+ = w - eta_k s (g + lam p w)      s the factor of the tensor, eta_k the rate of its group,
                                        p its share of the decay: zero where it has none
    Z_k = dw/d eta_k                    starts at zero
    Z_k <- Z_k - eta s (H Z_k + lam p Z_k) - s (g + lam p w) on the tensors of group k
    Y   <- Y   - eta s (H Y   + lam p Y  ) - eta s p w,            Y = dw/d lam
    eta_k <- eta_k - m <g_held_out, Z_k>,     lam <- lam - m <g_held_out, Y>, neither below zero

Source: arXiv 2102.07813 and its code (one Hessian-vector product each, every step; hyper-parameters
go on as parameters are reset; global, per tensor or per layer). What H acts on is differentiated at
the w that the step starts from. The published code shares one product among groups, whose slices
are no derivatives; ours takes one for each group, and so agrees with finite differences. Its
penalty is lam |w|^2, so our lam is twice the published one, and that of torch's SGD.

Ours: rates, and the decay of the rule where the space has it, move in their logarithm and by the
log of the loss, which makes the step of a rate a pure number, the same at every width (claim 14a
measures that, and how m must scale in the published form); it is at most half a doubling a step.
The answer is the geometric mean over the last episode. After an episode that diverged all rates
start the next one at a quarter.

Not covered: dampings. Gradient descent has none; Adam's eps would need the derivatives of both of
its averages beside that of the weights.
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
EVERY = ""
"""The label of a group of all tensors, and of a start that all groups share."""


class RateRecurrence:
    """Tensors under gradient descent, with the derivatives of the tensors by the rates.

    Args:
        tensors: that are trained; they are moved in place.
        groups: the number of the group of each.
        rates: by group.
        factors: of each tensor, beside the rate of its group.
        decay: lam.
        shares: of each tensor in the decay.
        by_decay: whether the derivative by lam is kept, too.
    """

    def __init__(
        self, tensors: Sequence[Tensor], groups: Sequence[int], rates: Sequence[float],
        factors: Sequence[float] | None = None, decay: float = 0.0,
        shares: Sequence[float] | None = None, by_decay: bool = False,
    ) -> None:  # fmt: skip
        self.tensors, self.groups, self.rates = list(tensors), list(groups), list(rates)
        self.factors = list(factors or [1.0] * len(self.tensors))
        self.decay, self.shares = decay, list(shares or [1.0] * len(self.tensors))
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
                share = self.shares[i]
                decay = self.decay * share
                pull = g + decay * w
                for k, z in enumerate(self.by_rate):
                    z[i] -= rate * (products[k][i] + decay * z[i])
                    if k == self.groups[i]:
                        z[i] -= self.factors[i] * pull
                if self.by_decay is not None and lam is not None:
                    y = self.by_decay[i]
                    y -= rate * (lam[i] + decay * y + share * w)
                w -= rate * pull

    def slopes(self, held_out: Tensor) -> list[float]:
        """The derivative of a loss held out by each rate, then by the decay if it is kept."""
        gradient = gradients(held_out, self.tensors, again=False)
        kept = [] if self.by_decay is None else [self.by_decay]
        return [float(inner(gradient, z)) for z in (*self.by_rate, *kept)]

    def descend(self, slopes: Sequence[float], meta: float) -> None:
        """The published step: eta <- max(0, eta - m slope), and so lam."""
        self._take([max(0.0, x - meta * s) for x, s in zip(self.tuned, slopes, strict=True)])

    def descend_logs(self, slopes: Sequence[float], meta: float) -> None:
        """The same of log eta, whose slope is eta times that of eta."""
        found = []
        for number, slope in zip(self.tuned, slopes, strict=True):
            move = -meta * number * slope
            found.append(number * math.exp(max(-LARGEST, min(LARGEST, move))))
        self._take(found)

    @property
    def tuned(self) -> list[float]:
        """The rates, and the decay if its derivative is kept."""
        return [*self.rates, *([] if self.by_decay is None else [self.decay])]

    def _take(self, numbers: Sequence[float]) -> None:
        self.rates = list(numbers[: len(self.rates)])
        if self.by_decay is not None:
            self.decay = numbers[-1]


def groups_of(names: Sequence[str], by: str) -> tuple[list[str], list[int]]:
    """Names of groups, and the group of each tensor.

    >>> groups_of(["0.weight", "0.bias", "2.weight"], "layer")
    (['0', '2'], [0, 0, 1])
    """
    labels = [
        EVERY if by == GLOBAL else name if by == BY_TENSOR else name.rpartition(".")[0]
        for name in names
    ]
    known = list(dict.fromkeys(labels))
    return known, [known.index(label) for label in labels]


def _episode(loop: TrainingLoop) -> Mapping[str, Any]:
    """One model from its start; numbers begin where the last episode left them.

    Nothing is trained and found where the episode would cost more than what is left.
    """
    wishes, point = loop.run.wishes, loop.run.point.numbers
    names = list(loop.trained)
    labels, groups = groups_of(names, wishes["by"])
    base = 2.0 ** point[RATE]
    begun = wishes["rates"]
    rates = [base * 2.0 ** begun.get(label, begun.get(EVERY, 0.0)) for label in labels]
    tensors, factors = [loop.trained[x] for x in names], [loop.factors[x] for x in names]
    tuned = [x for x in loop.recipe.decays if x in point]
    lam = 2.0 ** point[tuned[0]] if tuned else 1.0
    decay = lam * 2.0 ** wishes.get("decay", 0.0)
    shares = [loop.decays[x] / lam for x in names]
    recurrence = RateRecurrence(tensors, groups, rates, factors, decay, shares, bool(tuned))
    count = len(labels) + len(tuned)
    if loop.run.steps * (2 + 2 * count) > wishes.get("left", math.inf):
        return {}
    sums = [0.0] * count
    started = [base] * len(labels) + [lam] * len(tuned)
    for step in range(loop.run.steps):
        recurrence.step(loop.watched(loop.loss_of_step(loop.batch_of(step), step)))
        held_out = loop.watched(loop.loss_held_out(step))
        slopes = [s / float(held_out.detach()) for s in recurrence.slopes(held_out)]
        loop.cost += 2 + 2 * count
        if not all(map(math.isfinite, slopes)):
            raise Diverged("a hypergradient is not finite")
        recurrence.descend_logs(slopes, wishes["meta"])
        last = [math.log2(x / y) for x, y in zip(recurrence.tuned, started, strict=True)]
        sums = [x + y / loop.run.steps for x, y in zip(sums, last, strict=True)]
    found = {
        "mean": dict(zip(labels, sums, strict=False)),
        "last": dict(zip(labels, last, strict=False)),
        "tensors": dict(zip(names, (sums[k] for k in groups), strict=True)),
    }  # fmt: skip
    return {**found, "decay": {"mean": sums[-1], "last": last[-1]}} if tuned else found


def _tune(by: str, task: TuningTask) -> Tuning:
    centre = task.space.centre
    low, high = (
        dict(zip(task.space.names, x, strict=True)) for x in (task.space.low, task.space.high)
    )
    decays = [name for name in task.space.names if name != RATE]

    def bounded(name: str, doublings: float) -> float:
        """Doublings from the middle of the space that stay inside."""
        return min(max(centre[name] + doublings, low[name]), high[name]) - centre[name]

    rates: dict[str, float] = {}
    decay: dict[str, Any] = {}
    answer, price = TunedPoint(centre), 4.0 * task.steps
    while task.affords(price):
        left = task.budget - task.spent
        run = task.run(centre, loop="oho", by=by, meta=META, rates=rates, left=left, **decay)
        outcome = yield run
        price = max(price, outcome.cost)
        if outcome.diverged:
            rates = {label: x - 2 for label, x in (rates or {EVERY: 0.0}).items()}
            continue
        if not outcome.found:
            break
        found = outcome.found
        rates = {k: bounded(RATE, x) for k, x in found["last"].items()}
        numbers = dict(centre)
        for name in decays:
            decay = {"decay": bounded(name, found["decay"]["last"])}
            numbers[name] += found["decay"]["mean"]
        if by == GLOBAL:
            numbers[RATE] += found["mean"][EVERY]
            answer = TunedPoint(task.space.inside(numbers))
        else:
            answer = TunedPoint(task.space.inside(numbers), rates=dict(found["tensors"]))
        task.offer(answer, outcome.value, always=True)
    return answer


LOOPS = {"oho": _episode}
STRATEGIES = {
    name: TuningStrategy(
        name, "arXiv 2102.07813", partial(_tune, by), partial(refuse_other_rules, decays=True)
    )
    for name, by in (("oho", GLOBAL), ("oho-layer", BY_LAYER), ("oho-tensor", BY_TENSOR))
}
