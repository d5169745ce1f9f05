"""Measures of transfer: exact on losses in closed form, honest about noise, and able to fail."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from derivations.catalogue import find
from empirical.claims.rate_transfer import moves
from empirical.fit.verdict import Verdict
from empirical.networks import MLP
from empirical.networks.stacked import covers
from empirical.transfer import sweep as sweeping
from empirical.transfer.sweep import (
    Family,
    Sweep,
    SweptAxis,
    SweptParametrization,
    factors,
    losses_of,
    train,
)
from empirical.transfer.transfer_measures import (
    Interval,
    Losses,
    best_rate,
    bootstrapped,
    parametrization_penalty,
    transfer,
)
from scaling.rules.parser import parse
from scaling.sizes.errors import InvalidInput

WIDTHS = (64, 128, 256, 512)
RATES = tuple(float(v) for v in range(-8, 3))


def synthetic(
    drift: float, noise: float = 0.0, seeds: int = 4, curvature: float = 0.3, seed: int = 0
) -> Losses:
    """log loss = floor(M) + curvature (v - best)^2 / 2, best = -3 + drift log2(M/64) + noise."""
    generator = np.random.default_rng(seed)
    x = np.log2(np.array(WIDTHS) / 64)
    best = -3 + drift * x[:, None] + noise * generator.normal(size=(len(WIDTHS), seeds))
    floor = np.log(0.1 + 1.6 * np.array(WIDTHS, float) ** -0.5)
    logs = floor[:, None, None] + curvature / 2 * (np.array(RATES) - best[:, :, None]) ** 2
    return Losses(WIDTHS, RATES, np.exp(logs), np.full((len(WIDTHS), seeds), math.inf))


def drift_of(losses: Losses) -> Any:
    """The drift alone, which is quicker than all measures."""
    x = np.log2(WIDTHS)
    return bootstrapped(
        losses.logs, lambda m: float(np.polyfit(x, [best_rate(RATES, row)[0] for row in m], 1)[0])
    )


# --- the statistics -----------------------------------------------------------------------------


@pytest.mark.parametrize("drift", [-1.0, -0.5, 0.0, 0.3])
def test_a_drift_in_closed_form_is_found_exactly(drift: float) -> None:
    found = transfer(synthetic(drift))
    assert found.drift.value == pytest.approx(drift, abs=1e-9)
    assert found.drift.high - found.drift.low < 1e-9
    assert found.residual < 1e-9 and found.miss.value == pytest.approx(0, abs=1e-9)
    assert [b.value for b in found.best] == pytest.approx([-3 + drift * i for i in range(4)])
    assert found.at_edge == ()


def test_the_penalty_of_the_narrow_rate_is_that_of_the_parabola() -> None:
    found = transfer(synthetic(-1.0))  # three doublings too high at the widest
    assert found.penalty.value == pytest.approx(math.expm1(0.3 / 2 * 9))
    assert transfer(synthetic(0.0)).penalty.value == pytest.approx(0, abs=1e-12)
    assert found.tolerance == pytest.approx(math.sqrt(2 * math.log(1.05) / 0.3))


@pytest.mark.filterwarnings("error")
def test_losses_below_rounding_are_all_the_same() -> None:
    table = synthetic(0.0).table.copy()
    table[-1] = 0.0
    table[0, 0, 0] = math.nan
    start = np.full(table.shape[:2], 2.0)
    logs = Losses(WIDTHS, RATES, table, start).logs
    assert np.all(logs[-1] == logs[-1].max()) and np.exp(logs[-1].max()) == pytest.approx(2**-23)
    assert logs[0, 0, 0] == pytest.approx(math.log(2))
    assert math.isfinite(transfer(Losses(WIDTHS, RATES, table, start)).drift.value)


@pytest.mark.filterwarnings("error")
def test_a_ratio_to_a_limit_of_zero_bounds_nothing() -> None:
    """Losses ~ M^-1 extrapolate below zero on (1, M^-1/2)."""
    usual = synthetic(0, noise=0.5)
    falling = np.array([1.0, 0.5, 0.25, 0.125])[:, None, None]
    zero = Losses(WIDTHS, RATES, usual.table * falling, usual.start)
    found = parametrization_penalty(zero, usual, limit=True)
    assert (found.low, found.high) == (-math.inf, math.inf)
    assert parametrization_penalty(zero, usual).high < math.inf


def test_the_penalty_of_a_parametrization_at_the_widest_and_in_the_limit() -> None:
    one = synthetic(0.0)
    doubled = Losses(one.widths, one.rates, 2 * one.table, one.start)
    assert parametrization_penalty(one, doubled).value == pytest.approx(1)
    assert parametrization_penalty(one, doubled, limit=True).value == pytest.approx(1)
    slower = np.exp(one.logs) + 1.6 * np.array(WIDTHS, float)[:, None, None] ** -0.5
    worse = Losses(one.widths, one.rates, slower, one.start)
    assert parametrization_penalty(one, worse).value > 0.3
    assert parametrization_penalty(one, worse, limit=True).value == pytest.approx(0, abs=1e-6)


def test_intervals_cover_the_drift_as_often_as_they_say() -> None:
    hits = sum(
        found.low <= -0.4 <= found.high
        for s in range(60)
        for found in (drift_of(synthetic(-0.4, noise=0.3, seed=s)),)
    )
    assert hits >= 52, f"{hits} of 60 at 95 %"  # fewer than 52 has probability 1e-3


def test_a_wrong_drift_is_contradicted_and_the_right_one_agreed_to() -> None:
    found = transfer(synthetic(-0.5, noise=0.1, seeds=6)).drift
    assert found.judge(-0.5, 0.25) is Verdict.agree
    assert found.judge(0.0, 0.25) is Verdict.contradict
    assert found.judge(-1.0, 0.25) is Verdict.contradict


def test_noise_makes_a_drift_inconclusive_and_never_agreed_to() -> None:
    found = transfer(synthetic(0.0, noise=2.0, seeds=2)).drift
    assert found.judge(0.0, 0.25) is Verdict.inconclusive


def test_a_best_rate_at_the_edge_is_named() -> None:
    found = transfer(synthetic(3.0))
    assert found.at_edge == (256, 512)
    assert best_rate(RATES, [-v for v in RATES]) == (RATES[-1], 0.0)


def test_a_run_that_diverged_counts_as_having_learned_nothing() -> None:
    one = synthetic(0.0)
    table = one.table.copy()
    table[:, :, -1] = np.nan
    start = np.full(one.start.shape, 5.0)
    cut = Losses(one.widths, one.rates, table, start).logs
    assert np.allclose(cut[:, :, -1], np.log(5.0)) and cut.max() <= np.log(5.0) + 1e-12


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"widths": (64, 128)}, "at least 3 widths|widths"),
        ({"rates": (0.0, 1.0, 3.0)}, "even steps"),
        ({"seeds": 1}, "at least 2 seeds"),
    ],
    ids=str,
)
def test_malformed_tables_are_refused(change: dict[str, Any], message: str) -> None:
    widths, rates = change.get("widths", WIDTHS), change.get("rates", (0.0, 1.0, 2.0))
    seeds = change.get("seeds", 2)
    table, start = np.ones((len(widths), seeds, len(rates))), np.ones((len(widths), seeds))
    with pytest.raises(InvalidInput, match=message):
        Losses(widths, rates, table, start)


def test_parametrizations_of_other_seeds_are_not_compared() -> None:
    with pytest.raises(InvalidInput, match="the same widths and seeds"):
        parametrization_penalty(synthetic(0.0), synthetic(0.0, seeds=5))


# --- the sweep ----------------------------------------------------------------------------------


def half_square(f: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return 0.5 * (f - y).square().sum(dim=-1).mean()


def family(build: Any = None) -> Family:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 6, generator=generator)
    y = torch.eye(3)[torch.arange(40) % 3]
    usual = lambda width: MLP(6, width, 3, 3, "relu")  # noqa: E731
    return Family("small", build or usual, x, y, half_square, 8)


def small(
    rule: str = "kfac", p: SweptParametrization = SweptParametrization.mup, **changes: Any
) -> Sweep:
    usual: dict[str, Any] = {"widths": (8, 16, 32), "values": (-4.0, -3.0, -2.0), "seeds": 2,
                             "steps": 5, "dtype": torch.float64}  # fmt: skip
    return Sweep(changes.pop("family", family()), find(rule), p, **{**usual, **changes})


@pytest.mark.parametrize("p", list(SweptParametrization))
@pytest.mark.parametrize("rule", ["kfac", "foof", "shampoo", "kfac_relative", "muon", "sgd"])
def test_networks_side_by_side_are_networks_one_by_one(
    monkeypatch: pytest.MonkeyPatch, rule: str, p: SweptParametrization
) -> None:
    one = small(rule, p)
    together = train(one, 16, 1)
    monkeypatch.setattr(sweeping, "covers", lambda *_: False)
    alone = train(one, 16, 1)
    assert together["start"] == pytest.approx(alone["start"], rel=1e-12)
    assert together["losses"] == pytest.approx(alone["losses"], rel=1e-8)
    assert together["losses"][0] < together["start"][0]


def test_networks_that_do_not_fit_side_by_side_are_trained_in_turns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    together = train(small(), 16, 1)
    monkeypatch.setattr(sweeping, "STACK_BYTES", 2 * 8 * (6 * 16 + 16 * 16 + 16 * 3))
    assert train(small(), 16, 1)["losses"] == pytest.approx(together["losses"], rel=1e-12)


def test_a_run_that_diverges_is_nan_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    one = small("sgd", values=(-3.0, 400.0, 900.0), steps=4)
    assert np.isnan(train(one, 16, 0)["losses"]).tolist() == [False, True, True]
    monkeypatch.setattr(sweeping, "covers", lambda *_: False)
    assert np.isnan(train(one, 16, 0)["losses"]).tolist() == [False, True, True]


@pytest.mark.parametrize("rule", ["sign(G)", "ema(G, beta)", "block(L, 2)**(-1) @ G", "rms(W)*G"])
def test_what_is_not_covered_side_by_side_says_so(rule: str) -> None:
    assert not covers(MLP(2, 4, 2), parse(rule))


def test_networks_other_than_a_plain_mlp_are_trained_one_by_one() -> None:
    def build(width: int) -> nn.Module:
        return nn.Sequential(nn.Linear(6, width), nn.Tanh(), nn.Linear(width, 3))

    assert not covers(build(4), find("kfac").rule)
    found = train(small(family=family(build)), 16, 0)
    assert found["losses"][1] < found["start"][0]


def test_the_parametrizations_agree_at_the_base_and_differ_beyond_it() -> None:
    mup, sp = small(), small(p=SweptParametrization.sp)
    assert train(mup, 8, 0) == train(sp, 8, 0)
    assert train(mup, 32, 0) != train(sp, 32, 0)
    hidden, output = (factors(sp, 32)[f"layers.{i}.weight"] for i in (1, 2))
    assert hidden.std == output.std == 0.5 and output.lr == 1.0


def test_dampings_are_swept_in_units_of_the_factors() -> None:
    one = small(axis=SweptAxis.damping, values=(-30.0, -3.0, 30.0))
    found = train(one, 8, 0)
    assert found["losses"][2] == pytest.approx(found["start"][0], rel=1e-6)  # drowned: no step
    assert found["losses"][1] < 0.9 * found["start"][0]


def test_losses_keep_width_seed_and_rate_apart() -> None:
    records = [[{"start": [9.0], "losses": [w + s, w + s + 0.1, w + s + 0.2]} for s in (0, 1)]
               for w in (8, 16, 32)]  # fmt: skip
    table = losses_of(small(), records)
    assert table.table[1, 1].tolist() == [17, 17.1, 17.2] and table.start.shape == (3, 2)


@pytest.mark.parametrize(
    ("found", "verdict", "why"),
    [
        (Interval(0.02, -0.08, 0.12), Verdict.contradict, "the best value stays put under SP too"),
        (Interval(0.21, 0.2, 0.22), Verdict.contradict, "it moves by less than 0.25 doublings a"),
        (Interval(-0.6, -0.7, -0.5), Verdict.agree, ""),
        (Interval(0.3, 0.1, 0.5), Verdict.inconclusive, ""),
    ],
)
def test_a_drift_under_sp_is_refused_with_how_far_it_is_one(
    found: Interval, verdict: Verdict, why: str
) -> None:
    said = moves("SP", found, ())
    assert said.verdict is verdict and said.note.startswith(why) and bool(said.note) is bool(why)
    at_edge = moves("SP", found, (64,))
    assert at_edge.verdict is Verdict.inconclusive and "at width 64" in at_edge.note
