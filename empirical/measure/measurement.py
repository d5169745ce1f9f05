"""Measuring a rule on networks of growing width: the way in.

    Trial          a rule under given exponents, on given data          trial.py
    calibrate      the constants that no exponent fixes                 calibration.py
    measure        steps of one dense network -> Measurement            dense_steps.py, training.py
    Measurement    sizes by layer: init, own, feature, shrink, ascent   measured_sizes.py
    measure_mean   the same over several networks                       measured_sizes.py
    blas_threads   and the rest of the machine                          machine.py

`measure_wide` (empirical/wide) measures the same of a network of any width, exactly in law.
campaign.py measures over widths and seeds, exponent.py makes exponents of that, verification.py
verdicts.

>>> from derivations.catalogue import find
>>> from empirical.data.sources import load
>>> from scaling.states.problem import Problem
>>> from scaling.solve.derive import derive
>>> sgd = find("sgd").rule
>>> trial = Trial(Problem(sgd), derive(sgd).exponents, {}, load())
>>> found = measure(trial, calibrate(trial, 32), 32, seed=0)
>>> round(found.sizes["hidden"].own, 6)
0.1
"""

from __future__ import annotations

from empirical.measure.calibration import calibrate
from empirical.measure.dense_steps import READOUTS, measure
from empirical.measure.machine import blas_threads, check_memory, cores, peak_memory, pick_device
from empirical.measure.measured_sizes import (
    Measure,
    MeasuredSizes,
    Measurement,
    Quantity,
    Sums,
    check_finite,
    mean_size,
    measure_mean,
)
from empirical.measure.training import (
    Training,
    damped_sums,
    dampings_in,
    dense_network,
    loss_of,
    sampled_loss,
    size_of,
    sizes_recorder,
    watched_sums,
)
from empirical.measure.trial import Constants, Trial, number_of, numbers_of

__all__ = [
    "READOUTS",
    "Constants",
    "Measure",
    "MeasuredSizes",
    "Measurement",
    "Quantity",
    "Sums",
    "Training",
    "Trial",
    "blas_threads",
    "calibrate",
    "check_finite",
    "check_memory",
    "cores",
    "damped_sums",
    "dampings_in",
    "dense_network",
    "loss_of",
    "mean_size",
    "measure",
    "measure_mean",
    "number_of",
    "numbers_of",
    "peak_memory",
    "pick_device",
    "sampled_loss",
    "size_of",
    "sizes_recorder",
    "watched_sums",
]  # fmt: skip
