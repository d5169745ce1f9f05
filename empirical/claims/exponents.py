"""The evidence of most claims: a rule under a table of exponents, derived, measured and judged.

    solved     the exponents that the conditions give, with what the settings fix
    literal    the exponents of muP with what the settings fix written over them
    symbolic   a published table beside the derived one, cell by cell
    measured   own and feature of every layer, exact in law, against `scaling.solve.predict.predict`
    dampings   lambda_max of every damped factor and rho/lambda_max against the calculus' regimes

``planted`` moves a prediction by what it says and leaves the measurement as it is: the negative
control of whatever was predicted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import sympy
from numpy.typing import NDArray
from sympy import Expr, Rational, S

from empirical.claims.claim import Finding
from empirical.claims.environment import Environment
from empirical.claims.figures import Curve, Figure
from empirical.fit.exponent import Estimate, estimate
from empirical.fit.verdict import Verdict, judge
from empirical.measure.calibration import calibrate
from empirical.measure.machine import blas_threads
from empirical.measure.measured_sizes import Measurement
from empirical.measure.training import damped_sums
from empirical.verify.campaign import Experiment, counted, run, trial_of
from empirical.verify.subject import Subject
from scaling.cli.requests import problem_of, problem_with, resolve, solution_of, subject_of
from scaling.models.settings import exact
from scaling.rules.tree import Node
from scaling.solve.derive import Derived, derive
from scaling.solve.predict import Prediction, predict

LAYERS = ("input", "hidden", "output")
QUARTER = Rational(1, 4)
PLANTED = QUARTER
"""By how much controls move an exponent: the smallest step that the theory knows."""


def solved(rule: str, *settings: str, **options: Any) -> Subject:
    """A rule under the exponents that `derive` gives, with what the settings fix.

    ``options`` are those of `scaling.cli.requests.problem_with`: activation, loss, fisher.
    """
    return subject_of(rule, problem_with(rule, *settings, **options), literal=False)


def literal(rule: str, *settings: str, **options: Any) -> Subject:
    """A rule under the exponents of muP, with what the settings fix written over them."""
    return subject_of(rule, problem_with(rule, *settings, **options))


# --- symbols ------------------------------------------------------------------------------------


@cache
def derived(rule: str, *settings: str) -> Derived:
    """The derivation of a rule, its symbols left alone."""
    return solution_of(problem_of(rule, list(settings)))


def symbolic(
    rule: str,
    published: Mapping[str, Sequence[str]],
    *settings: str,
    planted: Expr = S.Zero,
) -> list[Finding]:
    """Published exponents beside derived ones, one finding a row of (input, hidden, output).

    Keys are b, c and d_<damping>; texts are exponents; an empty text is not compared.
    """
    x = derived(rule, *settings).exponents
    rows = {"b": x.b, "c": x.c}
    rows |= {f"d_{k}": {name: x.d[name][k] for name in LAYERS} for k in x.d["hidden"]}
    found = []
    for name, texts in published.items():
        kept = [(layer, text) for layer, text in zip(LAYERS, texts, strict=True) if text]
        ours = [rows[name][layer] for layer, _ in kept]
        theirs = [exact(text) + planted for _, text in kept]
        same = all(u == v or sympy.expand(u - v) == 0 for u, v in zip(ours, theirs, strict=True))
        where = "/".join(layer for layer, _ in kept)
        with_settings = f" ({', '.join(settings)})" if settings else ""
        found.append(
            Finding(
                f"{rule}{with_settings}: {name} of {where}",
                ", ".join(map(str, theirs)),
                ", ".join(map(str, ours)),
                "",
                Verdict.agree if same else Verdict.contradict,
            )
        )
    return found


def same_exponents(label: str, left: Derived, right: Derived) -> Finding:
    """Whether two derivations give the same b and c (and d, where both have the damping)."""
    x, y = left.exponents, right.exponents
    pairs = [(x.b[name], y.b[name]) for name in x.b] + [(x.c[name], y.c[name]) for name in x.c]
    pairs += [
        (x.d[name][k], y.d[name][k]) for name in x.d for k in x.d[name] if k in y.d.get(name, {})
    ]
    same = all(sympy.expand(u - v) == 0 for u, v in pairs)
    shown = [", ".join(str(table.c[name]) for name in LAYERS) for table in (x, y)]
    verdict = Verdict.agree if same else Verdict.contradict
    return Finding(label, f"c: {shown[0]}", f"c: {shown[1]}", "", verdict)


def at_zero(rule: str, *exponents: str) -> Derived:
    """The derivation of a rule with some of its exponents set to zero."""
    return derive(resolve(rule).rule, problem_of(rule, [f"{e}=0" for e in exponents]).settings)


# --- measurements -------------------------------------------------------------------------------


@dataclass(frozen=True)
class TableMeasurement:
    """A rule, what is predicted of one of its steps, and what was measured."""

    label: str
    prediction: Prediction
    experiment: Experiment
    runs: Sequence[Sequence[Measurement]]

    def table(self, layer: str, quantity: str) -> NDArray[np.float64]:
        """Sizes by (seed, width)."""
        return np.array([[getattr(m.sizes[layer], quantity) for m in row] for row in self.runs])

    def predicted(self, layer: str, quantity: str) -> Expr | None:
        """The exponent that theory gives, None where it is silent."""
        found: Expr | None = getattr(self.prediction.layers[layer], quantity)
        return found

    def findings(
        self,
        quantities: Iterable[str] = ("own", "feature"),
        layers: Iterable[str] = LAYERS,
        planted: Expr = S.Zero,
    ) -> list[Finding]:
        """One finding a layer and quantity that is predicted."""
        found = []
        for layer in layers:
            for quantity in quantities:
                x = self.predicted(layer, quantity)
                if x is None:
                    continue
                fit = estimate(self.experiment.widths, self.table(layer, quantity))
                name = "df" if (layer, quantity) == ("output", "feature") else quantity
                text = f"{self.label}: {name} of {layer}"
                found.append(judged(text, fit, x + planted, self.experiment.margin))
        return found

    def damped(self) -> list[Damped]:
        """Every damped factor of every layer: sizes of it and its damping, and their regime."""
        rule = self.prediction.problem.rule
        return [
            Damped(self, layer, total, term, damping)
            for total, (term, damping) in damped_sums(rule).items()
            for layer in LAYERS
        ]

    def figure(self, name: str, title: str, quantity: str = "feature") -> Figure:
        """Sizes against width: geometric means over seeds, bars over all seeds."""
        curves = [self.curve(layer, layer, quantity) for layer in LAYERS]
        shown = "dh (df of the output)" if quantity == "feature" else quantity
        return Figure(name, title, "width M", f"RMS of {shown}", tuple(curves))

    def curve(self, label: str, layer: str, quantity: str) -> Curve:
        """One layer's sizes against width."""
        return curve(label, self.experiment.widths, self.table(layer, quantity))


@dataclass(frozen=True)
class Damped:
    """A factor and its damping in one layer, over widths."""

    of: TableMeasurement
    layer: str
    total: Node
    term: Node
    damping: Node

    def _sizes(self, which: int) -> NDArray[np.float64]:
        place = self.layer, self.total
        return np.array([[m.sums[place][which] for m in row] for row in self.of.runs])

    def _predicted(self) -> tuple[Expr, Expr]:
        """Exponents of the factor and of its damping, from the regime that the calculus took."""
        regimes = self.of.prediction.regimes[self.layer]
        regime = next(r for r in regimes if r.node == self.total)
        sizes = {regime.left: regime.left_size.width, regime.right: regime.right_size.width}
        return sizes[self.term], sizes[self.damping]

    @property
    def eigenvalue(self) -> tuple[Expr, Estimate]:
        """The exponent of lambda_max: predicted, measured."""
        return self._predicted()[0], estimate(self.of.experiment.widths, self._sizes(0))

    @property
    def ratio(self) -> tuple[Expr, Estimate]:
        """The exponent of rho/lambda_max: predicted, measured."""
        term, damping = self._predicted()
        sizes = self._sizes(1) / self._sizes(0)
        return sympy.expand(damping - term), estimate(self.of.experiment.widths, sizes)

    def ratio_curve(self) -> Curve:
        """rho/lambda_max against width."""
        label = f"{self.term} of {self.layer}"
        return curve(label, self.of.experiment.widths, self._sizes(1) / self._sizes(0))

    def eigenvalue_curve(self, label: str) -> Curve:
        """lambda_max against width."""
        return curve(label, self.of.experiment.widths, self._sizes(0))

    def finding(self, what: str, planted: Expr = S.Zero, margin: float | None = None) -> Finding:
        """``what`` is "eigenvalue" or "ratio"."""
        predicted, fit = self.eigenvalue if what == "eigenvalue" else self.ratio
        named = f"lambda_max({self.term})" if what == "eigenvalue" else f"rho/lambda({self.term})"
        label = f"{self.of.label}: {named} of {self.layer}"
        allowed = self.of.experiment.margin if margin is None else margin
        return judged(label, fit, predicted + planted, allowed)


def measured(
    context: Environment, label: str, subject: Subject, steps: int = 1, slow: bool = False
) -> TableMeasurement:
    """Sizes of ``steps`` steps at the tier's widths, finished cells taken from the store.

    ``slow``: at those for exponents that are reached slowly.
    """
    experiment = context.wide_experiment(steps=steps, slow=slow)
    trial = trial_of(subject, experiment)
    prediction = predict(subject.problem, subject.exponents, subject.bounds)
    with blas_threads(context.threads):
        constants = calibrate(trial, experiment.widths[0])
        count = counted(context.tick, label, experiment.cells)
        runs = run(label, trial, constants, experiment, context.records, count)
    return TableMeasurement(label, prediction, experiment, runs)


def curve(label: str, widths: Sequence[int], table: NDArray[np.float64]) -> Curve:
    """Geometric means over seeds, and the range over them."""
    positive = table.min() > 0
    middle = np.exp(np.log(table).mean(axis=0)) if positive else table.mean(axis=0)
    columns = (np.array(widths, float), middle, table.min(axis=0), table.max(axis=0))
    return Curve(label, *(tuple(map(float, x)) for x in columns))


def judged(subject: str, fit: Estimate, predicted: Expr, margin: float) -> Finding:
    """A measured exponent beside a predicted one."""
    verdict = judge(fit, float(predicted), margin)
    return Finding(subject, predicted, signed(fit.slope), interval(fit.low, fit.high), verdict)


def signed(x: float) -> str:
    """A number with its sign; -oo for a size that is exactly zero."""
    if np.isinf(x):
        return "-oo" if x < 0 else "+oo"
    return f"{x:+.3f}"


def interval(low: float, high: float) -> str:
    """[low, high]."""
    return f"[{signed(low)}, {signed(high)}]"
