"""The limit itself: what own updates and Gram matrices tend to as the width grows.

At infinite width h_l and delta_l have deterministic second moments over neurons, the kernels

    U_1 = s_1^2 x^T x + v_1^2            K_l = E[phi(u) phi(u)^T],   u ~ N(0, U_l)
    U_{l+1} = s_{l+1}^2 M K_l + v_{l+1}^2    P_l = E[phi'(u) phi'(u)^T]
    T_L = delta_L^T delta_L              S_{l} = s_{l+1}^2 P_l * T_{l+1},   T_l = M S_l

(s_l: the standard deviation of W_l times its multiplier, v_l that of the bias; * entry by entry;
T_l is D_l^T D_l, and M K_l is H_l^T H_l). The rule's n x n core follows from these Gram matrices
alone (the numeric interpreter, told the sides' true lengths, and sums over layers once all layers
are known), and with it the size of dW_l h_{l-1} on the probe. The norm of the weights tends to
s_l sqrt(fan_out fan_in). A bias is a layer whose input is the constant 1.

Closed forms: ReLU (Cho and Saul 2009, arc-cosine kernels of order 1 and 0), erf (Williams 1997),
linear; Gauss-Hermite quadrature for the others.

Not covered: the second step; an output that stays random in the limit (b_output <= 1/2, or its
bias), sampled cotangents (so does B), the norm of a bias of the output (so does it), a decay of the
weights (beta*W beside an update), gradients at moved weights, entrywise rules, eigenbases, and
undamped rules where the limit loses rank: orth(G) of fewer classes than samples jumps there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from empirical.measure.parametrize import LayerScales
from empirical.measure.trial import Constants, Trial
from empirical.numbers.interpreter import FactoredUpdate, LayerReader, State, evaluate_sums
from empirical.numbers.layer_matrices import LayerTensors
from empirical.numbers.layer_values import LayerValue, Rectangular
from empirical.wide.method import Path, path_of
from empirical.wide.span_update import sizes_of_weights
from scaling.models.chain import Loss
from scaling.rules.like_terms import contains_damping
from scaling.rules.operators import FUNCTIONS
from scaling.rules.rule import Rule
from scaling.rules.tree import Call, Node, Power
from scaling.rules.weight_term import parts
from scaling.sizes.errors import NotCovered
from scaling.sizes.scale import HALF

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
    """The limits of a layer's Gram matrices and own update, evaluated at a width.

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
    if any(
        isinstance(node, Call) and FUNCTIONS[node.function].basis for node in rule.expression.walk()
    ):
        raise NotCovered(
            f"the eigenvectors in {rule}, which jump where eigenvalues meet in the limit",
            "a function of eigenvalues",
            "measure it",
        )
    for call in rule.ascents:
        raise NotCovered(
            f"the limit of '{call}', where features and cotangents at moved weights depend on "
            "each other",
            "a rule of what one pass sees",
            "measure it",
        )
    if path_of(rule) is not Path.CORE:
        raise NotCovered(f"the entrywise rule {rule}", "an update D C H^T", "measure it")
    if trial.problem.step > 1:
        raise NotCovered(f"the limit of step {trial.problem.step}", "the first step", "measure it")
    if parts(rule.expression).multiple is not None:
        raise NotCovered(
            f"the multiple of W in {rule}", "an update without a decay of the weights", "measure it"
        )
    if trial.problem.sampled_fisher:
        raise NotCovered(
            "sampled cotangents: B is random in the limit", "the loss's own", "leave --fisher out"
        )
    _refuse_random_output(trial)
    kernels = KERNELS[setting.activation.label]
    x = np.concatenate([data.inputs.numpy(), data.probe_inputs.numpy()])
    n, depth = data.samples, setting.depth
    weights = {layer.position: scales[layer.name] for layer in setting.layers if not layer.is_bias}
    biases = {layer.position: scales[layer.name] for layer in setting.layers if layer.is_bias}
    std = {i: weights[i].std * weights[i].multiplier for i in weights}
    grams = [x @ x.T]  # h_0^T h_0, then M K_l
    slopes: list[Matrix] = []
    for position in range(1, depth):
        offset = biases[position].std if position in biases else 0.0
        cov = std[position] ** 2 * grams[-1] + offset**2
        grams.append(width * kernels.value(cov))
        slopes.append(kernels.slope(cov[:n, :n]))
    delta = _output_cotangents(trial)
    backs = [delta @ delta.T]
    for position in range(depth, 1, -1):
        backs.insert(0, width * slopes[position - 2] * std[position] ** 2 * backs[0])
    sides = [data.features, *[width] * (depth - 1), data.classes]
    inputs, readers = dict[str, Matrix](), dict[str, LayerReader]()
    for layer in setting.layers:
        i, own, name = layer.position, scales[layer.name], layer.name
        inputs[name] = np.ones_like(grams[0]) if layer.is_bias else own.multiplier**2 * grams[i - 1]
        shape = sides[i], 1 if layer.is_bias else sides[i - 1]
        readers[name] = _sight(trial, name, inputs[name][:n, :n], backs[i - 1], shape, own)
    sums = evaluate_sums(rule.sums_over_layers, readers)
    return {
        layer.name: Limit(
            inputs[layer.name],
            backs[layer.position - 1],
            scales[layer.name].lr * _own(rule, readers[layer.name], sums, inputs[layer.name]),
        )
        for layer in setting.layers
    }


def _refuse_random_output(trial: Trial) -> None:
    x = trial.exponents
    for layer in trial.problem.setting.at(trial.problem.setting.depth):
        total, least = x.a[layer.name] + x.b[layer.name], 0 if layer.is_bias else HALF
        if not bool(total > least):
            raise NotCovered(
                f"a + b = {total} in {layer.name}: the output is random in the limit",
                f"a + b > {least} there",
                f"measure it, or take another b_{layer.name}",
            )


def _output_cotangents(trial: Trial) -> Matrix:
    """delta_L at f = 0, (n, classes)."""
    y = trial.data.targets.numpy()
    if trial.problem.setting.loss is Loss.MSE:
        return np.asarray(-y)
    return np.asarray(1 / y.shape[1] - y)


def _sight(
    trial: Trial,
    name: str,
    inputs: Matrix,
    cotangents: Matrix,
    sides: tuple[int, int],
    scales: LayerScales,
) -> LayerReader:
    n = len(cotangents)
    h, d = _root(inputs, sides[1]), _root(cotangents, sides[0])
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
    known = sizes_of_weights([rule.expression], lambda: _norm(name, scales.std, sides), sides)
    values = {**trial.values, **exponents, **scales.scaled}
    return LayerReader(layer, values, State(), known=known)


def _own(rule: Rule, reader: LayerReader, sums: Mapping[Node, LayerValue], inputs: Matrix) -> float:
    """RMS of dW h on the probe samples, for a learning rate of one."""
    told = replace(reader, state=State(), known={**reader.known, **sums})
    (update,) = told.read([rule.expression])
    h, sides = reader.layer.H, reader.layer.sides
    assert isinstance(update, Rectangular), "Rule refuses an expression that is no update"
    assert sides is not None, "roots of Gram matrices are coordinates"
    # D = Q S_D with S_D = d, so dW h_p = Q (update) Q_H^T h_p and Q_H^T h_p = pinv(h)^T H^T h_p
    n = h.shape[1]
    probe = torch.linalg.pinv(h, rtol=1e-9).T @ torch.from_numpy(inputs[:n, n:])
    moved = FactoredUpdate(update) @ probe
    return math.sqrt(float(moved.square().sum()) / (sides[0] * probe.shape[1]))


def _norm(name: str, std: float, sides: tuple[int, int]) -> float:
    if name == "output_bias":
        raise NotCovered(
            "the norm of the bias of the output: few numbers, and random in the limit",
            "weights that grow",
            "measure it, or leave the biases out",
        )
    return std * math.sqrt(math.prod(sides))


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
