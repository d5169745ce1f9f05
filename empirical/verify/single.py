"""One measurement for the command line: a rule, a width, a seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from empirical.data.sources import Data
from empirical.measure.calibration import calibrate
from empirical.measure.dense_steps import measure
from empirical.measure.machine import blas_threads, check_memory, cores
from empirical.measure.measured_sizes import Measurement, Quantity
from empirical.measure.trial import Trial
from empirical.wide import WIDE_PROBE, Streaming, measure_wide, usual_memory
from empirical.wide.method import Path, path_of, refuse_unless_wide
from scaling.states.problem import Exponents, Problem

BASE = 64
"""The width at which constants are calibrated."""

DENSE_UP_TO = 4096


def measure_once(
    problem: Problem,
    exponents: Exponents,
    values: Mapping[str, float],
    width: int,
    seed: int,
    data: Data,
    device: str,
    threads: int = 0,
    mode: str = "auto",
    steps: int = 1,
    memory_limit: int | None = None,
    quantity: Quantity = Quantity.ALL,
) -> Measurement:
    """Measure one network, calibrated at the base width.

    ``mode``: dense, wide, or auto: dense up to a width of 4096, wide beyond where the rule allows.

    Raises:
        InvalidInput: for a width or rule out of the mode's reach, and for what `measure` refuses.
    """
    trial = Trial(problem, exponents, values, data, device)
    own = quantity is Quantity.OWN and steps == 1
    path = path_of(problem.rule, own)
    limit = memory_limit or usual_memory(device)
    workers = (threads or cores()) if device == "cpu" else 1
    streaming = Streaming(workers=workers, memory_limit=limit, device=device)
    wide = mode == "wide" or (mode == "auto" and width > DENSE_UP_TO and path is not None)
    if wide:
        refuse_unless_wide(problem.rule, width, own, device)
        trial = replace(trial, data=data.with_probe(WIDE_PROBE[path or Path.CORE]))
        streaming.hold(trial.data, min(BASE, width))
    else:
        check_memory(width, problem.setting.depth, data.features)
    with blas_threads(threads):
        constants = calibrate(trial, min(BASE, width))
        if wide:
            found = measure_wide(trial, constants, width, seed, steps, streaming, quantity)
        else:
            found = measure(trial, constants, width, seed, steps, quantity)
    samples, probe = trial.data.samples, len(trial.data.probe_inputs)
    assumed = problem.rule.assumptions
    return replace(found, samples=samples, probe=probe, assumptions=assumed)
