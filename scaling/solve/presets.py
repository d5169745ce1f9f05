"""Parametrizations and alignments by name, as arXiv 2407.05872 has them.

A parametrization fixes a and b of every layer and leaves c and d to be derived:

                (a, b) of input      hidden        output
    standard    (0, 0)               (0, 1/2)      (0, 1/2)
    ntk         (0, 0)               (1/2, 0)      (1/2, 0)
    mup         (-1/2, 1/2)          (0, 1/2)      (1/2, 1/2)
    mean_field  (0, 0)               (1/2, 0)      (1, 0)

An alignment (alignment.py) is named full, (alpha, omega, u) = (1, 1/2, 1), or none, three halves.
It holds for every layer whose fan_in grows, or, as ``hidden=none``, for the layers named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

from sympy import Expr, Rational, S

from scaling.models.alignment import NAMES, Alignment
from scaling.models.chain import Layer
from scaling.models.settings import exact, places
from scaling.sizes.errors import InvalidInput, unknown

_HALF, _ONE = Rational(1, 2), S.One
PARAMETRIZATIONS: dict[str, dict[str, tuple[Expr, Expr]]] = {
    "standard": {"input": (S.Zero, S.Zero), "hidden": (S.Zero, _HALF), "output": (S.Zero, _HALF)},
    "ntk": {"input": (S.Zero, S.Zero), "hidden": (_HALF, S.Zero), "output": (_HALF, S.Zero)},
    "mup": {"input": (-_HALF, _HALF), "hidden": (S.Zero, _HALF), "output": (_HALF, _HALF)},
    "mean_field": {"input": (S.Zero, S.Zero), "hidden": (_HALF, S.Zero), "output": (_ONE, S.Zero)},
}


def parametrization(name: str, layers: tuple[Layer, ...]) -> list[str]:
    """The settings ``key=value`` that a parametrization stands for; biases are left alone.

    >>> from scaling.models.chain import mlp
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


MeasuredAlignment: TypeAlias = Callable[[Sequence[str]], Mapping[str, Alignment]]
"""Measures the alignment of the layers that it is asked for; called at most once."""


def alignments(
    texts: Iterable[str], layers: tuple[Layer, ...], measured: MeasuredAlignment | None = None
) -> dict[str, Alignment]:
    """Alignments by layer from ``full``, ``none``, ``alpha,omega,u``, ``derived`` or ``measured``.

    Each is for all layers whose fan_in grows, or, after ``hidden=``, for the layers of that role
    or name; later texts override earlier ones. A layer that is missing keeps what is derived.

    Raises:
        InvalidInput: for an unknown name or layer, a layer whose fan_in stays, a number outside
            [1/2, 1], or ``measured`` where nothing measures.

    >>> from scaling.models.chain import mlp
    >>> for layer, x in alignments(["full", "output=1/2,3/4,1"], mlp(3)).items():
    ...     print(f"{layer}: {x}")
    hidden: alignment alpha = 1, omega = 1/2, u = 1
    output: alignment alpha = 1/2, omega = 3/4, u = 1
    """
    growing = {layer.name for layer in layers if layer.fan_in != 0}
    known = places(layers)
    chosen: dict[str, Alignment | None] = {}
    for text in texts:
        place, equals, name = (part.strip() for part in text.rpartition("="))
        if equals and place not in known:
            raise unknown(
                "layer of an alignment", place, (x for x in known if growing.issuperset(known[x]))
            )
        for layer in known[place] if equals else sorted(growing):
            if layer not in growing:
                raise InvalidInput(
                    f"an alignment of the {layer} layer, whose fan_in does not grow with the width",
                    f"a layer whose fan_in grows: {', '.join(sorted(growing))}",
                    "leave it out: over a fixed length every sum has the size of its terms",
                )
            if name == "derived":
                chosen.pop(layer, None)
            elif name == "measured":
                chosen[layer] = None
            else:
                chosen[layer] = _alignment(name, f"is given in {place}" if equals else "is given")
    names = [layer.name for layer in layers if layer.name in chosen]
    asked = [name for name in names if chosen[name] is None]
    found = _measure(measured, asked) if asked else {}
    return {name: chosen[name] or found[name] for name in names}


def _alignment(text: str, origin: str) -> Alignment:
    if text in ALIGNMENTS:
        return replace(ALIGNMENTS[text], origin=origin)
    parts = text.split(",")
    if len(parts) != len(NAMES):
        raise unknown("alignment", text, ["derived", "measured", *ALIGNMENTS, "alpha,omega,u"])
    alpha, omega, u = map(exact, parts)
    return Alignment(alpha, omega, u, origin)


def _measure(measured: MeasuredAlignment | None, asked: Sequence[str]) -> Mapping[str, Alignment]:
    if measured is None:
        raise InvalidInput(
            "the alignment 'measured', where nothing is measured",
            "a verb that can train networks",
            "use `scaling derive RULE --alignment measured`, or name numbers",
        )
    return measured(asked)
