"""The time that a run of the tests took, beside the budget that the Makefile gives it."""

import os
import time

import pytest

STARTED = time.monotonic()


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
