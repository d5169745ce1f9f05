"""Steps of networks of any width on one device: time, memory, and the time of its own normals.

    python benchmarks/gpu_wide.py --device cuda --widths 1e8,1e9,1e10 --out FILE [--within SECONDS]

K-FAC by Gram matrices, with feature changes; Adam by own updates, on 1024 rows of every layer. One
JSON line a step is added to FILE as soon as it is known. The normals are as many as the step cannot
do without: 4 n + 9 a neuron for K-FAC, 3 n + 6 for Adam, which sends nothing through the network
after the step; drawn by torch into memory that is warm. A step that would take longer than what is
left, as the one before it says, is skipped by name.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from wide_speed import PROBE, trial

from empirical.measure.calibration import calibrate
from empirical.measure.machine import cores, peak_memory, pick_device
from empirical.measure.measured_sizes import Quantity
from empirical.wide import Streaming, measure_wide
from empirical.wide.streaming import parse_bytes
from scaling.sizes.errors import InvalidInput

RULES = {"kfac": Quantity.ALL, "adam": Quantity.OWN}
PIECE = 2**26
"""Normals that are drawn at a time."""


def normals(count: int, device: str) -> float:
    """Seconds that the device takes for so many normal numbers, extrapolated from a second."""
    buffer = torch.empty(min(count, PIECE), device=device)
    buffer.normal_()
    wait(device)
    start, drawn = time.perf_counter(), 0
    while drawn < count and time.perf_counter() - start < 1:
        buffer.normal_()
        wait(device)
        drawn += len(buffer)
    return (time.perf_counter() - start) * count / drawn


def wait(device: str) -> None:
    """For the device to finish what it was asked."""
    if device == "cuda":
        torch.cuda.synchronize()


def step(rule: str, width: int, options: argparse.Namespace) -> dict[str, Any]:
    """One step, measured."""
    device, samples, quantity = options.device, options.samples, RULES[rule]
    subject = trial(rule, samples)
    constants = calibrate(subject, 64)
    workers = 1 if device == "cuda" else cores()
    streaming = Streaming(torch.float32, parse_bytes(options.memory_limit), workers, device=device)
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    measure_wide(subject, constants, width, 0, streaming=streaming, quantity=quantity)
    seconds = time.perf_counter() - start
    a_neuron = 4 * samples + 3 * PROBE if quantity is Quantity.ALL else 4 * samples + 2 * PROBE
    floor = normals(a_neuron * width, device)
    return {"seconds": seconds, "gib": peak_memory(device) * 1e6 / 2**30, "ratio": seconds / floor}


def main() -> None:
    """Measure, and write as it goes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--widths", default="1e8,1e9,1e10")
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--memory-limit", default="48GiB")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--within", type=float, default=600)
    options = parser.parse_args()
    options.device = pick_device(options.device)
    options.out.write_text("")
    begun, last = time.perf_counter(), dict[str, tuple[int, float]]()
    for rule in RULES:  # the first step of a device takes longer, and is not shown
        step(rule, 10**4, options)
    for width in (int(float(x)) for x in options.widths.split(",")):
        for rule, quantity in RULES.items():
            row: dict[str, Any] = {"rule": rule, "width": width, "quantity": str(quantity)}
            left = options.within - (time.perf_counter() - begun)
            before, took = last.get(rule, (width, 0.0))
            if took * width / before > 0.9 * left:
                row["skipped"] = f"skipped: about {took * width / before:.0f} s"
            else:
                try:
                    row |= step(rule, width, options)
                    last[rule] = width, row["seconds"]
                except InvalidInput as refusal:
                    row["skipped"] = f"skipped: {refusal.found}"
            with options.out.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(row, flush=True)


if __name__ == "__main__":
    main()
