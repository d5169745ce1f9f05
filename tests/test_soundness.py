"""What the calculus claims where users fix values, held against the simulator: right, or refused.

Each row is a rule that was answered wrongly once; `layers` are those whose own update was wrong.
Sizes are those on samples held out, at widths 128 .. 2048, slopes over the upper half.
"""

import gc
import json
import weakref
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from random_questions import LADDER, drawn, fuzz, judged, named
from settled_terms import _is_decided, _weight, settled
from simulator import WIDTHS, own, state
from soundness import (
    BALANCED,
    DISTINCT,
    FEW,
    REPEATED,
    Question,
    disagreements,
    network,
    practice,
    theory,
)
from sympy import S

SEEDS = 6


@dataclass(frozen=True)
class Row:
    """A question, the layers that are measured, and the exponents that the calculus must give."""

    question: Question
    layers: tuple[str, ...]
    own: tuple[str, ...] = ()


def row(rule: str, *fixed: str, layers: str, own: str = "", **options: object) -> Row:
    question = Question(rule, fixed, **options)  # type: ignore[arg-type]
    return Row(question, tuple(layers.split()), tuple(own.split()))


ALL = "input hidden output"
SIX = (0, 1, 2, 3, 4, 5, 0, 1)
"""Of ten classes."""
ANSWERED = {
    # 1: what a value has off the data's span carries its own size
    "eps dominates": row(
        "(G/(sqrt(G*G)+eps)) @ (A+rho*I)**(-1)", "d_eps=0", "d_rho=0", "c=0",
        layers="input hidden", own="-1 -1",
    ),
    "eps dominates a negligible damping": row(
        "(G/(abs(G)+eps)) @ (A+rho*I)**(-1)", "d_eps=1/2", "d_rho=1", "rho=1/100", "c=0",
        layers="hidden", own="1", labels=(0, 1, 2),
    ),
    "atan of a small argument": row(
        "(B+rho*I)**(-1) @ atan(100*G)", "d_rho=4", "rho=1/1000", "c=0",
        layers="input hidden", own="1 2",
    ),
    "a negligible entrywise summand": row(
        "(B+rho*I)**(-1) @ (G + G*abs(G)/(norm(G)+eps))", "d_rho=2", "d_eps=0", "rho=1/100", "c=0",
        layers="input hidden", own="0 1",
    ),
    # 2: no directions off the span in a layer with fewer outputs than samples
    "fewer outputs than samples": row(
        "(B + rho*I)**(-1) @ sign(G)", "d_rho=2", layers=ALL, labels=BALANCED,
    ),
    "more outputs than samples": row(
        "(B + rho*I)**(-1) @ sign(G)", "d_rho=2", layers=ALL, labels=DISTINCT,
    ),
    "fewer features than samples": row(
        "sign(G) @ (A + rho*I)**(-1)", "d_rho=2", "c=0", layers="input", own="0", features=5,
    ),
    "more features than samples": row(
        "sign(G) @ (A + rho*I)**(-1)", "d_rho=2", "c=0", layers="input", own="2", features=12,
    ),
    # 3: cotangents add up to zero over the classes, functions of them do not
    "a column mean under cross-entropy": row(
        "G + fan_in*col_mean(sign(G))", "c_output=1", layers="output", own="1",
        loss="cross_entropy",
    ),
    # 5: R and L have fewer directions than the data
    "the gradient's rank": row(
        "G @ (A+rho_A*I)**(-1) @ (R+rho_R*I)**(-1)", "d_rho_R=0", "c_output=0", "rho_R=1/1000",
        layers="output", own="0", labels=BALANCED,
    ),
    # 6: under a linear activation the rest overlaps by a CLT
    "a linear activation": row(
        "sign(G) @ (A+rho*I)**(-1)", "d_rho=0", "c=0", layers="hidden", own="1/2",
        activation="linear",
    ),
    # entries of classes that are not drawn are f, and lie off the span alone
    "small entries off the span": row(
        "(L+rho*I)**(-1/2) @ (G*abs(G))", "d_rho=0", "rho=1/1000", layers="output", labels=SIX,
    ),
    "entries of one size off the span": row(
        "(L+rho*I)**(-1/2) @ sign(G)", "d_rho=0", "rho=1/1000", layers="output", labels=SIX,
    ),
    # 7: what cancels is found before sizes are taken
    "one minus x/(x + rho)": row(
        "G-G@A@(A+rho*I)**(-1)", "d_rho=0", "c=0", layers=ALL, own="-1 -1 0",
    ),
    "its twin": row("rho*G@(A+rho*I)**(-1)", "d_rho=0", "c=0", layers=ALL, own="-1 -1 0"),
    "within a product": row(
        "G@(I-A@(A+rho*I)**(-1))", "d_rho=0", "c=0", layers=ALL, own="-1 -1 0",
    ),
    "a root of it": row(
        "G - (L+rho*I)**(-1/2)@L@(L+rho*I)**(-1/2)@G", "d_rho=2", "rho=1/1000", "c=0",
        layers="hidden", own="-2",
    ),
    "two matrices on one side": row(
        "G@A@(A+rho*I)**(-1) - G@R@(R+rho*I)**(-1)", "d_rho=2", "rho=1/100000", "c=0",
        layers="hidden", own="-2",
    ),
    "a trace of two matrices": row("G*trace(L@B)", "c=0", layers=ALL),
    "a trace on the other side": row("G*trace(A@R)", "c=0", layers=ALL),
    "the sum of singular values": row("G*inner(orth(G),G)", "c=0", layers=ALL),
    "the sum of absolute values": row("G*inner(sign(G),G)*inner(W,W)", "c=0", layers=ALL),
    "without its part along W": row(
        "norm(G)/norm(G - inner(W, G)/inner(W, W)*W)*(G - inner(W, G)/inner(W, W)*W)", "c=0",
        layers=ALL, own="-1 0 1",
    ),
    "nothing cancels": row(
        "G/norm(G) - 3*orth(G)", "c=0", layers=ALL, own="-1/2 0 1/2",
    ),
    # kinds that 10^4 random pairs found
    "a linear network whose batch spans all features": row(
        "(G/(abs(G)+eps)) @ (A+rho*I)**(-1)", "d_rho=1/2", "rho=1/1000", layers="output",
        own="0", activation="linear", features=5, depth=2,
    ),
    "the few entries below a bound": row(
        "(G*min(abs(G), eps)) @ (R + rho*trace(R)*I)**(-1/2)", "d_eps=2", "d_rho=2", "eps=1/1000",
        layers="output", own="0", depth=2,
    ),
    "pieces lead to classes that are not drawn by f": row(
        "(B + rho_0*I)**(-1) @ (block(B, 4) + rho_1*I)**(-1) @ G", "d_rho_0=2", "rho_0=1/1000",
        layers="output", own="0", depth=2,
    ),
    "so do functions of sums over directions": row(
        "(L + rho*I)**(-1) @ ((L@G)*abs(L@G))", "d_rho=2", "rho=1/1000", layers="output",
        own="0", labels=(0, 1, 2), depth=2,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ANSWERED)
def test_what_is_answered_is_measured(name: str) -> None:
    case = ANSWERED[name]
    answer = theory(case.question)
    assert not answer.refusal
    if case.own:
        assert [str(answer.own[layer]) for layer in case.layers] == list(case.own)
    assert answer.exponents is not None
    measured = practice(case.question, answer.exponents, WIDTHS, SEEDS)
    own = {layer: answer.own[layer] for layer in case.layers}
    assert disagreements(replace(answer, own=own), measured) == {}


ZERO = [
    "ema(G,beta)-(1-beta)*G", "G-G@A@A**(-1)", "G-L**(1/2)@orth(G)",
    "G/norm(G)-ema(G,beta)/norm(ema(G,beta))", "sign(ema(G,beta))-sign(3*G)", "G@R - L@G",
    "norm(2*G)*G - 2*norm(G)*G", "G@(R+rho*I)**(-1) - (L+rho*I)**(-1)@G",
]  # fmt: skip
OPEN = [
    "G - atan(G/fan_in)", "sign(G) - G/(abs(G)+eps)", "G - clip(G, 1)*(1+rho)",
    "G*(norm(G + rho*sign(G)) - norm(G))",
]  # fmt: skip


@pytest.mark.parametrize("rule", ZERO)
def test_what_cancels_exactly_is_exactly_zero(rule: str) -> None:
    answer = theory(Question(rule, ("d_rho=1",) if "rho" in rule else ()))
    assert set(map(str, answer.own.values())) == {"-oo"}
    assert answer.exponents is not None
    found = practice(Question(rule), answer.exponents, (128, 256), 1)
    scale = practice(Question("G + sign(G) + L@G"), answer.exponents, (128, 256), 1)
    assert all(found[layer].size <= 1e-12 * scale[layer].size for layer in found)


@pytest.mark.parametrize("rule", OPEN)
def test_what_may_cancel_is_refused(rule: str) -> None:
    fixed = [f"d_{name}=3" for name in ("rho", "eps") if name in rule]
    assert "which may cancel" in theory(Question(rule, tuple(fixed))).refusal


def test_samples_of_one_class_leave_weak_directions() -> None:
    """4: cotangents of one class differ by f ~ M^(-1/2) alone, and an inverse makes them large."""
    rule, many = "B**(-1) @ G @ A**(-1)", (128, 256, 512, 1024)
    alike = Question(rule, loss="cross_entropy", labels=REPEATED)
    apart = Question(rule, loss="cross_entropy", labels=(1, 6, 0, 2, 4, 3, 5, 9))
    for question, c in ((alike, "1/2"), (apart, "0")):
        answer = theory(replace(question, fixed=("c_input=-2", "c_hidden=0")))
        assert str(answer.exponents.c["output"]) == c  # type: ignore[union-attr]
        measured = practice(question, answer.exponents, many, 24)  # type: ignore[arg-type]
        own = {"output": answer.own["output"]}
        assert disagreements(replace(answer, own=own), measured) == {}


@pytest.mark.slow
def test_no_random_pair_is_contradicted(tmp_path: Path) -> None:
    """Twelve pairs; a killed run goes on with the pair after the last whole line."""
    log = tmp_path / "pairs.jsonl"
    fuzz(named(3, seed=11), log=log)
    whole = log.read_text()
    log.write_text(whole + whole[:40])
    seen = fuzz(named(12, seed=11), log=log)
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    assert log.read_text().startswith(whole)
    assert [row["pair"] for row in rows] == [f"11/{i}" for i in range(12)]
    assert set(seen) <= {"agrees", "crossover", "noisy", "refused"}
    assert seen["agrees"] >= 8
    assert seen["noisy"] <= 2


def test_few_entries_beyond_a_bound_are_not_taken_for_many() -> None:
    """What min(|G|, eps) of a small eps leads off the span is at most a share of it."""
    rule, small = "(G*min(abs(G), eps)) @ (A + rho*I)**(-1)", ("d_eps=2", "d_rho=2")
    assert "the few entries of min(abs(G), eps)" in theory(Question(rule, small)).refusal
    assert not theory(Question(rule, ("d_eps=2", "d_rho=-1"))).refusal
    assert not theory(Question(rule, ("d_rho=2",))).refusal  # eps of their size: all entries


@pytest.mark.parametrize(
    ("masked", "plain", "step"),
    [
        ("agree(G, G)*G", "G", 2),
        ("agree(ema(G, beta), 3*G)*ema(G, beta)", "ema(G, beta)", 1),
        ("G/(abs(G) + eps)*agree(G, G/(abs(G) + eps))", "G/(abs(G) + eps)", 1),
    ],
)
def test_a_mask_by_the_own_sign_is_none(masked: str, plain: str, step: int) -> None:
    damped, given = "({}) @ (A + rho*I)**(-1/2)", ("d_rho=2",)
    one, two = (theory(Question(damped.format(x), given, step=step)) for x in (masked, plain))
    assert one.own == two.own
    assert one.exponents is not None
    assert two.exponents is not None
    assert one.exponents.c == two.exponents.c
    net = network(Question(plain), two.exponents)
    assert own(masked, net, 64, 0).held == pytest.approx(own(plain, net, 64, 0).held)


def test_pieces_of_neurons_that_relu_closes_are_small() -> None:
    """A neuron open for one sample leaves an eigenvalue as small as its square; tanh does not."""
    question = Question("sign(G) @ (block(A, 4) + rho*I)**(-1)", ("d_rho=1",))
    assert "blow up like |x|^(-2)" in theory(question).refusal
    smooth = replace(question, activation="tanh")
    assert "blow up like |x|^(-2/3)" in theory(smooth).refusal
    assert not theory(replace(smooth, labels=BALANCED)).refusal
    assert not theory(replace(question, fixed=())).refusal


def test_pieces_about_as_large_as_the_rank_of_the_data_have_small_eigenvalues() -> None:
    """Four numbers for each of four samples are nearly dependent in some of M/4 pieces."""
    fixed = ("d_rho=3", "c=0", "rho=1/1000000000")
    many = Question(
        "(block(B, 4) + rho*I)**(-1) @ G", fixed, activation="tanh", labels=BALANCED
    )  # fmt: skip
    few, answer, widths = replace(many, labels=FEW), theory(many), (64, 128, 256, 512, 1024)
    assert "blow up like |x|^(-1)" in theory(few).refusal
    assert answer.exponents is not None
    assert not disagreements(answer, practice(many, answer.exponents, widths, 6))
    wrong = disagreements(answer, practice(few, answer.exponents, widths, 6), errors=1.0)
    assert "hidden" in wrong


@pytest.mark.parametrize("name", ["2001/4234", "2000/3254"])
def test_pairs_with_small_pieces_are_refused(name: str) -> None:
    """Of ReLU, whose pieces are larger than the batch; of as many features as a piece, and one."""
    assert "blow up like |x|^(-1)" in theory(drawn(name)).refusal


def test_a_first_step_may_move_the_outputs_of_classes_that_are_not_drawn() -> None:
    """An inverse raises what lies off the gradient's span, where f is M^(-1/2) at the start.

    So the second step moves outputs by M^(1/2) more than the first one, and c is raised by as much.
    """
    pair = drawn("2001/1636")
    once, twice = theory(replace(pair, step=1)), theory(pair)
    assert once.exponents is not None
    assert twice.exponents is not None
    assert twice.exponents.c["output"] == once.exponents.c["output"] + S.Half
    verdict, slopes = judged(pair, twice, LADDER[3])
    assert verdict == "agrees"
    still = replace(twice, own={**twice.own, "output": S.Zero})  # as if f were M^(-1/2) again
    assert set(disagreements(still, slopes)) == {"output"}


LATE = [
    # terms that no width below 10^4 parts where all constants are one
    ("(G + k*sign(G)) @ A", "k"),
    ("(diag(B) + rho*I)**(-1/4) @ G @ (A + rho*trace(A)*I)**(-1)", "rho"),
]


@pytest.mark.parametrize(("rule", "name"), LATE)
def test_settled_terms_show_the_exponent_and_contradict_another(rule: str, name: str) -> None:
    pair = Question(rule, settled=(name,))
    answer = theory(pair)
    assert judged(pair, answer, LADDER[0])[0] == "agrees"
    for shift in (S.Half, -S.Half):
        wrong = replace(answer, own={k: x + shift for k, x in answer.own.items()})
        verdict, slopes = judged(pair, wrong, LADDER[0])
        assert verdict == "contradicted"
        assert set(disagreements(wrong, slopes)) == set(wrong.own)


def test_the_faster_term_leads_whatever_stands_in_front_of_it() -> None:
    """Gradient descent beside the sign of G: M^(-1/2) beside 1 in the input layer."""
    names, net = frozenset({"k"}), network(Question("G"), theory(Question("G")).exponents)
    first = settled("G + k*sign(G)", net, names).weights[0][0]
    other = settled("sign(G) + k*G", net, names).weights[0][0]
    alike = settled("sign(G) + k*sign(3*G)", net, names).weights[0]
    size = own("G", net, 64, 0).held[0] / own("sign(G)", net, 64, 0).held[0]
    assert first["G | k * sign(G)"] > 100 * size
    assert other["sign(G) | k * G"] < 0.01 / size
    assert all(weights == {"sign(G) | k * sign(3 * G)": 2} for weights in alike)


def test_a_damping_beyond_the_strongest_direction_is_beyond_all() -> None:
    """The weakest of many directions scatters, and may seem to grow as a damping does."""
    strong, weak = np.log(1e-2), np.log(1e-6)  # of a matrix, where the damping is one
    given = {
        (1, 0): 1e3 * 1e-2, (1, 1): 1e3 * 1e-2, (0, 0): 2e-2, (-1, 0): 2e-6,
        (-1, -1): 1e-9, (-1, 1): 1e-4,
    }  # fmt: skip
    for growth, weight in given.items():
        found = _weight(-np.array([strong, weak]), np.array(growth), 1e3)
        assert found == pytest.approx(weight), growth


def test_more_draws_are_made_only_where_they_may_decide() -> None:
    """Which term grows faster may be clear before the growth itself is."""
    scattered = np.array([[2.0], [3.0], [4.0], [5.0]])  # 3.5 +- 0.65
    assert _is_decided(scattered)
    assert not _is_decided(scattered - 3.0)
    assert _is_decided(0.3 + scattered / 100)


def test_a_state_holds_no_matrix_of_weights_and_dies_with_its_last_name() -> None:
    """Thousands of pairs in one process: a state is as small as its activations, and goes."""
    net = network(Question("G"), theory(Question("G")).exponents)
    layers = state("ema(G, beta)", net, 512, 0, 2)
    held = [x for y in layers for x in vars(y).values() if isinstance(x, np.ndarray)]
    assert held
    assert all(x.size < 512 * 512 for x in held)
    alive = weakref.ref(layers[1])
    gc.disable()
    try:
        del layers, held
        assert alive() is None
    finally:
        gc.enable()


def test_a_wrong_exponent_would_be_flagged() -> None:
    question = Question("sign(G)")
    answer = theory(question)
    assert answer.exponents is not None
    measured = practice(question, answer.exponents, (64, 128, 256, 512), 3)
    wrong = {name: x + S.One for name, x in answer.own.items()}
    assert not disagreements(answer, measured)
    assert set(disagreements(replace(answer, own=wrong), measured)) == set(wrong)


POLES = [
    "G/abs(sign(G) - G/rms(G))", "G*(sign(G) - G/rms(G))**(-2)",
    "G/sqrt((sign(G) - G/rms(G))*(sign(G) - G/rms(G)))",
    "G/(abs(sign(G) - G/rms(G)) + eps)",
]  # fmt: skip


@pytest.mark.parametrize("rule", POLES)
def test_a_difference_has_zeros_of_its_own_whatever_makes_it_positive(rule: str) -> None:
    """Where |G| is its root mean square the first one blows up: a few entries set the size."""
    fixed = ("d_eps=3",) if "eps" in rule else ()  # negligible, so that it covers nothing
    assert "difference, which may vanish" in theory(Question(rule, fixed)).refusal
    assert not theory(Question("G/(abs(sign(G) - G/rms(G)) + eps)")).refusal


@pytest.mark.parametrize("rule", ["orth(G)", "sign(G)", "G"])
def test_pieces_of_classes_that_are_not_drawn_are_small(rule: str) -> None:
    """Under squared errors their rows are f alone, and an inverse of pieces makes them large."""
    inverse = Question(
        f"(block(B, 5) + rho*I)**(-1) @ {rule}", ("d_rho=3", "rho=1/10000", "c=0"),
        labels=(0, 1, 2, 3, 0, 1, 2, 3), depth=2, activation="tanh",
    )  # fmt: skip
    assert "blow up like |x|^" in theory(inverse).refusal
    softmax = replace(inverse, loss="cross_entropy")  # p of two of them differs by f alone
    assert "blow up like |x|^" in theory(softmax).refusal
    drawn = replace(inverse, labels=BALANCED)
    answers = [theory(drawn), theory(replace(softmax, labels=tuple(range(9))))]
    assert not any(answer.refusal for answer in answers)
    exponents = answers[0].exponents
    assert exponents is not None
    widths = (320, 640, 1280)  # multiples of 5: an inverse of pieces costs what pieces cost
    some, all_ = (practice(x, exponents, widths, 6)["output"] for x in (inverse, drawn))
    assert some.exponent - all_.exponent > 0.3  # f * f^(-2) = M^(1/2) for G, up to M for sign(G)
    if rule == "G":
        alike = practice(softmax, exponents, widths, 6)["output"]
        assert alike.exponent - all_.exponent > 0.3


def test_an_average_leads_out_of_a_factor_by_what_has_moved() -> None:
    """Its damping is smaller than B alone in the output layer: 1/rho times df, and not times 1."""
    rule, fixed = "(B + rho*I)**(-1) @ ema(G, beta)", ("d_rho=1/2",)
    pair = Question(rule, fixed, labels=(0, 1, 2), step=2, settled=("rho",))
    assert "on an average over steps" in theory(pair).refusal
    assert not theory(replace(pair, step=1)).refusal
    assert not theory(replace(pair, fixed=("d_rho_output=0",))).refusal
    now = replace(pair, rule="(B + rho*I)**(-1) @ G")
    answer = theory(now)
    verdict, slopes = judged(now, answer, LADDER[1])
    assert verdict == "agrees"
    far = replace(answer, own={k: x - S.Half for k, x in answer.own.items()})
    assert set(disagreements(far, slopes)) == set(far.own)


def test_what_pieces_have_turned_may_lie_within_pieces() -> None:
    """Not off them, as off the span of the data: an inverse would make it large there."""
    one = "(block(B, 8) + rho*I)**(-1) @ G"
    two = "(block(B, 8) + rho*I)**(-1) @ ((block(B, 8) + rho*I)**(-1) @ {}) * norm(G)"
    options = {"labels": (0, 1, 2), "classes": 3, "loss": "cross_entropy", "activation": "tanh"}
    pair = Question(one, ("d_rho=4", "rho=1/1000000", "c=0"), **options)  # type: ignore[arg-type]
    assert not theory(pair).refusal
    again = theory(replace(pair, rule=two.format("G")))
    assert "what pieces have turned" in again.refusal
    sides = "(block(B, 8) + rho*I)**(-1) @ G @ (block(A, 8) + rho*I)**(-1)"
    damped = two.format("G").replace("rho*I", "rho*trace(B)*I")
    assert not theory(replace(pair, rule=sides)).refusal
    assert not theory(replace(pair, rule=damped, fixed=("c=0", "d_rho=0"))).refusal


def _overlap(width: int, seed: int) -> float:
    """Off the span, the size of G @ diag(A)**(-1/2) @ (A + rho*I)**(-1/4) h for an h held out.

    One layer of given cotangents, tanh of correlated rows and a damping as negligible as M^(-2)
    trace(A), as in pair 5/380; nothing of M x M is made, so that widths beyond 10^5 are in reach.
    """
    random, labels = np.random.default_rng(seed), np.array([1, 6, 0, 0, 4, 3, 5, 9])
    alike = 0.3 + 0.7 * np.eye(9)
    *rows, other = np.tanh(np.linalg.cholesky(alike) @ random.standard_normal((9, width)))
    h, d = np.array(rows), np.full((10, 8), 0.1)
    d[labels, np.arange(8)] -= 1
    _, s, basis = np.linalg.svd(h, full_matrices=False)
    off = other - basis.T @ (basis @ other)
    damping = (s[0] ** 2) * (width / 64) ** -2.0
    scaled = d @ h / np.sqrt((h**2).mean(axis=0))
    return float(np.sqrt(((scaled @ off) ** 2).mean()) * damping**-0.25)


def test_pair_5_380_is_a_crossover_beyond_a_hundred_thousand() -> None:
    """The fuzz ends at width 4096, where what lies off the span still overlaps by a CLT, M^(3/4).

    The law of large numbers leads later, M^(5/4), as the calculus has it.
    """
    widths = (256, 1024, 2**16, 2**18)
    sizes = np.array([[np.log(_overlap(m, seed)) for m in widths] for seed in range(6)]).mean(0)
    near, far = (sizes[1] - sizes[0]) / np.log(4), (sizes[3] - sizes[2]) / np.log(4)
    assert far == pytest.approx(5 / 4, abs=0.15)
    assert near < 1


@pytest.mark.parametrize("phi", ["relu", "tanh"])
@pytest.mark.parametrize(
    ("rule", "own"),
    [
        ("G*abs(inner(W, G))", "-3/2 -1/2 1/2"),
        ("G*abs(inner(W, sign(G)))", "-1/2 1/2 1/2"),
        ("orth(G)*abs(inner(orth(G), W))", "-1/2 -1/2 -1/2"),
    ],
)
def test_weights_and_a_gradient_are_independent_at_the_start(rule: str, own: str, phi: str) -> None:
    question = Question(rule, ("c=0",), activation=phi, readout=0.005)  # f^2 beside f y fades
    answer = theory(question)
    assert " ".join(map(str, answer.own.values())) == own
    assert answer.exponents is not None
    measured = practice(
        question, answer.exponents, (64, 128, 512), 50
    )  # a random sign is a noisy one
    assert disagreements(answer, measured) == {}
    aligned = {name: x + 1 for name, x in answer.own.items()}
    assert set(disagreements(replace(answer, own=aligned), measured)) == set(aligned)


def test_weights_that_have_moved_may_be_aligned_with_what_moved_them() -> None:
    rule = "G - inner(W, G)/inner(W, W)*W"
    assert "the inner product of" in theory(Question(rule, step=2)).refusal
    assert "the inner product of" in theory(Question("G*inner(W, G + W)")).refusal


U = "(ema(G, beta1)/(sqrt(ema(G*G, beta2)) + eps) + decay*W)"
AS_PUBLISHED = {
    "lamb": f"norm(W)/norm({U})*{U}",
    "lars": "norm(W)/(norm(G) + decay*norm(W))*(G + decay*W)",
}


@pytest.mark.parametrize(
    ("name", "d", "step", "hidden"),
    [("lamb", 0, 1, "1/2"), ("lamb", -1, 2, "0"), ("lars", 0, 2, "0"), ("lars", 1, 1, "1/2")],
)
def test_a_decay_that_is_given_is_read_inside_a_trust_ratio(
    name: str, d: int, step: int, hidden: str
) -> None:
    """A large one takes over the norm, and the rate of hidden layers is that of a decay alone."""
    rule = AS_PUBLISHED[name]
    pair = Question(rule, (f"d_decay={d}",), settled=("decay", "eps"), step=step, labels=DISTINCT)
    answer = theory(pair)
    assert answer.exponents is not None
    assert str(answer.exponents.c["hidden"]) == hidden
    assert judged(pair, answer, LADDER[0])[0] == "agrees"
    far = replace(answer, own={**answer.own, "hidden": S.Half})
    verdict, slopes = judged(pair, far, LADDER[0])
    assert (verdict, set(disagreements(far, slopes))) == ("contradicted", {"hidden"})
    refusal = theory(replace(pair, fixed=())).refusal
    assert "no factor of W alone" in refusal
