"""An optimizer, to this project: one declaration, no code.

The update rule is the content; the rest tells a reader what the symbols mean and a measurement
which numbers to start from. Exponents are absent on purpose: they are derived.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property

from scaling.rules.parser import parse
from scaling.rules.rule import Rule


@dataclass(frozen=True)
class Optimizer:
    """An optimizer's declaration.

    Args:
        name: how users call it.
        update: the update rule as text, dW = -learning rate * update.
        about: one line.
        reference: where the rule comes from.
        units: what each symbol is and what it is measured in; ``lr`` is the learning rate.
        exponents: values of the rule's exponent symbols that practice uses; derivations keep
            them symbolic, measurements take these.
        values: constants that practice uses (beta, ...); dampings and decays are set by the
            measurement.
        library: the class that runs the rule, with the options under which its first two steps are
            those of the rule up to the unit of the rate: ``module.Class(key=value)``. Empty where
            no library is held against it (tests/test_catalogue.py).
    """

    name: str
    update: str
    about: str
    reference: str
    units: Mapping[str, str] = field(default_factory=dict)
    exponents: Mapping[str, Fraction] = field(default_factory=dict)
    values: Mapping[str, float] = field(default_factory=dict)
    library: str = ""

    @cached_property
    def rule(self) -> Rule:
        """The update as a rule."""
        return parse(self.update, self.name)
