"""Finished runs in a file of SQLite, one transaction a run: of a transfer, and of a tuning.

    settings(name, value)     all that decides a run beside its cell, as JSON
    a table of runs           its columns are the layout's

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
import os
import sqlite3
import stat
from collections.abc import Callable, Hashable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeVar

from empirical.measure.store import prepare_folder
from scaling.sizes.errors import InvalidInput

Cell = TypeVar("Cell", bound=Hashable)
Done = TypeVar("Done")
MAGIC = b"SQLite format 3\0"
APPLICATION = 0x5343414C
"""Marks our files: bytes 68 to 71 of a database are its application's own."""
VERSION = 1
"""Of the tables: bytes 60 to 63."""
SETTINGS = "CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID"
PATIENCE = 30
"""Seconds in which a reader must let go."""


@dataclass(frozen=True)
class RunLayout(Generic[Cell, Done]):
    """How the runs of one verb lie in a file.

    Args:
        name: of the file, without its ending.
        verb: that writes it.
        table: the name of its table of runs, and the statement that makes it.
        to_row: the columns of a run.
        of_row: the run of a row.
    """

    name: str
    verb: str
    table: tuple[str, str]
    to_row: Callable[[Cell, Done], tuple[Any, ...]]
    of_row: Callable[..., tuple[Cell, Done]]

    @property
    def file(self) -> str:
        """The file's name."""
        return f"{self.name}.sqlite"

    @property
    def tables(self) -> dict[str, str]:
        """Statements that make the tables, by name."""
        return {"settings": SETTINGS, self.table[0]: self.table[1]}

    def foreign(self, found: str) -> InvalidInput:
        """The refusal of a file that this layout did not write."""
        return InvalidInput(
            found,
            f"a store that `scaling {self.verb} --out` wrote (version {VERSION}), or none",
            "move the file away, or choose another --out; nothing in it was changed",
        )


class RunStore(Generic[Cell, Done]):
    """The runs of one command; without a folder they are only remembered.

    Args:
        layout: of the file.
        folder: where the store lies, or is made.
        settings: all that decides a run; those that the store has must be the same.

    Raises:
        InvalidInput: for a folder that cannot be written, a file that is no store of this version,
            settings that differ, and a store that another process writes. Nothing is changed then.
    """

    def __init__(
        self, layout: RunLayout[Cell, Done], folder: Path | None, settings: Mapping[str, Any]
    ) -> None:
        self.layout = layout
        self._known: dict[Cell, Done] = {}
        self._connection: sqlite3.Connection | None = None
        self._lock: int | None = None
        if folder is None:
            return
        path = prepare_folder(folder) / layout.file
        if os.path.lexists(path):
            _refuse_foreign(path, layout)
        self._lock = _locked(folder, layout)
        try:
            if not os.path.lexists(path):
                _made(path, layout)
            self._connection = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None)
            self._read(path)
            self._settle(path, settings)
        except (sqlite3.DatabaseError, ValueError) as error:
            self.close()
            raise layout.foreign(f"{path}, which cannot be read ({error})") from None
        except BaseException:
            self.close()
            raise

    def get(self, cell: Cell) -> Done | None:
        """The run of a cell, or None."""
        return self._known.get(cell)

    def put(self, cell: Cell, run: Done) -> None:
        """Keep a run: it is on disk when this returns.

        Raises:
            InvalidInput: where it cannot be written; the store is then as it was.
        """
        self._known[cell] = run
        row = self.layout.to_row(cell, run)
        marks = ", ".join("?" * len(row))
        self._write(f"INSERT INTO {self.layout.table[0]} VALUES ({marks})", [row])

    def close(self) -> None:
        """Let the file go."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> RunStore[Cell, Done]:
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
        tables = self.layout.tables
        if {name: found.get(name) for name in tables} != tables:
            raise self.layout.foreign(f"{path}, whose tables are {', '.join(found) or 'none'}")
        for row in self._connection.execute(f"SELECT * FROM {self.layout.table[0]}"):
            cell, run = self.layout.of_row(*row)
            self._known[cell] = run

    def _settle(self, path: Path, settings: Mapping[str, Any]) -> None:
        """Compare settings with those of the store, and keep those that it does not have.

        A store without a run, as a refusal leaves it, is bound to no settings.
        """
        assert self._connection is not None, "a store in a file"
        known = dict(self._connection.execute("SELECT name, value FROM settings").fetchall())
        if not self._known and known:
            self._write("DELETE FROM settings WHERE name = ?", [(name,) for name in known])
            known = {}
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


def _made(path: Path, layout: RunLayout[Any, Any]) -> None:
    """An empty store: made beside its place, whole, and then put there."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.unlink(missing_ok=True)
    connection = sqlite3.connect(part, isolation_level=None)
    try:
        connection.execute("PRAGMA synchronous = EXTRA")
        connection.execute("BEGIN")
        connection.execute(f"PRAGMA application_id = {APPLICATION}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
        for statement in layout.tables.values():
            connection.execute(statement)
        connection.execute("COMMIT")
    finally:
        connection.close()
    part.replace(path)


def _refuse_foreign(path: Path, layout: RunLayout[Any, Any]) -> None:
    """Read the head of a file, and refuse what is no store."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            kind = "a link" if path.is_symlink() else "no plain file"
            raise layout.foreign(f"{path}, which is {kind}")
        with path.open("rb") as file:
            head = file.read(100)
    except OSError as error:
        raise layout.foreign(f"{path}, which cannot be read ({error.strerror})") from None
    application, version = (int.from_bytes(head[k : k + 4], "big") for k in (68, 60))
    if not head.startswith(MAGIC) or application != APPLICATION:
        raise layout.foreign(f"{path}, which this command did not write")
    if version != VERSION:
        raise layout.foreign(f"{path}, whose tables are of version {version}, not {VERSION}")


def _locked(folder: Path, layout: RunLayout[Any, Any]) -> int:
    """The lock of the one process that writes."""
    lock = None
    try:
        lock = os.open(
            folder / f"{layout.name}.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666
        )
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if lock is not None:
            os.close(lock)
        if isinstance(error, BlockingIOError):
            raise InvalidInput(
                f"{folder / layout.file}, which another run is writing",
                "one run at a time in a folder",
                "wait for it, or choose another --out",
            ) from None
        raise InvalidInput(
            f"no lock on a file in {folder} ({error.strerror})",
            "a file system with locks, which SQLite needs too",
            "choose another --out, such as a local folder",
        ) from None
    return lock


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
