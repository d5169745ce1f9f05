"""`scaling claims --tier paper`, killed in the middle: the next run takes up what was finished."""

from __future__ import annotations

import json
import os
import signal
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from typed import exit_code

from empirical.claims import registry
from empirical.claims.claim import Claim, Evidence, Finding
from empirical.claims.environment import Environment
from empirical.fit.verdict import Verdict

WIDTHS, SEEDS = (512, 1024), 2
"""Of each claim."""


def made(log: Path, killed: int | None) -> tuple[Claim, ...]:
    """Two claims of four cells each, which note every cell that they measure in ``log``."""

    def claim(name: str) -> Claim:
        def check(context: Environment) -> Evidence:
            def measure(width: int, seed: int) -> Mapping[str, Any]:
                lines = log.read_text().splitlines() if log.exists() else []
                if killed is not None and len(lines) == killed:
                    os.kill(os.getpid(), signal.SIGKILL)
                with log.open("a") as file:
                    file.write(f"{name} {width} {seed % 10}\n")
                return {"size": width + seed % 10}

            cells = context.cells({"what": name}, WIDTHS, SEEDS, measure, name)
            total = sum(cell["size"] for row in cells for cell in row)
            return Evidence((Finding(name, "3074", str(total), "", Verdict.agree),))

        refuted = Evidence((Finding("planted", "0", "1", "", Verdict.contradict),))
        return Claim(name, "a title", "a statement", "a reference", check, lambda _: refuted)

    return claim("1a"), claim("1b")


def command(folder: Path) -> list[str]:
    """The words of the command line."""
    return ["claims", "1a", "1b", "--tier", "paper", "--threads", "1", "--out", str(folder)]


def report(folder: Path) -> Any:
    """What the run has found so far."""
    return json.loads((folder / "claims.json").read_text())


@pytest.mark.parametrize("killed", [2, 7])
def test_a_run_that_was_killed_loses_one_cell_at_most(
    killed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, folder = tmp_path / "measured", tmp_path / "out"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of other threads, which the killed run has no use for
        process = os.fork()
    if process == 0:  # the run that is killed
        registry.find = lambda ids: made(log, killed)  # type: ignore[assignment]
        with open(os.devnull, "w") as nothing:
            os.dup2(nothing.fileno(), 1), os.dup2(nothing.fileno(), 2)
            exit_code(tuple(command(folder)), monkeypatch)
        os._exit(9)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL
    before = log.read_text().splitlines()
    assert len(before) == killed
    finished = killed // 4
    if finished:
        assert [c["id"] for c in report(folder)["claims"]] == ["1a"]
        assert report(folder)["about"].endswith("1 of 2 claims so far")
    else:
        assert not (folder / "claims.json").exists()

    monkeypatch.setattr(registry, "find", lambda ids: made(log, None))
    assert exit_code(tuple(command(folder)), monkeypatch) == 0
    after = log.read_text().splitlines()
    assert after[:killed] == before and len(after) == len(set(after)) == 8
    assert [c["id"] for c in report(folder)["claims"]] == ["1a", "1b"]
    assert "so far" not in report(folder)["about"]
