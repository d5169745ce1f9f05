"""Question and answer: a rule in a setting, and a table of exponents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import sympy
from sympy import Expr, S, Symbol

from scaling.calculus.rank import GROWING_BATCH
from scaling.models.batch import SAMPLES, SLIGHT, BatchGrowth
from scaling.models.chain import Setting
from scaling.models.settings import Settings
from scaling.rules.rule import Rule
from scaling.sizes.errors import InvalidInput, NotCovered
from scaling.sizes.scale import Bounds, Scale, Size

CONVENTION = (
    "weights ~ M^-b, learning rate ~ M^-c, damping ~ M^-d, multiplier M^-a: "
    "a positive exponent means smaller at larger width M"
)


LAST_STEP = 2
GROWS = {
    BatchGrowth.PROPORTIONAL: GROWING_BATCH,
    BatchGrowth.INDEPENDENT: (
        "samples are many, more than outputs and far fewer than neurons, and independent"
    ),
    BatchGrowth.ALIGNED: "samples are many, far fewer than neurons, and their gradients agree",
}


@dataclass(frozen=True)
class Exponents:
    """A parametrization: exponents by layer name (``d`` by layer, then scaled symbol).

    >>> from scaling.solve.derive import derive
    >>> x = derive("sign(G)").exponents
    >>> x.b["hidden"], x.c["hidden"], x.d["hidden"]
    (1/2, 1, {})
    """

    a: Mapping[str, Expr]
    b: Mapping[str, Expr]
    c: Mapping[str, Expr]
    d: Mapping[str, Mapping[str, Expr]]

    def updated(self, settings: Settings) -> Exponents:
        """The same with what the settings fix, taken literally.

        An exponent that was free stands in others under its own name: they follow.
        """
        d = {name: dict(values) for name, values in self.d.items()}
        for (symbol, name), value in settings.d.items():
            d[name][symbol] = value
        fixed = {Symbol(f"b_{name}"): value for name, value in settings.b.items()}
        fixed |= {Symbol(f"c_{name}"): value for name, value in settings.c.items()}
        fixed |= {Symbol(f"d_{k}_{name}"): value for (k, name), value in settings.d.items()}

        def follow(values: Mapping[str, Expr]) -> dict[str, Expr]:
            return {name: sympy.expand(value.subs(fixed)) for name, value in values.items()}

        return Exponents(
            {**self.a, **settings.a},
            follow({**self.b, **settings.b}),
            follow({**self.c, **settings.c}),
            {name: follow(values) for name, values in d.items()},
        )


@dataclass(frozen=True)
class Problem:
    """A rule in a setting: everything that fixes what an exponent means.

    ``preset`` is the part of the settings that names a parametrization: c and d are derived for it
    even where the other settings are taken literally.

    >>> from scaling.rules.parser import parse
    >>> Problem(parse("G")).setting.depth
    3
    """

    rule: Rule
    setting: Setting = field(default_factory=Setting)
    settings: Settings = field(default_factory=Settings)
    sampled_fisher: bool = False
    preset: Settings = field(default_factory=Settings)
    step: int = 1
    """Which step of training exponents speak of: the first, or the second; see second_step.py."""
    rounding_noise: bool = False
    """Zeros in eigenbases as floating point has them; see scaling/calculus/rounding_noise.py."""

    def __post_init__(self) -> None:
        if self.step < 1:
            raise InvalidInput(f"step {self.step}", "a step of training: 1 or 2", "use --step 1")
        if self.step > LAST_STEP:
            raise NotCovered(
                f"step {self.step}",
                f"the sizes after {self.step - 1} steps, W + dW_1 + ... + dW_{self.step - 1}: step "
                f"{LAST_STEP} is the last that is analysed",
                f"use --step {LAST_STEP}, or measure: scaling measure RULE --steps {self.step}",
            )

        if self.setting.batch.grows:
            self._refuse_where_the_batch_grows()

    def _refuse_where_the_batch_grows(self) -> None:
        """See scaling/calculus/rank.py."""
        found = ""
        if self.step > 1:
            found = "the second step"
        elif self.sampled_fisher:
            found = "sampled cotangents, which fill the span of B"
        elif self.rule.ascents and not self.setting.batch.growth.is_alone:
            found = f"the gradient at moved weights, '{self.rule.ascents[0]}'"
        if found:
            raise NotCovered(
                f"{found}, under a batch that grows with the width",
                "the first step of a rule of G, its moments and W",
                "derive it for a fixed batch (--batch fixed)",
            )

    @property
    def assumptions(self) -> tuple[str, ...]:
        """The readings of names in the rule, and how the batch grows if it does."""
        growth = self.setting.batch.growth
        growing = () if growth is BatchGrowth.FIXED else (GROWS[growth],)
        return (*self.rule.assumptions, *growing)

    def bounds(self, extra: Mapping[str, tuple[Expr, Expr]] | None = None) -> Bounds:
        """Exponents of the rule are non-negative."""
        known = {name: (S.Zero, S.Infinity) for name in self.rule.exponents}
        if self.setting.batch.growth.is_alone:
            known[SAMPLES.name] = SLIGHT
        return Bounds({**known, **(extra or {})})


def rate(c: Expr) -> Scale:
    """The size of a learning rate M^(-c)."""
    return Scale.of_width(-c, Size.SCALAR)
