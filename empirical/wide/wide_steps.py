"""Steps of one network of any width, measured: the twin of `empirical.measure.measurement`, exact
in law.

    init     RMS of h_l at the start (of f in the output layer, over `READOUTS` readouts)
    own      RMS of (W_l - W_l at the start) h_{l-1}, with h_{l-1} as it was at the start
    feature  RMS of h_l after the steps minus h_l before them (df in the output layer)
    ascent   RMS of X_l h_{l-1} for the perturbation X in ascended(X), of a single step

The start is before the step that the problem asks for, which may be the second. All are taken on
the probe samples. After one step they are the quantities of `measure`, with the same law over
seeds, and either may stand for the other. The time is O(M n^2) for updates D C H^T,
O(M^2 n) for rules that look at single entries, which reach smaller widths; memory is O(M n).

Where init and own are all that is asked (`Quantity.OWN`), nothing is sent through the network after
the step, and rules that look at single entries are measured on a sample of rows (sample.py), in
O(M n) time for a fixed number of rows; unless a sample does not tell what they add up or cut, or
the step that is measured is not the first.

Neurons live on the device of `Streaming`, a CPU or a GPU; what is left of them, Gram matrices, and
all that follows from these, on the CPU.

Not covered: what `method.py` refuses.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from empirical.measure.measurement import (
    READOUTS,
    Constants,
    MeasuredSizes,
    Measurement,
    Quantity,
    Trial,
    check_finite,
    numbers_of,
    peak_memory,
    sampled_loss,
    watched_sums,
)
from empirical.numbers.basis import EIGENVALUE_ZERO, triangular_root
from empirical.numbers.capture import sampled_cotangents
from empirical.wide.columns import gram
from empirical.wide.implicit import Span
from empirical.wide.look_ahead import Ascents, Moves
from empirical.wide.method import Path, path_of, refuse_unless_wide, way_of
from empirical.wide.noise import ROWS, Bits, Stream
from empirical.wide.rows import learner
from empirical.wide.sample import sampled
from empirical.wide.span_update import (
    Coordinates,
    LayerBatch,
    MovedFactors,
    NetworkValues,
    Source,
    sums_over_layers,
)
from empirical.wide.streaming import Streaming
from empirical.wide.weight import Change
from empirical.wide.wide_network import Network, network
from scaling.models.chain import Loss
from scaling.rules.language import Node
from scaling.rules.rule import Rule
from scaling.sizes.errors import InvalidInput

WIDE_PROBE = {Path.CORE: 4, Path.ROWS: 16, Path.SAMPLE: 16}
"""Probe samples that are enough: neurons are many, and every sample is a column of theirs."""


def measure_wide(
    trial: Trial,
    constants: Constants,
    width: int,
    seed: int,
    steps: int = 1,
    streaming: Streaming | None = None,
    quantity: Quantity = Quantity.ALL,
    sampled_rows: int | None = None,
) -> Measurement:
    """Take steps at one width and seed, and measure them; ``sums`` are those of the last step.

    ``sampled_rows``: of each layer, where own updates alone are asked for and a sample of rows has
    them (sample.py), at most `noise.ROWS`; by default `method.SAMPLED_ROWS`.

    Raises:
        InvalidInput: for a rule whose update leaves the span of the data, for fewer than one step,
            for a sample of no rows or of too many, and for sizes that are not finite.
    """
    rule = trial.problem.rule
    if steps < 1:
        raise InvalidInput(f"steps={steps}", "at least 1", "pass steps=1")
    if sampled_rows is not None and not 1 <= sampled_rows <= ROWS:
        raise InvalidInput(f"sampled_rows={sampled_rows}", f"1 to {ROWS}", "leave sampled_rows out")
    streaming = streaming or Streaming(device=trial.device)
    refuse_unless_wide(rule, width, _is_one_own(trial, steps, quantity), streaming.device)
    start = time.perf_counter()
    run = _Run(trial, constants, width, seed, steps, streaming, quantity, sampled_rows)
    sizes = run.sizes()
    check_finite(sizes, width, seed)
    seconds = time.perf_counter() - start
    peak = peak_memory(streaming.device)
    return Measurement(rule.name or str(rule), width, seed, sizes, run.sums, seconds, peak, steps)


def outputs_wide(
    trial: Trial,
    constants: Constants,
    width: int,
    seed: int,
    steps: int = 1,
    streaming: Streaming | None = None,
) -> Tensor:
    """The outputs f on the probe samples after the steps, (classes, probe), float64."""
    streaming = streaming or Streaming(device=trial.device)
    refuse_unless_wide(trial.problem.rule, width, device=streaming.device)
    return _Run(trial, constants, width, seed, steps, streaming).output()


def _is_one_own(trial: Trial, steps: int, quantity: Quantity) -> bool:
    """Whether own updates of the very first step are all that is asked."""
    return quantity is Quantity.OWN and steps == 1 and trial.problem.step == 1


class _Run:
    """Some steps of one network."""

    def __init__(
        self,
        trial: Trial,
        constants: Constants,
        width: int,
        seed: int,
        steps: int,
        streaming: Streaming,
        quantity: Quantity = Quantity.ALL,
        sampled_rows: int | None = None,
    ) -> None:
        self.trial, self.width, self.seed = trial, width, seed
        self.sampled_rows = sampled_rows
        self.first, self.steps = trial.problem.step, steps + trial.problem.step - 1
        self.own_only = quantity is Quantity.OWN
        own_only = _is_one_own(trial, steps, quantity)
        self.path = path_of(trial.problem.rule, own_only)
        self.way = way_of(trial.problem.rule, own_only)
        sampled = self.path is Path.SAMPLE
        self.stream = Stream(seed, (0 if sampled else width,), streaming.bits or Bits.SFC64)
        single = sampled and streaming.dtype is None  # so that all widths share their draws
        self.streaming = replace(streaming, dtype=torch.float32) if single else streaming
        self.scales = trial.scales(width, constants)
        self.sums: dict[tuple[str, Node], tuple[float, float]] = {}
        self.ascents: dict[str, float] = {}
        self.watched_sums = watched_sums(trial.problem.rule)
        self.watched = frozenset(x for terms in self.watched_sums.values() for x in terms)
        data = trial.data
        self.train = range(data.samples)
        self.probe = range(data.samples, data.samples + len(data.probe_inputs))

    @property
    def sent_back(self) -> int:
        """Cotangents of a step."""
        return self.trial.data.samples * (2 if self.trial.problem.sampled_fisher else 1)

    def start(self) -> Network:
        """The network before the steps."""
        data = self.trial.data
        return network(
            self.trial.problem.setting,
            self.scales,
            torch.cat([data.inputs, data.probe_inputs]).T,
            data.classes,
            self.width,
            self.stream,
            self.streaming,
            then=self.sent_back,
        )

    def output(self) -> Tensor:
        """The output on the probe samples after the steps."""
        start = self.start()
        _, _, after = self._trained(start)
        assert after is not None, "features are asked for"
        output = after.output
        start.forget()
        return output

    def sizes(self) -> dict[str, MeasuredSizes]:
        """Init, own and, if asked for, feature of every layer after the steps."""
        start = self.start()
        if self.path is Path.SAMPLE:
            own, before, after = self._sampled_own(start), start, None
        else:
            own, before, after = self._trained(start)
        sizes = {}
        for name, parameter in before.parameters.items():
            position = parameter.layer.position
            h = before.h[position].pick(self.probe)
            feature = None if after is None else (after.h[position] - h).rms()
            init, ascent = self._init(before, name), self.ascents.get(name)
            sizes[name] = MeasuredSizes(init, own[name], feature, ascent=ascent)
        start.forget()
        return sizes

    def _trained(self, start: Network) -> tuple[dict[str, float], Network, Network | None]:
        """Own sizes, the network before the steps that are measured, and after them if asked for.

        The last is followed on the probe samples alone.
        """
        sources = self._sources(start, self.trial.problem.rule)
        learners = {name: learner(source, self.way) for name, source in sources.items()}
        ascents = self._ascents(start)
        now = before = start
        for step in range(1, self.steps + 1):
            before = now if step == self.first else before
            last = step == self.steps
            followed = self.probe if last else range(self.probe.stop)
            ahead = 0 if last and self.own_only else len(followed)
            seen, told = self._looked(ascents, now, ahead, step)
            joint = sums_over_layers(sources, seen, told)
            updates: dict[str, Change] = {
                name: -self.scales[name].lr * learners[name].update(*seen[name], joint[name])
                for name in learners
            }
            if not (last and self.own_only):
                now = now.stepped(updates, followed, then=0 if last else self.sent_back)
        own = {}
        for name, parameter in now.parameters.items():
            weight = parameter.weight.plus(updates[name]) if self.own_only else parameter.weight
            earlier = before.parameters[name]
            own[name] = weight.moved(before.source(earlier, self.probe), earlier.weight).rms()
            self._note_sums(name, updates[name].sizes)
        return own, before, None if self.own_only else now

    def _sampled_own(self, start: Network) -> dict[str, float]:
        """Own sizes from some rows of every layer."""
        own, sources = {}, self._sources(start, self.trial.problem.rule)
        seen, told = self._looked(self._ascents(start), start, 0, 1)
        joint = sums_over_layers(sources, seen, told)
        for name, source in sources.items():
            rows = sampled(source, *seen[name], joint[name], self.sampled_rows)
            update = -self.scales[name].lr * rows
            own[name] = update.size(start.source(start.parameters[name], self.probe))
            self._note_sums(name, update.sizes)
        return own

    def _sources(self, start: Network, rule: Rule) -> dict[str, Source]:
        """A rule on every layer."""
        numbers, sources = numbers_of(self.trial), dict[str, Source]()
        for name, parameter in start.parameters.items():
            left, right = Span(parameter.weight.rows), Span(parameter.weight.columns)
            values = {**numbers, **self.scales[name].scaled}
            sources[name] = Source(rule, values, Coordinates(left, right, self.steps))
        return sources

    def _ascents(self, start: Network) -> Ascents:
        """The perturbations of the weights by the rule."""
        return Ascents.of(self.trial.problem.rule, partial(self._sources, start))

    def _looked(
        self, ascents: Ascents, now: Network, then: int, step: int
    ) -> tuple[dict[str, LayerBatch], dict[str, NetworkValues]]:
        """Every parameter as a step sees it, and moved weights."""
        seen = self._seen(now, len(self.train) if ascents.learners else then, step)
        told, moves = ascents.looked(seen, partial(self._look, now, then))
        if step == self.first == self.steps:
            for name, move in moves.items():
                self.ascents[name] = (move @ now.source(now.parameters[name], self.probe)).rms()
        return seen, told

    def _look(self, now: Network, then: int, moves: Moves) -> dict[str, MovedFactors]:
        """D' and H' of every parameter after these changes."""
        moved = now.stepped(moves, self.train, then=len(self.train))
        moved = moved if self.way is Path.CORE else moved.restated()
        deltas = moved.backward(self._own_cotangents(moved.output), self.train, then)
        return {
            name: (deltas[x.layer.position - 1], moved.source(x, self.train))
            for name, x in moved.parameters.items()
        }

    def _seen(self, now: Network, then: int, step: int) -> dict[str, LayerBatch]:
        """The view of a learner of every parameter: D, H, F, W and the nodes to watch."""
        sampled = self.trial.problem.sampled_fisher
        n = self.trial.data.samples
        samples = [*self.train, *self.train] if sampled else list(self.train)
        deltas = now.backward(self._cotangents(now.output[:, :n], step), samples, then)
        seen: dict[str, LayerBatch] = {}
        for name, parameter in now.parameters.items():
            delta = deltas[parameter.layer.position - 1]
            fisher = delta.pick(range(n, 2 * n)) if sampled else None
            h = now.source(parameter, self.train)
            seen[name] = delta.pick(range(n)), h, fisher, parameter.weight, self.watched
        return seen

    def _note_sums(self, name: str, sizes: Mapping[Node, float]) -> None:
        """Sizes of both terms of watched sums, known once an update was applied."""
        for total, (one, other) in self.watched_sums.items():
            if one in sizes and other in sizes:
                self.sums[name, total] = sizes[one], sizes[other]

    def _own_cotangents(self, f: Tensor) -> Tensor:
        """Of the training samples' own losses, (classes, n)."""
        squares = self.trial.problem.setting.loss is Loss.MSE
        return (f if squares else f.softmax(dim=0)) - self.trial.data.targets.T

    def _cotangents(self, f: Tensor, step: int) -> Tensor:
        """The cotangents at the output, beside those of sampled targets if asked for."""
        own = self._own_cotangents(f)
        if not self.trial.problem.sampled_fisher:
            return own
        kind = sampled_loss(self.trial.problem.setting.loss)
        generator = torch.Generator().manual_seed(self.seed * 2**20 + step)
        return torch.cat([own, sampled_cotangents(f.T, kind, generator).T], dim=1)

    def _init(self, before: Network, name: str) -> float:
        """RMS of h before the steps that are measured, or of a bias.

        At initialisation that is a bias's standard deviation, and of f it is over many readouts.
        """
        parameter, at_start = before.parameters[name], self.first == 1
        position = parameter.layer.position
        if parameter.layer.is_bias:
            source = before.one.pick([0])
            return parameter.scales.std if at_start else parameter.weight.ask(source).rms()
        if position == before.setting.depth and at_start:
            return self._readout(before)
        return before.h[position].pick(self.probe).rms()

    def _readout(self, before: Network) -> float:
        """RMS of f over independent draws of the readout, the network's own first."""
        f, parameters = before.h[-1].pick(self.probe), before.at(before.setting.depth)
        total = f.rms() ** 2
        bias = next((p for p in parameters if p.layer.is_bias), None)
        offset = 0.0 if bias is None else (bias.weight @ before.one.pick([0])).rms() ** 2
        output = next(p for p in parameters if not p.layer.is_bias)
        if output.scales.std == 0:
            return math.sqrt(total)
        h = before.source(output, self.probe)
        overlaps = gram(h, h)
        zero = EIGENVALUE_ZERO * float(overlaps.diagonal().max())
        k, _ = triangular_root(overlaps, zero, h.count)
        z = torch.empty((READOUTS - 1) * f.axis.side, len(k), dtype=torch.float64)
        self.stream.at(len(before.setting.layers)).fill_(z, 0)
        others = output.scales.std**2 * float((z @ k).square().sum()) / f.axis.side / f.count
        return math.sqrt((total + others + (READOUTS - 1) * offset) / READOUTS)
