"""Group 5: standard and lazy parametrizations, in which features do not learn alike at all widths.

    standard   b = (0, 1/2, 1/2), neither rates nor dampings scale: c = d = 0
    lazy       b_output = 1/2, and c and d as the conditions give them for it (NTK-like)

`scaling.solve.predict.predict` evaluates both. In the first some feature change depends on the
width; in the second nothing grows, the output moves by Theta(1), and all features stand still.
"""

from __future__ import annotations

from sympy import S

from empirical.claims.claim import PAPER, Claim, Evidence, Finding, Group
from empirical.claims.environment import Environment
from empirical.claims.exponents import PLANTED, TableMeasurement, literal, measured, solved
from empirical.claims.figures import Figure
from empirical.fit.verdict import Verdict
from scaling.solve.predict import LayerRegime

STANDARD = {
    "kfac": ("e_A=1", "e_B=1", "d_rho_A=0", "d_rho_B=0"),
    "shampoo": ("e=1/2", "d_rho_L=0", "d_rho_R=0"),
}
LAZY = {"kfac": ("e_A=1", "e_B=1"), "shampoo": ("e=1/2",)}


def _standard(context: Environment, rule: str) -> TableMeasurement:
    table = literal(rule, *STANDARD[rule], "c=0", init="standard")
    return measured(context, f"{rule}, standard", table, slow=True)


def _lazy(context: Environment, rule: str) -> TableMeasurement:
    return measured(context, f"{rule}, lazy", solved(rule, *LAZY[rule], "b_output=1/2"), slow=True)


def _depends(run: TableMeasurement) -> Finding:
    """That theory has a feature change which depends on the width."""
    features = {x: run.predicted(x, "feature") for x in run.prediction.layers}
    shown = ", ".join("unpredicted" if x is None else str(x) for x in features.values())
    moving = any(x is None or x != 0 for x in features.values())
    verdict = Verdict.agree if moving else Verdict.contradict
    return Finding(f"{run.label}: feature exponents", "not all 0", shown, "", verdict)


def _still(run: TableMeasurement) -> Finding:
    """That theory has features that stand still under an output that moves."""
    found = run.prediction.layers
    hidden = [x for name, x in found.items() if name != "output"]
    lazy = all(x.regime is LayerRegime.LAZY for x in hidden) and found["output"].feature == 0
    shown = ", ".join(f"{name} {x.regime}" for name, x in found.items())
    verdict = Verdict.agree if lazy else Verdict.contradict
    return Finding(f"{run.label}: regimes", "lazy below, output moves", shown, "", verdict)


def _figure(name: str, title: str, runs: list[TableMeasurement]) -> Figure:
    curves = [
        run.curve(f"{run.label}: {layer}", layer, "feature")
        for run in runs
        for layer in ("input", "hidden")
    ]
    return Figure(name, title, "width M", "RMS of dh", tuple(curves), turn=2)


def _check_standard(context: Environment) -> Evidence:
    runs = [_standard(context, rule) for rule in STANDARD]
    found = [finding for run in runs for finding in (_depends(run), *run.findings(["feature"]))]
    figure = _figure("5_standard", "standard parametrization: dh against width", runs)
    return Evidence(tuple(found), figures=(figure,))


def _control_standard(context: Environment) -> Evidence:
    """Wherever a feature change depends on the width, that it does not."""
    runs = [_standard(context, rule) for rule in STANDARD]
    found = []
    for run in runs:
        for layer in ("input", "hidden", "output"):
            x = run.predicted(layer, "feature")
            if x is not None and x != 0:
                found += run.findings(["feature"], [layer], planted=-x)
    return Evidence(tuple(found))


def _check_lazy(context: Environment) -> Evidence:
    runs = [_lazy(context, rule) for rule in LAZY]
    found = [finding for run in runs for finding in (_still(run), *run.findings(["feature"]))]
    figure = _figure("5_lazy", "lazy parametrization: dh against width", runs)
    return Evidence(tuple(found), figures=(figure,))


def _control_lazy(context: Environment) -> Evidence:
    """That features learn, and that the output stands still."""
    found = []
    for run in (_lazy(context, rule) for rule in LAZY):
        for layer in ("input", "hidden"):
            x = run.predicted(layer, "feature")
            found += run.findings(["feature"], [layer], planted=S.Zero if x is None else -x)
        found += run.findings(["feature"], ["output"], planted=-2 * PLANTED)
    return Evidence(tuple(found))


GROUP = Group(
    5,
    "standard and lazy parametrizations",
    (
        Claim(
            "5a",
            "in the standard parametrization feature updates depend on the width",
            "With b_output = 1/2 and rates and dampings that do not scale, the change of some "
            "layer's features vanishes or grows with the width, for K-FAC and for Shampoo.",
            f"{PAPER}, figure of dh against width (caption read)",
            _check_standard,
            _control_standard,
        ),
        Claim(
            "5b",
            "b_output = 1/2 with its own rates is stable and lazy",
            "With c = (0, 0, 0) for K-FAC and (0, 1/2, 1/2) for Shampoo the step is stable, the "
            "output moves by Theta(1) and no features are learned.",
            f"{PAPER}, the lazy family (c as in the authors' code)",
            _check_lazy,
            _control_lazy,
        ),
    ),
)
