"""Models that are handed over in Python: a function of the size, or a module at two sizes.

    a function      build(size) or build(**axes), and a batch: as a file has them (model_file.py)
    a module        at one size, of which only the operations are asked for
    two modules     one model at two sizes, nothing else known of it. Its size is that of an axis
                    that grows, and a length is read as proportional to it or as fixed: two sizes
                    tell no offset from a power. Drawn are the tensors of torch's own layers, and
                    those whose entries at one size are not a part of those at the other
    no batch        for a chain (nn.Sequential) alone, whose first layer says what it takes: a row
                    of numbers, word ids or an image. Targets are then those of a squared error

>>> import torch
>>> from torch import nn
>>> pair = two_models(nn.Linear(3, 4), nn.Linear(3, 8), (torch.ones(2, 3), torch.ones(2, 4)))
>>> pair.axis(None)
GrowingAxis(name='width', sizes=(4, 8))
"""

from __future__ import annotations

import copy
import inspect
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from empirical.trace.growth import PROPORTIONAL
from empirical.trace.model_file import GrowingAxis, LossOf, ModelFile
from scaling.sizes.errors import InvalidInput

GivenBatch: TypeAlias = tuple[Any, Tensor] | Callable[..., tuple[Any, Tensor]]
"""(inputs, targets), or a function of the size that returns them."""
SAMPLES = 4
LARGEST_SIDE = 64
"""Of an image that is made up where none is given."""


def model_of(
    build: Callable[..., nn.Module], batch: GivenBatch | None, loss: LossOf | None = None
) -> ModelFile:
    """The model of a function, whose first parameter is the axis that grows.

    Raises:
        InvalidInput: for a function without parameters.
    """
    known = [
        p for p in inspect.signature(build).parameters.values()
        if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]  # fmt: skip
    if not known:
        raise InvalidInput(
            "a function that builds a model of one size",
            "a function of the size",
            "write for example: def build(width): return MLP(width)",
        )
    first = known[0]
    axes = {p.name: p.default if isinstance(p.default, int) else None for p in known}

    def built(**sizes: int) -> nn.Module:
        if first.kind is first.POSITIONAL_ONLY:
            return build(sizes.pop(first.name), **sizes)
        return build(**sizes)

    built.__name__ = getattr(build, "__name__", type(build).__name__)
    return ModelFile(_path(build), built, _batcher(built, batch), loss, axes)


def one_model(model: nn.Module, batch: GivenBatch | None, loss: LossOf | None = None) -> ModelFile:
    """A module that was built already, at its one size.

    Raises:
        InvalidInput: for what is no module, and no batch where none can be made up.
    """
    if not isinstance(model, nn.Module):
        raise InvalidInput(
            f"a {type(model).__name__} as the model",
            "a torch.nn.Module",
            "pass the module that is trained",
        )

    def built() -> nn.Module:
        return copy.deepcopy(model)

    built.__name__ = type(model).__name__
    return ModelFile(_path(type(model)), built, _batcher(built, batch), loss, {})


def two_models(
    narrow: nn.Module, wide: nn.Module, batch: GivenBatch | None, loss: LossOf | None = None
) -> ModelFile:
    """One model at two sizes.

    Raises:
        InvalidInput: for what is no module, two models of one size, tensors without a counterpart,
            and an axis that grows as another power than others.
    """
    for what, model in (("first", narrow), ("second", wide)):
        if not isinstance(model, nn.Module):
            raise InvalidInput(
                f"a {type(model).__name__} as the {what} model",
                "a torch.nn.Module",
                "build two models that differ in width alone",
            )
    sizes = _sizes(narrow, wide)
    models = dict(zip(sizes, (narrow, wide), strict=True))

    def built(width: int) -> nn.Module:
        return copy.deepcopy(models[width])

    path = Path(type(narrow).__name__)
    return _Pair(path, built, _batcher(built, batch), loss, {"width": sizes[0]}, sizes, wide)


@dataclass(frozen=True)
class _Pair(ModelFile):
    """Two modules: no third size and no second draw are to be had."""

    sizes: tuple[int, int]
    wide: nn.Module

    def axis(self, asked: str | GrowingAxis | None) -> GrowingAxis:
        """The two sizes."""
        return GrowingAxis("width", self.sizes)

    def two_draws(self, sizes: Mapping[str, int]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The tensors, and the same with other entries where they are drawn."""
        model, other = self.build(sizes), dict(self.wide.named_parameters(remove_duplicate=False))
        one = {n: p.detach() for n, p in model.named_parameters(remove_duplicate=False)}
        owners = _owners(model)
        drawn = {n for n, x in one.items() if _is_drawn(x, other[n].detach(), owners[n])}
        return one, {n: -x if n in drawn else x for n, x in one.items()}


def _is_drawn(x: Tensor, wide: Tensor, owner: nn.Module) -> bool:
    if x.numel() == 0 or not x.is_floating_point():
        return False
    if bool((x == x.flatten()[0]).all()):
        return not bool(x.isfinite().all())
    if hasattr(owner, "reset_parameters") and type(owner).__module__.startswith("torch."):
        return True
    part = wide[tuple(slice(0, n) for n in x.shape)]
    return part.shape != x.shape or not torch.equal(part, x)


def _owners(model: nn.Module) -> dict[str, nn.Module]:
    return {
        f"{path}.{name}".lstrip("."): module
        for path, module in model.named_modules(remove_duplicate=False)
        for name, _ in module.named_parameters(recurse=False, remove_duplicate=False)
    }


def _sizes(narrow: nn.Module, wide: nn.Module) -> tuple[int, int]:
    """The lengths of an axis that grows as most do."""
    other = dict(wide.named_parameters(remove_duplicate=False))
    growing: dict[tuple[str, int], tuple[int, int]] = {}
    for name, tensor in narrow.named_parameters(remove_duplicate=False):
        if name not in other or other[name].dim() != tensor.dim():
            raise InvalidInput(
                f"the parameter '{name}' of shape {tuple(tensor.shape)}, with no counterpart in "
                "the second model",
                "two models that differ in width alone",
                "build both from one function of the width",
            )
        for axis, (small, big) in enumerate(zip(tensor.shape, other.pop(name).shape, strict=True)):
            if big < small:
                raise InvalidInput(
                    f"axis {axis} of '{name}': {small} in the first model, {big} in the second",
                    "axes that stay or grow",
                    "pass the narrow model first",
                )
            if big > small:
                growing[name, axis] = small, big
    if other:
        raise InvalidInput(
            f"the parameter '{next(iter(other))}', which the first model lacks",
            "two models that differ in width alone",
            "build both from one function of the width",
        )
    if not growing:
        raise InvalidInput(
            "two models of the same width: no axis grows",
            "two different widths",
            "pass for example model(64) and model(128)",
        )
    least, most = PROPORTIONAL
    middle = statistics.median_low(big / small for small, big in growing.values())
    for (name, axis), (small, big) in growing.items():
        if not least < math.log(big / small) / math.log(middle) < most:
            raise InvalidInput(
                f"axis {axis} of '{name}', which grows {big / small:.3g}-fold where others grow "
                f"{middle:.3g}-fold",
                "axes that stay, or grow in proportion to the width, where two models are all",
                "pass the function that builds them in the place of the first: "
                "for_model(rule, build, base=64, width=4096, batch=batch)",
            )
    return next(pair for pair in growing.values() if pair[1] / pair[0] == middle)


# --- the batch ----------------------------------------------------------------------------------


def _batcher(
    built: Callable[..., nn.Module], batch: GivenBatch | None
) -> Callable[..., tuple[Any, Tensor]]:
    if batch is None:
        return lambda **sizes: _made_up(built(**sizes))
    if callable(batch):
        return batch
    if not (isinstance(batch, tuple) and len(batch) == 2 and isinstance(batch[1], Tensor)):
        raise InvalidInput(
            f"batch={type(batch).__name__}",
            "a pair (inputs, targets), the targets a torch tensor; several inputs are a tuple",
            "pass batch=(x, y)",
        )
    inputs, targets = batch

    def given(**sizes: int) -> tuple[Any, Tensor]:
        model = built(**sizes)
        return _in_order(model, inputs, next(_dtypes(model))), targets

    return given


def _dtypes(model: nn.Module) -> Iterator[torch.dtype]:
    yield from (p.dtype for p in model.parameters() if p.is_floating_point())
    yield torch.get_default_dtype()


def _in_order(model: nn.Module, inputs: Any, dtype: torch.dtype) -> tuple[Any, ...]:
    """Inputs in the order of forward, numbers in the dtype of the weights."""
    if isinstance(inputs, Mapping):
        taken = inspect.signature(model.forward).bind(**inputs)
        taken.apply_defaults()
        inputs = (*taken.args, *taken.kwargs.values())
    several: Sequence[Any] = inputs if isinstance(inputs, tuple | list) else (inputs,)
    return tuple(
        x.to(dtype) if isinstance(x, Tensor) and x.is_floating_point() else x for x in several
    )


def _made_up(model: nn.Module) -> tuple[tuple[Any, ...], Tensor]:
    """Inputs as the first layer of a chain takes them, and targets like its output.

    Raises:
        InvalidInput: for any other model.
    """
    for x in _candidates(_first_of_chain(model)):
        try:
            with torch.no_grad():
                output = copy.deepcopy(model).to("meta")(x.to("meta"))
        except (RuntimeError, ValueError):
            continue
        if isinstance(output, Tensor):
            return (x,), torch.ones(output.shape, dtype=output.dtype)
    raise InvalidInput(
        f"a {type(model).__name__} without a batch, from which its operations cannot be read",
        "the inputs and the targets that it is trained on",
        "pass batch=(inputs, targets)",
    )


def _first_of_chain(model: nn.Module) -> nn.Module | None:
    """The first layer of a chain that has tensors; None of a model that is no chain."""
    while isinstance(model, nn.Sequential):
        own = [child for child in model if any(True for _ in child.parameters())]
        if not own:
            return None
        model = own[0]
    return model


def _candidates(layer: nn.Module | None) -> Iterator[Tensor]:
    weight = getattr(layer, "weight", None)
    dtype = weight.dtype if isinstance(weight, Tensor) else None
    if isinstance(layer, nn.Linear):
        yield torch.ones(SAMPLES, layer.in_features, dtype=dtype)
    elif isinstance(layer, nn.Embedding | nn.EmbeddingBag):
        yield torch.zeros(SAMPLES, 2, dtype=torch.int64)
        yield torch.zeros(SAMPLES, dtype=torch.int64)
    elif isinstance(layer, nn.modules.conv._ConvNd):
        rank = len(layer.kernel_size)
        for side in range(1, LARGEST_SIDE + 1):
            yield torch.ones(SAMPLES, layer.in_channels, *(side,) * rank, dtype=dtype)


def _path(function: Callable[..., Any]) -> Path:
    """The file of a function, as far as it is known, for messages."""
    try:
        return Path(inspect.getsourcefile(function) or "build")
    except (TypeError, OSError):
        return Path("build")
