"""How the tensors of a model start: drawn, zero, one, or numbers of the code.

The model is built twice at the smallest size, under different seeds, and once at every other size.

    zero, one    all entries are
    drawn        entries differ between seeds
    given        entries are the same under every seed: tables, constants, spaced values

A tensor that is not trained keeps the start that the code gives it, so its size M^-b is read off
its root mean square at all sizes. For a drawn one that is a measurement: the nearest power with a
denominator of at most two, and none is taken that lies farther away than the sample allows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction

import torch
from sympy import Expr, Rational
from torch import Tensor

from empirical.trace.aligned import AlignedLeaf
from empirical.trace.export import LeafKind
from empirical.trace.growth import growth
from empirical.trace.model_file import GrowingAxis, ModelFile
from scaling.models.graph import GraphParameter, Start
from scaling.sizes.errors import InvalidInput


def parameters(
    file: ModelFile, axis: GrowingAxis, leaves: Sequence[AlignedLeaf]
) -> tuple[GraphParameter, ...]:
    """The parameters of a model, each with its start.

    Raises:
        InvalidInput: for a frozen tensor whose size fits no power.
    """
    own = [x for x in leaves if x.leaf.kind is LeafKind.PARAMETER]
    one, other = file.two_draws({axis.name: axis.sizes[0]})
    starts = {x.leaf.name: _start(one[x.leaf.name], other[x.leaf.name]) for x in own}
    kept = [x for x in own if starts[x.leaf.name] is Start.GIVEN or not x.leaf.trained]
    larger: list[Mapping[str, Tensor]] = []
    if any(starts[x.leaf.name] in (Start.GIVEN, Start.DRAWN) for x in kept):
        larger = [file.drawn({axis.name: size}, 0) for size in axis.sizes[1:]]
    found = []
    for x in own:
        name, start = x.leaf.name, starts[x.leaf.name]
        of = f"a length of the tensor '{name}'"
        exponents = tuple(_exponent(axis.sizes, n, of) for n in zip(*x.shapes, strict=True))
        b = None
        if x in kept and start in (Start.GIVEN, Start.DRAWN):
            tensors = [one[name], *(values[name] for values in larger)]
            b = -_size(name, axis, tensors, start)
        found.append(GraphParameter(name, exponents, x.leaf.trained, start, b, x.leaf.others))
    return tuple(found)


def _start(one: Tensor, other: Tensor) -> Start:
    if not torch.equal(one, other):
        return Start.DRAWN
    if not one.any():
        return Start.ZERO
    return Start.ONE if bool((one == 1).all()) else Start.GIVEN


def _exponent(sizes: Sequence[int], lengths: Sequence[int], of: str) -> Expr:
    found = growth(sizes, lengths, of).exponent
    return Rational(found.numerator, found.denominator)


def _size(name: str, axis: GrowingAxis, tensors: Sequence[Tensor], start: Start) -> Expr:
    """The exponent of the root mean square of the entries."""
    sizes = [float(x.double().square().mean().sqrt()) for x in tensors]
    if start is Start.GIVEN:
        try:
            exact = growth(axis.sizes, sizes).exponent
            return Rational(exact.numerator, exact.denominator)
        except InvalidInput:
            pass  # a table, whose mean square is no power: as a drawn one
    ratio = math.log(axis.sizes[-1] / axis.sizes[0])
    slope = math.log(sizes[-1] / sizes[0]) / ratio
    nearest = Fraction(round(2 * slope), 2)
    noise = 3 * sum(0.5 / x.numel() for x in (tensors[0], tensors[-1])) ** 0.5 / ratio
    if abs(slope - nearest) > max(noise, 0.05):
        raise InvalidInput(
            f"'{name}', which is not trained and whose entries grow like M^{slope:.2f}",
            "entries that grow as M^(k/2)",
            "train it, or draw it with a power of the size such as width**-0.5",
        )
    return Rational(nearest.numerator, nearest.denominator)
