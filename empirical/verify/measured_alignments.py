"""The alignment of real training over steps, measured on dense networks of growing width.

At step t, with dW = W_t - W_0 and dz = z_t - z_0 for a layer's input z (the multiplier included)
on held-out probe samples, and |.| the RMS entry,

    |dW z_0| / |dW| |z_0| = fan_in^alpha        |W_0 dz| / |W_0| |dz| = fan_in^omega
    |dW dz| / |dW| |dz| = fan_in^u

(arXiv 2407.05872, the "log alignment ratio"). That paper takes the logarithm to the base fan_in
at one width; a constant factor C then adds log C / log fan_in, which at width 1024 and C = 1/2 is
already a tenth. Here an exponent is the slope of the log ratio over several widths (exponent.py),
where constants drop out, with an interval and a verdict; the paper's number at the widest width
stands beside it.

Only layers whose fan_in grows have an alignment: in the input layer and in biases the length of the
sum is fixed, so its exponent is that of its terms, whatever their alignment.

At t = 1 the verdict is on what the calculus derives (scaling/solve/one_step.py), later on whether
it still holds. A bound on u that no matrix can break (1) is no prediction and gets no verdict.

`as_given` turns measured exponents into exact ones to derive with: the one multiple of 1/4 within
the interval and margin, or a refusal. u enters only through max(alpha, u), so where its interval
ends below alpha, or alpha is 1, it need not be decided.

Not covered: a ratio of something that is exactly zero (a layer that does not move at step t), and
a crossover that begins beyond the widest width (exponent.py): dh of G + W is mostly along W h on
narrow networks, and its part along W_L^T delta takes over late.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from sympy import Expr, Rational, S
from torch import Tensor

from empirical.fit.exponent import Estimate, estimate
from empirical.fit.verdict import Verdict, judge, overall
from empirical.measure.calibration import calibrate
from empirical.measure.machine import blas_threads, check_memory
from empirical.measure.measured_sizes import MOST_NETWORKS, mean_size
from empirical.measure.training import Training, dense_network
from empirical.measure.trial import Constants, Trial, input_of, parameter_of
from empirical.verify.campaign import Experiment, RunRequest, Tick, trial_of
from empirical.verify.subject import Subject
from scaling.models.alignment import NAMES, Alignment
from scaling.sizes.errors import InvalidInput
from scaling.solve.one_step import one_step
from scaling.solve.presets import ALIGNMENTS

WIDTHS = (64, 128, 256, 512, 1024)
SEEDS = 8
MARGIN = 0.1
"""Full and no alignment are a half apart; the rational that is derived with, a quarter."""
CANDIDATES = (Rational(1, 2), Rational(3, 4), S.One)

Ratios: TypeAlias = Mapping[str, float]
"""alpha, omega, u -> the ratio of sizes; NaN where it is 0 / 0."""


@dataclass(frozen=True)
class AlignmentMeasurement:
    """One exponent of one layer at one step, beside what is derived and what is assumed.

    ``at_width`` is the paper's log ratio to the base fan_in at the widest width. ``derived`` is
    what one step has (for u an upper bound), ``verdict`` the one on it; ``against`` judges the
    named assumptions full and none.
    """

    layer: str
    quantity: str
    step: int
    measured: Estimate
    at_width: float
    derived: Expr | None
    verdict: Verdict | None
    against: Mapping[str, Verdict]

    @property
    def is_bound(self) -> bool:
        """Whether ``derived`` is an upper bound."""
        return self.quantity == "u"


@dataclass(frozen=True)
class Alignments:
    """All exponents of a run, by step, layer and quantity."""

    rule: str
    rows: tuple[AlignmentMeasurement, ...]
    widths: tuple[int, ...]
    seeds: int
    margin: float
    notes: tuple[str, ...]

    @property
    def verdict(self) -> Verdict:
        """The gravest verdict on what one step has, over all steps."""
        return overall(row.verdict for row in self.rows if row.verdict is not None)


def schedule(steps: int) -> tuple[int, ...]:
    """1, 2, 4, ... and the last step.

    >>> schedule(6)
    (1, 2, 4, 6)
    """
    if steps < 1:
        raise InvalidInput(f"steps={steps}", "at least 1", "pass steps=1")
    powers = [2**k for k in range(steps.bit_length()) if 2**k < steps]
    return (*powers, steps)


def ratios(weight: Tensor, change: Tensor, z: Tensor, dz: Tensor) -> dict[str, float]:
    """How a matrix and its change meet what they act on, before and after.

    Args:
        weight: W_0, (fan_out, fan_in).
        change: W_t - W_0, of the same shape.
        z: inputs at the start, (samples, fan_in).
        dz: their change, of the same shape.

    >>> import torch
    >>> z = torch.ones(1, 100)
    >>> found = ratios(torch.eye(100), torch.ones(5, 100), z, z)
    >>> round(found["alpha"], 3), round(found["omega"], 3)
    (100.0, 10.0)
    """
    pairs = {"alpha": (change, z), "omega": (weight, dz), "u": (change, dz)}
    return {name: _ratio(matrix, rows) for name, (matrix, rows) in pairs.items()}


def trajectory(
    trial: Trial, constants: Constants, width: int, seed: int, at: Sequence[int]
) -> dict[tuple[int, str], dict[str, float]]:
    """(step, layer) -> ratios of one network, trained on the whole batch at every step.

    Raises:
        InvalidInput: if training diverges.
    """
    scales = trial.scales(width, constants)
    model = dense_network(trial, scales, width, seed)
    probe = trial.data.probe_inputs.to(trial.device)
    grown = [(name, layer) for name, layer in trial.layers() if layer.fan_in != 0]
    with torch.no_grad():
        before = [probe, *model.hidden(probe)]
    start = {name: model.get_parameter(parameter_of(name)).detach().clone() for name, _ in grown}
    training = Training(trial, model, scales, seed)
    found: dict[tuple[int, str], dict[str, float]] = {}
    for step in range(1, at[-1] + 1):
        training.step()
        if step not in at:
            continue
        with torch.no_grad():
            after = [probe, *model.hidden(probe)]
            if not bool(after[-1].isfinite().all()):
                raise InvalidInput(
                    f"an output that overflows at step {step}, width {width}, seed {seed}",
                    "training that stays finite",
                    "fewer --steps, or a larger c",
                )
            for name, layer in grown:
                l, own = layer.position - 1, scales[layer.name]
                z = input_of(layer, before[l], own)
                dz = input_of(layer, after[l] - before[l], own)
                change = model.get_parameter(parameter_of(name)) - start[name]
                found[step, layer.name] = ratios(start[name], change, z, dz)
    return found


def measure_alignments(
    subject: Subject, experiment: Experiment, steps: int, tick: Tick | None = None
) -> Alignments:
    """Train networks of growing width, and fit an exponent to every ratio at steps 1, 2, 4, ...

    Narrow networks fluctuate more and cost less: a seed is the geometric mean over as many of them
    as have the neurons of the widest one, up to 16.

    Args:
        subject: the rule in its setting and under its exponents.
        experiment: widths, seeds, margin, data, device, threads.
        steps: the last step.
        tick: called with (rule, done, total) after every width and seed.

    Raises:
        InvalidInput: for what `trial_of` and `calibrate` refuse, and for training that diverges.
    """
    trial, at, widths = trial_of(subject, experiment), schedule(steps), experiment.widths
    name = trial.problem.rule.name or str(trial.problem.rule)
    check_memory(widths[-1], trial.problem.setting.depth, trial.data.features)
    derived = one_step(trial.problem, trial.exponents, subject.bounds)
    runs: list[list[dict[tuple[int, str], dict[str, float]]]] = []
    with blas_threads(experiment.threads):
        constants = calibrate(trial, widths[0])
        for seed in range(experiment.seeds):
            runs.append([])
            drawn = experiment.first_seed + seed
            for width in widths:
                networks = min(MOST_NETWORKS, max(1, widths[-1] // width))
                few = [
                    trajectory(trial, constants, width, drawn * MOST_NETWORKS + i, at)
                    for i in range(networks)
                ]
                runs[-1].append({key: _mean([x[key] for x in few]) for key in few[0]})
                if tick is not None:
                    done = seed * len(widths) + len(runs[-1])
                    tick(name, done, experiment.seeds * len(widths))
    rows, notes = [], []
    for step, layer in runs[0][0]:
        for quantity in NAMES:
            table = np.array([[run[step, layer][quantity] for run in row] for row in runs])
            if not np.isfinite(table).all() or not (table > 0).all():
                notes.append(f"{quantity} of {layer} at step {step}: something is exactly zero")
                continue
            known = getattr(derived[layer], quantity)
            rows.append(_judged(layer, quantity, step, table, known, experiment))
    return Alignments(name, tuple(rows), widths, experiment.seeds, experiment.margin, tuple(notes))


def experiment_of(request: RunRequest) -> Experiment:
    """How alignments are measured, where it is not said."""
    return request.experiment(WIDTHS, SEEDS, MARGIN)


def as_given(found: Alignments, layers: Sequence[str]) -> dict[str, Alignment]:
    """Exact alignments of the layers, from the last step that was measured.

    Raises:
        InvalidInput: where an interval does not hold exactly one multiple of 1/4 within the
            margin, and for what is missing because something did not move.
    """
    last = max((row.step for row in found.rows), default=0)
    rows = {(row.layer, row.quantity): row for row in found.rows if row.step == last}
    across = f"widths {found.widths[0]}..{found.widths[-1]}, {found.seeds} seeds"
    result = {}
    for layer in layers:
        missing = [name for name in NAMES if (layer, name) not in rows]
        if missing:
            raise InvalidInput(
                f"no measured {missing[0]} of the {layer} layer at step {last}",
                "a layer whose weights and inputs both move",
                "more --steps, or name numbers for that layer",
            )
        alpha = _exact(rows[layer, "alpha"], found.margin)
        omega = _exact(rows[layer, "omega"], found.margin)
        u, note = _exact_u(rows[layer, "u"], alpha, found.margin)
        origin = f"is measured at step {last} in {layer} ({across}{note})"
        result[layer] = Alignment(alpha, omega, u, origin)
    return result


def _exact_u(row: AlignmentMeasurement, alpha: Expr, margin: float) -> tuple[Expr, str]:
    """u, or alpha in its place where u is no larger: only the larger one counts."""
    highest = min(row.measured.high, 1.0)  # Cauchy-Schwarz: |dW dz| <= fan_in |dW| |dz|
    if len(_within(row.measured, margin)) != 1 and highest <= float(alpha) + margin:
        return alpha, f"; u is {row.measured}: undecided, but no larger than alpha"
    return _exact(row, margin), ""


def _exact(row: AlignmentMeasurement, margin: float) -> Expr:
    held = _within(row.measured, margin)
    if len(held) == 1:
        return held[0]
    what = " and ".join(str(x) for x in held) or "none of 1/2, 3/4 and 1"
    raise InvalidInput(
        f"{row.quantity} of the {row.layer} layer at step {row.step} is {row.measured}, which "
        f"holds {what} within {margin:g}",
        "an interval that holds exactly one multiple of 1/4: exponents are exact",
        f"more --widths and --seeds, or say which: --alignment {row.layer}=alpha,omega,u",
    )


def _within(fit: Estimate, margin: float) -> list[Expr]:
    return [x for x in CANDIDATES if fit.low - margin <= float(x) <= fit.high + margin]


def _judged(
    layer: str,
    quantity: str,
    step: int,
    table: Any,
    derived: Expr | None,
    experiment: Experiment,
) -> AlignmentMeasurement:
    fit, margin = estimate(experiment.widths, table), experiment.margin
    verdict = None
    if derived is not None and derived.is_number:
        verdict = judge(fit, float(derived), margin)
        if quantity == "u":
            bound = float(derived)
            verdict = Verdict.agree if fit.high <= bound + margin else verdict
            verdict = None if bound >= 1 else verdict
    against = {
        name: judge(fit, float(getattr(x, quantity)), margin) for name, x in ALIGNMENTS.items()
    }
    at_width = float(np.log(table[:, -1]).mean()) / math.log(experiment.widths[-1])
    return AlignmentMeasurement(layer, quantity, step, fit, at_width, derived, verdict, against)


def _mean(few: Sequence[Ratios]) -> dict[str, float]:
    """The geometric mean over networks; NaN as soon as one has none."""
    lists = {name: [x[name] for x in few] for name in few[0]}
    return {k: math.nan if any(map(math.isnan, v)) else mean_size(v) for k, v in lists.items()}


def _ratio(matrix: Tensor, rows: Tensor) -> float:
    under = _rms(matrix) * _rms(rows)
    return _rms(matrix @ rows.T) / under if under > 0 else math.nan


def _rms(x: Tensor) -> float:
    return float(x.square().mean().sqrt())
