"""What is asked and what is answered: a rule in a setting, and a table of exponents."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import sympy
from sympy import Expr, S, Symbol

from scaling.calculus.context import Context
from scaling.models.chain import Layer, Loss, Setting
from scaling.models.layer_sizes import Ledger
from scaling.models.settings import Settings
from scaling.rules.rule import Rule
from scaling.sizes.errors import InvalidInput, NotCovered
from scaling.sizes.scale import Bounds, Order, Scale, Size

CONVENTION = (
    "weights ~ M^-b, learning rate ~ M^-c, damping ~ M^-d, multiplier M^-a: "
    "a positive exponent means smaller at larger width M"
)


LAST_STEP = 2


@dataclass(frozen=True)
class Exponents:
    """A parametrization: exponents by layer name (``d`` by layer, then scaled symbol)."""

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
    """

    rule: Rule
    setting: Setting = field(default_factory=Setting)
    settings: Settings = field(default_factory=Settings)
    sampled_fisher: bool = False
    preset: Settings = field(default_factory=Settings)
    step: int = 1
    """Which step of training exponents speak of: the first, or the second; see second_step.py."""

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

    def bounds(self, extra: Mapping[str, tuple[Expr, Expr]] | None = None) -> Bounds:
        """Exponents of the rule are non-negative."""
        known = {name: (S.Zero, S.Infinity) for name in self.rule.exponents}
        return Bounds({**known, **(extra or {})})

    def contexts(
        self, books: Ledger, scaled: Mapping[str, Mapping[str, Expr]], bounds: Bounds
    ) -> dict[str, Context]:
        """The contexts of all layers, each with the others beside it for sums over layers."""
        network: dict[str, Context] = {}
        for layer in self.setting.layers:
            context = self.context(books, layer, scaled[layer.name], bounds)
            network[layer.name] = replace(context, network=network)
        return network

    def context(
        self,
        books: Ledger,
        layer: Layer,
        scaled: Mapping[str, Expr],
        bounds: Bounds,
        unknown: Iterable[Symbol] = (),
    ) -> Context:
        """The context in which the rule is read in one layer."""
        grows = bounds.order(books.features[-1].width, S.Zero) is Order.GREATER
        if self.sampled_fisher and grows and self.setting.loss is Loss.MSE:
            raise NotCovered(
                "sampled cotangents under an output that grows: they do not grow with it",
                "an output of order one, or the loss's own cotangents",
                "raise b_output, or use --fisher empirical",
            )
        return Context(
            books.sizes[layer.name],
            scaled,
            self.settings.exponents,
            bounds,
            frozenset(unknown),
            self.sampled_fisher,
            self.setting.activation,
            self.setting.alignments.get(layer.name),
            ascended={node: sizes[layer.name] for node, sizes in books.ascended.items()},
        )


def rate(c: Expr) -> Scale:
    """The size of a learning rate M^(-c)."""
    return Scale.of_width(-c, Size.SCALAR)
