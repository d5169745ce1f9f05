"""What a derivation costs: seconds for any rule of 500 characters, in proportion to the depth."""

import time
from collections.abc import Callable

import pytest

from empirical.data.sources import load
from empirical.fit.verdict import Verdict
from empirical.measure.calibration import calibrate
from empirical.measure.dense_steps import measure
from empirical.verify.campaign import Experiment, trial_of
from empirical.verify.verification import verify
from scaling.cli.requests import problem_with, solution_of, subject_of
from scaling.rules.parser import parse
from scaling.sizes.derivation import SUM, Step
from scaling.sizes.errors import NotCovered, RuleError, ScalingError
from scaling.sizes.scale import Scale, Size

LENGTH, BUDGET = 500, 10.0


def nested(before: str, after: str, core: str = "G") -> str:
    """The core in as many brackets as 500 characters and the depth of rules allow."""
    rule = core
    while len(before + rule + after) <= LENGTH and rule.count("(") < 95:
        rule = before + rule + after
    return rule


def repeated(part: Callable[[int], str], first: str = "G") -> str:
    """The first part and as many others as fit."""
    rule, i = first, 0
    while len(rule + part(i)) <= LENGTH:
        rule, i = rule + part(i), i + 1
    return rule


HARD = {
    "twelve sums over layers": "G*over_layers(norm(" * 12 + "G" + "))" * 12,
    "sums over layers": nested("G/over_layers(rms(", "))"),
    "a product of powers": "G @ (A + rho*I)**(-(e_1+e_2+e_3)"
    + "".join(f"*(e_1+e_2+e_{i})" for i in range(4, 20)) + ")",
    "powers of powers": "G @ " + nested("(", ")**(e_1+e_2)", "(A+rho*I)"),
    "averages": nested("ema(", ",1/2)"),
    "averages without bias": nested("debiased(", ",1/2)"),
    "norms": nested("G*norm(G*norm(", "))"),
    "sums of norms": nested("G/norm(G+", ")"),
    "signs": nested("sign(", ")"),
    "maxima": "G*" + nested("max(norm(G),", ")", "norm(G)"),
    "dampings": repeated(lambda i: f"/(norm(G)+eps{i})"),
    "a sum of dampings": repeated(lambda i: f"+eps{i}", "G/(abs(G)")[: LENGTH - 6] + "+eps)",
    "dampings of matrices": repeated(lambda i: f" @ (A+rho{i}*I)**(-e{i})"),
    "powers of the width": repeated(lambda i: f"+G*fan_in**e_{i}"),
    "powers of norms": repeated(lambda i: f"+G*norm(G)**e_{i}"),
    "a quotient of powers": repeated(lambda i: f"+norm(G)**e_{i}", "G/(1") + ")",
    "two symbols in each": repeated(lambda i: f"+fan_in**(e_{i}-e_{i}9)", "G/(1") + ")",
    "decays": repeated(lambda i: f"+decay{i}*norm(W)*G"),
    "perturbations": repeated(lambda i: f"+ascended(radius{i}*G/norm(G))"),
    "transposes": "(" * 95 + "G" + ".T)" * 95,
}  # fmt: skip


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("rule", HARD.values(), ids=HARD)
def test_a_rule_of_500_characters_is_answered_or_refused_in_seconds(rule: str, step: int) -> None:
    assert len(rule) <= LENGTH + 2
    start = time.process_time()
    try:
        found = solution_of(problem_with(rule, practice=False, step=step))
    except ScalingError as refusal:
        assert "found: " in str(refusal) and "do this: " in str(refusal)
    else:
        assert found.exponents.c
    assert time.process_time() - start < BUDGET


def test_a_power_of_too_many_terms_is_refused_by_name() -> None:
    assert parse("G @ (A + rho*I)**(-(e_1 + 1)*(e_2 + 1))").expression
    with pytest.raises(RuleError, match=r"of 128 terms (.|\n)*one exponent symbol"):
        parse("G @ (A + rho*I)**(-" + "*".join(f"(e_{i} + 1)" for i in range(7)) + ")")


def test_exponents_that_many_symbols_leave_open_are_refused_by_name() -> None:
    few, many = (repeated(lambda i: f"+G*fan_in**e_{i}")[: 16 * n] for n in (6, 24))
    assert solution_of(problem_with(few.rpartition("+")[0], practice=False)).exponents.c
    with pytest.raises(NotCovered, match=r"e_0, e_1, e_10(.|\n)*too many ways(.|\n)*--set e_0=1"):
        solution_of(problem_with(many.rpartition("+")[0], practice=False))


@pytest.mark.parametrize(("rule", "step"), [("adam", 1), ("h_fac", 2), ("kfac", 2), ("sam", 1)])
def test_cost_grows_in_proportion_to_the_depth(rule: str, step: int) -> None:
    def seconds(depth: int) -> float:
        start = time.process_time()
        solution_of(problem_with(rule, practice=False, depth=depth, step=step))
        return time.process_time() - start

    seconds(4)
    few, many = seconds(16), seconds(64)
    assert many < BUDGET and many < 10 * few + 0.5, (few, many)


def test_steps_that_share_premises_are_walked_once() -> None:
    line = Step(SUM, "0", Scale.one(Size.ENTRY))
    for level in range(1, 61):
        line = Step(SUM, str(level), Scale.one(Size.ENTRY), "", (line, line))
    assert [x.subject for x in line.lines()] == [str(level) for level in range(61)]
    again = Step(SUM, "60", Scale.one(Size.ENTRY), "", line.inputs)
    assert again == line and hash(again) == hash(line)
    assert Step(SUM, "60", Scale.one(Size.ENTRY)) != line


# --- deep networks, measured --------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_a_network_of_fifty_layers_is_measured(activation: str) -> None:
    """Own updates of a tenth, on h of 2^(-depth/2), overflowed at the output."""
    data = load("digits", samples=4, probe=8)
    subject = subject_of("sgd", problem_with("sgd", depth=50, activation=activation))
    experiment = Experiment((8, 16, 32), 2, 0.3, data, threads=1)
    trial = trial_of(subject, experiment)
    found = measure(trial, calibrate(trial, 16), 16, seed=0)
    for name, sizes in found.sizes.items():
        assert sizes.feature is not None
        assert sizes.own <= sizes.feature * 10 and sizes.feature < 100 * max(sizes.init, 0.1), name
    assert verify([subject], experiment).verdict is not Verdict.contradict
