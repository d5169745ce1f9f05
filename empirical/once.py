"""One measurement for the command line: a rule, a width, a seed."""

from __future__ import annotations

from collections.abc import Mapping

from empirical.data import Data
from empirical.measure import Measurement, Trial, blas_threads, calibrate, check_memory, measure
from empirical.wide import Streaming, measure_wide
from empirical.wide.low_rank import is_low_rank, refuse_unless_low_rank
from scaling.errors import InvalidInput
from scaling.problem import Exponents, Problem

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
) -> Measurement:
    """Measure one network, calibrated at the base width.

    ``mode``: dense, wide, or auto: dense up to a width of 4096 and for one step, wide beyond.

    Raises:
        InvalidInput: for a width or rule out of the mode's reach, and for what `measure` refuses.
    """
    trial = Trial(problem, exponents, values, data, device)
    wide = mode == "wide"
    if mode == "auto":
        wide = is_low_rank(problem.rule) and (width > DENSE_UP_TO or steps > 1)
    if mode == "both":
        raise InvalidInput("--mode both for one measurement", "dense, wide or auto", "choose one")
    if wide:
        refuse_unless_low_rank(problem.rule)
    elif steps > 1:
        raise InvalidInput(
            f"{steps} steps in dense mode", "one step", "use --mode wide, where the rule allows it"
        )
    else:
        check_memory(width, problem.setting.depth)
    with blas_threads(threads):
        constants = calibrate(trial, min(BASE, width))
        if wide:
            streaming = Streaming(workers=threads or 1)
            return measure_wide(trial, constants, width, seed, steps, streaming)
        return measure(trial, constants, width, seed)
