"""The place from which each worker of a transfer gets the model: the user's file, or functions.

A file is read by every process for itself, since its functions belong to no module that a worker
could import; its text must be the one that was planned for.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from empirical.plans.planned_axes import at_sizes
from empirical.trace.model_file import ModelFile, read_model
from scaling.sizes.errors import InvalidInput


class ModelSource(Protocol):
    """Gives the model at the sizes of the base."""

    @property
    def mark(self) -> str:
        """A fingerprint that another model does not have."""

    def file(self) -> ModelFile:
        """The model; the sizes of the base are the defaults of its axes."""


@dataclass(frozen=True)
class SourceFile:
    """FILE.py or FILE.py:BUILD, the fingerprint of its text, sizes by axis, the folder of data."""

    place: str
    mark: str
    base: tuple[tuple[str, int], ...]
    data_root: Path | None = None

    @classmethod
    def of(cls, place: str, base: dict[str, int], data_root: Path | None = None) -> SourceFile:
        """The file as it is now."""
        path, build = _parts(place)
        absolute = f"{path.resolve()}:{build}" if build else str(path.resolve())
        folder = None if data_root is None else data_root.resolve()
        return cls(absolute, _mark(place), tuple(base.items()), folder)

    def file(self) -> ModelFile:
        """Read, once in a process.

        Raises:
            InvalidInput: if the file is not there, or has another text than was planned for.
        """
        return _read(self)


@dataclass(frozen=True)
class GivenModel:
    """Functions that were handed over in Python."""

    model: ModelFile
    mark: str = "given in Python"

    def file(self) -> ModelFile:
        """As it was given."""
        return self.model


@cache
def _read(source: SourceFile) -> ModelFile:
    file = read_model(source.place, source.data_root)
    if _mark(source.place) != source.mark:
        raise InvalidInput(
            f"another text of {source.place} than that which was planned for",
            "one text in all processes, for as long as they run",
            "put the file where every worker reads it, and leave it alone meanwhile",
        )
    return at_sizes(file, dict(source.base))


def _parts(place: str) -> tuple[Path, str]:
    name, _, build = place.partition(":") if place.count(":") else (place, "", "")
    return Path(name), build


def _mark(place: str) -> str:
    path, build = _parts(place)
    return sha256(path.read_bytes() + build.encode()).hexdigest()[:16]
