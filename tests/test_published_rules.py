"""Rules of the literature that were refused once, held against the simulator.

Each row is answered, measured at widths 64 .. 1024 with a network that shares no code, and
contradicted when half a power is added to what is predicted. `OPEN` stay refused; where a size
could be guessed, a measurement shows why it would be wrong.
"""

from dataclasses import replace

import pytest
from simulator import exponents
from soundness import DISTINCT, Question, disagreements, network, practice, theory
from sympy import S

O, SIGNED = "orth(G)", "orth(sign(G))"
WIDE, SOME = (64, 128, 256, 512, 1024), (64, 128, 256)


def row(rule: str, c: str, *fixed: str, widths: tuple[int, ...] = WIDE, **options: object):
    return Question(rule, fixed, **options), tuple(c.split()), widths  # type: ignore[arg-type]


ANSWERED = {
    # NorMuon's rows without an eps: unit rows, whatever vanishes where
    "rows of a polar factor": row(f"{O}/sqrt(row_mean({O}*{O}))", "0 1 1"),
    "its columns, at the second step": row(
        f"{O}/sqrt(col_mean({O}*{O}))", "0 1 1", step=2, activation="tanh", widths=SOME,
    ),
    "rows of a momentum, at the second step": row(
        "ema(G, beta)/sqrt(row_mean(ema(G, beta)*ema(G, beta)))", "0 1 1", step=2,
    ),
    # AdaMuon without its second moment: a sign has full rank, whose norm is that of its rows
    "a polar factor of signs by its norm": row(
        f"{SIGNED}/rms({SIGNED})", "0 1/2 1", widths=(64, 128, 256, 512),
    ),
    # KL-Shampoo as written: a congruence is symmetric
    "whitened by the other factor": row(
        "(G @ (R + rho*I)**(-1) @ G.T + eps*I)**(-1/2) @ G", "-1 0 1",
    ),
    "whitened by the inputs": row(
        "(G @ (A + rho*I)**(-1) @ G.T + eps*I)**(-1/2) @ G", "-1/2 1/2 1",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ANSWERED)
def test_what_authors_write_is_answered_and_measured(name: str) -> None:
    question, c, widths = ANSWERED[name]
    answer = theory(question)
    assert not answer.refusal
    assert answer.exponents is not None
    assert tuple(map(str, answer.exponents.c.values())) == c
    measured = practice(question, answer.exponents, widths, 4)
    assert disagreements(answer, measured) == {}
    wrong = replace(answer, own={k: x + S.Half for k, x in answer.own.items()})
    assert set(disagreements(wrong, measured)) == set(answer.own)


ADAMUON = f"U/rms(U) where U = {SIGNED}/(sqrt({SIGNED}*{SIGNED}) + eps)"


@pytest.mark.parametrize("rule", [ADAMUON, f"sign({SIGNED})", f"abs({SIGNED})*G"])
def test_entries_of_a_full_rank_polar_factor_are_refused(rule: str) -> None:
    """AdaMuon: the few entries near zeros of G hold the norm, and the rest follows the samples."""
    refusal = theory(Question(rule)).refusal
    assert "a few near zeros of the gradient set the mean square" in refusal


def test_how_signs_of_a_full_rank_polar_factor_act_depends_on_the_samples() -> None:
    """A kernel's polar factor of two samples, and what looks like noise of six."""
    slopes = []
    for labels in ((0, 1), DISTINCT):
        question = Question("G", ("c=0",), labels=labels)
        net = network(question, theory(question).exponents)  # type: ignore[arg-type]
        slopes.append(exponents(f"sign({SIGNED})", net, 1, (64, 128, 256), 4)["hidden"].exponent)
    assert slopes[0] - slopes[1] > 0.2


def test_one_sample_has_no_more_than_one_direction() -> None:
    assert "full-rank" in theory(Question(f"{SIGNED}/rms({SIGNED})", labels=(0,))).refusal
