"""Numbers of samples, classes and features against each other, and the directions they leave.

A side of a layer's matrices has up to four kinds of directions. With r the rank of D and of H,

    own     of the gradient D H^T itself, min(r_D, r_H) of them
    twin    of the gradient too, but weaker by f: two samples of one class have cotangents that
            differ by f alone, so where fewer classes are drawn than D could tell apart, the rest
            of its rank is made by f at the start
    rest    of D (or H) and not of the gradient
    off     of neither

    r_D     min(samples, classes), one less under cross-entropy (softmax(f) - y adds up to zero);
            of a hidden layer all samples, unless its activation is linear
    r_H     min(samples, features) in the input layer and under a linear activation, one for a
            bias, otherwise all samples

Directions off the data exist where a side is longer than its rank. A sample held out overlaps with
what a function of h leaves there by order one (LLN: its h is no linear function of those of the
batch), but by a CLT where the activation is linear, and not at all where the inputs of the batch
then span all features.

The number of samples stays, grows in proportion to the width, or grows alone, after the width has
(M >> n). Then n = M^x with an x above 0 that is smaller than any number (`SAMPLES`), and what
multiplies x in an exponent is the power of n. A mean over samples that are independent is
n^(-1/2) of one sample's, of samples that agree it is as large.

Claimed of data in general position: no sample twice, no two features alike.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from sympy import Rational, S, Symbol

from scaling.sizes.errors import InvalidInput
from scaling.sizes.scale import HALF, Scale, Size

ONE = Scale.one(Size.SCALAR)


class BatchGrowth(StrEnum):
    """The number of samples as the width grows."""

    FIXED = "fixed"
    PROPORTIONAL = "proportional"
    INDEPENDENT = "independent"
    ALIGNED = "aligned"

    @property
    def is_alone(self) -> bool:
        """Whether n grows while the width, already much larger, stays."""
        return self in (BatchGrowth.INDEPENDENT, BatchGrowth.ALIGNED)


SAMPLES = Symbol("log of n")
"""The x of n = M^x, of samples that grow alone; no symbol of a rule bears such a name."""
SLIGHT = Rational(1, 1000), Rational(1, 500)
"""Where x lies: powers of n decide only between equal powers of M."""


@dataclass(frozen=True)
class Batch:
    """The numbers of samples, classes and features; how many classes are ``drawn`` (0: all).

    ``rank``: of the inputs, where features that follow from others leave less than the numbers
    allow (0: they do not). ``growth``: whether the number of samples stays, or is that at a base
    width and grows with the width; see scaling/calculus/rank.py.
    """

    samples: int = 16
    classes: int = 10
    features: int = 64
    drawn: int = 0
    growth: BatchGrowth = BatchGrowth.FIXED
    rank: int = 0

    @property
    def grows(self) -> bool:
        """Whether the number of samples grows, with the width or alone."""
        return self.growth is not BatchGrowth.FIXED

    @property
    def size(self) -> Scale:
        """The number n of samples that grow alone; one otherwise."""
        return Scale.of_width(SAMPLES if self.growth.is_alone else S.Zero, Size.SCALAR)

    @property
    def mean(self) -> Scale:
        """A mean over samples of what has either sign, in units of one sample's."""
        independent = self.growth is BatchGrowth.INDEPENDENT
        return self.size**-HALF if independent else ONE

    @property
    def beside_fixed_sides(self) -> Batch:
        """The numbers beside sides that do not grow: a batch that grows outgrows them."""
        if not self.grows:
            return self
        return replace(self, samples=max(self.samples, self.classes, self.features) + 1)

    def __post_init__(self) -> None:
        if min(self.samples, self.classes, self.features) < 1 or min(self.drawn, self.rank) < 0:
            raise InvalidInput(
                f"a batch of {self.samples} samples, {self.classes} classes, {self.features} "
                f"features and {self.drawn} classes drawn",
                "at least one of each",
                "pass for example Batch(samples=16, classes=10, features=64)",
            )

    @property
    def independent(self) -> int:
        """How many features do not follow from others."""
        return min(self.features, self.rank or self.features)

    @property
    def others(self) -> tuple[Batch, ...]:
        """Batches of the same network that leave other directions: fewer, more, repeated."""
        most = max(self.classes, self.features)
        few, many = max(1, min(self.classes, self.features) // 2), 2 * most
        twice = max(2, min(self.different, self.classes) // 2)
        return (
            replace(self, samples=few, drawn=0, rank=0),
            replace(self, samples=many, drawn=0, rank=0),
            replace(self, samples=max(self.samples, 2 * twice), drawn=twice),
        )

    @property
    def different(self) -> int:
        """How many classes the samples have: as many as there can be, unless it is said."""
        return min(self.samples, self.classes, self.drawn or self.samples)

    def __str__(self) -> str:
        drawn = min(self.different, self.classes)
        classes = f"all {self.classes}" if drawn == self.classes else f"{drawn} of {self.classes}"
        return f"{self.samples} samples of {classes} classes, with {self.features} features"


@dataclass(frozen=True)
class DataSpan:
    """The directions of one side beside the gradient's own.

    ``twin``: how weak the gradient is in directions made by the output f, None if there are none.
    ``rest``, ``off``: whether there are others within the span of the data, and off it.
    ``faint``: whether f alone makes some entries, or differences of entries: those of classes that
    are not drawn. ``bend``: how small these entries are, where they alone lie off the span (squared
    error): as small is what a smooth function of entries leads there.
    ``rank``: of D or of H. ``overlap``: of a sample held out with what lies off the span.
    """

    rank: int
    twin: Scale | None = None
    rest: bool = False
    off: bool = True
    overlap: Scale = ONE
    faint: bool = False
    bend: Scale | None = None


def data_spans(
    batch: Batch,
    *,
    below: int,
    above: int,
    grows: tuple[bool, bool],
    linear: bool,
    sums_to_zero: bool,
    output: Scale,
    is_bias: bool = False,
) -> tuple[DataSpan, DataSpan]:
    """The spans of the fan_out and of the fan_in side of a layer.

    ``below`` and ``above`` count the weights before and behind it, ``grows`` says which of fan_in
    and fan_out grow with the width, ``sums_to_zero`` that cotangents do so over the classes, and
    ``output`` is the size of f.
    """
    n, grows_in, grows_out = batch.samples, *grows
    room = batch.classes - sums_to_zero
    follows_output = above == 0 or linear
    r_d = min(n, room) if follows_output else n
    drawn = min(batch.different, room) if follows_output else n
    alike = output.is_zero or not output.width.is_number or output.width < 0
    main = drawn if alike else r_d
    r_d = main if output.is_zero else r_d
    r_h = 1 if is_bias else min(n, batch.independent) if below == 0 or linear else n
    own, both = min(main, r_h), min(r_d, r_h)
    twin = output.as_size_of(Size.SCALAR) if both > own else None
    fan_in = None if grows_in else 1 if is_bias else batch.features
    fan_out = None if grows_out else batch.classes
    overlap = ONE
    if grows_in and linear:  # every h is the same linear function of the inputs
        spanned = below > 0 and r_h == batch.independent
        overlap = Scale.zero(Size.SCALAR) if spanned else Scale.of_width(-HALF, Size.SCALAR)
    # of classes that are not drawn, f alone makes the entries, or how far they differ by softmax
    undrawn = above == 0 and batch.classes - batch.different > (1 if sums_to_zero else 0)
    faint = alike and undrawn
    bend = output.as_size_of(Size.SCALAR) if faint and not sums_to_zero else None
    off = fan_out is None or fan_out > r_d
    left = DataSpan(r_d, twin, r_d > both, off, faint=faint, bend=bend)
    right = DataSpan(r_h, twin, r_h > both, fan_in is None or fan_in > r_h, overlap)
    return left, right
