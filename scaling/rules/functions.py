"""The functions of the rule language: names, what they accept, what shape they return.

A new function is a row here, a builder in language.py, a rule of inference that read.py names,
a numeric meaning in empirical/numbers/interpreter.py, and a path in empirical/wide/method.py. Until
it has a rule of inference, the calculus refuses it by name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from scaling.rules.shapes import SCALAR, UPDATE, Dim, Shape


@dataclass(frozen=True)
class Function:
    """A function of the language: what it accepts and the shape of what it returns."""

    name: str
    about: str
    accepts: Callable[[Shape], bool]
    needs: str
    result: Callable[[Shape], Shape]
    option: str | None = None
    basis: bool = False
    """Whether the columns of the result are a basis of their own, named after X."""
    average: bool = False
    """Whether it averages X over the steps of training."""

    @property
    def signature(self) -> str:
        """How it is called."""
        return f"{self.name}(X)" if self.option is None else f"{self.name}(X, {self.option})"


def _same(shape: Shape) -> Shape:
    return shape


def _is_matrix(shape: Shape) -> bool:
    return not (shape.is_scalar or shape.is_rotation) and shape.rows is not Dim.ANY


def _entries(shape: Shape) -> bool:
    return shape.is_gradient_like or shape.is_rotated or shape.is_vector or shape.is_scalar


def _averages(shape: Shape) -> bool:
    return shape.rows is not Dim.ANY and not shape.is_rotation


def _square(shape: Shape) -> bool:
    return shape.is_square and shape.rows is not Dim.ANY


def _gradient(shape: Shape) -> bool:
    return shape.is_gradient_like


def _gradient_or_rotated(shape: Shape) -> bool:
    return shape.is_gradient_like or shape.is_rotated


_ENTRIES = "a gradient-like matrix, a vector or a scalar"
_SQUARE = "a square matrix such as A, B, L, R"
_GRADIENT = "a gradient-like matrix"
FUNCTIONS: dict[str, Function] = {
    f.name: f
    for f in (
        Function("sign", "the sign of each entry of X", _entries, _ENTRIES, _same),
        Function("abs", "the absolute value of each entry of X", _entries, _ENTRIES, _same),
        Function(
            "sqrt",
            "the square root of each entry; a square matrix takes X**(1/2)",
            _entries,
            _ENTRIES,
            _same,
        ),
        Function(
            "orth",
            "the polar factor U V^T of X = U S V^T, on the span of X",
            _gradient,
            _GRADIENT,
            _same,
        ),
        Function(
            "newton_schulz",
            "newton_schulz(X, steps): X/norm(X) after so many steps of Muon's quintic iteration",
            _gradient,
            _GRADIENT,
            _same,
            option="steps",
        ),
        Function(
            "inner",
            "inner(X, Y): the sum over entries of X times Y, for X and Y of one shape",
            _gradient,
            _GRADIENT,
            lambda _: SCALAR,
            option="Y",
        ),
        Function(
            "over_layers",
            "over_layers(x): the sum of a scalar over all layers of the network",
            lambda shape: shape.is_scalar,
            "a scalar",
            _same,
        ),
        Function(
            "ascended",
            "ascended(X): the gradient after the weights of every layer have moved by X",
            lambda shape: shape == UPDATE,
            "a change of the weights, fan_out x fan_in",
            _same,
        ),
        Function("atan", "the arctangent of each entry of X", _entries, _ENTRIES, _same),
        Function(
            "clip",
            "clip(X, bound): each entry of X cut off at -bound and bound",
            _entries,
            _ENTRIES,
            _same,
            option="bound",
        ),
        Function(
            "max",
            "max(x, y): the larger of two scalars",
            lambda shape: shape.is_scalar,
            "a scalar",
            lambda _: SCALAR,
            option="y",
        ),
        Function("trace", "the trace of a square X", _square, _SQUARE, lambda _: SCALAR),
        Function("norm", "the Frobenius norm of X", _is_matrix, "a matrix", lambda _: SCALAR),
        Function("specnorm", "the spectral norm of X", _is_matrix, "a matrix", lambda _: SCALAR),
        Function(
            "rms", "the root mean square entry of X", _is_matrix, "a matrix", lambda _: SCALAR
        ),
        Function("diag", "the diagonal part of a square X", _square, _SQUARE, _same),
        Function(
            "row_mean",
            "the mean of each row of X, a column",
            _gradient,
            _GRADIENT,
            lambda s: Shape(s.rows, Dim.ONE),
        ),
        Function(
            "col_mean",
            "the mean of each column of X, a row",
            _gradient,
            _GRADIENT,
            lambda s: Shape(Dim.ONE, s.cols),
        ),
        Function(
            "block",
            "block(X, size): the diagonal blocks of a square X, size x size each",
            _square,
            _SQUARE,
            _same,
            option="size",
        ),
        Function(
            "ema",
            "ema(X, beta): the moving average (1 - beta) sum_t beta^t X_{now - t}",
            _averages,
            "anything but the bare identity or an eigenbasis: average what is rotated",
            _same,
            option="beta",
            average=True,
        ),
        Function(
            "debiased",
            "debiased(X, beta): ema(X, beta) / (1 - beta^t) at step t, so X itself at the first",
            _averages,
            "anything but the bare identity or an eigenbasis: average what is rotated",
            _same,
            option="beta",
            average=True,
        ),
        Function(
            "eig",
            "eig(X): the eigenvectors of a symmetric square X as columns, by falling eigenvalue",
            _square,
            _SQUARE,
            _same,
            basis=True,
        ),
        Function(
            "sample_square",
            "sample_square(X), X linear in G: the mean over samples of the squared entries of X, "
            "each sample's own gradient standing for G",
            _gradient_or_rotated,
            "G between square matrices and eigenbases",
            _same,
        ),
    )
}
