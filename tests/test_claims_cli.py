"""`scaling claims`: what it lists, what it runs, how it exits, what it refuses."""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from typed import exit_code

from empirical.claims import registry
from empirical.claims.claim import Claim, Evidence, Finding
from empirical.claims.figures import Curve, Figure
from empirical.fit.verdict import Verdict
from empirical.measure.machine import blas_threads


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Outcome]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    def command(*words: str) -> Outcome:
        return Outcome(exit_code(("claims", *words), monkeypatch), *capsys.readouterr())

    with blas_threads(1):
        yield command
    gc.enable()


def evidence(verdict: Verdict) -> Callable[[Any], Evidence]:
    finding = Finding("a size", "0", "+0.001", "[-0.010, +0.010]", verdict, "for a reason")
    figure = Figure("a figure", "t", "x", "y", (Curve("c", (1.0, 2.0), (1.0, 1.0)),))
    return lambda _: Evidence((finding,), figures=(figure,))


@pytest.fixture
def verdicts(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Replace the check of every claim by one with a given verdict."""

    def found(check: Verdict, control: Verdict = Verdict.contradict) -> None:
        def fake(ids: Any) -> tuple[Claim, ...]:
            return tuple(
                replace(c, check=evidence(check), control=evidence(control)) for c in real(ids)
            )

        monkeypatch.setattr(registry, "find", fake)

    real = registry.find
    return found


def test_the_list_shows_twelve_groups_and_runs_nothing(run: Run) -> None:
    found = run("--list", "--format", "markdown")  # text wraps what is long
    assert found.code == 0 and found.err == ""
    flat = found.out
    assert all(group.title in flat for group in registry.groups())
    listed = json.loads(run("--list", "4", "--format", "json").out)
    assert [c["id"] for c in listed["claims"]] == ["4a", "4b", "4c", "4d"]


def test_a_claim_is_run_and_its_verdict_is_the_exit_code(run: Run) -> None:
    found = run("3", "--threads", "1", "--full")
    assert found.code == 0 and "verdict: agree (2 agree)" in found.out
    assert "8 of 8 refused" in found.out
    assert "kfac, hidden:" in found.out and "push-through" in found.out
    assert "tier ci, cpu, seed 0" in found.out


@pytest.mark.parametrize(
    ("check", "control", "code"),
    [
        (Verdict.agree, Verdict.contradict, 0),
        (Verdict.contradict, Verdict.contradict, 1),
        (Verdict.crossover, Verdict.contradict, 3),
        (Verdict.inconclusive, Verdict.contradict, 3),
        (Verdict.agree, Verdict.agree, 3),
    ],
    ids=str,
)
def test_the_gravest_verdict_decides_and_the_reason_is_shown(
    run: Run, verdicts: Callable[..., None], check: Verdict, control: Verdict, code: int
) -> None:
    verdicts(check, control)
    found = run("4")
    assert found.code == code, found
    shown = "the control agreed to a size" if control is Verdict.agree else "(for a reason)"
    assert (shown in found.out) is (code != 0)


@pytest.mark.parametrize("style", ["text", "markdown", "latex", "html", "json"])
def test_every_format_is_printed(run: Run, verdicts: Callable[..., None], style: str) -> None:
    verdicts(Verdict.agree)
    found = run("1a", "--format", style)
    assert found.code == 0 and "1a" in found.out and found.err == ""
    if style == "json":
        claim = json.loads(found.out)["claims"][0]
        assert claim["verdict"] == "agree" and claim["control"]["refused"]


def test_out_leaves_a_report_and_figures_that_are_drawn_again(
    run: Run, verdicts: Callable[..., None], tmp_path: Path
) -> None:
    verdicts(Verdict.agree)
    assert run("1a", "--out", str(tmp_path)).code == 0
    assert {"claims.json", "claims.md", "figures.json", "a_figure.png"} <= {
        p.name for p in tmp_path.iterdir()
    }
    (tmp_path / "a_figure.png").unlink()
    again = run("--redraw", "--out", str(tmp_path))
    assert again.code == 0 and (tmp_path / "a_figure.png").exists() and "a_figure" in again.out


def test_a_claim_without_its_package_is_left_out_by_name_and_others_run(
    run: Run, verdicts: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    verdicts(Verdict.agree)
    whole = run("14", "--format", "markdown")
    assert whole.code == 0 and "(3 agree)" in whole.out and "left out" not in whole.out
    monkeypatch.setitem(sys.modules, "optuna", None)  # as if it were not installed
    found = run("14", "--format", "markdown")
    assert found.code == 0 and "(2 agree)" in found.out
    assert "14c is left out: no package 'optuna'" in found.out
    assert "pip install 'scaling[tuning]'" in found.out
    alone = run("14c")
    assert alone.code == 2 and alone.err.startswith("found: no package 'optuna', which claim 14c")
    assert "\ndo this: pip install 'scaling[tuning]'" in alone.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("4x",), "did you mean '4"),
        (("--redraw",), "add --out DIR"),
        (("--tier", "huge"), "tier"),
        (("--redraw", "--out", "/nonexistent"), "figures.json"),
        (("3a", "--out", "/dev/null/x"), "output folder"),
    ],
    ids=str,
)
def test_bad_input_is_refused_in_three_parts(
    run: Run, words: tuple[str, ...], message: str
) -> None:
    found = run(*words)
    assert found.code == 2 and message in found.err, found
    assert found.err.startswith("found: ") and "\ndo this: " in found.err
