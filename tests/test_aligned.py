"""Measured alignments: closed forms, trained networks, and exact exponents out of intervals."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache

import numpy as np
import pytest
import torch
from sympy import Expr, Rational, S
from torch import Tensor

from empirical.data.sources import load
from empirical.fit.exponent import Estimate, estimate
from empirical.fit.verdict import Verdict, judge
from empirical.measure.calibration import calibrate
from empirical.verify.campaign import RunRequest, trial_of
from empirical.verify.measured_alignments import (
    AlignmentMeasurement,
    Alignments,
    as_given,
    experiment_of,
    measure_alignments,
    ratios,
    schedule,
    trajectory,
)
from empirical.verify.subject import Subject
from scaling.cli.requests import literal_of, problem_of, problem_with, solution_of, subject_of
from scaling.models.alignment import NAMES, Alignment
from scaling.rules.parser import parse
from scaling.sizes.errors import InvalidInput
from scaling.solve.derive import derive
from scaling.solve.one_step import OneStep, one_step
from scaling.solve.presets import ALIGNMENTS

HALF, THREE_QUARTERS = Rational(1, 2), Rational(3, 4)
WIDTHS = (64, 128, 256, 512, 1024)
DIGITS = load("digits", samples=16)

# --- closed forms -------------------------------------------------------------------------------

ROWS = 256
Case = Callable[[int, torch.Generator], tuple[Tensor, Tensor, Tensor, Tensor]]
"""Width -> W_0, dW, z, dz."""


def normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def independent(width: int, g: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    matrices = normal(g, ROWS, width), normal(g, ROWS, width)
    return *matrices, normal(g, 8, width), normal(g, 8, width)


def rank_one(width: int, g: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    z = normal(g, 1, width)
    return normal(g, ROWS, width), normal(g, ROWS, 1) @ z, z, z


def along_the_readout(width: int, g: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    w = normal(g, 4, width)
    return w, normal(g, ROWS, width), normal(g, 8, width), normal(g, 8, 4) @ w


def in_between(width: int, g: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A rank-one part of size M^(-1/4) beside noise of order 1: alpha = u = 1 - 1/4."""
    z = normal(g, 1, width)
    change = normal(g, ROWS, width) + width**-0.25 * normal(g, ROWS, 1).sign() @ z
    return normal(g, ROWS, width), change, z, z


CASES: list[tuple[Case, tuple[Expr, Expr, Expr]]] = [
    (independent, (HALF, HALF, HALF)),
    (rank_one, (S.One, HALF, S.One)),
    (along_the_readout, (HALF, S.One, HALF)),
    (in_between, (THREE_QUARTERS, HALF, THREE_QUARTERS)),
]


@cache
def synthetic(case: Case) -> Mapping[str, Estimate]:
    generator = torch.Generator().manual_seed(1)
    widths, seeds = (64, 128, 256, 512, 1024), 24
    runs = [[ratios(*case(m, generator)) for m in widths] for _ in range(seeds)]
    tables = {name: np.array([[x[name] for x in row] for row in runs]) for name in NAMES}
    return {name: estimate(widths, table) for name, table in tables.items()}


@pytest.mark.parametrize(("case", "known"), CASES, ids=[case.__name__ for case, _ in CASES])
def test_a_known_alignment_is_found_and_a_wrong_one_contradicted(
    case: Case, known: tuple[Expr, Expr, Expr]
) -> None:
    found = synthetic(case)
    for name, x in zip(NAMES, known, strict=True):
        assert judge(found[name], float(x), 0.1) is Verdict.agree, (name, str(found[name]))
        for wrong in {HALF, THREE_QUARTERS, S.One} - {x}:
            assert judge(found[name], float(wrong), 0.1) is Verdict.contradict, (name, wrong)


def test_ratios_are_what_is_defined_and_never_beyond_fan_in() -> None:
    g = torch.Generator().manual_seed(2)
    w, change, z, dz = in_between(50, g)
    found = ratios(w, change, z, dz)

    def rms(x: Tensor) -> float:
        return float(x.pow(2).mean() ** 0.5)

    by_hand = rms(torch.einsum("ij,nj->ni", w, dz)) / rms(w) / rms(dz)
    assert found["omega"] == pytest.approx(by_hand, rel=1e-12)
    z = normal(g, 1, 50)
    assert ratios(w, z.repeat(9, 1), z, dz)["alpha"] == pytest.approx(50, rel=1e-12)
    assert np.isnan(ratios(w, 0 * w, z, 0 * dz)["u"])


# --- trained networks ---------------------------------------------------------------------------


def row_of(rule: str, init: str | None = None) -> Subject:
    return subject_of(rule, problem_with(rule, init=init))


@cache
def trained(rule: str) -> Alignments:
    """One step on digits."""
    return measure_alignments(
        row_of(rule), experiment_of(RunRequest(DIGITS, WIDTHS, 8, threads=1)), steps=1
    )


@pytest.mark.parametrize("rule", ["sgd", "adam"])
def test_one_step_of_training_has_the_alignment_that_is_derived(rule: str) -> None:
    found = {(x.layer, x.quantity): x for x in trained(rule).rows}
    assert set(found) == {(layer, name) for layer in ("hidden", "output") for name in NAMES}
    for (_, name), x in found.items():
        assert x.verdict is (None if name == "u" else Verdict.agree), (name, str(x.measured))
    assert trained(rule).verdict is Verdict.agree


@pytest.mark.parametrize("rule", ["sgd", "adam"])
def test_assumptions_that_do_not_hold_are_contradicted(rule: str) -> None:
    found = {(x.layer, x.quantity): x for x in trained(rule).rows}
    for layer in ("hidden", "output"):
        assert found[layer, "alpha"].against["none"] is Verdict.contradict
        assert found[layer, "alpha"].against["full"] is Verdict.agree
    assert found["output", "omega"].against["full"] is Verdict.contradict
    for x in found.values():
        if x.quantity != "u":
            assert judge(x.measured, 0.75, 0.1) is Verdict.contradict


def test_the_logarithm_at_one_width_is_short_of_the_exponent() -> None:
    """Constants: why an exponent is measured over widths."""
    readback = next(x for x in trained("adam").rows if (x.layer, x.quantity) == ("output", "omega"))
    assert readback.derived == 1 and readback.at_width < 0.85 < readback.measured.low


def test_the_same_seed_trains_the_same_and_later_steps_differ() -> None:
    trial = trial_of(row_of("adam"), experiment_of(RunRequest(DIGITS, (32, 64, 128), 1, threads=1)))
    constants = calibrate(trial, 32)
    one, two, other = (trajectory(trial, constants, 32, seed, (1, 3)) for seed in (0, 0, 1))
    assert one == two != other
    assert one[1, "hidden"] != one[3, "hidden"]
    assert one[1, "hidden"] == trajectory(trial, constants, 32, 0, (1,))[1, "hidden"]


def test_an_update_in_random_directions_has_half_an_alignment_and_a_bound_on_u() -> None:
    solution = derive(parse("G + W"))
    found = one_step(solution.problem, solution.exponents, solution.bounds)
    assert found["hidden"] == OneStep(HALF, HALF, HALF)
    assert found["output"] == OneStep(S.One, S.One, S.One)
    experiment = experiment_of(RunRequest(DIGITS, WIDTHS[:4], 8, threads=1))
    rows = measure_alignments(row_of("G + W"), experiment, steps=1).rows
    measured = {x.quantity: x for x in rows if x.layer == "hidden"}
    assert {x.verdict for x in measured.values()} == {Verdict.agree}
    assert measured["alpha"].against["full"] is Verdict.contradict


def test_what_is_assumed_does_not_change_what_is_derived() -> None:
    free, given = (problem_of("sgd", None, alignment=x) for x in (None, ["none"]))
    tables = [one_step(p, literal_of(free)[0]) for p in (free, given)]
    assert tables[0] == tables[1] and tables[0]["output"].omega == 1


def test_a_layer_that_does_not_move_is_said_and_not_judged() -> None:
    subject = subject_of("sgd", problem_with("sgd", "b_output=oo"))
    experiment = experiment_of(RunRequest(DIGITS, (16, 32, 64), 2, threads=1))
    found = measure_alignments(subject, experiment, steps=1)
    assert [(x.layer, x.quantity) for x in found.rows] == [("output", "alpha")]
    assert "alpha of hidden at step 1: something is exactly zero" in found.notes
    with pytest.raises(InvalidInput, match="no measured alpha of the hidden layer at step 1"):
        as_given(found, ["hidden"])


def test_steps_double_up_to_the_last() -> None:
    assert [schedule(x) for x in (1, 2, 7, 8)] == [(1,), (1, 2), (1, 2, 4, 7), (1, 2, 4, 8)]
    with pytest.raises(InvalidInput, match="steps=0"):
        schedule(0)


# --- exact exponents ----------------------------------------------------------------------------


def fit(low: float, high: float) -> Estimate:
    middle = (low + high) / 2
    return Estimate(middle, low, high, 0.0, 0.0, middle, False, True, WIDTHS, (), 8, 7, 0.95)


def measured(**intervals: tuple[float, float]) -> Alignments:
    rows = tuple(
        AlignmentMeasurement("hidden", name, step, fit(*x), 0.0, None, None, {})
        for step, shift in ((1, -1.0), (8, 0.0))
        for name, x in ((k, (v[0] + shift, v[1] + shift)) for k, v in intervals.items())
    )
    return Alignments("rule", rows, WIDTHS, 8, 0.1, ())


EXACT: list[tuple[Sequence[tuple[float, float]], tuple[Expr, Expr, Expr]]] = [
    ([(0.97, 1.2), (0.48, 0.52), (0.9, 1.1)], (S.One, HALF, S.One)),
    ([(0.72, 0.8), (0.72, 0.77), (0.55, 0.6)], (THREE_QUARTERS, THREE_QUARTERS, HALF)),
    ([(0.97, 1.2), (0.48, 0.52), (0.3, 1.6)], (S.One, HALF, S.One)),
    ([(0.73, 0.77), (0.48, 0.52), (0.5, 0.7)], (THREE_QUARTERS, HALF, THREE_QUARTERS)),
]


@pytest.mark.parametrize(("intervals", "known"), EXACT)
def test_an_interval_becomes_the_one_multiple_of_a_quarter_that_it_holds(
    intervals: Sequence[tuple[float, float]], known: tuple[Expr, Expr, Expr]
) -> None:
    found = as_given(measured(**dict(zip(NAMES, intervals, strict=True))), ["hidden"])["hidden"]
    assert found == Alignment(*known)
    assert "is measured at step 8 in hidden (widths 64..1024, 8 seeds" in found.assumption
    assert ("undecided" in found.assumption) is (intervals[2] in [(0.3, 1.6), (0.5, 0.7)])


def test_exponents_follow_what_is_measured_and_not_what_is_derived() -> None:
    """The negative control of --alignment measured: intervals around no alignment."""
    none = measured(alpha=(0.48, 0.53), omega=(0.49, 0.52), u=(0.47, 0.5))
    asked = problem_of(
        "sgd",
        None,
        init="ntk",
        alignment=["measured", "output=derived"],
        measured=lambda layers: as_given(none, layers),
    )
    assert asked.setting.alignments == {"hidden": ALIGNMENTS["none"]}
    found, free, given = (
        solution_of(x).exponents.c
        for x in (
            asked,
            problem_of("sgd", None, init="ntk"),
            problem_of("sgd", None, init="ntk", alignment=["hidden=none"]),
        )
    )
    assert found == given != free


REFUSED = [
    (
        [(0.7, 0.95), (0.5, 0.5), (1.0, 1.0)],
        "alpha of the hidden layer at step 8.*3/4 and 1 within",
    ),
    ([(1.0, 1.0), (0.3, 1.5), (1.0, 1.0)], "omega .*holds 1/2 and 3/4 and 1 within 0.1"),
    ([(0.62, 0.63), (0.5, 0.5), (1.0, 1.0)], "alpha .*holds none of 1/2, 3/4 and 1"),
    ([(0.5, 0.5), (0.5, 0.5), (0.4, 1.0)], "u of the hidden layer"),
    ([(0.5, 0.5), (0.2, 0.3), (1.0, 1.0)], "omega .*holds none of 1/2, 3/4 and 1"),
]


@pytest.mark.parametrize(("intervals", "message"), REFUSED)
def test_an_interval_that_does_not_decide_is_refused_by_name(
    intervals: Sequence[tuple[float, float]], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message) as refusal:
        as_given(measured(**dict(zip(NAMES, intervals, strict=True))), ["hidden"])
    assert "--alignment hidden=alpha,omega,u" in refusal.value.do_this
