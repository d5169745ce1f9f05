"""Every run of the tests says how long it took; the closing line stays pytest's."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def lines_of(budget: str) -> list[str]:
    words = [sys.executable, "-m", "pytest", "-n", "0", "tests/conftest.py"]
    environment = {**os.environ, "BUDGET": budget}
    run = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout
    return run.stdout.splitlines()


def test_a_run_says_its_time_before_the_line_of_pytest() -> None:
    *_, time, last = lines_of("0.001")
    assert re.search(r"time: \d+ s of a budget of 0 s: over it by \d+ s =", time), time
    assert re.fullmatch(r"1 passed in .*s.*", last), last


def test_nothing_is_said_without_a_budget() -> None:
    assert not any("budget" in line for line in lines_of(""))


def test_the_budgets_of_the_makefile_are_those_that_it_tells() -> None:
    budgets = re.findall(r"^([a-z-]+): export BUDGET = (\d+)$", MAKEFILE, flags=re.MULTILINE)
    assert dict(budgets) == {"test": "720", "check-fast": "120"}
    for target, seconds in budgets:
        minutes = int(seconds) // 60
        help_line = re.search(rf"^{target}: venv  ## (.*)$", MAKEFILE, flags=re.MULTILINE)
        assert help_line and f"{minutes} minutes at most on two cores" in help_line[1]


def test_the_fast_tests_exist() -> None:
    listed = re.search(r"^FAST := (.*)$", MAKEFILE, flags=re.MULTILINE)
    assert listed
    assert all((ROOT / "tests" / f"test_{name}.py").exists() for name in listed[1].split())


def test_ci_runs_everything() -> None:
    assert (ROOT / ".ci" / "run").read_text().splitlines()[-1] == "make test"
