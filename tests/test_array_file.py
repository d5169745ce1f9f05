"""Samples of the user's own from an .npz file: taken as they are, and refused when they are bad."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from empirical.data.sources import load
from scaling.sizes.errors import InvalidInput
from tests.typed import exit_code

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
    both = load("both.npz", tmp_path, samples=1000)
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
