"""The network at the start: sizes of h, delta and W at initialisation.

Forward is a CLT over fan_in, backward a CLT over fan_out (gradient independence). Where a
bounded activation saturates (|u| grows) the derivative concentrates on few units, and the size is
refused.
"""

from __future__ import annotations

from collections.abc import Mapping

from sympy import Expr, S

from scaling.models.chain import Loss, Setting
from scaling.models.layer_sizes import LayerSizes, mean_delta
from scaling.sizes.derivation import BACKPROP, CLT, DATA, Step
from scaling.sizes.errors import NotCovered
from scaling.sizes.scale import HALF, Bounds, Order, Scale, Size
from scaling.states.network_state import NetworkState
from scaling.states.problem import Problem


def at_start(
    problem: Problem,
    a: Mapping[str, Expr],
    b: Mapping[str, Expr],
    bounds: Bounds | None = None,
) -> NetworkState:
    """Propagate sizes forward and backward through the network.

    Args:
        problem: a rule in its setting: the network, activation and loss.
        a: exponent of the multiplier M^(-a), by layer name.
        b: exponent of the initial standard deviation M^(-b), by layer name; oo means zero.
        bounds: what is known of symbols in a and b.

    Raises:
        NotCovered: if a bounded activation saturates.
    """
    setting, known = problem.setting, bounds or Bounds()
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
        sizes[layer.name] = LayerSizes(
            layer=layer,
            h=h,
            delta=delta,
            w=_std(b[layer.name]),
            mean_h=h * shrink if vanishing else h,
            mean_delta=mean_delta(setting, layer, delta),
            h_step=step,
            delta_step=delta_steps[layer.position],
        )
    return NetworkState(
        problem=problem, a=a, b=b, bounds=known, sizes=sizes, features=tuple(features)
    )


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
