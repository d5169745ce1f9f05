"""Functions of one number, by their behaviour: all that sizes need to know of an activation.

    |f(x)|  = |x|^zero  for small x,   |x|^infinity  for large x,   Theta(1) in between
    |f'(x)| = |x|^slope for small x,   |x|^(infinity - 1) for large x
    parity    f(-x) = -f(x), f(x), or neither: then f(x) has a mean

A bounded function (infinity = 0) saturates where x grows: its slope concentrates on few entries,
which is refused. So is what grows faster than any power (exp).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from sympy import Expr, S


@dataclass(frozen=True)
class EntryFunction:
    """A row: exponents at zero and at infinity, parity, and the exponent of the slope at zero.

    ``parity``: 1 odd, 0 even, None neither. ``infinity``: None for faster than any power.
    ``homogeneous``: f(c x) = c f(x) for every c > 0, so that no scale is singled out.
    """

    zero: Expr
    infinity: Expr | None
    parity: int | None = None
    slope: Expr = S.Zero
    homogeneous: bool = False

    @property
    def saturates(self) -> bool:
        """Whether it has no typical slope at large x."""
        return self.infinity is None or self.infinity == 0


_RECTIFIED = EntryFunction(S.One, S.One)
_KINKED = EntryFunction(S.One, S.One, homogeneous=True)
_ODD = EntryFunction(S.One, S.Zero, 1)
_GATE = EntryFunction(S.Zero, S.Zero)
FUNCTIONS: Mapping[str, EntryFunction] = MappingProxyType(
    {
        **dict.fromkeys(("relu", "leaky_relu"), _KINKED),
        **dict.fromkeys(("gelu", "silu", "elu", "selu", "celu"), _RECTIFIED),
        **dict.fromkeys(("mish", "hardswish", "prelu"), _RECTIFIED),
        **dict.fromkeys(("tanh", "erf", "hardtanh", "softsign", "atan"), _ODD),
        **dict.fromkeys(("clamp", "relu6"), EntryFunction(S.One, S.Zero)),
        **dict.fromkeys(("sigmoid", "hardsigmoid", "clamp away from zero"), _GATE),
        "sin": _ODD,
        "sinh": EntryFunction(S.One, None, 1),
        "cos": EntryFunction(S.Zero, S.Zero, 0, S.One),
        "softplus": EntryFunction(S.Zero, S.One),
        "logsigmoid": EntryFunction(S.Zero, S.One),
        "exp": EntryFunction(S.Zero, None),
        "log": EntryFunction(S.Zero, S.Zero, None, -S.One),
        "log1p": EntryFunction(S.One, S.Zero),
        "expm1": EntryFunction(S.One, None),
        "abs": EntryFunction(S.One, S.One, 0, homogeneous=True),
        "sign": EntryFunction(S.Zero, S.Zero, 1, S.Infinity),
        "linear": EntryFunction(S.One, S.One, 1, homogeneous=True),
    }
)
"""By name. ``log`` of a size M^x is of order log M, here 1."""


def power_function(p: Expr) -> EntryFunction:
    """x^p, of values that are positive where p is no integer.

    >>> power_function(S(2)).parity, power_function(S.Half).parity
    (0, None)
    """
    parity = int(p % 2) if p.is_Integer else None
    return EntryFunction(p, p, parity, p - 1)
