"""More seeds, or larger sizes, settle checks that are left open, as is said of them."""

import re
from collections.abc import Sequence

import numpy as np
import pytest
from sympy import S

from empirical.fit.exponent import estimate
from empirical.fit.verdict import Verdict, at_most, judge
from empirical.trace.model_file import GrowingAxis
from empirical.verify.graph_verification import GraphCheck
from empirical.verify.settling import settling_lines

MARGIN = 0.2
SIZES = (32, 64, 128, 256)


def check(
    sizes: Sequence[int], seeds: int, spread: float, lesser: float = 0, slope: float = 0,
    bound: bool = False,
) -> GraphCheck:  # fmt: skip
    """M^slope with a lesser term of M^(-1/2), and noise from seed to seed."""
    noise = np.random.default_rng(1).normal(size=(seeds, len(sizes)))
    curve = np.array([(1 + lesser * n**-0.5) * n**slope for n in sizes])
    fit = estimate(sizes, curve * np.exp(spread * noise))
    verdict = (at_most if bound else judge)(fit, 0, MARGIN)
    return GraphCheck("linear", "init", S.Zero, bound, fit, verdict)


def lines(one: GraphCheck) -> str:
    return " ".join(settling_lines([one], GrowingAxis("width", SIZES), MARGIN))


@pytest.mark.parametrize(("spread", "bound"), [(0.1, False), (0.15, True)])
def test_the_seeds_that_are_foretold_settle_it(spread: float, bound: bool) -> None:
    one = check(SIZES, 8, spread, bound=bound)
    assert one.verdict is Verdict.inconclusive
    found = re.search(r"open for noise, init of linear: --seeds (\d+) would settle it", lines(one))
    assert found, lines(one)
    again = check(SIZES, 2 * int(found[1]), spread, bound=bound)
    assert again.verdict is Verdict.agree and not lines(again)


def test_the_sizes_that_are_foretold_settle_it() -> None:
    one = check(SIZES, 8, 1e-3, lesser=8)
    assert one.verdict in (Verdict.crossover, Verdict.inconclusive)
    found = re.search(r"slopes still change, .*: --axis width=32:(\d+) would settle", lines(one))
    assert found, lines(one)
    last = int(found[1])
    again = check(tuple(32 * 2**k for k in range(20) if 32 * 2**k <= last), 8, 1e-3, lesser=8)
    assert again.verdict is Verdict.agree


def test_on_the_edge_a_margin_is_named_and_with_few_seeds_more_seeds() -> None:
    edge = check(SIZES, 16, 0.2, slope=MARGIN + 0.01)
    assert edge.verdict is Verdict.inconclusive
    margin = re.search(r"edge of the margin, .* --margin (0\.\d+) would agree", lines(edge))
    assert margin and judge(edge.fit, 0, float(margin[1]) + 0.01) is Verdict.agree, lines(edge)
    assert "open with few seeds, init of linear: --seeds 8" in lines(check(SIZES, 4, 0.3))


def test_what_is_decided_needs_nothing() -> None:
    for slope in (0, 1):
        one = check(SIZES, 8, 0.01, slope=slope)
        assert one.verdict is (Verdict.agree if slope == 0 else Verdict.contradict)
        assert not lines(one)
