"""The parts of a value by the directions of its two sides, and how an operator mixes them.

A side has directions of the gradient's `own`, `twin` ones of the gradient that are weaker, the
`rest` of the data's span, and what is `off` it (models/batch.py). A gradient-like matrix is known
by the size of its portion in every pair of directions, left and right, in units of the largest:

    G                         own x own 1, twin x twin |f|
    an entrywise function     bent: 1 in the span and off it, on every side that it is odd on
    G / (abs(G) + eps)        own x own 1, the others |G|/eps where eps dominates
    f(B) @ X                  each portion times what f(B) is in its directions on the left

On a side on which a value is even, `own` stands for what is constant along it and `off` for what
varies. So what a small eigenvalue off the span makes of X depends on how much of X is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from scaling.models.batch import DataSpan
from scaling.rules.shapes import Dim
from scaling.sizes.scale import Bounds, Scale, Size

ONE = Scale.one(Size.SCALAR)
ZERO = Scale.zero(Size.SCALAR)


class Direction(StrEnum):
    """A kind of direction on one side."""

    OWN = "own"
    TWIN = "twin"
    REST = "rest"
    OFF = "off"


Pair = tuple[Direction, Direction]
OWN, TWIN, REST, OFF = Direction


def index(side: Dim) -> int:
    """Where portions and spans have a side: 0 for fan_out, 1 for fan_in."""
    return 1 if side is Dim.FAN_IN else 0


def kinds(span: DataSpan) -> tuple[Direction, ...]:
    """The kinds of directions that a side has."""
    there = {OWN: True, TWIN: span.twin is not None, REST: span.rest, OFF: span.off}
    return tuple(kind for kind, exists in there.items() if exists)


@dataclass(frozen=True)
class Portions:
    """Sizes by pair of directions, in units of the largest; what is zero is not listed."""

    sizes: tuple[tuple[Pair, Scale], ...] = (((OWN, OWN), ONE),)

    def at(self, side: int, kind: Direction, bounds: Bounds) -> Scale:
        """The largest portion in these directions of the left (0) or right (1) side."""
        return _total((size for pair, size in self.sizes if pair[side] is kind), bounds)

    def is_within(self, side: int) -> bool:
        """Whether nothing lies off the span of the data on a side."""
        return all(pair[side] is not OFF for pair, _ in self.sizes)

    def total(self, bounds: Bounds, weight: Callable[[Pair], Scale] = lambda _: ONE) -> Scale:
        """The largest portion, each times a weight."""
        return _total((size * weight(pair) for pair, size in self.sizes), bounds)

    def swapped(self, side: int, kind: Direction, size: Scale) -> Portions:
        """These portions, and as much of that size in directions of that kind on a side."""
        more = [(_put(pair, side, kind), x * size) for pair, x in self.sizes]
        return portions([*self.sizes, *more], Bounds())


def portions(sizes: Iterable[tuple[Pair, Scale]], bounds: Bounds) -> Portions:
    """Portions, of every pair the largest one."""
    found: dict[Pair, Scale] = {}
    for pair, size in sizes:
        if not size.is_zero:
            found[pair] = found[pair].plus(size, bounds) if pair in found else size
    return Portions(tuple(sorted(found.items())))


def relative(sizes: Iterable[tuple[Pair, Scale]], bounds: Bounds) -> tuple[Portions, Scale]:
    """Portions in units of the largest, and the largest."""
    found = portions(sizes, bounds)
    total = found.total(bounds)
    if total.is_zero:
        return Portions(()), total
    return Portions(tuple((pair, size / total) for pair, size in found.sizes)), total


def bent(
    old: Portions, sides: Iterable[int], spans: tuple[DataSpan, DataSpan], bounds: Bounds,
    left: Scale | None = None,
) -> Portions:  # fmt: skip
    """The portions after a function that is not linear: all directions of these sides alike.

    ``left``: how much of the span lies off it on the left afterwards, where that is known.
    """
    new = list(old.sizes)
    for side in sides:
        there = [OWN, OFF] if spans[side].off else [OWN]
        new = [(_put(pair, side, kind), size) for pair, size in new for kind in there]
    return portions(new if left is None else _leading_off(new, left), bounds)


def _leading_off(sizes: Iterable[tuple[Pair, Scale]], left: Scale) -> list[tuple[Pair, Scale]]:
    """With that much of what lies within the span on the left off it, whatever was off it."""
    within = [(pair, size) for pair, size in sizes if pair[0] is not OFF]
    return [*within, *((_put(pair, 0, OFF), size * left) for pair, size in within)]


def product(
    x: Portions, y: Portions, odd: tuple[bool, bool], spans: tuple[DataSpan, DataSpan],
    bounds: Bounds, left: Scale | None = None,
) -> Portions:  # fmt: skip
    """Of X * Y, entry by entry; ``odd``: on which sides both are odd, so that it bends.

    ``left``: how much of the span lies off it on the left afterwards, where that is known.
    """

    def meet(side: int, one: Direction, other: Direction) -> tuple[Direction, ...]:
        if not odd[side] and OWN in (one, other):
            varying = other if one is OWN else one
            return (varying,) if varying is not OFF else (OWN, OFF) if spans[side].off else (OWN,)
        return (OWN, OFF) if spans[side].off else (OWN,)

    found = [
        ((row, column), s * t)
        for (p, s) in x.sizes
        for (q, t) in y.sizes
        for row in meet(0, p[0], q[0])
        for column in meet(1, p[1], q[1])
    ]
    return relative(found if left is None else _leading_off(found, left), bounds)[0]


def acted(
    old: Portions, side: int, values: Mapping[Direction, Scale],
    mixing: Mapping[tuple[Direction, Direction], Scale], bounds: Bounds,
) -> tuple[Portions, Scale]:  # fmt: skip
    """A square matrix with these eigenvalues on a side: new portions, and by how much all grow.

    ``mixing``: how far directions of one kind lie along another one's in the matrix's own basis.
    """

    def mixed(sizes: Iterable[tuple[Pair, Scale]]) -> list[tuple[Pair, Scale]]:
        found = []
        for pair, size in sizes:
            found.append((pair, size))
            for (source, kind), amount in mixing.items():
                if source is pair[side]:
                    found.append((_put(pair, side, kind), size * amount))
        return list(portions(found, bounds).sizes)

    scaled = [(p, s * values[p[side]].as_size_of(Size.SCALAR)) for p, s in mixed(old.sizes)]
    return relative(mixed(scaled), bounds)


def _put(pair: Pair, side: int, kind: Direction) -> Pair:
    return (kind, pair[1]) if side == 0 else (pair[0], kind)


def _total(sizes: Iterable[Scale], bounds: Bounds) -> Scale:
    total = ZERO
    for size in sizes:
        total = total.plus(size, bounds)
    return total
