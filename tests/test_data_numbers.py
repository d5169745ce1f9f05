"""Numbers of samples, classes and features are part of the setting, in theory as measured."""

import pytest
import torch
from sympy import S

from empirical.data.sources import Data, given, load
from empirical.verify.campaign import Experiment
from empirical.verify.verification import verify
from scaling.cli.options import NumberOptions
from scaling.cli.requests import numbers_given, problem_of, problem_with, solution_of, subject_of
from scaling.models.batch import Batch
from scaling.models.chain import Setting
from scaling.sizes.errors import InvalidInput
from scaling.solve.derive import derive

FEWER = "(B + rho*I)**(-1) @ sign(G)"
FIXED = ("d_rho=2", "rho=0.0001", "c=0")


def one_hot(labels: list[int], classes: int) -> torch.Tensor:
    return torch.eye(classes, dtype=torch.float64)[labels]


def test_the_numbers_of_data_are_counted() -> None:
    assert load("digits").numbers == Batch(16, 10, 64, 10)
    assert load("digits", samples=6).numbers == Batch(6, 10, 64, 6)
    x = torch.randn(8, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    repeated = given(x, one_hot([1, 6, 0, 0, 4, 3, 5, 9], 10)).numbers
    assert (repeated.drawn, repeated.rank) == (7, 0)
    copies = given(torch.cat([x, x[:, :2]], dim=1), one_hot([0, 1] * 4, 2)).numbers
    assert (copies.features, copies.independent, copies.drawn) == (7, 5, 2)


@pytest.mark.parametrize(("samples", "own"), [(6, 3), (16, 1)])
def test_verify_predicts_for_the_numbers_that_it_measures(samples: int, own: int) -> None:
    """2: with as many samples as outputs nothing lies off the span of D, in the output layer."""
    subject = subject_of(FEWER, problem_with(FEWER, *FIXED))
    experiment = Experiment((128, 256, 512), 3, 0.3, load("digits", samples=samples), threads=1)
    found = verify([subject], experiment)
    (check,) = [x for x in found.checks if (x.layer, x.quantity) == ("output", "own")]
    assert check.predicted == own
    assert check.measured.slope == pytest.approx(own, abs=0.3)
    (text,) = [x for x in found.assumptions if x.startswith("dW h of the output layer")]
    assert f"{samples} samples of" in text and "not M^" in text


def test_repeated_classes_change_what_verify_predicts() -> None:
    """4: an inverse makes directions large in which cotangents differ by f alone."""
    rule, x = "B**(-1) @ G @ A**(-1)", load("digits", samples=8).inputs
    subject = subject_of(rule, problem_with(rule, "c=0", loss="cross_entropy"))
    for labels, own in (([1, 6, 0, 0, 4, 3, 5, 9], S.Half), ([1, 6, 0, 2, 4, 3, 5, 9], S.Zero)):
        data = Data(x, one_hot(labels, 10), x, one_hot(labels, 10), "digits")
        at = subject.on(data).problem
        assert str(solution_of(at).assumptions).count("dW h of the output layer") == 1
        found = verify([subject], Experiment((64, 256, 1024), 12, 0.3, data, threads=1))
        (check,) = [x for x in found.checks if (x.layer, x.quantity) == ("output", "own")]
        assert check.predicted == own
        assert check.measured.slope == pytest.approx(float(own), abs=0.3)


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("sgd", ()),
        ("adam", ()),
        ("kfac", ()),
        ("shampoo", ()),
        ("muon", ()),
        ("gauss_newton", ("output",)),
        ("sign(G) @ (A + rho*I)**(-1)", ()),  # balanced
    ],
)
def test_only_what_depends_on_numbers_says_so(rule: str, said: tuple[str, ...]) -> None:
    found = solution_of(problem_of(rule, None))
    about = [x for x in found.assumptions if "samples" in x]
    assert [x.split(" layer")[0] for x in about] == [f"dW h of the {name}" for name in said]


def test_what_is_said_of_other_numbers_is_what_they_derive() -> None:
    settings = {"rule": FEWER, "step": 1}
    few, many = (
        derive(**settings, setting=Setting(batch=batch))  # type: ignore[arg-type]
        for batch in (Batch(6), Batch(16))
    )
    assert few.exponents == many.exponents  # a balanced damping leaves nothing to decide
    few, many = (
        solution_of(problem_of(FEWER, ["d_rho=2"], numbers=batch))
        for batch in (Batch(5, drawn=5), Batch(16))
    )
    c = few.exponents.c["output"], many.exponents.c["output"]
    (text,) = [x for x in many.assumptions if "samples" in x]
    assert f"with 5 samples of 5 of 10 classes, with 64 features it is M^({c[0]}), not M^({c[1]})" \
        in text  # fmt: skip


def test_no_more_classes_are_drawn_than_there_are() -> None:
    with pytest.raises(InvalidInput, match="no more classes than there are"):
        numbers_given(NumberOptions(classes=3, drawn=4), 16)
    assert numbers_given(NumberOptions(features=5), None) == Batch(features=5)
