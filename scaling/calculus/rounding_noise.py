"""Zeros in floating point: two readings of what a rule makes of rounding noise.

The claim.  Outside of the corner where the data are, a rotated matrix X = Q^T G P is zero, and in
floating point it is an error of random sign: eps_machine times the size of G. What a rule makes of
it goes like a power of that error, its degree:

    X, X * X, sign(X) * X     degree > 0    vanishes with the precision: zero in either reading
    sign(X), X / sqrt(X * X)  degree 0      `exact`: 0. `noise`: +-1, whatever the precision
    1 / sqrt(abs(X)) * c      degree < 0    `exact`: 0. `noise`: refused, it blows up
    X + eps                                 eps: a constant that is kept exceeds every error

The exact reading says so wherever a value of degree 0 or less, or of errors of two matrices, is
made. In the noise reading the entries of degree 0 fill the matrix, rows and columns of the corner
aside. Rotated back they are independent numbers of random sign, which the data meet through all of
their fan_out rows: dW h gains a random part of entries fan_in^(1/2) |h|, a CLT (`Noisy`).

One side alone.  Where the left side alone is in an eigenbasis, an off-corner row of Q^T G is an
error of the eigenvector, along H, as much as one of the product: how far its signs follow h is up
to the library's routine. That is refused where fan_in grows. The right side alone leaves the
columns that the data meet without noise.

Pseudo-powers.  L**(-p) off the data's span is 0 in theory; in floating point it is the power of an
eigenvalue of either sign that is an error of L. The exact reading says so, that of noise refuses.

References: arXiv 2506.07254 (SPlus, whose code takes such signs). Not covered: noise entry by entry
once it is rotated back, its spectral norm, and two sums of noise.
"""

from __future__ import annotations

from dataclasses import replace

from sympy import Expr

from scaling.calculus import instead
from scaling.calculus.context import Context
from scaling.calculus.values import NOTHING, Aligned, Noisy, Rotated, Rounding, Scalar, Weights
from scaling.rules.shapes import Dim
from scaling.rules.tree import Node
from scaling.sizes.derivation import Step
from scaling.sizes.scale import Size

EXACT = (
    "a rotated matrix is exactly zero outside of the corner of the data, and so is its sign or a "
    "quotient of it there; in floating point it is rounding noise of random sign: divide by "
    "abs(X) + eps, or read it as noise (--rounding noise; in Python rounding_noise=True)"
)
NOISE = (
    "outside of the corner of the data a sign or a quotient of a rotated matrix is that of "
    "rounding noise, random and of order one, whatever the precision"
)
COVERED = "constants beside a rotated matrix, such as eps, are larger than rounding noise"
PSEUDO = (
    "a power of a singular matrix is a pseudo-power, zero where the matrix is; in floating point "
    "it is the power of a rounding error there: add a damping rho*I"
)


def of_power(old: Rounding | None, p: Expr, even: bool) -> Rounding | None:
    """The noise to the power p."""
    if old is None:
        return None
    degree = None if old.degree is None else old.degree * p
    return replace(old, degree=degree, size=old.size**p, positive=old.positive or even)


def of_product(
    x: tuple[Rounding | None, Scalar], y: tuple[Rounding | None, Scalar], square: bool
) -> Rounding | None:
    """The noise of X * Y, each by its noise or by the constant that stands in its place."""
    (one, constant), (two, other) = x, y
    if one is None or two is None:
        noise, number = (one, other) if two is None else (two, constant)
        if noise is None or number.size.is_zero:
            return None
        return replace(noise, size=noise.size * number.size)
    return _times(one, two, square)


def _times(x: Rounding, y: Rounding, square: bool) -> Rounding:
    degree = None if x.degree is None or y.degree is None else x.degree + y.degree
    positive = square or (x.positive and y.positive)
    return Rounding(degree, x.size * y.size, x.of | y.of, x.sides, positive)


def of_quotient(x: Rounding | None, y: Rounding | None, divisor: Scalar) -> Rounding | None:
    """The noise of X / Y, whose degree is known if the errors are those of one matrix."""
    if x is None:
        return None
    if y is None:
        return replace(x, size=x.size / divisor.size)
    known = x.degree is not None and y.degree is not None and x.of == y.of and len(x.of) == 1
    degree = x.degree - y.degree if known else None  # type: ignore[operator]
    return Rounding(degree, x.size / y.size, x.of | y.of, x.sides, x.positive and y.positive)


def of_sum(node: Node, x: Rotated, y: Rotated) -> Rounding | None:
    """The noise of X + Y; a constant covers what vanishes."""
    for noisy, other in ((x, y), (y, x)):
        noise = noisy.rounding
        if noise is not None and other.rounding is None:
            if other.off.size.is_zero:
                return noise
            return None if noise.vanishes else replace(noise, degree=None)
    if x.rounding is None or y.rounding is None:
        return None
    return _plus(node, x.rounding, y.rounding)


def covers(x: Rotated, y: Rotated) -> bool:
    """Whether one of two terms is a constant, and the other one noise that it covers."""
    return any(
        noisy.rounding is not None and other.rounding is None and not other.off.size.is_zero
        for noisy, other in ((x, y), (y, x))
    )


def _plus(node: Node, x: Rounding, y: Rounding) -> Rounding:
    if x.positive and y.positive and x.of == y.of and x.degree == y.degree:
        larger = x if x.size == y.size else None
        if larger is not None:
            return larger
    both = x.vanishes and y.vanishes
    degree = None
    if both and x.degree is not None and y.degree is not None:
        degree = x.degree if bool((y.degree - x.degree).is_nonnegative) else y.degree
    return Rounding(degree, x.size, frozenset({str(node)}), x.sides, x.positive and y.positive)


def told(context: Context, node: Node, value: Rounding | None, step: Step) -> Step:
    """The step, resting on a reading of noise where the value is not zero in every reading.

    Raises:
        NotCovered: in the noise reading, for what blows up or has the errors of two matrices.
    """
    if value is None or value.vanishes or not grows(context, value):
        return step
    if not context.rounding_noise:
        return step.because(EXACT)
    if value.degree != 0:
        raise context.not_covered(
            node,
            "rounding noise outside of the corner of the data, read as noise: it blows up, or its "
            "size is that of the errors of two matrices",
            "a damping or eps, or the exact reading (--rounding exact)",
            instead.damped,
        )
    return step.because(NOISE)


def grows(context: Context, value: Rounding) -> bool:
    """Whether there are more entries outside of the corner as the width grows."""
    return any(context.fan(side).width != 0 for side in value.sides)


def of_pseudo_power(context: Context, node: Node, step: Step) -> Step:
    """The step of a negative power of a singular matrix, resting on its zeros.

    Raises:
        NotCovered: in the noise reading.
    """
    if context.rounding_noise:
        raise context.not_covered(
            node,
            "a negative power of eigenvalues that are rounding noise of either sign",
            "a damping, or the exact reading (--rounding exact)",
            instead.damped,
        )
    return step.because(PSEUDO)


def refuse_in(context: Context, node: Node, value: Rounding | None, where: str) -> None:
    """Refuse noise of order one where a rule would count or cut it, in the noise reading."""
    if not context.rounding_noise or value is None or value.vanishes or not grows(context, value):
        return
    raise context.not_covered(
        node,
        f"rounding noise of order one outside of the corner of the data, {where}",
        "noise that is rotated back first, a divisor abs(X) + eps, or --rounding exact",
        instead.damped,
    )


def rotated_back(
    context: Context, node: Node, value: Aligned, rounding: Rounding | None
) -> Aligned | Noisy:
    """A matrix out of its eigenbases, with the noise that was outside of the corner."""
    if not context.rounding_noise or rounding is None or rounding.vanishes:
        return value
    if not grows(context, rounding):
        return value
    alone = Dim.FAN_IN not in rounding.sides and context.fan(Dim.FAN_IN).width != 0
    if alone and context.fan(Dim.FAN_OUT).width != 0:
        raise context.not_covered(
            node,
            "rounding noise where the left side alone is in an eigenbasis: how far its signs "
            "follow h is decided by the routine that makes the eigenvectors",
            "both sides rotated, a divisor abs(X) + eps, or --rounding exact",
            instead.damped,
        )
    return Noisy(value, rounding.size.as_size_of(Size.ENTRY))


def alone(value: Noisy) -> Weights:
    """The noise alone, as independent entries that are no multiple of W."""
    return Weights(value.noise, multiple=NOTHING, independent=False)
