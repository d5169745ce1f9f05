"""How an optimizer's hyper-parameters must change with width, derived from its update rule.

>>> import scaling
>>> kfac = scaling.parse("(B + rho_B*I)**(-e_B) @ G @ (A + rho_A*I)**(-e_A)")
>>> scaling.derive(kfac).exponents.c["hidden"]
-e_A + e_B

The idea is in scale.py (the algebra of sizes) and calculus.py (how a rule is read as sizes). Around
them, in the order of reading:

    a rule         language parser rule; underneath tree rewrite names operators functions shapes
                   frames
    a network      ledger (sizes at the start) second (after one step) ascent (at moved weights)
    a question     problem settings presets alignment conditions
    reading        context values calculus update; the rules of inference leaves scalars entrywise
                   bounded means sums common averages spectral cuts inner network rotation samples
                   uphill readback; what they return as lines: derivation
    an answer      solve (derive) start balance stages decay; prediction (predict) one_step;
                   symmetry classes (compare)
    on paper       piecewise (exponents in one symbol) render interface errors; the command: cli
                   questions options measuring claiming

Names are imported on first use, so that ``import scaling`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {
    "Rule": "rule",
    "parse": "parser",
    "symbol": "language",
    "derive": "solve",
    "predict": "prediction",
    "compare": "symmetry",
    "shift": "symmetry",
    "Exponents": "problem",
    "Problem": "problem",
    "Setting": "ledger",
    "Settings": "settings",
    "read_settings": "settings",
    "Activation": "ledger",
    "Loss": "ledger",
    "mlp": "ledger",
    "Scale": "scale",
    "ScalingError": "errors",
    "InvalidInput": "errors",
    "RuleError": "errors",
    "NotCovered": "errors",
    "Conflict": "errors",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'scaling' has no attribute '{name}'")
    return getattr(importlib.import_module(f"scaling.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
