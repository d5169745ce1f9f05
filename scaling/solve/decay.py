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
update, such as a penalty inside Adam's moments, where it changes the direction of descent: no decay
takes a Theta(1) fraction of the weights away there. The refusal offers the decay beside the rule
(AdamW). Named rho, it is a damping of the gradient, rho W as large as G entry by entry: the penalty
keeps its share of the direction at every width.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import sympy
from sympy import Expr, Symbol

from scaling.calculus.output_change import OutputChange
from scaling.models.chain import Layer
from scaling.rules.rule import Rule
from scaling.rules.symbols import SymbolKind
from scaling.rules.tree import Node
from scaling.rules.tree import Symbol as Name
from scaling.sizes.derivation import CONDITION, Step
from scaling.sizes.errors import NotCovered
from scaling.sizes.scale import Bounds, Order, Scale, Size
from scaling.solve import equations
from scaling.solve.conditions import BALANCED_DECAY, Condition, Place, fixes
from scaling.states.problem import Problem, rate


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
    """The part of a layer's weights that one step takes away; None without a multiple of W."""
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
                f"write '+ {name}*W', name it rho for a damping, or fix it: --set d_{name}=0",
                rule,
            )


def derived_decays(
    problem: Problem, layer: Layer, conditions: tuple[Condition, ...]
) -> list[Symbol]:
    """The exponents of decays that are to be solved for."""
    if not fixes(SymbolKind.DECAY, conditions):
        return []
    given = problem.settings.d
    names = [k for k in problem.rule.decays if (k, layer.name) not in given]
    return [Symbol(f"d_{k}_{layer.name}") for k in names]


def descent(update: OutputChange) -> OutputChange:
    """The update without its multiple of W."""
    nothing = Scale.zero(Size.ENTRY)
    return replace(update, random=update.common or nothing, multiple=Scale.zero(Size.SCALAR))


def following(
    rule: Rule,
    layer: Layer,
    update: OutputChange,
    c: Expr,
    start: Mapping[str, Expr],
    unknown: Sequence[Symbol],
) -> dict[str, Expr]:
    """All of d, with the decays that follow a learning rate M^(-c).

    Raises:
        NotCovered: if a decay does anything but shrink the weights.
    """
    decays_alone(update, unknown, layer.name, rule.expression)
    asked = BALANCED_DECAY.equations(Place(layer, update=update, rate=rate(c)))
    solution = equations.solve(asked, list(unknown), layer)
    return {k: sympy.expand(x.subs(solution)) for k, x in start.items()}


def with_decays(
    rule: Rule, layer: Layer, line: Step, update: OutputChange, c: Expr, d: Mapping[str, Expr]
) -> Step:
    """The derivation of c, followed by that of the decays."""
    for k in rule.decays:
        text = f"{BALANCED_DECAY.name}: {rate(c)} x {update.multiple} = 1"
        line = Step(CONDITION, f"{k} of {layer.name}", rate(d[k]), text, (line,), time=line.time)
    return line
