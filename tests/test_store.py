"""What lies in a folder of results: nothing of someone else's is changed, nothing of ours lost."""

import errno
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from empirical.claims import claim_report
from empirical.measure.measured_sizes import MeasuredSizes, Measurement
from empirical.measure.record import fault, packed, record_store, require_alike
from empirical.measure.store import VERSION, Store, append, write_atomically
from empirical.report import measured_tables
from scaling.sizes.errors import InvalidInput

RECORD = packed(Measurement("sgd", 8, 0, {"hidden": MeasuredSizes(1.0, 2.0, 3.0)}, {}, 0.5, 100.0))


def line(width: int = 8, record: object = None, **change: object) -> str:
    entry = {"version": VERSION, "key": "k", "width": width, "seed": 0, "record": record or RECORD}
    return json.dumps({**entry, **change})


def snapshot(path: Path) -> tuple[bytes, int]:
    return path.read_bytes(), path.stat().st_mtime_ns


FOREIGN: dict[str, str] = {
    "one line": "my only notes",
    "one brace": "{",
    "the last line is unfinished": '{"a": 1}\n{"a": 2}',
    "all lines are finished": '{"a": 1}\n{"a": 2}\n',
    "ours, with a last line of someone else's": line() + "\nmy notes",
    "ours, with someone else's between": f"{line()}\nmy notes\n{line(16)[:40]}",
    "another version, and a cut line": line(version=VERSION + 1) + "\n" + line()[:30],
    "nested deeply": "[" * 100_000 + "\n",
    "a fingerprint that is none": line(key=["k"]) + "\n" + line()[:30],
    "a record that is none": line(record=[["sizes", {}]]) + "\n",
}


@pytest.mark.parametrize("text", FOREIGN.values(), ids=FOREIGN)
def test_a_file_of_someone_else_is_refused_and_stays_as_it_is(tmp_path: Path, text: str) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text(text)
    before = snapshot(path)
    with pytest.raises(InvalidInput, match=r"found: (.|\n)*needed: (.|\n)*do this: (.|\n)*--out"):
        record_store(tmp_path)
    assert snapshot(path) == before
    assert [x.name for x in tmp_path.iterdir()] == ["records.jsonl"]


@pytest.mark.parametrize("target", ["there", "nowhere"])
def test_a_link_is_refused_and_what_lies_behind_it_stays(tmp_path: Path, target: str) -> None:
    folder, behind = tmp_path / "out", tmp_path / target
    folder.mkdir()
    if target == "there":
        behind.write_text(line() + "\n")
    (folder / "records.jsonl").symlink_to(behind)
    with pytest.raises(InvalidInput, match="which is a link"):
        record_store(folder)
    assert (folder / "records.jsonl").is_symlink()
    assert target == "nowhere" or behind.read_text() == line() + "\n"
    assert behind.exists() is (target == "there")


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "records.jsonl")
    with pytest.raises(InvalidInput, match="no plain file"):
        record_store(tmp_path)


def test_our_own_cut_line_stays_until_a_measurement_takes_its_place(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text(f"{line()}\n{line(16)[:-9]}")
    before = snapshot(path)
    store = record_store(tmp_path)
    assert snapshot(path) == before
    assert (store.get("k", 8, 0), store.get("k", 16, 0)) == (RECORD, None)
    store.put("k", 16, 0, RECORD)
    store.put("k", 32, 0, RECORD)
    assert path.read_text().splitlines() == [line(), line(16), line(32)]


def test_a_whole_last_line_without_its_newline_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text(line())
    store = record_store(tmp_path)
    assert store.get("k", 8, 0) == RECORD
    store.put("k", 16, 0, RECORD)
    assert path.read_text().splitlines() == [line(), line(16)]


def test_two_runs_do_not_cut_each_other(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text(f"{line()}\n{line(16)[:-9]}")
    store = record_store(tmp_path)
    path.write_text(f"{line()}\n{line(16)}\n")
    with pytest.raises(InvalidInput, match="another run is writing"):
        store.put("k", 32, 0, RECORD)
    assert path.read_text() == f"{line()}\n{line(16)}\n"


HIDDEN = RECORD["sizes"]["hidden"]
DAMAGED: dict[str, tuple[dict[str, Any], str]] = {
    "no layer": ({"sizes": {}}, "without the sizes of any layer"),
    "no quantity": ({"sizes": {"hidden": {}}}, "sizes of the hidden layer"),
    "unknown quantity": ({"sizes": {"hidden": {**HIDDEN, "x": 1.0}}}, "sizes of the hidden layer"),
    "text": ({"sizes": {"hidden": {**HIDDEN, "own": "1"}}}, "own of the hidden layer"),
    "not a number": ({"sizes": {"hidden": {**HIDDEN, "own": float("nan")}}}, "own of the hidden"),
    "sums": ({"sums": [["hidden", "A + rho*I", 1.0]]}, "'sums'"),
    "seconds": ({"seconds": None}, "'seconds'"),
}


@pytest.mark.parametrize(("change", "says"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_record_is_refused_by_name(
    tmp_path: Path, change: dict[str, Any], says: str
) -> None:
    assert fault(RECORD) == ""
    (tmp_path / "records.jsonl").write_text(f"{line()}\n{line(16, {**RECORD, **change})}\n")
    with pytest.raises(InvalidInput, match=rf"line 2 of .*records.jsonl, a record .*{says}"):
        record_store(tmp_path)


def test_records_of_one_run_hold_the_same_quantities() -> None:
    def measured(width: int, *sizes: float) -> Measurement:
        return Measurement("sgd", width, 0, {"hidden": MeasuredSizes(*sizes)}, {}, 0.5, 100.0)

    require_alike("sgd", [measured(8, 1.0, 2.0, 3.0), measured(16, 1.0, 2.0, 3.0)])
    with pytest.raises(InvalidInput, match="width 16 and seed 0 for sgd, with other quantities"):
        require_alike("sgd", [measured(8, 1.0, 2.0, 3.0), measured(16, 1.0, 2.0)])


# --- a disk that is full ------------------------------------------------------------------------

FILL = """
import resource, signal, sys
from pathlib import Path
from empirical.measure.store import append, write_atomically
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
try:
    {call}
except OSError as error:
    print(error.errno)
"""


def limited(call: str) -> int:
    """The error number of a call in a process that may write files of 100 bytes at most."""
    words = [sys.executable, "-c", FILL.format(call=call)]
    return int(subprocess.run(words, capture_output=True, text=True, check=True).stdout)


def test_a_line_that_does_not_fit_is_taken_back(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    append(path, b"x" * 79 + b"\n")
    assert limited(f"append(Path({str(path)!r}), b'y' * 50)") == errno.EFBIG
    assert path.read_bytes() == b"x" * 79 + b"\n"


def test_a_report_that_does_not_fit_leaves_the_old_one_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write_atomically(path, b"old")
    assert limited(f"write_atomically(Path({str(path)!r}), b'y' * 200)") == errno.EFBIG
    assert [x.name for x in tmp_path.iterdir()] == ["report.json"]
    assert path.read_bytes() == b"old"


def test_files_have_the_rights_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "usual").write_text("")
    write_atomically(tmp_path / "report.json", b"{}")
    Store(tmp_path).put("k", 8, 0, {})
    rights = {x.name: stat.S_IMODE(x.stat().st_mode) for x in tmp_path.iterdir()}
    assert set(rights) == {"usual", "report.json", "records.jsonl"}
    assert len(set(rights.values())) == 1


# --- what else a folder holds -------------------------------------------------------------------


def test_trying_a_folder_leaves_its_files_alone(tmp_path: Path) -> None:
    (tmp_path / ".writable").write_text("mine")
    Store(tmp_path)
    assert {x.name: x.read_text() for x in tmp_path.iterdir()} == {".writable": "mine"}


@pytest.mark.parametrize(("require", "report", "others"), [
    (measured_tables.require_own, "report.json", ("report.md", "sizes.csv")),
    (claim_report.require_own, "claims.json", ("claims.md", "summary.md")),
])  # fmt: skip
def test_reports_of_someone_else_are_not_replaced(
    tmp_path: Path, require: Callable[[Path], None], report: str, others: tuple[str, ...]
) -> None:
    ours = dict.fromkeys(("verdict", "checks", "series", "about", "claims"), "")
    require(tmp_path)
    for name in (report, *others):
        (tmp_path / name).write_text('{"mine": 1}')
        with pytest.raises(InvalidInput, match=rf"{name}, which this command did not write"):
            require(tmp_path)
        (tmp_path / name).unlink()
    (tmp_path / report).write_text(json.dumps(ours))
    (tmp_path / others[0]).write_text("")
    require(tmp_path)


def test_a_link_is_replaced_by_a_report_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_text("theirs")
    (tmp_path / "report.json").symlink_to(tmp_path / "theirs")
    write_atomically(tmp_path / "report.json", b"ours")
    assert (tmp_path / "theirs").read_text() == "theirs"
    assert not (tmp_path / "report.json").is_symlink()
