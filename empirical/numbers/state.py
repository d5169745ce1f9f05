"""The memory of a rule in one layer from step to step, and how to save it.

Two things: the moving average of every ``ema`` and ``debiased`` in the rule (of how many values it
is one, for the latter), and, with a curvature interval k, the
square matrices made from A, B, L, R, which are computed at the first step and every k-th after it
and serve unchanged in between. Both are kept in the form that the algebra left them in
(layer_values.py), low-rank where that is cheaper; ``pack`` turns them into plain containers of
tensors.

Not covered: shrinking what is saved. A low-rank average is saved with its basis, in float64.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from empirical.numbers.basis import Basis
from empirical.numbers.layer_values import Entries, LayerValue, LowRank, Outer
from empirical.numbers.rotated_values import Corner
from empirical.numbers.square_matrices import Blocks, Square

_KINDS = {kind.__name__: kind for kind in (Basis, Blocks, Corner, Entries, LowRank, Outer, Square)}


@dataclass
class State:
    """The memory of a rule: moving averages, and factors kept for a while.

    With ``curvature_interval`` k, the square matrices made from A, B, L, R are computed at the
    first step and every k-th after it; in between, moving averages inside them rest.
    """

    curvature_interval: int = 1
    step: int = 0
    averages: dict[str, LayerValue] = field(default_factory=dict)
    factors: dict[str, LayerValue] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def refreshes(self) -> bool:
        """Whether the next evaluation computes the curvature anew."""
        return self.step % self.curvature_interval == 0

    def pack(self) -> dict[str, Any]:
        """Plain containers of tensors, for a state_dict."""
        return {
            "curvature_interval": self.curvature_interval,
            "step": self.step,
            "averages": {key: _pack(value) for key, value in self.averages.items()},
            "factors": {key: _pack(value) for key, value in self.factors.items()},
            "counts": dict(self.counts),
        }

    @classmethod
    def unpack(cls, packed: Mapping[str, Any]) -> State:
        """The inverse of ``pack``."""
        return cls(
            packed["curvature_interval"],
            packed["step"],
            {key: _unpack(value) for key, value in packed["averages"].items()},
            {key: _unpack(value) for key, value in packed["factors"].items()},
            dict(packed.get("counts", {})),
        )


def _pack(x: Any) -> Any:
    if not is_dataclass(x):
        return x
    return {"kind": type(x).__name__, **{f.name: _pack(getattr(x, f.name)) for f in fields(x)}}


def _unpack(x: Any) -> Any:
    if not isinstance(x, dict):
        return x
    return _KINDS[x["kind"]](**{key: _unpack(value) for key, value in x.items() if key != "kind"})
