"""Fixtures that several files share; the time of a run beside the budget of the Makefile."""

import gc
import os
import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from typed import Done, Typed, exit_code

from empirical.trace import read_model
from empirical.trace.export import Program
from empirical.trace.model_file import ModelFile

STARTED = time.monotonic()
os.environ.setdefault("LOKY_MAX_CPU_COUNT", "1")
"""The cores that `--threads 0` takes: of two test processes each has one."""


def told(seconds: float, budget: float) -> str:
    """One line.

    >>> told(431, 720), told(800, 720)
    ('431 s of a budget of 720 s', '800 s of a budget of 720 s: over it by 80 s')
    """
    line = f"{seconds:.0f} s of a budget of {budget:.0f} s"
    return line if seconds <= budget else f"{line}: over it by {seconds - budget:.0f} s"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Before the closing line, which stays pytest's own."""
    if budget := os.environ.get("BUDGET"):
        seconds = time.monotonic() - STARTED
        terminalreporter.write_sep("=", f"time: {told(seconds, float(budget))}")


def pytest_collection_finish() -> None:
    """The collector of cycles comes by less often, which saves a tenth of the time.

    What lives by now, torch and sympy and the tests, lives to the end: it is not looked at again.
    """
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


@pytest.fixture(scope="session", autouse=True)
def exported_once() -> Iterator[None]:
    """A model's file, as long as its text stays the same, is exported once at each size."""
    export, kept = read_model.export, {}

    def remembered(file: ModelFile, sizes: Mapping[str, int], **how: bool) -> Program:
        if not file.builder.__module__.startswith("_model_") or file.builder.__closure__:
            return export(file, sizes, **how)  # a function of a test's own
        text = file.path.read_text(encoding="utf-8")
        defaults = tuple(file.axes.items())
        asked = *sorted(sizes.items()), *sorted(how.items())
        key = (file.path.resolve(), text, file.builder.__name__, defaults, *asked)
        if key not in kept:
            kept[key] = export(file, sizes, **how)
        return kept[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(read_model, "export", remembered)
        yield


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Typed]:
    """The command, typed in this process."""

    def run(*words: str) -> Done:
        return Done(exit_code(words, monkeypatch), *capsys.readouterr())

    yield run
    gc.enable()  # `main` switches it off


@pytest.fixture
def measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a test that asks for one measurement of a model twice, it is made once."""
    from empirical.verify.model_steps import ModelSteps

    kept: dict[tuple[str, tuple[int, ...], int, int], Any] = {}
    measure = ModelSteps.sizes

    def remembered(steps: ModelSteps, k: int, seed: int) -> Any:
        key = (steps.axis.name, tuple(steps.axis.sizes), k, seed)
        if key not in kept:
            kept[key] = measure(steps, k, seed)
        return kept[key]

    monkeypatch.setattr(ModelSteps, "sizes", remembered)
