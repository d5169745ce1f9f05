"""Results as JSON: the keys of every verb's ``--format json``, which programs rely on.

Exponents are strings in sympy's syntax ("-1/2", "oo", "e_A - e_B"), null where the calculus is
silent. Keys are added, not renamed; tests/test_render.py holds them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sympy import S

from scaling.report.step_lines import timed
from scaling.sizes.derivation import Step
from scaling.solve.alternatives import regime_lines
from scaling.solve.crossing_widths import Crossover, crossovers
from scaling.solve.derive import Derived
from scaling.solve.predict import Prediction
from scaling.solve.symmetry import Comparison
from scaling.states.problem import Exponents


def to_json(payload: Mapping[str, Any]) -> str:
    """JSON text; NaN is refused, exponents must already be strings."""
    return json.dumps(payload, indent=2, allow_nan=False)


def derived_json(result: Derived) -> dict[str, Any]:
    """The ``derive`` interface."""
    return {
        "rule": str(result.problem.rule),
        "name": result.problem.rule.name,
        "layers": exponents_json(result.exponents),
        "free": list(result.free),
        "assumptions": list(result.assumptions),
        "regimes": list(regime_lines(result)),
        "crossovers": crossovers_json(result),
        "convention": result.convention,
    }


def exponents_json(x: Exponents) -> dict[str, Any]:
    """Exponents by layer, as strings."""
    return {
        name: {
            "a": str(x.a[name]),
            "b": str(x.b[name]),
            "c": str(x.c[name]),
            "d": {k: str(v) for k, v in x.d[name].items()},
        }
        for name in x.b
    }


def predicted_json(result: Prediction) -> dict[str, Any]:
    """The ``predict`` interface; null where the calculus is silent."""
    return {
        "rule": str(result.problem.rule),
        "name": result.problem.rule.name,
        "layers": {
            name: {
                "init": str(x.init),
                "own": str(x.own),
                "feature": None if x.feature is None else str(x.feature),
                **({} if x.shrink is None else {"shrink": str(x.shrink)}),
                **({} if x.ascent is None else {"ascent": str(x.ascent)}),
                "regime": str(x.regime),
            }
            for name, x in result.layers.items()
        },
        "assumptions": list(result.assumptions),
        "crossovers": crossovers_json(result),
        "convention": result.convention,
    }


def crossovers_json(result: Derived | Prediction) -> list[dict[str, Any]]:
    """The widths at which terms trade places, layer by layer."""
    return [crossover_json(x, "layer") for x in crossovers(result)]


def crossover_json(x: Crossover, place: str) -> dict[str, Any]:
    """One of them; ``place``: the key of the layer or tensor."""
    kept = {"kept": x.kept} if x.kept else {}
    return {
        place: x.layer, "node": str(x.node), "larger_below": str(x.falling),
        "larger_beyond": str(x.rising), x.axis: x.width, "exact": x.exact, **kept,
    }  # fmt: skip


def steps_json(title: str, step: Step) -> dict[str, Any]:
    """A derivation as nested steps."""

    def nested(s: Step) -> dict[str, Any]:
        return {
            "inference": s.inference.name,
            "subject": timed(s),
            "exponent": str(-S.Infinity if s.result.is_zero else s.result.width),
            "of": str(s.result.of),
            "numbers": s.numbers,
            "assumption": s.assumption,
            "inputs": [nested(x) for x in s.inputs],
        }

    return {"title": title, "derivation": nested(step)}


def compared_json(left: str, right: str, result: Comparison) -> dict[str, Any]:
    """The ``compare`` interface."""
    return {
        "left": {"name": left, "layers": exponents_json(result.left)},
        "right": {"name": right, "layers": exponents_json(result.right)},
        "equivalent": result.equivalent,
        "differences": [
            {
                "layer": d.layer,
                "exponent": d.name,
                "left": None if d.left is None else str(d.left),
                "right": None if d.right is None else str(d.right),
            }
            for d in result.differences
        ],
        "assumptions": list(result.assumptions),
        "convention": result.convention,
    }
