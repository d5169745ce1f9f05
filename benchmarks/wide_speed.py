"""A step of any width: time against the time that its random numbers take, and memory.

    python benchmarks/wide_speed.py [--full]

One K-FAC step of a 3-layer ReLU network on n digits and 3 probe samples, in float32. It draws
4 n + 3 * 3 normal numbers a neuron, 41 for n = 8, which is the floor: 5 n of them, 4e8 at M = 10^7,
are drawn by torch in the same run, one thread, into memory that is warm.

With 2 GiB all noise is kept between passes, with the default of 1 GiB that of two neurons in three,
with 64 MiB next to none. Steps too find memory that is warm, that of the step before
(empirical/wide/workspace.py); the first step of a process does not, and has a row of its own.

Other work on the machine blurs times, so normals and steps take turns and every step is divided by
the normals before it; a row is the median over runs, or a ratio of medians: of wall time, and of
processor time over the number of workers, which is the wall time of cores that do nothing else.
Peak memory counts python and torch: of this process, whose threads are the workers.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import median

import torch

from derivations.catalogue import find
from empirical.data.sources import load
from empirical.measure.calibration import calibrate
from empirical.measure.machine import blas_threads, cores
from empirical.measure.trial import Trial
from empirical.wide import Streaming, measure_wide
from empirical.wide.workspace import release
from scaling.models.chain import Activation, Loss, Setting, mlp
from scaling.models.settings import read_settings
from scaling.solve.derive import derive

PROBE = 3
NORMALS = 40
"""Times 10^7, of the floor."""
MEMORY = {"2GiB": 2**31, "1GiB": 2**30, "64MiB": 2**26}


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


@dataclass(frozen=True)
class Case:
    """A step: its width, how many workers share it, and how much memory it has, fresh or not."""

    width: int
    workers: int
    memory: int
    fresh: bool = False


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

    def step(case: Case) -> Seconds:
        if case.fresh:
            release()
        streaming = Streaming(torch.float32, case.memory, case.workers)
        return Seconds.of(
            lambda: measure_wide(subject, constants, case.width, 0, streaming=streaming)
        )

    def normals() -> Seconds:
        with blas_threads(1):
            return Seconds.of(lambda: [buffer.normal_() for _ in range(NORMALS)])

    limited = {name: Case(10**7, many, limit) for name, limit in MEMORY.items()}
    whole = limited["2GiB"]
    alone, tenth, fresh = (
        replace(whole, workers=1), replace(whole, width=10**6), replace(whole, fresh=True)
    )  # fmt: skip
    normals()
    floors, seconds, ratios = list[float](), dict[Case, float](), dict[Case, tuple[float, float]]()
    for case in (*limited.values(), alone, tenth, fresh):
        step(case)
        floor, found = list[Seconds](), list[Seconds]()
        for _ in range(options.runs):
            floor.append(normals())
            found.append(step(case))
        floors += [x.wall for x in floor]
        seconds[case] = median(x.wall for x in found)
        pairs = list(zip(found, floor, strict=True))
        ratios[case] = (
            median(x.wall / y.wall for x, y in pairs),
            median(x.processor / case.workers / y.processor for x, y in pairs),
        )

    def row(what: str, case: Case, asked: str, over: Case | None = None) -> tuple[str, ...]:
        below = (1.0, 1.0) if over is None else ratios[over]
        return (what, *(f"{x / y:.2f}" for x, y in zip(ratios[case], below, strict=True)), asked)

    rows: list[tuple[str, ...]] = [(f"4e8 normals by torch: {median(floors):.2f} s", "1", "1", "")]
    for name, case in [*limited.items(), ("2GiB, all of it fresh", fresh)]:
        what = f"M = 10^7, n = {options.samples}, --memory-limit {name}: {seconds[case]:.2f} s"
        asked = "at most 2" if case is whole else ""
        rows.append(row(f"{what}, against the normals", case, asked))
    rows.append(row("one worker against all, 2GiB", alone, "at least 1.6", over=whole))
    rows.append(row("M = 10^7 against 10^6, 2GiB", whole, "at most 11", over=tenth))
    print(f"n = {options.samples}, float32, {many} workers, medians of {options.runs} pairs")
    print()
    print("| what | wall | processor, by worker | asked for |")
    print("| --- | --- | --- | --- |")
    for line in rows:
        print("| " + " | ".join(line) + " |", flush=True)
    if options.full:
        subject = trial("kfac", 4)
        constants = calibrate(subject, 64)
        took = step(Case(10**9, many, 2**30))
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
