"""A step of any width: time against the time that its random numbers take, and memory.

    python benchmarks/wide_speed.py [--full]

One K-FAC step of a 3-layer ReLU network on n digits and 3 probe samples, in float32. It draws
4 n + 3 * 3 normal numbers a neuron, 41 for n = 8, which is the floor: 5 n of them, 4e8 at M = 10^7,
are drawn by torch in the same run, one thread, into memory that is warm.

Nothing is kept between passes (--memory-limit 256 MiB), so one worker and two do the same work.
Each time is the least of a few after a first one, which starts the workers. Peak memory counts
python and torch: the largest of the workers times their number, and this process.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from joblib.externals.loky import get_reusable_executor

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
KEEP_NOTHING = 2**28


def trial(name: str, samples: int, probe: int = PROBE) -> Trial:
    """A declared optimizer under its own exponents."""
    optimizer, setting = find(name), Setting(mlp(3), Activation.RELU, Loss.MSE)
    pairs = [f"{k}={v}" for k, v in optimizer.exponents.items()]
    solution = derive(optimizer.rule, read_settings(pairs, optimizer.rule, setting.layers), setting)
    data = load("digits", samples=samples, probe=probe)
    return Trial(solution.problem, solution.exponents, dict(optimizer.values), data)


def least(work: Callable[[], object], runs: int) -> float:
    """Seconds of the fastest run."""
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def floor() -> float:
    """Seconds that torch takes for 4e8 normal numbers."""
    buffer = torch.empty(10**7)
    buffer.normal_()
    with blas_threads(1):
        return least(lambda: [buffer.normal_() for _ in range(40)], 3)


def peak_gib(workers: int) -> float:
    """Of this process and its workers, which end here; in GiB."""
    get_reusable_executor().shutdown(wait=True)
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return float(own + workers * largest) / 2**20


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=8, help="training samples, n")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--workers", type=int, default=cores())
    parser.add_argument("--full", action="store_true", help="also M = 10^9, and a verification")
    options = parser.parse_args()
    subject = trial("kfac", options.samples)
    constants = calibrate(subject, 64)

    def seconds(width: int, workers: int, runs: int = options.runs) -> float:
        streaming = Streaming(torch.float32, KEEP_NOTHING, workers)

        def step() -> None:
            measure_wide(subject, constants, width, 0, streaming=streaming)

        if workers > 1:
            step()
        return least(step, runs)

    many, normals = options.workers, floor()
    alone = seconds(10**7, 1)
    shared, tenth = seconds(10**7, many), seconds(10**6, many)
    rows = [
        (f"4e8 normals by torch: {normals:.2f} s", "1", ""),
        (f"M = 10^7, n = {options.samples}, {many} workers: {shared:.2f} s, against the normals",
         f"{shared / normals:.2f}", "at most 4"),
        (f"the same, one worker: {alone:.2f} s, against {many} workers",
         f"{alone / shared:.2f}", "at least 1.6"),
        (f"M = 10^6, {many} workers: {tenth:.3f} s; 10^7 against it",
         f"{shared / tenth:.1f}", "at most 11"),
    ]  # fmt: skip
    print(f"n = {options.samples}, float32, {many} workers, one thread each")
    print()
    print("| what | ratio | asked for |")
    print("| --- | --- | --- |")
    for row in rows:
        print("| " + " | ".join(row) + " |", flush=True)
    if options.full:
        get_reusable_executor().shutdown(wait=True)
        subject = trial("kfac", 4)
        constants = calibrate(subject, 64)
        streaming = Streaming(torch.float32, KEEP_NOTHING, many)
        found = least(lambda: measure_wide(subject, constants, 10**9, 0, streaming=streaming), 1)
        print(f"\nM = 10^9, n = 4: {found / 60:.1f} minutes (asked for: 15), "
              f"peak memory {peak_gib(many):.2f} GiB (asked for: 4)")  # fmt: skip
        command = "verify kfac shampoo"
        words = [sys.executable, "-m", "scaling.cli", *command.split(), "--format", "json"]
        start = time.perf_counter()
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        found, verdict = time.perf_counter() - start, json.loads(done.stdout)["verdict"]
        print(f"\n`scaling {command}`, widths up to 1048576 and dense networks up to 4096: "
              f"{found:.0f} s (asked for: 60), verdict {verdict}")  # fmt: skip


if __name__ == "__main__":
    main()
