"""The calls of a running model that meet a trained tensor, or a view that is made of it.

A view (transpose, slice, one of several heads, another dtype) is followed by taking the same view
of the numbers of the tensor's entries; a number that multiplies a weight is kept as a factor of
what the weight meets. Anything else that is made of a weight (weight norm, a sum of two) is not
followed: its tensors have no inputs and cotangents of their own.

    Tracker          is told every call, and returns what of it met a tensor
    watching_calls   tells a tracker the calls of a module, whatever Python code makes them

>>> import torch
>>> w = torch.nn.Parameter(torch.ones(3, 2))
>>> tracker = Tracker({"w": w})
>>> with watching_calls(tracker):
...     y = torch.ones(4, 2) @ w.t()
>>> [(x.name, x.met.equation) for x in tracker.found]
[('w', 'YX,XZ->YZ')]
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_unflatten

from empirical.trace.weight_rows import ATEN, ROWS, Meeting, Met

VIEWS = frozenset(
    [
        "t",
        "T",
        "mT",
        "H",
        "mH",
        "transpose",
        "swapaxes",
        "swapdims",
        "permute",
        "movedim",
        "view",
        "view_as",
        "reshape",
        "flatten",
        "unflatten",
        "unbind",
        "chunk",
        "split",
        "tensor_split",
        "__getitem__",
        "select",
        "slice",
        "narrow",
        "squeeze",
        "unsqueeze",
        "expand",
        "expand_as",
        "broadcast_to",
        "contiguous",
        "clone",
        "unsafe_chunk",
        "split_with_sizes",
        "alias",
    ]
)
CASTS = frozenset(["to", "float", "double", "half", "bfloat16", "type", "type_as", "_to_copy"])


@dataclass(frozen=True, eq=False)
class _View:
    """A tensor that is made of a trained one: entry by entry, times a number."""

    tensor: Tensor
    name: str
    index: Tensor | None = None
    factor: float = 1.0

    def places(self, shape: tuple[int, ...]) -> Tensor:
        """The flat places of its entries in the trained tensor, of that shape."""
        return _numbers(shape, self.tensor.device) if self.index is None else self.index


@dataclass(frozen=True, eq=False)
class WeightCall:
    """One meeting of a trained tensor with data.

    ``edge``: the result's place in autograd; ``label``: what the caller calls the result.
    """

    name: str
    met: Met
    view: _View
    edge: GradientEdge | None
    label: str = ""


class Tracker:
    """Follows trained tensors through the calls of a pass.

    Args:
        tensors: by name; a tensor under several names has the first one.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._shapes = {name: tuple(x.shape) for name, x in tensors.items()}
        self._own = {id(x): _View(x, name) for name, x in reversed(list(tensors.items()))}
        self.found: list[WeightCall] = []
        self.clear()

    def clear(self) -> None:
        """Forget views and uses."""
        self._known = dict(self._own)
        self.found = []

    def places(self, use: WeightCall) -> Tensor:
        """The flat places of a weight's entries in its trained tensor."""
        return use.view.places(self._shapes[use.name])

    def call(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any],
        out: Any, label: str = "",
    ) -> None:  # fmt: skip
        """One call and its result."""
        if not self._own:
            return
        name = name_of(function)
        leaves = [x for x in tree_flatten((args, dict(kwargs)))[0] if isinstance(x, Tensor)]
        known = [x for x in leaves if id(x) in self._known]
        if not known:
            return
        if len(known) == 1 and self._followed(function, known[0], args, kwargs, leaves, out):
            return
        row = (
            ATEN.get(name, ROWS.get(name))
            if hasattr(function, "overloadpacket")
            else ROWS.get(name)
        )
        if row is None or not isinstance(out, Tensor):
            return
        try:
            mets = list(row(*args, **kwargs))
        except TypeError:
            return  # a spelling of the call that the row does not know: its weights have no uses
        for met in mets:
            view = self._known.get(id(met.weight))
            if view is not None and id(met.x) not in self._known:
                if view.factor != 1.0 and met.meeting is Meeting.PRODUCT:
                    met = replace(met, of_x=_scaled(met.of_x, view.factor))
                if view.factor == 1.0 or met.meeting is Meeting.PRODUCT:
                    edge = get_gradient_edge(out) if out.requires_grad else None
                    self.found.append(WeightCall(view.name, met, view, edge, label))

    def _followed(
        self, function: Callable[..., Any], x: Tensor, args: tuple[Any, ...],
        kwargs: Mapping[str, Any], leaves: list[Tensor], out: Any,
    ) -> bool:  # fmt: skip
        """Whether a call made a view of a weight, which is known from now on."""
        view, name = self._known[id(x)], name_of(function)
        if name in CASTS and isinstance(out, Tensor):
            self._known[id(out)] = replace(view, tensor=out)
            return True
        factor = _factor(name, x, args)
        if factor is not None and isinstance(out, Tensor):
            self._known[id(out)] = replace(view, tensor=out, factor=view.factor * factor)
            return True
        if name not in VIEWS or len(leaves) > 1:
            return False
        index = view.places(self._shapes[view.name])
        flat, spec = tree_flatten((args, dict(kwargs)))
        flat = [index if y is x else y for y in flat]
        more, named = tree_unflatten(flat, spec)
        places = function(*more, **named)
        outs = out if isinstance(out, tuple | list) else (out,)
        several = places if isinstance(places, tuple | list) else (places,)
        for y, index in zip(outs, several, strict=True):
            self._known[id(y)] = _View(y, view.name, index, view.factor)
        return True


def _scaled(change: Callable[[Tensor], Tensor], factor: float) -> Callable[[Tensor], Tensor]:
    return lambda x: factor * change(x)


def _factor(name: str, x: Tensor, args: tuple[Any, ...]) -> float | None:
    """The number that a call multiplies a weight by."""
    if name in ("mul", "__mul__", "__rmul__", "multiply", "div", "__truediv__", "true_divide"):
        other = next((y for y in args[:2] if y is not x), None)
        if isinstance(other, int | float) and not isinstance(other, bool):
            return 1 / float(other) if "div" in name else float(other)
    return -1.0 if name in ("neg", "__neg__", "negative") else None


@functools.lru_cache(maxsize=4)
def _numbers(shape: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.arange(torch.Size(shape).numel(), device=device).reshape(shape)


@contextmanager
def watching_calls(tracker: Tracker) -> Iterator[None]:
    """Tell a tracker every call of torch that Python code makes in here."""
    with _Calls(tracker):
        yield


class _Calls(TorchFunctionMode):
    def __init__(self, tracker: Tracker) -> None:
        super().__init__()
        self._tracker = tracker

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """A call: of a function of torch.nn.functional that has no row, those that it makes."""
        name, kwargs = name_of(func), kwargs or {}
        if name not in ROWS and name not in VIEWS and _is_written_in_python(func):
            with self:
                return _unwatched(func)(*args, **kwargs)
        out = func(*args, **kwargs)
        self._tracker.call(func, args, kwargs, out)
        return out


def name_of(func: Any) -> str:
    """The name of a function, a method or a property of torch, without its overload."""
    name = getattr(func, "__name__", "").partition(".")[0]
    if name == "__get__":
        name = getattr(getattr(func, "__self__", None), "__name__", "")
    return str(name)


def _is_written_in_python(func: Any) -> bool:
    return isinstance(func, types.FunctionType) and func.__module__ == nn.functional.__name__


@functools.cache
def _unwatched(func: types.FunctionType) -> types.FunctionType:
    """The function without the question whether someone watches it."""
    no = {name: _no for name in func.__globals__ if name.startswith("has_torch_function")}
    copy = types.FunctionType(
        func.__code__, {**func.__globals__, **no}, func.__name__, func.__defaults__,
        func.__closure__,
    )  # fmt: skip
    copy.__kwdefaults__ = func.__kwdefaults__
    return copy


def _no(*_: Any) -> bool:
    return False
