"""How updates meet what they act on, where that is assumed or measured instead of derived.

    |dW h| = fan_in^alpha |dW| |h|      |W dh| = fan_in^omega |W| |dh|      |dW dh|: likewise with u

entry by entry, each exponent between 1/2 (independent, CLT) and 1 (aligned, LLN). This is the
assumption of arXiv 2407.05872. An `Alignment` belongs to one layer and replaces all three
there. It exists only where the fan_in grows with the width: over a fixed length (the input layer,
biases) aligned and independent sums have the same exponent.

What the calculus itself derives for one step, and what u is to it, is in one_step.py.

Not covered, and refused: the second step and gradients at moved weights, since what is assumed of
updates says nothing of how dW^T meets delta.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from sympy import Expr, Max

from scaling.sizes.errors import InvalidInput
from scaling.sizes.scale import HALF

NAMES = ("alpha", "omega", "u")


@dataclass(frozen=True)
class Alignment:
    """Exponents of the fan_in by which updates and changes add up, each in [1/2, 1].

    ``origin`` says where the numbers come from; it is printed and not compared.
    """

    alpha: Expr
    omega: Expr
    u: Expr
    origin: str = field(default="is given", compare=False)

    def __post_init__(self) -> None:
        for name in NAMES:
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

    @property
    def assumption(self) -> str:
        """The line that a derivation carries."""
        return f"{self} {self.origin}"

    def __str__(self) -> str:
        return f"alignment alpha = {self.alpha}, omega = {self.omega}, u = {self.u}"


def as_assumption(alignments: Iterable[Alignment]) -> str:
    """The lines of several layers as one assumption, each once."""
    return "; ".join(dict.fromkeys(x.assumption for x in alignments))
