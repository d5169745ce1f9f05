"""Group 14: rates that tune themselves, against the derived exponents (OHO, a filter, a search).

Gradient descent on the squared error, three layers without biases, in float64; weights M^-b.

    14a   OHO's slope dL/d eta_l of the rate of layer l, at maximal rates eta_l ~ M^-c_l, goes as
          M^(c_l): each layer lowers the loss by order one, so eta_l dL/d eta_l is of order one.
          Hence the published step eta <- eta - m dL/d eta needs m_l ~ M^(-2 c_l), layer by layer,
          and the step of log eta needs none
    14b   one rate for all layers that is tuned on the fly: with weights and factors of the plan it
          stays; under the standard start (b_output = 1/2, no factors) it falls as M^-(largest c):
          it follows the layer that binds, and the other layers learn too slowly
    14c   a search over the rate and Adam's damping at the base: trained at 16 times the width its
          answer has a lower loss under the plan than under the standard

Predictions come from `derive`; 14a and 14b are of arXiv 2102.07813 and 2011.04803 as methods, and
say nothing that these papers claim.

Not covered: other rules for 14a and 14b, deeper networks, many steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sympy import Expr, Rational, S
from torch import Tensor, nn

from empirical.claims.claim import Claim, Evidence, Finding, Group
from empirical.claims.environment import Environment, Tier
from empirical.claims.exponents import LAYERS, curve, derived, interval, judged, signed
from empirical.claims.figures import Figure
from empirical.data.sources import load
from empirical.fit.exponent import estimate
from empirical.fit.verdict import Verdict
from empirical.measure.machine import blas_threads
from empirical.trace.given_model import model_of
from empirical.transfer.measuring_transfer import planned_training
from empirical.transfer.transfer_grid import TransferWay
from empirical.tuning.gradient_filter import SelfTuned
from empirical.tuning.measured_tuning import exponential, over_seeds
from empirical.tuning.measuring_tuning import TuningRequest
from empirical.tuning.online_hypergradients import RateRecurrence
from empirical.tuning.search_space import read_space
from empirical.tuning.tuning_loop import tuned_run
from empirical.tuning.tuning_run import TuningRun
from empirical.tuning.tuning_strategy import TuningTask, play, strategy

SOURCE = "derived here, of the methods of arXiv 2102.07813 and arXiv 2011.04803"
WIDTHS = {Tier.ci: (64, 128, 256, 512), Tier.desk: (64, 128, 256, 512, 1024, 2048)}
FILTERED_WIDTHS = {Tier.ci: (32, 64, 128, 256), Tier.desk: (64, 128, 256, 512, 1024)}
SEEDS = {Tier.ci: 4, Tier.desk: 12}
FILTERED_SEEDS = {Tier.ci: 20, Tier.desk: 24}
DECAY = 1.0
"""Corrections of means over seeds are of relative order 1/M."""
STEPS, FILTERED, CHUNKS = 3, 18, 2
FIRST = 2.0**-12
"""The first rate of the filter, below what any width needs: it doubles with every step until the
loss curves. From 2^-5 the first step of wide networks under the standard start overshoots so far
that they end elsewhere."""
MARGIN = 0.25
"""Half of 1/2, the smallest step between the exponents of gradient descent."""
HALF = Rational(1, 2)
BASE, TARGET, SPACE = 32, 512, read_space("lr=2^-11:2^-4,eps=2^-30:2^-12")
TUNED = {Tier.ci: (3, 30, 8), Tier.desk: (12, 100, 30)}
"""Seeds, steps and runs."""
RATE = 0.02
"""Of the maximal rates at the base width, 64."""


@cache
def exponents(*settings: str) -> tuple[Mapping[str, Expr], Mapping[str, Expr]]:
    """B and c of gradient descent, by layer."""
    found = derived("sgd", *settings).exponents
    return found.b, found.c


def network(width: int, seed: int, b: Mapping[str, Expr], data: Any) -> list[Tensor]:
    """Weights M^-b."""
    draw = torch.Generator().manual_seed(seed)
    features, classes = data.inputs.shape[1], data.targets.shape[1]
    shapes = ((width, features), (width, width), (classes, width))
    found = []
    for layer, (rows, columns) in zip(LAYERS, shapes, strict=True):
        drawn = torch.randn(rows, columns, generator=draw, dtype=torch.float64)
        w = drawn * width ** -float(b[layer])
        found.append(w.requires_grad_())
    return found


def loss_of(weights: list[Tensor], inputs: Tensor, targets: Tensor) -> Tensor:
    """The squared error of the three layers, on inputs of norm one.

    Otherwise the layer that reads the data has so large a share of the curvature that the others
    bind at widths far beyond the number of features alone.
    """
    h = inputs / inputs.shape[1] ** 0.5
    for w in weights[:-1]:
        h = torch.relu(h @ w.T)
    found: Tensor = (h @ weights[-1].T - targets).square().sum(1).mean()
    return found


def slopes(width: int, seed: int, data: Any) -> dict[str, float]:
    """|dL/d eta_l| after some steps at maximal rates, by layer, and eta_l times that."""
    b, c = exponents()
    rates = [RATE * (width / 64) ** -float(c[layer]) / 64 ** float(c[layer]) for layer in LAYERS]
    weights = network(width, seed, b, data)
    recurrence = RateRecurrence(weights, [0, 1, 2], rates)
    for _ in range(STEPS):
        recurrence.step(loss_of(weights, data.inputs, data.targets))
    found = recurrence.slopes(loss_of(weights, data.probe_inputs, data.probe_targets))
    return {
        **{layer: abs(x) for layer, x in zip(LAYERS, found, strict=True)},
        **{f"log {name}": abs(x * r) for name, x, r in zip(LAYERS, found, rates, strict=True)},
    }


def filtered_rate(width: int, seed: int, data: Any, standard: bool) -> dict[str, float]:
    """The one rate that the filter has found after some steps, over the first one."""
    b, c = exponents("b_output=1/2") if standard else exponents()
    weights = network(width, seed, b, data)
    factors = [1.0 if standard else (width / 64) ** -float(c[layer]) for layer in LAYERS]
    tuned = SelfTuned(weights, factors, FIRST)
    found = []
    for _ in range(FILTERED):
        parts = zip(
            data.inputs.tensor_split(CHUNKS), data.targets.tensor_split(CHUNKS), strict=True
        )
        found.append(math.log(tuned.step([loss_of(weights, *part) for part in parts])))
    return {"rate": math.exp(float(np.mean(found[-6:])))}


def _tier(context: Environment) -> Tier:
    return Tier.ci if context.tier is Tier.ci else Tier.desk


def _table(
    context: Environment,
    name: str,
    key: str,
    measure: Callable[..., Mapping[str, float]],
    seeds: int,
    widths: tuple[int, ...],
) -> tuple[tuple[int, ...], NDArray[np.float64]]:
    data = context.data(64, 16)
    with blas_threads(1):
        rows = context.cells(
            {"claim": f"self-tuned {name}", "steps": STEPS, "filtered": FILTERED}, widths,
            seeds, lambda width, seed: measure(width, seed, data), name,
        )  # fmt: skip
    return widths, np.array([[one[key] for one in row] for row in rows]).T


def _check_slopes(context: Environment, planted: Expr = S.Zero) -> Evidence:
    _, c = exponents()
    findings, curves = [], []
    for layer in LAYERS:
        for name, key, predicted in (
            (f"slope of the rate, {layer}", layer, c[layer]),
            (f"slope of its log, {layer}", f"log {layer}", S.Zero),
        ):
            widths, table = _table(
                context, "slopes", key, slopes, 8 * SEEDS[_tier(context)], WIDTHS[_tier(context)]
            )
            fit = estimate(widths, table, decay=DECAY)
            findings.append(judged(name, fit, predicted + planted, MARGIN))
            curves.append(curve(key, widths, table))
    powers = ", ".join(f"{-2 * c[layer]} ({layer})" for layer in LAYERS)
    note = f"the published meta-rate must go as M to the powers {powers}; that of log rates as M^0"
    title = "OHO: slopes of rates against width"
    figure = Figure("14a_slopes", title, "width", "size of the slope", tuple(curves))
    return Evidence(tuple(findings), (note,), figures=(figure,))


def _check_filter(context: Environment, planted: Expr = S.Zero) -> Evidence:
    binding = max(exponents("b_output=1/2")[1].values())
    findings, curves = [], []
    for name, standard, predicted in (("plan", False, S.Zero), ("standard", True, -binding)):
        measure = partial(filtered_rate, standard=standard)
        widths, table = _table(
            context,
            f"filter, {name}",
            "rate",
            measure,
            FILTERED_SEEDS[_tier(context)],
            FILTERED_WIDTHS[_tier(context)],
        )
        fit = estimate(widths, table, decay=DECAY)
        findings.append(judged(f"self-tuned rate, {name}", fit, predicted + planted, MARGIN))
        curves.append(curve(name, widths, table))
    title = "a rate that tunes itself, against width"
    figure = Figure("14b_filter", title, "width", "rate", tuple(curves))
    return Evidence(tuple(findings), figures=(figure,))


@cache
def _digits() -> tuple[Tensor, Tensor]:
    data = load("digits", samples=1024, probe=512, seed=0)
    return data.inputs.float(), data.targets.argmax(1)


def _model(width: int = 32) -> nn.Module:
    return nn.Sequential(
        nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10)
    )


def _batch(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Seeds 0 to 7 are held out: they draw from the last samples."""
    inputs, labels = _digits()
    draw = torch.Generator().manual_seed(seed)
    rows = torch.randint(800, (64,), generator=draw) if seed >= 8 else torch.arange(800, 1024)
    return inputs[rows], labels[rows]


def _adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=2**-7)


def _damped(context: Environment) -> NDArray[np.float64]:
    """Log of the loss under the standard over that under the plan, by seed."""
    seeds, steps, runs = TUNED[_tier(context)]
    asked = TuningRequest("width", BASE, TARGET, runs * steps, steps=steps, space=SPACE)
    file = replace(model_of(_model, _batch, None), optimizer_of=_adam)
    training, _ = planned_training(file, None, "adam", asked.transfer({}))

    def measure(width: int, seed: int) -> dict[str, float]:
        task = TuningTask(SPACE, steps, runs * steps, seed, BASE)
        train = partial(tuned_run, training)
        answer = play(strategy("cross-entropy").tune(task), task, train)
        return {
            str(way): train(TuningRun(way, width, seed, answer, steps)).value for way in TransferWay
        }

    with blas_threads(1):
        settings = {"claim": "tuned small", "steps": steps, "runs": runs, "base": BASE}
        (row,) = context.cells(settings, (TARGET,), seeds, measure, "tuned small")
    return np.array([x[TransferWay.standard] - x[TransferWay.plan] for x in row])


def _check_damped(context: Environment, sign: float = 1.0) -> Evidence:
    found = exponential(over_seeds(list(sign * _damped(context))))
    verdict = Verdict.inconclusive
    if found.low > 0:
        verdict = Verdict.agree
    elif found.high < 0:
        verdict = Verdict.contradict
    name = "loss of the standard over the plan's, minus 1" if sign > 0 else "the reverse"
    shown = interval(found.low, found.high)
    return Evidence((Finding(name, "> 0", signed(found.value), shown, verdict),))


GROUP = Group(
    14,
    "rates that tune themselves",
    (
        Claim(
            "14a",
            "OHO's meta-rate must scale as M^(-2c) in each layer, that of log rates not at all",
            "At maximal rates the derivative of the loss by the rate of a layer goes as M^c, and "
            "that by its logarithm as M^0.",
            SOURCE,
            _check_slopes,
            partial(_check_slopes, planted=HALF),
        ),
        Claim(
            "14b",
            "one rate that tunes itself follows the layer that binds",
            "With the factors of the plan it does not depend on the width; under the standard "
            "start it falls as M to the largest c of all layers.",
            SOURCE,
            _check_filter,
            partial(_check_filter, planted=HALF),
        ),
        Claim(
            "14c",
            "a rate and a damping that were tuned small win at 16 times the width under the plan",
            "Adam's rate and eps, found by cross-entropy at width 32, give a lower loss at width "
            "512 under the plan than under the standard.",
            "derived here, of the method of arXiv 2409.09240",
            _check_damped,
            partial(_check_damped, sign=-1.0),
            package=("optuna", "tuning"),
        ),
    ),
)
