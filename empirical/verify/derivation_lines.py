"""Every line of a derivation, measured: the exponent that theory gives it beside the one found.

A line of a derivation says that something has size M^x. What it speaks of is taken from dense
networks of growing width, on the training batch and the held-out probe samples:

    h_l, delta_l             RMS entry
    a gradient-like node     RMS entry, or, where its spectral size is meant, |X H| / |H|
    a square node            |X H| / |H|, or |X D| / |D| on the side of the outputs
    a row, a column, a number    RMS entry
    eig(X)                   its largest singular value, 1
    a rotated node           RMS entry of its corner
    dW h per learning rate   RMS of the update times its layer's input
    df per learning rate     RMS of the change of the output along this update, to first order
    W^T delta, dW^T delta    RMS entry at the second step, of what W was and of what was added

A stretch |X H| / |H| of given data stands for the norm on their span: unlike the largest singular
value it does not fluctuate with the samples. Lines that state a condition or a mean have nothing
to measure.

A line that rests on a sum whose slope is still between those of its two terms is no contradiction
but a crossover: wider networks have the larger term alone.

Lines at step 2 are measured on the network after the rule's own first step, with the moving
averages that it left.

Not covered: lines at moved weights (ascended(X)); the size off the span of the data, or outside of
a corner, beside the one on it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from sympy import Expr, S
from torch import Tensor
from torch.autograd.functional import jvp
from torch.func import functional_call

from empirical.fit.exponent import Estimate, estimate
from empirical.fit.verdict import Verdict, judge
from empirical.measure.calibration import calibrate
from empirical.measure.machine import check_memory
from empirical.measure.measured_sizes import MOST_NETWORKS, mean_size
from empirical.measure.parametrize import LayerScales
from empirical.measure.training import dense_network, loss_of, sampled_loss
from empirical.measure.trial import Constants, Trial, input_of, numbers_of, parameter_of
from empirical.networks import MLP
from empirical.numbers.capture import Capture
from empirical.numbers.interpreter import FactoredUpdate, State, evaluate_network
from empirical.numbers.layer_matrices import LayerTensors
from empirical.numbers.layer_values import LayerValue, Rectangular
from empirical.numbers.rotated_values import Corner, Eigenbasis
from empirical.numbers.square_matrices import Blocks, Square
from scaling.calculus.context import Regime
from scaling.models.chain import Layer
from scaling.rules.shapes import Dim
from scaling.rules.tree import Node
from scaling.sizes.derivation import SUM, Step
from scaling.sizes.errors import InvalidInput
from scaling.sizes.scale import Order, Size

WIDTHS = (64, 128, 256, 512, 1024, 2048)
SEEDS = 16
MARGIN = 0.15
"""Narrow networks drift; what matters here is a line that is wrong, by a quarter at the least."""
ROUNDING = 1e-12
OWN, READBACK = "dW h per learning rate", "df per learning rate"


@dataclass(frozen=True)
class Line:
    """A step of a derivation; ``measured`` and ``verdict`` where it speaks of a size."""

    layer: str
    step: Step
    predicted: Expr
    measured: Estimate | None = None
    verdict: Verdict | None = None


def measured_lines(
    trial: Trial,
    steps: Mapping[str, Step],
    widths: Sequence[int] = WIDTHS,
    seeds: int = SEEDS,
    margin: float = MARGIN,
    first_seed: int = 0,
) -> dict[str, list[Line]]:
    """The lines of each layer's derivation, measured and judged.

    ``seeds`` networks are drawn at every width, by the seeds from ``first_seed`` on.

    Raises:
        InvalidInput: for a rule whose symbols lack numbers or that takes gradients at moved
            weights, and for what `measure` refuses.
    """
    for call in trial.problem.rule.ascents:
        raise InvalidInput(
            f"lines of a derivation that speak of '{call}', at other weights",
            "a rule of what one pass sees",
            "measure what the rule does as a whole: scaling verify RULE",
        )
    check_memory(widths[-1], trial.problem.setting.depth, trial.data.features)
    constants = calibrate(trial, widths[0])
    lines = {layer: step.lines() for layer, step in steps.items()}
    runs = [
        [_mean_sizes(trial, constants, lines, m, seed, widths[-1] // m) for m in widths]
        for seed in range(first_seed, first_seed + seeds)
    ]
    found: dict[str, list[Line]] = {}
    for layer, derivation in lines.items():
        found[layer] = []
        for step in derivation:
            x = -S.Infinity if step.result.is_zero else step.result.width
            line = Line(layer, step, x)
            if step in runs[0][0][layer] and x.is_number:
                table = np.array([[run[layer][step] for run in row] for row in runs])
                if table.max() <= ROUNDING * _terms(
                    step, [run for row in runs for run in row], layer
                ):
                    table[:] = 0
                fit = estimate(widths, table)
                line = Line(layer, step, x, fit, judge(fit, float(x), margin))
            found[layer].append(line)
        found[layer] = under_way(found[layer], margin)
    return found


def under_way(lines: Sequence[Line], margin: float) -> list[Line]:
    """Crossovers in the place of contradictions, where a sum below has not settled on a term."""
    between = {line.step for line in lines if _between_terms(line, margin)}
    return [
        replace(line, verdict=Verdict.crossover)
        if line.verdict is Verdict.contradict and between.intersection(line.step.walk())
        else line
        for line in lines
    ]


def _between_terms(line: Line, margin: float) -> bool:
    """Whether a sum grows, so far, by an exponent between those of its two terms."""
    told = line.step.decision
    if line.measured is None or not isinstance(told, Regime):
        return False
    x, y = told.left_size.width, told.right_size.width
    if told.order not in (Order.GREATER, Order.LESS) or not (x.is_Rational and y.is_Rational):
        return False
    low, high = sorted((float(x), float(y)))
    at, off = line.measured.slope, abs(line.measured.slope - float(line.predicted))
    return off > margin / 2 and low - margin <= at <= high + margin


def _terms(step: Step, runs: Sequence[Mapping[str, Mapping[Step, float]]], layer: str) -> float:
    """The largest term of a sum, below whose rounding the sum is zero; 0 for other lines."""
    if step.inference is not SUM:
        return 0.0
    return max((run[layer].get(x, 0.0) for run in runs for x in step.inputs), default=0.0)


def _mean_sizes(
    trial: Trial,
    constants: Constants,
    lines: Mapping[str, Sequence[Step]],
    width: int,
    seed: int,
    networks: int,
) -> dict[str, dict[Step, float]]:
    """The geometric mean over several networks of a narrow width, see `measure_mean`."""
    count = min(MOST_NETWORKS, networks)
    runs = [_sizes(trial, constants, lines, width, seed * MOST_NETWORKS + i) for i in range(count)]
    return {
        layer: {step: mean_size([run[layer][step] for run in runs]) for step in first}
        for layer, first in runs[0].items()
    }


def _sizes(
    trial: Trial,
    constants: Constants,
    lines: Mapping[str, Sequence[Step]],
    width: int,
    seed: int,
) -> dict[str, dict[Step, float]]:
    """Layer -> line -> size, of one network."""
    scales = trial.scales(width, constants)
    model = dense_network(trial, scales, width, seed)
    probe = trial.data.probe_inputs.to(trial.device)
    layers, last = trial.layers(), trial.problem.step
    states = {layer.name: State() for _, layer in layers}
    found: dict[str, dict[Step, float]] = {name: {} for name in lines}
    added: dict[int, Tensor] = {}
    first = {l: model.linear(l).weight.detach().clone() for l in range(2, len(model.layers) + 1)}
    names = {layer.position: layer.name for _, layer in layers if not layer.is_bias}
    generator = torch.Generator(device=trial.device).manual_seed(seed)
    for time in range(1, last + 1):
        tensors = _seen(trial, model, generator)
        with torch.no_grad():
            hidden = [probe, *model.hidden(probe)]
        here = _Here(model, tensors, hidden, first, added, names)
        asked = {name: [step for step in lines[name] if step.time == time] for name in lines}
        updates = _step(trial, scales, here, asked, states, found)
        if time == last:
            break
        for tensor, layer in layers:
            lr, update = scales[layer.name].lr, updates[layer.name]
            weight = model.get_parameter(parameter_of(tensor)).detach()
            update.add_to_(weight.reshape(len(weight), -1), -lr)
            if not layer.is_bias:
                added[layer.position] = -lr * update.dense()
    return found


@dataclass(frozen=True)
class _Here:
    """A network at some step: what its layers see, h on the probe, weights at first and added."""

    model: MLP
    tensors: Mapping[str, LayerTensors]
    hidden: Sequence[Tensor]
    first: Mapping[int, Tensor]
    added: Mapping[int, Tensor]
    names: Mapping[int, str]


def _seen(trial: Trial, model: MLP, generator: torch.Generator) -> dict[str, LayerTensors]:
    """Every layer as seen in one pass over the training samples."""
    loss, sampled = trial.problem.setting.loss, trial.problem.sampled_fisher
    capture = Capture(model, outputs=sampled)
    output = model(trial.data.inputs.to(trial.device))
    if sampled:
        capture.sample(output, sampled_loss(loss), generator)
    model.zero_grad()
    torch.autograd.backward(loss_of(loss, output, trial.data.targets.to(trial.device)))
    tensors = {layer.name: capture.tensors(name) for name, layer in trial.layers()}
    assert None not in tensors.values(), "every layer of the network was called"
    return {name: seen for name, seen in tensors.items() if seen is not None}


def _step(
    trial: Trial,
    scales: Mapping[str, LayerScales],
    here: _Here,
    lines: Mapping[str, Sequence[Step]],
    states: Mapping[str, State],
    found: dict[str, dict[Step, float]],
) -> dict[str, FactoredUpdate]:
    """The updates of a step, by layer; what its lines speak of is written into ``found``."""
    rule, hidden = trial.problem.rule, here.hidden
    joint = bool(rule.sums_over_layers) or trial.problem.step > 1
    layers = [(tensor, x) for tensor, x in trial.layers() if joint or x.name in lines]
    sources = {x.name: input_of(x, hidden[x.position - 1], scales[x.name]).T for _, x in layers}
    asked: dict[tuple[str, str], list[Step]] = {}
    for place, step in ((name, step) for name in lines for step in lines[name]):
        asked.setdefault((place, step.subject), []).append(step)

    def record(name: str, node: Node, value: LayerValue) -> None:
        for step in asked.get((name, str(node)), ()):
            size = _size(value, node, step.result.of, here.tensors[name], sources[name])
            found[name][step] = size

    values = {x.name: {**numbers_of(trial), **scales[x.name].scaled} for _, x in layers}
    seen = {x.name: here.tensors[x.name] for _, x in layers}
    updates = evaluate_network(rule, seen, values, states, record if asked else None)
    for tensor, layer in layers:
        for step in lines.get(layer.name, ()):
            own = updates[layer.name], sources[layer.name]
            other = _other(step, *own, here, tensor, layer, scales[layer.name].lr)
            if other is not None:
                found[layer.name][step] = other
    return updates


def _size(value: LayerValue, node: Node, of: Size, layer: LayerTensors, source: Tensor) -> float:
    if isinstance(value, Corner):
        return float(value.rms_inside())
    if isinstance(value, Eigenbasis):
        return float(value.spectral_norm())
    if node.shape.is_square:
        outputs = node.shape.rows is Dim.FAN_OUT
        fisher = layer.D if layer.fisher is None else layer.fisher
        data = fisher if outputs else layer.H
        if isinstance(value, (Square, Blocks)):
            return _stretch(value.apply(data), data)
        return abs(float(value.dense()))  # a multiple of the identity
    if node.shape.is_gradient_like and of is not Size.ENTRY:
        x = value.T if node.shape.rows is Dim.FAN_IN else value
        both = torch.cat([layer.H, source], dim=1)
        assert isinstance(x, Rectangular), "a gradient-like value is a matrix"
        return _stretch(x.dense() @ both, both)
    return float(value.rms())


def _other(
    step: Step,
    update: FactoredUpdate,
    source: Tensor,
    here: _Here,
    name: str,
    layer: Layer,
    lr: float,
) -> float | None:
    """The size of what no node of the rule is."""
    if step.subject == OWN:
        return _rms(update @ source)
    if step.subject == f"dW h of {layer.name}":
        return lr * _rms(update @ source)
    if step.subject == READBACK:
        return _rms(_along(here.model, name, update, here.hidden[0]))
    if step.subject.startswith("h of "):  # the constant input of a bias
        return _rms(source)
    if (back := re.fullmatch(r"(d?W)_(\d+)\^T delta_\2", step.subject)) is not None:
        return _sent_back(here, int(back[2]), back[1] == "dW")
    place = re.fullmatch(r"(h|delta)_(\d+)", step.subject)
    if place is None:
        return None
    if place[1] == "h":
        return _rms(here.hidden[int(place[2])])
    found = here.names.get(int(place[2]))
    return None if found is None else _rms(here.tensors[found].D)


def _sent_back(here: _Here, position: int, added: bool) -> float:
    """|W^T delta| or |dW^T delta| at a position, the multiplier included."""
    matrix = (here.added if added else here.first)[position]
    delta = here.tensors[here.names[position]].D
    return here.model.multipliers[position - 1] * _rms(matrix.T @ delta)


def _along(model: MLP, name: str, update: FactoredUpdate, probe: Tensor) -> Tensor:
    """The derivative of the output along an update of one tensor."""
    place = parameter_of(name)
    tensor = model.get_parameter(place).detach()

    def output(x: Tensor) -> Tensor:
        found: Tensor = functional_call(model, {place: x}, (probe,))
        return found

    direction = update.dense().reshape(tensor.shape).to(tensor.dtype)
    change = jvp(output, tensor, direction)[1]  # type: ignore[no-untyped-call]
    moved: Tensor = change
    return moved


def _stretch(x: Tensor, source: Tensor) -> float:
    under = float(torch.linalg.matrix_norm(source))
    return float(torch.linalg.matrix_norm(x)) / under if under else math.nan


def _rms(x: Tensor) -> float:
    return float(x.detach().square().mean().sqrt())
