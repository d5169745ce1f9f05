"""How a number grows: its exponent, read off its values at a few sizes of an axis.

    v = k s^p              exactly                          width, 4*width, head_size**-0.5, 1/depth
    v = (k s + m)^p        an offset, from a third size     3*width + 7, (width + 1)**-0.5
    v = k s^p rounded      to multiples of a whole number   256 * ceil(8/3 * width / 256)
    v ~ s                  of two sizes alone, a length     offset or rounded: no third one to tell

Claim.  An offset and a rounding change no exponent, so each is recognised and named (`Growth.note`)
rather than snapped away. Powers are tried from the plainest on, and the first kind of the three
that fits with any power is taken; values that fit none are refused.

>>> growth((64, 128, 192), (256, 512, 768))
Growth(exponent=Fraction(1, 1), note='')
>>> growth((64, 128, 192), (199, 391, 583))
Growth(exponent=Fraction(1, 1), note='3 s + 7')
>>> growth((64, 128, 256), (256, 512, 768)).note
'rounded to multiples of 256'
>>> growth((16, 64, 256), (0.25, 0.125, 0.0625)).exponent
Fraction(-1, 2)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from scaling.sizes.errors import InvalidInput

POWERS = sorted(
    {Fraction(n, d) for d in (1, 2, 3, 4) for n in range(-3 * d, 3 * d + 1)},
    key=lambda p: (p != 0, p.denominator, abs(p), p < 0),
)
"""Candidates, the plainest first: 0, 1, -1, 2, -2, 3, -3, 1/2, ..."""
PROPORTIONAL = (0.55, 1.45)
"""Powers between two sizes at which a length counts as proportional, up to an offset."""
STEEPEST_OFFERED = 2
STEEPEST_ROUNDED = Fraction(2)
"""Steeper powers fit nearly any numbers within their rounding: 4, 16, 64 at 16, 32, 48."""
TOLERANCE = 1e-6
"""Relative: numbers of the code may have passed through float32."""


@dataclass(frozen=True)
class Growth:
    """The exponent of a number in the size of the axis, and what was seen beside a pure power."""

    exponent: Fraction
    note: str = ""


def growth(sizes: Sequence[int], values: Sequence[float], of: str = "a number") -> Growth:
    """The growth of ``values`` at ``sizes``.

    Args:
        sizes: two or more increasing sizes of the axis.
        values: the number at each, of one sign.
        of: words for it, in a refusal.

    Raises:
        InvalidInput: for values that fit no rational power.
    """
    if len(set(values)) == 1:
        return Growth(Fraction(0))
    if not all(math.isfinite(v) for v in values):
        raise InvalidInput(
            f"{of} that is {_list(values)} at the sizes {_list(sizes)}",
            "a finite one, at every size",
            "look for what makes it so: a division by zero, a logarithm of zero, or an overflow",
        )
    sign = _sign(values)
    if sign:
        found = _fitted(sizes, [sign * v for v in values])
        if found is not None:
            return found
    near, offered = _nearest(sizes, values)
    raise InvalidInput(
        f"{of} that is {_list(values)} at the sizes {_list(sizes)}",
        "one that grows as a rational power of the size, apart from an offset or rounding",
        f"let it grow as s^({near}), for example as {_list(offered)}; or, if it is such a power "
        "rounded, trace at sizes farther apart",
    )


def _nearest(sizes: Sequence[int], values: Sequence[float]) -> tuple[int, list[float]]:
    """The whole power that is nearest to values that fit none, and numbers that grow by it."""
    power = 0
    if _sign(values):
        seen = math.log(values[-1] / values[0]) / math.log(sizes[-1] / sizes[0])
        power = max(-STEEPEST_OFFERED, min(STEEPEST_OFFERED, round(seen)))
    return power, [values[0] * (s / sizes[0]) ** power for s in sizes]


def _sign(values: Sequence[float]) -> int:
    if all(v > 0 for v in values):
        return 1
    return -1 if all(v < 0 for v in values) else 0


def _fitted(sizes: Sequence[int], values: Sequence[float]) -> Growth | None:
    for p in POWERS:
        if _is_constant([v / s ** float(p) for s, v in zip(sizes, values, strict=True)]):
            return Growth(p)
    if len(sizes) < 3:
        return _roughly_proportional(sizes, values)
    for p in POWERS:
        offset = _offset(sizes, values, p) if p else None
        if offset is not None:
            return Growth(p, offset)
    multiple = math.gcd(*(int(v) for v in values)) if all(v == int(v) for v in values) else 0
    powers = [p for p in POWERS if 0 < p <= STEEPEST_ROUNDED and multiple > 1]
    fits = [p for p in powers if _is_rounded(sizes, values, p, multiple)]
    if not fits:
        return None
    one = Fraction(1)
    return Growth(one if one in fits else fits[0], f"rounded to multiples of {multiple}")


def _roughly_proportional(sizes: Sequence[int], values: Sequence[float]) -> Growth | None:
    """Two values of a length that may be offset or rounded."""
    least, most = PROPORTIONAL
    whole = all(v == int(v) for v in values)
    power = math.log(values[-1] / values[0]) / math.log(sizes[-1] / sizes[0])
    if not (whole and least < power < most):
        return None
    return Growth(Fraction(1), f"s^{power:.2f} at two sizes, taken for an offset or a rounding")


def _is_constant(values: Sequence[float]) -> bool:
    return bool(max(values) - min(values) <= TOLERANCE * max(map(abs, values)))


def _offset(sizes: Sequence[int], values: Sequence[float], p: Fraction) -> str | None:
    """The line k s + m that v^(1/p) lies on, as text, if it does at all sizes."""
    try:
        roots = [v ** float(1 / p) for v in values]
    except OverflowError:
        return None
    slope = (roots[-1] - roots[0]) / (sizes[-1] - sizes[0])
    start = roots[0] - slope * sizes[0]
    line = [slope * s + start for s in sizes]
    off = max(abs(x - y) for x, y in zip(line, roots, strict=True))
    if slope <= 0 or off > TOLERANCE * max(roots):
        return None
    text = f"{_plain(slope)} s {'+' if start >= 0 else '-'} {_plain(abs(start))}"
    return text if p == 1 else f"({text})^({p})"


def _is_rounded(sizes: Sequence[int], values: Sequence[float], p: Fraction, multiple: int) -> bool:
    """Whether k s^p is within one multiple of every value, for one k."""
    powers = [s ** float(p) for s in sizes]
    low = max((v - multiple) / x for v, x in zip(values, powers, strict=True))
    high = min((v + multiple) / x for v, x in zip(values, powers, strict=True))
    return bool(low < high and high > 0)


def _plain(x: float) -> str:
    return f"{Fraction(x).limit_denominator(1000)}" if abs(x) < 1e6 else f"{x:g}"


def _list(values: Sequence[float]) -> str:
    return ", ".join(f"{v:g}" for v in values)
