"""What a GPU can tell, in ten minutes: one process after the other, the page written after each.

    benchmarks/gpu.sh [--device cuda|cpu] [--out FOLDER] [--page FILE] [--tiny]

Each part has its seconds, and leaves what it has found when they are over: a process is killed, and
loses the measurement that it is at. All others are kept in FOLDER, and the next run goes on there.
--tiny: the same commands at sizes for a test.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TypeAlias

import gpu_page
import machine

from empirical.measure.machine import pick_device
from scaling.sizes.errors import InvalidInput

TOTAL = 585
"""Seconds of all parts: ten minutes with the start and the page."""
LEAST = 5
"""Seconds that a part is not worth starting for less than."""
CUT_OFF = 124
"""The exit code of a part whose seconds were over, as that of `timeout`."""


@dataclass(frozen=True)
class Part:
    """A command, and the seconds that it has at most. ``words`` follow the name of python."""

    seconds: int
    words: tuple[str, ...]


Runner: TypeAlias = Callable[[Sequence[str], float, Path, Path], int]
"""Words, seconds, and files for what is printed and for errors -> exit code."""


def parts(device: str, out: Path, tiny: bool) -> list[Part]:
    """The parts in the order of the page."""
    if tiny:
        tests = "tests/test_wide_noise.py -n 0 -p no:cacheprovider"
        dense, claims = "sgd --widths 16,24,32 --seeds 1", "3a --tier ci"
        wide = "--widths 2000,4000 --samples 2 --memory-limit 64MiB"
        model = "sgd --model docs/mlp.py --axis width=16,24,32 --seeds 1"
    else:
        tests = "tests"
        dense, claims = "--widths 512:32768 --seeds 4", "9a 10a 9d 9b 9c --tier paper"
        wide = "--widths 1e8,1e9,1e10 --samples 8 --memory-limit 48GiB"
        model = "adamw --model docs/gpt.py --axis width=256:4096"
    scaling, there = "-m scaling.cli", f"--device {device}"
    lines = [
        (60, f"-m pytest -m cuda {tests}"),
        (110, f"{scaling} verify {dense} --mode dense {there} --format markdown --out {out}/dense"),
        (170, f"benchmarks/gpu_wide.py {wide} {there} --within 160 --out {out}/wide.jsonl"),
        (175, f"{scaling} claims {claims} {there} --format markdown --out {out}/claims"),
        (60, f"{scaling} verify {model} {there} --format markdown"),
    ]
    return [Part(seconds, tuple(shlex.split(line))) for seconds, line in lines]


def process(words: Sequence[str], seconds: float, printed: Path, errors: Path) -> int:
    """A part in a process of its own, killed when its seconds are over."""
    with printed.open("w") as out, errors.open("w") as err:
        try:
            done = subprocess.run(
                [sys.executable, *words], stdout=out, stderr=err, timeout=seconds, check=False
            )
        except subprocess.TimeoutExpired:
            return CUT_OFF
    return done.returncode


def run(chosen: Sequence[Part], out: Path, page: Path, runner: Runner = process) -> None:
    """Run the parts one after the other, and write the page after each."""
    begun = time.monotonic()
    for old in out.glob("?.part"):
        old.unlink()
    for number, part in enumerate(chosen, start=1):
        start = time.monotonic()
        seconds = min(part.seconds, TOTAL - (start - begun))
        code = "skipped"
        if seconds >= LEAST:
            files = out / f"{number}.txt", out / f"{number}.err"
            code = str(runner(part.words, seconds, *files))
        took = f"{time.monotonic() - start:.0f}"
        line = "\t".join([str(number), code, took, shlex.join(part.words)])
        (out / f"{number}.part").write_text(line + "\n", encoding="utf-8")
        page.write_text(gpu_page.text_of(out), encoding="utf-8")
        print(f"part {number}: exit code {code} after {took} s", flush=True)


def main() -> None:
    """Find the device, and run all parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--out", type=Path, default=Path("results/gpu"))
    parser.add_argument("--page", type=Path, default=Path("benchmarks/gpu.md"))
    parser.add_argument("--tiny", action="store_true", help="at sizes for a test")
    options = parser.parse_args()
    try:
        pick_device(options.device)
    except InvalidInput as refusal:
        print(refusal, file=sys.stderr)
        sys.exit(2)
    options.out.mkdir(parents=True, exist_ok=True)
    named = StringIO()
    with redirect_stdout(named):
        machine.main()
    (options.out / "machine.txt").write_text(named.getvalue(), encoding="utf-8")
    run(parts(options.device, options.out, options.tiny), options.out, options.page)


if __name__ == "__main__":
    main()
