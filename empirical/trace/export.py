"""A module as a list of operations: `torch.export` on the meta device, at one size of the axis.

Nothing is computed: tensors have shapes and no numbers. The loss is exported with the model, so the
list goes from parameters and data to one number. Each operation keeps the path of its module and
the user's own line, by which refusals and answers name it.

    Operation   aten name, arguments (`Ref` to other operations and leaves, numbers), shapes
    ModelLeaf        a parameter, a buffer, an input or the targets
    Program     leaves, operations, and the last one's name

The model is exported in training mode, as it is trained: batch norm by the batch, dropout on.

Not covered, and refused with torch's reason and the line: control flow that depends on data, state
that forward changes in place (statistics of batch norm apart), code that cannot run without
numbers.
"""

from __future__ import annotations

import inspect
import logging
import re
import warnings
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field, replace
from enum import StrEnum
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx._lazy_graph_module import _use_lazy_graph_module
from torch.overrides import TorchFunctionMode

from empirical.trace.kept_state import (
    counts_batches,
    is_in_place,
    path_of,
    refuse_memory,
    refuse_writes,
    written_in_forward,
)
from empirical.trace.model_file import LossOf, ModelFile
from scaling.sizes.errors import InvalidInput, NotCovered, ScalingError

ATEN = torch.ops.aten
COPIES = ("aten.clone.", "aten.contiguous.", "aten.to.", "aten._to_copy.", "aten.type_as.")
RESHAPES = (ATEN.view.default, ATEN._unsafe_view.default, ATEN.reshape.default)


class LeafKind(StrEnum):
    """The kind of a leaf."""

    PARAMETER = "parameter"
    BUFFER = "buffer"
    INPUT = "input"
    TARGET = "target"


@dataclass(frozen=True)
class Where:
    """Where an operation stands: the module's path, and the line of the user's code."""

    module: str = ""
    file: str = ""
    line: int = 0
    code: str = ""


@dataclass(frozen=True)
class Ref:
    """An argument that is the result of another operation, or a leaf, by name."""

    name: str


@dataclass(frozen=True)
class ModelLeaf:
    """A tensor that no operation makes. ``others``: further names of a tied parameter."""

    name: str
    kind: LeafKind
    shape: tuple[int, ...]
    trained: bool = False
    whole: bool = False
    """Whether it holds whole numbers: ids, labels, masks."""
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class Operation:
    """One call of an aten operation."""

    name: str
    target: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    shape: tuple[int, ...]
    """Of the result; of the first one if there are several."""
    where: Where
    whole: bool = False
    body: Any = None
    """Of a repeat: the operations of one block; see fold.py."""


@dataclass(frozen=True)
class Program:
    """A model and its loss at one size."""

    leaves: Mapping[str, ModelLeaf]
    operations: tuple[Operation, ...]
    output: str
    sizes: Mapping[str, int] = field(default_factory=dict)
    standing: Mapping[str, str] = field(default_factory=dict)
    """Operations and leaves that were folded away -> those that stand for them; see fold.py."""


def export(file: ModelFile, sizes: Mapping[str, int], lines: bool = True) -> Program:
    """The operations of a model at these sizes.

    Args:
        file: the model.
        sizes: by axis, its size.
        lines: whether operations keep the user's lines, which cost a fifth of the time: where one
            model is exported at several sizes, those of the first stand for all.

    Raises:
        InvalidInput: if the file's code fails, traced or not.
        NotCovered: with torch's reason and the user's line, if the model cannot be traced.
    """
    with torch.device("meta"), _Undrawn():
        model = file.build(sizes)
    model = _on_meta(model).train()
    inputs, targets = file.batch(sizes)
    _refuse_misfit(model, inputs)
    loss = file.loss_for(targets)
    data = tuple(x.to("meta") if isinstance(x, Tensor) else x for x in inputs)
    try:
        with torch.device("meta"), _lines(lines):
            program = exported(model, loss, data, targets.to("meta"), str(file.path))
            if lines:  # once a model
                refuse_memory(model, data)
    except NotCovered:
        file.loss(sizes)  # a model that fails untraced fails by its own code
        raise
    return _program(program, model, sizes, loss)


def exported(
    model: nn.Module, loss: LossOf, inputs: tuple[Any, ...], targets: Tensor, path: str
) -> ExportedProgram:
    """A model with its loss on top, as torch.export gives it.

    Raises:
        NotCovered: with torch's reason and the user's line, if the model cannot be traced.
    """
    try:
        # a graph's Python code, which nobody runs here, is a tenth of the time
        with warnings.catch_warnings(), _silent_logs(), _use_lazy_graph_module(True):
            warnings.simplefilter("ignore")
            program = torch.export.export(_WithLoss(model, loss), (inputs, targets), strict=False)
            refuse_writes(program)
            _inline_no_grad(program.graph_module)
            if any(is_in_place(node) for node in program.graph.nodes):
                program = program.run_decompositions({})  # the same operations, without writes
            _take_any_layout(program.graph_module)
    except ScalingError:
        raise  # the user's loss refuses the outputs
    except Exception as error:
        raise _untraceable(error, path) from error
    return program


def _inline_no_grad(module: fx.GraphModule) -> None:
    """Put operations under `torch.no_grad` into the list, and stop gradients at their results."""
    for node in [n for n in module.graph.nodes if "set_grad_enabled" in str(n.target)]:
        if node.op != "call_function":
            continue
        enabled, body, *inputs = node.args
        inner = getattr(module, body.target)
        _inline_no_grad(inner)
        places = [n for n in inner.graph.nodes if n.op == "placeholder"]
        with module.graph.inserting_before(node):
            results = module.graph.graph_copy(inner.graph, dict(zip(places, inputs, strict=True)))
            several = results if isinstance(results, tuple | list) else (results,)
            ends = [x if enabled else _detached(module.graph, x) for x in several]
        for reader in list(node.users):
            reader.replace_all_uses_with(ends[reader.args[1]])
            module.graph.erase_node(reader)
        module.graph.erase_node(node)
    module.graph.eliminate_dead_code()
    module.recompile()


def _detached(graph: fx.Graph, node: fx.Node) -> fx.Node:
    found = graph.call_function(torch.ops.aten.detach.default, (node,))
    found.meta.update({k: x for k, x in node.meta.items() if k != "tensor_meta"})
    return found


def _take_any_layout(module: fx.GraphModule) -> None:
    """Copies and casts of numbers go, views are reshapes: kernel, device and precision decide them.

    So a model makes one list of operations on all devices and in all precisions, and runs on
    kernels that were not traced: attention takes another one beside a trained bias.
    """
    for node in list(module.graph.nodes):
        if node.op == "call_function" and node.target in RESHAPES:
            node.target = ATEN.reshape.default
        elif node.op == "call_function" and str(node.target).startswith(COPIES) and _is_copy(node):
            node.replace_all_uses_with(node.args[0])
            module.graph.erase_node(node)
    module.recompile()


def _is_copy(node: fx.Node) -> bool:
    """Whether a result is its argument, up to layout, device and precision."""
    (given, *_), after = node.args, node.meta.get("val")
    before = given.meta.get("val") if isinstance(given, fx.Node) else None
    if not isinstance(before, Tensor) or not isinstance(after, Tensor):
        return False
    return before.dtype == after.dtype or not (_is_whole(before) or _is_whole(after))


def operation_names(graph: fx.Graph, leaves: Collection[str]) -> dict[str, str]:
    """Names of operations in a graph of torch's -> the same on all devices, and no leaf's.

    torch numbers all copies, and `view` and `_unsafe_view` apart, of which either makes a reshape.
    ``leaves``: names of tensors and inputs; constants in the graph are leaves, too.
    """
    found: dict[str, str] = {}
    taken = {*leaves, *(node.name for node in graph.find_nodes(op="get_attr"))}
    counts = Counter[str]()
    for node in graph.nodes:
        if node.op == "call_function" and not counts_batches(node):
            name = node.name
            is_copy = str(node.target).startswith(COPIES)
            if is_copy or node.target is ATEN.reshape.default:
                kind = re.sub(r"_\d+$", "", name) if is_copy else "view"
                name = f"{kind}_{counts[kind]}" if counts[kind] else kind
                counts[kind] += 1
            found[node.name] = f"{name}()" if name in taken else name
    return found


class _Undrawn(TorchFunctionMode):
    """Random numbers are not drawn: on the meta device they would be drawn by slow Python code."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        tensor = args[0] if args else (kwargs or {}).get("tensor")
        drawn = getattr(func, "__name__", "") in ("uniform_", "normal_")
        if drawn and isinstance(tensor, Tensor) and tensor.device.type == "meta":
            return tensor
        return func(*args, **(kwargs or {}))


def _on_meta(model: nn.Module) -> nn.Module:
    """The module with shapes alone; a tensor under two names stays one, other than in torch."""
    moved: dict[int, Tensor] = {}
    kept: list[Tensor] = []

    def on_meta(x: Tensor) -> Tensor:
        if x.device.type == "meta":
            return x
        kept.append(x)  # an id names a tensor as long as that lives
        if id(x) not in moved:
            y = x.detach().to("meta")
            is_parameter = isinstance(x, nn.Parameter)
            moved[id(x)] = nn.Parameter(y, x.requires_grad) if is_parameter else y
        return moved[id(x)]

    for module in model.modules():
        for owned in (module._parameters, module._buffers, module.__dict__):
            owned |= {k: on_meta(x) for k, x in owned.items() if isinstance(x, Tensor)}
    return model


def _refuse_misfit(model: nn.Module, inputs: tuple[Any, ...]) -> None:
    """Refuse inputs that forward does not take."""
    try:
        inspect.signature(model.forward).bind(*inputs)
    except TypeError as error:
        raise InvalidInput(
            f"a {type(model).__name__} that does not take {len(inputs)} tensors ({error})",
            "inputs as forward takes them",
            "return a tuple in the order of forward from batch: (x, mask), targets",
        ) from None


@contextmanager
def _lines(wanted: bool) -> Iterator[None]:
    """With or without the lines of the code at every operation."""
    before = fx.config.do_not_emit_stack_traces
    fx.config.do_not_emit_stack_traces = before or not wanted
    try:
        yield
    finally:
        fx.config.do_not_emit_stack_traces = before


@contextmanager
def _silent_logs() -> Iterator[None]:
    """Without the listings that torch logs and prints beside an error, which says what matters."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with redirect_stderr(StringIO()):
            yield
    finally:
        logging.disable(before)


class _WithLoss(nn.Module):
    """The model with the loss on top, which sees what it is taken of."""

    def __init__(self, model: nn.Module, loss: LossOf) -> None:
        super().__init__()
        self.model = model
        self._loss = loss

    def forward(self, inputs: tuple[Any, ...], targets: Tensor) -> Tensor:
        outputs = self.model(*inputs)
        found: Tensor = self._loss(outputs, targets)
        return found


def _program(exported: Any, model: nn.Module, sizes: Mapping[str, int], loss: LossOf) -> Program:
    names = names_of(model)
    leaves: dict[str, ModelLeaf] = {}
    by_node: dict[str, str] = {}
    shapes = {n.name: n.meta.get("val") for n in exported.graph.nodes if n.op == "placeholder"}
    trained = {name: p.requires_grad for name, p in model.named_parameters()}
    for spec in exported.graph_signature.input_specs:
        value = shapes.get(spec.arg.name)
        if not isinstance(value, Tensor):
            continue
        path = path_of(spec)
        kind = {
            InputKind.PARAMETER: LeafKind.PARAMETER,
            InputKind.BUFFER: LeafKind.BUFFER,
            InputKind.CONSTANT_TENSOR: LeafKind.BUFFER,
        }.get(spec.kind, LeafKind.TARGET if spec.arg.name == "targets" else LeafKind.INPUT)
        first = names.get(path, (path,))[0] if kind is LeafKind.PARAMETER else path
        by_node[spec.arg.name] = first
        others = names.get(path, ())[1:] if kind is LeafKind.PARAMETER else ()
        leaves[first] = ModelLeaf(
            first, kind, tuple(value.shape), trained.get(first, False),
            _is_whole(value), tuple(others),
        )  # fmt: skip
    operations: list[Operation] = []
    output = ""
    by_node |= operation_names(exported.graph, leaves)
    for node in exported.graph.nodes:
        if node.op == "output":
            output = by_node.get(node.args[0][-1].name, node.args[0][-1].name)
        elif node.op == "get_attr":
            value = node.meta.get("val")
            shape = tuple(value.shape) if isinstance(value, Tensor) else ()
            leaves[node.name] = ModelLeaf(node.name, LeafKind.BUFFER, shape)
        elif node.op == "call_function":
            operation = _operation(node, by_node)
            if operation is not None:
                operations.append(_with_line_of_loss(operation, loss))
    return Program(leaves, tuple(operations), output, dict(sizes))


_LOSS = "(loss)"


def _operation(node: fx.Node, leaves: Mapping[str, str]) -> Operation | None:
    if counts_batches(node):
        return None

    def refer(value: Any) -> Any:
        if isinstance(value, fx.Node):
            return Ref(leaves.get(value.name, value.name))
        if isinstance(value, list | tuple):
            return tuple(refer(x) for x in value)
        return value

    value = node.meta.get("val")
    several = value if isinstance(value, list | tuple) else (value,)
    result = next((x for x in several if isinstance(x, Tensor)), None)
    where = _where(node)
    target = str(node.target) if not callable(node.target) or "aten" in str(node.target) else (
        getattr(node.target, "__name__", str(node.target))
    )  # fmt: skip
    args = tuple(refer(x) for x in node.args)
    return Operation(
        leaves.get(node.name, node.name),
        target,
        args,
        {k: refer(v) for k, v in node.kwargs.items()},
        () if result is None else tuple(result.shape),
        where,
        result is not None and _is_whole(result),
    )


def _is_whole(x: Tensor) -> bool:
    """Whether a tensor holds whole numbers or truth values; complex numbers are differentiated."""
    return not (x.is_floating_point() or x.is_complex())


def place(where: Where) -> str:
    """The place in words: file and line, and the line itself."""
    code = f": {where.code}" if where.code else ""
    line = f"{where.file}:{where.line}{code}" if where.file else ""
    return line or (f"module '{where.module}'" if where.module else "the model")


def _where(node: fx.Node) -> Where:
    stack = node.meta.get("nn_module_stack") or {}
    paths = [path for path, _ in stack.values()]
    inside = [path for path in paths if path == "model" or path.startswith("model.")]
    module = inside[-1].removeprefix("model").removeprefix(".") if inside else _LOSS
    frames = list(_frames(node.meta.get("stack_trace") or ""))
    own = [f for f in frames if not _is_of_torch(f[0])] or frames
    file, line, code = own[-1] if own else ("", 0, "")
    return Where(module, _short(file), line, code)


def _with_line_of_loss(operation: Operation, loss: LossOf) -> Operation:
    """An operation of the loss stands where the loss begins: torch keeps lines of forward alone."""
    if operation.where.module != _LOSS or operation.where.file != _short(__file__):
        return operation
    code = getattr(loss, "__code__", None)
    if code is None or _is_of_torch(code.co_filename):
        return replace(operation, where=Where(_LOSS))
    line = f"def {code.co_name}" if code.co_name.isidentifier() else ""
    where = Where(_LOSS, _short(code.co_filename), code.co_firstlineno, line)
    return replace(operation, where=where)


def _short(file: str) -> str:
    """A path as a user in the current folder writes it."""
    path = Path(file)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else file


def _frames(text: str) -> Iterator[tuple[str, int, str]]:
    for file, line, code in re.findall(r'File "([^"]+)", line (\d+), in [^\n]*\n([^\n]*)', text):
        yield file, int(line), code.strip()


def _is_of_torch(file: str) -> bool:
    return "/torch/" in file or file == __file__ or "/empirical/trace/" in file


def names_of(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """Every name of every parameter -> all names of the same tensor, the first one first."""
    same: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        same.setdefault(id(parameter), []).append(name)
    return {name: tuple(names) for names in same.values() for name in names}


def _untraceable(error: Exception, path: str) -> NotCovered:
    text = str(error)
    own = [f for f in _frames(text) if not _is_of_torch(f[0])]
    if not own:
        trace, found = error.__traceback__, []
        while trace is not None:
            found.append((trace.tb_frame.f_code.co_filename, trace.tb_lineno, ""))
            trace = trace.tb_next
        own = [f for f in found if f[0] == path]
    at = f" at {own[-1][0]}, line {own[-1][1]}: {own[-1][2]}".rstrip(": ") if own else ""
    reason = next((line for line in text.splitlines() if line.strip()), type(error).__name__)
    written = re.search(r"Constant (?:model\.)?(\S+) is mutated in the forward method", reason)
    if written:
        return written_in_forward("tensor", written[1])
    return NotCovered(
        f"a model that cannot be traced{at}",
        f"one list of operations for all data; torch says: {reason.strip()[:200]}",
        "write the branch without asking for numbers of a tensor: torch.where in place of if",
    )
