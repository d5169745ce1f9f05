"""The limit itself: what own updates and Gram matrices tend to as the width grows.

At infinite width h_l and delta_l have deterministic second moments over neurons, the kernels

    U_1 = s_1^2 x^T x                    K_l = E[phi(u) phi(u)^T],   u ~ N(0, U_l)
    U_{l+1} = s_{l+1}^2 M K_l            P_l = E[phi'(u) phi'(u)^T]
    T_L = delta_L^T delta_L              S_{l} = s_{l+1}^2 P_l * T_{l+1},   T_l = M S_l

(s_l: the standard deviation of W_l times its multiplier; * entry by entry; T_l is D_l^T D_l, and
M K_l is H_l^T H_l). The rule's n x n core follows from these Gram matrices alone (the numeric
interpreter, told the sides' true lengths), and with it the size of dW_l h_{l-1} on the probe.

Closed forms: ReLU (Cho and Saul 2009, arc-cosine kernels of order 1 and 0), erf (Williams 1997),
linear; Gauss-Hermite quadrature for the others.

Not covered: an output that stays random in the limit (b_output <= 1/2), biases, entrywise rules,
and undamped rules where the limit loses rank: orth(G) of fewer classes than samples jumps there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from empirical.layer import LayerTensors
from empirical.measure import Constants, Trial
from empirical.numbers import State, evaluate
from empirical.wide.paths import Path, path_of
from scaling.errors import NotCovered
from scaling.language import Call, Power
from scaling.ledger import Loss
from scaling.rule import Rule
from scaling.sums import contains_damping

Matrix = NDArray[np.float64]
NODES = 64


@dataclass(frozen=True)
class Kernels:
    """E[phi(u) phi(u)^T] and E[phi'(u) phi'(u)^T] as functions of the covariance of u."""

    value: Callable[[Matrix], Matrix]
    slope: Callable[[Matrix], Matrix]


def _angles(cov: Matrix) -> tuple[Matrix, Matrix]:
    """Outer product of standard deviations, and the cosine of every pair."""
    std = np.sqrt(np.diag(cov))
    scale = np.outer(std, std)
    cosine = np.divide(cov, scale, out=np.zeros_like(cov), where=scale > 0)
    return scale, np.clip(cosine, -1, 1)


def _relu(cov: Matrix) -> Matrix:
    scale, cosine = _angles(cov)
    angle = np.arccos(cosine)
    return scale * (np.sin(angle) + (np.pi - angle) * cosine) / (2 * np.pi)


def _relu_slope(cov: Matrix) -> Matrix:
    return (np.pi - np.arccos(_angles(cov)[1])) / (2 * np.pi)


def _erf(cov: Matrix) -> Matrix:
    wide = 1 + 2 * np.diag(cov)
    ratio = np.clip(2 * cov / np.sqrt(np.outer(wide, wide)), -1, 1)
    return 2 / np.pi * np.arcsin(ratio)


def _erf_slope(cov: Matrix) -> Matrix:
    wide = 1 + 2 * np.diag(cov)
    return 4 / np.pi / np.sqrt(np.outer(wide, wide) - 4 * cov**2)


def by_quadrature(phi: Callable[[Matrix], Matrix]) -> Callable[[Matrix], Matrix]:
    """E[phi(u_i) phi(u_j)] for every pair, by Gauss-Hermite quadrature in two dimensions."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
    weights = weights / weights.sum()

    def kernel(cov: Matrix) -> Matrix:
        _, cosine = _angles(cov)
        std = np.sqrt(np.diag(cov))
        n = len(cov)
        result = np.empty((n, n))
        for i in range(n):
            first = phi(std[i] * nodes)
            across = np.sqrt(np.clip(1 - cosine[i] ** 2, 0, None))
            z = cosine[i][:, None, None] * nodes[:, None] + across[:, None, None] * nodes
            second = phi(std[:, None, None] * z) @ weights
            result[i] = second @ (first * weights)
        return (result + result.T) / 2

    return kernel


def _gelu(u: Matrix) -> Matrix:
    from scipy.special import ndtr

    return np.asarray(u * ndtr(u))


def _gelu_slope(u: Matrix) -> Matrix:
    from scipy.special import ndtr

    return np.asarray(ndtr(u) + u * np.exp(-(u**2) / 2) / math.sqrt(2 * math.pi))


KERNELS: Mapping[str, Kernels] = {
    "relu": Kernels(_relu, _relu_slope),
    "erf": Kernels(_erf, _erf_slope),
    "linear": Kernels(lambda cov: cov, lambda cov: np.ones_like(cov)),
    "tanh": Kernels(by_quadrature(np.tanh), by_quadrature(lambda u: 1 / np.cosh(u) ** 2)),
    "gelu": Kernels(by_quadrature(_gelu), by_quadrature(_gelu_slope)),
}


@dataclass(frozen=True)
class Limit:
    """What a layer's Gram matrices and own update tend to, evaluated at a width.

    ``inputs``: H^T H over training samples, then probe samples. ``cotangents``: D^T D over
    training samples. ``own``: RMS of lr dW h on the probe samples.
    """

    inputs: Matrix
    cotangents: Matrix
    own: float


def limits(trial: Trial, constants: Constants, width: int) -> dict[str, Limit]:
    """The limit of every layer, with powers of the width evaluated at ``width``.

    Raises:
        NotCovered: where the limit is random or has no kernel here.
    """
    setting, data = trial.problem.setting, trial.data
    scales = trial.scales(width, constants)
    rule = trial.problem.rule
    if path_of(rule) is not Path.CORE:
        raise NotCovered(f"the entrywise rule {rule}", "an update D C H^T", "measure it")
    output = trial.exponents.b["output"] + trial.exponents.a["output"]
    if any(layer.is_bias for layer in setting.layers) or trial.problem.sampled_fisher:
        raise NotCovered("biases or sampled cotangents", "neither", "leave them out")
    if not bool(output > 1 / 2):
        raise NotCovered(
            f"a + b = {output} in the output layer: the output is random in the limit",
            "a + b > 1/2 there",
            "measure it, or take another b_output",
        )
    kernels = KERNELS[setting.activation.label]
    x = np.concatenate([data.inputs.numpy(), data.probe_inputs.numpy()])
    n = data.samples
    names = [layer.name for layer in setting.layers]
    std = [scales[name].std * scales[name].multiplier for name in names]
    squared = [scales[name].multiplier ** 2 for name in names]
    grams = [x @ x.T]  # h_0^T h_0, then M K_l
    slopes: list[Matrix] = []
    for s in std[:-1]:
        cov = s**2 * grams[-1]
        grams.append(width * kernels.value(cov))
        slopes.append(kernels.slope(cov[:n, :n]))
    delta = _output_cotangents(trial)
    backs = [delta @ delta.T]
    for s, slope in zip(reversed(std[1:]), reversed(slopes), strict=True):
        backs.insert(0, width * slope * s**2 * backs[0])
    sides = [data.features, *[width] * (setting.depth - 1), data.classes]
    return {
        name: _layer(
            trial, name, squared[i] * grams[i], backs[i], (sides[i + 1], sides[i]), scales[name].lr,
            scales[name].dampings,
        )
        for i, name in enumerate(names)
    }  # fmt: skip


def _output_cotangents(trial: Trial) -> Matrix:
    """delta_L at f = 0, (n, classes)."""
    y = trial.data.targets.numpy()
    if trial.problem.setting.loss is Loss.MSE:
        return np.asarray(-y)
    return np.asarray(1 / y.shape[1] - y)


def _layer(
    trial: Trial,
    name: str,
    inputs: Matrix,
    cotangents: Matrix,
    sides: tuple[int, int],
    lr: float,
    dampings: Mapping[str, float],
) -> Limit:
    n = len(cotangents)
    h, d = _root(inputs[:n, :n], sides[1]), _root(cotangents, sides[0])
    rule = trial.problem.rule
    if _discontinuous(rule) and int((d.abs().sum(dim=1) > 0).sum()) < min(n, sides[0]):
        raise NotCovered(
            f"the limit of {rule} in the {name} layer, whose cotangents lose rank in the limit",
            "cotangents of full rank, or a damping: orth and bare powers jump where a singular "
            "value vanishes",
            "measure it, or take samples of different classes",
        )
    exponents = {k: float(v) for k, v in trial.problem.settings.exponents.items()}
    layer = LayerTensors(H=h, D=d, W=torch.zeros(len(d), len(h), dtype=torch.float64), sides=sides)
    update = evaluate(rule, layer, {**trial.values, **exponents, **dampings}, State())
    # D = Q S_D with S_D = d, so dW h_p = Q (update) Q_H^T h_p and Q_H^T h_p = pinv(h)^T H^T h_p
    probe = torch.linalg.pinv(h, rtol=1e-9).T @ torch.from_numpy(inputs[:n, n:])
    moved = update @ probe
    own = lr * float(moved.square().sum() / (sides[0] * probe.shape[1])) ** 0.5
    return Limit(inputs, cotangents, own)


def _discontinuous(rule: Rule) -> bool:
    """Whether the rule treats a vanishing singular value like any other, as orth does."""
    for node in rule.expression.walk():
        if isinstance(node, Call) and node.function == "orth":
            return True
        if isinstance(node, Power) and node.shape.is_square and not contains_damping(node.base):
            return True
    return False


def _root(gram: Matrix, side: int) -> Tensor:
    """R with R^T R = gram: as many rows as the side is long, or as there are samples."""
    n = len(gram)
    values, vectors = np.linalg.eigh((gram + gram.T) / 2)
    values = np.where(values > 1e-13 * values.max(initial=0), values, 0)
    root = np.sqrt(values)[:, None] * vectors.T
    rows = side if side <= 2 * n else n
    return torch.from_numpy(np.concatenate([np.zeros((max(rows - n, 0), n)), root[-rows:]]))
