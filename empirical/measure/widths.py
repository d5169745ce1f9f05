"""Widths as a user writes them: 256, 1e3, 64:4096 (doublings), 64,100,200.

Whole numbers of at least 1; lists rise, and have three widths or more, since two cannot show that
a slope drifts.
"""

from __future__ import annotations

import math

from scaling.sizes.errors import InvalidInput

WIDEST = 10**10
"""Beyond it a step takes hours, whatever the rule."""


def parse_width(text: str) -> int:
    """A width from text: 256 or 1e3.

    Raises:
        InvalidInput: if it is no whole number, below 1 or above `WIDEST`.
    """
    try:
        number = float(text)
        width = int(number)
    except (ValueError, OverflowError):
        number, width = math.nan, 0
    if width != number or not 1 <= width <= WIDEST:
        raise InvalidInput(
            f"the width '{text}'",
            f"a whole number of at least 1, and of at most {WIDEST:,}",
            "pass for example 256 or 1e7",
        )
    return width


def parse_widths(text: str) -> tuple[int, ...]:
    """Widths from ``from:to`` (doublings) or a comma-separated list.

    >>> parse_widths("64:512"), parse_widths("64,100,200")
    ((64, 128, 256, 512), (64, 100, 200))
    """
    if ":" in text:
        low, _, high = text.partition(":")
        first, last = parse_width(low), parse_width(high)
        widths = [first]
        while widths[-1] * 2 <= last:
            widths.append(widths[-1] * 2)
    else:
        widths = [parse_width(part) for part in text.split(",")]
    if sorted(set(widths)) != widths or len(widths) < 3:
        raise InvalidInput(
            f"the widths '{text}'",
            "at least three widths, each larger than the one before",
            "pass for example --widths 64:4096",
        )
    return tuple(widths)
