"""The base seed: the same numbers for the same seed, others for another, and none of them mixed."""

import gc
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typed import exit_code

from empirical.claims.environment import Environment
from empirical.measure.machine import blas_threads
from empirical.measure.measured_sizes import MOST_NETWORKS
from empirical.verify.campaign import SEED_STRIDE

FEW = ("--threads", "1", "--widths", "8,16,32", "--seeds", "2")
VERBS = {
    "verify": ("verify", "sgd", "--mode", "dense", *FEW),
    "verify wide": ("verify", "sgd", "--mode", "wide", *FEW),
    "verify deep": ("verify", "sgd", "--deep", *FEW),
    "measure": ("measure", "sgd", "--width", "16", "--threads", "1"),
    "align": ("align", "sgd", "--steps", "2", *FEW),
    "explain": ("explain", "sgd", "--measured", *FEW),
}
Run = Callable[..., Any]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """The JSON that the command prints, without what time it took."""

    def command(*words: str) -> Any:
        assert exit_code((*words, "--format", "json"), monkeypatch) in (0, 1, 3)
        found = json.loads(capsys.readouterr().out)
        return {key: x for key, x in found.items() if key not in ("seconds", "peak_mb", "seed")}

    with blas_threads(1):
        yield command
    gc.enable()  # `main` switches it off


@pytest.mark.parametrize("words", VERBS.values(), ids=VERBS)
def test_a_seed_decides_the_numbers(run: Run, words: tuple[str, ...]) -> None:
    default, zero = run(*words), run(*words, "--seed", "0")
    other, again = run(*words, "--seed", "1"), run(*words, "--seed", "1")
    assert default == zero
    assert other == again
    assert other != zero


def test_records_of_two_base_seeds_lie_side_by_side(run: Run, tmp_path: Path) -> None:
    words = (*VERBS["verify"], "--out", str(tmp_path))
    path = tmp_path / "records.jsonl"
    first = run(*words)
    one = path.read_text()
    other = run(*words, "--seed", "1")
    both = path.read_text()
    assert both.startswith(one) and both.count("\n") == 2 * one.count("\n")
    assert run(*words) == first and run(*words, "--seed", "1") == other
    assert path.read_text() == both, "nothing is measured again"


def test_base_seeds_share_no_network(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from empirical.verify import campaign

    seen: dict[str, set[int]] = {"0": set(), "1": set()}
    measure = campaign.measure
    for base, drawn in seen.items():

        def recorded(
            trial: Any, constants: Any, width: int, seed: int, *, drawn: set[int] = drawn,
            **options: Any,
        ) -> Any:  # fmt: skip
            drawn.add(seed)
            return measure(trial, constants, width, seed, **options)

        monkeypatch.setattr(campaign, "measure", recorded)
        run(*VERBS["verify"], "--seed", base)
    assert seen["0"] and len(seen["0"]) == len(seen["1"])
    assert max(seen["0"]) < SEED_STRIDE * MOST_NETWORKS <= min(seen["1"])


def test_the_seed_of_a_claim_draws_weights_too(tmp_path: Path) -> None:
    drawn: list[int] = []

    def measured(width: int, seed: int) -> dict[str, float]:
        drawn.append(seed)
        return {"x": 1.0}

    for base in (0, 3, 3):
        context = Environment(folder=tmp_path, seed=base)
        context.cells({"what": "a test"}, [8], 2, measured, "a test")
        assert context.wide_experiment().first_seed == base * SEED_STRIDE
    assert drawn == [0, 1, 3 * SEED_STRIDE, 3 * SEED_STRIDE + 1]  # the last ones are in the store
