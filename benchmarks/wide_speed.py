"""A step of any width: time against the time that its random numbers take, and memory.

    python benchmarks/wide_speed.py [--full]

One K-FAC step of a 3-layer ReLU network on n digits and 3 probe samples, in float32. It draws
4 n + 3 * 3 normal numbers a neuron, 41 for n = 8, which is the floor: 5 n of them, 4e8 at M = 10^7,
are drawn by torch in the same run, one thread, into memory that is warm.

With 2 GiB all noise is kept between passes, with the default of 1 GiB that of two neurons in three,
with 64 MiB next to none. Other work on the machine blurs times, so normals and steps take turns and
a ratio is the median of those of neighbours: of wall time, and of processor time over the number of
workers, which is the wall time of cores that do nothing else. Peak memory counts python and torch:
of this process, whose threads are the workers.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import torch

from derivations.catalogue import find
from empirical.data.sources import load
from empirical.measure.calibration import calibrate
from empirical.measure.machine import blas_threads, cores
from empirical.measure.trial import Trial
from empirical.wide import Streaming, measure_wide
from scaling.models.chain import Activation, Loss, Setting, mlp
from scaling.models.settings import read_settings
from scaling.solve.derive import derive

PROBE = 3
NORMALS = 40
"""Times 10^7, of the floor."""
MEMORY = {"2 GiB": 2**31, "1 GiB": 2**30, "64 MiB": 2**26}


def trial(name: str, samples: int, probe: int = PROBE) -> Trial:
    """A declared optimizer under its own exponents."""
    optimizer, setting = find(name), Setting(mlp(3), Activation.RELU, Loss.MSE)
    pairs = [f"{k}={v}" for k, v in optimizer.exponents.items()]
    solution = derive(optimizer.rule, read_settings(pairs, optimizer.rule, setting.layers), setting)
    data = load("digits", samples=samples, probe=probe)
    return Trial(solution.problem, solution.exponents, dict(optimizer.values), data)


@dataclass(frozen=True)
class Seconds:
    """Wall time and processor time of one piece of work."""

    wall: float
    processor: float

    @classmethod
    def of(cls, work: Callable[[], object]) -> Seconds:
        """Do it, and say how long it took."""
        wall, processor = time.perf_counter(), time.process_time()
        work()
        return cls(time.perf_counter() - wall, time.process_time() - processor)


def ratio(ones: Sequence[Seconds], others: Sequence[Seconds], workers: int) -> tuple[float, float]:
    """Medians of the ratios of neighbours: of wall time, of processor time by worker."""
    pairs = list(zip(ones, others, strict=True))
    wall = median(x.wall / y.wall for x, y in pairs)
    return wall, median(x.processor / workers / y.processor for x, y in pairs)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=8, help="training samples, n")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--workers", type=int, default=cores())
    parser.add_argument("--full", action="store_true", help="also M = 10^9, and a verification")
    options = parser.parse_args()
    many, subject = options.workers, trial("kfac", options.samples)
    constants, buffer = calibrate(subject, 64), torch.empty(10**7)

    def step(width: int, workers: int, memory: int) -> Seconds:
        streaming = Streaming(torch.float32, memory, workers)
        return Seconds.of(lambda: measure_wide(subject, constants, width, 0, streaming=streaming))

    def normals() -> Seconds:
        with blas_threads(1):
            return Seconds.of(lambda: [buffer.normal_() for _ in range(NORMALS)])

    step(10**6, many, 2**30), buffer.normal_()
    cases = {name: (10**7, many, limit) for name, limit in MEMORY.items()}
    cases |= {"alone": (10**7, 1, MEMORY["2 GiB"]), "tenth": (10**6, many, MEMORY["2 GiB"])}
    floor, found = list[Seconds](), {name: list[Seconds]() for name in cases}
    for _ in range(options.runs):
        floor.append(normals())
        for name, case in cases.items():
            found[name].append(step(*case))
    whole = found["2 GiB"]
    rows = [(f"4e8 normals by torch: {median(x.wall for x in floor):.2f} s", "1", "1", "")]
    for name in MEMORY:
        wall, processor = ratio(found[name], floor, many)
        asked = "at most 2" if name == "2 GiB" else ""
        took = median(x.wall for x in found[name])
        what = (
            f"M = 10^7, n = {options.samples}, --memory-limit {name.replace(' ', '')}: {took:.2f} s"
        )
        rows.append((f"{what}, against the normals", f"{wall:.2f}", f"{processor:.2f}", asked))
    wall, processor = ratio(found["alone"], whole, 1)
    rows.append(("one worker against all, 2GiB", f"{wall:.2f}", f"{processor:.2f}", "at least 1.6"))
    wall, processor = ratio(whole, found["tenth"], 1)
    rows.append(("M = 10^7 against 10^6, 2GiB", f"{wall:.1f}", f"{processor:.1f}", "at most 11"))
    print(f"n = {options.samples}, float32, {many} workers, medians of {options.runs} pairs")
    print()
    print("| what | wall | processor, by worker | asked for |")
    print("| --- | --- | --- | --- |")
    for row in rows:
        print("| " + " | ".join(row) + " |", flush=True)
    if options.full:
        subject = trial("kfac", 4)
        constants = calibrate(subject, 64)
        took = step(10**9, many, 2**30)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"\nM = 10^9, n = 4: {took.wall / 60:.1f} minutes, {took.processor / many / 60:.1f} "
              f"of processor time by worker (asked for: 15), "
              f"peak memory {peak:.2f} GiB (asked for: 4)", flush=True)  # fmt: skip
        command = "verify kfac shampoo"
        words = [sys.executable, "-m", "scaling.cli", *command.split(), "--format", "json"]
        start, before = time.perf_counter(), _of_children()
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        took = Seconds(time.perf_counter() - start, (_of_children() - before) / many)
        print(f"\n`scaling {command}`, widths up to 1048576 and dense networks up to 4096: "
              f"{took.wall:.0f} s, {took.processor:.0f} of processor time by core (asked for: 60), "
              f"verdict {json.loads(done.stdout)['verdict']}")  # fmt: skip


def _of_children() -> float:
    """Processor time of the processes that were started and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
