"""The chain of dense layers: what a network is made of, and how the sides of its layers grow.

The setting. Layer l maps h_(l-1) to u_l = M^(-a_l) w_l h_(l-1), h_l = phi(u_l),
f = u_L; the entries of w_l are N(0, sigma^2 M^(-2 b_l)). Width M grows; input dimension, classes,
batch and depth do not.

A bias is a layer whose input is the constant 1. An embedding is an input layer with one-hot
input. Kernel axes of a convolution are M^0, so its exponents are those of a dense layer. A role
follows from which axes of a tensor grow (`role_of`).

Not covered: normalisation layers, residual sums, attention.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum

from sympy import Expr, S

from scaling.models.alignment import Alignment
from scaling.models.batch import Batch, DataSpan, data_spans
from scaling.sizes.errors import NotCovered
from scaling.sizes.scale import HALF, Scale, Size


class Role(StrEnum):
    """The role of a weight, by its axes that grow."""

    INPUT = "input"
    HIDDEN = "hidden"
    OUTPUT = "output"
    CONSTANT = "constant"


def role_of(fan_in_grows: bool, fan_out_grows: bool) -> Role:
    """The role of a tensor, from which of its axes grow with the width.

    >>> role_of(fan_in_grows=False, fan_out_grows=True)
    <Role.INPUT: 'input'>
    """
    if fan_in_grows:
        return Role.HIDDEN if fan_out_grows else Role.OUTPUT
    return Role.INPUT if fan_out_grows else Role.CONSTANT


@dataclass(frozen=True)
class Layer:
    """A weight: where it sits and how its sides grow (exponents of the width)."""

    name: str
    position: int
    fan_in: Expr
    fan_out: Expr
    is_bias: bool = False

    @property
    def role(self) -> Role:
        """Input, hidden, output, or constant (the bias of the output layer)."""
        return role_of(self.fan_in != 0, self.fan_out != 0)

    @property
    def target(self) -> Scale:
        """sqrt(fan_out/fan_in): the spectral size that moves Theta(1) to Theta(1)."""
        return Scale.of_width(HALF * (self.fan_out - self.fan_in), Size.SPECTRAL)


def mlp(depth: int = 3, biases: bool = False) -> tuple[Layer, ...]:
    """The layers of a fully connected network of ``depth`` weight matrices.

    >>> [layer.name for layer in mlp(3, biases=True)]
    ['input', 'hidden', 'output', 'input_bias', 'hidden_bias', 'output_bias']
    """
    if depth < 2:
        raise NotCovered(
            f"a network of depth {depth}", "an input and an output layer", "use depth 2 or more"
        )
    middle = depth - 2
    names = ["input"]
    names += ["hidden"] if middle == 1 else [f"hidden_{i + 1}" for i in range(middle)]
    names += ["output"]
    weights = [
        Layer(name, i + 1, S.One if i else S.Zero, S.One if i < depth - 1 else S.Zero)
        for i, name in enumerate(names)
    ]
    extra = [
        Layer(f"{w.name}_bias", w.position, S.Zero, w.fan_out, is_bias=True)
        for w in (weights if biases else [])
    ]
    return (*weights, *extra)


class Activation(Enum):
    """An activation, as far as the calculus needs to know it.

    >>> [phi.label for phi in Activation][:2]
    ['tanh', 'erf']
    """

    TANH = ("tanh", True, True)
    ERF = ("erf", True, True)
    RELU = ("relu", False, False)
    GELU = ("gelu", False, False)
    LINEAR = ("linear", True, False)

    def __init__(self, label: str, zero_mean: bool, bounded: bool) -> None:
        self.label = label
        self.zero_mean = zero_mean
        self.bounded = bounded


class Loss(StrEnum):
    """The loss decides how large the cotangent at the output is when outputs are large.

    >>> Loss("cross_entropy") is Loss.CROSS_ENTROPY
    True
    """

    MSE = "mse"
    CROSS_ENTROPY = "cross_entropy"


@dataclass(frozen=True)
class Setting:
    """The fixed part of a derivation: the network's shape, activation and loss.

    >>> setting = Setting(mlp(4), Activation.TANH)
    >>> setting.depth, [layer.name for layer in setting.layers]
    (4, ['input', 'hidden_1', 'hidden_2', 'output'])
    """

    layers: tuple[Layer, ...] = field(default_factory=mlp)
    activation: Activation = Activation.RELU
    loss: Loss = Loss.MSE
    alignments: Mapping[str, Alignment] = field(default_factory=dict, hash=False)
    """By layer, how updates meet what they act on, where that is not derived; see alignment.py."""
    batch: Batch = field(default_factory=Batch)
    """The numbers of samples, classes and features, which decide what lies off the data."""

    @property
    def depth(self) -> int:
        """Number of weight matrices, biases apart."""
        return max(layer.position for layer in self.layers)

    def at(self, position: int) -> list[Layer]:
        """The weights that feed the pre-activation at a position."""
        return [layer for layer in self.layers if layer.position == position]

    def layer(self, name: str) -> Layer:
        """The layer of that name."""
        return next(layer for layer in self.layers if layer.name == name)

    def spans(
        self, layer: Layer, output: Scale, batch: Batch | None = None
    ) -> tuple[DataSpan, DataSpan]:
        """The directions of a layer's fan_out and fan_in side, for an output f of that size."""
        return data_spans(
            (self.batch if batch is None else batch).beside_fixed_sides,
            below=layer.position - 1,
            above=self.depth - layer.position,
            grows=(layer.fan_in != 0, layer.fan_out != 0),
            linear=self.activation is Activation.LINEAR,
            sums_to_zero=self.loss is Loss.CROSS_ENTROPY,
            output=output,
            is_bias=layer.is_bias,
        )
