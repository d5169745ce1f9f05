"""Weights at the start: what is drawn at the scale that the exponents give, and what stays.

Drawn are the weights that torch's own layers (Linear, convolutions, embeddings, recurrent cells)
drew by torch's default, and set to zero are their biases. What the model's own code put there is
given, and stays:

    frozen            requires_grad is False
    zero              every entry is zero: B of LoRA, a readout or a last gain that starts at zero
    given             the same under every seed (A_log, tables of sines), and biases outside of what
                      torch draws: a constant, or entries beyond 1/sqrt(fan_in), such as the bias of
                      Mamba's dt
    kept              what a pattern of ``keep`` names

What the model's own code draws (a raw matrix, a table of positions) keeps its entries, times a
factor that gives them the size of the model at the base width, times ``std``. Tensors that are not
finite are unset, and drawn. ``draw`` names what is to be drawn all the same: a readout that starts
at zero, a weight of a module of one's own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from empirical.measure.parametrize import LayerScales, draw_
from empirical.trace.wrapped_names import plain_name, tensors_of
from empirical.your_model.model_scales import ModelScales, ReadModel, matching
from scaling.models.graph import Start
from scaling.sizes.errors import InvalidInput

_ROUNDING = 1.01
"""By how much a number in half precision may stand out of the range that it was drawn from."""
_DRAWN_BY_TORCH = (
    nn.Linear, nn.Bilinear, nn.Embedding, nn.EmbeddingBag, nn.RNNBase, nn.RNNCellBase,
    nn.MultiheadAttention, nn.modules.conv._ConvNd,
)  # fmt: skip


@dataclass(frozen=True)
class ModelStart:
    """The report of `initialise_`, by the name of a tensor."""

    drawn: tuple[str, ...]
    zeroed: tuple[str, ...]
    left: Mapping[str, str]
    """Name -> why it stayed as it was."""
    rescaled: tuple[str, ...] = ()
    """Drawn by the model's own code, and multiplied by a factor."""

    @property
    def zero(self) -> tuple[str, ...]:
        """The weights that start at zero."""
        return tuple(name for name, why in self.left.items() if why == "zero")

    def __str__(self) -> str:
        lines = [f"drawn: {', '.join(self.drawn) or 'nothing'}"]
        lines += [f"set to zero: {', '.join(self.zeroed)}"] if self.zeroed else []
        lines += [f"rescaled: {', '.join(self.rescaled)}"] if self.rescaled else []
        for why in dict.fromkeys(self.left.values()):
            names = ", ".join(name for name, reason in self.left.items() if reason == why)
            lines.append(f"left as it was ({why}): {names}")
        return "\n".join(lines)


def start_stds(
    read: ReadModel, at_base: nn.Module, scales: Mapping[str, LayerScales], gain: float = 1.0
) -> dict[str, float]:
    """The standard deviation of every weight at the start, see `initialise_`."""
    fans = {name: read.fan_in(name, x) for name, x in at_base.named_parameters()}
    return {n: gain * fan**-0.5 * scales[n].std for n, fan in fans.items() if fan is not None}


def initialise_(
    model: nn.Module,
    at_base: nn.Module,
    scales: ModelScales,
    seed: int,
    width: int,
    gain: float = 1.0,
    keep: Sequence[str] = (),
    draw: Sequence[str] = (),
) -> ModelStart:
    """Draw weights from N(0, std^2), std = gain/sqrt(fan_in of ``at_base``) times scales.std.

    So a model of the base width starts with gain/sqrt(fan_in) everywhere, and others as ``scales``
    (see `for_model`) say; fan_in is the number of terms that the use of a tensor adds up, 1 where
    rows of a table are picked. Biases are set to zero, other tensors stay as they are. The seed,
    the width and the position of a tensor name its stream. ``keep`` and ``draw`` are patterns of
    names such as ``"*.dt_proj.*"``: what stays, and what is drawn, whatever it is otherwise.

    Returns what was drawn, what was set to zero, and what was left and why.

    Raises:
        InvalidInput: for scales that are not those of `for_model`, a pattern that names no tensor,
            or a tensor without a fan_in to be drawn.

    >>> from torch import nn
    >>> from empirical import for_model
    >>> def build(width):
    ...     return nn.Sequential(nn.Conv2d(1, width, 3), nn.Flatten(), nn.Linear(width, 10))
    >>> scales = for_model("G", build(4), build(8), base=64, width=1024)
    >>> model = build(1024)
    >>> print(initialise_(model, build(64), scales, seed=0, width=1024))
    drawn: 0.weight, 2.weight
    set to zero: 0.bias, 2.bias
    >>> readout = model[2].weight.detach()
    >>> round(float(readout.std() * 64**0.5 * 16), 1)  # 1/sqrt(64), times (64/1024)^1
    1.0
    """
    if not isinstance(scales, ModelScales):
        raise InvalidInput(
            f"scales of type {type(scales).__name__}, which say nothing of the uses of tensors",
            "the scales that for_model returns",
            "pass scales=for_model(rule, build, base=..., width=..., batch=...)",
        )
    return started_(model, at_base, scales.read, scales, seed, width, gain, keep, draw)


def started_(
    model: nn.Module,
    at_base: nn.Module,
    read: ReadModel,
    scales: Mapping[str, LayerScales],
    seed: int,
    width: int,
    gain: float = 1.0,
    keep: Sequence[str] = (),
    draw: Sequence[str] = (),
) -> ModelStart:
    """The same with any numbers; ``read`` says how many terms each tensor's use adds up."""
    tensors = tensors_of(model)
    names = list(tensors)
    kept, asked = matching(keep, names, "keep"), matching(draw, names, "draw")
    stds, owners = start_stds(read, at_base, scales, gain), _owners(model)
    bases = dict(at_base.named_parameters())
    drawn, zeroed, rescaled, left = [], [], [], {}
    for index, (name, tensor) in enumerate(tensors.items()):
        why = "" if name in asked else _reason(name, tensor, owners, kept, name in stds)
        if name in asked and name not in stds:
            raise InvalidInput(
                f"draw='{name}', which is added, frozen, or made into a weight by other code",
                "weights with a fan_in: factors of a product with data",
                "leave it out: it starts as the model sets it",
            )
        if name in asked and read.start.parameters[name].start is not Start.DRAWN:
            raise InvalidInput(
                f"draw='{name}', which starts as the code has it in the scales",
                "scales of a model in which it is drawn",
                f"pass draw=['{name}'] to for_model too",
            )
        factor = _factor(tensor, bases[name], scales[name].std)
        if why == "given" and factor != 1 and read.start.parameters[name].start is Start.DRAWN:
            with torch.no_grad():
                tensor.mul_(factor)
            rescaled.append(name)
        elif why:
            left[name] = why
        elif name in stds:
            draw_(tensor, stds[name], seed, width, index)
            drawn.append(name)
        else:
            nn.init.zeros_(tensor)
            zeroed.append(name)
    return ModelStart(tuple(drawn), tuple(zeroed), left, tuple(rescaled))


def _factor(tensor: Tensor, at_base: Tensor, std: float) -> float:
    """The factor that a tensor lacks to the size of the base times std; 1 within sampling noise."""
    now, then = (float(x.detach().double().square().mean().sqrt()) for x in (tensor, at_base))
    if not (0 < now < math.inf and 0 < then < math.inf):
        return 1.0
    factor = then * std / now
    noise = 4 * (0.5 / tensor.numel() + 0.5 / at_base.numel()) ** 0.5
    return 1.0 if abs(math.log(factor)) < noise else factor


def _owners(model: nn.Module) -> dict[str, nn.Module]:
    """The module that each tensor belongs to, under its first name."""
    return {
        plain_name(model, f"{path}.{name}".lstrip(".")): module
        for path, module in reversed(list(model.named_modules(remove_duplicate=False)))
        for name, _ in module.named_parameters(recurse=False)
    }


def _reason(
    name: str, tensor: Tensor, owners: Mapping[str, nn.Module], kept: frozenset[str], weight: bool
) -> str:
    """Why a tensor stays as it is; empty if it does not. ``weight``: whether it has a fan_in."""
    if name in kept:
        return "kept"
    if not bool(tensor.isfinite().all()):
        return "" if weight or name.endswith("bias") else "given"
    if not tensor.requires_grad:
        return "frozen"
    if weight and not bool(tensor.any()):
        return "zero"
    owner = owners[name]
    if weight:
        return "" if isinstance(owner, _DRAWN_BY_TORCH) else "given"
    return "" if name.endswith("bias") and _is_default_bias(tensor, owner) else "given"


def _is_default_bias(bias: Tensor, owner: nn.Module) -> bool:
    """Whether a bias is zero, or may have been drawn by torch: within 1/sqrt(fan_in)."""
    if not bool(bias.any()):
        return True
    weight = getattr(owner, "weight", None)
    if not isinstance(owner, _DRAWN_BY_TORCH) or not isinstance(weight, Tensor):
        return False
    constant = bias.numel() > 1 and bool((bias == bias[0]).all())
    within = float(bias.detach().abs().max()) <= _ROUNDING * weight[0].numel() ** -0.5
    return within and not constant


def torchs_fans_in(model: nn.Module) -> dict[str, int]:
    """The fan_in by which torch draws the weights of its own layers; 1 of all other tensors.

    >>> from torch import nn
    >>> torchs_fans_in(nn.Sequential(nn.Embedding(9, 5), nn.Conv2d(5, 7, 3, bias=False)))
    {'0.weight': 1, '1.weight': 45}
    """
    owners, tables = _owners(model), nn.Embedding | nn.EmbeddingBag
    return {
        name: tensor[0].numel()
        if isinstance(owners[name], _DRAWN_BY_TORCH)
        and not isinstance(owners[name], tables)
        and "bias" not in name
        else 1
        for name, tensor in model.named_parameters()
    }
