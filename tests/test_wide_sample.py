"""Own updates alone: some rows stand for all, and nothing else changes."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_wide_rows import RULES, VALUES, axis, normal
from typer.testing import CliRunner
from wide_trials import JUMPS, ROUNDING, SAME_BITS, assert_same_numbers, least_p_value, ruled, trial

from empirical.data.sources import load
from empirical.measure.calibration import calibrate
from empirical.measure.dense_steps import measure
from empirical.measure.measured_sizes import Measurement, Quantity
from empirical.measure.trial import Constants, Trial
from empirical.numbers.interpreter import LayerTensors, State, evaluate
from empirical.verify.campaign import Experiment, Mode, RunRequest, plan
from empirical.verify.verification import verify
from empirical.wide import Streaming, measure_wide, method, sample
from empirical.wide.implicit import ImplicitGaussian, Span
from empirical.wide.method import WIDEST_SAMPLE, path_of, refuse_unless_wide
from empirical.wide.method import Path as Way
from empirical.wide.noise import ROWS, Stream
from empirical.wide.sample import sampled
from empirical.wide.span_update import Coordinates, Source
from empirical.wide.weight import Weight
from scaling.cli.main import app
from scaling.cli.requests import problem_with, subject_of
from scaling.models.chain import Activation
from scaling.rules.parser import parse
from scaling.rules.schedule import sum_levels
from scaling.rules.shapes import Dim
from scaling.rules.weight_term import parts
from scaling.sizes.errors import InvalidInput

ALPHA = 1e-3
OWN = Quantity.OWN
SAMPLED = [
    *(text for text in RULES if path_of(parse(text), own_only=True) is Way.SAMPLE),
    "sign(G - row_mean(G)) / (abs(G) + row_mean(abs(sign(G - row_mean(G)) + G)))",
    "norm(W) * sign(G) + trace(A) * W / 7",
]
JUMPS_AT_ZERO = "G - row_mean(G)"
"""Zero where there is one column, in exact arithmetic; its sign is that of rounding there."""


def adds_up_rows(text: str) -> bool:
    nodes = [node for level in sum_levels(parts(parse(text).expression).terms) for node in level]
    return any(Dim.FAN_OUT not in node.shape.dims for node in nodes)


def own_of(text: str, sides: tuple[int, int]) -> tuple[float, torch.Tensor]:
    """The size from a sample, and dW x by whole matrices."""
    rule, (above, below) = parse(text), map(axis, sides)
    d, h, x = normal(0, sides[0], 4), normal(1, sides[1], 4), normal(2, sides[1], 3)
    d[::5], h[1::7] = 0, 0  # dead units
    weight = Weight(ImplicitGaussian.between(above, below, 0.3, Stream(0, (1,))))
    source = Source(rule, VALUES, Coordinates(Span(above), Span(below), 1))
    watched = frozenset(rule.expression.walk())
    seen = above.given(d), below.given(h), None, weight, watched
    found = (-2 * sampled(source, *seen)).size(below.given(x))
    w = torch.zeros(sides).double()
    if "W" in text:
        w = above.values(weight @ below.given(torch.eye(sides[1])))
    whole = evaluate(rule, LayerTensors(h, d, w), VALUES, State())
    return found, -2 * (whole @ x)


@pytest.mark.parametrize("sides", [(40, 30), (3, 30), (40, 1)])
@pytest.mark.parametrize("text", SAMPLED)
def test_a_sample_of_all_rows_is_the_layer(text: str, sides: tuple[int, int]) -> None:
    if sides[1] == 1 and JUMPS_AT_ZERO in text:
        text = text.replace(f"sign({JUMPS_AT_ZERO})", "(sign(G) + row_mean(G))")
    found, whole = own_of(text, sides)
    assert found == pytest.approx(float(whole.square().mean().sqrt()), rel=1e-9)


def test_what_cancels_is_rounding_in_a_sample_and_in_the_layer() -> None:
    """Of one column, the mean is the column: what is left may have either sign, or be zero."""
    found, whole = own_of(JUMPS_AT_ZERO, (40, 1))
    size, _ = own_of("G", (40, 1))
    assert max(found, float(whole.abs().max())) < 1e-14 * size


@pytest.mark.parametrize(
    "text", [x for x in SAMPLED if not adds_up_rows(x) and ("W" not in x or "4" in x)]
)
def test_a_sample_of_some_rows_is_that_of_the_first(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample, "SAMPLED_ROWS", 12)
    found, whole = own_of(text, (40, 30))
    assert found == pytest.approx(float(whole[:12].square().mean().sqrt()), rel=1e-9)
    assert found != pytest.approx(float(whole.square().mean().sqrt()), rel=1e-4)


@pytest.mark.parametrize("text", ["sign(G)", "(block(L, 4) + rho*I)**(-e) @ G @ block(R, 4)"])
def test_columns_stream_by_in_chunks(text: str) -> None:
    found, whole = own_of(text, (6, 2 * ROWS + 7))
    assert found == pytest.approx(float(whole.square().mean().sqrt()), rel=1e-6)


@pytest.mark.parametrize("text", [x for x in SAMPLED if adds_up_rows(x) and "W" not in x])
def test_sums_over_all_rows_are_those_of_a_sample_of_them(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As near as 500 of 4000 rows are; a sum of these alone would be off by a factor of 8."""
    monkeypatch.setattr(sample, "SAMPLED_ROWS", 500)
    found, whole = own_of(text, (4000, 30))
    assert found == pytest.approx(float(whole.square().mean().sqrt()), rel=0.2)


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("G / norm(abs(G))", lambda g: g / (g.norm() * math.sqrt(40 / 12))),
        ("G / rms(sign(G))", lambda g: g / g.sign().square().mean().sqrt()),
        ("sign(G / col_mean(abs(G)))", lambda g: (g / g.abs().mean(dim=0)).sign()),
        ("G / rms(col_mean(G*G))", lambda g: g / (g**2).mean(dim=0).square().mean().sqrt()),
        ("G / rms(row_mean(G*G))", lambda g: g / (g**2).mean(dim=1).square().mean().sqrt()),
        ("G / norm(sign(G) - row_mean(sign(G) - col_mean(abs(G))))",
         lambda g: g / math.sqrt(40 / 12) / _nested(g).norm()),
    ],
)  # fmt: skip
def test_sums_over_rows_as_written_out(
    text: str, made: Callable[[torch.Tensor], torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample, "SAMPLED_ROWS", 12)
    columns = 2 * ROWS + 7  # of several chunks
    found, _ = own_of(text, (40, columns))
    d, h, x = normal(0, 40, 4), normal(1, columns, 4), normal(2, columns, 3)
    d[::5], h[1::7] = 0, 0
    g = d[:12] @ h.T / 4
    assert found == pytest.approx(float((-2 * made(g) @ x).square().mean().sqrt()), rel=1e-5)


def _nested(g: torch.Tensor) -> torch.Tensor:
    inner = g.sign() - g.abs().mean(dim=0)
    return g.sign() - inner.mean(dim=1, keepdim=True)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("G - col_mean(G)", False),
        ("G / rms(col_mean(sign(G)))", False),
        ("G / col_mean(abs(G) - G)", False),
        ("sign(G) - (debiased(col_mean(G), beta) - col_mean(G))", True),
        ("sign(G) - (debiased(col_mean(G), beta) - 2*col_mean(G))", False),
        ("G / (eps + col_mean(G**2 + ema(G*G, beta) + sqrt(abs(G)) + max(1, norm(G))))", True),
        ("G / (eps + col_mean(G**2 + ema(G*G, beta) + G))", False),
        ("sign(G) + row_mean(G)", True),
    ],
)
def test_means_over_all_rows_of_either_sign_rule_a_sample_out(text: str, told: bool) -> None:
    """Over all rows they are M^(-1/2) times smaller than what they add up, over some not."""
    assert path_of(parse(text), own_only=True) is (Way.SAMPLE if told else Way.ROWS)


def test_a_mean_of_either_sign_over_some_rows_would_not_scale() -> None:
    """The control: what is refused above is wrong by the width."""
    g = normal(0, 4000, 4) @ normal(1, 30, 4).T / 4
    of_all, of_some = (float(x.mean(dim=0).square().mean().sqrt()) for x in (g, g[:100]))
    assert of_some > 2 * of_all


def test_blocks_that_a_sample_would_cut_rule_it_out() -> None:
    text = "sign(G) @ (block(A, 3) + rho*I)"
    assert path_of(parse(text), own_only=True) is Way.ROWS
    assert {path_of(parse(x), own_only=True) for x in RULES if "3)" in x} == {Way.ROWS}


# --- networks -----------------------------------------------------------------------------------


def own_sizes(t: Trial, c: Constants, width: int, seed: int, **more: Any) -> Measurement:
    return measure_wide(t, c, width, seed, quantity=OWN, **more)


def numbers(m: Measurement) -> dict[str, float]:
    return {f"{q} of {k}": x for k, sizes in m.sizes.items() for q, x in sizes.known().items()}


@pytest.mark.parametrize("name", ["kfac", "momentum", "lars"])
def test_what_is_left_out_changes_nothing_else(name: str) -> None:
    t = trial(name, biases=True)
    constants = calibrate(t, 48)
    for steps in (1, 2):
        full = measure_wide(t, constants, 500, 3, steps)
        alone = measure_wide(t, constants, 500, 3, steps, quantity=OWN)
        assert all(x.feature is None for x in alone.sizes.values())
        for what, x in numbers(alone).items():
            assert numbers(full)[what] == pytest.approx(x, rel=1e-9), what
        assert alone.sums.keys() == full.sums.keys()
        for key, terms in alone.sums.items():  # what is kept between passes moves the last bit
            assert full.sums[key] == pytest.approx(terms, rel=1e-9), key
    dense, less = measure(t, constants, 48, 0), measure(t, constants, 48, 0, quantity=OWN)
    for layer, sizes in less.sizes.items():
        assert sizes == replace(dense.sizes[layer], feature=None)


TRIALS = {
    "sign": trial("sign", 4, biases=True),
    "adam": trial("adam", activation=Activation.RELU),
    "shampoo_blocked": trial("shampoo_blocked"),
    "decay": ruled("sign(G) + norm(W)*shrink*W"),
    "lamb": trial("lamb", activation=Activation.RELU),
    "adafactor": trial("adafactor"),
    "an average of weights in the span": ruled("ema(G + shrink*W, beta)"),
    "an average of weights": ruled("ema(sign(G) + norm(W)*shrink*W, beta) - shrink*G"),
}


@pytest.mark.parametrize("name", TRIALS)
def test_own_updates_alone_have_the_law_of_a_dense_network(name: str) -> None:
    t = TRIALS[name]
    constants = calibrate(t, 48)
    runs = [
        [numbers(one(t, constants, 48, seed, quantity=OWN)) for seed in range(40)]
        for one in (measure_wide, measure)
    ]
    ours, theirs = ({what: [run[what] for run in some] for what in some[0]} for some in runs)
    assert least_p_value(ours, theirs) > ALPHA


def test_rows_are_exchangeable() -> None:
    """The mean square over a sample of rows has the mean of that over all, in every layer."""
    t = trial("adam", activation=Activation.RELU)
    constants = calibrate(t, 48)

    def squares(rows: int) -> np.ndarray:
        runs = [own_sizes(t, constants, 64, seed, sampled_rows=rows) for seed in range(150)]
        return np.array([[x.own**2 for x in run.sizes.values()] for run in runs])

    every, some = squares(64), squares(16)
    gap = (some - every)[:, :2] / every[:, :2].mean(axis=0)  # the output has fewer rows than that
    error = gap.std(axis=0, ddof=1) / math.sqrt(len(gap))
    assert (error > 0).all() and (error < 0.05).all()  # an error of a sixth would be seen
    assert (np.abs(gap.mean(axis=0)) < 3.3 * error).all()


def test_networks_of_all_widths_share_the_rows_of_a_sample() -> None:
    t = trial("sign")
    constants = calibrate(t, 48)

    def log_size(width: int, seed: int) -> float:
        run = own_sizes(t, constants, width, seed, sampled_rows=16)
        return math.log(run.sizes["hidden"].own)

    logs = np.array([[log_size(w, seed) for w in (2**14, 2**16)] for seed in range(8)])
    assert (logs[:, 1] - logs[:, 0]).std() < 0.2 * logs[:, 0].std()


@pytest.mark.parametrize(
    ("name", "rounding"),
    [("sign", JUMPS), ("shampoo_blocked", ROUNDING[torch.float32]), ("lars", 1e-9)],
)
def test_workers_and_memory_change_no_bit_and_chunks_no_more_than_rounding(
    name: str, rounding: float
) -> None:
    t, width = trial(name), 2 * ROWS + 17
    constants = calibrate(t, 48)
    usual = {"task": ROWS, "chunk": ROWS}
    plain = numbers(own_sizes(t, constants, width, 5, streaming=Streaming(**usual)))
    for options in (*SAME_BITS, {"memory_limit": 2**24}, {"chunk": 2 * ROWS}):
        other = own_sizes(t, constants, width, 5, streaming=Streaming(**{**usual, **options}))
        assert_same_numbers(plain, numbers(other), options, rounding)


def test_a_neuron_weighs_more_than_what_jumps_may_move() -> None:
    """The control of the tolerance: without one neuron of the width above, a size is another."""
    width = 2 * ROWS + 17
    g, x = normal(0, 64, 4) @ normal(1, width, 4).T, normal(2, width, 3)
    every, others = (float((y.sign() @ z).norm()) for y, z in ((g, x), (g[:, 1:], x[1:])))
    assert abs(others / every - 1) > JUMPS


def test_entries_within_rounding_of_a_jump_are_few() -> None:
    """Of a million entries of float32, fewer than ten have another sign than in float64."""
    d, h = normal(0, 1000, 4).float(), normal(1, 1000, 4).float()
    rounded, exact = d @ h.T, d.double() @ h.double().T
    assert not torch.equal(rounded.double(), exact)
    assert float((rounded.sign() != exact.sign()).double().mean()) < 1e-5


def test_a_memory_limit_below_the_chunks_at_work_is_refused() -> None:
    t = trial("sign")
    with pytest.raises(InvalidInput, match=r"found: a memory limit of 1\.0 MiB"):
        own_sizes(t, calibrate(t, 48), 20_000, 0, streaming=Streaming(memory_limit=2**20))


def test_widths_that_a_sample_cannot_reach_are_refused_by_name() -> None:
    refuse_unless_wide(parse("sign(G)"), WIDEST_SAMPLE, own_only=True)
    with pytest.raises(InvalidInput, match=r"found: the width .* for 'sign\(G\)'"):
        refuse_unless_wide(parse("sign(G)"), WIDEST_SAMPLE + 1, own_only=True)
    with pytest.raises(InvalidInput, match=r"(?s)for 'sign\(G\)'.*, --quantity own, or an update"):
        refuse_unless_wide(parse("sign(G)"), method.WIDEST_ROWS + 1)
    with pytest.raises(InvalidInput, match=r"found: the width .* for 'abs\(G\)'"):
        refuse_unless_wide(parse("G / norm(abs(G))"), WIDEST_SAMPLE + 1, own_only=True)
    with pytest.raises(InvalidInput, match=r"for 'col_mean\(G\)' in .*, which adds up entries"):
        refuse_unless_wide(parse("G - col_mean(G)"), method.WIDEST_ROWS + 1, own_only=True)


# --- the surface --------------------------------------------------------------------------------

DIGITS = load("digits", samples=8, probe=6)


def table(rule: str) -> Any:
    return subject_of(rule, problem_with(rule))


def test_a_verification_of_own_updates_measures_no_features(tmp_path: Path) -> None:
    shared = {"margin": 0.1, "data": DIGITS, "threads": 1, "mode": Mode.WIDE}
    every = Experiment((64, 128, 256), 2, **shared)
    alone = replace(every, quantity=OWN)
    first = verify([table("sign")], every, out=tmp_path)
    lines = len((tmp_path / "records.jsonl").read_text().splitlines())
    second = verify([table("sign")], alone, out=tmp_path)
    assert len((tmp_path / "records.jsonl").read_text().splitlines()) == 2 * lines  # none is mixed
    again = verify([table("sign")], every, out=tmp_path)
    assert [c.measured for c in again.checks] == [c.measured for c in first.checks]
    assert {c.quantity for c in second.checks} == {"init", "own"}
    with pytest.raises(InvalidInput, match="found: an expectation of a feature change"):
        verify([table("sign")], alone, expect=["feature_hidden=0"])


def test_plans_of_own_updates_reach_further() -> None:
    tables = [table("kfac"), table("sign"), table("adafactor")]
    plans = plan(tables, RunRequest(DIGITS, threads=1), "wide", quantity=OWN)
    found = {subject.name: x for subjects, x in plans for subject in subjects}
    assert all(x.quantity is OWN for x in found.values())
    assert found["sign"].widths[-1] == found["adafactor"].widths[-1] == 2**20
    assert found["sign"].base == 1024 < found["sign"].widths[0]


def test_the_command_line_asks_for_own_updates() -> None:
    words = ["measure", "adam", "--quantity", "own", "--width", "20000", "--format", "json"]
    answer = CliRunner().invoke(app, words)
    assert answer.exit_code == 0, answer.output
    sizes = json.loads(answer.output)["sizes"]
    assert {tuple(x) for x in sizes.values()} == {("init", "own")}
    refused = CliRunner().invoke(app, ["verify", "sign", "--deep", "--quantity", "own"])
    assert isinstance(refused.exception, InvalidInput)
    assert refused.exception.found == "--quantity with --deep"
