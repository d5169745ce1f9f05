"""Weights at the start: what is drawn at the scale that the exponents give, and what stays.

Drawn are the weights that torch's own layers (Linear, convolutions, embeddings, recurrent cells)
drew by torch's default, and set to zero are their biases. What the model's own code put there is
given, and stays:

    frozen            requires_grad is False
    zero              every entry is zero: B of LoRA, a readout or a last gain that starts at zero
    given             tensors of other modules (A_log, position tables), and biases outside of what
                      torch draws: a constant, or entries beyond 1/sqrt(fan_in), such as the bias of
                      Mamba's dt
    kept              what a pattern of ``keep`` names

Tensors that are not finite are unset, and drawn. ``draw`` names what is to be drawn all the same:
a readout that starts at zero, a weight of a module of one's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import Tensor, nn

from empirical.measure.parametrize import LayerScales, draw_
from empirical.your_model.roles import fans_in
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

    @property
    def zero(self) -> tuple[str, ...]:
        """The weights that start at zero."""
        return tuple(name for name, why in self.left.items() if why == "zero")

    def __str__(self) -> str:
        lines = [f"drawn: {', '.join(self.drawn) or 'nothing'}"]
        lines += [f"set to zero: {', '.join(self.zeroed)}"] if self.zeroed else []
        for why in dict.fromkeys(self.left.values()):
            names = ", ".join(name for name, reason in self.left.items() if reason == why)
            lines.append(f"left as it was ({why}): {names}")
        return "\n".join(lines)


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
    keep: Sequence[str] = (),
    draw: Sequence[str] = (),
) -> ModelStart:
    """Draw weights from N(0, std^2), std = gain/sqrt(fan_in of ``at_base``) times scales.std.

    So a model of the base width starts with gain/sqrt(fan_in) everywhere, and others as ``scales``
    (see `for_model`) say. Biases are set to zero, other tensors of one axis stay as they are. The
    seed, the width and the position of a tensor name its stream. ``keep`` and ``draw`` are patterns
    of names such as ``"*.dt_proj.*"``: what stays, and what is drawn, whatever it is otherwise.

    Returns what was drawn, what was set to zero, and what was left and why.

    Raises:
        InvalidInput: for a pattern that names no tensor, or a tensor of one axis to be drawn.

    >>> from empirical.your_model.model_scales import for_model
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
    names = [name for name, _ in model.named_parameters()]
    kept, asked = _matching(keep, names, "keep"), _matching(draw, names, "draw")
    stds, owners = start_stds(at_base, scales, gain), _owners(model)
    drawn, zeroed, left = [], [], {}
    for index, (name, tensor) in enumerate(model.named_parameters()):
        why = "" if name in asked else _reason(name, tensor, owners, kept)
        if name in asked and name not in stds:
            raise InvalidInput(
                f"draw='{name}', a tensor of {tensor.dim()} axis",
                "weights with a fan_in: tensors of 2 axes or more",
                "leave it out: it starts as the model sets it",
            )
        if why:
            left[name] = why
        elif name in stds:
            draw_(tensor, stds[name], seed, width, index)
            drawn.append(name)
        else:
            nn.init.zeros_(tensor)
            zeroed.append(name)
    return ModelStart(tuple(drawn), tuple(zeroed), left)


def _matching(patterns: Sequence[str], names: Iterable[str], what: str) -> frozenset[str]:
    names = list(names)
    patterns = [patterns] if isinstance(patterns, str) else patterns
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise InvalidInput(
                f"{what}='{pattern}', which names no tensor of the model",
                f"patterns of {', '.join(names)}",
                f"write for example {what}=['{names[0]}']",
            )
    return frozenset(name for name in names if any(fnmatchcase(name, p) for p in patterns))


def _owners(model: nn.Module) -> dict[str, nn.Module]:
    """The module that each tensor belongs to, under its first name."""
    return {
        f"{path}.{name}".lstrip("."): module
        for path, module in reversed(list(model.named_modules(remove_duplicate=False)))
        for name, _ in module.named_parameters(recurse=False)
    }


def _reason(
    name: str, tensor: Tensor, owners: Mapping[str, nn.Module], kept: frozenset[str]
) -> str:
    """Why a tensor stays as it is; empty if it does not."""
    if name in kept:
        return "kept"
    if not bool(tensor.isfinite().all()):
        return "" if tensor.dim() >= 2 or name.endswith("bias") else "given"
    if not tensor.requires_grad:
        return "frozen"
    weight = tensor.dim() >= 2
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
