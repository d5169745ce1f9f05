"""Hypervolume of two objectives that are both to be small: the area that a front dominates.

    points (cost, loss) dominate everything above and to the right of them, up to a reference

>>> hypervolume([(1.0, 2.0), (2.0, 1.0)], (3.0, 3.0))
3.0
>>> front([(1.0, 2.0), (2.0, 1.0), (2.0, 2.5)])
[(1.0, 2.0), (2.0, 1.0)]
"""

from __future__ import annotations

from collections.abc import Sequence

Pair = tuple[float, float]


def front(points: Sequence[Pair]) -> list[Pair]:
    """The points that no other dominates, by the first objective."""
    found: list[Pair] = []
    for x, y in sorted(set(points)):
        if not found or y < found[-1][1]:
            found.append((x, y))
    return found


def hypervolume(points: Sequence[Pair], reference: Pair) -> float:
    """The area between the front and the reference."""
    area, top = 0.0, reference[1]
    for x, y in front([p for p in points if p[0] < reference[0] and p[1] < reference[1]]):
        area += (reference[0] - x) * (top - y)
        top = y
    return area
