"""What the command prints, word for word, beside the files in tests/snapshots.

A change of output is a change of an interface, so it has to appear in a diff. To accept one:

    RENEW_SNAPSHOTS=1 .venv/bin/python -m pytest tests/test_surface.py

writes the files anew; read the diff before you commit it.
"""

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from surface import ANSWERS, REFUSALS, Words

from scaling.cli import main

SNAPSHOTS = Path(__file__).resolve().parent / "snapshots"
RENEW = "RENEW_SNAPSHOTS" in os.environ


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    yield
    gc.enable()  # `main` switches it off


def printed(words: Words, capsys: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch) -> str:
    """What is typed, what is printed, and the exit code unless it is 0."""
    patch.setattr(sys, "argv", ["scaling", *words])
    code: Any = 0
    try:
        main()
    except SystemExit as end:
        code = end.code or 0
    out, err = capsys.readouterr()
    assert not (out and err), words
    typed = " ".join(
        word if word.isidentifier() or word[:2] == "--" else f"'{word}'" for word in words
    )
    return f"$ scaling {typed}\n{out}{err}" + f"exit code {code}\n" * bool(code)


def compare(name: str, found: Iterator[str]) -> None:
    """One command after the other with what is kept, up to the first that differs."""
    path = SNAPSHOTS / f"{name}.txt"
    if RENEW:
        path.write_text("\n".join(found), encoding="utf-8")
        return
    kept = path.read_text(encoding="utf-8")
    start = 0
    for text in found:
        assert text == kept[start:].partition("\n$ ")[0].rstrip("\n") + "\n"
        start += len(text) + 1
    assert start == len(kept) + 1


@pytest.mark.parametrize("name", [*ANSWERS, *REFUSALS])
def test_what_is_printed_is_what_was_printed(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = {**ANSWERS, **REFUSALS}[name]
    compare(name, (printed(words, capsys, monkeypatch) for words in commands))


@pytest.mark.parametrize("name", [*ANSWERS, *REFUSALS])
def test_refusals_are_refused_and_answers_are_answered(name: str) -> None:
    kept = (SNAPSHOTS / f"{name}.txt").read_text(encoding="utf-8")
    codes = {("exit code 2" in text) for text in kept.split("\n$ ")}
    assert codes == {name in REFUSALS}


def test_no_snapshot_is_left_that_nothing_is_compared_with() -> None:
    assert {path.stem for path in SNAPSHOTS.iterdir()} == {*ANSWERS, *REFUSALS}
