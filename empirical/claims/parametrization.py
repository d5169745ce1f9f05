"""Group 1: the maximal update parametrization of second-order optimizers (Prop. 4.1, Table 1).

The published exponents are texts here, the statement that is put to the test; ours are derived
from the update rule. The measurement then takes one step with the derived exponents at several
values of the preconditioners' powers e: every layer's own update and every feature change must
be Theta(1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sympy import S

from empirical.claims.claim import PAPER, Claim, Evidence, Finding, Group
from empirical.claims.environment import Environment, Tier
from empirical.claims.exponents import (
    PLANTED,
    at_zero,
    derived,
    measured,
    same_exponents,
    solved,
    symbolic,
)

Published = Mapping[str, Sequence[str]]
_B = ("0", "1/2", "1")
_A_BALANCED, _B_BALANCED = ("0", "-1", "-1"), ("1", "1", "0")
KFAC: Published = {
    "b": _B,
    "c": ("e_B - 1", "e_B - e_A", "1 - e_A"),
    "d_rho_A": _A_BALANCED,
    "d_rho_B": _B_BALANCED,
}
SHAMPOO: Published = {
    "b": _B,
    "c": ("e - 1", "0", "1 - e"),
    "d_rho_L": ("1", "0", "-1"),
    "d_rho_R": ("1", "0", "-1"),
}
SGD: Published = {"b": _B, "c": ("-1", "0", "1")}
FOOF: Published = {"b": _B, "c": ("-1", "-e_A", "1 - e_A"), "d_rho_A": _A_BALANCED}
LEFT: Published = {"b": _B, "c": ("e_B - 1", "e_B", "1"), "d_rho_B": _B_BALANCED}

Powers = Sequence[str]
"""Settings of the exponent symbols, as ``e_A=1``."""


def _runs(context: Environment, usual: Sequence[Powers], more: Sequence[Powers]) -> list[Powers]:
    return [*usual, *([] if context.tier is Tier.ci else more)]


def _claim(
    letter: str,
    title: str,
    statement: str,
    rule: str,
    published: Published,
    usual: Sequence[Powers],
    more: Sequence[Powers] = (),
    extra: Sequence[str] = (),
) -> Claim:
    """``extra``: powers which, set to zero, make gradient descent of the rule."""

    def findings(context: Environment, planted: bool) -> list[Finding]:
        step = PLANTED if planted else S.Zero
        found = symbolic(rule, published, planted=step)
        if extra and not planted:
            label = f"{rule} at {', '.join(f'{e} = 0' for e in extra)} is gradient descent"
            found.append(same_exponents(label, derived("sgd"), at_zero(rule, *extra)))
        for powers in _runs(context, usual, more):
            label = " ".join((rule, *powers))
            found += measured(context, label, solved(rule, *powers)).findings(planted=step)
        return found

    def check(context: Environment) -> Evidence:
        first = _runs(context, usual, more)[0]
        label = " ".join((rule, *first))
        shown = measured(context, label, solved(rule, *first))
        figure = shown.figure(f"1{letter}_{rule}", f"{label}: dh against width, muP")
        return Evidence(tuple(findings(context, planted=False)), figures=(figure,))

    def control(context: Environment) -> Evidence:
        return Evidence(tuple(findings(context, planted=True)))

    return Claim(f"1{letter}", title, statement, f"{PAPER}, Prop. 4.1, Table 1", check, control)


GROUP = Group(
    1,
    "the maximal update parametrization",
    (
        _claim(
            "a",
            "muP of K-FAC, for any powers e_A and e_B",
            "With b = (0, 1/2, 1), learning rates M^-c, c = (e_B - 1, e_B - e_A, 1 - e_A), and "
            "dampings that follow the factors, every layer's features move by Theta(1) in a step.",
            "kfac",
            KFAC,
            [("e_A=1", "e_B=1"), ("e_A=1/2", "e_B=1/4")],
            [("e_A=1/2", "e_B=1/2"), ("e_A=0", "e_B=1"), ("e_A=2", "e_B=1/2")],
            ("e_A", "e_B"),
        ),
        _claim(
            "b",
            "muP of Shampoo, for any power e",
            "With c = (e - 1, 0, 1 - e) for the update L^(-e/2) G R^(-e/2); e = 1/2 in practice.",
            "shampoo",
            SHAMPOO,
            [("e=1/2",), ("e=1",)],
            [("e=1/4",), ("e=2",)],
            ("e",),
        ),
        _claim(
            "c",
            "gradient descent is the row e = 0",
            "At e_A = e_B = 0 (K-FAC) and e = 0 (Shampoo) the exponents are those of muP for SGD.",
            "sgd",
            SGD,
            [()],
        ),
        _claim(
            "d",
            "muP of FOOF",
            "FOOF, the input factor alone, has the exponents of K-FAC at e_B = 0.",
            "foof",
            FOOF,
            [("e_A=1",)],
            [("e_A=1/2",)],
            ("e_A",),
        ),
        _claim(
            "e",
            "muP of the output factor alone",
            "Preconditioning by B alone has the exponents of K-FAC at e_A = 0.",
            "kfac_left_only",
            LEFT,
            [("e_B=1",)],
            [("e_B=1/2",)],
            ("e_B",),
        ),
    ),
)
