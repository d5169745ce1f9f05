"""A device that is none: tensors that say they are elsewhere, and refuse to meet those here.

Arithmetic is done on the CPU; what a GPU would refuse is refused: operands on two devices (numbers
aside), and numpy's view of a tensor. So code that a GPU runs is run here, and what it forgets to
move is found.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

NAME = "meta"
"""A device that torch knows everywhere, and starts nowhere."""


class Elsewhere(Tensor):
    """A tensor on the device, which holds one of the CPU."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> Elsewhere:
        """Of the same shape and strides."""
        x: Elsewhere = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, held.shape, held.stride(), held.storage_offset(),
            dtype=held.dtype, device=torch.device(NAME),
        )  # fmt: skip
        x.held = held
        return x

    @classmethod
    def __torch_dispatch__(
        cls, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """As the device does it."""
        return run(function, args, kwargs or {})


def is_here(x: Any) -> bool:
    """Whether a tensor is on the CPU."""
    return isinstance(x, Tensor) and not isinstance(x, Elsewhere)


def run(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """An operation, whose result is where its operands are, or where it is asked for."""
    flat = tree_flatten((args, kwargs))[0]
    there = [x for x in flat if isinstance(x, Elsewhere)]
    moved = function in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)
    if there and not moved:
        mixed = [x for x in flat if is_here(x) and x.dim()]
        if mixed:
            raise RuntimeError(f"{function}: operands on two devices, {mixed[0].shape} on the CPU")
    target = kwargs.get("device")
    elsewhere = bool(there) if target is None else torch.device(target).type == NAME
    if function is torch.ops.aten.copy_.default:
        elsewhere = isinstance(args[0], Elsewhere)
    if target is not None:
        kwargs = {**kwargs, "device": "cpu"}
    bare_args, bare = tree_map(lambda x: x.held if isinstance(x, Elsewhere) else x, (args, kwargs))
    found = function(*bare_args, **bare)
    originals = {id(x.held): x for x in there}

    def wrapped(x: Any) -> Any:
        if id(x) in originals:  # in place, or out=
            return originals[id(x)]
        return Elsewhere(x) if isinstance(x, Tensor) and elsewhere else x

    return tree_map(wrapped, found)


class _Mode(TorchDispatchMode):
    """Sends what is made on the device there."""

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return run(function, args, kwargs or {})


class _Given(TorchFunctionMode):
    """Moves what is made from Python's numbers there: torch makes nothing of them on "meta"."""

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        device = kwargs.pop("device", None) if function in (torch.tensor, torch.as_tensor) else None
        if function is Tensor.new_tensor:
            like, *args = args
            function, device = torch.tensor, kwargs.pop("device", like.device)
            kwargs = {"dtype": like.dtype, **kwargs}
        found = function(*args, **kwargs)
        return found if device is None else found.to(device)


def _generator(device: torch.device | str = "cpu") -> torch.Generator:
    """The generator of the device, which has the numbers of the CPU's."""
    here = torch.device(device).type == NAME
    return _Generator("cpu" if here else device)


_Generator = torch.Generator


@contextmanager
def elsewhere() -> Iterator[str]:
    """Within, the name of the device can be used as that of any other."""
    replaced = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)  # data= would leave `held`
    try:
        with _Mode(), _Given(), patch.object(torch, "Generator", _generator):
            yield NAME
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(replaced)
