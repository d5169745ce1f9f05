"""A black box probed: exponents of its own updates, the rules that it equals, rates that follow.

    c = exponent of RMS(dW h) at one learning rate,  for each of input, hidden, output

Claim.  With weights at the maximal-update scale, a layer's own update is Theta(1) at all widths if
its rate is M^(-c). The exponents are measured, not derived: an interval is printed, and a rational
where the interval holds exactly one whose denominator is at most 4. Rules are compared on two
steps, in numbers (equal_rules.py): a rule that is equal is derived, and says more than a slope.

>>> import torch
>>> probe(torch.optim.SGD, widths=(16, 32, 64), seeds=2).equals
('sgd',)
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch

from empirical.black_box.equal_rules import EqualRule, equal_rules
from empirical.black_box.optimizer_class import as_optimizer, read_optimizer
from empirical.black_box.own_updates import ROLES, degrees, settled, table_of_sizes
from empirical.fit.exponent import Estimate, estimate
from scaling.report.tables import Table
from scaling.sizes.errors import InvalidInput

WIDTHS = (64, 128, 256, 512, 1024)
SEEDS = 5
DENOMINATOR = 4
MEASURED = "measured, not derived"
_LATE = "not compared with rules, which are held against the first two steps: later ones differ"
ROUNDING = 1e-6
"""By so much an interval that has next to no width may miss a fraction."""


@dataclass(frozen=True)
class ProbedRole:
    """The exponent of own updates: a slope, its interval, and a rational where one fits."""

    measured: float
    low: float
    high: float
    rational: Fraction | None

    @classmethod
    def of(cls, found: Estimate) -> ProbedRole:
        """From an estimate."""
        return cls(found.slope, found.low, found.high, snapped(found.low, found.high))


@dataclass(frozen=True)
class Probed:
    """The result of a probe.

    ``layers``: by role. ``equal``: rules, with the numbers at which they are equal. ``degrees``: by
    role, the power of the gradient's size that an update has. ``notes``: what was done and seen.
    ``takes_vectors``: whether it trains tensors of one axis as well.
    """

    optimizer: str
    layers: Mapping[str, ProbedRole]
    equal: tuple[EqualRule, ...]
    degrees: Mapping[str, float]
    widths: tuple[int, ...]
    seeds: int
    seconds: float
    notes: tuple[str, ...] = ()
    takes_vectors: bool = True

    @property
    def equals(self) -> tuple[str, ...]:
        """The names of the rules that it equals."""
        return tuple(one.name for one in self.equal)

    def as_json(self) -> dict[str, Any]:
        """The result as data."""
        layers = {
            role: {
                "measured": x.measured, "low": x.low, "high": x.high,
                "rational": None if x.rational is None else str(x.rational),
            }
            for role, x in self.layers.items()
        }  # fmt: skip
        return {
            "optimizer": self.optimizer, "layers": layers, "equals": list(self.equals),
            "seconds": self.seconds, "notes": list(self.notes),
        }  # fmt: skip

    def table(self) -> Table:
        """The same to be read."""
        rows = tuple(
            (role, f"{x.measured:+.3f} [{x.low:+.3f}, {x.high:+.3f}]", _shown(x.rational))
            for role, x in self.layers.items()
        )
        equals = ", ".join(self.equals) or "none of the catalogue and the ready-made recipes"
        notes = (
            "RMS(dW h) ~ M^x at one learning rate for all widths; c = x: learning rate ~ M^-c",
            f"widths {', '.join(map(str, self.widths))}, {self.seeds} seeds",
            f"equal on its first two steps, up to the unit of lr: {equals}",
            *self.notes,
        )
        columns = ("layer", "x, measured", "c")
        return Table(f"{self.optimizer}: {MEASURED}", columns, rows, notes)


def probe(
    optimizer: type | str,
    kwargs: Mapping[str, Any] | None = None,
    widths: Sequence[int] = WIDTHS,
    seeds: int = SEEDS,
) -> Probed:
    """Probe an optimizer.

    Args:
        optimizer: a class, ``module:Class`` or ``FILE.py:Class``.
        kwargs: its keywords beside the tensors.
        widths: of the chains, rising; a slope takes two, its drift three.
        seeds: how many.

    Raises:
        InvalidInput: for what is no optimizer, keywords it does not take, steps that do not move
            or are not finite, or that it cannot take on matrices.

    >>> import torch
    >>> probe(torch.optim.SGD, {}, widths=(8, 16, 32), seeds=1).equals
    ('sgd',)
    """
    start = time.monotonic()
    given = (
        read_optimizer(optimizer, kwargs)
        if isinstance(optimizer, str)
        else as_optimizer(optimizer, "", kwargs)
    )
    if seeds < 1:
        raise InvalidInput(f"{seeds} seeds", "one seed or more", "pass --seeds 5")
    made, notes = given.without_decay(), [*given.notes]
    if made is not given:
        decay = given.parameters["weight_decay"]
        notes.append(f"weight_decay = 0 in place of {decay:g} where sizes are measured")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        step = settled(made, widths[0])
        sizes = table_of_sizes(made, widths, range(seeds), step.step)
        layers = {role: ProbedRole.of(estimate(widths, sizes[role])) for role in ROLES}
        equal, compared = equal_rules(given) if step.step <= 2 else ([], [_LATE])
        powers = degrees(made, widths[0], step.step)
    notes += [*step.notes, *compared]
    seconds = time.monotonic() - start
    return Probed(
        given.name, layers, tuple(equal), powers, tuple(widths), seeds, seconds, tuple(notes),
        given.takes_vectors(),
    )  # fmt: skip


def snapped(low: float, high: float, most: int = DENOMINATOR) -> Fraction | None:
    """The only fraction in an interval with a denominator of at most ``most``; None if not one.

    >>> snapped(0.45, 0.58), snapped(0.2, 0.6), snapped(0.4, 0.45)
    (Fraction(1, 2), None, None)
    """
    if not (abs(low) < 1e6 and abs(high) < 1e6):
        return None
    low, high = low - ROUNDING, high + ROUNDING
    found = {
        Fraction(p, q)
        for q in range(1, most + 1)
        for p in range(int(low * q) - 1, int(high * q) + 2)
        if low <= p / q <= high
    }
    return found.pop() if len(found) == 1 else None


def _shown(x: Fraction | None) -> str:
    return "open" if x is None else str(x)
