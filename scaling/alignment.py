"""How updates meet what they act on, where that is assumed instead of derived.

    |dW h| = fan_in^alpha |dW| |h|      |W dh| = fan_in^omega |W| |dh|      |dW dh|: likewise with u

entry by entry, each exponent between 1/2 (independent, CLT) and 1 (aligned, LLN). This is the
assumption of arXiv 2407.05872. The calculus derives it for one step: alpha = u = 1 for a rule that
is odd in G, omega = 1/2 in hidden layers and 1 into the output, since dh lies along W_L^T delta.
An `Alignment` replaces all three.
"""

from __future__ import annotations

from dataclasses import dataclass

from sympy import Expr, Max

from scaling.errors import InvalidInput
from scaling.scale import HALF


@dataclass(frozen=True)
class Alignment:
    """Exponents of the fan_in by which updates and changes add up, each in [1/2, 1]."""

    alpha: Expr
    omega: Expr
    u: Expr

    def __post_init__(self) -> None:
        for name in ("alpha", "omega", "u"):
            x = getattr(self, name)
            if not x.is_Rational or not HALF <= x <= 1:
                raise InvalidInput(
                    f"the alignment {name} = {x}",
                    "a number between 1/2 (independent) and 1 (aligned)",
                    "pass --alignment full, none, or three numbers such as 1,1/2,1",
                )

    @property
    def of_update(self) -> Expr:
        """Of an update with what comes in after the step, h + dh."""
        return Max(self.alpha, self.u)

    def __str__(self) -> str:
        return f"alignment alpha = {self.alpha}, omega = {self.omega}, u = {self.u}"
