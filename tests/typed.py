"""The command line, typed in this process."""

import sys
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import pytest

from scaling.cli.main import main


class Done(NamedTuple):
    """What a command exited with and printed."""

    code: int
    out: str
    err: str


Typed: TypeAlias = Callable[..., Done]
"""The fixture `typed` of conftest.py: words of a command -> `Done`."""


def exit_code(words: tuple[str, ...], patch: pytest.MonkeyPatch) -> Any:
    """What `scaling` exits with, if these words follow; 0 if it just ends.

    What nobody foresaw is raised, not exited with.

    `main` switches the collection of garbage off: whoever types switches it on again at the end.
    """
    patch.setattr("scaling.cli.main.told", _raise)
    patch.setattr(sys, "argv", ["scaling", *words])
    try:
        main()
    except SystemExit as end:
        return end.code or 0
    return 0


def _raise(error: Exception) -> str:
    raise error
