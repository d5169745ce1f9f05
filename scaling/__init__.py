"""How an optimizer's hyper-parameters must change with width, derived from its update rule.

>>> import scaling
>>> kfac = scaling.parse("(B + rho_B*I)**(-e_B) @ G @ (A + rho_A*I)**(-e_A)")
>>> scaling.derive(kfac).exponents.c["hidden"]
-e_A + e_B

Two interpreters read a rule; this package is the symbolic one, which never imports torch. In the
order of reading, each folder with a map of its own:

    sizes      Theta(M^x) and its algebra, exact; derivations as data; refusals
    rules      the rule language: tree, shapes, operators, parser
    models     the network as data: layers and how their sides grow
    calculus   a rule read as sizes: one file per family of inference
    states     the network at the start, after one step, at moved weights
    solve      conditions, and what they fix: derive; predict, compare
    report     results as text, Markdown, LaTeX, HTML, JSON
    cli        the command, which alone knows the catalogue and the measurements

Names are imported on first use, so that ``import scaling`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {
    "Rule": "rules.rule",
    "parse": "rules.parser",
    "symbol": "rules.language",
    "derive": "solve.derive",
    "predict": "solve.predict",
    "compare": "solve.symmetry",
    "solve_for": "solve.inverse",
    "shift": "solve.symmetry",
    "Exponents": "states.problem",
    "Problem": "states.problem",
    "Setting": "models.chain",
    "Settings": "models.settings",
    "read_settings": "models.settings",
    "Activation": "models.chain",
    "Loss": "models.chain",
    "mlp": "models.chain",
    "Scale": "sizes.scale",
    "ScalingError": "sizes.errors",
    "InvalidInput": "sizes.errors",
    "RuleError": "sizes.errors",
    "NotCovered": "sizes.errors",
    "Conflict": "sizes.errors",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'scaling' has no attribute '{name}'")
    return getattr(importlib.import_module(f"scaling.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
