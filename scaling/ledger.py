"""The ledger: the sizes of h, delta and W in every layer at initialisation.

The setting. Layer l maps h_(l-1) to u_l = M^(-a_l) w_l h_(l-1), h_l = phi(u_l),
f = u_L; the entries of w_l are N(0, sigma^2 M^(-2 b_l)). Width M grows; input dimension, classes,
batch and depth do not. Three numbers per layer carry everything that follows:

    |h|      entry size of the layer's input, the multiplier M^(-a) included
    |delta|  entry size of d loss_i / d u_l
    |w|      entry size of the weights, M^(-b)

A bias is a layer whose input is the constant 1. An embedding is an input layer with one-hot
input. Kernel axes of a convolution are M^0, so its exponents are those of a dense layer. A role
follows from which axes of a tensor grow (`role_of`).

Forward is a CLT over fan_in, backward a CLT over fan_out (gradient independence). Where a
bounded activation saturates (|u| grows) the derivative concentrates on few units and the ledger
refuses. Not covered: normalisation layers, residual sums, attention.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum

from sympy import Expr, S

from scaling.alignment import Alignment
from scaling.derivation import BACKPROP, CLT, DATA, MEANS, Step
from scaling.errors import NotCovered
from scaling.scale import HALF, Bounds, Order, Scale, Size
from scaling.tree import Node


class Role(StrEnum):
    """What a weight is, by which of its axes grow."""

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
    """What the calculus needs to know of an activation."""

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
    """The loss decides how large the cotangent at the output is when outputs are large."""

    MSE = "mse"
    CROSS_ENTROPY = "cross_entropy"


@dataclass(frozen=True)
class Setting:
    """What stays fixed while exponents are derived: the network's shape, activation and loss."""

    layers: tuple[Layer, ...] = field(default_factory=mlp)
    activation: Activation = Activation.RELU
    loss: Loss = Loss.MSE
    alignments: Mapping[str, Alignment] = field(default_factory=dict, hash=False)
    """By layer, how updates meet what they act on, where that is not derived; see alignment.py."""

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


@dataclass(frozen=True)
class Sizes:
    """The sizes that a rule sees in one layer, with the steps that gave them."""

    layer: Layer
    h: Scale
    delta: Scale
    w: Scale
    mean_h: Scale
    mean_delta: Scale
    h_step: Step
    delta_step: Step


@dataclass(frozen=True)
class Ledger:
    """Sizes of all layers; ``features[l]`` is |h_l|, with the output f as the last."""

    sizes: Mapping[str, Sizes]
    features: tuple[Scale, ...]
    ascended: Mapping[Node, Mapping[str, Sizes]] = field(default_factory=dict)
    """X -> sizes of all layers at the weights W + X; see ascent.py."""


def ledger(
    setting: Setting,
    a: Mapping[str, Expr],
    b: Mapping[str, Expr],
    bounds: Bounds | None = None,
) -> Ledger:
    """Propagate sizes forward and backward through the network.

    Args:
        setting: the network, activation and loss.
        a: exponent of the multiplier M^(-a), by layer name.
        b: exponent of the initial standard deviation M^(-b), by layer name; oo means zero.
        bounds: what is known of symbols in a and b.

    Raises:
        NotCovered: if a bounded activation saturates.
    """
    known = bounds or Bounds()
    features, feature_steps = _forward(setting, a, b, known)
    deltas, delta_steps = _backward(setting, a, b, features, known)
    sizes = {}
    for layer in setting.layers:
        below = layer.position - 1
        multiplier = Scale.of_width(-a[layer.name], Size.SCALAR)
        source = Scale.one(Size.ENTRY) if layer.is_bias else features[below]
        h = source * multiplier
        delta = deltas[layer.position]
        step = (
            Step(DATA, f"h of {layer.name}", h, "the constant 1")
            if layer.is_bias
            else feature_steps[below]
        )
        shrink = Scale.of_width(-HALF, Size.SCALAR)
        vanishing = layer.fan_in != 0 and setting.activation.zero_mean
        sizes[layer.name] = Sizes(
            layer=layer,
            h=h,
            delta=delta,
            w=_std(b[layer.name]),
            mean_h=h * shrink if vanishing else h,
            mean_delta=mean_delta(setting, layer, delta),
            h_step=step,
            delta_step=delta_steps[layer.position],
        )
    return Ledger(sizes, tuple(features))


def mean_delta(setting: Setting, layer: Layer, delta: Scale) -> Scale:
    """The mean of delta over the outputs, for delta in random directions."""
    if layer.fan_out != 0:
        return delta * Scale.of_width(-HALF, Size.SCALAR)
    if setting.loss is Loss.CROSS_ENTROPY:  # softmax(f) - y sums to zero over the classes
        return Scale.zero(Size.ENTRY)
    return delta


def mean_step(sizes: Sizes, of_rows: bool, activation: Activation) -> Step:
    """The step that gives the mean of h (for row means) or of delta (for column means)."""
    scale = sizes.mean_h if of_rows else sizes.mean_delta
    name = "mean of h" if of_rows else "mean of delta"
    text, time = f"activation {activation.label}", sizes.h_step.time
    return Step(MEANS, f"{name} in {sizes.layer.name}", scale, text, time=time)


def _std(b: Expr) -> Scale:
    return Scale.zero(Size.ENTRY) if b is S.Infinity else Scale.of_width(-b, Size.ENTRY)


def _forward(
    setting: Setting, a: Mapping[str, Expr], b: Mapping[str, Expr], bounds: Bounds
) -> tuple[list[Scale], list[Step]]:
    sizes = [Scale.one(Size.ENTRY)]
    steps = [Step(DATA, "h_0", sizes[0], "the data")]
    for position in range(1, setting.depth + 1):
        total = Scale.zero(Size.ENTRY)
        numbers = []
        for layer in setting.at(position):
            source = Scale.one(Size.ENTRY) if layer.is_bias else sizes[-1]
            multiplier = Scale.of_width(-a[layer.name], Size.SCALAR)
            root = Scale.of_width(HALF * layer.fan_in, Size.SCALAR)
            std = _std(b[layer.name])
            total = total.plus(std * multiplier * root * source, bounds)
            numbers.append(
                f"std {std} x multiplier {multiplier} x sqrt(fan_in) {root} x |h| {source}"
            )
        last = position == setting.depth
        grows = bounds.order(total.width, S.Zero) is Order.GREATER
        if grows and not last and setting.activation.bounded:
            raise NotCovered(
                f"u_{position} of size {total} under {setting.activation.label}, which saturates",
                "a stable start (u = O(1)) or an activation that grows linearly",
                "choose relu, gelu or linear, or raise b",
            )
        sizes.append(total)
        name = "f" if last else f"h_{position}"
        steps.append(Step(CLT, name, total, " + ".join(numbers), (steps[-1],)))
    return sizes, steps


def _backward(
    setting: Setting,
    a: Mapping[str, Expr],
    b: Mapping[str, Expr],
    features: list[Scale],
    bounds: Bounds,
) -> tuple[list[Scale], list[Step]]:
    top = Scale.one(Size.ENTRY)
    numbers = "f - y with y of order 1"
    if setting.loss is Loss.MSE:
        top = top.plus(features[-1], bounds)
    else:
        numbers = "softmax(f) - y"
    assumption = "" if features[-1].is_zero else "the batch is not fitted yet"
    deltas = [top]
    steps = [Step(DATA, f"delta_{setting.depth}", top, numbers, assumption=assumption)]
    for position in range(setting.depth, 1, -1):
        layer = next(layer for layer in setting.at(position) if not layer.is_bias)
        std, fan = _std(b[layer.name]), Scale.of_width(HALF * layer.fan_out, Size.SCALAR)
        multiplier = Scale.of_width(-a[layer.name], Size.SCALAR)
        delta = std * fan * multiplier * deltas[-1]
        steps.append(
            Step(
                BACKPROP,
                f"delta_{position - 1}",
                delta,
                f"std {std} x multiplier {multiplier} x sqrt(fan_out) {fan} x |delta_{position}| "
                f"{deltas[-1]}",
                (steps[-1],),
            )
        )
        deltas.append(delta)
    blank = Step(DATA, "delta_0", Scale.zero(Size.ENTRY))
    return [Scale.zero(Size.ENTRY), *reversed(deltas)], [blank, *reversed(steps)]
