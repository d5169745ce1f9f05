"""A rule at work on a dense network: real `torch.nn` weights, whole-batch steps, terms of sums.

Weights are drawn from the trial's scales by seed and width; the data are the same at every width.
Each step returns, for every sum of some term and a damping in the rule, and for sums of numbers,
the sizes of both: that is what dampings are calibrated by, and what regimes are held against.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from empirical.measure.measured_sizes import Sums
from empirical.measure.parametrize import LayerScales, draw_
from empirical.measure.trial import Trial, numbers_of
from empirical.networks import MLP
from empirical.numbers.capture import Capture
from empirical.numbers.capture import LossFunction as SampledLoss
from empirical.numbers.interpreter import Record
from empirical.numbers.layer_values import LayerValue
from empirical.numbers.optimizers import Fisher, LayerOptimizer
from empirical.numbers.rotated_values import Corner
from scaling.models.chain import Loss
from scaling.rules.like_terms import is_damping
from scaling.rules.operators import FUNCTIONS, Extreme
from scaling.rules.rule import Rule
from scaling.rules.symbols import SymbolKind
from scaling.rules.tree import Add, Call, Node, Subtract, Symbol


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
        self._sums = watched_sums(rule)
        self._sizes: dict[str, dict[Node, float]] = {n: {} for n in names}
        watched = frozenset(node for terms in self._sums.values() for node in terms)
        recorders = {n: sizes_recorder(self._sizes[n], watched) for n in names}

        def record(name: str, node: Node, value: LayerValue) -> None:
            recorders[name](node, value)

        self._generator = torch.Generator(device=trial.device).manual_seed(seed)
        sampled = trial.problem.sampled_fisher
        self.optimizer = LayerOptimizer(
            Capture(model, outputs=sampled),
            rule,
            {n: scales[layer.name].lr for n, layer in names.items()},
            values,
            Fisher.TRUE if sampled else Fisher.EMPIRICAL,
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
        """One step, and the sizes of both terms of watched sums in it."""
        self.optimizer.step(self._loss)
        return {
            (layer.name, total): (self._sizes[n][one], self._sizes[n][other])
            for total, (one, other) in self._sums.items()
            for n, layer in self._names.items()
            if one in self._sizes[n] and other in self._sizes[n]
        }


def watched_sums(rule: Rule) -> dict[Node, tuple[Node, Node]]:
    """Sums whose terms may trade places as the width grows -> both terms, a damping last.

    Sums with a damping, sums of two numbers, and the larger of two.

    >>> from scaling.rules.parser import parse
    >>> watched_sums(parse("G / max(1, norm(G))"))
    {<rule max(1, norm(G))>: (<rule 1>, <rule norm(G)>)}
    """
    found = damped_sums(rule)
    for node in rule.expression.walk():
        match node:
            case Add() | Subtract() if node.shape.is_scalar:
                found[node] = terms_of(node)
            case Call(function) if isinstance(FUNCTIONS[function].reading, Extreme):
                found[node] = terms_of(node)
    return found


def damped_sums(rule: Rule) -> dict[Node, tuple[Node, Node]]:
    """Every sum of some term and a damping -> (that term, the damping).

    >>> from scaling.rules.parser import parse
    >>> damped_sums(parse("G @ (A + rho*I)**(-1)"))
    {<rule A + rho*I>: (<rule A>, <rule rho*I>)}
    """
    found: dict[Node, tuple[Node, Node]] = {}
    for node in rule.expression.walk():
        if isinstance(node, Add | Subtract) and is_damping(node.left) != is_damping(node.right):
            found[node] = terms_of(node)
    return found


def terms_of(node: Node) -> tuple[Node, Node]:
    """The two terms of a sum, or of a max; a damping beside something else last."""
    left, right = node.children
    damping_first = is_damping(left) and not is_damping(right)
    return (right, left) if damping_first else (left, right)


def size_of(node: Node, value: LayerValue) -> float:
    """The spectral norm of a square matrix, the RMS entry of anything else.

    Of a rotated matrix the entries in the corner of the data count: those outside are one number.
    """
    if isinstance(value, Corner):
        return float(value.rms_inside())
    return float(value.spectral_norm() if node.shape.is_square else value.rms())


def sizes_recorder(sizes: dict[Node, float], watched: Collection[Node]) -> Record:
    """A recorder that keeps the sizes of some nodes."""

    def record(node: Node, value: LayerValue) -> None:
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


def dampings_in(node: Node) -> list[str]:
    """Names of the dampings in a node."""
    symbols = (n for n in node.walk() if isinstance(n, Symbol))
    return list(dict.fromkeys(s.name for s in symbols if s.kind is SymbolKind.DAMPING))
