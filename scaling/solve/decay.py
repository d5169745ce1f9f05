"""Weight decay: how much of the weights one step takes away, and the exponent that keeps it.

    dW = -lr (U + decay W)          one step leaves the fraction 1 - lr decay of W
    decay ~ M^-d, lr ~ M^-c         lr decay = Theta(1)  <=>  d = -c

More generally the random part of an update is m W with some size m (`OutputChange.multiple`): a
decay inside a moving average or times a size factor has its m from the same reading. Balanced decay
asks that lr m = Theta(1), so that the weights forget their initialisation at the same rate at
every width; c comes from the descent U alone, and the decay follows it. For AdamW that is the rule
to keep lr times decay constant (arXiv 2405.13698); gradient descent with a penalty, G + decay W,
has the same equation with its own c.

A decay that is given is taken as it is. A step then takes M^x times the weights away: x < 0, the
decay is negligible and vanishes as the width grows; x > 0, it dominates and overshoots.

Not covered, and refused: a decay that acts through anything but a multiple of W added to the
update, such as a penalty inside Adam's moments, where it changes the direction of descent.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sympy import Symbol

from scaling.calculus.output_change import OutputChange
from scaling.rules.tree import Node
from scaling.rules.tree import Symbol as Name
from scaling.sizes.errors import NotCovered
from scaling.sizes.scale import Bounds, Order, Scale, Size
from scaling.solve.balance import Balance


@dataclass(frozen=True)
class Shrinkage:
    """The part of its weights that a layer loses in one step, lr m = Theta(M^x)."""

    layer: str
    fraction: Scale
    order: Order

    def __str__(self) -> str:
        verdict = {
            Order.LESS: "the decay is negligible",
            Order.EQUAL: "balanced",
            Order.GREATER: "the decay dominates",
            Order.OPEN: "open: depends on the symbols",
        }[self.order]
        return f"a step takes {self.fraction} times the weights away: {verdict}"


def shrinkage(layer: str, update: OutputChange, rate: Scale, bounds: Bounds) -> Shrinkage | None:
    """What one step takes away of a layer's weights; None if the update holds no multiple of W."""
    if update.multiple.is_zero:
        return None
    fraction = rate * update.multiple
    one = Scale.one(Size.SCALAR)
    return Shrinkage(layer, fraction, bounds.order(fraction.width, one.width))


def decays_alone(update: OutputChange, unknowns: Iterable[Symbol], layer: str, rule: Node) -> None:
    """Refuse a rule in which a decay does anything but shrink the weights.

    Raises:
        NotCovered: naming the decay, where the descent depends on it or no multiple of W does.
    """
    for symbol in unknowns:
        acts = symbol in update.multiple.width.free_symbols
        if symbol in update.coherent.width.free_symbols or not acts:
            name = next(
                n for n in rule.walk() if isinstance(n, Name) and f"d_{n}_{layer}" == symbol.name
            )
            raise NotCovered(
                f"the decay '{name}' that is no factor of W alone, in '{rule}' of {layer}",
                "a multiple of W added to the update, such as decay*W",
                f"write '+ {name}*W', name it rho for a damping, or fix it with --set d_{name}=...",
            )


def balanced(update: OutputChange, rate: Scale, rule: Node) -> Balance:
    """Balanced decay as an equation: lr m = 1."""
    return Balance(rule, (rate * update.multiple).width, Scale.one(Size.SCALAR).width)
