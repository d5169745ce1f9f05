"""Every line of a derivation beside its measurement, and what a wrong line looks like."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import pytest
from sympy import Rational

from derivations.catalogue import find
from empirical.data.sources import load
from empirical.fit.verdict import Verdict, judge
from empirical.measure.machine import blas_threads
from empirical.report.measured_tables import lines_table, render_lines
from empirical.verify.campaign import Experiment, trial_of
from empirical.verify.derivation_lines import OWN, READBACK, Line, measured_lines, under_way
from empirical.verify.verification import verify_deep
from scaling.cli.requests import problem_with, solution_of, subject_of
from scaling.report.step_lines import Derivation

WIDTHS, MARGIN = (64, 128, 256, 512, 1024), 0.15
DIGITS = load("digits", samples=8, probe=16)
RULES = {
    "kfac": {"fisher": "true"},
    "adam": {},
    "shampoo": {"biases": True},
    "lamb": {},
    "adafactor": {},
    "muon_max": {"depth": 4},
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with blas_threads(1):
        yield


@cache
def lines(rule: str) -> dict[str, list[Line]]:
    problem = problem_with(rule, activation="tanh", **RULES.get(rule, {}))
    solution = solution_of(problem)
    subject = subject_of(rule, problem, literal=False)
    trial = trial_of(subject, Experiment(WIDTHS, 8, MARGIN, DIGITS))
    with blas_threads(1):
        return measured_lines(trial, solution.steps, WIDTHS, 8, MARGIN)


@pytest.mark.parametrize("rule", RULES)
def test_every_line_that_speaks_of_a_size_is_measured_and_none_is_contradicted(rule: str) -> None:
    for layer, found in lines(rule).items():
        silent = {x.step.inference.name for x in found if x.measured is None}
        assert silent <= {"condition", "means", "mean of h", "mean of delta"}, (layer, silent)
        subjects = {line.step.subject for line in found}
        assert {OWN, READBACK} <= subjects or layer.startswith("output")
        wrong = [x for x in found if x.verdict is Verdict.contradict]
        assert not wrong, [(layer, x.step.subject, x.predicted, str(x.measured)) for x in wrong]
        agreed = [x for x in found if x.verdict is Verdict.agree]
        assert len(agreed) >= 0.5 * len([x for x in found if x.measured]), layer


def test_lines_on_a_sum_that_is_between_its_terms_are_crossovers_and_no_contradictions() -> None:
    """norm(W)/100 is 0.16 at width 256, and 1 beside it: the sum grows as M^0.05 there."""
    widths = (32, 64, 128, 256)
    problem = problem_with("sign(G)/(1 + norm(W)/100)")
    trial = trial_of(subject_of("sign(G)/(1 + norm(W)/100)", problem), Experiment(
        widths, 3, MARGIN, DIGITS))  # fmt: skip
    found = measured_lines(trial, solution_of(problem).steps, widths, 3, MARGIN)["hidden"]
    told = {x.step.subject: x for x in found}
    one, quotient = told["1 + norm(W)/100"], told["sign(G)/(1 + norm(W)/100)"]
    assert one.measured and 0 < one.measured.slope < 0.15 and one.predicted == Rational(1, 2)
    assert judge(one.measured, 0.5, MARGIN) is Verdict.contradict
    assert one.verdict is Verdict.crossover and told["norm(W)"].verdict is Verdict.agree
    planted = replace(quotient, verdict=Verdict.contradict)
    settled = replace(one, measured=replace(one.measured, slope=0.5))
    for beside, verdict in ((one, Verdict.crossover), (settled, Verdict.contradict)):
        assert under_way([beside, planted], MARGIN)[1].verdict is verdict


@pytest.mark.parametrize("rule", RULES)
def test_a_line_that_is_wrong_by_a_half_is_never_agreed_to(rule: str) -> None:
    contradicted = total = 0
    for found in lines(rule).values():
        for line in found:
            if line.measured is not None and line.predicted.is_finite:
                for off in (Rational(1, 2), -Rational(1, 2)):
                    verdict = judge(line.measured, float(line.predicted + off), MARGIN)
                    assert verdict is not Verdict.agree, (line.step.subject, line.measured)
                    contradicted += verdict is Verdict.contradict
                    total += 1
    assert contradicted >= 0.85 * total


def test_a_measured_derivation_is_the_derivation_with_more_columns() -> None:
    found = lines("adam")["hidden"]
    shown = Derivation(find("adam").rule, "hidden", found[-1].step)
    table = lines_table(shown, found)
    assert [row[1] for row in table.rows] == [line.subject for line in shown.lines()]
    assert [row[3] for row in table.rows] == [line.predicted for line in found]
    assert "<table" in table._repr_html_()
    report = json.loads(render_lines(shown, found, "json"))
    assert [line["subject"] for line in report["lines"]] == [line.step.subject for line in found]
    assert {line["verdict"] for line in report["lines"]} >= {"agree", None}


def test_deep_verification_has_a_check_for_every_line() -> None:
    problem = problem_with("sgd")
    solution = solution_of(problem)
    subject = subject_of("sgd", problem, literal=False)
    few = Experiment((32, 64, 128), 3, MARGIN, DIGITS, threads=1)
    result = verify_deep([subject], [solution.steps], few)
    subjects = {c.quantity for c in result.checks if c.layer == "hidden"}
    expected = {"h_0", "h_1", "delta_3", "delta_2", "G", OWN, READBACK}
    assert {text.split(" (")[0] for text in subjects} == expected
    assert result.seeds == 3


def test_explain_measured_prints_what_was_measured() -> None:
    words = ("explain", "sgd", "--measured", "--widths", "32:512", "--seeds", "2", "--samples", "2")
    code = "from scaling.cli.main import main; main()"
    found = subprocess.run(
        [sys.executable, "-c", code, *words, "--threads", "1"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.returncode in (0, 3), found.stderr
    (line,) = (x for x in found.stdout.splitlines() if "dW h per learning rate" in x)
    assert re.search(r"[+-]0\.\d+ +\[[+-]\d\.\d+, [+-]\d\.\d+\] +(agree|crossover|incon)", line), (
        line
    )


@pytest.mark.parametrize(
    ("style", "told"),
    [("text", " agree"), ("json", '"agree"'), ("html", "<td>agree"), ("latex", "& agree"),
     ("markdown", "| agree")],
)  # fmt: skip
def test_measured_lines_print_in_every_format(style: str, told: str) -> None:
    problem = problem_with("adam", activation="tanh", **RULES.get("adam", {}))
    derivation = Derivation(problem.rule, "hidden layer", solution_of(problem).steps["hidden"])
    printed = render_lines(derivation, lines("adam")["hidden"], style)
    assert told in printed and "dW h" in printed, printed
