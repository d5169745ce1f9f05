"""Factors of a model's code, changed from outside: for those who do not edit it.

    a branch, a product of a module     its output times the factor            a hook on the module
    a multiplication in a forward       its result times the factor            by file and line

A multiplication has no module of its own, so the functions of torch that a forward calls are looked
at while the module runs that has the line (`TorchFunctionMode`), and the product or the attention
that the line makes is multiplied. That needs the line as it was when the plan was made, with one
product in it, and Python: torch.compile leaves such a module as it is, so that edited code is the
faster one. Exact: a wrapped model is the edited one, under torch.compile, DDP, FSDP and checkpoints
of whole modules; a checkpoint inside of the module runs the line again from outside and is refused.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from empirical.plans.planned_tensors import PlannedChange
from empirical.trace.wrapped_names import modules_of
from scaling.sizes.errors import InvalidInput, NotCovered

PRODUCTS = {"mul", "__mul__", "__rmul__", "mul_", "__imul__", "multiply", "div", "__truediv__",
            "true_divide", "divide", "div_", "__itruediv__"}  # fmt: skip
ATTENTION = "scaled_dot_product_attention"
OF_TORCH = str(Path(torch.__file__).parent)


@dataclass(frozen=True)
class Wrapped:
    """A model whose factors are changed, until they are taken off."""

    model: nn.Module
    handles: tuple[RemovableHandle | _Looked, ...]

    def remove(self) -> None:
        """Take the changes off."""
        for handle in self.handles:
            handle.remove()
        _forget_compiled()


def wrapped(model: nn.Module, changes: Iterable[PlannedChange]) -> Wrapped:
    """Make the changes.

    Raises:
        InvalidInput: for a module that the model does not have.
        NotCovered: for a factor that no hook reaches.
    """
    modules = modules_of(model)
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
    for path in (*outputs, *lines):
        _refuse_changed(modules[path])
    looked = [_Looked(modules[path], found) for path, found in lines.items()]
    hooked = [modules[p].register_forward_hook(_Times(x)) for p, x in outputs.items()]
    _forget_compiled()
    return Wrapped(model, (*looked, *hooked))


def _forget_compiled() -> None:
    """Let what was compiled be compiled again: torch.compile does not look for new hooks."""
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()


def _is_one_product(module: nn.Module) -> bool:
    kinds = (nn.Linear, nn.Embedding, nn.modules.conv._ConvNd)
    return isinstance(module, kinds)


class _Times:
    """A hook that multiplies what a module returns."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def __call__(self, module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        return output * self.factor


def _refuse_changed(module: nn.Module) -> None:
    hooks = module._forward_hooks.values()
    if (isinstance(module, _Lines) and module._planned_factors) or any(
        isinstance(x, _Times) for x in hooks
    ):
        raise InvalidInput(
            f"a {type(module).__name__} whose factors are changed already",
            "a model whose factors are changed once",
            "take the changes off first: .remove() of what wrap returned",
        )


class _Lines:
    """Of a module, before its own class: its forward runs with products of some lines multiplied.

    A class and no hook, so that copies of the module have it, and no compiler looks into it: where
    torch.compile traces a forward, its lines are not to be had.
    """

    _planned_factors: Mapping[tuple[str, int], float]

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """The module's own, outside of any compiler."""
        apart = torch.compiler.disable(self._changed)  # type: ignore[no-untyped-call]
        return apart(*inputs, **named)

    def _changed(self, *inputs: Any, **named: Any) -> Any:
        with _Factors(self._planned_factors):
            return super().forward(*inputs, **named)  # type: ignore[misc]


class _Looked:
    """The changed lines of one module."""

    def __init__(self, module: nn.Module, factors: Mapping[tuple[str, int], float]) -> None:
        self.module, own = module, type(module)
        module.__class__ = type(own.__name__, (_Lines, own), {"__module__": own.__module__})
        module._planned_factors = factors  # type: ignore[assignment]

    def remove(self) -> None:
        """Give the module its own class again; no factors, if another wrapper has changed it."""
        if type(self.module).__mro__[1] is _Lines:
            self.module.__class__ = type(self.module).__mro__[2]
        self.module._planned_factors = {}  # type: ignore[assignment]


class _Factors(TorchFunctionMode):
    """Multiplies the results of products on some lines."""

    def __init__(self, factors: Mapping[tuple[str, int], float]) -> None:
        super().__init__()
        self.factors = factors
        self.seen: set[tuple[str, int]] = set()
        self.kept = _how_kept()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        factor = self._factor(_line()) if name in PRODUCTS | {ATTENTION} else 1.0
        if factor != 1 and name == ATTENTION:
            scale = kwargs.get("scale") or args[0].shape[-1] ** -0.5
            return func(*args, **{**kwargs, "scale": scale * factor})
        result = func(*args, **kwargs)
        return result * factor if factor != 1 else result

    def _factor(self, line: tuple[str, int]) -> float:
        factor = self.factors.get(line, 1.0)
        if factor != 1 and line in self.seen:
            raise NotCovered(
                f"two products at {line[0]}:{line[1]} in one forward, of which one has the factor "
                f"{factor:.6g}",
                "one product in the line",
                "write each in a line of its own and make the plan anew, or edit the line and plan "
                "the edited code",
            )
        if factor != 1 and _how_kept() != self.kept:
            raise NotCovered(
                f"the product at {line[0]}:{line[1]}, in a checkpoint or under no_grad inside of "
                "its module's forward, where it may run again without the factor",
                "a checkpoint of the whole module, called from outside",
                f"write checkpoint(module, x) where the module is called, or edit the line: "
                f"multiply its result by {factor:.6g}",
            )
        self.seen.add(line)
        return factor


def _how_kept() -> object:
    """How values are kept for the backward pass, which a checkpoint changes."""
    return torch._C._autograd._top_saved_tensors_default_hooks(True), torch.is_grad_enabled()


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
