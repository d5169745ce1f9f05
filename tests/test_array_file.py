"""Samples of the user's own from an .npz file: taken as they are, and refused when they are bad."""

from __future__ import annotations

import io
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typed import exit_code

from empirical.data.sources import given, load
from empirical.fit.verdict import Verdict
from empirical.measure.machine import check_memory
from empirical.measure.store import fingerprint
from empirical.verify import campaign
from empirical.verify.campaign import Experiment, Mode, RunRequest, plan
from empirical.verify.verification import verify, verify_all
from scaling.cli.requests import problem_with, subject_of
from scaling.sizes.errors import InvalidInput

DRAWN = np.random.default_rng(0)
X, Y = DRAWN.normal(size=(100, 5)), DRAWN.normal(size=(100, 3))


def as_npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def test_the_first_rows_are_taken_as_they_are(tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", inputs=X, targets=Y)
    data = load(str(tmp_path / "mine.npz"), samples=6, probe=10)
    assert torch.equal(data.inputs, torch.from_numpy(X[:6])) and data.name == "mine"
    assert torch.equal(data.targets, torch.from_numpy(Y[:6]))
    assert torch.equal(data.probe_inputs, torch.from_numpy(X[:10])), "none others are given"
    np.savez(tmp_path / "both.npz", inputs=X, targets=Y, probe_inputs=-X, probe_targets=-Y)
    both = load("both.npz", tmp_path, samples=100)
    assert both.samples == 100
    assert torch.equal(both.probe_inputs, torch.from_numpy(-X[:64]))


@pytest.mark.parametrize(
    ("write", "found"),
    [
        (lambda path: None, "no file"),
        (lambda path: path.write_bytes(b"PK\x03\x04 cut off"), "no archive of number arrays"),
        (lambda path: path.write_bytes(b""), "no archive of number arrays"),
        (lambda path: path.write_bytes(as_npy(X)), "no archive of number arrays"),
        (lambda path: path.mkdir(), "no archive of number arrays"),
        (lambda path: np.savez(path, x=X, targets=Y), "with the arrays targets, x"),
        (lambda path: np.savez(path, inputs=X), "with the arrays inputs"),
        (lambda path: np.savez(path, inputs=X, targets=Y, labels=Y), "with the arrays inputs"),
        (lambda path: np.savez(path, inputs=X, targets=Y[:9]), "9 rows of targets"),
        (lambda path: np.savez(path, inputs=X * np.inf, targets=Y), "in inputs at row 0"),
        (lambda path: np.savez(path, inputs=X.astype(object), targets=Y), "no archive of number"),
        (lambda path: np.savez(path, inputs=X, targets=Y, probe_inputs=X), "without probe targets"),
        (lambda path: np.savez(path, inputs=X * 1j, targets=Y), "inputs holds complex128"),
        (lambda path: np.savez(path, inputs=X, targets=Y.astype("M8[s]")), "targets holds date"),
        (lambda path: np.savez(path, inputs=X, targets=Y.astype(str)), "targets holds <U"),
    ],
)
def test_a_file_that_is_none_is_refused(
    tmp_path: Path, write: Callable[[Path], Any], found: str
) -> None:
    write(tmp_path / "mine.npz")
    with pytest.raises(InvalidInput, match=found):
        load("mine.npz", tmp_path)


def test_a_file_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    np.savez(path, inputs=X, targets=Y)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(InvalidInput, match="no archive of number arrays"):
        load("mine.npz", tmp_path)


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_a_file_with_a_wrong_byte_is_refused(tmp_path: Path, write: Callable[..., None]) -> None:
    path = tmp_path / "mine.npz"
    write(path, inputs=X, targets=Y)
    content = bytearray(path.read_bytes())
    content[1000] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match="no archive of number arrays"):
        load("mine.npz", tmp_path)


def test_capital_letters_are_the_same_and_counts_are_checked(tmp_path: Path) -> None:
    with (tmp_path / "MINE.NPZ").open("wb") as file:
        np.savez(file, inputs=X, targets=Y)
    assert load("MINE.NPZ", tmp_path).samples == 16
    with pytest.raises(InvalidInput, match="found: samples=0"):
        load("MINE.NPZ", tmp_path, samples=0)
    with pytest.raises(InvalidInput, match=r"found: data set 'mine'(.|\n)*FILE\.npz"):
        load("mine", tmp_path)


@pytest.mark.parametrize(
    ("arrays", "loss", "found"),
    [
        (
            {"inputs": X * 0, "targets": Y},
            "mse",
            "whose first 16 inputs are zero",
        ),
        ({"inputs": X * 1e100, "targets": Y}, "mse", "e+100 in inputs"),
        ({"inputs": X * 1e-300, "targets": Y}, "mse", "found: inputs of"),
        ({"inputs": X, "targets": Y * 1e-300}, "mse", "found: targets of"),
        ({"inputs": X, "targets": Y * 0}, "mse", "whose first 16 targets are zero"),
        (
            {"inputs": X, "targets": Y, "probe_inputs": X * 0, "probe_targets": Y},
            "mse",
            "inputs are zero",
        ),
        ({"inputs": X, "targets": Y}, "cross_entropy", "targets that are no probabilities"),
        ({"inputs": X, "targets": 0 * Y[:, :1] + 1}, "cross_entropy", "no probabilities of two"),
        ({"inputs": X, "targets": Y > 0}, "cross_entropy", "targets that are no probabilities"),
    ],
)
@pytest.mark.parametrize("mode", ["dense", "wide"])
def test_what_theory_does_not_speak_of_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    arrays: dict[str, Any], loss: str, found: str, mode: str,
) -> None:  # fmt: skip
    np.savez(tmp_path / "mine.npz", **arrays)
    data = "--data", str(tmp_path / "mine.npz"), "--loss", loss
    words = ("measure", "sgd", "--width", "64", "--mode", mode, *data)
    assert exit_code(words, monkeypatch) == 2
    assert found in capsys.readouterr().err


def test_more_samples_than_rows_are_refused_and_the_default_takes_what_there_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez(tmp_path / "mine.npz", inputs=X[:9], targets=Y[:9])
    words = ("measure", "sgd", "--width", "16", "--data", str(tmp_path / "mine.npz"))
    assert exit_code((*words, "--samples", "10"), monkeypatch) == 2
    said = capsys.readouterr().err
    assert "found: samples=10 of" in said and "which has 9 rows" in said
    assert "do this: pass --samples 9, or leave it out" in said
    assert exit_code(words, monkeypatch) == 0
    assert "trained on 9 samples" in capsys.readouterr().out


def test_targets_that_outputs_drown_contradict_nothing(tmp_path: Path) -> None:
    """Squared errors are then outputs, which fade; without a target there is nothing to learn."""
    data, subject = given(X[:6], Y[:6] * 1e-6), subject_of("sgd", problem_with("sgd"))
    experiment = Experiment((4**5, 4**6, 4**7, 4**8), 12, 0.2, data, threads=1, mode=Mode.WIDE)
    checks = verify([subject], experiment, out=tmp_path).checks
    drowned = [c for c in checks if "drown targets of " in c.note]
    assert {c.quantity for c in drowned} >= {"own", "feature"}
    assert {c.verdict for c in drowned} == {Verdict.crossover}
    assert Verdict.contradict not in {c.verdict for c in checks}
    planted = verify([subject], experiment, ["own_input=2"], tmp_path).checks
    assert Verdict.contradict in {c.verdict for c in planted}


def test_a_cross_check_without_targets_is_refused_before_the_first_measurement(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its four samples are the first ones, and these have no target."""
    monkeypatch.setattr("empirical.verify.verification.verify", lambda *_: pytest.fail("measured"))
    targets = Y * (np.arange(len(Y)) > 4)[:, None]
    plans = plan([subject_of("sgd", problem_with("sgd"))], RunRequest(given(X, targets), threads=1))
    with pytest.raises(InvalidInput, match="whose first 4 targets are zero"):
        verify_all(plans)


# --- memory -------------------------------------------------------------------------------------


def test_a_file_that_does_not_fit_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez(tmp_path / "mine.npz", inputs=X, targets=Y)
    monkeypatch.setattr("empirical.data.array_file.free_memory", lambda: 2.0 * X.nbytes)
    monkeypatch.setattr("numpy.lib.format.read_array", lambda *_, **__: pytest.fail("read"))
    with pytest.raises(InvalidInput, match=r"mine\.npz, whose arrays need (.|\n)*that are free"):
        load("mine.npz", tmp_path)


@pytest.mark.parametrize("verb", ["measure", "verify"])
def test_features_count_against_the_memory_limit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    many = np.random.default_rng(0).normal(size=(4, 5000))
    np.savez(tmp_path / "mine.npz", inputs=many, targets=Y[:4])
    monkeypatch.setattr("empirical.measure.calibration.measure", lambda *_: pytest.fail("measured"))
    widths = ("--width", "1024") if verb == "measure" else ("--widths", "1024:4096")
    words = (verb, "sgd", "--mode", "wide", *widths, "--data", str(tmp_path / "mine.npz"))
    assert exit_code((*words, "--memory-limit", "1MiB"), monkeypatch) == 2
    found = capsys.readouterr().err
    assert "found: 5,000 features of 'mine'" in found and "do this: pass --memory-limit" in found


def test_first_weights_count_in_what_a_dense_network_needs() -> None:
    check_memory(1024, 3, 3072)
    with pytest.raises(InvalidInput, match="width 1,024 with 1,000,000,000 features, which needs"):
        check_memory(1024, 3, 10**9)


def test_the_key_of_a_record_takes_little_memory_and_is_the_one_it_was() -> None:
    found, data = campaign.samples_of(given(X, Y)), given(X, Y)
    whole = {"inputs": X.tolist(), "targets": Y.tolist(), "probe": data.probe_inputs.tolist()}
    assert found == fingerprint(whole)
    large = given(np.ones((2, 100_000)), Y[:2])
    tracemalloc.start()
    campaign.samples_of(large)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < large.inputs.numel() * 8


def test_probabilities_are_targets_that_a_softmax_can_meet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dense networks, whose gradients are torch's, and wide ones step alike."""
    soft = np.exp(Y) / np.exp(Y).sum(1, keepdims=True)
    probe = {"probe_inputs": X[:4], "probe_targets": soft[:4]}
    np.savez(tmp_path / "soft.npz", inputs=X, targets=soft, **probe)
    data = "--data", str(tmp_path / "soft.npz"), "--loss", "cross_entropy", "--format", "json"
    own = {}
    for mode in ("dense", "wide"):
        words = ("measure", "sgd", "--width", "4096", "--mode", mode, "--samples", "4", *data)
        assert exit_code(words, monkeypatch) == 0
        own[mode] = json.loads(capsys.readouterr().out)["sizes"]["output"]["own"]
    assert own["wide"] == pytest.approx(own["dense"], rel=0.1)


def test_the_command_line_measures_on_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez(tmp_path / "mine.npz", inputs=X, targets=Y)
    words = ("measure", "kfac", "--width", "64", "--mode", "dense", "--format", "json")

    def typed(*more: str) -> tuple[int, str, str]:
        return exit_code((*words, *more), monkeypatch), *capsys.readouterr()

    code, mine, _ = typed("--data", str(tmp_path / "mine.npz"))
    assert code == 0 and json.loads(mine)["sizes"] != json.loads(typed()[1])["sizes"]
    code, _, refusal = typed("--data", str(tmp_path / "yours.npz"))
    assert code == 2 and "numpy.savez" in refusal
