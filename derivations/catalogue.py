"""Finds the declared optimizers: every module of this package may define ``OPTIMIZERS``.

>>> find("kfac").rule.dampings
('rho_B', 'rho_A')
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

import derivations
from derivations.declaration import Optimizer
from scaling.errors import unknown


@cache
def catalogue() -> dict[str, Optimizer]:
    """All optimizers by name, in the order of their files."""
    found: dict[str, Optimizer] = {}
    for module in pkgutil.iter_modules(derivations.__path__):
        declared = importlib.import_module(f"derivations.{module.name}")
        for optimizer in getattr(declared, "OPTIMIZERS", ()):
            if optimizer.name in found:
                raise ValueError(f"two optimizers are called {optimizer.name}")
            found[optimizer.name] = optimizer
    return found


def find(name: str) -> Optimizer:
    """The optimizer of that name, or an `InvalidInput` with the nearest one."""
    known = catalogue()
    if name not in known:
        raise unknown("optimizer", name, known)
    return known[name]
