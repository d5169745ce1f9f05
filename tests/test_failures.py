"""What nobody foresaw ends with 70 and one line, never with the code of a contradiction."""

import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scaling.cli.failures import FAILED, Failure, details_in, told
from scaling.sizes.errors import InvalidInput

ROOT = Path(__file__).resolve().parent.parent
RUN = ("verify", "sgd", "--mode", "dense", "--threads", "1", "--widths", "8,16,32", "--seeds", "9")


def scaling(
    *words: str, temporary: Path, largest: int | None = None, code: str = "", out: Any = None
) -> subprocess.CompletedProcess[str]:
    """The command, in a process that may write no larger files; ``code`` runs before it."""

    def limit() -> None:
        if largest is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))

    start = f"import sys; {code}; from scaling.cli.main import main; main()"
    environment = {**os.environ, "TMPDIR": str(temporary), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, "-c", start.replace("; ;", ";"), *words], cwd=ROOT, check=False, text=True,
        env=environment, preexec_fn=limit, stdout=out or subprocess.PIPE, stderr=subprocess.PIPE,
        timeout=200,
    )  # fmt: skip


def one_line(found: subprocess.CompletedProcess[str]) -> str:
    assert found.returncode == FAILED == 70, found
    assert found.stderr.count("\n") == 1 and found.stderr.startswith("failed: "), found.stderr
    return found.stderr


def details(line: str) -> Path:
    path = re.search(r"; details in (.*)\n", line)
    assert path is not None, line
    return Path(path[1])


def test_a_limit_of_file_sizes_in_the_middle_of_a_run(tmp_path: Path) -> None:
    out = tmp_path / "out"
    found = scaling(*RUN, "--out", str(out), temporary=tmp_path, largest=4000)
    line = one_line(found)
    assert "OSError: [Errno 27] File too large" in line
    assert details(line).parent == out
    assert "Traceback" in details(line).read_text() and "store.py" in details(line).read_text()
    text = (out / "records.jsonl").read_text()
    assert text.endswith("\n") and text.count("\n") > 3, "what was finished is kept, whole"
    again = scaling(*RUN, "--out", str(out), temporary=tmp_path)
    assert again.returncode in (0, 3) and (out / "records.jsonl").read_text().startswith(text)


def test_a_disk_without_any_room(tmp_path: Path) -> None:
    found = scaling(*RUN, "--out", str(tmp_path / "out"), temporary=tmp_path, largest=0)
    assert found.returncode == 2 and "the output folder" in found.stderr  # found before it begins
    broken = "import scaling.solve.derive as d; d.derive = None"
    line = one_line(scaling("derive", "sgd", temporary=tmp_path, largest=0, code=broken))
    assert "TypeError" in line and "no file for the details can be written" in line
    assert re.search(r" at requests\.py:\d+", line)


def test_a_bug_leaves_its_traceback_among_temporary_files(tmp_path: Path) -> None:
    broken = "import scaling.solve.derive as d; d.derive = None"
    line = one_line(scaling("derive", "sgd", temporary=tmp_path, code=broken))
    assert details(line).parent == tmp_path
    assert "'NoneType' object is not callable" in details(line).read_text()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_an_answer_that_cannot_be_printed_is_a_failure(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        line = one_line(scaling("derive", "sgd", temporary=tmp_path, out=full))
    assert "No space left on device" in line


@pytest.mark.parametrize("raised", [MemoryError, RecursionError, EOFError, OSError, KeyError])
def test_the_folder_of_the_results_holds_the_details(tmp_path: Path, raised: type) -> None:
    with pytest.raises(Failure) as end, details_in(tmp_path):
        raise raised("a\nb" * 200)
    line = told(end.value)
    assert "\n" not in line and len(line) < 400 and raised.__name__ in line
    assert details(line + "\n").parent == tmp_path


def _refuse() -> None:
    raise InvalidInput("a", "b", "c")


def _leave() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(("act", "kind"), [(_refuse, InvalidInput), (_leave, KeyboardInterrupt)])
def test_refusals_and_interrupts_are_no_failures(
    tmp_path: Path, act: Callable[[], None], kind: type[BaseException]
) -> None:
    with pytest.raises(kind), details_in(tmp_path):
        act()
    assert not list(tmp_path.iterdir())
