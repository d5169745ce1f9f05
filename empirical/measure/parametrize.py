"""From exponents to numbers at a width: standard deviations, learning rates, dampings, decays.

    std = sigma' M^-b      lr = eta' M^-c      rho = rho' M^-d      multiplier = M^-a

The exponents come from scaling/; the primed constants do not depend on the width. For an input
layer sigma' = 1/sqrt(fan_in), so that pre-activations are of order one.

For your own model: `infer_roles` reads the roles of its tensors off two widths, and
`for_model` turns derived exponents into one learning rate and one set of dampings and decays per
layer, relative to a base width at which you tuned:

>>> from torch import nn
>>> from scaling.rules.parser import parse
>>> def model(width):
...     return nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 2))
>>> scales = for_model(parse("sign(G)"), model(4), model(8), base=64, width=256)
>>> scales["0.weight"].lr, scales["2.weight"].lr
(1.0, 0.25)

Kernels of convolutions and embeddings have the role that their growing axes give; `initialise_`
draws all weights at their scale, kernel axes counted among the fan_in.
"""

from __future__ import annotations

import math
import numbers
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import sympy
import torch
from sympy import Expr, S
from torch import Tensor, nn

from derivations.catalogue import rule_of
from scaling.models.chain import Layer, Role, Setting, mlp, role_of
from scaling.models.settings import Settings
from scaling.rules.rule import Rule
from scaling.rules.symbols import SymbolKind
from scaling.rules.tree import Node, Symbol
from scaling.sizes.errors import InvalidInput, is_finite, unknown
from scaling.sizes.scale import exponent
from scaling.solve.derive import derive

PROPORTIONAL = (0.55, 1.45)
"""Powers of the width between which an axis counts as proportional to it, up to an offset."""


@dataclass(frozen=True)
class LayerScales:
    """Numbers of one layer at one width; ``scaled`` holds its dampings and decays."""

    std: float
    lr: float
    scaled: Mapping[str, float]
    multiplier: float = 1.0

    @property
    def dampings(self) -> dict[str, float]:
        """The dampings, by name."""
        return self._of(SymbolKind.DAMPING)

    @property
    def decays(self) -> dict[str, float]:
        """The decays of the weights, by name; a step takes lr times that away of them."""
        return self._of(SymbolKind.DECAY)

    def _of(self, kind: SymbolKind) -> dict[str, float]:
        return {name: x for name, x in self.scaled.items() if Symbol(name).kind is kind}


def power_of_width(width: int, x: Expr, name: str) -> float:
    """M^(-x) as a float; oo gives 0.

    Raises:
        InvalidInput: if x still holds a symbol.
    """
    if x is S.Infinity:
        return 0.0
    if not x.is_number:
        symbols = ", ".join(sorted(str(s) for s in x.free_symbols))
        first = sorted(str(s) for s in x.free_symbols)[0]
        raise InvalidInput(
            f"{name} = {x}, with {symbols} not given",
            "numbers: a measurement needs every exponent",
            f"add --set {first}=1, or whatever value you mean",
        )
    try:
        result: float = float(width) ** -float(x)
    except OverflowError:
        result = math.inf
    if math.isinf(result) or result == 0:
        raise InvalidInput(
            f"{name} = {x} at width {width}: a factor of {width}^({-x}), beyond floating point",
            "exponents of moderate size",
            "check the sign and the value of that exponent",
        )
    return result


def draw_(weight: Tensor, std: float, seed: int, width: int, index: int) -> None:
    """Fill a weight with N(0, std^2) from a stream of its own: seed, width and layer name it."""
    generator = torch.Generator(device=weight.device).manual_seed(_stream(seed, width, index))
    if std == 0:
        nn.init.zeros_(weight)
    else:
        with torch.no_grad():
            weight.normal_(0.0, std, generator=generator)


def _stream(seed: int, width: int, index: int) -> int:
    """A 63-bit seed, well mixed, so that neighbouring seeds are unrelated (SplitMix64)."""
    z = (
        seed * 0x9E3779B97F4A7C15 + width * 0xD1B54A32D192ED03 + index * 0x8CB92BA72F3D8DD7
    ) % 2**64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % 2**64
    return (z ^ (z >> 31)) % 2**63


def infer_roles(narrow: nn.Module, wide: nn.Module, ratio: float | None = None) -> dict[str, Role]:
    """The role of every parameter, from which of its axes grow between two widths.

    The first axis is fan_out, the second fan_in (the other way round in embeddings and transposed
    convolutions); further axes are kernel axes and must not grow. Axes that grow do so in
    proportion to the width, but for offsets such as 3 w + 7: ``ratio`` is that of the two widths,
    by default of the axis in the middle of all.

    Raises:
        InvalidInput: naming the tensor and the axis that do not fit, or two parameters of different
            roles that are one.
    """
    for what, model in (("first", narrow), ("second", wide)):
        if not isinstance(model, nn.Module):
            raise InvalidInput(
                f"a {type(model).__name__} as the {what} model",
                "a torch.nn.Module",
                "build two models that differ in width alone",
            )
    other = dict(wide.named_parameters(remove_duplicate=False))
    swapped = _inputs_first(narrow)
    roles, growing = {}, {}
    for name, tensor in narrow.named_parameters(remove_duplicate=False):
        if name not in other or other[name].dim() != tensor.dim():
            raise InvalidInput(
                f"the parameter '{name}' of shape {tuple(tensor.shape)}, with no counterpart in "
                "the second model",
                "two models that differ in width alone",
                "build both from one function of the width",
            )
        grows = [big > small for small, big in zip(tensor.shape, other[name].shape, strict=True)]
        for axis, (small, big) in enumerate(zip(tensor.shape, other[name].shape, strict=True)):
            if grows[axis]:
                growing[name, axis] = big / small
            if big < small or (grows[axis] and axis > 1):
                raise InvalidInput(
                    f"axis {axis} of '{name}': {small} in the first model, {big} in the second",
                    "fan_out (axis 0) and fan_in (axis 1) that stay or grow; other axes that stay",
                    "pass the narrow model first, and keep kernel sizes fixed",
                )
        fan_out_grows, fan_in_grows = (*grows, False, False)[:2]
        if name in swapped:
            fan_out_grows, fan_in_grows = fan_in_grows, fan_out_grows
        roles[name] = role_of(fan_in_grows, fan_out_grows)
    extra = [name for name in other if name not in roles]
    if extra:
        raise InvalidInput(
            f"the parameter '{extra[0]}', which the first model lacks",
            "two models that differ in width alone",
            "build both from one function of the width",
        )
    if not growing:
        raise InvalidInput(
            "two models of the same width: no axis grows",
            "two different widths",
            "pass for example model(64) and model(128)",
        )
    _refuse_other_powers(growing, ratio)
    return _without_twins(narrow, roles)


def _refuse_other_powers(growing: Mapping[tuple[str, int], float], given: float | None) -> None:
    """Refuse an axis that grows as another power of the width than others, or than the width."""
    least, most = PROPORTIONAL
    ratio = given or statistics.median_low(growing.values())
    others = "others grow" if given is None else "the width grows"
    for (name, axis), found in growing.items():
        if not least < math.log(found) / math.log(ratio) < most:
            raise InvalidInput(
                f"axis {axis} of '{name}', which grows {found:.3g}-fold where {others} "
                f"{ratio:.3g}-fold",
                "axes that stay, or grow in proportion to the width",
                "scale it like the others; if it is offset or rounded, compare wider models",
            )


def _without_twins(model: nn.Module, roles: Mapping[str, Role]) -> dict[str, Role]:
    """The roles of distinct tensors, under their first names, as in `named_parameters`."""
    first: dict[nn.Parameter, str] = {}
    for name, tensor in model.named_parameters(remove_duplicate=False):
        twin = first.setdefault(tensor, name)
        if roles[twin] is not roles[name] and tensor.requires_grad:
            raise InvalidInput(
                f"one tensor as '{twin}', {roles[twin]}, and as '{name}', {roles[name]}",
                "one role to a tensor: the two need different rates",
                "give each a tensor of its own",
            )
    return {name: roles[name] for name in first.values()}


def fans_in(model: nn.Module) -> dict[str, int]:
    """How many terms make up an entry of a layer's output, for every tensor of two axes or more.

    Kernel axes count; of a one-hot input one term is left. For normal weights of standard deviation
    1/sqrt(fan_in), an output is as large as the input.

    >>> fans_in(nn.Sequential(nn.Embedding(9, 5), nn.Conv2d(5, 7, 3)))
    {'0.weight': 1, '1.weight': 45}
    """
    inputs_first, one_hot = _inputs_first(model), _names(model, (nn.Embedding, nn.EmbeddingBag))
    fans = {}
    for name, tensor in model.named_parameters():
        if tensor.dim() >= 2:
            fan = tensor.numel() // tensor.shape[1 if name in inputs_first else 0]
            fans[name] = 1 if name in one_hot else fan
    return fans


def start_stds(
    at_base: nn.Module, scales: Mapping[str, LayerScales], gain: float = 1.0
) -> dict[str, float]:
    """The standard deviation of every weight at the start, see `initialise_`."""
    return {n: gain * fan**-0.5 * scales[n].std for n, fan in fans_in(at_base).items()}


def initialise_(
    model: nn.Module,
    at_base: nn.Module,
    scales: Mapping[str, LayerScales],
    seed: int,
    width: int,
    gain: float = 1.0,
) -> None:
    """Draw every weight from N(0, std^2), std = gain/sqrt(fan_in of ``at_base``) times scales.std.

    So a model of the base width starts with gain/sqrt(fan_in) everywhere, and others as ``scales``
    (see `for_model`) say. Tensors of one axis: biases are set to zero, others left as they are. The
    seed, the width and the position of a tensor name its stream.

    >>> from scaling.rules.parser import parse
    >>> def build(width):
    ...     return nn.Sequential(nn.Conv2d(1, width, 3), nn.Flatten(), nn.Linear(width, 10))
    >>> scales = for_model(parse("G"), build(4), build(8), base=64, width=1024)
    >>> model = build(1024)
    >>> initialise_(model, build(64), scales, seed=0, width=1024)
    >>> readout = model[2].weight.detach()
    >>> round(float(readout.std() * 64**0.5 * 16), 1)  # 1/sqrt(64), times (64/1024)^1
    1.0
    """
    stds = start_stds(at_base, scales, gain)
    for index, (name, tensor) in enumerate(model.named_parameters()):
        if name in stds:
            draw_(tensor, stds[name], seed, width, index)
        elif name.endswith("bias"):
            nn.init.zeros_(tensor)


def _inputs_first(model: nn.Module) -> set[str]:
    """Names of weights that torch stores as (inputs, outputs, ...)."""
    kinds = (
        nn.Embedding, nn.EmbeddingBag, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
    )  # fmt: skip
    return _names(model, kinds)


def _names(model: nn.Module, kinds: tuple[type[nn.Module], ...]) -> set[str]:
    return {
        f"{name}.weight".lstrip(".")
        for name, m in model.named_modules(remove_duplicate=False)
        if isinstance(m, kinds)
    }


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


def at_width(
    width: int,
    layer: Layer,
    a: Expr,
    b: Expr,
    c: Expr,
    d: Mapping[str, Expr],
    sigma: float,
    eta: float,
    rho: Mapping[str, float],
) -> LayerScales:
    """The numbers of one layer at one width."""
    name = layer.name
    return LayerScales(
        std=sigma * power_of_width(width, b, f"b of {name}"),
        lr=eta * power_of_width(width, c, f"c of {name}"),
        scaled={k: rho[k] * power_of_width(width, x, f"d_{k} of {name}") for k, x in d.items()},
        multiplier=power_of_width(width, a, f"a of {name}"),
    )
