"""The numbers of every operator and function of the rule language: one row each.

The twin of scaling/rules/operators.py, which has the same names. A function of single entries is a
function of torch; others act on the values of layer_values.py in their cheapest exact form
(algebra.py). Few need more than their operands: powers and averages read symbols and the state of
the optimizer, per-sample squares read other nodes (`Evaluation`).

Not covered: shapes and kinds of operands. The language checks them while a rule is built.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

import torch
from torch import Tensor

from empirical.numbers import algebra
from empirical.numbers.layer_matrices import LayerValues
from empirical.numbers.layer_values import Entries, LayerValue, Rectangular
from empirical.numbers.sample_moments import sample_square
from scaling.rules.tree import Call, Node, Power
from scaling.sizes.errors import InvalidInput

Advance = Callable[[LayerValue], LayerValue]
"""A recursion over the steps: from what it was to what it is."""


class Evaluation(Protocol):
    """A meaning's access to more than the values of its operands."""

    @property
    def layer(self) -> LayerValues:
        """The matrices of the layer."""

    def number(self, power: Node) -> float:
        """The value of an exponent."""

    def remembered(self, node: Node, x: LayerValue, beta: float, debias: bool) -> LayerValue:
        """A moving average, advanced by one step."""

    def advanced(self, node: Node, first: LayerValue, next: Advance) -> LayerValue:
        """A value kept of the step before, advanced by one; ``first`` where there was none."""

    def kept(self, node: Node, x: LayerValue) -> LayerValue:
        """The value kept of the step before, x itself where there was none; x is kept."""

    def at(self, node: Node, sigma: Tensor) -> Tensor:
        """A number of sigma, for each of several singular values, (k,)."""

    def below(self, node: Node) -> LayerValue:
        """The value of another node."""


Values = Sequence[LayerValue]
Meaning = Callable[[Evaluation, Node, Values], LayerValue]


# --- how a meaning is written -------------------------------------------------------------------


def _of_values(function: Callable[..., LayerValue]) -> Meaning:
    """A function of the values of the operands alone."""
    return lambda evaluation, node, x: function(*x)


def _of_entries(function: Callable[..., Tensor]) -> Meaning:
    """A function of torch, entry by entry; of a corner in eigenbases, of it and of the rest."""
    return lambda evaluation, node, x: algebra.by_entry(function, *x)


def _number(x: LayerValue) -> Any:
    """The tensor of a number."""
    assert isinstance(x, Entries) and x.is_scalar, "the language refuses anything else"
    return x.x


def _trust(x: Tensor, y: Tensor) -> Tensor:
    """x/y, and 1 where one of them is zero."""
    known = (x != 0) & (y != 0)
    return torch.where(known, x / torch.where(known, y, torch.ones_like(y)), torch.ones_like(y))


def _refused(why: str, needed: str, do_this: str) -> Meaning:
    def refuse(evaluation: Evaluation, node: Node, x: Values) -> LayerValue:
        raise InvalidInput(f"'{node}', {why}", needed, do_this)

    return refuse


# --- those that need more than their operands ---------------------------------------------------


def _subtract(evaluation: Evaluation, node: Node, x: Values) -> LayerValue:
    first, second = x
    if first is second:  # exactly zero, in whatever form it is kept
        return first.scale(0)
    return algebra.add(first, second.scale(-1))


def _matmul(evaluation: Evaluation, node: Node, x: Values) -> LayerValue:
    return algebra.matmul(x[0], x[1], node.shape)


def _power(evaluation: Evaluation, node: Node, x: Values) -> LayerValue:
    assert isinstance(node, Power), "the row of powers"
    return algebra.power(x[0], evaluation.number(node.power))


def _average(debias: bool) -> Meaning:
    return lambda evaluation, node, x: evaluation.remembered(
        node, x[0], float(_number(x[1])), debias
    )


def _spectral_map(evaluation: Evaluation, node: Node, x: Values) -> LayerValue:
    f = node.children[1]
    return algebra.spectral_map(x[0], lambda sigma: evaluation.at(f, sigma))


def _running_sum(evaluation: Evaluation, node: Node, x: Values) -> LayerValue:
    return evaluation.advanced(node, x[0], lambda old: algebra.accumulated(old, x[0]))


def _previous(evaluation: Evaluation, node: Node, x: Values) -> LayerValue:
    return evaluation.kept(node, x[0])


def _running_max(evaluation: Evaluation, node: Node, x: Values) -> LayerValue:
    new, beta = x[0], _number(x[1])
    return evaluation.advanced(
        node, new, lambda old: algebra.by_entry(torch.maximum, old.scale(beta), new)
    )


def _yogi(evaluation: Evaluation, node: Node, x: Values) -> LayerValue:
    new, rest = x[0], 1 - float(_number(x[1]))
    return evaluation.advanced(
        node, new.scale(rest),
        lambda old: algebra.by_entry(lambda v, g: v + rest * (g - v).sign() * g, old, new),
    )  # fmt: skip


def _largest(x: LayerValue, over: tuple[int, ...]) -> LayerValue:
    assert isinstance(x, Rectangular), "the language refuses entries of anything else"
    largest = x.dense().amax(over, keepdim=True)
    return Entries(largest if len(over) < 2 else largest.reshape(()))


def _sample_square(evaluation: Evaluation, node: Node, x: Values) -> LayerValue:
    assert isinstance(node, Call), "a function"
    return sample_square(node.argument, evaluation.layer, evaluation.below)


# --- the rows -----------------------------------------------------------------------------------

MEANINGS: Mapping[str, Meaning] = MappingProxyType(
    {
        "+": _of_values(algebra.add),
        "-": _subtract,
        "*": _of_values(algebra.multiply),
        "/": _of_values(algebra.divide),
        "@": _matmul,
        "**": _power,
        "neg": _of_values(lambda x: x.scale(-1)),
        ".T": _of_values(lambda x: x.T),
        "sign": _of_entries(torch.sign),
        "abs": _of_entries(torch.abs),
        "sqrt": _of_values(lambda x: algebra.power(x, 0.5)),
        "atan": _of_entries(torch.atan),
        "tanh": _of_entries(torch.tanh),
        "agree": _of_entries(lambda x, y: (x.sign() * y.sign()).clamp(min=0)),
        "clip": _of_values(lambda x, bound: algebra.clip(x, _number(bound))),
        "orth": _of_values(algebra.orth),
        "spectral_map": _spectral_map,
        "project": _of_values(lambda x, r: algebra.project(x, float(_number(r)))),
        "newton_schulz": _of_values(lambda x, n: algebra.newton_schulz(x, int(_number(n)))),
        "polar_express": _of_values(lambda x, n: algebra.polar_express(x, int(_number(n)))),
        "inner": _of_values(algebra.inner),
        "trace": _of_values(algebra.trace),
        "norm": _of_values(lambda x: Entries(x.frobenius_norm())),
        "specnorm": _of_values(lambda x: Entries(x.spectral_norm())),
        "rms": _of_values(lambda x: Entries(x.rms())),
        "diag": _of_values(lambda x: algebra.blocks(x, 1)),
        "block": _of_values(lambda x, size: algebra.blocks(x, int(_number(size)))),
        "row_mean": _of_values(algebra.row_mean),
        "col_mean": _of_values(lambda x: algebra.row_mean(x.T).T),
        "mean": _of_values(lambda x: Entries(x.row_mean().dense().mean())),
        "row_max": _of_values(lambda x: _largest(x, (1,))),
        "col_max": _of_values(lambda x: _largest(x, (0,))),
        "entry_max": _of_values(lambda x: _largest(x, (0, 1))),
        "ema": _average(debias=False),
        "debiased": _average(debias=True),
        "running_sum": _running_sum,
        "previous": _previous,
        "running_max": _running_max,
        "yogi": _yogi,
        "eig": _of_values(algebra.eig),
        "sample_square": _sample_square,
        "max": _of_entries(torch.maximum),
        "min": _of_entries(torch.minimum),
        "trust": _of_entries(_trust),
        "over_layers": _refused(
            "a sum over layers, evaluated on one layer alone",
            "all layers of the network",
            "use evaluate_network, or RuleOptimizer",
        ),
        "ascended": _refused(
            "a gradient at other weights, evaluated on one batch alone",
            "a second forward and backward pass",
            "use RuleOptimizer and pass step a closure",
        ),
    }
)
