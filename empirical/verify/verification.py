"""Theory against measurement: predicted | measured [interval] | verdict, layer by layer.

For each rule: calibrate the constants at the narrowest width, take one step at every width and
seed (averaged over several networks at narrow widths, as many as the widest network has neurons
for), fit an exponent with an interval to every size (exponent.py), and judge it against the
exponent that `scaling.solve.predict.predict` derives. Where sizes still cross over from one
exponent to another, the sum that does it is named: the damped sum whose two terms trade places on
the way.

Every verdict can fail: ``--expect own_hidden=1/4`` replaces a prediction by a wrong one, and the
tests hold that it is contradicted.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from sympy import Expr, S

from empirical.fit.crossover import culprit, drift, small_targets, too_narrow
from empirical.fit.exponent import DECAY, Estimate, estimate
from empirical.fit.verdict import Verdict, agreeing_margin, judge, overall, remedy
from empirical.limits.infinite_width import limits
from empirical.measure.measurement import (
    Constants,
    Measurement,
    Trial,
    blas_threads,
    calibrate,
    check_memory,
)
from empirical.measure.record import record_store
from empirical.verify.campaign import Experiment, Mode, Tick, counted, run, trial_of
from empirical.verify.derivation_lines import measured_lines
from empirical.verify.subject import Subject
from scaling.models.chain import Loss
from scaling.models.settings import exact
from scaling.report.step_lines import timed
from scaling.sizes.derivation import Step
from scaling.sizes.errors import InvalidInput, NotCovered, unknown
from scaling.sizes.in_notebook import InNotebook
from scaling.solve.predict import Prediction, predict
from scaling.states.problem import CONVENTION

TOUR = ("sgd", "sign", "adam", "kfac", "foof", "shampoo", "muon")
EXIT_CODE = {
    Verdict.agree: 0,
    Verdict.contradict: 1,
    Verdict.crossover: 3,
    Verdict.inconclusive: 3,
}
WIDEST = {Mode.DENSE: 32768, Mode.WIDE: 10**8}
"""The widest network that advice names, by mode."""
QUANTITIES = ("init", "own", "feature")
"""Quantities of every layer; rules with a decay have `SHRINK` beside them,
those that perturb the weights `ASCENT`."""
SHRINK, ASCENT = "shrink", "ascent"


def exit_code(verdicts: Iterable[Verdict]) -> int:
    """Of the gravest verdict."""
    return EXIT_CODE[overall(verdicts)]


@dataclass(frozen=True)
class Check:
    """One exponent, predicted and measured."""

    rule: str
    layer: str
    quantity: str
    predicted: Expr
    measured: Estimate
    verdict: Verdict
    note: str = ""
    mode: Mode = Mode.DENSE
    size: float | None = None
    limit: float | None = None


@dataclass(frozen=True)
class Series:
    """Sizes of one rule: ``layers[layer][quantity]`` is an array (seeds, widths)."""

    rule: str
    mode: Mode
    widths: tuple[int, ...]
    layers: Mapping[str, Mapping[str, Any]]
    seeds: int
    samples: int
    margin: float

    @property
    def label(self) -> str:
        """Rule and mode."""
        return f"{self.rule} ({self.mode})"

    @property
    def about(self) -> str:
        """Mode, widths, seeds, samples and margin."""
        across = f"{self.widths[0]:,}..{self.widths[-1]:,}"
        drawn = f"{self.seeds} seeds, {self.samples} samples"
        return f"{self.mode} {across} ({drawn}, margin {self.margin:g})"


@dataclass(frozen=True)
class Verification(InNotebook):
    """All checks of a run, and the sizes they rest on."""

    checks: tuple[Check, ...]
    series: tuple[Series, ...]
    seeds: int
    margin: float
    seconds: float
    notes: tuple[str, ...]
    assumptions: tuple[str, ...] = ()
    """Statements that the predictions rest on."""
    regimes: tuple[str, ...] = ()
    """Which terms the predictions take to dominate."""
    convention: str = CONVENTION

    @property
    def widths(self) -> tuple[int, ...]:
        """All widths of the run."""
        return tuple(sorted({width for series in self.series for width in series.widths}))

    @property
    def verdict(self) -> Verdict:
        """Contradict beats crossover beats inconclusive beats agree."""
        return overall(check.verdict for check in self.checks)


def parse_expectations(texts: Sequence[str], layers: Sequence[str]) -> dict[tuple[str, str], Expr]:
    """``quantity_layer=exponent`` -> {(quantity, layer): exponent}; df: the output's feature."""
    expected = {}
    known = [
        f"{quantity}_{layer}" for layer in layers for quantity in (*QUANTITIES, SHRINK, ASCENT)
    ]
    for text in texts:
        key, equals, value = (part.strip() for part in text.partition("="))
        if not equals:
            raise InvalidInput(
                f"the expectation '{text}'", "quantity_layer=exponent", "try own_hidden=1/4"
            )
        key = "feature_output" if key in ("df", "df_output") else key
        if key not in known:
            raise unknown("expectation", key, known)
        quantity, layer = key.split("_", 1)
        expected[quantity, layer] = exact(value)
        x = expected[quantity, layer]
        if not x.is_number or x is S.Infinity:
            raise InvalidInput(f"the expectation '{text}'", "a number", "try own_hidden=1/4")
    return expected


def verify(
    subjects: Sequence[Subject],
    experiment: Experiment,
    expect: Sequence[str] = (),
    out: Path | None = None,
    tick: Tick | None = None,
) -> Verification:
    """Measure every rule over widths and seeds and judge it against its prediction.

    Args:
        subjects: the rules, each in its setting and under its exponents.
        experiment: widths, seeds, margin, data, device, threads.
        expect: predictions to replace.
        out: folder in which finished measurements are kept.
        tick: called with (rule, done, total) after every measurement.

    Raises:
        InvalidInput: for anything that cannot be measured, before the first measurement.
    """
    start = time.perf_counter()
    subjects = [subject.on(experiment.data) for subject in subjects]
    trials = [trial_of(subject, experiment) for subject in subjects]
    predictions = [predict(x.problem, x.exponents, x.bounds) for x in subjects]
    names = _distinct([_name(t) for t in trials])
    layers = list(predictions[0].layers)
    expected = parse_expectations(expect, layers)
    if experiment.own_only and any(quantity == "feature" for quantity, _ in expected):
        raise InvalidInput(
            f"an expectation of a feature change among {', '.join(expect)}",
            "expectations of what is measured: init and own",
            "leave out --quantity own, or that --expect",
        )
    if experiment.mode is Mode.DENSE:
        depth, features = trials[0].problem.setting.depth, experiment.data.features
        check_memory(experiment.widths[-1], depth, features)
    else:
        experiment.streaming.hold(experiment.data, experiment.base)
    for trial, prediction in zip(trials, predictions, strict=True):
        _need_numbers(trial, prediction)
    store = record_store(out)
    checks: list[Check] = []
    series: list[Series] = []
    notes: list[str] = []
    finished = 0
    with blas_threads(experiment.threads):
        for i, (name, trial, prediction) in enumerate(zip(names, trials, predictions, strict=True)):
            constants = calibrate(trial, experiment.base)
            limit, at = _limits(trial, constants, experiment), experiment
            while True:
                total = finished + at.cells + (len(trials) - i - 1) * experiment.cells
                count = counted(tick, name, total, finished)
                runs = run(name, trial, constants, at, store, count)
                sizes = _collect(runs, layers)
                found, said = _judge(name, trial, prediction, sizes, expected, at, runs, limit)
                more = _more_seeds(found, at)
                if more == at.seeds:
                    break
                at = replace(at, seeds=more)
            finished += at.cells
            shared = at.seeds, at.data.samples, at.margin
            series.append(Series(name, at.mode, at.widths, sizes, *shared))
            checks += found
            notes += said
    return Verification(
        tuple(checks),
        tuple(series),
        max(x.seeds for x in series),
        experiment.margin,
        time.perf_counter() - start,
        tuple(notes),
        _union(x.assumptions for x in predictions),
        _union(x.regime_lines for x in predictions),
    )


def _union(texts: Iterable[Iterable[str]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text for some in texts for text in some))


def _name(trial: Trial) -> str:
    """The rule, and the step if it is not the first: sizes "at the start" are then before that."""
    name, step = trial.problem.rule.name or str(trial.problem.rule), trial.problem.step
    return name if step == 1 else f"{name} at step {step}"


def _distinct(names: Sequence[str]) -> list[str]:
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidInput(f"the rule '{twice}' twice", "different rules", "name each rule once")
    return list(names)


def _need_numbers(trial: Trial, prediction: Prediction) -> None:
    trial.scales(64, trial.unit_constants())
    for name, layer in prediction.layers.items():
        for quantity in (*QUANTITIES, SHRINK, ASCENT):
            x = getattr(layer, quantity)
            if x is not None and not x.is_number:
                raise InvalidInput(
                    f"{quantity} of the {name} layer is predicted as {x}",
                    "numbers to compare with",
                    "give every symbol a value with --set",
                )


def verify_all(
    plans: Sequence[tuple[list[Subject], Experiment]],
    expect: Sequence[str] = (),
    out: Path | None = None,
    tick: Tick | None = None,
) -> Verification:
    """All plans, one after the other, as one verification; refusals come before any of them."""
    for subjects, at in plans:
        for subject in subjects:
            trial_of(subject, at)
    return merged([verify(subjects, at, expect, out, tick) for subjects, at in plans])


def verify_deep(
    subjects: Sequence[Subject],
    steps: Sequence[Mapping[str, Step]],
    experiment: Experiment,
    tick: Tick | None = None,
) -> Verification:
    """Every line of every derivation, on dense networks: one check a line.

    Args:
        subjects: see `verify`.
        steps: for each rule its derivation by layer.
        experiment: widths, seeds, margin, data, device, threads.
        tick: called with (rule, done, total) after every rule.
    """
    start, checks = time.perf_counter(), []
    for i, (subject, derivation) in enumerate(zip(subjects, steps, strict=True)):
        trial = trial_of(subject, experiment)
        name = _name(trial)
        x = experiment
        with blas_threads(x.threads):
            found = measured_lines(trial, derivation, x.widths, x.seeds, x.margin, x.first_seed)
        for layer, lines in found.items():
            for line in lines:
                if line.measured is not None and line.verdict is not None:
                    quantity = f"{timed(line.step)} ({line.step.result.of})"
                    checks.append(
                        Check(name, layer, quantity, line.predicted, line.measured, line.verdict)
                    )
        if tick is not None:
            tick(name, i + 1, len(subjects))
    unique = {(c.rule, c.layer, c.quantity): c for c in checks}
    seconds = time.perf_counter() - start
    assumed = _union(x.assumptions() for lines in steps for x in lines.values())
    return Verification(
        tuple(unique.values()), (), experiment.seeds, experiment.margin, seconds, (), assumed
    )


def _limits(trial: Trial, constants: Constants, experiment: Experiment) -> dict[str, float]:
    """Limiting sizes of own updates at the widest width, where there is a limit."""
    try:
        found = limits(trial, constants, experiment.widths[-1])
    except NotCovered:
        return {}
    return {layer: limit.own for layer, limit in found.items()}


def merged(results: Sequence[Verification]) -> Verification:
    """Several runs as one."""
    return Verification(
        tuple(check for result in results for check in result.checks),
        tuple(series for result in results for series in result.series),
        max(result.seeds for result in results),
        max(result.margin for result in results),
        sum(result.seconds for result in results),
        _union(result.notes for result in results),
        _union(result.assumptions for result in results),
        _union(result.regimes for result in results),
    )


def _more_seeds(checks: Sequence[Check], experiment: Experiment) -> int:
    """Twice the seeds, or the most there may be, if noise leaves a check undecided.

    How many would settle it is itself a noisy number, so that each doubling is tried. A check is
    looked at again with every one, of which `campaign.plan` allows two, and says something only
    where its whole interval does: the chance that it is wrong stays below the sum of those of three
    looks.
    """
    undecided = [c for c in checks if c.verdict in (Verdict.crossover, Verdict.inconclusive)]
    cures = [remedy(c.measured, float(c.predicted), experiment.margin) for c in undecided]
    widest, most = experiment.widths[-1], experiment.most_seeds
    wanted = [cure.seeds for cure in cures if cure is not None and cure.width == widest]
    helps = any(seeds > experiment.seeds for seeds in wanted)
    return max(min(2 * experiment.seeds, most), experiment.seeds) if helps else experiment.seeds


def _collect(runs: list[list[Measurement]], layers: Sequence[str]) -> dict[str, dict[str, Any]]:
    return {
        layer: {
            quantity: np.array([[getattr(m.sizes[layer], quantity) for m in row] for row in runs])
            for quantity in runs[0][0].sizes[layer].known()
        }
        for layer in layers
    }


def _judge(
    name: str,
    trial: Trial,
    prediction: Prediction,
    sizes: Mapping[str, Mapping[str, Any]],
    expected: Mapping[tuple[str, str], Expr],
    experiment: Experiment,
    runs: list[list[Measurement]],
    limit: Mapping[str, float],
) -> tuple[list[Check], list[str]]:
    checks, notes, layers = [], [], list(prediction.layers)
    for layer, predicted in prediction.layers.items():
        for quantity in sizes[layer]:
            x = expected.get((quantity, layer), getattr(predicted, quantity))
            if x is None and quantity in (SHRINK, ASCENT):
                continue
            if x is None:
                notes.append(
                    f"{name}: {quantity} of {layer} is not predicted above an unstable layer"
                )
                continue
            target = -math.inf if x is S.NegativeInfinity else float(x)
            slow = min(DECAY, float(predicted.gaps.get(quantity, S.Infinity)))
            measured = estimate(experiment.widths, sizes[layer][quantity], decay=slow)
            verdict = judge(measured, target, experiment.margin)
            note = ""
            if verdict is Verdict.contradict and (quantity, layer) not in expected:
                felt = [layer] if quantity == "own" else layers[: layers.index(layer) + 1]
                note = too_narrow(runs, prediction, felt, experiment.margin)
                note = note or _drowned(trial, prediction, runs)
                verdict = Verdict.crossover if note else verdict
            elif verdict is Verdict.crossover:
                note = culprit(runs, layer) or f"{drift(measured)}: "
                note += _advice(measured, target, experiment) if note.endswith(": ") else ""
            elif verdict is Verdict.inconclusive:
                note = _advice(measured, target, experiment)
            widest = float(np.sqrt((sizes[layer][quantity][:, -1] ** 2).mean()))
            at_infinity = limit.get(layer) if quantity == "own" else None
            checks.append(
                Check(
                    name, layer, quantity, x, measured, verdict, note, experiment.mode, widest,
                    at_infinity,
                )
            )  # fmt: skip
    return checks, notes


def _drowned(trial: Trial, prediction: Prediction, runs: list[list[Measurement]]) -> str:
    """Why errors are not of order one on the way, where outputs fade and are squared with them."""
    fades = prediction.layers["output"].init.is_negative
    if not fades or trial.problem.setting.loss is not Loss.MSE:
        return ""
    return small_targets(runs, float(trial.data.targets.square().mean().sqrt()))


def _widened(measured: Estimate, target: float) -> str:
    if math.isinf(target) or math.isinf(measured.low) or math.isinf(measured.high):
        return "look at the sizes themselves, --out DIR writes them"
    return f"--margin {agreeing_margin(measured, target):g} would agree"


def _advice(measured: Estimate, target: float, experiment: Experiment) -> str:
    cure = remedy(measured, target, experiment.margin)
    reach = max(WIDEST[experiment.mode], experiment.widths[-1])
    if cure is None or cure.width > reach:
        return f"no seeds and no width up to {reach:,} settle it: {_widened(measured, target)}"
    if cure.seeds > experiment.seeds:
        return f"--seeds {cure.seeds} would settle it"
    return f"--widths {experiment.widths[0]}:{cure.width} would settle it"
