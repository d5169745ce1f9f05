"""Parametrizations and alignments by name, as arXiv 2407.05872 has them.

A parametrization fixes a and b of every layer and leaves c and d to be derived:

                (a, b) of input      hidden        output
    standard    (0, 0)               (0, 1/2)      (0, 1/2)
    ntk         (0, 0)               (1/2, 0)      (1/2, 0)
    mup         (-1/2, 1/2)          (0, 1/2)      (1/2, 1/2)
    mean_field  (0, 0)               (1/2, 0)      (1, 0)

An alignment (alignment.py) is named full, (alpha, omega, u) = (1, 1/2, 1), or none, three halves.
"""

from __future__ import annotations

from sympy import Expr, Rational, S

from scaling.alignment import Alignment
from scaling.errors import unknown
from scaling.ledger import Layer
from scaling.settings import exact

_HALF, _ONE = Rational(1, 2), S.One
PARAMETRIZATIONS: dict[str, dict[str, tuple[Expr, Expr]]] = {
    "standard": {"input": (S.Zero, S.Zero), "hidden": (S.Zero, _HALF), "output": (S.Zero, _HALF)},
    "ntk": {"input": (S.Zero, S.Zero), "hidden": (_HALF, S.Zero), "output": (_HALF, S.Zero)},
    "mup": {"input": (-_HALF, _HALF), "hidden": (S.Zero, _HALF), "output": (_HALF, _HALF)},
    "mean_field": {"input": (S.Zero, S.Zero), "hidden": (_HALF, S.Zero), "output": (_ONE, S.Zero)},
}


def parametrization(name: str, layers: tuple[Layer, ...]) -> list[str]:
    """The settings ``key=value`` that a parametrization stands for; biases are left alone.

    >>> from scaling.ledger import mlp
    >>> parametrization("mup", mlp(2))
    ['a_input=-1/2', 'b_input=1/2', 'a_output=1/2', 'b_output=1/2']
    """
    if name not in PARAMETRIZATIONS:
        raise unknown("parametrization", name, PARAMETRIZATIONS)
    return [
        f"{letter}_{layer.name}={x}"
        for layer in layers
        if not layer.is_bias
        for letter, x in zip("ab", PARAMETRIZATIONS[name][layer.role], strict=True)
    ]


ALIGNMENTS = {
    "full": Alignment(_ONE, _HALF, _ONE),
    "none": Alignment(_HALF, _HALF, _HALF),
}


def alignment(text: str) -> Alignment | None:
    """An alignment from its name, from ``alpha,omega,u``, or None for ``derived``.

    >>> str(alignment("3/4,1/2,1"))
    'alignment alpha = 3/4, omega = 1/2, u = 1'
    """
    if text == "derived":
        return None
    if text in ALIGNMENTS:
        return ALIGNMENTS[text]
    parts = text.split(",")
    if len(parts) != 3:
        raise unknown("alignment", text, ["derived", *ALIGNMENTS, "alpha,omega,u"])
    return Alignment(*map(exact, parts))
