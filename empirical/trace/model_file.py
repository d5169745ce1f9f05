"""A user's file that says how to build a model of any size, and on which batch it is trained.

    build(**axes)             the module; each keyword is an axis, its default the smallest size
    batch()                   (inputs, targets), or batch(**axes) where the data grow with an axis;
                              batch(seed=0) where each seed draws other samples
    loss(outputs, targets)    optional: integer targets mean cross-entropy, others squared error
    optimizer(model)          optional: what trains it today, one of torch or several of them; or
                              optimizer(model, groups), which takes the groups of a plan
    tasks(inputs, targets)    optional: the number of the task of each sample, for strategies that
                              weight tasks
    data_root=None            optional keyword of build and batch: the folder of a data set that
                              the user names (--data-root); no axis

A file may define several models: ``FILE.py:name`` calls ``name`` in place of ``build``.

>>> read_axis("width=64,128,192")
GrowingAxis(name='width', sizes=(64, 128, 192))
>>> read_axis("width=64:512").sizes
(64, 128, 256, 512)
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from scaling.sizes.errors import InvalidInput, unknown

Batch = tuple[Any, Tensor]
LossOf = Callable[[Any, Tensor], Tensor]
EXAMPLE = "def build(width=64, depth=4): return GPT(width, depth)"
SEED = "seed"
"""The keyword of batch that draws other samples; no axis."""
DATA_ROOT = "data_root"
"""The keyword of build and batch that names a folder of data; no axis."""


@dataclass(frozen=True)
class GrowingAxis:
    """An axis of the model, and the sizes at which it is looked at."""

    name: str
    sizes: tuple[int, ...]


@dataclass(frozen=True)
class ModelFile:
    """The definitions of a user's file.

    ``axes``: the default of every keyword of ``build``, by name; None where there is none.
    ``optimizer_of``: what makes the optimizer of the user's own, if there is one. ``tasks_of``: the
    task of each sample, likewise. ``data_root``: the folder that build and batch were given.
    """

    path: Path
    builder: Callable[..., nn.Module]
    batcher: Callable[..., Batch]
    loss_of: LossOf | None
    axes: Mapping[str, int | None]
    optimizer_of: Callable[..., Any] | None = field(default=None, kw_only=True)
    tasks_of: Callable[..., Tensor] | None = field(default=None, kw_only=True)
    data_root: Path | None = field(default=None, kw_only=True)

    def build(self, sizes: Mapping[str, int]) -> nn.Module:
        """The module at these sizes; other axes at their defaults.

        Raises:
            InvalidInput: if the file's own code fails, naming the error and the line.
        """
        model = called(self.path, self.builder, sizes)
        if not isinstance(model, nn.Module):
            raise InvalidInput(
                f"{self.builder.__name__} in {self.path}, which returns a {type(model).__name__}",
                "a torch.nn.Module",
                f"write for example: {EXAMPLE}",
            )
        return model

    def batch(self, sizes: Mapping[str, int]) -> tuple[tuple[Any, ...], Tensor]:
        """(inputs, targets): all positional inputs of the module, and the targets."""
        taken = inspect.signature(self.batcher).parameters
        every = any(p.kind is p.VAR_KEYWORD for p in taken.values())
        wanted = {k: v for k, v in sizes.items() if every or k in taken}
        found = called(self.path, self.batcher, wanted)
        if not (isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], Tensor)):
            raise InvalidInput(
                f"batch in {self.path}, which returns {_kind(found)}",
                "a pair (inputs, targets), both torch tensors; several inputs are a tuple",
                "write for example: def batch(): return tokens[:, :-1], tokens[:, 1:]",
            )
        inputs, targets = found
        return (inputs if isinstance(inputs, tuple) else (inputs,)), targets

    @property
    def draws(self) -> bool:
        """Whether ``batch`` takes a seed, and draws other samples for each."""
        return SEED in inspect.signature(self.batcher).parameters

    def optimizers(
        self, model: nn.Module, groups: list[dict[str, Any]] | None = None
    ) -> tuple[torch.optim.Optimizer, ...]:
        """The optimizers that the file's ``optimizer`` makes of a model: one, or several in order.

        Args:
            model: what is trained.
            groups: of a plan, for an ``optimizer`` that takes them.

        Raises:
            InvalidInput: if the file has none, its code fails, or it returns something else.
        """
        example = (
            "write for example: def optimizer(model): return torch.optim.Adam(model.parameters())"
        )
        if self.optimizer_of is None:
            raise InvalidInput(f"no function optimizer in {self.path}", "one", example)
        own = self.optimizer_of

        def optimizer(**_: int) -> Any:
            return own(model) if groups is None else own(model, groups)

        found = called(self.path, optimizer, {})
        several = tuple(found) if isinstance(found, list | tuple) else (found,)
        if not several or not all(isinstance(x, torch.optim.Optimizer) for x in several):
            raise InvalidInput(
                f"optimizer in {self.path}, which returns {_kind(found)}",
                "a torch.optim.Optimizer, or a list of them",
                example,
            )
        return several

    def loss_for(self, targets: Tensor) -> LossOf:
        """The file's loss, or the standard one of such targets."""
        return self.loss_of or standard_loss(targets)

    def loss(self, sizes: Mapping[str, int]) -> Tensor:
        """The loss of a fresh model on the batch, computed as its user would.

        Raises:
            InvalidInput: if the file's own code fails, naming the error and the line.
        """
        model, (inputs, targets) = self.build(sizes), self.batch(sizes)
        loss = self.loss_for(targets)

        def forward(**_: int) -> Tensor:
            return loss(model(*inputs), targets)

        return called(self.path, forward, sizes)  # type: ignore[no-any-return]

    def two_draws(self, sizes: Mapping[str, int]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The tensors by name as two seeds draw them, under all of their names."""
        return self.drawn(sizes, 0), self.drawn(sizes, 1)

    def drawn(self, sizes: Mapping[str, int], seed: int) -> dict[str, Tensor]:
        """The tensors by name as a seed draws them."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = self.build(sizes)
        return {name: p.detach() for name, p in model.named_parameters(remove_duplicate=False)}

    def along(self, asked: Sequence[str]) -> list[tuple[ModelFile, GrowingAxis]]:
        """The model along each of several axes, the others at their smallest sizes.

        Raises:
            InvalidInput: for an axis that is asked for twice, or that the file does not have.
        """
        grown = [self.axis(one) for one in asked] or [self.axis(None)]
        names = [axis.name for axis in grown]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise InvalidInput(
                f"the axis '{twice}' twice",
                "one list of sizes an axis",
                f"pass --axis {twice}=64,128,192 once",
            )
        found = []
        for axis in grown:
            others = {x.name: x.sizes[0] for x in grown if x is not axis}
            found.append((self._at(others) if others else self, axis))
        return found

    def _at(self, fixed: Mapping[str, int]) -> ModelFile:
        """The model with some axes at other sizes than their defaults."""
        owns = [
            {k: v for k, v in fixed.items() if k in inspect.signature(function).parameters}
            for function in (self.builder, self.batcher)
        ]

        def built(**sizes: int) -> nn.Module:
            return self.builder(**{**owns[0], **sizes})

        def batched(**sizes: int) -> Batch:
            own = inspect.signature(self.batcher).parameters
            return self.batcher(**{**owns[1], **{k: v for k, v in sizes.items() if k in own}})

        built.__name__, batched.__name__ = self.builder.__name__, self.batcher.__name__
        axes = {**self.axes, **{k: fixed.get(k, v) for k, v in self.axes.items()}}
        return replace(self, builder=built, batcher=batched, axes=axes)

    def axis(self, asked: str | GrowingAxis | None) -> GrowingAxis:
        """The growing axis: as it is asked for, or width (else the first) at 1, 2, 3 x its default.

        Raises:
            InvalidInput: for an axis that ``build`` and ``batch`` do not take.
        """
        known = [*self.axes, *(x for x in inspect.signature(self.batcher).parameters if x != SEED)]
        if asked is not None:
            axis = read_axis(asked) if isinstance(asked, str) else asked
            if axis.name not in known:
                raise unknown("axis", axis.name, known)
            if axis.sizes:
                return axis
            name = axis.name
        else:
            name = "width" if "width" in self.axes else next(iter(self.axes), "")
        start = self.axes.get(name)
        if start is None:
            raise InvalidInput(
                f"no size for the axis '{name}'"
                if name
                else f"a build without axes in {self.path}",
                "a keyword of build with a default, or sizes",
                f"pass --axis {name or 'width'}=64,128,192, or write: {EXAMPLE}",
            )
        return GrowingAxis(name, (start, 2 * start, 3 * start))


def standard_loss(targets: Tensor) -> LossOf:
    """Cross-entropy over the last axis for targets that are whole numbers; else squared error."""
    if targets.is_floating_point():
        return lambda outputs, y: functional.mse_loss(outputs, y)

    def cross_entropy(outputs: Tensor, y: Tensor) -> Tensor:
        return functional.cross_entropy(outputs.flatten(0, -2), y.flatten())

    return cross_entropy


def read_axis(text: str) -> GrowingAxis:
    """An axis from ``name``, ``name=64,128,192`` or ``name=64:1024`` (doublings).

    Raises:
        InvalidInput: for anything else.
    """
    name, equals, sizes = (part.strip() for part in text.partition("="))
    if not name.isidentifier() or (equals and not sizes):
        raise InvalidInput(
            f"the axis '{text}'", "a name and sizes", "pass for example --axis width=64,128,192"
        )
    if not equals:
        return GrowingAxis(name, ())
    from empirical.measure.widths import parse_widths

    try:
        return GrowingAxis(name, parse_widths(sizes))
    except InvalidInput as error:
        raise InvalidInput(
            f"the axis '{text}'",
            error.needed.replace("widths", "sizes").replace("width", "size"),
            f"pass for example --axis {name}=64,128,192, or {name}=64:512 for doublings",
        ) from None


def read_model(place: str, data_root: Path | None = None) -> ModelFile:
    """The file behind ``FILE.py`` or ``FILE.py:name``; ``data_root``: the folder of its data.

    Raises:
        InvalidInput: if there is no such file, it cannot be run, or it lacks a function; for a
            folder that is not there, or that neither function takes.
    """
    name, _, builder = place.partition(":") if place.count(":") else (place, "", "")
    path = Path(name)
    if not path.is_file():
        raise InvalidInput(
            f"no file {path}", "a Python file with build and batch", "pass --model FILE.py"
        )
    module = module_of_file(path)
    build = _function(path, module, builder or "build", f"write for example: {EXAMPLE}")
    batch = _function(
        path, module, "batch", "write for example: def batch(): return inputs, targets"
    )
    _refuse_folder(path, data_root, (build, batch))
    build, batch = (_at_folder(function, data_root) for function in (build, batch))
    axes = {
        p.name: p.default if isinstance(p.default, int) else None
        for p in inspect.signature(build).parameters.values()
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    }
    names = ("loss", "optimizer", "tasks")
    loss, optimizer, tasks = (getattr(module, name, None) for name in names)
    return ModelFile(
        path, build, batch, loss, axes, optimizer_of=optimizer, tasks_of=tasks, data_root=data_root
    )


def _refuse_folder(
    path: Path, folder: Path | None, functions: Sequence[Callable[..., Any]]
) -> None:
    if folder is None:
        return
    if not folder.is_dir():
        raise InvalidInput(
            f"no folder {folder}", "the folder that holds the data set", "pass --data-root DIR"
        )
    if not any(DATA_ROOT in inspect.signature(function).parameters for function in functions):
        raise InvalidInput(
            f"--data-root {folder}, and neither build nor batch in {path} takes {DATA_ROOT}",
            f"a keyword {DATA_ROOT} of the function that reads the data",
            f"write for example: def batch(seed=0, {DATA_ROOT}=None): ... "
            f'empirical.data.sources.images("cifar10", {DATA_ROOT}), as examples/digits.py does',
        )


def _at_folder(function: Callable[..., Any], folder: Path | None) -> Callable[..., Any]:
    """A function of the user's file without its keyword for a folder, which is given."""
    signature = inspect.signature(function)
    others = [p for name, p in signature.parameters.items() if name != DATA_ROOT]
    if len(others) == len(signature.parameters):
        return function

    @functools.wraps(function)
    def bound(*sizes: Any, **named: Any) -> Any:
        return function(*sizes, **named, data_root=folder)

    bound.__signature__ = signature.replace(parameters=others)  # type: ignore[attr-defined]
    return bound


def module_of_file(path: Path) -> Any:
    """The module of a Python file, run anew.

    Raises:
        InvalidInput: if its code fails, naming the error and the line.
    """
    name = f"_model_{path.stem}_{abs(hash(path.resolve()))}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None, "a path to a Python file has a loader"
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickles look their module up
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise _failed(path, "the file", error) from error
    finally:
        sys.path.pop(0)
    return module


def _function(path: Path, module: Any, name: str, do_this: str) -> Callable[..., Any]:
    found = getattr(module, name, None)
    if not callable(found):
        raise InvalidInput(f"no function {name} in {path}", f"a function {name}", do_this)
    function: Callable[..., Any] = found
    return function


def called(path: Path, function: Callable[..., Any], sizes: Mapping[str, int]) -> Any:
    """The result of a function of the user's file.

    Raises:
        InvalidInput: if it fails, naming the error and the line.
    """
    try:
        return function(**sizes)
    except InvalidInput:
        raise
    except Exception as error:
        call = f"{function.__name__}({', '.join(f'{k}={v}' for k, v in sizes.items())})"
        raise _failed(path, call, error) from error


def _failed(path: Path, what: str, error: Exception) -> InvalidInput:
    trace = error.__traceback__
    line = 0
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    place = f"{path}, line {line}" if line else f"{path}"
    if re.search("cuda|nvidia", str(error), re.IGNORECASE) and not torch.cuda.is_available():
        raised = str(error).splitlines()[0].rstrip(".")
        return InvalidInput(
            f"{what} in {place}, which asks for a CUDA device that is not there: {raised}",
            "a model and a batch that are made on the CPU",
            "leave .to('cuda'), .cuda() and device='cuda' out of that line, or write "
            "device='cuda' if torch.cuda.is_available() else 'cpu'",
        )
    return InvalidInput(
        f"{what} in {place} raises {type(error).__name__}: {error}",
        "code that runs",
        "mend it, and try it in Python first",
    )


def _kind(value: object) -> str:
    if isinstance(value, tuple):
        return f"a tuple of {len(value)}: {', '.join(type(x).__name__ for x in value)}"
    return f"a {type(value).__name__}"
