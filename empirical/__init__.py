"""Measurements: networks of growing width, steps of any rule, exponents with intervals.

In the order of reading, each folder with a map of its own:

    numbers      a rule in numbers, on the tensors of one layer; any rule as an optimizer
    data         what networks are trained on
    networks     MLP, CNN, ResNet, CBOW of any width, and many side by side
    measure      one measurement: a rule, a width, a seed
    trace        a user's model, read operation by operation
    wide         the same at any width, exact in law
    limits       the limit of infinite width itself
    fit          from sizes at growing widths to an exponent, an interval and a verdict
    black_box    optimizers of any library, beside rules
    verify       theory against measurement
    your_model   a user's own model
    plans        tune small, train large: the numbers of a large model from those of a small one
    checks       the coordinate check of a plan, or of what a user does today
    transfer     longer runs: do tuned rates and dampings transfer?
    tuning       tuning strategies: which find numbers that still win at the target?
    report       what was measured, on paper
    claims       the paper's statements, each an object that can fail

Names are imported on first use, so that ``import empirical`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {
    "RuleOptimizer": "your_model.rule_optimizer",
    "check_model": "your_model.coordinate_check",
    "for_model": "your_model.model_scales",
    "initialise_": "your_model.initialise",
    "measure_transfer": "transfer.measuring_transfer",
    "check": "checks.checking",
    "compose": "checks.composing",
    "ModelCheck": "checks.checking",
    "plan": "plans.making",
    "probe": "black_box.probed_optimizer",
    "ModelPlan": "plans.plan",
    "tune": "tuning.measuring_tuning",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'empirical' has no attribute '{name}'")
    return getattr(importlib.import_module(f"empirical.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
