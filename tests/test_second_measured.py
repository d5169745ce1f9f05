"""The second step measured: exponents, every line of the derivation, and what must be contradicted.

Wide and dense networks agree in law there too.
"""

from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sympy import S
from wide_trials import least_p_value, trial

from empirical.data.sources import load
from empirical.fit.verdict import Verdict
from empirical.measure.calibration import calibrate
from empirical.measure.dense_steps import measure
from empirical.measure.machine import blas_threads
from empirical.measure.trial import Trial
from empirical.numbers.interpreter import LayerTensors, evaluate
from empirical.verify.campaign import Experiment, Mode, trial_of
from empirical.verify.derivation_lines import Line, measured_lines
from empirical.verify.subject import Subject
from empirical.verify.verification import verify
from empirical.wide import Streaming, measure_wide
from scaling.cli.requests import problem_with, solution_of, subject_of
from scaling.rules.parser import parse
from scaling.sizes.errors import InvalidInput

DIGITS = load("digits", samples=8, probe=6)
WIDE: dict[str, Any] = {
    "widths": (1024, 4096, 16384), "seeds": 4, "margin": 0.15, "data": DIGITS,
    "threads": 1, "mode": Mode.WIDE, "streaming": Streaming(),
}  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with blas_threads(1):
        yield


def row(rule: str, *settings: str, **options: Any) -> Subject:
    return subject_of(rule, problem_with(rule, *settings, step=2, **options))


def solved(rule: str, *settings: str, **options: Any) -> Subject:
    """The exponents that are derived at the second step, with what is given."""
    problem = problem_with(rule, *settings, step=2, **options)
    return subject_of(rule, problem, literal=False)


# --- a readout that starts at zero --------------------------------------------------------------


DECAYED = {"seeds": 8, "margin": 0.2}  # the same weights shrink and move, so sizes fluctuate more


@pytest.mark.parametrize(
    ("rule", "options"), [("muon", {}), ("kfac", {}), ("G + decay*W", DECAYED)]
)
def test_the_rates_that_the_second_step_gives_a_zero_readout_are_right(
    rule: str, options: dict[str, Any], tmp_path: Path
) -> None:
    table = solved(rule, "b_output=oo", activation="tanh")
    options = {**WIDE, **options}
    result = verify([table], Experiment(**options), out=tmp_path)
    assert {c.verdict for c in result.checks} == {Verdict.agree}, result.checks
    wrong = [f"{q}_{layer}=1/2" for q in ("own", "feature") for layer in ("input", "hidden")]
    wrong += ["own_output=-1/2", "df=1/2"]
    planted = verify([table], Experiment(**options), wrong, tmp_path)  # nothing is measured again
    for check in planted.checks:
        expected = Verdict.agree if check.quantity == "init" else Verdict.contradict
        assert check.verdict is expected, check


def test_a_wrong_rate_is_measured_as_what_it_does_and_not_as_what_is_right(tmp_path: Path) -> None:
    table = row("sgd", "b_output=oo", "c_hidden=1/2", activation="tanh")
    found = verify([table], Experiment(**WIDE), out=tmp_path)
    own = {c.layer: c for c in found.checks if c.quantity == "own"}
    assert own["hidden"].predicted == -S.Half and own["hidden"].verdict is Verdict.agree
    claimed = verify([table], Experiment(**WIDE), ["own_hidden=0"], tmp_path)
    assert claimed.verdict is Verdict.contradict


def test_at_the_first_step_the_rate_is_free_and_cannot_be_measured() -> None:
    problem = problem_with("sgd", "b_output=oo")
    assert set(solution_of(problem).free) == {"c_input", "c_hidden"}
    table = subject_of("sgd", problem, literal=False)
    with pytest.raises(InvalidInput, match="c of input = c_input"):
        verify([table], Experiment(**WIDE))


# --- lines of the derivation --------------------------------------------------------------------

WIDTHS, MARGIN = (64, 128, 256, 512), 0.2
LINES = {
    "kfac zero readout": ("kfac", ("b_output=oo",), "tanh"),
    "momentum biases": ("momentum", (), "tanh"),
    "h_fac": ("h_fac", (), "relu"),
}


@cache
def lines_of(case: str) -> dict[str, list[Line]]:
    """By layer."""
    rule, settings, activation = LINES[case]
    table = solved(rule, *settings, activation=activation, biases="biases" in case)
    steps = solution_of(table.problem).steps
    x = trial_of(table, Experiment(WIDTHS, 6, MARGIN, DIGITS))
    return measured_lines(x, steps, WIDTHS, 6, MARGIN)


@pytest.mark.parametrize("case", LINES)
def test_no_line_of_the_second_step_is_contradicted(case: str) -> None:
    lines = [line for lines in lines_of(case).values() for line in lines]
    second = [line for line in lines if line.step.time == 2 and line.measured is not None]
    assert len(second) >= 20
    wrong = [x for x in lines if x.verdict is Verdict.contradict]
    assert not wrong, [(x.layer, x.step.subject, x.predicted, str(x.measured)) for x in wrong]
    finite = [x for x in second if x.predicted.is_finite]
    gaps = [abs(x.measured.slope - float(x.predicted)) for x in finite if x.measured]
    assert max(gaps) < 0.35 and np.median(gaps) < 0.08, (max(gaps), np.median(gaps))
    subjects = {line.step.subject for line in second}
    assert {"delta_2", "W_3^T delta_3", "dW_3^T delta_3"} <= subjects


def test_h_facs_rank_one_terms_are_zero_and_then_of_order_one() -> None:
    found = lines_of("h_fac")["hidden"]
    for means in ("row_mean", "col_mean"):
        momentum = f"debiased({means}(G), beta1) - {means}(G)"
        term = f"({momentum})/sqrt(debiased({means}(G*G + eps), beta2))"
        by_time = {x.step.time: x.measured for x in found if x.step.subject == term}
        first, then = by_time[1], by_time[2]
        assert first is not None and then is not None
        assert first.slope == -float("inf") and abs(then.slope) < MARGIN, (means, first, then)


# --- wide and dense -----------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["momentum", "adam_debiased"])
def test_wide_and_dense_second_steps_have_one_law(rule: str) -> None:
    first = trial(rule)
    both: Trial = replace(first, problem=replace(first.problem, step=2))
    constants = calibrate(both, 16)
    runs = [
        [run(both, constants, 16, seed) for seed in range(40)] for run in (measure, measure_wide)
    ]
    ours, theirs = (
        {
            f"{q} {layer}": [asdict(m.sizes[layer])[q] for m in side]
            for layer in side[0].sizes
            for q in ("init", "own", "feature")
        }
        for side in runs
    )
    assert least_p_value(ours, theirs) > 1e-3
    early = [measure_wide(first, constants, 16, seed) for seed in range(40)]
    other = {
        name: [asdict(m.sizes[name.split()[1]])[name.split()[0]] for m in early] for name in ours
    }
    assert least_p_value(ours, other) < 1e-3


def test_the_second_step_is_the_second_of_two() -> None:
    """What two steps do to h is what the first and the second do to it."""
    first = trial("sgd", biases=True)
    two = replace(first, problem=replace(first.problem, step=2))
    constants = calibrate(first, 16)
    both = measure(first, constants, 16, 0, steps=2)
    one, other = (measure(x, constants, 16, 0) for x in (first, two))
    for name, sizes in both.sizes.items():
        parts = one.sizes[name].feature, other.sizes[name].feature
        assert abs(parts[0] - parts[1]) <= sizes.feature <= sum(parts) * (1 + 1e-9), name
        assert other.sizes[name].init != one.sizes[name].init
    assert np.isfinite([s.own for s in other.sizes.values()]).all()


def test_a_layer_without_gradient_rests_whatever_the_rule_makes_of_its_factors() -> None:
    """A factor of rank zero has diagonal blocks too: found by random rules at the second step."""
    H, D = torch.ones(4, 2).double(), torch.zeros(6, 2).double()
    layer = LayerTensors(H, D, torch.zeros(6, 4).double())
    for factor in ("diag(B)", "block(B, 4)", "diag(L)", "block(L, 4)"):
        update = evaluate(parse(f"({factor} + rho*I)**(-1/2) @ G"), layer, {"rho": 1.0})
        assert bool((update.dense() == 0).all()), factor
