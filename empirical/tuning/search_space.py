"""The space of a search, in doublings, and the budget that may be spent in it.

>>> space = read_space("lr=2^-12:2^0, rho_A=1e-4:1")
>>> space.names, space.low[0], space.high[0]
(('lr', 'rho_A'), -12.0, 0.0)
>>> space.at((0.5, 1.0))
{'lr': -6.0, 'rho_A': 0.0}
>>> read_budget("40runs", 100), read_budget("200steps", 100)
(4000, 200)
"""

from __future__ import annotations

import math
import re
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from scaling.models.recipe import RATE, Recipe
from scaling.sizes.errors import InvalidInput, unknown

SPACE = "lr=2^-12:2^0"
Shares = NDArray[np.float64]
Point = Mapping[str, float]
"""log2 of a number, by symbol."""


@dataclass(frozen=True)
class SearchSpace:
    """log2 of the smallest and the largest value of each number.

    Raises:
        InvalidInput: for no number, or an interval that is empty.
    """

    names: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.names:
            raise InvalidInput(
                "an empty space", "at least one number to tune", f"pass --space {SPACE}"
            )
        for name, low, high in zip(self.names, self.low, self.high, strict=True):
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise InvalidInput(
                    f"an empty space: {name}=2^{low:g}:2^{high:g}",
                    "the smaller value first, both positive and different",
                    f"write --space {name}=2^{min(low, high, 0) - 4:g}:2^{max(low, high, 0):g}",
                )

    @property
    def dimension(self) -> int:
        """How many numbers are tuned."""
        return len(self.names)

    @property
    def widths(self) -> Shares:
        """Doublings from the smallest to the largest value, by number."""
        return np.asarray(np.array(self.high) - np.array(self.low), float)

    def at(self, shares: Sequence[float]) -> dict[str, float]:
        """The point at these shares of the way from the smallest to the largest value."""
        found = np.array(self.low) + np.clip(np.asarray(shares, float), 0, 1) * self.widths
        return dict(zip(self.names, map(float, found), strict=True))

    def shares(self, point: Point) -> Shares:
        """The inverse of `at`."""
        places = np.array([point[name] for name in self.names])
        return np.asarray((places - self.low) / self.widths, float)

    def inside(self, point: Point) -> dict[str, float]:
        """The nearest point of the space."""
        return self.at([float(x) for x in self.shares(point)])

    @property
    def centre(self) -> dict[str, float]:
        """The geometric middle."""
        return self.at([0.5] * self.dimension)

    def refuse_unknown(self, recipe: Recipe) -> None:
        """Refuse numbers that no rule of a recipe has.

        Raises:
            InvalidInput: naming the nearest one that it has.
        """
        known = dict.fromkeys((RATE, *recipe.scaled))
        for name in self.names:
            if name not in known:
                refused = unknown("number", name, known)
                near = refused.do_this if "mean" in refused.do_this else self._without(known)
                raise InvalidInput(
                    f"{refused.found} to be tuned, which no rule of '{recipe}' has",
                    refused.needed,
                    near,
                )

    def _without(self, known: Container[str]) -> str:
        """An offer of the numbers that are known."""
        kept = ",".join(row for row in str(self).split(",") if row.partition("=")[0] in known)
        return f"pass --space {kept or SPACE}"

    def __str__(self) -> str:
        rows = zip(self.names, self.low, self.high, strict=True)
        return ",".join(f"{name}=2^{low:g}:2^{high:g}" for name, low, high in rows)


def read_space(text: str) -> SearchSpace:
    """A space from ``lr=2^-12:2^0,rho_A=1e-4:1``.

    Raises:
        InvalidInput: for anything else, a name twice, and an empty interval.
    """
    rows: dict[str, tuple[float, float]] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, equals, interval = (x.strip() for x in part.partition("="))
        low, colon, high = interval.partition(":")
        try:
            if not (equals and colon and name.isidentifier()) or name in rows:
                raise ValueError
            rows[name] = _log2(low), _log2(high)
        except (ValueError, OverflowError):
            raise InvalidInput(
                f"--space {text}, with '{part}'" + (" twice" if name in rows else ""),
                "numbers with a smallest and a largest positive value each",
                f"write for example --space {SPACE} or --space lr=1e-4:1,eps=1e-10:1e-4",
            ) from None
    return SearchSpace(
        tuple(rows), tuple(x for x, _ in rows.values()), tuple(x for _, x in rows.values())
    )


def read_budget(text: str, steps: int) -> int:
    """A budget in steps, from ``200steps`` or ``40runs`` of ``steps`` each.

    Raises:
        InvalidInput: for anything else, and for less than one run.
    """
    found = re.fullmatch(r"(\d+) *(steps?|runs?)", text.strip())
    if found is None:
        raise InvalidInput(
            f"--budget {text}",
            "a whole number of steps or of runs",
            "write --budget 40runs or --budget 2000steps",
        )
    number = int(found[1]) * (steps if found[2].startswith("run") else 1)
    if number < steps:
        raise InvalidInput(
            f"--budget {text}, which is less than one run of {steps} steps",
            "one run at the least",
            f"pass --budget {steps}steps, or fewer --steps",
        )
    return number


def axes_of(space: SearchSpace, runs: int) -> dict[str, list[float]]:
    """The values on each axis of a grid of at most so many points.

    >>> axes_of(read_space("lr=2^-4:2^0, eps=2^-2:2^0"), 10)["lr"]
    [-4.0, -2.0, 0.0]
    """
    count = max(1, int(runs ** (1 / space.dimension) + 1e-9))
    shares = np.linspace(0, 1, count) if count > 1 else np.array([0.5])
    rows = zip(space.names, space.low, space.widths, strict=True)
    return {name: [float(low + x * width) for x in shares] for name, low, width in rows}


def grid_of(space: SearchSpace, runs: int) -> Iterator[dict[str, float]]:
    """The points of such a grid."""
    axes = axes_of(space, runs)
    for values in product(*axes.values()):
        yield dict(zip(axes, values, strict=True))


def _log2(text: str) -> float:
    base, power, exponent = text.strip().partition("^")
    if power:
        if base.strip() != "2":
            raise ValueError
        return float(exponent)
    return math.log2(float(text))
