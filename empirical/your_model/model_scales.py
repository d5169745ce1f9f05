"""Numbers for every tensor of a user's model, from derived exponents and what was tuned at a base.

>>> from torch import nn
>>> def model(width):
...     return nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 2, bias=False))
>>> scales = for_model("sign(G)", model(4), model(8), base=64, width=256)
>>> scales["0.weight"].lr, scales["2.weight"].lr
(1.0, 0.25)

The numbers rest on what the derivation assumes and on which terms it found to dominate. Both are
part of the result, and printed with it:

>>> print(scales)
sign(G) at width 256, tuned at 64
<BLANKLINE>
tensor    role    std   lr
--------  ------  ----  ----
0.weight  input   1     1
0.bias    input   1     1
2.weight  output  0.25  0.25
<BLANKLINE>
assumed: the batch is not fitted yet
assumed: the activation is relu and the loss mse (setting=Setting(activation=..., loss=...))

A regime that decides an exponent also warns (`RegimeWarning`): at narrow widths the other term may
still be the larger one.
"""

from __future__ import annotations

import math
import numbers
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

import sympy
from sympy import Expr, S
from torch import nn

from derivations.catalogue import rule_of
from empirical.measure.parametrize import LayerScales, power_of_width
from empirical.your_model.roles import infer_roles
from scaling.models.chain import Role, Setting, mlp
from scaling.models.settings import Settings
from scaling.report.tables import Table
from scaling.rules.rule import Rule
from scaling.rules.tree import Matrix, Node
from scaling.sizes.errors import InvalidInput, is_finite, unknown
from scaling.sizes.scale import exponent
from scaling.solve.alternatives import decisive, regime_lines
from scaling.solve.derive import Derived, derive


class RegimeWarning(UserWarning):
    """An exponent that holds because one term of the rule dominates another as the width grows."""


@dataclass(frozen=True)
class ModelScales(Mapping[str, LayerScales]):
    """Numbers by the name of a tensor, with what they rest on."""

    rule: Rule
    base: int
    width: int
    tensors: Mapping[str, LayerScales]
    roles: Mapping[str, Role]
    assumptions: tuple[str, ...]
    regimes: tuple[str, ...]

    def __getitem__(self, name: str) -> LayerScales:
        return self.tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    @property
    def table(self) -> Table:
        """One row a tensor; assumptions and regimes below."""
        columns = ("tensor", "role", "std", "lr", *self.rule.scaled)
        rows = tuple(
            (name, str(self.roles[name]), *(f"{number:.6g}" for number in (x.std, x.lr)),
             *(f"{x.scaled[k]:.6g}" for k in self.rule.scaled))
            for name, x in self.tensors.items()
        )  # fmt: skip
        notes = (*(f"assumed: {text}" for text in self.assumptions), *self.regimes)
        title = f"{self.rule.name or self.rule} at width {self.width}, tuned at {self.base}"
        return Table(title, columns, rows, notes)

    def __str__(self) -> str:
        return str(self.table)


def for_model(
    rule: Rule | Node | str,
    narrow: nn.Module,
    wide: nn.Module,
    base: int,
    width: int,
    lr: float = 1.0,
    dampings: Mapping[str, float] | None = None,
    exponents: Mapping[str, Fraction] | None = None,
    decays: Mapping[str, float] | None = None,
    setting: Setting | None = None,
) -> ModelScales:
    """Numbers for every tensor of a model of growing width, from what was tuned at ``base``.

    ``lr``, ``dampings`` and ``decays`` are the values that work at the width ``base``; at ``width``
    each layer gets them times (width/base)^(-exponent). A damping that the rule writes as a number
    (1e-8) has that value at the base. ``std`` is the factor for a unit initialisation at the base.
    ``exponents`` gives values to the rule's exponent symbols. A bias (one axis) has the exponents
    of a layer whose input is constant. A width is the size of an axis that grows, or anything
    proportional to it. ``setting`` says which activation, loss and batch the exponents are derived
    for; its layers are not used.

    Raises:
        InvalidInput: for models that do not fit, widths below 1, unknown names, exponents without a
            value, and a rule with a damping that nothing fixes.

    Warns:
        RegimeWarning: for a regime that decides an exponent of one of the tensors.
    """
    rule = rule_of(rule)
    found = derived_for_model(rule, exponents or {}, setting)
    scales = scales_at(found, narrow, wide, base, width, lr, dampings, decays)
    warn_of_regimes(found, scales.roles, _dimensions(narrow), stacklevel=3)
    return scales


def derived_for_model(
    rule: Rule, exponents: Mapping[str, Fraction], setting: Setting | None = None
) -> Derived:
    """The exponents of every kind of tensor.

    Raises:
        InvalidInput: for exponents without a value, and a rule with a damping that nothing fixes.
    """
    whole = replace(setting or Setting(), layers=mlp(3, biases=True))
    found = derive(rule, with_values(rule, exponents), whole)
    free = [name for name in found.free if name.startswith("d_")]
    if free:
        raise InvalidInput(
            f"a rule that leaves {free[0]} open: {rule}",
            "dampings that are added to something whose size they follow",
            "write a number in its place, or scale it in the learning rate",
        )
    used = found.problem.setting
    chosen = (
        f"the activation is {used.activation.label} and the loss {used.loss} "
        "(setting=Setting(activation=..., loss=...))"
    )
    return replace(found, assumptions=(*found.assumptions, chosen, *_of_zero_biases(found)))


def _of_zero_biases(found: Derived) -> tuple[str, ...]:
    """The rule's effect on a bias that starts at zero, where another one is derived."""
    problem, bias = found.problem, "hidden_bias"
    if Matrix("W") not in problem.rule.expression.walk():
        return ()
    settings = replace(problem.settings, b={**problem.settings.b, bias: S.Infinity})
    zero = derive(problem.rule, settings, problem.setting)
    c = zero.exponents.c[bias]
    if c == found.exponents.c[bias]:
        return ()
    start = "rates of biases are those of biases that are not zero"
    if c.is_number:
        return (f"{start}: in its first step one that is zero has c = {c}",)
    still = (x for x in zero.assumptions if f"does not move the {bias} layer" in x)
    return tuple(f"{start}: else {text}" for text in still)


def scales_at(
    found: Derived,
    narrow: nn.Module,
    wide: nn.Module,
    base: int,
    width: int,
    lr: float = 1.0,
    dampings: Mapping[str, float] | None = None,
    decays: Mapping[str, float] | None = None,
) -> ModelScales:
    """The numbers at a width; see `for_model`."""
    rule, x = found.problem.rule, found.exponents
    for name, size in (("base", base), ("width", width)):
        if not is_finite(size) or size < 1:
            raise InvalidInput(f"{name}={size}", "a width of at least 1", f"pass {name}=64")
    if not is_finite(lr) or lr < 0:
        raise InvalidInput(f"lr={lr}", "a finite number of at least 0", "pass for example lr=0.1")
    asked = (("damping", dampings, rule.dampings), ("decay", decays, rule.decays))
    for kind, given, names in asked:
        for symbol in given or {}:
            if symbol not in names:
                raise unknown(kind, symbol, names)
    literals = {name: float(value) for name, value in rule.literals.items()}
    tuned = {**literals, **(dampings or {}), **(decays or {})}
    ratio, roles = width / base, infer_roles(narrow, wide)
    dimensions, result = _dimensions(narrow), {}
    for name, role in roles.items():
        key = _kind(role, dimensions[name])
        result[name] = LayerScales(
            std=ratio ** -_number(x.b[key], "b"),
            lr=lr * ratio ** -_number(x.c[key], "c"),
            scaled={
                k: tuned.get(k, 1.0) * ratio ** -_number(d, f"d_{k}") for k, d in x.d[key].items()
            },
        )
    return ModelScales(
        rule, base, width, result, roles, found.assumptions,
        _of_kinds(found, roles, dimensions),
    )  # fmt: skip


def warn_of_regimes(
    found: Derived, roles: Mapping[str, Role], dimensions: Mapping[str, int], stacklevel: int
) -> None:
    """Warn of regimes that decide exponents of these tensors."""
    kinds = {_kind(role, dimensions[name]) for name, role in roles.items()}
    deciding = [str(regime) for regime in decisive(found) if regime.layer in kinds]
    if deciding:
        warnings.warn(
            f"exponents of '{found.problem.rule}' that depend on which term is the larger: "
            + "; ".join(dict.fromkeys(deciding)),
            RegimeWarning,
            stacklevel=stacklevel,
        )


def _of_kinds(
    found: Derived, roles: Mapping[str, Role], dimensions: Mapping[str, int]
) -> tuple[str, ...]:
    """The lines of regimes of the kinds of tensors that there are."""
    kinds = {_kind(role, dimensions[name]) for name, role in roles.items()}
    return tuple(
        line for line in regime_lines(found)
        if any(line.startswith(f"regime in {kind}:") for kind in kinds)
    )  # fmt: skip


def _kind(role: Role, dimensions: int) -> str:
    """The layer of the theory whose exponents a tensor has."""
    if dimensions == 1 or role is Role.CONSTANT:
        return "output_bias" if role is Role.CONSTANT else "hidden_bias"
    return str(role)


def _dimensions(model: nn.Module) -> dict[str, int]:
    return {name: tensor.dim() for name, tensor in model.named_parameters()}


def with_values(rule: Rule, exponents: Mapping[str, Fraction]) -> Settings:
    """The exponent symbols of a rule at their values, all of them.

    Raises:
        InvalidInput: for symbols that the rule lacks or that have no value or no exact one.
    """
    for symbol, value in exponents.items():
        if symbol not in rule.exponents:
            raise unknown("exponent", symbol, rule.exponents)
        if not isinstance(value, numbers.Rational | sympy.Rational):
            raise InvalidInput(
                f"the exponent {symbol}={value!r}",
                "an exact number",
                f"pass exponents={{'{symbol}': Fraction(1, 2)}}",
            )
    for symbol in rule.exponents:
        if symbol not in exponents:
            raise InvalidInput(
                f"no value for '{symbol}' of the rule {rule}",
                "a number for every exponent",
                f"pass exponents={{'{symbol}': Fraction(1, 2)}}",
            )
    return Settings(exponents={k: exponent(v) for k, v in exponents.items()})


def _number(x: Expr, name: str) -> float:
    return -math.log2(power_of_width(2, x, name))
