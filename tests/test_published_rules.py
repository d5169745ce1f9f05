"""Rules of the literature that were refused once, held against the simulator.

Each row is answered, measured at widths 64 .. 1024 with a network that shares no code, and
contradicted when half a power is added to what is predicted. `OPEN` stay refused; where a size
could be guessed, a measurement shows why it would be wrong.
"""

from dataclasses import replace

import numpy as np
import pytest
from random_questions import LADDER, judged
from simulator import exponents, state
from soundness import DISTINCT, Question, disagreements, network, practice, theory
from sympy import S

O, SIGNED, X = "orth(G)", "orth(sign(G))", "(G - row_mean(G))"
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
    # Madam's steps in proportion to the weights; ratios of rows
    "in proportion to the weights": row(
        "abs(W)*ema(G, beta1)/(sqrt(ema(G*G, beta2)) + eps)", "0 1/2 0",
    ),
    "a trust ratio for each row": row(
        "sqrt(row_mean(W*W))/(sqrt(row_mean(G*G)) + eps)*G", "0 1/2 0", activation="tanh",
    ),
    "a mean weight": row("mean(abs(W))*orth(G)", "-1/2 -1/2 -1/2"),
    # gradient centralisation before Adam, signs and polar factors
    "centred before Adam": row(
        f"ema({X}, beta1)/(sqrt(ema({X}*{X}, beta2)) + eps)", "0 1 1",
        activation="tanh", step=2,
    ),
    "signs of a centred gradient": row(f"sign({X})", "0 1 1"),
    "signs of a gradient less its columns' means": row("sign(G - col_mean(G))", "0 1 1"),
    "a polar factor of a centred gradient": row(f"orth({X})", "-1/2 0 1/2", widths=SOME),
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


U = "(G + decay*W)"
COUPLED = {
    # torch's Adam with weight_decay: the decay goes through the second moment
    "ADAM": (f"ema({U}, beta1)/(sqrt(ema({U}*{U}, beta2)) + eps)", {0: "1/2", 1: "1"}, (1, 2)),
    "signs": (f"sign({U})", {-1: "1/2", 2: "1"}, (1, 2)),
    "rows": (f"{U}/(sqrt(row_mean({U}*{U})) + eps)", {0: "1/2", 2: "1"}, (2,)),
    "polar factor": (f"orth({U})", {-1: "0", 0: "0", 1: "0"}, (1,)),
}


@pytest.mark.parametrize("name", COUPLED)
def test_a_given_decay_is_read_within_functions_of_the_gradient_and_the_weights(name: str) -> None:
    """Signs and roots of W that leads are random, and those of a gradient that leads are not."""
    rule, hidden, steps = COUPLED[name]
    settled = tuple(x for x in ("decay", "eps") if x in rule)
    for (d, c), step in zip(hidden.items(), 2 * steps, strict=False):
        pair = Question(rule, (f"d_decay={d}",), settled=settled, step=step, activation="tanh")
        answer = theory(pair)
        assert answer.exponents is not None
        assert str(answer.exponents.c["hidden"]) == c
        verdict, slopes = judged(pair, answer, LADDER[0])
        assert verdict == "agrees"
        wrong = replace(answer, own={k: x + S.Half for k, x in answer.own.items()})
        assert set(disagreements(wrong, slopes)) == set(answer.own)
    refusal = theory(Question(rule)).refusal
    assert "depending on symbols" in refusal


def test_what_follows_the_gradient_in_signs_of_the_weights_is_a_mean_over_them() -> None:
    """u^T sign(G + W) v of the hidden layer: G/|W| of it, M^(1/2), beside a CLT of order one."""
    question, sizes = Question("G", ("c=0",)), []
    net = network(question, theory(question).exponents)  # type: ignore[arg-type]
    for width in SOME:
        found = []
        for seed in range(8):
            layer = state("G", net, width, seed, 1)[1]
            u, s, v = np.linalg.svd(layer.d @ layer.h.T / layer.n, full_matrices=False)
            g = 4 * s[0] * np.outer(u[:, 0], v[0])
            found.append(u[:, 0] @ np.sign(g + layer.w) @ v[0])
        sizes.append(np.mean(found))
    slope = np.polyfit(np.log(SOME), np.log(sizes), 1)[0]
    assert abs(slope - 0.5) < 0.2, slope


OWN_SPAN = [  # a matrix that leads out of the data's span, in factors of its own
    ("({0}@{0}.T + rho*I)**(-1) @ {0}", "(diag(B)@G)"),
    ("({0}@{0}.T + rho*I)**(-1/2) @ {0} @ ({0}.T@{0} + rho*I)**(-1/4)", "(diag(B)@G@diag(A))"),
    ("{0} @ ({0}.T@{0} + rho*I)**(-1/2)", X),
]


@pytest.mark.parametrize(("rule", "x"), OWN_SPAN)
def test_factors_of_a_matrix_span_that_matrix_wherever_it_leads(rule: str, x: str) -> None:
    """With a negligible damping: what is off their span meets nothing of it."""
    pair = Question(rule.format(x), ("d_rho=12",), settled=("rho",), activation="tanh")
    answer = theory(pair)
    assert judged(pair, answer, LADDER[0])[0] == "agrees"
    other = rule.format(x).replace(f" @ {x}", f" @ (diag(B)@{x})", 1)
    assert other == rule.format(x) or "leads out of" in theory(replace(pair, rule=other)).refusal


@pytest.mark.parametrize(
    "rule", [f"{X} @ (A + rho*I)**(-1)", "(B + rho*I)**(-1) @ (G - col_mean(G))"]
)
def test_the_direction_of_the_mean_is_not_raised(rule: str) -> None:
    """Samples meet it by as much as h has a mean, which an inverse may make the larger part."""
    assert "raises the direction of the mean" in theory(Question(rule, ("d_rho=3",))).refusal
    assert not theory(Question(rule)).refusal
    nothing = f"{X}*row_mean(sign({X}))"
    assert "a mean of what is odd in centred data" in theory(Question(nothing)).refusal


def test_weights_that_start_at_zero_stay_there_under_steps_in_proportion_to_them() -> None:
    answer = theory(Question("abs(W)*sign(G)", ("b_output=oo",), step=2))
    assert set(map(str, answer.own.values())) == {"-oo"}
    assert "exactly zero" in theory(Question("G/(W*W)", ("b_output=oo",))).refusal
    late = theory(Question("sign(G + W)", ("b_output=oo",), step=2))
    assert {str(x) for x in late.own.values()} == {"0"}
