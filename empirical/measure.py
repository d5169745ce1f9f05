"""Steps of one network, measured: init, own updates, feature changes, output change.

    init     RMS of h_l at the start (of f in the output layer)
    own      RMS of dW_l h_{l-1}: what the layer's own updates do to its output at the start
    feature  RMS of h_l after the steps minus h_l before them (df in the output layer); `Quantity`
             leaves it out where own updates are all that is asked
    shrink   <W_l - W_l after the steps, W_l> / <W_l, W_l>: the part of its weights that a layer
             loses, for rules with a decay
    ascent   RMS of X_l h_{l-1} for the perturbation X in ascended(X), of a single step

Where the problem asks for the second step, the start is the network after the first one: own is
dW_2 h with h after the first step, and feature what the second step alone changes. There shrink is
left out: the second descent lies along the first, hence along the weights, with decay or without.

All are taken on held-out probe samples, in float64, on a real network trained by `RuleOptimizer`.
The data are the same at every width; the seed varies the weights only. A bias is a layer: its
init is the RMS of the bias itself.

The output at the start is a sum over few classes and hence noisy: its RMS is taken over
`READOUTS` independent draws of the readout weights, the first of which is the network's own.

Constants that no exponent fixes are set once, at the narrowest width (`calibrate`): each radius so
that the layer's own perturbation has RMS 0.1, each damping
to a tenth of what it is added to, then each learning rate so that the layer's own update without
decay has RMS 0.1, then each decay so that the step takes a tenth of the weights away; at the second
step, where the first does not move the layer. They are the same at every width, so they move
intercepts, never slopes.
"""

from __future__ import annotations

import math
import os
import resource
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from functools import cache
from typing import TypeAlias

import torch
from joblib import cpu_count
from threadpoolctl import ThreadpoolController
from torch import Tensor

from empirical.basis import EIGENVALUE_ZERO, triangular_root
from empirical.capture import Loss as SampledLoss
from empirical.data import Data
from empirical.networks import MLP
from empirical.numbers import Record
from empirical.optimizers import Fisher, RuleOptimizer
from empirical.parametrize import LayerScales, at_width, draw_
from empirical.rotated import Corner
from empirical.values import Value
from scaling.errors import InvalidInput
from scaling.ledger import Layer, Loss, Role
from scaling.names import SymbolKind
from scaling.problem import Exponents, Problem
from scaling.rule import Rule
from scaling.sums import is_damping
from scaling.tree import Add, Node, Subtract, Symbol

Sums: TypeAlias = Mapping[tuple[str, Node], tuple[float, float]]
"""(layer, damped sum) -> sizes of the term without and of the term with the damping."""

OWN_AT_BASE = 0.1
DAMPING_AT_BASE = 0.1
DECAY_AT_BASE = 0.1
CORRECTIONS, CLOSE = 8, 1.1
READOUTS = 256
MOST_NETWORKS = 16


@dataclass(frozen=True)
class Constants:
    """What multiplies the powers of the width, by layer (and damping or decay)."""

    eta: Mapping[str, float]
    rho: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Trial:
    """What is measured: a rule under given exponents, on given data."""

    problem: Problem
    exponents: Exponents
    values: Mapping[str, float]
    data: Data
    device: str = "cpu"

    def layers(self) -> list[tuple[str, Layer]]:
        """(name in the network, layer of the theory), weights first."""
        names = []
        for layer in self.problem.setting.layers:
            suffix = ".bias" if layer.is_bias else ""
            names.append((f"layers.{layer.position - 1}{suffix}", layer))
        return names

    def unit_constants(self) -> Constants:
        """Every constant 1, but for dampings and decays that the user gave."""
        names = [layer.name for layer in self.problem.setting.layers]
        rho = {k: self.values.get(k, 1.0) for k in self.problem.rule.scaled}
        return Constants(dict.fromkeys(names, 1.0), {name: dict(rho) for name in names})

    def scales(self, width: int, constants: Constants) -> dict[str, LayerScales]:
        """Numbers of every layer at a width, by the layer's name in theory."""
        x = self.exponents
        return {
            layer.name: at_width(
                width,
                layer,
                x.a[layer.name],
                x.b[layer.name],
                x.c[layer.name],
                x.d[layer.name],
                self._sigma(layer),
                constants.eta[layer.name],
                constants.rho[layer.name],
            )
            for _, layer in self.layers()
        }

    def _sigma(self, layer: Layer) -> float:
        if layer.is_bias:
            return 0.5
        return self.data.features**-0.5 if layer.role is Role.INPUT else 1.0


class Quantity(StrEnum):
    """What is measured: all, or init and own alone, with no forward pass after the step."""

    ALL = "all"
    OWN = "own"


@dataclass(frozen=True)
class Sizes:
    """Measured sizes of one layer; ``feature`` of the output layer is df. None: not asked for."""

    init: float
    own: float
    feature: float | None = None
    shrink: float | None = None
    ascent: float | None = None

    def known(self) -> dict[str, float]:
        """What was measured, by name."""
        return {name: x for name, x in asdict(self).items() if x is not None}


@dataclass(frozen=True)
class Measurement:
    """One step at one width and seed."""

    rule: str
    width: int
    seed: int
    sizes: Mapping[str, Sizes]
    sums: Sums
    seconds: float
    peak_mb: float

    def as_json(self) -> dict[str, object]:
        """The ``measure`` interface."""
        return {
            "rule": self.rule,
            "width": self.width,
            "seed": self.seed,
            "sizes": {name: sizes.known() for name, sizes in self.sizes.items()},
            "seconds": self.seconds,
            "peak_mb": self.peak_mb,
        }


def measure(
    trial: Trial,
    constants: Constants,
    width: int,
    seed: int,
    steps: int = 1,
    quantity: Quantity = Quantity.ALL,
) -> Measurement:
    """Take steps at one width and seed, and measure them.

    ``sums`` of the result holds, for every sum with a damping, the sizes of its two terms in the
    last step. Raises `InvalidInput` for fewer than one step.
    """
    if steps < 1:
        raise InvalidInput(f"steps={steps}", "at least 1", "pass steps=1")
    check_memory(width, trial.problem.setting.depth)
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
            sizes[layer.name] = Sizes(size, _rms(moved), feature, shrink, ascent)
    seconds = time.perf_counter() - start
    check_finite(sizes, width, seed)
    rule = trial.problem.rule
    return Measurement(
        rule.name or str(rule), width, seed, sizes, sums, seconds, peak_memory(trial.device)
    )


Measure: TypeAlias = Callable[[Trial, Constants, int, int], Measurement]


def measure_mean(
    one: Measure, trial: Trial, constants: Constants, width: int, seed: int, networks: int
) -> Measurement:
    """The geometric mean of every size over independent networks of one width.

    A fit takes logarithms, and only their mean does not move with the number of networks. Narrow
    networks fluctuate more and cost less, so a fit over widths takes several of them for one wide
    network; ``one`` measures one. Seconds and peak memory are those of all of them.
    """
    runs = [one(trial, constants, width, seed * MOST_NETWORKS + i) for i in range(networks)]
    sizes = {
        name: Sizes(
            **{q: mean_size([run.sizes[name].known()[q] for run in runs]) for q in first.known()}
        )
        for name, first in runs[0].sizes.items()
    }
    sums = {
        key: (
            mean_size([run.sums[key][0] for run in runs]),
            mean_size([run.sums[key][1] for run in runs]),
        )
        for key in runs[0].sums
    }
    seconds, peak = sum(run.seconds for run in runs), max(run.peak_mb for run in runs)
    return Measurement(runs[0].rule, width, seed, sizes, sums, seconds, peak)


def mean_size(sizes: list[float]) -> float:
    """The geometric mean; where a size is zero, the arithmetic one."""
    if min(sizes) <= 0:
        return sum(sizes) / len(sizes)
    return math.exp(sum(math.log(x) for x in sizes) / len(sizes))


def calibrate(trial: Trial, width: int, seed: int = 0) -> Constants:
    """Constants from the narrowest width: dampings first, then learning rates, then decays.

    Step by step: what the first step leaves open, because it does not move a layer, is set at the
    second. A damping or decay that the user gave (``--set rho_A=0.1``) is taken as it is.
    """
    constants = trial.unit_constants()
    places = {(name, symbol) for name, rho in constants.rho.items() for symbol in rho}
    unset = {place for place in places if place[1] not in trial.values}
    idle = set(constants.eta)
    constants = _with_radii(trial, constants, width, seed)
    for step in range(1, trial.problem.step + 1):
        at = replace(trial, problem=replace(trial.problem, step=step))
        constants, balanced = _with_dampings(at, constants, unset, width, seed)
        constants, moved = _with_rates(at, constants, idle, width, seed)
        constants = _with_decays(at, constants, idle, width, seed)
        unset, idle = unset - balanced, idle - moved
    return constants


def _with_radii(trial: Trial, constants: Constants, width: int, seed: int) -> Constants:
    """Each radius such that what it perturbs moves the layer's output by a tenth."""
    asked = [symbol for symbol in trial.problem.rule.radii if symbol not in trial.values]
    if not asked:
        return constants
    first = replace(trial, problem=replace(trial.problem, step=1))
    measured = measure(first, _undecayed(trial, constants), width, seed).sizes
    rho = {name: dict(values) for name, values in constants.rho.items()}
    for name, sizes in measured.items():
        for symbol in asked if sizes.ascent else ():
            rho[name][symbol] *= OWN_AT_BASE / (sizes.ascent or 1.0)
    return Constants(constants.eta, rho)


def _with_dampings(
    trial: Trial, constants: Constants, unset: Collection[tuple[str, str]], width: int, seed: int
) -> tuple[Constants, set[tuple[str, str]]]:
    """Each damping a tenth of what it is added to, of the least if those are several; and which.

    One step measures the terms. Where a damping does not enter in proportion (sqrt(rho)), or acts
    on what another one is added to, a few more bring it close.
    """
    damped = damped_sums(trial.problem.rule)
    rho = {name: dict(values) for name, values in constants.rho.items()}
    done: set[tuple[str, str]] = set()
    for _ in range(CORRECTIONS if damped else 0):
        scales = trial.scales(width, Constants(constants.eta, rho))
        training = Training(trial, dense_network(trial, scales, width, seed), scales, seed)
        sums: Sums = {}
        for _ in range(trial.problem.step):
            sums = training.step()
        factors: dict[tuple[str, str], float] = {}
        for (name, total), (other, damping) in sums.items():
            for symbol in dampings_in(damped[total][1]):
                if (name, symbol) in unset and other > 0 and damping > 0:
                    factor = DAMPING_AT_BASE * other / damping
                    factors[name, symbol] = min(factor, factors.get((name, symbol), math.inf))
        for (name, symbol), factor in factors.items():
            rho[name][symbol] *= factor
        done |= factors.keys()
        if all(1 / CLOSE < factor < CLOSE for factor in factors.values()):
            break
    return Constants(constants.eta, rho), done


def _with_rates(
    trial: Trial, constants: Constants, idle: Collection[str], width: int, seed: int
) -> tuple[Constants, set[str]]:
    """A tenth for the own update, without decay, of every idle layer that moves; and which do."""
    measured = measure(trial, _undecayed(trial, constants), width, seed).sizes
    moved = {name for name in idle if measured[name].own > 0}
    eta = {
        name: x * OWN_AT_BASE / measured[name].own if name in moved else x
        for name, x in constants.eta.items()
    }
    return Constants(eta, constants.rho), moved


def _with_decays(
    trial: Trial, constants: Constants, layers: Collection[str], width: int, seed: int
) -> Constants:
    """Each decay such that the step takes a tenth of the weights away, in some layers.

    At the second step as if no moving average stood before it: shrink is not measured there.
    """
    asked = [symbol for symbol in trial.problem.rule.decays if symbol not in trial.values]
    if not asked:
        return constants
    scales = trial.scales(width, constants)
    rho = {name: dict(values) for name, values in constants.rho.items()}
    for name, symbol in ((name, symbol) for name in layers for symbol in asked):
        rho[name][symbol] *= DECAY_AT_BASE / (scales[name].lr * scales[name].scaled[symbol])
    without = measure(trial, _undecayed(trial, constants), width, seed).sizes
    decayed = measure(trial, Constants(constants.eta, rho), width, seed).sizes
    for name in layers:
        share = (decayed[name].shrink or 0.0) - (without[name].shrink or 0.0)
        for symbol in asked if share > 0 else ():
            rho[name][symbol] *= DECAY_AT_BASE / share  # less than one inside a moving average
    return Constants(constants.eta, rho)


def _undecayed(trial: Trial, constants: Constants) -> Constants:
    """The same without any decay."""
    none = dict.fromkeys(trial.problem.rule.decays, 0.0)
    return Constants(constants.eta, {name: {**x, **none} for name, x in constants.rho.items()})


# --- the step -----------------------------------------------------------------------------------


def dense_network(trial: Trial, scales: Mapping[str, LayerScales], width: int, seed: int) -> MLP:
    """The network of a trial at a width and seed."""
    setting = trial.problem.setting
    multipliers = [scales[layer.name].multiplier for layer in setting.layers if not layer.is_bias]
    model = MLP(
        trial.data.features,
        width,
        trial.data.classes,
        setting.depth,
        setting.activation.label,
        bias=any(layer.is_bias for layer in setting.layers),
        multipliers=multipliers,
        device=trial.device,
    )
    for index, layer in enumerate(setting.layers):
        linear = model.linear(layer.position)
        tensor = linear.bias if layer.is_bias else linear.weight
        draw_(tensor, scales[layer.name].std, seed, width, index)
    return model


class Training:
    """A rule at work on a network: every step is one of the whole training batch."""

    def __init__(
        self, trial: Trial, model: MLP, scales: Mapping[str, LayerScales], seed: int
    ) -> None:
        self._trial, self._model = trial, model
        rule = trial.problem.rule
        self._names = names = dict(trial.layers())
        values: dict[str, Mapping[str, float]] = {}
        for symbol in rule.scaled:
            values[symbol] = {n: scales[layer.name].scaled[symbol] for n, layer in names.items()}
        for symbol, number in numbers_of(trial).items():
            values[symbol] = dict.fromkeys(names, number)
        self._damped = damped_sums(rule)
        self._sizes: dict[str, dict[Node, float]] = {n: {} for n in names}
        watched = frozenset(node for terms in self._damped.values() for node in terms)
        recorders = {n: sizes_recorder(self._sizes[n], watched) for n in names}

        def record(name: str, node: Node, value: Value) -> None:
            recorders[name](node, value)

        self._generator = torch.Generator(device=trial.device).manual_seed(seed)
        self.optimizer = RuleOptimizer(
            model,
            rule,
            {n: scales[layer.name].lr for n, layer in names.items()},
            values,
            Fisher.TRUE if trial.problem.sampled_fisher else Fisher.EMPIRICAL,
            record=record,
        )

    def _loss(self) -> float:
        """The loss of the whole batch, and its gradients."""
        problem, data = self._trial.problem, self._trial.data
        self.optimizer.zero_grad()
        output = self._model(data.inputs.to(self._trial.device))
        targets = data.targets.to(self._trial.device)
        if problem.sampled_fisher:
            kind = sampled_loss(problem.setting.loss)
            self.optimizer.sample_fisher(output, kind, self._generator)
        loss = loss_of(problem.setting.loss, output, targets)
        torch.autograd.backward(loss)
        return float(loss.detach())

    def step(self) -> Sums:
        """One step, and the sizes of both terms of damped sums in it."""
        if self._trial.problem.rule.ascents:
            self.optimizer.step(self._loss)
        else:
            self._loss()
            self.optimizer.step()
        return {
            (layer.name, total): (self._sizes[n][other], self._sizes[n][damping])
            for total, (other, damping) in self._damped.items()
            for n, layer in self._names.items()
            if other in self._sizes[n] and damping in self._sizes[n]
        }


def damped_sums(rule: Rule) -> dict[Node, tuple[Node, Node]]:
    """Every sum of some term and a damping -> (that term, the damping).

    >>> from scaling.parser import parse
    >>> damped_sums(parse("G @ (A + rho*I)**(-1)"))
    {<rule A + rho*I>: (<rule A>, <rule rho*I>)}
    """
    found: dict[Node, tuple[Node, Node]] = {}
    for node in rule.expression.walk():
        if isinstance(node, Add | Subtract):
            left, right = is_damping(node.left), is_damping(node.right)
            if left != right:
                found[node] = (node.right, node.left) if left else (node.left, node.right)
    return found


def size_of(node: Node, value: Value) -> float:
    """The spectral norm of a square matrix, the RMS entry of anything else.

    Of a rotated matrix the entries in the corner of the data count: those outside are one number.
    """
    if isinstance(value, Corner):
        return float(value.rms_inside())
    return float(value.spectral_norm() if node.shape.is_square else value.rms())


def sizes_recorder(sizes: dict[Node, float], watched: Collection[Node]) -> Record:
    """A recorder that keeps the sizes of some nodes."""

    def record(node: Node, value: Value) -> None:
        if node in watched:
            sizes[node] = size_of(node, value)

    return record


def sampled_loss(loss: Loss) -> SampledLoss:
    """The loss whose targets are sampled for the true Fisher."""
    return SampledLoss.MSE if loss is Loss.MSE else SampledLoss.CROSS_ENTROPY


def loss_of(loss: Loss, output: Tensor, targets: Tensor) -> Tensor:
    """The mean over samples of |f - y|^2 / 2 or of the cross-entropy; targets (n, classes)."""
    if loss is Loss.MSE:
        return 0.5 * (output - targets).square().sum(dim=1).mean()
    return torch.nn.functional.cross_entropy(output, targets)


# --- parts --------------------------------------------------------------------------------------


def dampings_in(node: Node) -> list[str]:
    """Names of the dampings in a node."""
    symbols = (n for n in node.walk() if isinstance(n, Symbol))
    return list(dict.fromkeys(s.name for s in symbols if s.kind is SymbolKind.DAMPING))


def numbers_of(trial: Trial) -> dict[str, float]:
    """The numbers of all symbols of the rule but the scaled ones, which differ by layer."""
    rule = trial.problem.rule
    return {symbol: number_of(trial, symbol) for symbol in (*rule.constants, *rule.exponents)}


def number_of(trial: Trial, symbol: str) -> float:
    """The number that a measurement takes for a symbol of the rule."""
    exponents = trial.problem.settings.exponents
    if symbol in exponents and exponents[symbol].is_number:
        return float(exponents[symbol])
    if symbol in trial.values:
        return trial.values[symbol]
    raise InvalidInput(
        f"no value for '{symbol}' of the rule {trial.problem.rule}",
        "a number for every symbol: a measurement needs them all",
        f"add --set {symbol}=..., for example --set {symbol}=1/2",
    )


def parameter_of(name: str) -> str:
    """The parameter of the network behind a name of `Trial.layers`."""
    return name if name.endswith(".bias") else f"{name}.weight"


def input_of(layer: Layer, source: Tensor, scales: LayerScales) -> Tensor:
    """What a layer's weights act on, as rows; ``source`` is h_{l-1} on the probe."""
    if layer.is_bias:
        return torch.ones(1, 1, dtype=source.dtype, device=source.device)
    return scales.multiplier * source


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


def check_finite(sizes: Mapping[str, Sizes], width: int, seed: int) -> None:
    """Refuse sizes that are not finite."""
    for name, layer_sizes in sizes.items():
        for quantity, value in layer_sizes.known().items():
            if value != value or value in (float("inf"), float("-inf")):
                raise InvalidInput(
                    f"{quantity} = {value} in the {name} layer at width {width}, seed {seed}",
                    "finite sizes",
                    "smaller widths or exponents: under these the network overflows",
                )


# --- the machine --------------------------------------------------------------------------------


def pick_device(name: str) -> str:
    """``auto``, ``cpu`` or ``cuda`` as a torch device.

    Raises:
        InvalidInput: if cuda is asked for and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise InvalidInput(
            "--device cuda, but torch sees no CUDA device",
            "a CUDA device and a CUDA build of torch",
            "use --device cpu, or --device auto",
        )
    return "cuda" if name == "cuda" or (name == "auto" and torch.cuda.is_available()) else "cpu"


def check_memory(width: int, depth: int) -> None:
    """Refuse a dense width that would not fit, before anything is allocated."""
    needed = 8.0 * width * width * max(depth - 2, 0) * 3  # weights, gradient, one temporary
    try:
        available = float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (ValueError, OSError, AttributeError):
        return
    if needed > 0.9 * available:
        raise InvalidInput(
            f"a dense network of width {width:,}, which needs {needed / 2**30:,.1f} GiB",
            f"at most the {available / 2**30:,.1f} GiB that are free",
            "add --mode wide, which needs no such matrix, or choose a smaller width",
        )


def cores() -> int:
    """The processor cores that this process may use."""
    return int(cpu_count())


@contextmanager
def blas_threads(threads: int) -> Iterator[None]:
    """Use that many threads for torch and every BLAS (0: all cores), and restore the old number."""
    count, old = threads or cores(), torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with _thread_pools().limit(limits=count, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(old)


@cache
def _thread_pools() -> ThreadpoolController:
    return ThreadpoolController()


def peak_memory(device: str) -> float:
    """Peak memory of the process (of the device, on CUDA) in MB."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3
