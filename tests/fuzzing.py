"""Random rules, read by theory and by measurement: `make fuzz-measured`, and tests/test_fuzz.py.

A rule is built from the grammar, with random powers, dampings and readout. The calculus either
refuses it by name or predicts what each layer's own update does; the prediction is compared with
networks of growing width, exact in law where that is possible. A contradiction is a bug, in theory
or in measurement. Hypothesis shrinks it to a minimal rule.

Outcomes: agree, near (the slope is within half the margin, its interval is not), contradict,
crossover, inconclusive, zero, and refusals.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sympy import S

from empirical.data.sources import Data, load
from empirical.fit.exponent import estimate
from empirical.fit.verdict import Verdict, judge
from empirical.measure.calibration import calibrate
from empirical.measure.dense_steps import measure
from empirical.measure.machine import blas_threads
from empirical.measure.trial import Trial
from empirical.wide import Streaming, measure_wide
from empirical.wide.method import Path, path_of
from scaling.models.chain import Activation, Setting, mlp
from scaling.models.settings import read_settings
from scaling.rules.parser import parse
from scaling.sizes.errors import NotCovered, ScalingError
from scaling.solve.derive import derive
from scaling.solve.predict import predict

MARGIN = 0.2
WIDE, DENSE = (2048, 8192, 32768, 131072), (128, 256, 512, 1024)
SEEDS = 4


@dataclass(frozen=True)
class Case:
    """A rule and what is fixed with it."""

    rule: str
    fixed: tuple[str, ...]
    activation: Activation

    def __str__(self) -> str:
        return " ".join([f'"{self.rule}"', *(f"--set {x}" for x in self.fixed),
                         f"--activation {self.activation.label}"])  # fmt: skip


# --- rules --------------------------------------------------------------------------------------

POWERS = st.sampled_from(["1/4", "1/2", "1", "0"])
FACTORS = (
    st.sampled_from(["B", "L", "diag(B)", "diag(L)"]),
    st.sampled_from(["A", "R", "diag(A)", "diag(R)"]),
)


@st.composite
def preconditioners(draw: st.DrawFn, right: bool) -> str:
    """A damped power of a factor, the damping absolute or relative."""
    x, p = draw(FACTORS[right]), draw(POWERS)
    name = "rho_r" if right else "rho_l"
    damping = draw(st.sampled_from([name, f"{name}*trace({x})", f"{name}*specnorm({x})"]))
    return f"({x} + {damping}*I)**(-({p}))"


def scalars(update: str) -> st.SearchStrategy[str]:
    """A positive number of the layer."""
    named = ["norm(G)", "rms(G)", "norm(W)", "rms(W)", "trace(A)", "rms(B)", "fan_in", "fan_out",
             "specnorm(A)", "max(1, fan_out/fan_in)", "norm(row_mean(G*G))", f"norm({update})",
             f"rms(abs({update}))", "max(norm(G), 1)", "min(norm(G), 1)",
             f"inner({update}, {update})", "over_layers(norm(G))",
             "over_layers(inner(B @ G @ A, G))"]  # fmt: skip
    return st.sampled_from(named)


ENTRYWISE = [
    "sign({0})", "{0}/(abs({0}) + eps)", "{0}/sqrt(row_mean(({0})*({0})) + eps)",
    "{0}/sqrt(col_mean(({0})*({0})) + eps)", "clip({0}, 1)", "{0}/sqrt(({0})*({0}) + eps)",
    "sign({0})*abs({0})**(1/2)", "({0})*abs({0})", "orth({0})", "{0} - row_mean({0})",
    "atan({0}/rms({0}))", "newton_schulz({0}, 3)", "tanh({0})", "{0}*agree({0}, G)",
    "{0}/(mean(abs({0})) + eps)",
]  # fmt: skip


@st.composite
def updates(draw: st.DrawFn, depth: int = 2) -> str:
    """An update, fan_out x fan_in."""
    if depth == 0:
        return "G"
    inner = draw(updates(depth - 1))
    kind = draw(st.integers(0, 6))
    if kind == 0:
        return f"{draw(preconditioners(False))} @ ({inner})"
    if kind == 1:
        return f"({inner}) @ {draw(preconditioners(True))}"
    if kind == 2:
        left, right = draw(preconditioners(False)), draw(preconditioners(True))
        return f"{left} @ ({inner}) @ {right}"
    if kind == 3:
        return draw(st.sampled_from(ENTRYWISE)).format(f"({inner})")
    if kind == 4:
        p = draw(st.sampled_from(["", "**(1/2)", "**(-1/2)"]))
        return f"({inner}) {draw(st.sampled_from('*/'))} ({draw(scalars(inner))}){p}"
    if kind == 5:
        return f"({inner}) + 2*({draw(updates(depth - 1))})"
    return inner


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A rule, and perhaps a readout, a damping or a multiplier that is given."""
    rule = draw(updates(draw(st.integers(1, 3))))
    fixed = []
    readout = draw(st.sampled_from([None, None, "3/4", "1"]))
    fixed += [] if readout is None else [f"b_output={readout}"]
    if draw(st.booleans()):
        fixed.append(f"a_hidden={draw(st.sampled_from(['1/4', '1/2', '-1/4']))}")
    rule += draw(st.sampled_from(["", "", "", "", " + decay*W"]))
    parsed = parse(rule)
    for damping in parsed.dampings:
        if draw(st.integers(0, 4)) == 0:  # far from balance at every width, so nothing crosses over
            small = draw(st.booleans())
            fixed += [
                f"d_{damping}={3 if small else -2}",
                f"{damping}={'1/1000' if small else 1000}",
            ]
    phi = draw(st.sampled_from([Activation.RELU, Activation.TANH]))
    return Case(rule, tuple(fixed), phi)


# --- theory against measurement -----------------------------------------------------------------


@cache
def data() -> Data:
    """Digits, few enough for the widest networks."""
    return load("digits", samples=6, probe=6)


def outcome(case: Case) -> dict[str, str]:
    """By layer the verdict on its own update, or one refusal for all.

    Raises:
        AssertionError: if theory and measurement contradict each other.
    """
    rule, setting = parse(case.rule), Setting(mlp(3), case.activation)
    try:
        chosen = read_settings(case.fixed, rule, setting.layers)
        solution = derive(rule, chosen, setting)
        found = predict(solution.problem, solution.exponents, solution.bounds)
    except NotCovered as refusal:
        return {"all": f"not covered: {refusal.found[:40]}"}
    except ScalingError as refusal:
        return {"all": f"refused: {type(refusal).__name__}"}
    predicted = {name: x.own for name, x in found.layers.items()}
    if not all(x.is_number for x in predicted.values()):
        return {"all": "symbols are left"}
    trial = Trial(solution.problem, solution.exponents, dict(chosen.values), data())
    with blas_threads(1):
        try:
            sizes = measured(trial)
        except ScalingError as refusal:
            return {"all": f"not measured: {refusal.found[:60]}"}
    verdicts: dict[str, str] = {}
    for name, x in predicted.items():
        if bool((sizes[name][1] <= 0).any()):
            verdicts[name] = "zero"
            assert x == -S.Infinity or bool((sizes[name][1] > 0).any()), (
                case,
                name,
                str(x),
                "zero",
            )
            continue
        fit = estimate(*sizes[name])
        verdict = judge(fit, float(x), MARGIN)
        wrong = verdict is Verdict.contradict and abs(fit.slope - float(x)) > MARGIN
        assert not wrong, f"{case}: own of {name} is predicted M^({x}), measured M^{fit}"
        near = verdict is not Verdict.agree and abs(fit.slope - float(x)) <= MARGIN / 2
        verdicts[name] = "near" if near else str(verdict)
    return verdicts


def measured(trial: Trial) -> dict[str, tuple[tuple[int, ...], np.ndarray]]:
    """Layer -> widths, and sizes of its own update by seed and width."""
    wide = path_of(trial.problem.rule) is Path.CORE
    widths = WIDE if wide else DENSE
    constants = calibrate(trial, 64)
    runs = [
        [
            measure_wide(trial, constants, m, seed, streaming=Streaming())
            if wide
            else measure(trial, constants, m, seed)
            for m in widths
        ]
        for seed in range(SEEDS)
    ]
    return {
        name: (widths, np.array([[run.sizes[name].own for run in row] for row in runs]))
        for name in runs[0][0].sizes
    }


def fuzz(examples: int, seed: int | None = 0) -> Counter[str]:
    """Try so many rules; returns how often each outcome occurred."""
    seen: Counter[str] = Counter()

    @settings(
        max_examples=examples, deadline=None, database=None, derandomize=seed == 0,
        suppress_health_check=list(HealthCheck), print_blob=False,
    )  # fmt: skip
    @given(cases())
    def theory_and_measurement_agree(case: Case) -> None:
        for verdict in outcome(case).values():
            seen[verdict.split(":")[0]] += 1

    check: Callable[[], None] = theory_and_measurement_agree
    check()
    return seen


if __name__ == "__main__":
    print(fuzz(int(sys.argv[1]) if len(sys.argv) > 1 else 1000, seed=None))
