"""The exponent, its interval and its verdict, against sizes whose exponent is known."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from empirical.fit.exponent import Estimate, estimate, straight_slope
from empirical.fit.verdict import Remedy, Verdict, judge, overall, remedy
from scaling.sizes.errors import InvalidInput

Floats = NDArray[np.float64]

WIDTHS = [64, 128, 256, 512, 1024, 2048, 4096]
GRIDS = {
    "doubling, two decades": WIDTHS,
    "four widths": [64, 256, 1024, 4096],
    "three widths": [64, 512, 4096],
    "finer": [round(64 * 2 ** (i / 2)) for i in range(13)],
    "far": [10**3, 10**4, 10**5, 10**6, 10**7],
}
EXPONENT = -0.5


def shrinking(width: Floats) -> Floats:
    """Log-noise of a sum over the width: 0.125 at 64, 0.05 at 400, 0.016 at 4096."""
    return width**-0.5


def lasting(width: Floats) -> Floats:
    return np.full_like(width, 0.05)


def power(k: float = 0.0, p: float = 0.5, exponent: float = EXPONENT) -> Callable[[Floats], Floats]:
    """The size ``M**exponent`` with a correction ``k M**(-p)`` in its logarithm."""
    return lambda width: np.exp(exponent * np.log(width) + k * width**-p)


def crossing(width: Floats) -> Floats:
    """Exponent 0 far below width 3000, exponent -1 far above it."""
    return 1 / (0.01 * width + 30)


def repeat(
    size: Callable[[Floats], Floats],
    noise: Callable[[Floats], Floats],
    seeds: int = 4,
    widths: list[int] = WIDTHS,
    times: int = 400,
) -> list[Estimate]:
    """``times`` independent estimates, each from ``seeds`` seeds; the same on every run."""
    rng = np.random.default_rng(20_240)
    width = np.array(widths, dtype=np.float64)
    draws = rng.standard_normal((times, seeds, len(widths)))
    return [estimate(widths, size(width) * np.exp(noise(width) * draw)) for draw in draws]


def exactly(
    size: Callable[[Floats], Floats], widths: list[int] = WIDTHS, seeds: int = 4
) -> Estimate:
    return estimate(widths, np.tile(size(np.array(widths, dtype=np.float64)), (seeds, 1)))


def share(estimates: list[Estimate], verdict: Verdict, predicted: float) -> float:
    judged = Counter(judge(found, predicted, margin=0.05) for found in estimates)
    return judged[verdict] / len(estimates)


# The stated confidence is 0.95; 400 repetitions leave a standard error of 0.011 on it.
LEAST_COVERAGE = 0.95 - 3 * 0.011


@pytest.mark.parametrize("noise", [shrinking, lasting])
@pytest.mark.parametrize("k", [0.0, 1.0, -3.0, 10.0])
def test_interval_covers_the_asymptotic_exponent_whatever_the_correction(
    k: float, noise: Callable[[Floats], Floats]
) -> None:
    estimates = repeat(power(k), noise)
    covered = np.mean([found.low <= EXPONENT <= found.high for found in estimates])
    assert covered >= LEAST_COVERAGE, f"covers {covered:.3f} of 400 at k={k}, {noise.__name__}"


@pytest.mark.parametrize("widths", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("seeds", [2, 8])
def test_interval_covers_on_other_grids_and_numbers_of_seeds(widths: list[int], seeds: int) -> None:
    estimates = repeat(power(k=3), shrinking, seeds, widths)
    covered = np.mean([found.low <= EXPONENT <= found.high for found in estimates])
    assert covered >= LEAST_COVERAGE, f"covers {covered:.3f} of 400"


@pytest.mark.parametrize("p", [0.5, 0.75, 1.0, 2.0])
@pytest.mark.parametrize("k", [5.0, -5.0])
@pytest.mark.parametrize("widths", GRIDS.values(), ids=GRIDS)
def test_without_noise_every_allowed_decay_lies_between_slope_and_limit(
    widths: list[int], k: float, p: float
) -> None:
    found = exactly(power(k, p), widths)
    assert found.low <= EXPONENT <= found.high
    assert found.low == pytest.approx(min(found.slope, found.limit), abs=1e-7)
    assert found.high == pytest.approx(max(found.slope, found.limit), abs=1e-7)


def test_noise_of_the_slope_alone_would_not_cover() -> None:
    """The control of the tests above: were drift left out, they would fail."""
    estimates = repeat(power(k=3), shrinking)
    covered = np.mean([abs(found.slope - EXPONENT) <= found.noise for found in estimates])
    assert covered < 0.5


@pytest.mark.parametrize("noise", [shrinking, lasting])
def test_admitting_drift_costs_less_than_twice_the_width_where_there_is_none(
    noise: Callable[[Floats], Floats],
) -> None:
    estimates = repeat(power(), noise)
    whole = np.median([found.noise + found.drift for found in estimates])
    assert whole < 2 * np.median([found.noise for found in estimates])
    assert whole < 0.07


def test_half_width_is_noise_plus_drift() -> None:
    for found in repeat(power(k=3), shrinking, times=20):
        assert (found.high - found.low) / 2 == pytest.approx(found.noise + found.drift)
        assert found.low <= found.slope <= found.high
        assert found.drift >= 0


def test_drift_is_seldom_seen_where_there_is_none_and_always_where_it_is_large() -> None:
    quiet = np.mean([found.drifting for found in repeat(power(), shrinking)])
    assert quiet <= 0.05 + 3 * 0.011
    assert all(found.drifting for found in repeat(power(k=20), shrinking, seeds=8, times=50))


def test_the_true_exponent_is_agreed_to() -> None:
    assert share(repeat(power(), shrinking, seeds=8), Verdict.agree, EXPONENT) > 0.7
    assert share(repeat(power(), shrinking, seeds=16), Verdict.agree, EXPONENT) > 0.95


@pytest.mark.parametrize("noise", [shrinking, lasting])
@pytest.mark.parametrize("off", [0.25, -0.25])
def test_an_exponent_wrong_by_a_quarter_is_contradicted(
    off: float, noise: Callable[[Floats], Floats]
) -> None:
    for k in (0.0, 1.0):
        assert share(repeat(power(k), noise), Verdict.contradict, EXPONENT + off) > 0.95


def test_the_true_exponent_is_hardly_ever_contradicted() -> None:
    for k in (0.0, 3.0, 10.0):
        for noise in (shrinking, lasting):
            assert share(repeat(power(k), noise), Verdict.contradict, EXPONENT) <= 0.02


@pytest.mark.parametrize("predicted", [0.0, -1.0])
@pytest.mark.parametrize(
    "widths",
    [
        WIDTHS,
        GRIDS["four widths"],
        GRIDS["three widths"],
        GRIDS["finer"],
        WIDTHS[:6],
        WIDTHS[:5],
        [*WIDTHS, 8192, 16384, 32768],
    ],
)
def test_a_rule_under_way_from_one_exponent_to_another_is_a_crossover(
    widths: list[int], predicted: float
) -> None:
    found = exactly(crossing, widths)
    assert found.drifting and not found.settling
    assert judge(found, predicted, margin=0.05) is Verdict.crossover


@pytest.mark.parametrize("predicted", [0.0, -1.0])
def test_a_noisy_crossover_is_neither_agreed_to_nor_contradicted(predicted: float) -> None:
    estimates = repeat(crossing, shrinking)
    assert share(estimates, Verdict.crossover, predicted) > 0.95
    assert share(estimates, Verdict.agree, predicted) == 0
    assert share(estimates, Verdict.contradict, predicted) <= 0.02


def test_few_seeds_do_not_contradict_what_a_crossover_leads_to() -> None:
    for seeds in (1, 2):
        estimates = repeat(crossing, shrinking, seeds)
        assert share(estimates, Verdict.agree, -1) == 0
        assert share(estimates, Verdict.contradict, -1) <= 0.1


def test_beyond_the_crossover_its_end_is_agreed_to_and_its_start_contradicted() -> None:
    found = exactly(crossing, [10**4, 10**5, 10**6, 10**7, 10**8])
    assert judge(found, -1, margin=0.05) is Verdict.agree
    assert judge(found, 0, margin=0.05) is Verdict.contradict


def test_an_exact_power_has_an_interval_at_the_level_of_rounding_but_not_empty() -> None:
    for exponent in (-2.0, 0.0, 0.5):
        for seeds in (1, 3):
            found = exactly(power(exponent=exponent), seeds=seeds)
            assert found.slope == pytest.approx(exponent, abs=1e-12)
            assert 0 < found.noise < 1e-6
            assert judge(found, exponent, margin=0.01) is Verdict.agree
            assert judge(found, exponent + 0.1, margin=0.01) is Verdict.contradict


def test_slope_is_taken_over_the_upper_half_of_the_range() -> None:
    assert exactly(power()).widths == (512, 1024, 2048, 4096)
    assert exactly(power(), [64, 128, 256]).widths == (64, 128, 256)
    assert exactly(power(), [10, 11, 12, 10**6]).widths == (11, 12, 10**6)


def test_local_slopes_are_those_between_neighbours_at_their_geometric_mid_width() -> None:
    found = exactly(power(exponent=2), [4, 16, 64])
    assert [mid for mid, _ in found.local_slopes] == pytest.approx([8, 32])
    assert [slope for _, slope in found.local_slopes] == pytest.approx([2, 2])


def test_sizes_in_another_unit_have_the_same_exponent() -> None:
    sizes = np.random.default_rng(0).lognormal(size=(4, 7))
    ours, theirs = estimate(WIDTHS, sizes), estimate(WIDTHS, 1e-30 * sizes)
    assert ours.slope == pytest.approx(theirs.slope, abs=1e-10)
    assert ours.high == pytest.approx(theirs.high, abs=1e-10)


def test_the_same_sizes_give_the_same_estimate() -> None:
    sizes = np.random.default_rng(0).lognormal(size=(4, 7))
    assert estimate(WIDTHS, sizes) == estimate(WIDTHS, sizes.copy())
    assert estimate(WIDTHS, sizes) == estimate(np.array(WIDTHS).tolist(), sizes.tolist())


def test_a_higher_confidence_widens_the_interval() -> None:
    sizes = np.random.default_rng(0).lognormal(size=(4, 7))
    assert estimate(WIDTHS, sizes, 0.99).noise > estimate(WIDTHS, sizes, 0.9).noise


def test_two_widths_show_no_drift_and_so_decide_nothing() -> None:
    found = exactly(power(), [64, 128])
    assert math.isinf(found.drift) and math.isfinite(found.noise)
    assert (found.low, found.high) == (-math.inf, math.inf)
    assert judge(found, EXPONENT, margin=0.05) is Verdict.inconclusive
    assert judge(found, EXPONENT + 1, margin=0.05) is Verdict.inconclusive


def test_one_seed_at_two_widths_has_unknown_noise() -> None:
    assert math.isinf(exactly(power(), [64, 128], seeds=1).noise)


def test_one_seed_takes_its_noise_from_the_residuals() -> None:
    estimates = repeat(power(), lasting, seeds=1)
    covered = np.mean([abs(found.slope - EXPONENT) <= found.noise for found in estimates])
    assert covered >= LEAST_COVERAGE
    assert np.median([found.noise for found in estimates]) < 0.2


def test_zero_everywhere_is_the_exponent_minus_infinity() -> None:
    found = estimate(WIDTHS, np.zeros((3, 7)))
    assert (found.slope, found.low, found.high) == (-math.inf,) * 3
    assert (found.noise, found.drift, found.drifting) == (0, 0, False)
    assert judge(found, -math.inf, margin=0.05) is Verdict.agree
    assert judge(found, -3.0, margin=0.05) is Verdict.contradict
    assert judge(exactly(power()), -math.inf, margin=0.05) is Verdict.contradict
    assert remedy(found, -math.inf, margin=0.05) == Remedy(seeds=3, width=4096)


def test_the_gravest_verdict_counts() -> None:
    agree, inconclusive = Verdict.agree, Verdict.inconclusive
    crossover, contradict = Verdict.crossover, Verdict.contradict
    assert overall([agree, agree]) is agree
    assert overall([agree, inconclusive]) is inconclusive
    assert overall(iter([inconclusive, crossover, agree])) is crossover
    assert overall([crossover, contradict, inconclusive]) is contradict
    with pytest.raises(InvalidInput, match=r"found: no verdict.*\nneeded: at least one"):
        overall([])


def test_the_seeds_of_the_remedy_settle_what_fewer_left_open() -> None:
    found = repeat(power(), lasting, times=1)[0]
    assert judge(found, EXPONENT, margin=0.05) is Verdict.inconclusive
    more = remedy(found, EXPONENT, margin=0.05)
    assert more is not None and more.seeds > found.seeds and more.width == 4096
    assert share(repeat(power(), lasting), Verdict.agree, EXPONENT) < 0.2
    assert share(repeat(power(), lasting, more.seeds), Verdict.agree, EXPONENT) > 0.5


def test_a_settled_estimate_needs_no_remedy() -> None:
    here = Remedy(seeds=4, width=4096)
    assert remedy(exactly(power()), EXPONENT, margin=0.05) == here
    assert remedy(exactly(power()), EXPONENT + 1, margin=0.05) == here


def test_drift_is_settled_by_wider_networks_and_not_by_seeds() -> None:
    more = remedy(exactly(power(k=10)), EXPONENT, margin=0.05)
    assert more is not None and more.seeds == 4 and more.width > 4096
    wider = [2**i for i in range(6, more.width.bit_length() + 1)]
    assert judge(exactly(power(k=10), wider), EXPONENT, margin=0.05) is Verdict.agree
    crossover = remedy(exactly(crossing), -1, margin=0.05)
    assert crossover is not None and crossover.width >= 2 * 4096


def test_two_widths_are_settled_by_a_third() -> None:
    assert remedy(exactly(power(), [64, 128]), EXPONENT, margin=0.05) == Remedy(4, 256)
    assert remedy(exactly(power(), [64, 128], seeds=1), EXPONENT, margin=0.05) == Remedy(4, 256)


def test_an_exponent_on_the_edge_of_the_margin_has_no_remedy() -> None:
    found = replace(exactly(power(k=10)), limit=-0.25, slope=-0.3, low=-0.4, high=-0.2)
    assert remedy(found, -0.5, margin=0.25) is None


@pytest.mark.parametrize(
    ("widths", "message"),
    [
        ([64], r"found: 1 width.*\nneeded: at least 2 widths.*\ndo this: "),
        ([], r"found: 0 width.*\nneeded: at least 2 widths.*\ndo this: "),
        ([64, 64], r"found: width 64 after width 64\nneeded: .*increase\ndo this: sort"),
        ([128, 64], r"found: width 64 after width 128\nneeded: .*increase\ndo this: sort"),
        ([0, 64], r"found: width 0\nneeded: .*1 or larger\ndo this: "),
        ([64, 64.5], r"found: width 64.5\nneeded: .*whole numbers.*\ndo this: "),
        ([64, math.nan], r"found: width nan\nneeded: .*\ndo this: "),
    ],
)
def test_bad_widths_are_named(widths: list[int], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        estimate(widths, np.ones((2, len(widths))))


@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf, 0.0])
def test_a_bad_size_is_named_by_width_and_seed(bad: float) -> None:
    sizes = np.ones((3, 7))
    sizes[2, 4] = bad
    with pytest.raises(InvalidInput, match=r"found: size .* at width 1024, seed 2.*\nneeded: "):
        estimate(WIDTHS, sizes)


@pytest.mark.parametrize(
    "sizes", [np.ones(7), np.ones((3, 6)), np.ones((0, 7)), np.ones((1, 7, 1))]
)
def test_a_bad_shape_of_sizes_is_named(sizes: Floats) -> None:
    with pytest.raises(InvalidInput, match=r"found: sizes of shape \(.*\nneeded: .*\(seeds, 7\)"):
        estimate(WIDTHS, sizes)


def test_sizes_that_are_no_table_are_refused() -> None:
    with pytest.raises(InvalidInput, match=r"no table of numbers"):
        estimate([64, 128], [[1.0, 2.0], [3.0]])


@pytest.mark.parametrize("confidence", [0.0, 1.0, math.nan])
def test_a_bad_confidence_is_refused(confidence: float) -> None:
    with pytest.raises(InvalidInput, match=r"found: confidence=.*\nneeded: .*between 0 and 1"):
        estimate(WIDTHS, np.ones((2, 7)), confidence)


@pytest.mark.parametrize(
    ("predicted", "margin", "message"),
    [
        (math.nan, 0.05, r"found: predicted=nan\nneeded: a finite exponent, or -inf"),
        (math.inf, 0.05, r"found: predicted=inf\nneeded: "),
        (0.0, 0.0, r"found: margin=0.0\nneeded: .*larger than 0\ndo this: "),
        (0.0, math.inf, r"found: margin=inf\nneeded: "),
    ],
)
def test_a_question_without_an_answer_is_refused(
    predicted: float, margin: float, message: str
) -> None:
    for ask in (judge, remedy):
        with pytest.raises(InvalidInput, match=message):
            ask(exactly(power()), predicted, margin)


# --- corrections that theory knows to be slower -------------------------------------------------


@pytest.mark.parametrize("k", [1.0, -2.0])
@pytest.mark.parametrize("widths", [GRIDS["finer"], GRIDS["far"]], ids=["finer", "far"])
def test_a_slow_correction_is_covered_where_its_decay_is_given(widths: list[int], k: float) -> None:
    sizes = np.tile(power(k, p=0.25)(np.array(widths, dtype=np.float64)), (4, 1))
    blind, told = estimate(widths, sizes), estimate(widths, sizes, decay=0.25)
    assert told.low <= EXPONENT <= told.high
    assert told.limit == pytest.approx(EXPONENT, abs=1e-6)
    assert not blind.low <= EXPONENT <= blind.high, "the control: M**(-1/2) does not cover it"


def test_between_two_terms_that_differ_by_little_nothing_is_contradicted() -> None:
    """1 + r M**(-1/4): the second term is the larger one up to M = r**4."""
    sizes = [[1 + 6 * width**-0.25 for width in WIDTHS]] * 4
    blind, told = estimate(WIDTHS, sizes), estimate(WIDTHS, sizes, decay=0.25)
    assert judge(blind, 0, margin=0.05) is Verdict.contradict, "the control"
    assert judge(told, 0, margin=0.05) is Verdict.crossover
    assert judge(told, -0.5, margin=0.05) is Verdict.contradict
    assert judge(told, 0.25, margin=0.05) is Verdict.contradict
    falling = estimate(WIDTHS, [[1 / size for size in row] for row in sizes], decay=0.25)
    assert judge(falling, 0.3, margin=0.05) is Verdict.contradict, "slopes that fall lead elsewhere"


def test_the_width_that_settles_a_slow_correction_is_further_off() -> None:
    sizes = [[1 + 6 * width**-0.25 for width in WIDTHS]] * 4
    told = estimate(WIDTHS, sizes, decay=0.25)
    slope, limit = abs(told.slope), abs(told.limit)
    cure = remedy(told, 0, margin=(2 * slope + limit) / 3)
    assert cure is not None
    span_over_room = 3 / 2
    assert cure.width == pytest.approx(WIDTHS[-1] * span_over_room**8, rel=1e-3)


@pytest.mark.parametrize("decay", [0.0, -1.0, float("nan"), float("inf")])
def test_a_decay_is_a_positive_number(decay: float) -> None:
    with pytest.raises(InvalidInput, match="larger than 0"):
        estimate(WIDTHS, [[1.0] * len(WIDTHS)], decay=decay)


def test_a_straight_slope_is_that_of_least_squares_and_has_no_drift() -> None:
    """Beside numpy's fit of a line to the mean; `estimate` on the same sizes is wider."""
    sizes, rng = [8, 16, 32, 64], np.random.default_rng(0)
    table = (
        np.array(sizes) ** 0.5 * (1 + np.array(sizes) ** -0.5) * np.exp(rng.normal(0, 0.02, (5, 4)))
    )
    slope, low, high = straight_slope(sizes, table)
    by_seed = np.polyfit(np.log(sizes), np.log(table).T, 1)[0]
    assert slope == pytest.approx(by_seed.mean())
    student = stats.t.interval(0.95, 4, by_seed.mean(), stats.sem(by_seed))
    assert (low, high) == pytest.approx(student)
    assert high < 0.5  # the correction is not allowed for
    found = estimate(sizes, table)
    assert found.low <= 0.5 <= found.high and found.high - found.low > 2 * (high - low)
