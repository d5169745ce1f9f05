"""Trials for the tests of empirical/wide."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp
from sympy import Expr

from derivations.catalogue import find
from empirical.data.sources import Data, load
from empirical.measure.calibration import calibrate
from empirical.measure.measured_sizes import Measurement
from empirical.measure.trial import Trial
from empirical.wide import Streaming, measure_wide
from empirical.wide.noise import ROWS
from scaling.models.chain import Activation, Loss, Setting, mlp
from scaling.models.settings import read_settings
from scaling.rules.parser import parse
from scaling.solve.derive import derive


def trial(
    name: str,
    depth: int = 3,
    activation: Activation = Activation.TANH,
    loss: Loss = Loss.MSE,
    biases: bool = False,
    fisher: bool = False,
    settings: Sequence[str] = (),
    data: Data | None = None,
) -> Trial:
    """A declared optimizer under its own exponents."""
    optimizer, setting = find(name), Setting(mlp(depth, biases), activation, loss)
    pairs = [*(f"{k}={v}" for k, v in optimizer.exponents.items()), *settings]
    given = read_settings(pairs, optimizer.rule, setting.layers)
    solution = derive(optimizer.rule, given, setting, sampled_fisher=fisher)
    values = {**optimizer.values, **given.values}
    data = data or load("digits", samples=4, probe=6)
    return Trial(solution.problem, solution.exponents, values, data)


def ruled(text: str) -> Trial:
    """A rule that nobody declared, under exponents that matter to no law."""
    known = trial("sgd")
    problem = replace(known.problem, rule=parse(text))
    d: dict[str, dict[str, Expr]] = {name: {} for name in known.exponents.d}
    values = {"shrink": 0.5, "beta": 0.6}
    return replace(known, problem=problem, exponents=replace(known.exponents, d=d), values=values)


SAME_BITS: list[dict[str, int]] = [{"workers": 2}, {"memory_limit": 2**25}]
"""Options of the machine that leave every sum as it is, and so every bit."""
ROUNDED: list[dict[str, int]] = [{"chunk": 3 * ROWS}, {"task": 4 * ROWS}]
"""Options that add up in another order, as another processor or another library does."""
ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-6}
"""How far sizes of a rule without jumps move then, relatively."""
JUMPS = 1e-5
"""How far those of a rule with jumps (sign) move, where single entries are float32: entries within
rounding of the jump, one in 10^6 of them, fall on either side. One neuron of 16401 weighs more."""


def on_two_machines(
    t: Trial, width: int, steps: int, options: dict[str, int], dtype: torch.dtype = torch.float64
) -> tuple[Measurement, Measurement]:
    """The same network on one worker with memory enough, and on what is left by the options."""
    constants = calibrate(t, 48)
    plain, other = (Streaming(dtype, **{"task": ROWS, "chunk": ROWS, **x}) for x in ({}, options))
    one = measure_wide(t, constants, width, 5, steps, plain)
    return one, measure_wide(t, constants, width, 5, steps, other)


def assert_same_numbers(
    one: dict[str, float], other: dict[str, float], options: dict[str, int], rounding: float
) -> None:
    """The same bits where options change no sum; the same to rounding where they do."""
    assert one.keys() == other.keys()
    exact = not {"chunk", "task"} & options.keys()
    for what, x in one.items():
        assert other[what] == (x if exact else pytest.approx(x, rel=rounding)), (what, options)


def least_p_value(ours: dict[str, list[float]], theirs: dict[str, list[float]]) -> float:
    """Of Kolmogorov-Smirnov tests of each quantity, times their number (Bonferroni)."""
    assert ours.keys() == theirs.keys()
    worst = 1.0
    for name, x in ours.items():
        if np.ptp(x) <= 1e-9 * np.max(np.abs(x)):  # no law to test, as the size of a bias at start
            np.testing.assert_allclose(x, theirs[name], rtol=1e-6, atol=1e-12)
        else:
            worst = min(worst, ks_2samp(x, theirs[name]).pvalue)
    return worst * len(ours)
