"""Group 2: which dampings are valid: those of the order of the factor's eigenvalues.

    A_(l-1) ~ fan_in |h|^2          so d_A = (0, -1, -1)
    B_l ~ fan_out |delta|^2         so d_B = 2 b_output - 1 below the output, 0 in it

(With muP's b_output = 1 that is d_B = 1.) The measured largest eigenvalues are put beside these
exponents. A damping that stays put while its factor moves is then shown to be no valid one: the
ratio of the two grows or falls as a power of the width.
"""

from __future__ import annotations

from sympy import Rational, S

from empirical.claims.claim import PAPER, Claim, Evidence, Finding, Group
from empirical.claims.environment import Environment, Tier
from empirical.claims.exponents import LAYERS, PLANTED, literal, measured, solved, symbolic
from empirical.claims.figures import Figure
from empirical.fit.verdict import Verdict
from scaling.models.settings import exact

READOUTS = ("1", "5/4", "3/2")
"""Values of b_output at which eigenvalues are measured."""
MORE_READOUTS = ("3/4",)
"""More values of b_output, where the widths reach far enough."""
MARGIN = 0.125
"""Half of the smallest step between exponents. Below b_output = 1 the output dies out slowly, as
M^(1/2 - b_output), and with it the drift of lambda_max(B)."""
_POWERS = ("e_A=1", "e_B=1")


def _published(b_output: str, shift: Rational | None = None) -> dict[str, tuple[str, ...]]:
    d = exact(f"2*({b_output}) - 1")
    rows: dict[str, tuple[str, ...]] = {
        "d_rho_A": ("0", "-1", "-1"),
        "d_rho_B": (str(d), str(d), "0"),
    }
    if shift is None:
        return rows
    return {k: tuple(str(exact(x) + shift) for x in row) for k, row in rows.items()}


def _eigenvalues(context: Environment, control: bool) -> list[Finding]:
    """lambda_max of A and B for every readout; the published exponent against the slope."""
    step = PLANTED if control else S.Zero
    found = [] if control else symbolic("kfac", _published("beta"), "b_output=beta")
    for b in (*READOUTS, *(() if context.tier is Tier.ci else MORE_READOUTS)):
        run = measured(context, f"kfac b_output={b}", solved("kfac", f"b_output={b}", *_POWERS))
        published = _published(b)
        for damped in run.damped():
            name = f"d_rho_{damped.term}"
            theirs = -exact(published[name][LAYERS.index(damped.layer)])
            ours, _ = damped.eigenvalue
            if theirs != ours and not control:
                symbol = f"{run.label}: {name} of {damped.layer}"
                found += [Finding(symbol, -theirs, str(-ours), "", Verdict.contradict)]
            found.append(damped.finding("eigenvalue", theirs - ours + step, MARGIN))
    return found


def _check_valid(context: Environment) -> Evidence:
    return Evidence(tuple(_eigenvalues(context, control=False)))


def _control_valid(context: Environment) -> Evidence:
    return Evidence(tuple(_eigenvalues(context, control=True)))


def _fixed(context: Environment, control: bool) -> Evidence:
    """Dampings that do not scale, under muP: rho/lambda is a power of the width."""
    row = literal("kfac", *_POWERS, "d_rho_A=0", "d_rho_B=0")
    run = measured(context, "kfac, constant damping", row)
    moving = [x for x in run.damped() if x.ratio[0] != 0]
    # the control says that a constant damping is valid in these layers
    found = [x.finding("ratio", -x.ratio[0] if control else S.Zero, MARGIN) for x in moving]
    figure = Figure(
        "2b_constant_damping",
        "constant damping over the largest eigenvalue",
        "width M",
        "rho / lambda_max",
        tuple(x.ratio_curve() for x in run.damped()),
    )
    return Evidence(tuple(found), figures=() if control else (figure,))


GROUP = Group(
    2,
    "valid damping scales",
    (
        Claim(
            "2a",
            "a valid damping follows its factor: d_A = (0, -1, -1), d_B = 2 b_output - 1",
            "A damping must scale as the eigenvalues of the factor that it is added to; for a "
            "readout M^-b_output those of B go as M^(1 - 2 b_output) below the output.",
            f"{PAPER}, on valid damping; d_B = 2 b_output - 1 as in the authors' code",
            _check_valid,
            _control_valid,
        ),
        Claim(
            "2b",
            "a constant damping is not valid",
            "A damping that does not scale drowns the shrinking B or vanishes beside the growing "
            "A: the ratio to the largest eigenvalue is a power of the width.",
            f"{PAPER}, on valid damping (text not read in full)",
            lambda context: _fixed(context, control=False),
            lambda context: _fixed(context, control=True),
        ),
    ),
)
