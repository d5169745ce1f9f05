"""Group 8: the order of the preconditioners' eigenvalues is the same all through training.

"Order" is meant in the width: lambda_max of A and B (L and R) at the t-th step, as a power of M,
beside the exponent at the start, which is where the dampings are set. If it moved, a damping that
is valid at the start would stop being so.
"""

from __future__ import annotations

from sympy import S

from empirical.claims.claim import PAPER, Claim, Evidence, Finding, Group
from empirical.claims.environment import Environment, Tier
from empirical.claims.exponents import PLANTED, measured, solved
from empirical.claims.figures import Curve, Figure
from empirical.claims.scaled_damping import MARGIN

RULES = {"kfac": ("e_A=1", "e_B=1"), "shampoo": ("e=1/2",)}
STEPS = {Tier.ci: (1, 3), Tier.desk: (1, 3, 8), Tier.paper: (1, 3, 8, 16)}


SQUARED = {"kfac": 1, "shampoo": 2}
"""L and R are squares of the gradient: what is half an exponent in it is a whole one in them, so
both the margin and what the control plants count twice."""


def _evidence(context: Environment, rule: str, control: bool) -> Evidence:
    found: list[Finding] = []
    curves: list[Curve] = []
    planted = SQUARED[rule] * PLANTED if control else S.Zero
    for t in STEPS[context.tier]:
        run = measured(context, f"{rule}, step {t}", solved(rule, *RULES[rule]), steps=t)
        for x in run.damped():
            found.append(x.finding("eigenvalue", planted, SQUARED[rule] * MARGIN))
            curves.append(x.eigenvalue_curve(f"{x.term} of {x.layer}, step {t}"))
    title = f"{rule}: largest eigenvalues during training"
    figure = Figure(f"8_{rule}", title, "width M", "lambda_max", tuple(curves), turn=6)
    return Evidence(tuple(found), figures=() if control else (figure,))


def _claim(letter: str, rule: str, factors: str) -> Claim:
    return Claim(
        f"8{letter}",
        f"{factors} keep their order in the width through training",
        f"The largest eigenvalues of {factors} at later steps scale as at the start.",
        f"{PAPER}, figure of preconditioner eigenvalues (secondary source)",
        lambda context: _evidence(context, rule, control=False),
        lambda context: _evidence(context, rule, control=True),
    )


GROUP = Group(
    8,
    "eigenvalues of the preconditioners through training",
    (_claim("a", "kfac", "A and B of K-FAC"), _claim("b", "shampoo", "L and R of Shampoo")),
)
