"""`scaling derive kfac` beside `import sympy`, in fresh processes, turn by turn.

Byte code of both is kept in a folder of its own, which a first pair fills: what is measured is the
start of a command that has been started before. ``import sympy`` runs with Python's collector, as
it does for whoever types it; the command switches that off and spares its last pass.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time

PAIRS = 9
OURS, THEIRS = ("-m", "scaling.cli", "derive", "kfac"), ("-c", "import sympy")


def seconds(kept: str, *words: str) -> tuple[float, float]:
    """Wall time and processor time of a process, with its byte code in a folder."""
    environment = {k: x for k, x in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = kept
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, *words], check=True, capture_output=True, env=environment)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measured(pairs: int) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """(ours, theirs) of every pair after the first, each with wall time and processor time."""
    with tempfile.TemporaryDirectory() as kept:
        found = [(seconds(kept, *OURS), seconds(kept, *THEIRS)) for _ in range(pairs + 1)]
    return found[1:]


def ratio(pairs: list[tuple[tuple[float, float], tuple[float, float]]], clock: int) -> float:
    """The median over pairs, by wall time (0) or processor time (1)."""
    return statistics.median(ours[clock] / theirs[clock] for ours, theirs in pairs)


def main() -> None:
    """Measure and print."""
    pairs = measured(PAIRS)
    ours, theirs = (statistics.median(x[0] for x in side) for side in zip(*pairs, strict=True))
    print(f"`scaling derive kfac` {ours:.2f} s beside `import sympy` {theirs:.2f} s: ", end="")
    print(f"median ratio of {PAIRS} pairs {ratio(pairs, 0):.2f}, ", end="")
    print(f"of processor time {ratio(pairs, 1):.2f} (asked for: 1.4)")


if __name__ == "__main__":
    main()
