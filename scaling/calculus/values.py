"""Values as the order calculus knows them: one small abstract domain per kind of matrix.

    Scalar     a size
    Spectral   a symmetric function of A, B, L, R or I on one side: the size of its eigenvalues on
               the data's span (n directions) and off it
    Aligned    a gradient-like matrix: its gain along the data (how far it stretches h), the size
               of a typical entry, and its parity in delta (left) and in h (right)
    Weights    a multiple of W, independent entries without a direction, and what is added to it
    Vector     a row or column of means
    Rotation   the eigenvectors of a square matrix of one side
    Rotated    a gradient-like matrix with one side or both in such a basis: a corner that holds the
               data, and a constant outside of it
    Noisy      any of Aligned and Weights, with rounding noise beside it

Sizes of different kinds are never mixed: the gain of an Aligned value and its entries are two
facts, and each rule of inference (read.py) says which of them it derives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

from sympy import Expr, S

from scaling.calculus.directions import OFF, OWN, REST, TWIN, Direction, Portions
from scaling.rules.shapes import Dim
from scaling.rules.tree import Node
from scaling.sizes.scale import Scale, Size


class Parity(StrEnum):
    """How a value behaves when its factor (delta on the left, h on the right) flips sign."""

    ODD = "odd"
    EVEN = "even"
    MIXED = "neither odd nor even"

    def times(self, other: Parity) -> Parity:
        """Parity of a product."""
        if Parity.MIXED in (self, other):
            return Parity.MIXED
        return Parity.EVEN if self is other else Parity.ODD

    def plus(self, other: Parity) -> Parity:
        """Parity of a sum."""
        return self if self is other else Parity.MIXED


@dataclass(frozen=True)
class Behaviour:
    """How a value depends on its factor on one side: delta on the left, h on the right.

    ``vanishing``: as an entry x of the factor goes to 0, the value goes to 0 like |x|^vanishing.
    A negative number means that it blows up there: entries are then heavy-tailed. ``centred``: it
    depends on the factor less its mean (centred.py).
    """

    parity: Parity
    vanishing: Expr
    centred: bool = False

    def times(self, other: Behaviour) -> Behaviour:
        """Behaviour of a product, entry by entry."""
        centred = self.centred or other.centred
        return Behaviour(self.parity.times(other.parity), self.vanishing + other.vanishing, centred)

    def reciprocal(self) -> Behaviour:
        """Behaviour of 1/x."""
        return Behaviour(self.parity, -self.vanishing, self.centred)

    def power(self, p: Expr, parity: Parity | None = None) -> Behaviour:
        """Behaviour of a function like |x|^p where x is small."""
        return Behaviour(parity or self.parity, p * self.vanishing, self.centred)

    def alike(self, other: Behaviour) -> bool:
        """Whether both depend on their factor in one way, up to its mean."""
        return (self.parity, self.vanishing) == (other.parity, other.vanishing)


class Known(StrEnum):
    """How the sizes of entries are known, where a few large ones may set a sum over them."""

    TYPICAL = "of a typical one"
    MEAN_SQUARE = "in the mean square alone"
    MEAN = "in the mean alone"


LINEAR = Behaviour(Parity.ODD, S.One)
CONSTANT = Behaviour(Parity.EVEN, S.Zero)
ONE = Scale.one(Size.SCALAR)
NOTHING = Scale.zero(Size.SCALAR)
WHOLE = Portions()


@dataclass(frozen=True)
class Scalar:
    """A number."""

    size: Scale
    positive: bool = True

    @property
    def main(self) -> Scale:
        """The size by which terms of a sum are compared."""
        return self.size


@dataclass(frozen=True)
class Spectral:
    """A symmetric matrix on one side, by the size of its eigenvalues.

    ``on_span``: in the directions of the gradient, ``off_span``: off the data; ``rest`` and
    ``twin``: in what the data have beside (directions.py), as on the span where it is not said.
    ``variation``: how far it is from a multiple of I on the span. ``of_gradient``: made of L or R,
    so that it maps the gradient's directions into themselves. ``tilt``: how far its span lies off
    the data's. ``symmetric`` is False for a product of two different matrices, whose powers are
    not covered.
    ``blocks``: made of pieces of fixed size, so that it turns vectors out of the data's span and
    has of the order of fan eigenvalues of either size. ``vanishing``: the eigenvalues of its pieces
    go to 0 like |x|^vanishing, where x is even near 0: an entry of the factor for a diagonal.
    ``thin``: the singular values of the factor go like |x|^thin there. ``steps``: of training
    that are averaged in it; directions new at the second may be much shorter than those of both.
    ``levelled``: an inverse that raises small eigenvalues, so that their number counts (rank.py).
    ``root``: X of X @ X.T or X.T @ X and what is a function of it.
    """

    side: Dim
    on_span: Scale
    off_span: Scale
    rest: Scale | None = None
    twin: Scale | None = None
    variation: Scale = NOTHING
    of_gradient: bool = False
    tilt: Scale = NOTHING
    symmetric: bool = True
    blocks: bool = False
    vanishing: Expr = S.Zero
    thin: Expr = S.One
    steps: int = 1
    levelled: bool = False
    root: Node | None = None

    @property
    def main(self) -> Scale:
        """The size by which terms of a sum are compared."""
        return self.on_span

    @property
    def contains_data(self) -> bool:
        """Whether the span holds the gradient's own factor (D on the left, H on the right)."""
        return self.tilt.is_zero

    @property
    def eigenvalues(self) -> dict[Direction, Scale]:
        """Their sizes by kind of direction."""
        twin, rest = self.twin or self.on_span, self.rest or self.on_span
        return {OWN: self.on_span, TWIN: twin, REST: rest, OFF: self.off_span}

    def with_eigenvalues(self, of: Callable[[Scale], Scale]) -> Spectral:
        """The same matrix with a function of each eigenvalue."""
        twin, rest = (None if x is None else of(x) for x in (self.twin, self.rest))
        on_span, off_span = of(self.on_span), of(self.off_span)
        return replace(self, on_span=on_span, off_span=off_span, twin=twin, rest=rest)


@dataclass(frozen=True)
class Aligned:
    """A gradient-like matrix that keeps a direction: D C H^T or an entrywise function of it.

    ``gain``: size of its action from the data's input direction to the output direction (a
    spectral size). ``entry``: its typical entry. ``low_rank``: O(1) non-zero singular values.
    ``coherent``: the entries are made by O(1) directions, entry = gain / sqrt(fan_in fan_out) up
    to the means. ``portions``: how much of it lies in which directions. ``positive``: no entry is
    negative. ``monomial``: a product of powers, without sums, so that it vanishes with
    its factors only. ``mixes``: sums over samples or neurons, so that it vanishes elsewhere than G.
    ``aligned_sums``: sums over directions of D and of H alone, so that rows of classes that are not
    drawn still are f.
    ``covers``: nevertheless it vanishes nowhere but where G does. ``crosses``: a difference, which
    vanishes where its terms are equal; ``poles``: the absolute value or a power of one.
    ``turned_by``: whether matrices of the data or of the gradient have acted on its left.
    ``steps``: of training that are averaged in it, so that it vanishes elsewhere than one of them.
    ``levelled``: singular values were made alike, so that entries follow from how many there are.
    ``jumps``: an entrywise function with a jump, so that singular values fade as slowly as a power
    and their number grows with the width. ``known``: how ``entry`` speaks of the entries.
    """

    gain: Scale
    entry: Scale
    left: Behaviour = LINEAR
    right: Behaviour = LINEAR
    low_rank: bool = True
    coherent: bool = True
    portions: Portions = WHOLE
    transposed: bool = False
    positive: bool = False
    monomial: bool = True
    mixes: bool = False
    aligned_sums: bool = False
    covers: bool = False
    steps: int = 1
    turned_by: str = ""
    levelled: bool = False
    poles: bool = False
    crosses: bool = False
    jumps: bool = False
    known: Known = Known.TYPICAL

    @property
    def main(self) -> Scale:
        """The size by which terms of a sum are compared."""
        return self.entry

    @property
    def left_exact(self) -> bool:
        """Whether its left factor lies within the span of D."""
        return self.portions.is_within(0)

    @property
    def right_exact(self) -> bool:
        """Whether its right factor lies within the span of H."""
        return self.portions.is_within(1)

    @property
    def is_linear(self) -> bool:
        """Whether it is odd in delta and in h, so that its directions are those of the data."""
        return self.left.parity is self.right.parity is Parity.ODD

    @property
    def fills_rows(self) -> bool:
        """Whether rows of classes that are not drawn may hold more than a power of f."""
        return self.mixes and not self.aligned_sums

    @property
    def has_holes(self) -> bool:
        """Whether it may vanish where G does not."""
        return self.mixes and not self.covers


@dataclass(frozen=True)
class Weights:
    """A multiple of W, and perhaps a gradient-like matrix beside it.

    ``entry``: of the multiple of W, whose entries are independent and have no direction;
    ``multiple``: its size in units of W. ``aligned``: what is added to it. A function of both is
    of the same kind (weight_entries.py): ``parity`` and ``positive`` are those of the sum,
    ``vanishing`` says how it goes to 0 where a weight does, and ``source`` names the sum that it
    is a function of. ``independent`` is False for a polar factor, whose entries are not.
    """

    entry: Scale
    transposed: bool = False
    multiple: Scale = ONE
    aligned: Aligned | None = None
    parity: Parity = Parity.ODD
    positive: bool = False
    vanishing: Expr = S.One
    independent: bool = True
    source: Node | None = None

    @property
    def main(self) -> Scale:
        """The size by which terms of a sum are compared."""
        return self.entry if self.aligned is None else self.aligned.entry + self.entry

    @property
    def alone(self) -> Weights:
        """The multiple of W alone."""
        return replace(self, aligned=None)


@dataclass(frozen=True)
class Vector:
    """A column (side fan_out) or a row (side fan_in) of means of a gradient-like matrix.

    ``averaged``: how it depends on the sign of the factor that was averaged over. ``bend``: which
    part of it is no multiple of the factor on its side, or no constant where it is even.
    """

    entry: Scale
    side: Dim
    behaviour: Behaviour
    is_row: bool
    averaged: Parity = Parity.EVEN
    positive: bool = False
    monomial: bool = True
    mixes: bool = False
    steps: int = 1
    bend: Scale = NOTHING
    poles: bool = False
    crosses: bool = False

    @property
    def main(self) -> Scale:
        """The size by which terms of a sum are compared."""
        return self.entry


@dataclass(frozen=True)
class Rotation:
    """``factor`` times the eigenvectors of a square matrix, or their transpose.

    ``holds_data``: those with eigenvalues above the rest span all of D or H, and not only the
    gradient's own directions, of which there may be fewer.
    """

    side: Dim
    factor: Scale
    transposed: bool = False
    holds_data: bool = True

    @property
    def main(self) -> Scale:
        """The size by which terms of a sum are compared."""
        return self.factor


@dataclass(frozen=True)
class Rounding:
    """Zeros as floating point has them: ``size`` times a power of a relative error, random signs.

    ``degree``: that power; None where it is not known. Positive, they vanish with the precision;
    at 0 they are of order one, as the sign of an error is; below they blow up. ``of``: the matrices
    whose errors they are, ``sides``: those that are in eigenbases.
    """

    degree: Expr | None
    size: Scale
    of: frozenset[str]
    sides: frozenset[Dim]
    positive: bool = False

    @property
    def vanishes(self) -> bool:
        """Whether they are zeros in the limit of exact arithmetic."""
        return self.degree is not None and bool(self.degree.is_positive)


@dataclass(frozen=True)
class Rotated:
    """A gradient-like matrix whose ``sides`` are in eigenbases: a corner of O(1) rows and columns.

    ``inner``: the corner, as a matrix of a layer whose rotated sides do not grow. ``off``: the
    entries outside of it, all the same number. An entry of the corner that is exactly zero may be
    so at any width (in the eigenbases of G itself the corner is diagonal), so zeros are known by
    the matrices that were rotated, by name: the value is zero wherever one of ``zeros`` is, and
    nowhere but where one of ``poles`` is. ``rounding``: what the zeros outside of the corner are in
    floating point; None where there are none, or constants of the rule.
    """

    inner: Aligned
    off: Scalar
    sides: frozenset[Dim]
    zeros: frozenset[str]
    poles: frozenset[str]
    rounding: Rounding | None = None

    @property
    def main(self) -> Scale:
        """The size by which terms of a sum are compared."""
        return self.inner.entry


@dataclass(frozen=True)
class Noisy:
    """A matrix with rounding noise beside it: independent entries of random sign, of that size."""

    inner: Aligned | Weights
    noise: Scale

    @property
    def main(self) -> Scale:
        """The size by which terms of a sum are compared."""
        return self.inner.main


def times(value: Value, factor: Scale) -> Value:
    """A value times a scalar of size ``factor``."""
    match value:
        case Scalar(size):
            return replace(value, size=size * factor)
        case Spectral():
            return value.with_eigenvalues(lambda x: x * factor)
        case Aligned(gain=gain, entry=entry):
            return replace(value, gain=gain * factor, entry=entry * factor)
        case Weights(entry=entry, multiple=multiple, aligned=aligned):
            if aligned is not None:
                gain = aligned.gain * factor
                aligned = replace(aligned, gain=gain, entry=aligned.entry * factor)
            return replace(value, entry=entry * factor, multiple=multiple * factor, aligned=aligned)
        case Vector(entry=entry):
            return replace(value, entry=entry * factor)
        case Rotation(factor=old):
            return replace(value, factor=old * factor)
        case Rotated(inner, off):
            scaled = replace(inner, gain=inner.gain * factor, entry=inner.entry * factor)
            rounding = value.rounding
            if rounding is not None:
                rounding = replace(rounding, size=rounding.size * factor)
            off = replace(off, size=off.size * factor)
            return replace(value, inner=scaled, off=off, rounding=rounding)
        case Noisy(inner=inside, noise=noise):
            larger = times(inside, factor)
            assert isinstance(larger, Aligned | Weights), "a multiple is of the same kind"
            return Noisy(larger, noise * factor)


Value = Scalar | Spectral | Aligned | Weights | Vector | Rotation | Rotated | Noisy


def parts(value: Value | None) -> tuple[Aligned | None, Weights | None]:
    """The part of an update that follows the gradient, and the multiple of W; None for neither."""
    match value:
        case Aligned():
            return value, None
        case Weights(aligned=aligned):
            return aligned, value.alone
        case Noisy(inner):
            return parts(inner)
    return None, None


def describe(value: Value) -> str:
    """One phrase naming the kind of a value, for messages."""
    match value:
        case Scalar():
            return "a scalar"
        case Spectral(side=side):
            return f"a square matrix on the {side} side"
        case Aligned(left=left):
            return f"a gradient-like matrix, {left.parity} in G"
        case Weights(positive=True):
            return "a positive function of W"
        case Weights(aligned=None):
            return "the Gaussian matrix W"
        case Weights():
            return "a sum of W and a gradient-like matrix"
        case Vector():
            return "a vector of means"
        case Rotation(side):
            return f"eigenvectors on the {side} side"
        case Rotated(inner):
            return f"a rotated matrix, {inner.left.parity} in G"
        case Noisy(inner=inside):
            return f"{describe(inside)} with rounding noise beside it"


def transposed(value: Value) -> Value:
    """The value of X.T."""
    match value:
        case Aligned():
            return replace(value, transposed=not value.transposed)
        case Weights(aligned=aligned):
            flip = not value.transposed
            if aligned is not None:
                aligned = replace(aligned, transposed=not aligned.transposed)
            return replace(value, transposed=flip, aligned=aligned)
        case Vector():
            return replace(value, is_row=not value.is_row)
        case Rotation():
            return replace(value, transposed=not value.transposed)
        case Rotated(inner):
            return replace(value, inner=replace(inner, transposed=not inner.transposed))
        case Noisy(inner=inside):
            turned = transposed(inside)
            assert isinstance(turned, Aligned | Weights), "a transpose is of the same kind"
            return replace(value, inner=turned)
    return value


def signed(value: Value, positive: bool) -> Value:
    """The value of X times a scalar, but for its size: positive only if the scalar is."""
    if isinstance(value, Scalar | Aligned | Vector | Weights):
        return replace(value, positive=value.positive and positive)
    if isinstance(value, Rotated):
        inner = replace(value.inner, positive=value.inner.positive and positive)
        off = replace(value.off, positive=value.off.positive and positive)
        rounding = value.rounding
        if rounding is not None:
            rounding = replace(rounding, positive=rounding.positive and positive)
        return replace(value, inner=inner, off=off, rounding=rounding)
    if isinstance(value, Noisy):
        inside = signed(value.inner, positive)
        assert isinstance(inside, Aligned | Weights), "a signed matrix is of the same kind"
        return replace(value, inner=inside)
    return value
