"""Verification in wide mode: what is measured how, to which precision, and what must fail."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path as FilePath
from typing import Any

import pytest
import torch

from empirical.data.sources import Data, load
from empirical.fit.verdict import Verdict
from empirical.measure.machine import blas_threads
from empirical.verify.campaign import (
    CROSS_WIDTHS,
    DENSE_WIDTHS,
    WIDE_WIDTHS,
    Experiment,
    Mode,
    RunRequest,
    plan,
)
from empirical.verify.subject import Subject
from empirical.verify.verification import Verification, verify
from empirical.wide import Streaming
from empirical.wide.method import Path
from scaling.cli.requests import problem_with, subject_of
from scaling.sizes.errors import InvalidInput

DIGITS = load("digits", samples=8, probe=6)


def table(rule: str, *settings: str, **options: Any) -> Subject:
    return subject_of(rule, problem_with(rule, *settings, **options))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with blas_threads(1):
        yield


# --- precision, and its controls ----------------------------------------------------------------

WIDE: dict[str, Any] = {
    "widths": (4096, 16384, 65536, 262144), "seeds": 8, "margin": 0.02, "data": DIGITS,
    "threads": 1, "mode": Mode.WIDE, "streaming": Streaming(),
}  # fmt: skip
ROWS = {**WIDE, "widths": (256, 512, 1024, 2048), "seeds": 12, "margin": 0.1}


def own(rule: str, how: dict[str, Any], kept: FilePath, *expect: str) -> dict[str, Any]:
    """The checks of own updates; what was measured before is found in a folder."""
    row = table(rule, activation="tanh")
    result = verify([row], Experiment(**how), expect, out=kept)
    return {c.layer: c for c in result.checks if c.quantity == "own"}


@pytest.mark.parametrize("rule", ["sgd", "kfac", "shampoo", "muon"])
def test_own_exponents_are_exact_to_two_decimals_and_errors_are_not(
    rule: str, tmp_path: FilePath
) -> None:
    for layer, check in own(rule, WIDE, tmp_path).items():
        assert abs(check.measured.slope) < 0.005, (layer, check.measured)
        assert check.verdict is Verdict.agree, (layer, check.measured)
    planted = [f"own_{layer}=1/20" for layer in ("input", "hidden", "output")]
    wrong = own(rule, WIDE, tmp_path, *planted)
    assert {c.verdict for c in wrong.values()} == {Verdict.contradict}


def test_a_term_that_is_smaller_by_little_is_no_contradiction(tmp_path: FilePath) -> None:
    """Own hidden ~ M^(-1/4) beside what comes from below: dh ~ 1 + M^(-1/4)."""
    row = table("sgd", "c_hidden=1/4")
    how = {**WIDE, "widths": (256, 1024, 4096, 16384), "seeds": 6}
    found = {
        (c.layer, c.quantity): c for c in verify([row], Experiment(**how), out=tmp_path).checks
    }
    check = found["hidden", "feature"]
    assert check.measured.decay == 0.25 and found["hidden", "own"].measured.decay == 0.5
    assert check.verdict is Verdict.crossover and "M^(-1/4)" in check.note
    planted = verify([row], Experiment(**how), ["feature_hidden=1/4"], out=tmp_path)
    verdicts = {(c.layer, c.quantity): c.verdict for c in planted.checks}
    assert verdicts["hidden", "feature"] is Verdict.contradict


def test_networks_on_the_near_side_of_a_crossover_contradict_nothing(tmp_path: FilePath) -> None:
    """norm(W) ~ M^(1/2) passes 1000 at a width of a million: below that the rule is G / 1000."""
    row = table("G / max(1000, norm(W))")
    how = {**WIDE, "widths": (256, 1024, 4096, 16384), "seeds": 6}
    found = {
        (c.layer, c.quantity): c for c in verify([row], Experiment(**how), out=tmp_path).checks
    }
    check = found["hidden", "own"]
    assert check.measured.slope == pytest.approx(0.5, abs=0.02)
    assert check.verdict is Verdict.crossover
    assert "max(1000, norm(W)) in hidden: norm(W) goes from 0.016 to 0.13" in check.note, check.note
    assert found["output", "own"].verdict in (Verdict.agree, Verdict.inconclusive)  # 1000 is larger
    wrong = ["own_hidden=1/4", "own_output=1/4"]
    planted = verify([row], Experiment(**how), wrong, out=tmp_path)
    verdicts = {(c.layer, c.quantity): c.verdict for c in planted.checks}
    assert verdicts["hidden", "own"] is verdicts["output", "own"] is Verdict.contradict


def test_entrywise_rules_agree_and_errors_do_not(tmp_path: FilePath) -> None:
    found = own("sign", ROWS, tmp_path)
    assert {c.verdict for c in found.values()} == {Verdict.agree}, found
    planted = own("sign", ROWS, tmp_path, *(f"own_{layer}=1/4" for layer in found))
    assert {c.verdict for c in planted.values()} == {Verdict.contradict}


def test_a_constant_damping_crosses_over_and_is_named() -> None:
    result = verify(
        [table("kfac", "d_rho_B=0")], Experiment(**{**WIDE, "widths": (64, 256, 1024), "seeds": 6})
    )
    found = next(c for c in result.checks if (c.quantity, c.layer) == ("own", "hidden"))
    assert found.verdict is Verdict.crossover, found.measured
    assert found.note.startswith("B + rho_B*I in hidden: the damping goes from")


def test_measured_sizes_stand_beside_their_limits(tmp_path: FilePath) -> None:
    checks = own("foof", WIDE, tmp_path)
    assert all(c.size == pytest.approx(c.limit, rel=0.01) for c in checks.values())


# --- plans --------------------------------------------------------------------------------------


def planned(mode: str, *rules: str, widths: tuple[int, ...] | None = None) -> list[Any]:
    tables = [table(rule) for rule in rules]
    return [
        ([x.name for x in subjects], x.mode, x.widths, x.margin)
        for subjects, x in plan(tables, RunRequest(DIGITS, widths, threads=1), mode)
    ]


def test_auto_is_wide_with_dense_networks_beside_it() -> None:
    assert planned("auto", "kfac", "sign") == [
        (["kfac"], Mode.WIDE, WIDE_WIDTHS[Path.CORE], 0.02),
        (["sign"], Mode.WIDE, WIDE_WIDTHS[Path.ROWS], 0.02),
        (["kfac", "sign"], Mode.DENSE, CROSS_WIDTHS, 0.05),
    ]
    assert planned("wide", "kfac") == [(["kfac"], Mode.WIDE, WIDE_WIDTHS[Path.CORE], 0.02)]
    assert planned("dense", "kfac") == [(["kfac"], Mode.DENSE, DENSE_WIDTHS, 0.05)]


def test_narrow_networks_are_given_few_samples_and_only_as_a_cross_check() -> None:
    request = RunRequest(DIGITS, threads=1)
    wide, cross = (x for _, x in plan([table("kfac")], request))
    ((_, alone),) = plan([table("kfac")], request, "dense")
    assert [x.data.samples for x in (wide, cross, alone)] == [8, 4, 8]
    assert torch.equal(cross.data.inputs, DIGITS.inputs[:4])
    assert sorted(cross.data.targets.argmax(0).tolist()) == [0, 1, 2, 3], "one each, and no other"
    assert alone.data.classes == 10
    assert torch.equal(cross.data.probe_inputs, DIGITS.probe_inputs)


def test_classes_that_samples_lack_stay_where_a_softmax_tells_them_apart() -> None:
    def cross(data: Data, **options: Any) -> Data:
        plans = plan([table("kfac", **options)], RunRequest(data, threads=1))
        return plans[1][1].data

    assert cross(DIGITS).classes == 4
    assert cross(DIGITS, loss="cross_entropy").classes == 10
    nothing = replace(DIGITS, targets=torch.zeros_like(DIGITS.targets))
    assert cross(nothing).classes == 10, "without a target there is none to tell apart by"


def test_seeds_that_are_asked_for_are_all() -> None:
    for seeds, most in ((None, [24, 64]), (3, [0, 0])):
        planned = plan([table("kfac")], RunRequest(DIGITS, seeds=seeds, threads=1))
        assert [x.most_seeds for _, x in planned] == most


def test_given_widths_reach_dense_networks_as_far_as_they_can() -> None:
    widths = (512, 1024, 2048, 8192, 2**20)
    assert planned("auto", "kfac", widths=widths)[1][2] == (512, 1024, 2048)
    assert planned("auto", "kfac", widths=widths[2:])[1][2] == CROSS_WIDTHS
    with pytest.raises(InvalidInput, match="found: the width 1,048,576 for 'sign"):
        planned("auto", "sign", widths=widths)


def test_seeds_are_the_same_numbers_whoever_takes_them() -> None:
    small = {**WIDE, "widths": (64, 128), "seeds": 2}

    def sizes(workers: int) -> Verification:
        how = {**small, "streaming": Streaming(workers=workers)}
        return verify([table("kfac")], Experiment(**how))

    one, two = sizes(1), sizes(2)
    assert [c.measured for c in one.checks] == [c.measured for c in two.checks]


def test_a_probe_is_cut_and_training_is_not() -> None:
    less: Data = DIGITS.with_probe(2)
    assert len(less.probe_inputs) == len(less.probe_targets) == 2
    assert less.samples == DIGITS.samples
