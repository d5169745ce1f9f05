"""From exponents to numbers at a width: standard deviations, learning rates, dampings, decays.

    std = sigma' M^-b      lr = eta' M^-c      rho = rho' M^-d      multiplier = M^-a

The exponents come from scaling/; the primed constants do not depend on the width. For an input
layer sigma' = 1/sqrt(fan_in), so that pre-activations are of order one. The same for a model of
your own: your_model/model_scales.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from sympy import Expr, S
from torch import Tensor

from scaling.models.chain import Layer
from scaling.rules.symbols import SymbolKind
from scaling.rules.tree import Symbol
from scaling.sizes.errors import InvalidInput


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
    """Fill a weight with N(0, std^2) from a stream of its own: seed, width and layer name it.

    A weight that is sharded over processes (`fully_shard`) gets the entries of the whole one.
    """
    generator = torch.Generator(device=weight.device).manual_seed(_stream(seed, width, index))
    with torch.no_grad():
        if std == 0:
            weight.zero_()
        elif hasattr(weight, "device_mesh"):
            _draw_sharded(weight, std, generator)
        else:
            weight.normal_(0.0, std, generator=generator)


def _draw_sharded(weight: Tensor, std: float, generator: torch.Generator) -> None:
    """Draw the whole of a weight in every process, for each to keep its own part.

    `normal_` with a generator would draw the same numbers for every part.
    """
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(weight, DTensor)
    whole = torch.empty(weight.shape, dtype=weight.dtype, device=weight.device)
    whole.normal_(0.0, std, generator=generator)
    own = distribute_tensor(whole, weight.device_mesh, weight.placements, src_data_rank=None)
    weight.copy_(own)


def _stream(seed: int, width: int, index: int) -> int:
    """A 63-bit seed, well mixed, so that neighbouring seeds are unrelated (SplitMix64)."""
    z = (
        seed * 0x9E3779B97F4A7C15 + width * 0xD1B54A32D192ED03 + index * 0x8CB92BA72F3D8DD7
    ) % 2**64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % 2**64
    return (z ^ (z >> 31)) % 2**63


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
