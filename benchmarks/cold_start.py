"""`scaling derive kfac` beside `import sympy`, in fresh processes, turn by turn."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

PAIRS = 9


def seconds(*words: str) -> float:
    """Wall time of a process."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *words], check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    pairs = [
        (seconds("-m", "scaling.cli", "derive", "kfac"), seconds("-c", "import sympy"))
        for _ in range(PAIRS + 1)
    ][1:]
    ours, theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    print(f"`scaling derive kfac` {ours:.2f} s beside `import sympy` {theirs:.2f} s: ", end="")
    print(f"median ratio of {PAIRS} pairs {ratio:.2f} (asked for: 1.5)")


if __name__ == "__main__":
    main()
