"""The role of every tensor of a model, read off two widths, and how many terms an output adds up.

Kernels of convolutions and embeddings have the role that their growing axes give.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping

from torch import nn

from scaling.models.chain import Role, role_of
from scaling.sizes.errors import InvalidInput

PROPORTIONAL = (0.55, 1.45)
"""Powers of the width between which an axis counts as proportional to it, up to an offset."""


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
