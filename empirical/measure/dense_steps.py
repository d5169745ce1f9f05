"""Steps of one dense network, measured: the sizes of measured_sizes.py on a real network.

All are taken on held-out probe samples, in float64, on a network trained by `LayerOptimizer`. The
data are the same at every width; the seed varies the weights only.

The output at the start is a sum over few classes and hence noisy: its RMS is taken over
`READOUTS` independent draws of the readout weights, the first of which is the network's own.

The twin that is exact in law, at any width: empirical/wide/wide_steps.py.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

import torch
from torch import Tensor

from empirical.measure.machine import check_memory, peak_memory
from empirical.measure.measured_sizes import (
    MeasuredSizes,
    Measurement,
    Quantity,
    Sums,
    check_finite,
)
from empirical.measure.parametrize import LayerScales, draw_
from empirical.measure.training import Training, dense_network
from empirical.measure.trial import Constants, Trial, input_of, parameter_of
from empirical.networks import MLP
from empirical.numbers.basis import EIGENVALUE_ZERO, triangular_root
from scaling.sizes.errors import InvalidInput

READOUTS = 256


def measure(
    trial: Trial,
    constants: Constants,
    width: int,
    seed: int,
    steps: int = 1,
    quantity: Quantity = Quantity.ALL,
) -> Measurement:
    """Take steps at one width and seed, and measure them.

    ``sums`` of the result holds, for every watched sum, the sizes of its two terms in the last
    step. Raises `InvalidInput` for fewer than one step.
    """
    if steps < 1:
        raise InvalidInput(f"steps={steps}", "at least 1", "pass steps=1")
    check_memory(width, trial.problem.setting.depth, trial.data.features)
    start = time.perf_counter()
    scales = trial.scales(width, constants)
    model = dense_network(trial, scales, width, seed)
    probe = trial.data.probe_inputs.to(trial.device)
    at_start, decays = trial.problem.step == 1, trial.problem.rule.decays
    sums: Sums = {}
    training = Training(trial, model, scales, seed)
    for _ in range(trial.problem.step - 1):
        training.step()
    with torch.no_grad():
        before = model.hidden(probe)
        readout = _rms(before[-1])
        if at_start:
            readout = _readout_size(trial, model, scales, before, width, seed)
    keep = steps > 1 or decays or not at_start
    first = {name: p.detach().clone() for name, p in model.named_parameters() if keep}
    for _ in range(steps):
        sums = training.step()
    updates, moves = training.optimizer.updates(), training.optimizer.moves()
    moves = moves if steps == 1 else {}
    with torch.no_grad():
        after = model.hidden(probe) if quantity is Quantity.ALL else None
        sizes = {}
        for name, layer in trial.layers():
            l = layer.position - 1
            source = probe if l == 0 else before[l - 1]
            own = input_of(layer, source, scales[layer.name])
            tensor = parameter_of(name)
            if steps == 1:  # the update itself, which a difference of weights would round off
                moved = scales[layer.name].lr * (updates[name] @ own.T)
            else:
                change = model.get_parameter(tensor) - first[tensor]
                moved = change.reshape(len(change), -1) @ own.T
            size = _rms(before[l]) if l + 1 < len(before) else readout
            if layer.is_bias:
                size = scales[layer.name].std if at_start else _rms(first[tensor])
            feature = None if after is None else _rms(after[l] - before[l])
            measured = bool(decays) and at_start
            shrink = _shrink(first[tensor], model.get_parameter(tensor)) if measured else None
            ascent = _rms(moves[name] @ own.T) if moves else None
            sizes[layer.name] = MeasuredSizes(size, _rms(moved), feature, shrink, ascent)
    seconds = time.perf_counter() - start
    check_finite(sizes, width, seed)
    rule = trial.problem.rule
    return Measurement(
        rule.name or str(rule), width, seed, sizes, sums, seconds, peak_memory(trial.device), steps
    )


def _readout_size(
    trial: Trial,
    model: MLP,
    scales: Mapping[str, LayerScales],
    before: list[Tensor],
    width: int,
    seed: int,
) -> float:
    """RMS of f over independent draws of the readout, the network's own first."""
    setting = trial.problem.setting
    scale = scales["output"]
    total = _rms(before[-1]) ** 2
    if scale.std == 0:
        return math.sqrt(total)
    last = model.linear(setting.depth)
    offset = 0.0 if last.bias is None else float(last.bias.square().mean())
    h = before[-2] * scale.multiplier
    overlaps = (h @ h.T).double().cpu()
    zero = EIGENVALUE_ZERO * float(overlaps.diagonal().max())
    k, _ = triangular_root(overlaps, zero, min(h.shape))  # z k has the law of h W^T
    z = torch.empty((READOUTS - 1) * len(last.weight), len(k), dtype=torch.float64)
    draw_(z, scale.std, seed, width, len(setting.layers) + 1)
    total += (READOUTS - 1) * (float((z @ k).square().mean()) + offset)
    return math.sqrt(total / READOUTS)


def _shrink(before: Tensor, after: Tensor) -> float:
    """The part of a tensor that is gone, along itself; 0 of nothing."""
    norm = before.square().sum()
    return float(((before - after) * before).sum() / norm) if norm > 0 else 0.0


def _rms(x: Tensor) -> float:
    return float(x.square().mean().sqrt())
