"""Finished measurements, one JSON line each, so that an interrupted run loses none of them.

A line holds the version of this format, the fingerprint of everything that decides the numbers
(rule, exponents, data, widths' base, device), and the measurement. A run that finds lines of its
own fingerprint does not repeat them; a last line cut off by a crash is dropped and measured anew.
Lines of another version are refused, never mixed in.

Nothing is changed before the whole file was recognised: a file of someone else's that happens to
have this name is refused as it stands, and so is a link, behind which another file lies. A line
that cannot be written whole, on a full disk, is taken back.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from scaling.sizes.errors import InvalidInput

VERSION = 2
HEAD = f'{{"version": {VERSION}, "key": "'
"""How each line begins: what tells a line of ours that was cut off from a text of someone else."""
Fault = Callable[[Mapping[str, Any]], str]
"""The lack of a record, in words; "" if nothing."""


def fingerprint(content: Mapping[str, Any]) -> str:
    """A short name for a configuration, the same wherever it is computed.

    >>> fingerprint({"b": 1, "a": 2}) == fingerprint({"a": 2, "b": 1})
    True
    """
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Store:
    """An append-only file of measurements; without a folder it only remembers.

    ``name`` is that of the file, ``fault`` says what a record lacks.

    Raises:
        InvalidInput: if the folder cannot be written, or its file is a link, no file of records, or
            one of another version. The file is left as it was.
    """

    def __init__(
        self, folder: Path | None, name: str = "records.jsonl", fault: Fault = lambda _: ""
    ) -> None:
        self._known: dict[tuple[str, int, int], dict[str, Any]] = {}
        self._fault = fault
        self._path = None if folder is None else prepare_folder(folder) / name
        self._end: _End | None = None
        if self._path is not None and os.path.lexists(self._path):
            self._end = self._read(self._path)

    def get(self, key: str, width: int, seed: int) -> dict[str, Any] | None:
        """The stored measurement, or None."""
        return self._known.get((key, width, seed))

    def put(self, key: str, width: int, seed: int, record: Mapping[str, Any]) -> None:
        """Keep a measurement; it is on disk when this returns.

        Raises:
            OSError: if it cannot be written whole; the file then ends where it ended before.
        """
        self._known[key, width, seed] = dict(record)
        if self._path is None:
            return
        line = {"version": VERSION, "key": key, "width": width, "seed": seed, "record": record}
        if self._end is not None:
            self._end.mend(self._path)
            self._end = None
        append(self._path, (json.dumps(line) + "\n").encode())

    def _read(self, path: Path) -> _End | None:
        """Take up every line, or refuse the file; what is to be done about an unfinished end."""
        content = _content_of(path)
        *lines, last = content.decode().split("\n")
        for number, line in enumerate(lines, start=1):
            self._take(path, number, line)
        if not last:
            return None
        cut = _is_cut(last, others=bool(lines))
        if not cut:
            self._take(path, len(lines) + 1, last)
        return _End(len(content), len(last.encode()) if cut else 0)

    def _take(self, path: Path, number: int, line: str) -> None:
        where = f"line {number} of {path}"
        try:
            version, key, record = _entry(json.loads(line))
        except (ValueError, KeyError, TypeError, RecursionError):
            raise _foreign(f"{where}, which is no record") from None
        if version != VERSION:
            raise InvalidInput(
                f"records of format {version} in {path}",
                f"format {VERSION}",
                "choose another --out: old and new records are not mixed",
            )
        fault = self._fault(record)
        if fault:
            raise _foreign(f"{where}, a record {fault}")
        self._known[key] = record


def _entry(entry: Any) -> tuple[int, tuple[str, int, int], dict[str, Any]]:
    """Version, (fingerprint, width, seed) and record of a line; an error if it is none of ours."""
    version, key, width, seed = (entry[name] for name in ("version", "key", "width", "seed"))
    if not (isinstance(key, str) and all(isinstance(x, int) for x in (version, width, seed))):
        raise TypeError
    if not isinstance(entry["record"], dict):
        raise TypeError
    return version, (key, width, seed), entry["record"]


class _End:
    """The end of a file that lacks its last newline: what must be done before more is added."""

    def __init__(self, size: int, cut: int) -> None:
        self._size, self._cut = size, cut

    def mend(self, path: Path) -> None:
        """Take the cut line away, or finish a line that is whole; refused if the file has grown."""
        if path.stat().st_size != self._size:
            raise InvalidInput(
                f"{path}, which another run is writing",
                "one run at a time in a folder",
                "wait for it, or choose another --out",
            )
        if self._cut:
            os.truncate(path, self._size - self._cut)
        else:
            append(path, b"\n")


def _is_cut(line: str, others: bool) -> bool:
    """Whether a line without its end is the beginning of one of ours, and not the whole of it.

    ``others`` of ours stand before it, so that even a single character is the beginning of one.
    """
    if not (line.startswith(HEAD) or (others and HEAD.startswith(line))):
        return False
    try:
        json.loads(line)
    except ValueError:
        return True
    return False


def _content_of(path: Path) -> bytes:
    """The UTF-8 text of a plain file."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            kind = "a link" if path.is_symlink() else "no plain file"
            raise _foreign(f"{path}, which is {kind}")
        content = path.read_bytes()
        content.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise _foreign(f"{path}, which cannot be read ({error})") from None
    return content


def _foreign(found: str) -> InvalidInput:
    return InvalidInput(
        found,
        "a file of records that this command wrote with --out, or none",
        "move the file away, or choose another --out; nothing in it was changed",
    )


def append(path: Path, content: bytes) -> None:
    """Add to a file, and have it on disk; all of it or, after an error, nothing."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
    file = os.open(path, flags, 0o666)
    try:
        end = os.fstat(file).st_size
        try:
            _write(file, content)
        except OSError:
            os.ftruncate(file, end)
            raise
    finally:
        os.close(file)


def _write(file: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        written = os.write(file, rest)
        if not written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        rest = rest[written:]
    os.fsync(file)


def prepare_folder(folder: Path) -> Path:
    """Create a folder for output and make sure that it can be written, before any work is done.

    Raises:
        InvalidInput: if it cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as trial:
            trial.write(b"\n")
            trial.flush()
    except OSError as error:
        raise InvalidInput(
            f"the output folder {folder} ({error.strerror or error})",
            "a folder that can be created and written",
            "choose another --out",
        ) from None
    return folder


def refuse_foreign_reports(
    folder: Path, report: str, keys: set[str], others: Sequence[str]
) -> None:
    """Refuse to write over files that happen to have the names of ours.

    ``report`` is the JSON file that tells whose they are: ours has the ``keys``. It is written
    first, so where it is missing the ``others`` are someone else's.
    """
    there = [name for name in (report, *others) if os.path.lexists(folder / name)]
    if not there:
        return
    try:
        found = json.loads((folder / report).read_text(encoding="utf-8"))
        ours = isinstance(found, dict) and keys <= set(found)
    except (OSError, ValueError, RecursionError):
        ours = False
    if not ours:
        raise InvalidInput(
            f"{folder / there[0]}, which this command did not write",
            "a folder without files of this name, or one with the report of an earlier run",
            "move the file away, or choose another --out",
        )


def write_or_refuse(path: Path, content: bytes, asked: str) -> None:
    """The same for a place that a user named; ``asked``: how, such as "--export".

    Raises:
        InvalidInput: if it cannot be written.
    """
    try:
        write_atomically(path, content)
    except OSError as error:
        raise InvalidInput(
            f"{asked} {path}, which cannot be written: {error}",
            "a file in a folder that can be written",
            "choose another",
        ) from None


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; a link of that name is replaced, not followed.

    Raises:
        OSError: if it cannot be written; a file of that name is then left as it was.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    file = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        try:
            _write(file, content)
        finally:
            os.close(file)
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
