"""What the command prints, word for word, beside the files in tests/snapshots.

A change of output is a change of an interface, so it has to appear in a diff. To accept one:

    RENEW_SNAPSHOTS=1 .venv/bin/python -m pytest tests/test_surface.py

writes the files anew; read the diff before you commit it.
"""

import gc
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from surface import ANSWERS, REFUSALS, Words
from typed import exit_code

SNAPSHOTS = Path(__file__).resolve().parent / "snapshots"
COMMANDS = {**ANSWERS, **REFUSALS}


@pytest.fixture(autouse=True, scope="module")
def collected() -> Iterator[None]:
    yield
    gc.enable()  # `main` switches it off


def printed(words: Words, capsys: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch) -> str:
    """What is typed, what is printed, and the exit code unless it is 0."""
    code = exit_code(words, patch)
    out, err = capsys.readouterr()
    assert not (out and err), words
    typed = " ".join(
        word if word.isidentifier() or word[:2] == "--" else f"'{word}'" for word in words
    )
    return f"$ scaling {typed}\n{out}{err}" + f"exit code {code}\n" * bool(code)


@cache
def kept(name: str) -> list[str]:
    first, *others = (SNAPSHOTS / f"{name}.txt").read_text(encoding="utf-8").split("\n$ ")
    return [first, *(f"$ {text}" for text in others)]


@pytest.mark.skipif("RENEW_SNAPSHOTS" not in os.environ, reason="RENEW_SNAPSHOTS is not set")
@pytest.mark.parametrize("name", COMMANDS)
def test_renew(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [printed(words, capsys, monkeypatch) for words in COMMANDS[name]]
    (SNAPSHOTS / f"{name}.txt").write_text("\n".join(texts), encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "number"), [(k, i) for k, x in COMMANDS.items() for i in range(len(x))]
)
def test_what_is_printed_is_what_was_printed(
    name: str, number: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert printed(COMMANDS[name][number], capsys, monkeypatch) == kept(name)[number]


@pytest.mark.parametrize("name", COMMANDS)
def test_refusals_are_refused_and_answers_are_answered(name: str) -> None:
    assert {"exit code 2" in text for text in kept(name)} == {name in REFUSALS}
    assert len(kept(name)) == len(COMMANDS[name])


def test_no_snapshot_is_left_that_nothing_is_compared_with() -> None:
    assert {path.stem for path in SNAPSHOTS.iterdir()} == set(COMMANDS)
