"""Factors of a model's code, changed from outside: for those who do not edit it.

    a branch, a product of a module     its output times the factor            a hook on the module
    a multiplication in a forward       its result times the factor            by file and line

A multiplication has no module of its own, so the functions of torch that a forward calls are looked
at while the module runs that has the line (`TorchFunctionMode`), and the product or the attention
that the line makes is multiplied. That needs the line as it was when the plan was made, and Python:
a compiled model takes the edited code instead. Exact: a wrapped model is the edited one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from empirical.plans.planned_tensors import PlannedChange
from scaling.sizes.errors import InvalidInput, NotCovered

PRODUCTS = {"mul", "__mul__", "__rmul__", "mul_", "__imul__", "multiply", "div", "__truediv__",
            "true_divide", "divide", "div_", "__itruediv__"}  # fmt: skip
ATTENTION = "scaled_dot_product_attention"
OF_TORCH = str(Path(torch.__file__).parent)


@dataclass(frozen=True)
class Wrapped:
    """A model whose factors are changed, until they are taken off."""

    model: nn.Module
    handles: tuple[RemovableHandle, ...]

    def remove(self) -> None:
        """Take the changes off."""
        for handle in self.handles:
            handle.remove()


def wrapped(model: nn.Module, changes: Iterable[PlannedChange]) -> Wrapped:
    """Make the changes.

    Raises:
        InvalidInput: for a module that the model does not have.
        NotCovered: for a factor that no hook reaches.
    """
    modules = dict(model.named_modules())
    lines: dict[str, dict[tuple[str, int], float]] = {}
    outputs: dict[str, float] = {}
    for change in changes:
        if not change.modules:
            raise NotCovered(
                f"the factor at {change.file}:{change.line}, which no module's forward has",
                "a line of the model itself, and not of its loss",
                f"edit the line: multiply its result by {change.factor:.6g}",
            )
        for path in change.modules:
            if path not in modules:
                raise InvalidInput(
                    f"no module '{path}' in the model",
                    "the modules that the plan was made for",
                    "make a plan for this model",
                )
            if change.operation in ("multiply", "divide") and change.line:
                place, found = (Path(change.file).name, change.line), lines.setdefault(path, {})
                found[place] = found.get(place, 1.0) * change.factor
            elif _is_one_product(modules[path]):
                outputs[path] = outputs.get(path, 1.0) * change.factor
            else:
                raise NotCovered(
                    f"the factor of '{change.operation}' at {change.file}:{change.line}, in a "
                    "module of several operations",
                    "the output of a Linear, convolution or embedding, or a multiplication",
                    f"edit the line: multiply its result by {change.factor:.6g}",
                )
    handles = [modules[p].register_forward_hook(_times(x)) for p, x in outputs.items()]
    for path, found in lines.items():
        handles += _looked_at(modules[path], found)
    return Wrapped(model, tuple(handles))


def _is_one_product(module: nn.Module) -> bool:
    kinds = (nn.Linear, nn.Embedding, nn.modules.conv._ConvNd)
    return isinstance(module, kinds)


def _times(factor: float) -> Callable[..., Tensor]:
    def hook(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        return output * factor

    return hook


def _looked_at(
    module: nn.Module, factors: Mapping[tuple[str, int], float]
) -> Sequence[RemovableHandle]:
    modes: list[_Factors] = []

    def enter(module: nn.Module, inputs: Any) -> None:
        modes.append(_Factors(factors))
        modes[-1].__enter__()  # type: ignore[no-untyped-call]

    def leave(module: nn.Module, inputs: Any, output: Any) -> None:
        modes.pop().__exit__(None, None, None)  # type: ignore[no-untyped-call]

    return (
        module.register_forward_pre_hook(enter),
        module.register_forward_hook(leave, always_call=True),
    )


class _Factors(TorchFunctionMode):
    """Multiplies the results of products on some lines."""

    def __init__(self, factors: Mapping[tuple[str, int], float]) -> None:
        super().__init__()
        self.factors = factors

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        factor = self.factors.get(_line(), 1.0) if name in PRODUCTS | {ATTENTION} else 1.0
        if factor != 1 and name == ATTENTION:
            scale = kwargs.get("scale") or args[0].shape[-1] ** -0.5
            return func(*args, **{**kwargs, "scale": scale * factor})
        result = func(*args, **kwargs)
        return result * factor if factor != 1 else result


def _line() -> tuple[str, int]:
    """The user's line that is being run."""
    frame = sys._getframe(1)
    while frame is not None:
        path = frame.f_code.co_filename
        if path != __file__ and not path.startswith(OF_TORCH):
            return Path(path).name, frame.f_lineno
        assert frame.f_back is not None, "the forward of a model is called by someone"
        frame = frame.f_back
    return "", 0
