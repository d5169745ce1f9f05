"""The ends of a command beside an answer: refusals, missing packages, and what nobody foresaw.

A verdict has an exit code (0, 1, 3), a refusal has 2, and whatever else is raised, on a full disk
or by a bug, has `FAILED`: never the code of a contradiction. It is told in one line, and the
traceback lies in a file: in the folder of results, where a run has one, or else among temporary
files.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from scaling.sizes.errors import ScalingError

FAILED = 70
"""EX_SOFTWARE of sysexits.h."""
LONGEST = 200
"""Characters of a message that are shown."""
DETAILS = "failure-"


class Failure(Exception):
    """An exception that was raised while a verb ran, with the folder of its results."""

    def __init__(self, cause: Exception, folder: Path | None) -> None:
        super().__init__(str(cause))
        self.cause, self.folder = cause, folder


@contextmanager
def details_in(folder: Path | None) -> Iterator[None]:
    """Leave the details of what goes wrong meanwhile in a folder.

    Refusals, missing packages and a reader who left are no failures and pass.
    """
    try:
        yield
    except (ScalingError, ModuleNotFoundError, BrokenPipeError):
        raise
    except Exception as error:
        if type(error).__module__.partition(".")[0] in ("typer", "click"):
            raise  # exit codes and errors of usage
        raise Failure(error, folder) from error


def told(error: Exception) -> str:
    """One line on what happened and where the details are; the details are written.

    >>> told(Failure(ZeroDivisionError("by zero"), None)).partition("; details in ")[0]
    'failed: ZeroDivisionError: by zero'
    """
    import traceback

    cause, folder = (error.cause, error.folder) if isinstance(error, Failure) else (error, None)
    what = " ".join(f"{type(cause).__name__}: {cause}".split())
    what = what if len(what) <= LONGEST else what[:LONGEST] + " ..."
    written = _written("".join(traceback.format_exception(cause)), folder)
    if written is not None:
        return f"failed: {what}; details in {written}"
    last = traceback.extract_tb(cause.__traceback__)[-1:]
    place = f" at {Path(last[0].filename).name}:{last[0].lineno}" if last else ""
    return f"failed: {what}{place}; no file for the details can be written"


def _written(text: str, folder: Path | None) -> Path | None:
    """A new file with the text, in the folder or else among temporary files."""
    import tempfile

    places = [] if folder is None else [str(folder)]
    with suppress(OSError):
        places.append(tempfile.gettempdir())
    for place in places:
        with suppress(OSError):
            return _filled(text, place)
    return None


def _filled(text: str, place: str) -> Path:
    import tempfile

    number, name = tempfile.mkstemp(prefix=DETAILS, suffix=".txt", dir=place)
    try:
        with open(number, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError:
        os.unlink(name)
        raise
    return Path(name)


def silence() -> None:
    """Drop what standard output still holds, if it cannot be written: the end would fail again."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
