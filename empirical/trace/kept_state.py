"""State that forward keeps: what it writes into tensors of the model, and what it remembers.

    written      a parameter, a buffer or another tensor of the model is changed in place, or a
                 buffer is assigned anew; statistics of batch norm and power iterations apart
    remembered   an attribute that forward sets, where a second call does other operations than the
                 first: a counter that warms something up, a cache that the next call reads

A model with either is another function at every call, and is refused by name. An attribute that is
set and never read, such as attention weights kept for a figure, is none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, InputSpec
from torch.utils._python_dispatch import TorchDispatchMode

from scaling.sizes.errors import NotCovered

KEPT_BY_TORCH = ("running_mean", "running_var", "num_batches_tracked")
OF_THE_MODEL = {
    InputKind.PARAMETER: "parameter",
    InputKind.BUFFER: "buffer",
    InputKind.CONSTANT_TENSOR: "tensor",
}


def path_of(spec: InputSpec) -> str:
    """The name of a parameter or a buffer in the user's model."""
    return (spec.target or spec.arg.name).removeprefix("model.")


def counts_batches(node: fx.Node) -> bool:
    """Whether an operation is the counter of batch norm."""
    first = node.args[0] if node.args else None
    return isinstance(first, fx.Node) and first.name.endswith("num_batches_tracked")


def is_in_place(node: fx.Node) -> bool:
    """Whether an operation writes into one of its arguments; the counter of batch norm apart."""
    if node.op != "call_function" or not re.search(r"[a-z]_\.", str(node.target)):
        return False
    return not counts_batches(node)


def written_in_forward(kind: str, name: str) -> NotCovered:
    """The refusal of a tensor of the model that forward changes."""
    return NotCovered(
        f"the {kind} '{name}', which forward changes in place",
        f"a forward that leaves {kind}s as they are",
        f"make a new tensor of '{name}' in forward, and keep the {kind}",
    )


def refuse_writes(program: ExportedProgram) -> None:
    """Refuse parameters, buffers and other tensors of the model that forward changes.

    Args:
        program: as torch.export gives it, before what nobody reads is dropped.

    Raises:
        NotCovered: with the name of the first.
    """
    written = set(_written(program.graph_module))
    found = [
        (path_of(spec), OF_THE_MODEL[spec.kind])
        for spec in program.graph_signature.input_specs
        if spec.arg.name in written and spec.kind in OF_THE_MODEL
    ]
    for name, kind in sorted(found):
        if not name.endswith(KEPT_BY_TORCH) and ".parametrizations." not in name:
            raise written_in_forward(kind, name)


def _written(module: fx.GraphModule) -> Iterator[str]:
    """The inputs of a graph that an operation writes into, directly or through views."""
    for node in module.graph.nodes:
        if is_in_place(node):
            root = _root(node.args[0])
            if root is not None and root.op == "placeholder":
                yield root.name
        elif node.op == "call_function" and "set_grad_enabled" in str(node.target):
            _, body, *inputs = node.args
            inner = getattr(module, body.target)
            places = [n.name for n in inner.graph.nodes if n.op == "placeholder"]
            inside = set(_written(inner))
            for name, given in zip(places, inputs, strict=True):
                root = _root(given)
                if name in inside and root is not None and root.op == "placeholder":
                    yield root.name


def _root(value: Any) -> fx.Node | None:
    """The tensor that a result shares its numbers with: a view's base, else itself."""
    while isinstance(value, fx.Node) and value.op == "call_function":
        schema = getattr(value.target, "_schema", None)
        aliased = schema is not None and any(a.alias_info for a in schema.arguments[:1])
        if not aliased or is_in_place(value):
            return value
        value = value.args[0]
    return value if isinstance(value, fx.Node) else None


# --- what is remembered ---------------------------------------------------------------------------


def refuse_memory(model: nn.Module, inputs: tuple[Any, ...]) -> None:
    """Refuse a model whose calls do other operations each time, or read what the last one set.

    Further calls are tried only where the first one sets attributes; the model has them afterwards.
    A table that the first call makes and all others read is no state: the second call and the third
    are compared.

    Args:
        model: with shapes alone.
        inputs: on the same device.

    Raises:
        NotCovered: with the names of attributes that a call sets.
    """
    before = _attributes(model)
    try:
        _called(model, inputs)
    except Exception:
        return  # what cannot be called with shapes alone was traced all the same
    changed = _changed(before, _attributes(model))
    if not changed:
        return
    try:
        second = _called(model, inputs)
        middle = _attributes(model)
        third = _called(model, inputs)
        reset = _changed(middle, _attributes(model))
        read = [name for name in reset if name in middle and id(middle[name]) in third.read]
        changed, same = read or reset or changed, second.seen == third.seen and not read
    except Exception:
        same = False
    if not same:
        raise NotCovered(
            f"state that forward keeps from one call to the next: {', '.join(changed)}",
            "a forward that does the same at every call",
            "pass what changes to forward as an input, or leave "
            f"self.{changed[0].split('.')[-1]} as build sets it",
        )


def _called(model: nn.Module, inputs: tuple[Any, ...]) -> _Calls:
    calls = _Calls()
    with torch.no_grad(), calls:
        model(*inputs)
    return calls


def _changed(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    return sorted(
        name for name, x in after.items() if name not in before or not _same(x, before[name])
    )


def _attributes(model: nn.Module) -> dict[str, Any]:
    """The attributes of all modules, buffers among them, that are no parameters or modules."""
    found = {}
    for path, module in model.named_modules():
        for name, value in (*vars(module).items(), *module._buffers.items()):
            if not name.startswith("_"):
                kept = list(value) if isinstance(value, list) else value
                found[f"{path}.{name}" if path else name] = kept
    return found


def _same(one: Any, other: Any) -> bool:
    if one is other:
        return True
    if isinstance(one, Tensor) or isinstance(other, Tensor) or type(one) is not type(other):
        return False
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, bool | int | float | str | tuple | dict):
        return bool(one == other)
    return False


class _Calls(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The operations of a call, with the numbers and shapes that they are given."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: list[str] = []
        self.read: set[int] = set()
        """Tensors that an operation was given, by id."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        every = (*args, *(kwargs or {}).values())
        self.read |= {id(x) for x in every if isinstance(x, Tensor)}
        given = [_shown(x) for x in every]
        self.seen.append(f"{func}({', '.join(given)})")
        return func(*args, **(kwargs or {}))


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"({', '.join(map(_shown, value))})"
    return str(tuple(value.shape)) if isinstance(value, Tensor) else repr(value)
