"""Numbers for every tensor of a user's model, from derived exponents and what was tuned at a base.

>>> from torch import nn
>>> def model(width):
...     return nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 2))
>>> scales = for_model("sign(G)", model(4), model(8), base=64, width=256)
>>> scales["0.weight"].lr, scales["2.weight"].lr
(1.0, 0.25)
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from fractions import Fraction

import sympy
from sympy import Expr
from torch import nn

from derivations.catalogue import rule_of
from empirical.measure.parametrize import LayerScales, power_of_width
from empirical.your_model.roles import infer_roles
from scaling.models.chain import Role, Setting, mlp
from scaling.models.settings import Settings
from scaling.rules.rule import Rule
from scaling.rules.tree import Node
from scaling.sizes.errors import InvalidInput, is_finite, unknown
from scaling.sizes.scale import exponent
from scaling.solve.derive import derive


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
) -> dict[str, LayerScales]:
    """Numbers for every tensor of a model of growing width, from what was tuned at ``base``.

    ``lr``, ``dampings`` and ``decays`` are the values that work at the width ``base``; at ``width``
    each layer gets them times (width/base)^(-exponent). ``std`` is the factor for a unit
    initialisation at the base. ``exponents`` gives values to the rule's exponent symbols. A bias
    (one axis) has the exponents of a layer whose input is constant. A width is the size of an axis
    that grows, or anything proportional to it.

    Raises:
        InvalidInput: for models that do not fit, widths below 1, unknown names, exponents without a
            value, and a rule with a damping that nothing fixes.
    """
    rule = rule_of(rule)
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
    tuned = {**(dampings or {}), **(decays or {})}
    found = derive(rule, with_values(rule, exponents or {}), Setting(mlp(3, biases=True)))
    x = found.exponents
    free = [name for name in found.free if name.startswith("d_")]
    if free:
        raise InvalidInput(
            f"a rule that leaves {free[0]} open: {rule}",
            "dampings that are added to something whose size they follow",
            "write a number in its place, or scale it in the learning rate",
        )
    dimensions = {name: tensor.dim() for name, tensor in narrow.named_parameters()}
    ratio = width / base
    result = {}
    for name, role in infer_roles(narrow, wide).items():
        key = str(role)
        if dimensions[name] == 1 or role is Role.CONSTANT:
            key = "output_bias" if role is Role.CONSTANT else "hidden_bias"
        result[name] = LayerScales(
            std=ratio ** -_number(x.b[key], "b"),
            lr=lr * ratio ** -_number(x.c[key], "c"),
            scaled={
                k: tuned.get(k, 1.0) * ratio ** -_number(d, f"d_{k}") for k, d in x.d[key].items()
            },
        )
    return result


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
