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


def compare(name: str, found: list[str]) -> None:
    path, text = SNAPSHOTS / f"{name}.txt", "\n".join(found)
    if RENEW:
        path.write_text(text, encoding="utf-8")
    kept = path.read_text(encoding="utf-8")
    for one, other in zip(found, kept.split("\n$ "), strict=False):
        assert one.removeprefix("$ ").rstrip("\n") == other.removeprefix("$ ").rstrip("\n")
    assert text == kept


@pytest.mark.parametrize("name", ANSWERS)
def test_what_is_answered_is_printed_as_it_was(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [printed(words, capsys, monkeypatch) for words in ANSWERS[name]]
    assert [text for text in found if "exit code 2" in text] == []
    compare(name, found)


@pytest.mark.parametrize("name", REFUSALS)
def test_what_is_refused_is_refused_in_the_same_words(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [printed(words, capsys, monkeypatch) for words in REFUSALS[name]]
    assert [text for text in found if "exit code 2" not in text] == []
    compare(name, found)


def test_no_snapshot_is_left_that_nothing_is_compared_with() -> None:
    assert {path.stem for path in SNAPSHOTS.iterdir()} == {*ANSWERS, *REFUSALS}
