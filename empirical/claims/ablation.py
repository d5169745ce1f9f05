"""Group 12: what the paper leaves open, settled here: Shampoo's exponents isolated by ablation.

No experiment of the paper isolates the learning-rate exponents of Shampoo. Each ingredient of its
parametrization (e = 1/2) is left out alone here, put back to what does not scale:

    c_input    -1/2 -> 0       c_output  1/2 -> 0        b_output  1 -> 1/2
    d_L, d_R of the input layer  1 -> 0                  d_L, d_R of the output layer  -1 -> 0

For each, the calculus says which sizes are no longer Theta(1), and the measurement must find those
and no others. An ingredient whose absence breaks nothing would be no part of the parametrization.

Convolutions, which the paper has by experiment alone, are claim 12b, in convolution.py.
"""

from __future__ import annotations

from collections.abc import Mapping

from sympy import S

from empirical.claims.claim import PAPER, Claim, Evidence, Finding, Group
from empirical.claims.convolution import CLAIM as CONVOLUTION
from empirical.claims.environment import Environment
from empirical.claims.exponents import LAYERS, TableMeasurement, literal, measured
from empirical.claims.figures import Curve, Figure
from empirical.claims.scaled_damping import MARGIN
from empirical.fit.verdict import Verdict

INGREDIENTS: Mapping[str, tuple[str, ...]] = {
    "c_input": ("c_input=0",),
    "c_output": ("c_output=0",),
    "b_output": ("b_output=1/2",),
    "damping of the input layer": ("d_rho_L_input=0", "d_rho_R_input=0"),
    "damping of the output layer": ("d_rho_L_output=0", "d_rho_R_output=0"),
}
_E = "e=1/2"
_JUDGED = (*((layer, "own") for layer in LAYERS), ("output", "feature"))
"""Where the breaks are looked for, by layer and quantity."""


def _run(context: Environment, name: str) -> TableMeasurement:
    table = literal("shampoo", _E, *INGREDIENTS[name])
    return measured(context, f"without {name}", table, slow=True)


def _broken(run: TableMeasurement) -> list[str]:
    """Sizes that theory has depend on the width, by name."""
    found = [
        f"{quantity} of {layer} ~ M^({x})"
        for layer in LAYERS
        for quantity in ("own", "feature")
        for x in (run.predicted(layer, quantity),)
        if x is not None and x != 0
    ]
    return found + [
        f"rho/lambda({x.term}) of {x.layer} ~ M^({x.ratio[0]})"
        for x in run.damped()
        if x.ratio[0] != 0
    ]


def _evidence(context: Environment, control: bool) -> Evidence:
    """The control says of every check that breaks that it holds."""
    found: list[Finding] = []
    curves: list[Curve] = []
    for name in INGREDIENTS:
        run = _run(context, name)
        broken = _broken(run)
        if not control:
            verdict = Verdict.agree if broken else Verdict.contradict
            shown = "; ".join(broken) or "nothing"
            found.append(Finding(f"{run.label}: breaks", "something", shown, "", verdict))
        for layer, quantity in _JUDGED:
            x = run.predicted(layer, quantity)
            if not control or (x is not None and x != 0):
                shift = -x if control and x is not None else S.Zero
                found += run.findings([quantity], [layer], planted=shift)
        for damped in run.damped():
            x = damped.ratio[0]
            if x != 0 and name != "b_output":  # there lambda_max has the noise of few classes
                found.append(damped.finding("ratio", -x if control else S.Zero, MARGIN))
        curves += [
            run.curve(f"{run.label}: {'dW h' if quantity == 'own' else 'df'} of {layer}", *place)
            for place in _JUDGED
            for layer, quantity in (place,)
            if run.predicted(layer, quantity) not in (None, S.Zero)
        ]
    figure = Figure("12_ablation", "Shampoo with one ingredient left out: what moves", "width M",
                    "RMS", tuple(curves))  # fmt: skip
    return Evidence(tuple(found), figures=() if control else (figure,))


GROUP = Group(
    12,
    "what the paper leaves open",
    (
        Claim(
            "12a",
            "every ingredient of Shampoo's parametrization is needed",
            "Removing c_input, c_output, b_output or a damping's exponent alone makes some size "
            "depend on the width, the one that the calculus names.",
            f"{PAPER}, Prop. 4.1 (no experiment there isolates these; derived here)",
            lambda context: _evidence(context, control=False),
            lambda context: _evidence(context, control=True),
        ),
        CONVOLUTION,
    ),
)
