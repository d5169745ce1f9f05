"""The runs of a transfer: two ways of setting numbers x sizes x rates x seeds.

    plan        every tensor at the numbers that `empirical.plan` has for the size
    standard    the code's own initialisation, and one rate for all tensors at every size

>>> read_rates("2^-4:2^-2"), read_rates("2^-4:2^-3:1/2")
((-4.0, -3.0, -2.0), (-4.0, -3.5, -3.0))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from itertools import product

from scaling.sizes.errors import InvalidInput

RATES = "2^-10:2^0"
FEWEST = 3
"""Rates, and sizes: fewer show neither a minimum nor a law."""


class TransferWay(StrEnum):
    """How the numbers of a model follow its size."""

    plan = "plan"
    standard = "standard"


@dataclass(frozen=True)
class TransferCell:
    """One run; ``log2_rate``: of the learning rate at the base."""

    way: TransferWay
    size: int
    log2_rate: float
    seed: int

    def __str__(self) -> str:
        return f"{self.way}-{self.size}-2^{self.log2_rate:g}-{self.seed}"


def cells_of(sizes: Sequence[int], rates: Sequence[float], seeds: int) -> list[TransferCell]:
    """All runs, those of the smallest size first."""
    return [
        TransferCell(way, size, rate, seed)
        for size, seed, rate, way in product(sizes, range(seeds), rates, TransferWay)
    ]


def read_rates(text: str) -> tuple[float, ...]:
    """log2 of learning rates, from ``2^-10:2^0`` (doublings) or ``2^-10:2^0:1/2`` (half ones).

    Raises:
        InvalidInput: for what are no powers of two, an empty range, or fewer rates than 3.
    """
    first, _, rest = text.partition(":")
    last, _, step = rest.partition(":")
    try:
        low, high = (_exponent(x) for x in (first, last))
        by = Fraction(step.strip() or 1)
        if by <= 0:
            raise ValueError
    except (ValueError, ZeroDivisionError):
        raise InvalidInput(
            f"the rates '{text}'",
            "two powers of two, from the smaller to the larger, and perhaps a step in doublings",
            f"write for example --lr {RATES}, or 2^-10:2^0:1/2",
        ) from None
    rates = tuple(float(low + k * by) for k in range(int((high - low) / by) + 1))
    if high < low or len(rates) < FEWEST:
        raise InvalidInput(
            f"the rates '{text}', which are {len(rates) if high >= low else 0}",
            f"{FEWEST} rates or more, the smaller first: the best one must have neighbours",
            f"write for example --lr {RATES}",
        )
    return rates


def _exponent(text: str) -> Fraction:
    base, power, exponent = text.partition("^")
    if base.strip() != "2" or not power:
        raise ValueError
    return Fraction(exponent.strip())
