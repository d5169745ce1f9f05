"""Group 7: what the exponents do not depend on: activation, EMA, loss, Fisher, and the step.

Each variant is derived (the exponents must be those of the plain case) and measured (own and
feature changes must be Theta(1) with them). "ema" averages A and B, or L and R, over steps; "true
Fisher" samples the cotangents of B; t steps are measured as one: the change since the start.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from empirical.claims.claim import PAPER, Claim, Evidence, Finding, Group
from empirical.claims.environment import Environment, Tier
from empirical.claims.exponents import (
    LAYERS,
    PLANTED,
    TableMeasurement,
    measured,
    same_exponents,
    solved,
)
from empirical.claims.figures import Curve, Figure
from scaling.cli.requests import problem_of, problem_with, solution_of

KFAC = "(B + rho_B*I)**(-e_B) @ G @ (A + rho_A*I)**(-e_A)"
KFAC_EMA = "(ema(B, beta) + rho_B*I)**(-e_B) @ ema(G, mu) @ (ema(A, beta) + rho_A*I)**(-e_A)"
SHAMPOO_EMA = "(ema(L, beta) + rho_L*I)**(-e/2) @ G @ (ema(R, beta) + rho_R*I)**(-e/2)"
_KFAC, _SHAMPOO = ("e_A=1", "e_B=1"), ("e=1/2",)


@dataclass(frozen=True)
class Variant:
    """One thing changed."""

    label: str
    rule: str
    plain: str
    settings: tuple[str, ...]
    options: Mapping[str, str] = field(default_factory=dict)
    steps: int = 1
    tier: Tier = Tier.ci


_EMA = (*_KFAC, "beta=0.9", "mu=0.5")
VARIANTS: Mapping[str, tuple[Variant, ...]] = {
    "a": (
        Variant("kfac, tanh", "kfac", "kfac", _KFAC, {"activation": "tanh"}),
        Variant("kfac, gelu", "kfac", "kfac", _KFAC, {"activation": "gelu"}),
        Variant("kfac, erf", "kfac", "kfac", _KFAC, {"activation": "erf"}, 1, Tier.desk),
        Variant("kfac, linear", "kfac", "kfac", _KFAC, {"activation": "linear"}, 1, Tier.desk),
        Variant("shampoo, tanh", "shampoo", "shampoo", _SHAMPOO, {"activation": "tanh"}),
    ),
    "b": (
        Variant("kfac, ema of all", KFAC_EMA, "kfac", _EMA, {}, 2),
        Variant("shampoo, ema", SHAMPOO_EMA, "shampoo", (*_SHAMPOO, "beta=0.9"), {}, 2, Tier.desk),
    ),
    "c": (
        Variant("kfac, cross-entropy", "kfac", "kfac", _KFAC, {"loss": "cross_entropy"}),
        Variant("shampoo, cross-entropy", "shampoo", "shampoo", _SHAMPOO,
                {"loss": "cross_entropy"}),
    ),
    "d": (Variant("kfac, true Fisher", "kfac", "kfac", _KFAC, {"fisher": "true"}),),
    "e": (
        Variant("kfac, t = 3", "kfac", "kfac", _KFAC, {}, 3),
        Variant("kfac, t = 8", "kfac", "kfac", _KFAC, {}, 8, Tier.desk),
        Variant("shampoo, t = 3", "shampoo", "shampoo", _SHAMPOO, {}, 3),
        Variant("shampoo, t = 8", "shampoo", "shampoo", _SHAMPOO, {}, 8, Tier.desk),
    ),
}  # fmt: skip

SUBJECTS = {"a": "activation", "b": "moving average", "c": "loss", "d": "Fisher", "e": "step"}


def _variants(context: Environment, letter: str) -> list[Variant]:
    here = list(Tier).index(context.tier)
    return [v for v in VARIANTS[letter] if list(Tier).index(v.tier) <= here]


def _run(context: Environment, v: Variant) -> TableMeasurement:
    return measured(context, v.label, solved(v.rule, *v.settings, **v.options), v.steps)


def _symbols(v: Variant) -> Finding:
    """The exponents of the variant beside those of the plain rule, under the same powers."""
    plain = solution_of(problem_of(v.plain, [x for x in v.settings if x.startswith("e")]))
    problem = problem_with(v.rule, *v.settings, **v.options)
    return same_exponents(f"{v.label}: the exponents of {v.plain}", plain, solution_of(problem))


def _check(context: Environment, letter: str) -> Evidence:
    found: list[Finding] = []
    curves: list[Curve] = []
    for v in _variants(context, letter):
        run = _run(context, v)
        found += [_symbols(v), *run.findings()]
        curves += [run.curve(f"{v.label}: {x}", x, "feature") for x in LAYERS]
    title = f"dh against width under muP, by {SUBJECTS[letter]}"
    label = "RMS of dh (df of the output)"
    figure = Figure(f"7{letter}", title, "width M", label, tuple(curves), turn=len(LAYERS))
    return Evidence(tuple(found), figures=(figure,))


def _control(context: Environment, letter: str) -> Evidence:
    """Exponents off by 1/4; and that the readout's scale is as indifferent as these are."""
    found = [f for v in _variants(context, letter) for f in _run(context, v).findings(
        planted=PLANTED)]  # fmt: skip
    plain = solution_of(problem_of("kfac", []))
    lazy = solution_of(problem_of("kfac", ["b_output=1/2"]))
    label = "b_output = 1/2 leaves the exponents of kfac as they are"
    return Evidence((*found, same_exponents(label, plain, lazy)))


def _claim(letter: str, title: str, statement: str, reference: str) -> Claim:
    return Claim(
        f"7{letter}",
        title,
        statement,
        f"{PAPER}, {reference}",
        lambda context: _check(context, letter),
        lambda context: _control(context, letter),
    )


GROUP = Group(
    7,
    "what the exponents do not depend on",
    (
        _claim(
            "a",
            "the activation",
            "muP's exponents are the same for every activation.",
            "Prop. 4.1 (text not read in full)",
        ),
        _claim(
            "b",
            "moving averages of gradient and factors",
            "Momentum and EMA of the factors change no exponent.",
            "on EMA and momentum (text not read: secondary source)",
        ),
        _claim(
            "c",
            "squared or cross-entropy loss",
            "The exponents derived for the squared loss hold for cross-entropy.",
            "extension of Prop. 4.1 to cross-entropy (secondary source)",
        ),
        _claim(
            "d",
            "true or empirical Fisher",
            "With dampings that follow the factors, sampled cotangents give the same exponents.",
            "layer-wise Gauss-Newton (secondary source)",
        ),
        _claim(
            "e",
            "the step t",
            "What one step's analysis gives holds for the following steps.",
            "Prop. 4.1 and the measured dh_t (caption read)",
        ),
    ),
)
