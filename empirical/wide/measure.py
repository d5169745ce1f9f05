"""Steps of one network of any width, measured: the twin of `empirical.measure`, exact in law.

    init     RMS of h_l at the start (of f in the output layer, over `READOUTS` readouts)
    own      RMS of (W_l - W_l at the start) h_{l-1}, with h_{l-1} as it was at the start
    feature  RMS of h_l after the steps minus h_l before them (df in the output layer)

"At the start" is before the step that the problem asks for, which may be the second. All are taken
on the probe samples. After one step they are the quantities of `measure`, with the
same law over seeds, and either may stand for the other. The time is O(M n^2) for updates D C H^T,
O(M^2 n) for rules that look at single entries, which reach smaller widths; memory is O(M n).

Not covered: what `paths.py` refuses; CUDA.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

import torch
from torch import Tensor

from empirical.basis import EIGENVALUE_ZERO, triangular_root
from empirical.capture import sampled_cotangents
from empirical.measure import (
    READOUTS,
    Constants,
    Measurement,
    Sizes,
    Trial,
    check_finite,
    damped_sums,
    numbers_of,
    peak_memory,
    sampled_loss,
)
from empirical.wide.columns import gram
from empirical.wide.implicit import Span
from empirical.wide.network import Network, network
from empirical.wide.noise import Stream
from empirical.wide.paths import Path, path_of, refuse_unless_wide
from empirical.wide.rows import RowLearner
from empirical.wide.streaming import Streaming
from empirical.wide.update import Coordinates, Learner
from empirical.wide.weight import Change
from scaling.errors import InvalidInput
from scaling.language import Node
from scaling.ledger import Loss

WIDE_PROBE = {Path.CORE: 4, Path.ROWS: 16}
"""Probe samples that are enough: neurons are many, and every sample is a column of theirs."""


def measure_wide(
    trial: Trial,
    constants: Constants,
    width: int,
    seed: int,
    steps: int = 1,
    streaming: Streaming | None = None,
) -> Measurement:
    """Take steps at one width and seed, and measure them; ``sums`` are those of the last step.

    Raises:
        InvalidInput: for a rule whose update leaves the span of the data, for fewer than one step,
            and for sizes that are not finite.
    """
    rule = trial.problem.rule
    refuse_unless_wide(rule, width)
    if steps < 1:
        raise InvalidInput(f"steps={steps}", "at least 1", "pass steps=1")
    start = time.perf_counter()
    run = _Run(trial, constants, width, seed, steps, streaming or Streaming())
    before, after = run.trained()
    sizes = run.sizes(before, after)
    before.forget()
    check_finite(sizes, width, seed)
    seconds = time.perf_counter() - start
    peak = peak_memory("cpu")
    return Measurement(rule.name or str(rule), width, seed, sizes, run.sums, seconds, peak)


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
    ) -> None:
        self.trial, self.width, self.seed = trial, width, seed
        self.measured, self.steps = steps, steps + trial.problem.step - 1
        self.streaming = streaming
        self.scales = trial.scales(width, constants)
        self.sums: dict[tuple[str, Node], tuple[float, float]] = {}
        self.damped = damped_sums(trial.problem.rule)
        data = trial.data
        self.train = range(data.samples)
        self.probe = range(data.samples, data.samples + len(data.probe_inputs))

    def trained(self) -> tuple[Network, Network]:
        """The network before the steps, and after them on the probe samples alone."""
        data, problem = self.trial.data, self.trial.problem
        sent_back = data.samples * (2 if problem.sampled_fisher else 1)
        start = network(
            problem.setting,
            self.scales,
            torch.cat([data.inputs, data.probe_inputs]).T,
            data.classes,
            self.width,
            self.seed,
            self.streaming,
            then=sent_back,
        )
        learners = {name: self._learner(start, name) for name in start.parameters}
        now = before = start
        for left in reversed(range(self.steps)):
            if left + 1 == self.measured:
                before = now
            followed = range(self.probe.stop) if left else self.probe
            updates = self._updates(now, learners, len(followed), self.steps - left)
            now = now.stepped(updates, followed, then=sent_back if left else 0)
            self._note_sums(updates)
        return before, now

    def _learner(self, start: Network, name: str) -> Learner | RowLearner:
        rule, weight = self.trial.problem.rule, start.parameters[name].weight
        values = {**numbers_of(self.trial), **self.scales[name].dampings}
        coordinates = Coordinates(Span(weight.rows), Span(weight.columns), self.steps)
        kind = Learner if path_of(rule) is Path.CORE else RowLearner
        return kind(rule, values, coordinates)

    def _updates(
        self, now: Network, learners: Mapping[str, Learner | RowLearner], then: int, step: int
    ) -> dict[str, Change]:
        """-lr * rule for every parameter."""
        sampled = self.trial.problem.sampled_fisher
        n = self.trial.data.samples
        samples = [*self.train, *self.train] if sampled else list(self.train)
        deltas = now.backward(self._cotangents(now.output[:, :n], step), samples, then)
        updates: dict[str, Change] = {}
        watched = frozenset(x for terms in self.damped.values() for x in terms)
        for name, parameter in now.parameters.items():
            delta = deltas[parameter.layer.position - 1]
            fisher = delta.pick(range(n, 2 * n)) if sampled else None
            h = now.source(parameter, self.train)
            update = learners[name].update(delta.pick(range(n)), h, fisher, watched)
            updates[name] = -self.scales[name].lr * update
        return updates

    def _note_sums(self, updates: Mapping[str, Change]) -> None:
        """Sizes of both terms of damped sums, known once the updates were applied."""
        for name, update in updates.items():
            for total, (other, damping) in self.damped.items():
                self.sums[name, total] = update.sizes[other], update.sizes[damping]

    def _cotangents(self, f: Tensor, step: int) -> Tensor:
        """Of the training samples, (classes, n), beside those of sampled targets if asked for."""
        problem, targets = self.trial.problem, self.trial.data.targets.T
        squares = problem.setting.loss is Loss.MSE
        own = (f if squares else f.softmax(dim=0)) - targets
        if not problem.sampled_fisher:
            return own
        kind = sampled_loss(problem.setting.loss)
        generator = torch.Generator().manual_seed(self.seed * 2**20 + step)
        return torch.cat([own, sampled_cotangents(f.T, kind, generator).T], dim=1)

    def sizes(self, before: Network, after: Network) -> dict[str, Sizes]:
        """Init, own and feature of every layer."""
        sizes = {}
        for name, parameter in after.parameters.items():
            position = parameter.layer.position
            h = before.h[position].pick(self.probe)
            earlier = before.parameters[name].weight
            since = len(earlier.updates)
            moved = parameter.weight.moved(before.source(parameter, self.probe), since)
            if parameter.layer.is_bias:
                init = earlier.ask(before.one.pick([0])).rms() if since else parameter.scales.std
            elif position == before.setting.depth and not since:
                init = self._readout(before)
            else:
                init = h.rms()
            sizes[name] = Sizes(init, moved.rms(), (after.h[position] - h).rms())
        return sizes

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
        Stream(self.seed, (self.width, len(before.setting.layers))).fill_(z, 0)
        others = output.scales.std**2 * float((z @ k).square().sum()) / f.axis.side / f.count
        return math.sqrt((total + others + (READOUTS - 1) * offset) / READOUTS)
