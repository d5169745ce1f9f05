"""What the command prints, beside the files in tests/snapshots.

    curated/*.txt   about twenty commands, word for word
    nodes.txt       contrived rules: node, exponent, and of what it is the size
    refused.txt     what is refused, and the first line that says what was found

A change of output is a change of an interface, so it has to appear in a diff. To accept one:

    RENEW_SNAPSHOTS=1 .venv/bin/python -m pytest tests/test_surface.py

writes the files anew; read the diff before you commit it.
"""

import gc
import json
import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from surface import CURATED, EDGES, REFUSED, VARIANTS, Words
from typed import exit_code

SNAPSHOTS = Path(__file__).resolve().parent / "snapshots"
CONTRIVED = [*VARIANTS, *EDGES]
_NETWORK = re.compile(r"(h|delta|W|dW)_\d|mean of |h of |df per|G$")
"""Lines of the network itself, which are the same under every rule."""

Capture = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch


@pytest.fixture(autouse=True, scope="module")
def collected() -> Iterator[None]:
    yield
    gc.enable()  # `main` switches it off


def typed(words: Words) -> str:
    plain = (word.isidentifier() or word[:2] == "--" for word in words)
    shown = " ".join(w if x else f"'{w}'" for w, x in zip(words, plain, strict=True))
    return shown.replace("\n", "\\n")


def printed(words: Words, capsys: Capture, patch: Patch) -> str:
    """What is typed, what is printed, and the exit code unless it is 0."""
    code = exit_code(words, patch)
    out, err = capsys.readouterr()
    assert not (out and err), words
    return f"$ scaling {typed(words)}\n{out}{err}" + f"exit code {code}\n" * bool(code)


def nodes(words: Words, capsys: Capture, patch: Patch) -> str:
    """What is typed, and node, exponent and kind of size, a line each."""
    as_json = () if "--format" in words else ("--format", "json")
    assert exit_code(("explain", *words, *as_json), patch) == 0, words
    lines = dict.fromkeys(_flat(json.loads(capsys.readouterr().out)["derivation"]))
    shown = (f"    {'   '.join(line)}" for line in lines if not _NETWORK.match(line[0]))
    return "\n".join([typed(words), *shown])


def _flat(line: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    for premise in line["inputs"]:
        yield from _flat(premise)
    yield line["subject"], line["exponent"], line["of"]


def refused(words: Words, capsys: Capture, patch: Patch) -> str:
    """What is typed, and the first line of the refusal."""
    assert exit_code(words, patch) == 2, words
    out, err = capsys.readouterr()
    found, *rest = err.split("\n")
    assert not out and found.startswith("found: "), words
    assert [line.partition(":")[0] for line in rest if line[:1] != " "][:2] == ["needed", "do this"]
    return f"{typed(words)}\n    {found.removeprefix('found: ')}"


TABLES = {"nodes": (nodes, CONTRIVED), "refused": (refused, REFUSED)}
FILES = {
    re.sub(r"\W+", "_", " ".join(words)).strip("_")[:50]: words
    for words in CURATED
}  # fmt: skip
ROWS = [(name, i) for name, (_, commands) in TABLES.items() for i in range(len(commands))]


@cache
def kept(name: str) -> list[str]:
    text = (SNAPSHOTS / f"{name}.txt").read_text(encoding="utf-8")
    return re.split(r"\n(?! )", text.rstrip("\n"))


@pytest.mark.skipif("RENEW_SNAPSHOTS" not in os.environ, reason="RENEW_SNAPSHOTS is not set")
def test_renew(capsys: Capture, monkeypatch: Patch) -> None:
    for name, words in FILES.items():
        text = printed(words, capsys, monkeypatch)
        (SNAPSHOTS / "curated" / f"{name}.txt").write_text(text, encoding="utf-8")
    for name, (row, commands) in TABLES.items():
        rows = [row(words, capsys, monkeypatch) for words in commands]
        (SNAPSHOTS / f"{name}.txt").write_text("\n".join(rows) + "\n", encoding="utf-8")


@pytest.mark.parametrize("name", FILES)
def test_what_is_printed_is_what_was_printed(
    name: str, capsys: Capture, monkeypatch: Patch
) -> None:
    before = (SNAPSHOTS / "curated" / f"{name}.txt").read_text(encoding="utf-8")
    assert printed(FILES[name], capsys, monkeypatch) == before


@pytest.mark.parametrize(("name", "number"), ROWS)
def test_nodes_have_the_exponents_they_had_and_what_was_refused_is_refused(
    name: str, number: int, capsys: Capture, monkeypatch: Patch
) -> None:
    row, commands = TABLES[name]
    assert row(commands[number], capsys, monkeypatch) == kept(name)[number]


def test_no_snapshot_is_left_that_nothing_is_compared_with() -> None:
    assert len(FILES) == len(CURATED)
    assert {path.stem for path in (SNAPSHOTS / "curated").iterdir()} == set(FILES)
    assert {path.stem for path in SNAPSHOTS.glob("*.txt")} == set(TABLES)
    assert {name: len(kept(name)) for name in TABLES} == {k: len(x[1]) for k, x in TABLES.items()}
