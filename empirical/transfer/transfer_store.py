"""Finished runs of a transfer in a file of SQLite: one transaction a run.

    settings(name, value)     all that decides a loss beside the cell, as JSON
    runs(parametrization, size, log2_rate, seed, start, loss, diverged, at_step, seconds)

    pandas.read_sql("SELECT * FROM runs", sqlite3.connect("runs.sqlite"))

A run is on disk when `put` returns, so a process that is killed at any moment loses the runs that
were under way and no other. The journal is a rollback journal, not a write-ahead log: a log needs
memory that all readers share, which a network file system does not have. One process writes; others
may read meanwhile. A second writer is refused by a lock on a file beside the store, which the
operating system takes back from a process that dies.

Nothing is changed before the file was recognised: another database, another version, a link and any
other file are refused as they stand, and so are settings that differ, each by name.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import sqlite3
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from empirical.measure.store import prepare_folder
from empirical.transfer.transfer_grid import TransferCell, TransferWay
from empirical.transfer.transfer_run import TrainedCell
from scaling.sizes.errors import InvalidInput

NAME = "runs.sqlite"
LOCK = "runs.lock"
MAGIC = b"SQLite format 3\0"
APPLICATION = 0x5343414C
"""Marks our files: bytes 68 to 71 of a database are its application's own."""
VERSION = 1
"""Of the tables below: bytes 60 to 63."""
TABLES = {
    "settings": "CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "runs": "CREATE TABLE runs (parametrization TEXT NOT NULL, size INTEGER NOT NULL, "
    "log2_rate REAL NOT NULL, seed INTEGER NOT NULL, start REAL NOT NULL, loss REAL, "
    "diverged TEXT NOT NULL, at_step INTEGER NOT NULL, seconds REAL NOT NULL, "
    "PRIMARY KEY (parametrization, size, log2_rate, seed)) WITHOUT ROWID",
}
PATIENCE = 30
"""Seconds in which a reader must let go."""


class TransferStore:
    """The runs of one transfer; without a folder they are only remembered.

    Args:
        folder: where the store lies, or is made.
        settings: all that decides a loss; those that the store has must be the same.

    Raises:
        InvalidInput: for a folder that cannot be written, a file that is no store of this version,
            settings that differ, and a store that another process writes. Nothing is changed then.
    """

    def __init__(self, folder: Path | None, settings: Mapping[str, Any]) -> None:
        self._known: dict[TransferCell, TrainedCell] = {}
        self._connection: sqlite3.Connection | None = None
        self._lock: int | None = None
        if folder is None:
            return
        path = prepare_folder(folder) / NAME
        if os.path.lexists(path):
            _refuse_foreign(path)
        self._lock = _locked(folder)
        try:
            if not os.path.lexists(path):
                _made(path)
            self._connection = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None)
            self._read(path)
            self._settle(path, settings)
        except (sqlite3.DatabaseError, ValueError) as error:
            self.close()
            raise _foreign(f"{path}, which cannot be read ({error})") from None
        except BaseException:
            self.close()
            raise

    def get(self, cell: TransferCell) -> TrainedCell | None:
        """The run of a cell, or None."""
        return self._known.get(cell)

    def put(self, cell: TransferCell, run: TrainedCell) -> None:
        """Keep a run: it is on disk when this returns.

        Raises:
            InvalidInput: where it cannot be written; the store is then as it was.
        """
        self._known[cell] = run
        row = (
            str(cell.way), cell.size, cell.log2_rate, cell.seed, run.start,
            None if math.isnan(run.loss) else run.loss, run.diverged, run.at_step, run.seconds,
        )  # fmt: skip
        self._write(f"INSERT INTO runs VALUES ({', '.join('?' * len(row))})", [row])

    def close(self) -> None:
        """Let the file go."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> TransferStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()

    # --- parts ------------------------------------------------------------------------------------

    def _write(self, statement: str, rows: list[tuple[Any, ...]]) -> None:
        """One transaction."""
        if self._connection is None:
            return
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany(statement, rows)
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            with suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            raise InvalidInput(
                f"a store that cannot be written: {error}",
                f"room on the disk, and no reader that holds the file for longer than {PATIENCE} s",
                "make room and give the command again: finished runs are kept",
            ) from None

    def _read(self, path: Path) -> None:
        assert self._connection is not None, "a store in a file"
        self._connection.execute("PRAGMA synchronous = EXTRA")
        found = dict(self._connection.execute("SELECT name, sql FROM sqlite_master").fetchall())
        if {name: found.get(name) for name in TABLES} != TABLES:
            raise _foreign(f"{path}, whose tables are {', '.join(found) or 'none'}")
        for way, size, rate, seed, *run in self._connection.execute("SELECT * FROM runs"):
            start, loss, diverged, at_step, seconds = run
            cell = TransferCell(TransferWay(way), size, rate, seed)
            self._known[cell] = TrainedCell(
                start, math.nan if loss is None else loss, diverged, at_step, seconds
            )

    def _settle(self, path: Path, settings: Mapping[str, Any]) -> None:
        """Compare settings with those of the store, and keep those that it does not have."""
        assert self._connection is not None, "a store in a file"
        known = dict(self._connection.execute("SELECT name, value FROM settings").fetchall())
        asked = {name: json.dumps(x, sort_keys=True, default=str) for name, x in settings.items()}
        for name, value in asked.items():
            if known.get(name, value) != value:
                raise InvalidInput(
                    f"{name} = {_short(known[name])} in {path}, and {_short(value)} now",
                    "the settings of the runs that the store has: runs of two settings are not "
                    "mixed; sizes, rates and seeds may be added",
                    "choose another --out, or give the settings of the store",
                )
        new = [(name, value) for name, value in asked.items() if name not in known]
        if new:
            self._write("INSERT INTO settings VALUES (?, ?)", new)


def _made(path: Path) -> None:
    """An empty store: made beside its place, whole, and then put there."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.unlink(missing_ok=True)
    connection = sqlite3.connect(part, isolation_level=None)
    try:
        connection.execute("PRAGMA synchronous = EXTRA")
        connection.execute("BEGIN")
        connection.execute(f"PRAGMA application_id = {APPLICATION}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
        for statement in TABLES.values():
            connection.execute(statement)
        connection.execute("COMMIT")
    finally:
        connection.close()
    part.replace(path)


def _refuse_foreign(path: Path) -> None:
    """Read the head of a file, and refuse what is no store."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            kind = "a link" if path.is_symlink() else "no plain file"
            raise _foreign(f"{path}, which is {kind}")
        with path.open("rb") as file:
            head = file.read(100)
    except OSError as error:
        raise _foreign(f"{path}, which cannot be read ({error.strerror})") from None
    application, version = (int.from_bytes(head[k : k + 4], "big") for k in (68, 60))
    if not head.startswith(MAGIC) or application != APPLICATION:
        raise _foreign(f"{path}, which this command did not write")
    if version != VERSION:
        raise _foreign(f"{path}, whose tables are of version {version}, not {VERSION}")


def _locked(folder: Path) -> int:
    """The lock of the one process that writes."""
    lock = None
    try:
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if lock is not None:
            os.close(lock)
        if isinstance(error, BlockingIOError):
            raise InvalidInput(
                f"{folder / NAME}, which another run is writing",
                "one run at a time in a folder",
                "wait for it, or choose another --out",
            ) from None
        raise InvalidInput(
            f"no lock on a file in {folder} ({error.strerror})",
            "a file system with locks, which SQLite needs too",
            "choose another --out, such as a local folder",
        ) from None
    return lock


def _foreign(found: str) -> InvalidInput:
    return InvalidInput(
        found,
        f"a store that `scaling transfer --out` wrote (version {VERSION}), or none",
        "move the file away, or choose another --out; nothing in it was changed",
    )


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
