"""Published tables of exponents, written down by hand: the oracles of `derive`.

Nothing here is computed by the package. Weights ~ M^-b, learning rate ~ M^-c, damping ~ M^-d, for
the layers (input, hidden, output) of a network of depth 3 with multipliers of one (a = 0).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from sympy import Expr, S, Symbol, expand
from sympy.parsing.sympy_parser import parse_expr

from scaling.solve.derive import Derived

LAYERS = ("input", "hidden", "output")
Row: TypeAlias = tuple[str, str, str]

_NAMES = {name: Symbol(name) for name in ("e", "e_A", "e_B", "beta", "delta")}
_PROP = "arXiv 2312.12226, Prop. 4.1"
_LAZY = "arXiv 2312.12226, the lazy family (b_output = 1/2)"
_MUP = "arXiv 2011.14522, Table 1 (muP, SGD)"
_ADAM = "arXiv 2203.03466, Table 3 (Adam)"
_SPECTRAL = "arXiv 2310.17813, Sec. 3 (spectral target sqrt(fan_out/fan_in))"


def number(text: str) -> Expr:
    """An exponent of a table; the names are plain symbols."""
    return parse_expr(text, local_dict=_NAMES)


@dataclass(frozen=True)
class Golden:
    """A published table: a rule, what is given, its exponents. Empty cells are not compared."""

    rule: str
    reference: str
    c: Row
    b: Row = ("0", "1/2", "1")
    d: Mapping[str, Row] = field(default_factory=dict)
    given: tuple[str, ...] = ()
    biases: Row | None = None  # c of the biases

    @property
    def id(self) -> str:
        """A short name for a test."""
        return " ".join((self.rule, *self.given))

    def cells(self) -> Iterator[tuple[str, str, str]]:
        """(exponent, layer, value) of every cell."""
        rows = [("b", self.b), ("c", self.c), *((f"d_{k}", row) for k, row in self.d.items())]
        for name, row in rows:
            yield from ((name, layer, x) for layer, x in zip(LAYERS, row, strict=True) if x)
        for layer, x in zip(LAYERS, self.biases or (), strict=False):
            yield "c", f"{layer}_bias", x

    def perturbed(self, name: str, layer: str) -> Golden:
        """The same table with a half added to one cell."""

        def shift(row: Row) -> Row:
            i = LAYERS.index(layer)
            return (*row[:i], f"{row[i]} + 1/2", *row[i + 1 :])  # type: ignore[return-value]

        if name in "bc":
            return replace(self, **{name: shift(getattr(self, name))})  # type: ignore[arg-type]
        key = name.removeprefix("d_")
        return replace(self, d={**self.d, key: shift(self.d[key])})


def differences(
    golden: Golden, found: Derived, at: Mapping[Symbol, Expr] | None = None
) -> list[str]:
    """One line for every cell in which what is derived is not what is published.

    ``at`` puts values in place of symbols, on both sides.
    """
    x, lines = found.exponents, []
    for name, layer, text in golden.cells():
        if name in "bc":
            value = {"b": x.b, "c": x.c}[name][layer]
        else:
            value = x.d[layer][name.removeprefix("d_")]
        published, derived = (v.subs(at or {}) for v in (number(text), value))
        if published != derived and expand(published - derived) != 0:
            lines.append(f"{name} of {layer}: published {published}, derived {derived}")
    return lines


KFAC_D = {"rho_A": ("0", "-1", "-1"), "rho_B": ("1", "1", "0")}
SHAMPOO_D = {"rho_L": ("1", "0", "-1"), "rho_R": ("1", "0", "-1")}
ZERO = ("0", "0", "0")

# Solved: b = (0, 1/2, 1), each damping as large as what it is added to.
TABLES = (
    Golden("sgd", f"{_MUP}; {_PROP}", ("-1", "0", "1"), biases=("-1", "-1", "0")),
    Golden("momentum", _MUP, ("-1", "0", "1"), biases=("-1", "-1", "0")),
    Golden("adam", _ADAM, ("0", "1", "1"), d={"eps": ("1", "1", "0")}, biases=ZERO),
    Golden("sign", _ADAM, ("0", "1", "1"), biases=ZERO),
    Golden("muon", _SPECTRAL, ("-1/2", "0", "1/2"), biases=("-1/2", "-1/2", "0")),
    Golden("normalized_sgd", _SPECTRAL, ("-1/2", "0", "1/2")),
    Golden("kfac", _PROP, ("e_B - 1", "e_B - e_A", "1 - e_A"), d=KFAC_D,
           biases=("e_B - 1", "e_B - 1", "0")),
    Golden("kfac_right_only", _PROP, ("-1", "-e_A", "1 - e_A"), d={"rho_A": KFAC_D["rho_A"]},
           biases=("-1", "-1", "0")),
    Golden("foof", _PROP, ("-1", "-e_A", "1 - e_A"), d={"rho_A": KFAC_D["rho_A"]}),
    Golden("kfac_left_only", _PROP, ("e_B - 1", "e_B", "1"), d={"rho_B": KFAC_D["rho_B"]}),
    Golden("shampoo", _PROP, ("e - 1", "0", "1 - e"), d=SHAMPOO_D, biases=("e - 1", "e - 1", "0")),
    # practice: K-FAC with e = 1, Shampoo with e = 1/2
    Golden("kfac", _PROP, ZERO, d=KFAC_D, given=("e_A=1", "e_B=1"), biases=ZERO),
    Golden("foof", _PROP, ("-1", "-1", "0"), given=("e_A=1",)),
    Golden("shampoo", _PROP, ("-1/2", "0", "1/2"), d=SHAMPOO_D, given=("e=1/2",)),
    # the lazy family
    Golden("sgd", _LAZY, ("0", "1", "1"), ("0", "1/2", "1/2"), given=("b_output=1/2",)),
    Golden("kfac", _LAZY, ZERO, ("0", "1/2", "1/2"), {**KFAC_D, "rho_B": ZERO},
           given=("b_output=1/2", "e_A=1", "e_B=1")),
    Golden("shampoo", _LAZY, ("0", "1/2", "1/2"), ("0", "1/2", "1/2"),
           given=("b_output=1/2", "e=1/2")),
    Golden("foof", _LAZY, ZERO, ("0", "1/2", "1/2"), given=("b_output=1/2", "e_A=1")),
    # a readout that starts at zero: only it moves in the first step
    Golden("kfac", f"{_PROP}, b_output = oo", ("", "", "1 - e_A"), ("0", "1/2", "oo"),
           {"rho_A": KFAC_D["rho_A"], "rho_B": ("", "", "0")}, given=("b_output=oo",)),
    Golden("sgd", f"{_MUP}, zero readout", ("", "", "1"), ("0", "1/2", "oo"),
           given=("b_output=oo",)),
    Golden("sign", f"{_ADAM}, zero readout", ("", "", "1"), ("0", "1/2", "oo"),
           given=("b_output=oo",)),
    # a damping that does not follow: B ~ 1/M drowns in it, A ~ M does not see it
    Golden("kfac", f"{_PROP}, damping M^0", ("-1", "-e_A", "1 - e_A"),
           d={"rho_A": ZERO, "rho_B": ZERO}, given=("d_rho_A=0", "d_rho_B=0")),
    Golden("shampoo", f"{_PROP}, damping M^0", ("-1", "0", "1 - e"),
           d={"rho_L": ZERO, "rho_R": ZERO}, given=("d_rho_L=0", "d_rho_R=0")),
)  # fmt: skip

# b_output = beta given instead of solved: 2 beta - 1 stands in place of 1 in every factor of the
# cotangent, as long as the readout keeps a step stable before the features do (beta <= 1).
FIXED_READOUT = (
    Golden("kfac", _PROP, ("(e_B - 1)*(2*beta - 1)", "(e_B - 1)*(2*beta - 1) + 1 - e_A", "1 - e_A"),
           ("0", "1/2", "beta"),
           {"rho_A": KFAC_D["rho_A"], "rho_B": ("2*beta - 1", "2*beta - 1", "0")}),
    Golden("shampoo", _PROP, ("(e - 1)*(2*beta - 1)", "(1 - e)*(2 - 2*beta)", "1 - e"),
           ("0", "1/2", "beta"), {"rho_L": ("2*beta - 1", "2*beta - 2", "-1")}),
    Golden("sgd", f"{_MUP}; {_PROP}", ("1 - 2*beta", "2 - 2*beta", "1"), ("0", "1/2", "beta")),
    Golden("sign", _ADAM, ("1 - beta", "2 - beta", "1"), ("0", "1/2", "beta")),
    Golden("muon", _SPECTRAL, ("1/2 - beta", "1 - beta", "1/2"), ("0", "1/2", "beta")),
)  # fmt: skip
# beyond it the features themselves bind: dW h = 1, and the output moves by M^(1 - beta)
SMALL_READOUT = (
    Golden("kfac", _PROP, ("e_B*(2*beta - 1) - beta", "e_B*(2*beta - 1) - e_A + 1 - beta",
           "1 - e_A"), ("0", "1/2", "beta")),
    Golden("sgd", _MUP, ("-beta", "1 - beta", "1"), ("0", "1/2", "beta")),
    Golden("sign", _ADAM, ("0", "1", "1"), ("0", "1/2", "beta")),
)  # fmt: skip
HALVES = (S(0), S(1) / 4, S.Half, S.One, S(2))
