"""The names in a rule: a matrix of the layer, or a hyper-parameter of some kind.

    G A B L R W I            the matrices that every layer has (upper case)
    fan_in fan_out           the sides of the layer
    rho*, eps*               a damping, which scales with the width as M^(-d)
    decay*, radius*          a decay of the weights, the size of a perturbation: likewise
    e, e_*, e1..             an exponent, which stays symbolic
    sigma                    a singular value of X, in spectral_map(X, f) alone
    any other lower case     a number of order one, such as beta, if it does not say otherwise

A new kind of hyper-parameter is a row of `SymbolKind` here and a condition that fixes it
(conditions.py).
"""

from __future__ import annotations

import difflib
import re
from enum import StrEnum

from scaling.rules.operators import FUNCTIONS
from scaling.rules.shapes import UPDATE, Dim, Shape
from scaling.sizes.errors import RuleError, unknown

MATRICES: dict[str, tuple[Shape, str]] = {
    "G": (UPDATE, "gradient, D H^T / n"),
    "A": (Shape(Dim.FAN_IN, Dim.FAN_IN), "input second moment, H H^T / n"),
    "B": (Shape(Dim.FAN_OUT, Dim.FAN_OUT), "cotangent second moment, D D^T / n"),
    "L": (Shape(Dim.FAN_OUT, Dim.FAN_OUT), "G G^T"),
    "R": (Shape(Dim.FAN_IN, Dim.FAN_IN), "G^T G"),
    "W": (UPDATE, "the weights"),
    "I": (Shape(Dim.ANY, Dim.ANY), "the identity"),
}
FANS = ("fan_in", "fan_out")


class SymbolKind(StrEnum):
    """The kind of a hyper-parameter, read off its name."""

    DAMPING = "damping"
    DECAY = "decay"
    RADIUS = "radius"
    EXPONENT = "exponent"
    SINGULAR_VALUE = "singular value"
    CONSTANT = "constant"

    @property
    def is_scaled(self) -> bool:
        """Whether it scales with the width, as M^(-d); see conditions.py for what fixes d."""
        return self in (SymbolKind.DAMPING, SymbolKind.DECAY, SymbolKind.RADIUS)


_KINDS = {
    SymbolKind.DAMPING: re.compile(r"(rho|eps)\w*"),
    SymbolKind.DECAY: re.compile(r"decay\w*"),
    SymbolKind.RADIUS: re.compile(r"radius\w*"),
    SymbolKind.EXPONENT: re.compile(r"e(_\w+|\d+)?"),
    SymbolKind.SINGULAR_VALUE: re.compile("sigma"),
}
_NAME = re.compile(r"[a-z]\w*")
_MISLEADING = (
    (re.compile("width|fan"), "write fan_in or fan_out: the side of the layer that you mean"),
    (re.compile("damp(ing)?_?[A-Z]?"), "call a damping rho or eps, with any ending: it scales"),
    (re.compile("weight_decay|wd"), "call a decay of the weights decay: it scales"),
    (re.compile("nan|inf|infinity"), "write a number"),
    (
        re.compile("lr|learning_rate|step_size"),
        "leave the learning rate out: a rule is the dW of a step W - lr*dW",
    ),
    (
        re.compile("(a?(sin|cos)h?|exp|log|relu|gelu|sigmoid|softmax|erf|inv|svd|qr)"),
        "apply a function of the language, such as tanh(X); or choose another name for a number",
    ),
)


def check_matrix(name: str) -> None:
    """Refuse a matrix that layers do not have, with `RuleError`."""
    if name not in MATRICES:
        raise unknown("matrix", name, MATRICES, RuleError)


def check_symbol(name: str) -> None:
    """Refuse a name that a hyper-parameter cannot have, with `RuleError`."""
    if name in FUNCTIONS or not _NAME.fullmatch(name):
        raise RuleError(
            f"'{name}' as the name of a hyper-parameter",
            "a name in lower case that is not a function of the language",
            f"rename it, or call the function: {name}(X)",
        )


def check_meaning(name: str) -> None:
    """Refuse a name of order one that reads as if it grew with the width, with `RuleError`."""
    near = difflib.get_close_matches(name, FANS, n=1, cutoff=0.8)
    do_this = next((text for pattern, text in _MISLEADING if pattern.fullmatch(name)), "")
    if near and name not in FANS:
        do_this = f"did you mean '{near[0]}'?"
    if do_this:
        raise RuleError(
            f"'{name}', which would be a number of order one", "another name for such a number",
            do_this,
        )  # fmt: skip


def kind_of(name: str) -> SymbolKind:
    """The kind of a hyper-parameter of that name.

    >>> [str(kind_of(name)) for name in ("rho_A", "decay", "radius", "e_A", "beta")]
    ['damping', 'decay', 'radius', 'exponent', 'constant']
    """
    kinds = (kind for kind, names in _KINDS.items() if names.fullmatch(name))
    return next(kinds, SymbolKind.CONSTANT)
