"""The first step from a zero readout: kernel regression for K-FAC, and for no other rule.

With W_L = 0 only the last layer moves in the first step. With K the NNGP kernel of the last hidden
layer over the n training samples, k its column at a new input, and y the targets (classes, n),

    f_1(x) = eta (y y^T/n + rho_B)^(-1) y (K + rho)^(-1) k(x),        rho = n rho_A / M

and for classes of equal number the first factor is a number: eta y (K + rho)^(-1) k. K is the
closed form of infinite_width.py, so f_1, a sum over neurons, must approach it as M^(-1/2). Gradient
descent gives eta y k, Shampoo something else: their distance from it stays, whatever their rate.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sympy import Rational, S

from empirical.claims.claim import Evidence
from empirical.claims.environment import Environment
from empirical.claims.exponents import curve, judged, literal
from empirical.claims.figures import Figure
from empirical.fit.exponent import estimate
from empirical.limits.infinite_width import limits
from empirical.measure.calibration import calibrate
from empirical.measure.machine import blas_threads
from empirical.measure.trial import Constants, Trial
from empirical.verify.campaign import Experiment, trial_of
from empirical.wide import outputs_wide

Floats = NDArray[np.float64]
BALANCED = 20
"""Samples: two of every class."""
PROBE = 16
RULES = {"kfac": ("e_A=1", "e_B=1"), "sgd": (), "shampoo": ("e=1/2",)}


def _trial(context: Environment, rule: str) -> tuple[Trial, Constants, Experiment]:
    experiment = context.wide_experiment(context.data(BALANCED, PROBE))
    trial = trial_of(literal(rule, *RULES[rule], "b_output=oo"), experiment)
    return trial, calibrate(trial, experiment.widths[0]), experiment


def regression(trial: Trial, constants: Constants, width: int, ridge: float = 1.0) -> Floats:
    """Kernel regression in closed form, (classes, probe); ``ridge`` multiplies rho.

    ``trial`` is K-FAC's: its dampings are the ridge.
    """
    n = trial.data.samples
    scales = trial.scales(width, constants)["output"]
    gram = limits(trial, constants, width)["output"].inputs
    y = trial.data.targets.numpy().T
    a, b = scales.dampings["rho_A"], scales.dampings["rho_B"]
    weights = np.linalg.solve(gram[:n, :n] / n + ridge * a * np.eye(n), gram[:n, n:] / n)
    found: Floats = scales.lr * np.linalg.solve(y @ y.T / n + b * np.eye(len(y)), y @ weights)
    return found


def _outputs(context: Environment, rule: str) -> list[list[Floats]]:
    """f_1 on the probe samples, by seed, then width."""
    trial, constants, experiment = _trial(context, rule)
    configuration = {"what": "first outputs", "rule": rule, "samples": [BALANCED, PROBE],
                     "base": experiment.widths[0]}  # fmt: skip

    def measure(width: int, seed: int) -> Mapping[str, Any]:
        streaming = experiment.streaming
        found = outputs_wide(trial, constants, width, seed, streaming=streaming)
        return {"outputs": found.tolist()}

    with blas_threads(context.threads):
        rows = context.cells(
            configuration, experiment.widths, experiment.seeds, measure, f"first outputs, {rule}"
        )
    return [[np.array(row[seed]["outputs"]) for row in rows] for seed in range(experiment.seeds)]


def _distances(context: Environment, rule: str, ridge: float = 1.0, scaled: bool = False) -> Floats:
    """|f_1 - f| / |f_1| by (seed, width), f the regression; ``scaled``: at its best multiple."""
    trial, constants, experiment = _trial(context, "kfac")
    targets = [regression(trial, constants, width, ridge) for width in experiment.widths]
    rows = []
    for outputs in _outputs(context, rule):
        row = []
        for f, target in zip(outputs, targets, strict=True):
            c = float((f * target).sum() / (target**2).sum()) if scaled else 1.0
            row.append(float(np.linalg.norm(f - c * target) / np.linalg.norm(f)))
        rows.append(row)
    return np.array(rows)


def first_step(context: Environment) -> Evidence:
    """How fast f_1 approaches the regression: K-FAC as M^(-1/2), SGD and Shampoo never."""
    widths = context.wide_experiment().widths
    closest = _distances(context, "kfac")
    found = [
        judged(
            "kfac: |f_1 - eta y (K + rho)^-1 k| / |f_1|",
            estimate(widths, closest),
            -Rational(1, 2),
            context.sizes.margin,
        )
    ]
    curves = [curve("kfac", widths, closest)]
    for rule in ("sgd", "shampoo"):
        table = _distances(context, rule, scaled=True)
        label = f"{rule}: the same, at the best rate"
        found.append(judged(label, estimate(widths, table), S.Zero, context.sizes.margin))
        curves.append(curve(rule, widths, table))
    left = ", ".join(f"{c.label} {c.y[-1]:.2g}" for c in curves)
    figure = Figure("6a_kernel", "distance of f_1 from kernel regression", "width M",
                    "relative distance", tuple(curves))  # fmt: skip
    return Evidence(tuple(found), (f"distance at width {widths[-1]:,}: {left}",), (), (figure,))


def wrong_regression(context: Environment) -> Evidence:
    """Another ridge, and gradient descent, each said to be approached as M^(-1/2)."""
    widths, margin = context.wide_experiment().widths, context.sizes.margin
    planted = {
        "kfac: the regression with ten times the ridge": _distances(
            context, "kfac", ridge=10, scaled=True
        ),
        "sgd: kernel regression": _distances(context, "sgd", scaled=True),
        "shampoo: kernel regression": _distances(context, "shampoo", scaled=True),
    }
    half = -Rational(1, 2)
    return Evidence(tuple(judged(k, estimate(widths, x), half, margin) for k, x in planted.items()))
