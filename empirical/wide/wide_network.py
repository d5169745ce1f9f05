"""A network of any width: forward, backward and step, as columns on its axes of neurons.

    h_0 = x     u_l = W_l (m_l h_{l-1}) + v_l     h_l = phi(u_l)     f = u_L
    delta_{l-1} = phi'(u_{l-1}) m_l W_l^T delta_l

as in perceptron.py. A step is followed as a change, never as a difference of two states:

    du_l = W_l (m_l dh_{l-1}) + dW_l (m_l (h + dh)_{l-1}) + dv_l
    dh_l = phi(u_l + du_l) - phi(u_l)

so a change of 1e-9 is as accurate as one of order one. Columns are the training samples, then the
probe samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from empirical.measure.parametrize import LayerScales
from empirical.wide.activations import ACTIVATIONS
from empirical.wide.columns import Columns, NeuronAxis
from empirical.wide.implicit import ImplicitGaussian
from empirical.wide.noise import Stream
from empirical.wide.streaming import Streaming
from empirical.wide.weight import Change, Weight
from scaling.models.chain import Layer, Setting


@dataclass(frozen=True, eq=False)
class Parameter:
    """A weight or a bias of the network, and what its multiplied input is made of."""

    layer: Layer
    weight: Weight
    scales: LayerScales

    @property
    def multiplier(self) -> float:
        """The factor of the input; a bias has none."""
        return 1.0 if self.layer.is_bias else self.scales.multiplier


@dataclass(frozen=True, eq=False)
class Network:
    """Weights at some time, and what the samples do at that time: u_l and h_l for l = 0..L."""

    setting: Setting
    parameters: Mapping[str, Parameter]
    one: Columns
    u: tuple[Columns, ...]
    h: tuple[Columns, ...]

    @property
    def output(self) -> Tensor:
        """The output f, (classes, samples)."""
        return self.h[-1].axis.values(self.h[-1])

    def forget(self) -> None:
        """Let go of what neurons hold, here and in every network stepped from this one."""
        for h in self.h:
            h.axis.forget()
        self.h[0].axis.memory.forget()

    def at(self, position: int) -> list[Parameter]:
        """The weight and the bias that feed u_l."""
        return [self.parameters[layer.name] for layer in self.setting.at(position)]

    def source(self, parameter: Parameter, columns: Sequence[int]) -> Columns:
        """The multiplied input of a weight, the constant 1 of a bias."""
        if parameter.layer.is_bias:
            return self.one.pick(columns)
        return parameter.multiplier * self.h[parameter.layer.position - 1].pick(columns)

    def backward(self, cotangents: Tensor, samples: Sequence[int], then: int) -> list[Columns]:
        """[delta_1, ..., delta_L] from cotangents at the output, (classes, len(samples)).

        ``then``: how many columns will be followed through the step.
        """
        slope = ACTIVATIONS[self.setting.activation.label].slope
        deltas = [self.h[-1].axis.given(cotangents)]
        for position in range(self.setting.depth, 1, -1):
            parameter = next(p for p in self.at(position) if not p.layer.is_bias)
            below = self.u[position - 1]
            back = parameter.multiplier * parameter.weight.T.ask(deltas[0], then)
            deltas.insert(0, below.axis.entrywise(slope, below.pick(samples), back))
        return deltas

    def restated(self) -> Network:
        """The same network with h = phi(u): a unit without output has exactly none.

        After a step it is h + dh, which a rule that looks at entries would find to be a rounding.
        """
        value = ACTIVATIONS[self.setting.activation.label].value
        hidden = [u.axis.entrywise(value, u) for u in self.u[1:-1]]
        return replace(self, h=(self.h[0], *hidden, self.h[-1]))

    def stepped(
        self, updates: Mapping[str, Change], columns: Sequence[int], then: int = 0
    ) -> Network:
        """The network after these changes of its parameters, on some of its columns.

        ``then``: how many cotangents will be sent back next.
        """
        change = ACTIVATIONS[self.setting.activation.label].change
        one = self.one.pick(columns)
        u, h = [self.u[0].pick(columns)], [self.h[0].pick(columns)]
        dh = h[0].axis.none(h[0].count)
        for position in range(1, self.setting.depth + 1):
            before = self.u[position].pick(columns)
            du = before.axis.none(before.count)
            for p in self.at(position):
                if p.layer.is_bias:
                    du += updates[p.layer.name] @ one
                    continue
                du += p.weight.ask(p.multiplier * dh, then)
                du += updates[p.layer.name] @ (p.multiplier * h[-1])
            last = position == self.setting.depth
            dh = du if last else before.axis.entrywise(change, before, du)
            u.append(before + du)
            h.append(self.h[position].pick(columns) + dh)
        parameters = {
            name: Parameter(p.layer, p.weight.plus(updates[name]), p.scales)
            for name, p in self.parameters.items()
        }
        return Network(self.setting, parameters, one, tuple(u), tuple(h))


def network(
    setting: Setting,
    scales: Mapping[str, LayerScales],
    inputs: Tensor,
    classes: int,
    width: int,
    stream: Stream,
    streaming: Streaming,
    then: int = 0,
) -> Network:
    """A network at the start, on inputs (features, samples); ``stream`` draws its weights.

    Hidden neurons live on the device of ``streaming``, inputs and outputs on the CPU.

    ``then``: how many cotangents will be sent back next.
    """
    memory, small = streaming.memory(), torch.float64
    sides = [len(inputs), *[width] * (setting.depth - 1), classes]
    dtypes = [small, *[streaming.type_at(width)] * (setting.depth - 1), small]
    places = ["cpu", *[streaming.device] * (setting.depth - 1), "cpu"]
    axes = [
        NeuronAxis(side, dtype, streaming, memory, place)
        for side, dtype, place in zip(sides, dtypes, places, strict=True)
    ]
    one = NeuronAxis(1, small, streaming, memory).given(torch.ones(1, inputs.shape[1]))
    value = ACTIVATIONS[setting.activation.label].value
    parameters = {}
    u = [axes[0].given(inputs)]
    h = [u[0]]
    for position in range(1, setting.depth + 1):
        axis = axes[position]
        total = axis.none(inputs.shape[1])
        for index, layer in enumerate(setting.layers):
            if layer.position != position:
                continue
            below = one.axis if layer.is_bias else axes[position - 1]
            drawn = scales[layer.name].std, stream.at(index)
            initial = ImplicitGaussian.between(axis, below, *drawn)
            p = Parameter(layer, Weight(initial), scales[layer.name])
            x = one if layer.is_bias else p.multiplier * h[-1]
            hint = 0 if layer.is_bias or position == 1 else then
            total += p.weight.ask(x, hint)
            parameters[layer.name] = p
        u.append(total)
        h.append(total if position == setting.depth else axis.entrywise(value, total))
    return Network(setting, parameters, one, tuple(u), tuple(h))
