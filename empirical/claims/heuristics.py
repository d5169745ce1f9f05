"""Group 4: damping heuristics, measured as rho/lambda_max against width, layer by layer.

    pi split         rho_A = sqrt(rho) pi, rho_B = sqrt(rho)/pi,
                     pi^2 = (tr A/dim A)/(tr B/dim B)                  (Martens and Grosse 2015)
    trace-relative   rho_A = rho tr A, rho_B = rho tr B
    largest          rho_X = rho lambda_max(X)                         Shampoo's usual one

A damping scales rightly where the ratio is M^0. Each heuristic is written into the update rule;
the calculus then gives the exponent of the ratio in every layer, wrong ones included.
"""

from __future__ import annotations

from sympy import S

from empirical.claims.claim import PAPER, Claim, Evidence, Finding, Group
from empirical.claims.environment import Environment
from empirical.claims.exponents import PLANTED, Damped, TableMeasurement, measured, solved
from empirical.claims.figures import Figure
from empirical.fit.verdict import Verdict

_PI = "sqrt(trace(A)*fan_out/(trace(B)*fan_in))"
PI_SPLIT = f"(B + rho/{_PI}*I)**(-1) @ G @ (A + rho*{_PI}*I)**(-1)"
"""``rho`` stands for the square root of the product of the two dampings, a constant."""
TRACE = "(B + rho_B*trace(B)*I)**(-1) @ G @ (A + rho_A*trace(A)*I)**(-1)"
LARGEST = "(L + rho_L*specnorm(L)*I)**(-1/4) @ G @ (R + rho_R*specnorm(R)*I)**(-1/4)"
_CONSTANT = {PI_SPLIT: ("d_rho=0",), TRACE: (), LARGEST: ()}
_NAMES = {PI_SPLIT: "pi split", TRACE: "trace-relative", LARGEST: "Shampoo, relative"}


def _run(context: Environment, rule: str) -> TableMeasurement:
    return measured(context, _NAMES[rule], solved(rule, *_CONSTANT[rule]))


def _figure(name: str, run: TableMeasurement) -> Figure:
    title = f"{run.label}: damping over the largest eigenvalue"
    curves = tuple(x.ratio_curve() for x in run.damped())
    return Figure(name, title, "width M", "rho / lambda_max", curves)


def _right(places: list[Damped]) -> list[Finding]:
    """The ratio is predicted to be M^0, and measured to be."""
    found = []
    for x in places:
        finding = x.finding("ratio")
        if x.ratio[0] != 0:
            text = f"{x.of.label}: rho/lambda({x.term}) of {x.layer} is derived as M^({x.ratio[0]})"
            found.append(Finding(text, S.Zero, str(x.ratio[0]), "", Verdict.contradict))
        found.append(finding)
    return found


def _hidden(context: Environment) -> Evidence:
    run = _run(context, PI_SPLIT)
    return Evidence(tuple(_right([x for x in run.damped() if x.layer == "hidden"])))


def _ends(context: Environment, control: bool) -> Evidence:
    """A's damping at both ends is off by a power of the width; the control says that it is not."""
    run = _run(context, PI_SPLIT)
    found = []
    for x in run.damped():
        if x.layer == "hidden" or str(x.term) != "A":
            continue
        wrong = x.ratio[0] != 0
        found.append(x.finding("ratio", planted=-x.ratio[0] if control else S.Zero))
        if not wrong:
            text = f"{run.label}: rho/lambda({x.term}) of {x.layer} is derived as M^0"
            found.append(Finding(text, "not 0", "0", "", Verdict.contradict))
    return Evidence(tuple(found), figures=() if control else (_figure("4_pi_split", run),))


def _everywhere(context: Environment, rule: str, name: str) -> Evidence:
    run = _run(context, rule)
    return Evidence(tuple(_right(run.damped())), figures=(_figure(name, run),))


def _planted(context: Environment, rule: str, layers: tuple[str, ...]) -> Evidence:
    places = [x for x in _run(context, rule).damped() if x.layer in layers]
    return Evidence(tuple(x.finding("ratio", planted=PLANTED) for x in places))


_ALL = ("input", "hidden", "output")
GROUP = Group(
    4,
    "damping heuristics",
    (
        Claim(
            "4a",
            "the pi split scales rightly in hidden layers",
            "In hidden layers both dampings of Martens and Grosse's split follow their factors.",
            f"{PAPER}, on damping heuristics (formula as in the authors' code)",
            _hidden,
            lambda context: _planted(context, PI_SPLIT, ("hidden",)),
        ),
        Claim(
            "4b",
            "the pi split scales wrongly in the input and the output layer",
            "At both ends the damping of A is off by a power of the width.",
            f"{PAPER}, on damping heuristics (formula as in the authors' code)",
            lambda context: _ends(context, control=False),
            lambda context: _ends(context, control=True),
        ),
        Claim(
            "4c",
            "damping relative to the trace scales rightly in every layer",
            "rho_A = rho tr A and rho_B = rho tr B follow the factors.",
            f"{PAPER}, on damping heuristics (text not read: secondary source)",
            lambda context: _everywhere(context, TRACE, "4_trace"),
            lambda context: _planted(context, TRACE, _ALL),
        ),
        Claim(
            "4d",
            "Shampoo's damping relative to the largest eigenvalue scales rightly",
            "rho lambda_max(L) and rho lambda_max(R), as implementations of Shampoo have it.",
            f"{PAPER}, on damping heuristics (text not read: secondary source)",
            lambda context: _everywhere(context, LARGEST, "4_largest"),
            lambda context: _planted(context, LARGEST, _ALL),
        ),
    ),
)
