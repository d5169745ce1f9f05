"""A verification agrees with what is right, contradicts what is wrong, and loses nothing."""

import csv
import io
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from empirical.data.sources import Data, given, load
from empirical.fit.verdict import Verdict
from empirical.measure.calibration import calibrate
from empirical.measure.machine import blas_threads
from empirical.measure.store import VERSION
from empirical.report import measured_tables
from empirical.verify import campaign
from empirical.verify.campaign import Experiment
from empirical.verify.subject import Subject
from empirical.verify.verification import EXIT_CODE, QUANTITIES, Check, Verification, verify
from scaling.cli.requests import problem_with, subject_of
from scaling.sizes.errors import InvalidInput, NotCovered

LAYERS = ("input", "hidden", "output")
DIGITS = load("digits")


def table(rule: str, *settings: str, **options: Any) -> Subject:
    return subject_of(rule, problem_with(rule, *settings, **options))


def experiment(**changes: Any) -> Experiment:
    usual: dict[str, Any] = {
        "widths": (32, 64, 128, 256, 512), "seeds": 16, "margin": 0.2, "data": DIGITS, "threads": 1,
    }  # fmt: skip
    return Experiment(**{**usual, **changes})


TINY = {"widths": (8, 16, 32), "seeds": 2}
SGD = table("sgd", activation="tanh")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with blas_threads(1):
        yield


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the records of one run of sgd, so that its other runs measure nothing."""
    folder = tmp_path_factory.mktemp("kept")
    verify([SGD], experiment(), out=folder)
    return folder


def by_place(result: Verification) -> dict[tuple[str, str], Check]:
    return {(c.quantity, c.layer): c for c in result.checks}


def lines(result: Verification) -> str:
    return "\n".join(f"{c.quantity} {c.layer}: {c.predicted} | {c.measured} | {c.verdict} {c.note}"
                     for c in result.checks)  # fmt: skip


# --- verdicts -----------------------------------------------------------------------------------


def test_sgd_agrees_with_what_is_derived(kept: Path) -> None:
    result = verify([SGD], experiment(), out=kept)
    assert result.verdict is Verdict.agree, lines(result)
    assert list(by_place(result)) == [(q, layer) for layer in LAYERS for q in QUANTITIES]
    assert EXIT_CODE[result.verdict] == 0


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("quantity", QUANTITIES)
@pytest.mark.parametrize("off", ["1/4", "-1/4"])
def test_a_wrong_exponent_is_contradicted_and_nothing_else_is(
    kept: Path, quantity: str, layer: str, off: str
) -> None:
    wrong = off if (quantity, layer) != ("init", "output") else f"{off} - 1/2"
    planted = f"{quantity}_{layer}={wrong}"
    result = verify([SGD], experiment(margin=0.1), [planted], kept)
    found = by_place(result)
    assert found[quantity, layer].verdict is Verdict.contradict, lines(result)
    assert EXIT_CODE[result.verdict] == 1
    others = [c for place, c in found.items() if place != (quantity, layer)]
    assert not [c for c in others if c.verdict is Verdict.contradict], lines(result)


def test_zero_is_agreed_to_where_it_is_predicted_and_contradicted_elsewhere(kept: Path) -> None:
    fixed = ["b_output=oo", "c_input=0", "c_hidden=0"]
    result = verify([table("sgd", *fixed)], experiment(**TINY))
    zeros = {(c.quantity, c.layer) for c in result.checks if c.measured.slope == -math.inf}
    below = {(q, layer) for q in ("own", "feature") for layer in ("input", "hidden")}
    assert zeros == {("init", "output"), *below}
    assert all(by_place(result)[place].verdict is Verdict.agree for place in zeros)
    planted = verify([SGD], experiment(), ["df=-oo"], kept)
    assert by_place(planted)["feature", "output"].verdict is Verdict.contradict


def test_a_constant_damping_crosses_over_and_the_culprit_is_named() -> None:
    few = experiment(seeds=4, margin=0.05, widths=(64, 128, 256, 512))
    result = verify([table("kfac", "d_rho_B=0")], few)
    found = by_place(result)["own", "hidden"]
    assert found.verdict is Verdict.crossover, lines(result)
    assert found.note.startswith("B + rho_B*I in hidden: the damping goes from 0.1"), found.note
    assert "A + rho_A*I" not in found.note
    assert EXIT_CODE[result.verdict] in (1, 3)
    balanced = verify([table("kfac")], few)
    assert not [c for c in balanced.checks if "rho_B" in c.note], lines(balanced)


def test_what_is_not_predicted_above_an_unstable_layer_is_a_note() -> None:
    result = verify([table("sgd", "c_input=-2")], experiment(**TINY))
    missing = {("feature", "hidden"), ("feature", "output")}
    assert set(by_place(result)) == {(q, x) for x in LAYERS for q in QUANTITIES} - missing
    assert [n for n in result.notes if "sgd: feature of hidden is not predicted above" in n]
    assert [n for n in result.notes if "sgd: feature of output is not predicted above" in n]
    assert not verify([table("sgd")], experiment(**TINY)).notes


def test_one_seed_does_not_agree_and_says_what_would_settle_it() -> None:
    result = verify([table("sgd")], experiment(widths=(8, 16, 32), seeds=1, margin=0.05))
    advised = [c for c in result.checks if c.verdict is Verdict.inconclusive]
    assert len(advised) > 5 and all("settle" in c.note for c in advised), lines(result)
    assert result.verdict is not Verdict.agree


def test_seeds_are_added_while_that_would_settle_a_check_and_no_further(kept: Path) -> None:
    few = verify([SGD], experiment(seeds=4), out=kept)
    assert (few.seeds, few.verdict) == (4, Verdict.inconclusive), lines(few)
    more = verify([SGD], experiment(seeds=4, most_seeds=64), out=kept)
    assert (more.seeds, more.verdict) == (16, Verdict.agree), lines(more)
    assert lines(more) == lines(verify([SGD], experiment(), out=kept))
    short = verify([SGD], experiment(seeds=4, most_seeds=5), out=kept)
    assert (short.seeds, short.verdict) == (5, Verdict.inconclusive), lines(short)
    crossing = experiment(seeds=4, margin=0.05, widths=(64, 128, 256, 512), most_seeds=64)
    constant = verify([table("kfac", "d_rho_B=0")], crossing)
    assert constant.verdict is Verdict.crossover, "no seeds make up for a damping that is wrong"
    planted = verify([SGD], experiment(most_seeds=64), ["own_hidden=1/2"], kept)
    assert (planted.seeds, planted.verdict) == (16, Verdict.contradict), "this is no noise"


def test_what_is_counted_rises_to_its_total_when_seeds_are_added(kept: Path) -> None:
    ticks: list[tuple[str, int, int]] = []
    again = experiment(seeds=4, most_seeds=64)
    result = verify([SGD, table("sign")], again, out=kept, tick=lambda *x: ticks.append(x))
    assert result.seeds == 16 and [x for x, *_ in ticks] == sorted(x for x, *_ in ticks)
    done = [x for _, x, _ in ticks]
    assert done == sorted(done) and all(x <= total for _, x, total in ticks)
    assert ticks[-1][1] == ticks[-1][2] >= (16 + 4) * len(again.widths)


def test_a_negligible_damping_of_kfac_leaves_the_output_as_it_is_predicted() -> None:
    few = experiment(seeds=4, widths=(64, 128, 256, 512))
    found = by_place(verify([table("kfac", "d_rho_B=3")], few))["own", "output"]
    assert abs(found.measured.slope - float(found.predicted)) < 1 / 2, str(found.measured)


# --- records ------------------------------------------------------------------------------------


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """(width, seed) of every network that is measured."""
    seen: list[tuple[int, int]] = []
    measure = campaign.measure

    def counted(trial: Any, constants: Any, width: int, seed: int, **options: Any) -> Any:
        seen.append((width, seed))
        return measure(trial, constants, width, seed, **options)

    monkeypatch.setattr(campaign, "measure", counted)
    return seen


def stop_after(count: int) -> Callable[[str, int, int], None]:
    def tick(rule: str, done: int, total: int) -> None:
        if done == count:
            raise KeyboardInterrupt

    return tick


def sizes(result: Verification) -> Sequence[Any]:
    return [
        series.layers[layer][quantity]
        for series in result.series
        for layer in series.layers
        for quantity in QUANTITIES
    ]


def test_an_interrupted_run_keeps_what_it_measured_and_repeats_none_of_it(
    tmp_path: Path, calls: list[tuple[int, int]]
) -> None:
    tables = [table("kfac"), table("sgd")]
    whole = verify(tables, experiment(**TINY), out=tmp_path / "whole")
    every = list(calls)
    calls.clear()
    with pytest.raises(KeyboardInterrupt):
        verify(tables, experiment(**TINY), out=tmp_path / "cut", tick=stop_after(8))
    records = (tmp_path / "cut" / "records.jsonl").read_text().splitlines()
    assert len(records) == 8  # all six of kfac, two of sgd
    resumed = verify(tables, experiment(**TINY), out=tmp_path / "cut")
    assert calls == every
    assert all(np.array_equal(x, y) for x, y in zip(sizes(whole), sizes(resumed), strict=True))
    assert lines(resumed) == lines(whole)
    calls.clear()
    verify(tables, experiment(**TINY), out=tmp_path / "cut")
    assert calls == []


def test_a_cut_off_last_line_is_measured_again_and_no_other(
    tmp_path: Path, calls: list[tuple[int, int]]
) -> None:
    whole = verify([table("sgd")], experiment(**TINY), out=tmp_path)
    path = tmp_path / "records.jsonl"
    text = path.read_text()
    path.write_text(text[:-30])
    calls.clear()
    again = verify([table("sgd")], experiment(**TINY), out=tmp_path)
    assert {width for width, _ in calls} == {32}
    assert [json.loads(x)["width"] for x in path.read_text().splitlines()] == [8, 8, 16, 16, 32, 32]
    assert all(np.array_equal(x, y) for x, y in zip(sizes(whole), sizes(again), strict=True))


@pytest.mark.parametrize(
    "change",
    [{"c_hidden": "1"}, {"rule": "G*2"}, {"widths": (8, 16, 64)}, {"widths": (9, 16, 32)},
     {"seed": 1}, {"activation": "tanh"}, {"loss": "cross_entropy"}],
    ids=str,
)  # fmt: skip
def test_records_of_another_configuration_are_not_used(
    tmp_path: Path, calls: list[tuple[int, int]], change: dict[str, Any]
) -> None:
    verify([table("G")], experiment(**TINY), out=tmp_path)
    calls.clear()
    settings = [f"{k}={v}" for k, v in change.items() if k.startswith("c_")]
    options = {k: v for k, v in change.items() if k in ("activation", "loss")}
    other = {k: v for k, v in change.items() if k == "widths"}
    other |= {"data": load("digits", seed=change["seed"])} if "seed" in change else {}
    row = table(change.get("rule", "G"), *settings, **options)
    verify([row], experiment(**{**TINY, **other}), out=tmp_path)
    assert len({(w, s // campaign.MOST_NETWORKS) for w, s in calls}) == 6


def test_records_of_other_constants_are_not_used(
    tmp_path: Path, calls: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    verify([table("sam")], experiment(**TINY), out=tmp_path)
    every = len(calls)
    verify([table("sam")], experiment(**TINY), out=tmp_path)
    assert len(calls) == every > 0

    def smaller(*given: Any) -> Any:
        found = calibrate(*given)
        return replace(found, eta={layer: eta * 0.9 for layer, eta in found.eta.items()})

    monkeypatch.setattr("empirical.verify.verification.calibrate", smaller)
    verify([table("sam")], experiment(**TINY), out=tmp_path)
    assert calls[every:] == calls[:every]


def relabelled() -> tuple[Data, Data]:
    x, y = DIGITS.inputs, DIGITS.targets
    probe = DIGITS.probe_inputs, DIGITS.probe_targets
    return given(x, y, *probe), given(x, y.roll(1, dims=0) * 7, *probe)


def test_records_of_other_targets_are_not_used(
    tmp_path: Path, calls: list[tuple[int, int]]
) -> None:
    first, second = relabelled()
    verify([table("sgd")], experiment(**TINY, data=first), out=tmp_path)
    calls.clear()
    verify([table("sgd")], experiment(**TINY, data=second), out=tmp_path)
    assert calls


def test_records_of_another_version_are_refused(tmp_path: Path) -> None:
    verify([table("sgd")], experiment(**TINY), out=tmp_path)
    path = tmp_path / "records.jsonl"
    path.write_text(path.read_text().replace(f'"version": {VERSION}', f'"version": {VERSION + 1}'))
    with pytest.raises(InvalidInput, match=rf"format {VERSION + 1} (.|\n)*choose another --out"):
        verify([table("sgd")], experiment(**TINY), out=tmp_path)


@pytest.mark.parametrize("line", ["nonsense", "[]", '{"version": 1}', "null"])
def test_a_line_that_is_no_record_is_refused_with_its_number(tmp_path: Path, line: str) -> None:
    (tmp_path / "records.jsonl").write_text(line + "\n")
    with pytest.raises(InvalidInput, match=r"line 1 of (.|\n)*move the file away"):
        verify([table("sgd")], experiment(**TINY), out=tmp_path)


def _empty_record(path: Path) -> None:
    entry = json.loads(path.read_text().splitlines()[0])
    path.write_text(json.dumps({**entry, "record": {}}) + "\n")


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    "damage", [_empty_record, _folder, lambda path: path.write_bytes(b"\xff\xfe\n")],
    ids=["empty record", "a folder", "not UTF-8"],
)  # fmt: skip
def test_damaged_records_are_refused(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    verify([table("sgd")], experiment(**TINY), out=tmp_path)
    damage(tmp_path / "records.jsonl")
    with pytest.raises(InvalidInput):
        verify([table("sgd")], experiment(**TINY), out=tmp_path)


def test_a_folder_that_cannot_be_written_is_refused_before_any_measurement(
    tmp_path: Path, calls: list[tuple[int, int]]
) -> None:
    (tmp_path / "file").write_text("in the way")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InvalidInput, match=r"output folder (.|\n)*choose another --out"):
            verify([table("sgd")], experiment(**TINY), out=out)
    assert calls == []
    assert (tmp_path / "file").read_text() == "in the way"


# --- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize("margin", [0, 1, -1, math.nan, math.inf])
def test_a_margin_outside_of_0_and_1_is_refused(margin: float) -> None:
    with pytest.raises(InvalidInput, match="needed: a number between 0 and 1"):
        experiment(margin=margin)


@pytest.mark.parametrize(("texts", "message"), [
    (["own_hiden=1/4"], "did you mean 'own_hidden'"), (["own_hidden"], "quantity_layer=exponent"),
    (["own_hidden=x"], "needed: a number"), (["speed_hidden=1"], "expectation 'speed_hidden'"),
    (["own_hidden=1/"], "own_hidden=1/|the exponent"), (["=1"], "expectation ''"),
])  # fmt: skip
def test_a_malformed_expectation_is_refused_before_any_measurement(
    calls: list[tuple[int, int]], texts: list[str], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        verify([table("sgd")], experiment(**TINY), texts)
    assert calls == []


def test_an_expectation_of_oo_is_refused_before_any_measurement(
    calls: list[tuple[int, int]],
) -> None:
    with pytest.raises(InvalidInput):
        verify([table("sgd")], experiment(**TINY), ["own_hidden=oo"])
    assert calls == []


def test_what_cannot_be_measured_is_refused_before_any_measurement(
    calls: list[tuple[int, int]], tmp_path: Path
) -> None:
    cases = [
        ([table("sgd"), table("sgd")], "'sgd' twice"), ([table("G*nu")], "no value for 'nu'"),
        ([table("(B + rho*I)**(-e_B) @ G")], "e_B not given"),
        ([table("adam", "c=x")], "x not given"), ([table("sgd", "b=beta")], "beta not given"),
    ]  # fmt: skip
    for tables, message in cases:
        with pytest.raises(InvalidInput, match=message):
            verify(tables, experiment(**TINY), out=tmp_path / "out")
    with pytest.raises(NotCovered, match="even in the gradient"):
        table("G*G")
    assert calls == [] and not (tmp_path / "out").exists()


# --- what is written ----------------------------------------------------------------------------


def test_the_json_has_the_keys_of_the_interface(kept: Path) -> None:
    result = verify([SGD], experiment(), ["own_hidden=-oo"], kept)
    found = json.loads(measured_tables.render(result, "json"))
    assert {"verdict", "checks", "widths", "seeds", "seconds"} <= set(found)
    keys = {"rule", "layer", "quantity", "predicted", "measured", "low", "high", "verdict"}
    assert all(keys <= set(check) for check in found["checks"])
    assert found["widths"] == [32, 64, 128, 256, 512] and found["seeds"] == 16
    assert found["verdict"] == "contradict"
    check = next(c for c in found["checks"] if (c["quantity"], c["layer"]) == ("own", "hidden"))
    assert (check["predicted"], check["verdict"]) == ("-oo", "contradict")
    assert check["low"] <= check["measured"] <= check["high"]
    (series,) = found["series"]
    assert (series["rule"], series["mode"], series["seeds"]) == ("sgd", "dense", 16)
    assert (series["samples"], series["widths"]) == (16, found["widths"])


@pytest.mark.parametrize("style", ["text", "markdown", "latex", "html"])
def test_every_format_shows_every_check(kept: Path, style: str) -> None:
    result = verify([SGD], experiment(), out=kept)
    shown = measured_tables.render(result, style)
    for check in result.checks:
        assert f"{check.measured.slope:+.3f}" in shown, check
    assert shown.count("agree") >= len(result.checks)


def test_all_files_are_written_and_can_be_read(tmp_path: Path) -> None:
    tables = [table("sgd"), table("kfac"), table("G @ (A + rho*I)**(-1)"), table("G/2")]
    result = verify(tables, experiment(**TINY), out=tmp_path)
    measured_tables.write(result, tmp_path)
    assert json.loads((tmp_path / "report.json").read_text())["seeds"] == 2
    assert (tmp_path / "report.md").read_text().count("\n| sgd |") == 9
    rows = list(csv.DictReader(io.StringIO((tmp_path / "sizes.csv").read_text())))
    assert len(rows) == 4 * 3 * 3 * 2 * 3  # rules, layers, quantities, seeds, widths
    series = next(s for s in result.series if s.rule == "kfac")
    of_row = next(r for r in rows if (r["rule"], r["layer"], r["quantity"], r["seed"], r["width"])
                  == ("kfac", "hidden", "own", "1", "16"))  # fmt: skip
    assert float(of_row["size"]) == pytest.approx(series.layers["hidden"]["own"][1, 1])
    pictures = sorted(tmp_path.glob("*.png"))
    assert len(pictures) == 4
    for picture in pictures:
        height, width, _ = imread(picture).shape
        assert min(height, width) > 300 and imread(picture).std() > 0.01, picture
    assert not list(tmp_path.glob("*.part"))


def test_records_of_more_steps_are_kept_apart(tmp_path: Path, calls: list[tuple[int, int]]) -> None:
    one = verify([table("sgd")], experiment(**TINY), out=tmp_path)
    calls.clear()
    two = verify([table("sgd")], experiment(**TINY, steps=2), out=tmp_path)
    assert calls
    assert not all(np.array_equal(x, y) for x, y in zip(sizes(one), sizes(two), strict=True))
