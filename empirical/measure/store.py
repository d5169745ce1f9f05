"""Finished measurements, one JSON line each, so that an interrupted run loses none of them.

A line holds the version of this format, the fingerprint of everything that decides the numbers
(rule, exponents, data, widths' base, device), and the measurement. A run that finds lines of its
own fingerprint does not repeat them; a last line cut off by a crash is dropped and measured anew.
Lines of another version are refused, never mixed in.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scaling.sizes.errors import InvalidInput

VERSION = 2
MEASUREMENT = frozenset({"sizes", "sums", "seconds", "peak_mb"})
"""What a record of campaign.py holds."""


def fingerprint(content: Mapping[str, Any]) -> str:
    """A short name for a configuration, the same wherever it is computed.

    >>> fingerprint({"b": 1, "a": 2}) == fingerprint({"a": 2, "b": 1})
    True
    """
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Store:
    """An append-only file of measurements; without a path it only remembers.

    ``name`` is that of the file, ``needs`` what every record in it must hold.

    Raises:
        InvalidInput: if the folder cannot be written, or holds records of another version.
    """

    def __init__(
        self,
        folder: Path | None,
        name: str = "records.jsonl",
        needs: frozenset[str] = MEASUREMENT,
    ) -> None:
        self._known: dict[tuple[str, int, int], dict[str, Any]] = {}
        self._needs = needs
        self._path = None if folder is None else prepare_folder(folder) / name
        if self._path is not None and self._path.exists():
            self._read(self._path)

    def get(self, key: str, width: int, seed: int) -> dict[str, Any] | None:
        """The stored measurement, or None."""
        return self._known.get((key, width, seed))

    def put(self, key: str, width: int, seed: int, record: Mapping[str, Any]) -> None:
        """Keep a measurement; it is on disk when this returns."""
        self._known[key, width, seed] = dict(record)
        if self._path is None:
            return
        line = {"version": VERSION, "key": key, "width": width, "seed": seed, "record": record}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _read(self, path: Path) -> None:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInput(
                f"{path}, which cannot be read ({error})",
                "records written by this command with --out",
                "move it away, or choose another --out",
            ) from None
        lines = text.split("\n")
        if lines[-1]:  # no newline at the end: the writer died in this line
            path.write_text(text[: len(text) - len(lines[-1])], encoding="utf-8")
        for number, line in enumerate(lines[:-1], start=1):
            try:
                entry = json.loads(line)
                version, key = entry["version"], (entry["key"], entry["width"], entry["seed"])
                record = entry["record"]
                if version == VERSION and not self._needs <= set(record):
                    raise KeyError("record")
            except (ValueError, KeyError, TypeError):
                raise InvalidInput(
                    f"line {number} of {path}, which is no record",
                    "records written by this command with --out",
                    "move the file away, or choose another --out",
                ) from None
            if version != VERSION:
                raise InvalidInput(
                    f"records of format {version} in {path}",
                    f"format {VERSION}",
                    "choose another --out: old and new records are not mixed",
                )
            self._known[key] = record


def prepare_folder(folder: Path) -> Path:
    """Create a folder for output and make sure that it can be written, before any work is done."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        trial = folder / ".writable"
        trial.write_text("", encoding="utf-8")
        trial.unlink()
    except OSError as error:
        raise InvalidInput(
            f"the output folder {folder} ({error.strerror or error})",
            "a folder that can be created and written",
            "choose another --out",
        ) from None
    return folder


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    part = path.with_name(path.name + ".part")
    try:
        part.write_bytes(content)
        part.replace(path)
    except OSError as error:
        raise InvalidInput(
            f"the file {path} ({error.strerror or error})", "a file that can be written",
            "choose another --out",
        ) from None  # fmt: skip
