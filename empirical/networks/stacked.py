"""Many networks of one shape trained side by side: weights (networks, fan_out, fan_in).

    D = Q_D R_D,  H = Q_H R_H,  R = (X^T X)^(1/2)      coordinates of n samples, batched
    left   c I off the span, core S on it:  Q_D S Q_D^T + c (I - Q_D Q_D^T)      A, L, ... likewise
    dW     Q_D C Q_H^T = D (R_D^+ C R_H^+) H^T

Claim.  A rule whose update is D C H^T (wide/method.py calls it CORE) is a function of n x n
matrices, which batched linear algebra evaluates for all networks at once: the tree is walked once,
not once for every network. The numbers are those of interpreter.py, which the tests compare with.

Cores are float64. A network that is not finite any more is set to zero and marked as lost.

Not covered (`covers` says so, and the caller takes `RuleOptimizer`): layers other than those of
`networks.MLP`, moving averages, blocks, traces and norms of damped matrices, the rest of the
functions of the language.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import TypeAlias

import torch
from torch import Tensor, nn

from empirical.networks import MLP
from empirical.numbers.basis import EIGENVALUE_ZERO
from scaling.rules.dependence import spans
from scaling.rules.operators import (
    FUNCTIONS,
    Extreme,
    OfEntries,
    Reading,
    SpectralSum,
    SumOfEntries,
    Symmetry,
)
from scaling.rules.rule import Rule, evaluate_power
from scaling.rules.shapes import Dim
from scaling.rules.tree import (
    Add,
    Call,
    Divide,
    MatMul,
    Matrix,
    Multiply,
    Negate,
    Node,
    Number,
    Power,
    Subtract,
    Symbol,
    Transpose,
)


@dataclass(frozen=True, eq=False)
class StackedSquare:
    """Symmetric: ``core`` (networks, n, n) on the span of the data, ``off`` times I off it."""

    core: Tensor
    off: Tensor


@dataclass(frozen=True, eq=False)
class StackedSide:
    """One side of a layer: its length, n samples (networks, side, n), and their coordinates."""

    length: int
    x: Tensor

    @cached_property
    def roots(self) -> tuple[Tensor, Tensor]:
        """(X^T X)^(1/2) and its pseudo-inverse, float64."""
        x = self.x.double()
        values, vectors = torch.linalg.eigh(x.mT @ x)
        zero = EIGENVALUE_ZERO * values[..., -1:].clamp(min=torch.finfo(torch.float64).tiny)
        kept = values > zero
        root = torch.where(kept, values, 0).sqrt()
        inverse = torch.where(kept, root.reciprocal(), 0)
        return _compose(vectors, root), _compose(vectors, inverse)


StackedValue: TypeAlias = Tensor | StackedSquare
"""(networks, 1, 1) for a scalar, (networks, n, n) for the core of an update, or a square matrix."""


def covers(model: nn.Module, rule: Rule) -> bool:
    """Whether networks like this one can be trained side by side under a rule.

    >>> from scaling.rules.parser import parse
    >>> covers(MLP(2, 4, 2), parse("G @ (A + rho*I)**(-1)")), covers(MLP(2, 4, 2), parse("sign(G)"))
    (True, False)
    """
    plain = isinstance(model, MLP) and all(x == 1 for x in model.multipliers)
    biased = plain and any(p.dim() == 1 for p in model.parameters())
    return plain and not biased and spans(rule.expression) and _covered(rule.expression)


def _covered(node: Node) -> bool:
    match node:
        case Matrix(name):
            return name != "W"
        case Call("orth", argument):
            return _covered(argument)
        case Call(function, argument):
            reading = FUNCTIONS[function].reading
            if isinstance(reading, OfEntries):
                return _is_power(reading) and argument.shape.is_scalar and _covered(argument)
            if isinstance(reading, Extreme):
                return all(map(_covered, node.children))
            damped = any(isinstance(x, (Add, Subtract)) for x in argument.walk())
            return _is_size(reading) and not damped and _covered(argument)
    return all(map(_covered, node.children))


class Stack:
    """Networks of one shape, their weights and their rates and dampings.

    Args:
        models: the networks at the start, all of one shape.
        rule: an update that `covers` allows.
        lr: layer name -> (networks,).
        values: symbol of the rule -> layer name -> (networks,).
        loss: of one network's output (n, classes) and the targets.
    """

    def __init__(
        self,
        models: Sequence[MLP],
        rule: Rule,
        lr: Mapping[str, Tensor],
        values: Mapping[str, Mapping[str, Tensor]],
        loss: Callable[[Tensor, Tensor], Tensor],
    ) -> None:
        self._names = [f"layers.{i}" for i in range(len(models[0].layers))]
        self._phi = models[0].activation
        self.weights = [
            torch.stack([model.get_parameter(f"{name}.weight").detach() for model in models])
            for name in self._names
        ]
        self._rule, self._lr, self._values = rule, lr, values
        self._loss = torch.vmap(loss, in_dims=(0, None))
        self.lost = torch.zeros(len(models), dtype=torch.bool, device=self.weights[0].device)

    def losses(self, x: Tensor, y: Tensor) -> Tensor:
        """The loss of every network, float64 (networks,); NaN where it is not finite."""
        with torch.no_grad():
            found = self._loss(self._forward(x)[-1], y).double()
        lost = self.lost | ~torch.isfinite(found)
        return torch.where(lost, torch.nan, found).cpu()

    def step(self, x: Tensor, y: Tensor) -> None:
        """One step of every network on a batch (n, features) with targets (n, ...)."""
        inputs, outputs = self._graph(x)
        total = self._loss(outputs[-1], y).sum()
        gradients = torch.autograd.grad(total, outputs)
        with torch.no_grad():
            for i, (h, d) in enumerate(zip(inputs, gradients, strict=True)):
                h, d = h.detach(), len(x) * d
                self._note_lost(h, d)
                alive = ~self.lost[:, None, None]
                left = StackedSide(d.shape[2], torch.where(alive, d, 0).mT)
                right = StackedSide(h.shape[2], torch.where(alive, h, 0).mT)
                core = self._core(left, right, self._names[i])
                lr = self._lr[self._names[i]].double()[:, None, None]
                u = left.x @ (lr * core).to(left.x.dtype)
                self.weights[i].baddbmm_(u, right.x.mT, alpha=-1)

    def _note_lost(self, h: Tensor, d: Tensor) -> None:
        finite = torch.isfinite(h).all(dim=(1, 2)) & torch.isfinite(d).all(dim=(1, 2))
        self.lost |= ~finite

    def _forward(self, x: Tensor) -> list[Tensor]:
        return self._graph(x, track=False)[1]

    def _graph(self, x: Tensor, track: bool = True) -> tuple[list[Tensor], list[Tensor]]:
        """Inputs and outputs (networks, n, fan) of every layer."""
        h, inputs, outputs = x.expand(len(self.lost), *x.shape), [], []
        for weight in self.weights:
            inputs.append(h)
            u = h @ weight.mT
            if track and not u.requires_grad:
                u.requires_grad_()
            outputs.append(u)
            h = self._phi(u)
        return inputs, outputs

    def _core(self, left: StackedSide, right: StackedSide, layer: str) -> Tensor:
        """C with dW = D C H^T, (networks, n, n), float64."""
        (d, d_inverse), (h, h_inverse) = left.roots, right.roots
        n = left.x.shape[2]
        gradient = d @ h.mT / n
        zero = torch.zeros_like(gradient[:, :1, :1])
        matrices: dict[str, StackedValue] = {
            "G": gradient,
            "A": StackedSquare(h @ h.mT / n, zero),
            "B": StackedSquare(d @ d.mT / n, zero),
            "L": StackedSquare(gradient @ gradient.mT, zero),
            "R": StackedSquare(gradient.mT @ gradient, zero),
            "I": torch.ones_like(zero),
        }
        sides = {"fan_out": left.length, "fan_in": right.length}
        symbols = {
            name: table[layer].double()[:, None, None].to(zero.device)
            for name, table in self._values.items()
        }
        symbols |= {name: zero + length for name, length in sides.items()}
        value = _read(self._rule.expression, matrices, symbols, sides)
        assert isinstance(value, Tensor), "Rule refuses an expression that is no update"
        core: Tensor = d_inverse @ value @ h_inverse
        return core


def _read(
    node: Node,
    matrices: Mapping[str, StackedValue],
    symbols: Mapping[str, Tensor],
    sides: Mapping[str, int],
) -> StackedValue:
    operands = [_read(child, matrices, symbols, sides) for child in node.children]
    match node, operands:
        case Matrix(name), []:
            return matrices[name]
        case Symbol(name), []:
            return symbols[name]
        case Number(number), []:
            one = matrices["I"]
            assert isinstance(one, Tensor)
            return float(number) * one
        case Add(), [x, y]:
            return _add(x, y)
        case Subtract(), [x, y]:
            return _add(x, _scale(y, -1.0))
        case Negate(), [x]:
            return _scale(x, -1.0)
        case Multiply() | MatMul(), [x, y]:
            return _multiply(x, y)
        case Divide(), [x, Tensor() as y]:
            return _scale(x, 1 / y)
        case Power(_, p), [x]:
            power = evaluate_power(p, lambda q: _number(q, symbols), symbols.__getitem__)
            return _power(x, power)
        case Transpose(), [x]:
            return x if isinstance(x, StackedSquare) else x.mT
        case Call("orth"), [Tensor() as x]:
            return _orth(x)
        case Call(function), [x, *others]:
            reading = FUNCTIONS[function].reading
            if isinstance(reading, OfEntries) and reading.power is not None:
                assert isinstance(x, Tensor), "a scalar"
                return x ** float(reading.power)
            if isinstance(reading, Extreme):
                assert isinstance(x, Tensor) and isinstance(others[0], Tensor), "two scalars"
                return (torch.maximum if reading.larger else torch.minimum)(x, others[0])
            core = x.core if isinstance(x, StackedSquare) else x
            return _size(reading, core, _entries(node.children[0], sides))[:, None, None]
    raise AssertionError(f"'{node}' must not pass `covers`")


def _number(q: Fraction, symbols: Mapping[str, Tensor]) -> Tensor:
    return torch.full_like(symbols["fan_in"], float(q))


def _entries(node: Node, sides: Mapping[str, int]) -> int:
    named = {Dim.FAN_OUT: sides["fan_out"], Dim.FAN_IN: sides["fan_in"]}
    rows, cols = node.shape.dims
    return named.get(rows, 1) * named.get(cols, 1)


def _add(x: StackedValue, y: StackedValue) -> StackedValue:
    if isinstance(y, StackedSquare) and not isinstance(x, StackedSquare):
        return _add(y, x)
    if isinstance(x, StackedSquare):
        if isinstance(y, StackedSquare):
            return StackedSquare(x.core + y.core, x.off + y.off)
        return StackedSquare(
            x.core + y * _eye(x.core), x.off + y
        )  # y is a multiple of the identity
    assert isinstance(y, Tensor)
    return x + y


def _scale(x: StackedValue, c: Tensor | float) -> StackedValue:
    return StackedSquare(c * x.core, c * x.off) if isinstance(x, StackedSquare) else c * x


def _multiply(x: StackedValue, y: StackedValue) -> StackedValue:
    for one, other in ((x, y), (y, x)):
        if isinstance(one, Tensor) and one.shape[1:] == (1, 1):
            return _scale(other, one)
    if isinstance(x, StackedSquare) and isinstance(y, StackedSquare):
        return StackedSquare(x.core @ y.core, x.off * y.off)
    left = x.core if isinstance(x, StackedSquare) else x
    return left @ (y.core if isinstance(y, StackedSquare) else y)


def _power(x: StackedValue, p: Tensor) -> StackedValue:
    if isinstance(x, Tensor):
        return x**p
    values, vectors = torch.linalg.eigh((x.core + x.core.mT) / 2)
    zero = EIGENVALUE_ZERO * values[..., -1:].abs()
    raised = torch.where(values > zero, values.clamp(min=0) ** p[:, :, 0], 0)
    off = torch.where(x.off > 0, x.off**p, 0)
    return StackedSquare(_compose(vectors, raised), off)


def _orth(core: Tensor) -> Tensor:
    u, s, v = torch.linalg.svd(core)
    kept = s > EIGENVALUE_ZERO**0.5 * s[..., :1]
    polar: Tensor = u @ (kept.to(s.dtype)[..., None] * v)
    return polar


def _is_power(reading: OfEntries) -> bool:
    """Whether a function is x^p of numbers that are not negative, as a root is."""
    return reading.power is not None and reading.symmetry is Symmetry.NONE


def _is_size(reading: Reading | None) -> bool:
    """Whether a core tells the sum: of the spectrum, or of the squares of entries."""
    return reading in (SpectralSum(1), SpectralSum(None)) or (
        isinstance(reading, SumOfEntries) and reading.power == 2
    )


def _size(reading: Reading | None, core: Tensor, entries: int) -> Tensor:
    """The sum (networks,) over the spectrum of a core, or over all entries of its matrix."""
    match reading:
        case SpectralSum(power=1):
            return core.diagonal(dim1=1, dim2=2).sum(dim=1)
        case SpectralSum(power=None):
            largest: Tensor = torch.linalg.matrix_norm(core, 2)
            return largest
        case SumOfEntries(power=2, mean=mean):
            total: Tensor = torch.linalg.matrix_norm(core)
            return total / entries**0.5 if mean else total
    raise AssertionError(f"{reading} must not pass `covers`")


def _compose(vectors: Tensor, values: Tensor) -> Tensor:
    return vectors @ (values[..., None] * vectors.mT)


def _eye(like: Tensor) -> Tensor:
    return torch.eye(like.shape[-1], dtype=like.dtype, device=like.device)
