"""An optimizer as a class of someone's code: found by name, built on tensors, asked for a step.

    torch.optim:Adam        module:Class            FILE.py:Class

A class is an optimizer if it takes tensors and keywords, and has a method ``step``. One that sets
``takes_module`` is given the module in the place of its tensors. Where ``step`` needs a closure it
gets one; where the class has a method ``train`` it is called first; a learning rate that has no
default is 0.001. What was done is said in ``notes``.

>>> read_kwargs("lr=1e-3,betas=(0.9,0.95)")
{'lr': 0.001, 'betas': (0.9, 0.95)}
"""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from empirical.black_box.two_steps import Closure
from empirical.trace.model_file import module_of_file
from scaling.sizes.errors import InvalidInput, unknown

RATE = 1e-3
_EXAMPLE = "write for example scaling probe torch.optim:Adam --kwargs lr=1e-3"

DIFFERENTIATES = "does not require grad", "create_graph", "retain_graph"
"""Words of torch, and of optimizers, where a gradient is differentiated that has no graph."""


@dataclass(frozen=True)
class OptimizerClass:
    """A class and the keywords that it is built with; ``name`` is what it is called by."""

    name: str
    made: Any
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def parameters(self) -> dict[str, Any]:
        """The keywords that it takes, with their defaults."""
        try:
            found = inspect.signature(self.made).parameters
        except (TypeError, ValueError):
            return {}
        return {
            name: x.default for name, x in list(found.items())[1:] if x.kind is not x.VAR_KEYWORD
        }

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines about keywords that are added, and calls beside ``step``."""
        found = []
        if self._lacks_a_rate:
            found.append(f"lr = {RATE:g}: it has no default")
        if callable(getattr(self.made, "train", None)):
            found.append("its method train() is called first")
        if self.needs_a_closure:
            found.append("step gets a closure, which it may call more than once")
        return tuple(found)

    @property
    def takes_a_closure(self) -> bool:
        """Whether ``step`` has a first argument, or an argument of that name."""
        return bool(self._positional) or "closure" in inspect.signature(self.made.step).parameters

    @property
    def needs_a_closure(self) -> bool:
        """Whether ``step`` has a first argument without a default."""
        named = self._positional
        return bool(named) and named[0].default is inspect.Parameter.empty

    @property
    def _positional(self) -> list[inspect.Parameter]:
        own = list(inspect.signature(self.made.step).parameters.values())[1:]
        return [x for x in own if x.kind in (x.POSITIONAL_ONLY, x.POSITIONAL_OR_KEYWORD)]

    @property
    def _lacks_a_rate(self) -> bool:
        return self.parameters.get("lr") is inspect.Parameter.empty and "lr" not in self.kwargs

    def without_decay(self) -> OptimizerClass:
        """The same without decay of the weights, unless that was asked for."""
        usual = self.parameters.get("weight_decay")
        if "weight_decay" in self.kwargs or not isinstance(usual, float | int) or usual == 0:
            return self
        return replace(self, kwargs={**self.kwargs, "weight_decay": 0.0})

    def on(self, model: nn.Module) -> Any:
        """The optimizer of a model.

        Raises:
            InvalidInput: for keywords or tensors that it does not take.
        """
        kwargs = {**({"lr": RATE} if self._lacks_a_rate else {}), **self.kwargs}
        known = self.parameters
        for key in kwargs:
            if known and key not in known and not self._takes_any:
                raise unknown(f"keyword of {self.name}", key, known)
        module = getattr(self.made, "takes_module", False)
        try:
            optimizer = self.made(model if module else list(model.parameters()), **kwargs)
        except Exception as error:
            raise self._failed("it is built on matrices", error) from error
        if callable(getattr(optimizer, "train", None)):
            optimizer.train()
        return optimizer

    def takes_vectors(self) -> bool:
        """Whether it can be built on a tensor of one axis, and takes a step."""
        model = nn.Linear(2, 3, dtype=torch.float64)

        def closure() -> Tensor:
            model.zero_grad()
            loss: Tensor = model(torch.ones(1, 2, dtype=torch.float64)).sum()
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        closure()
        try:
            self.step(self.on(model), closure)
        except InvalidInput:
            return False
        return True

    @property
    def _takes_any(self) -> bool:
        found = inspect.signature(self.made).parameters.values()
        return any(x.kind is x.VAR_KEYWORD for x in found)

    def step(self, optimizer: Any, closure: Closure) -> None:
        """One step; code that asks to be compiled runs as it is written.

        Raises:
            InvalidInput: if the code of the optimizer fails.
        """
        try:
            self._taken(optimizer, *((closure,) if self.needs_a_closure else ()))
        except Exception as error:
            if self.takes_a_closure and not self.needs_a_closure:
                self._with_closure(optimizer, closure, error)
            else:
                raise self._failed("it takes a step on matrices", error) from error

    @staticmethod
    def _taken(optimizer: Any, *closure: Closure) -> None:
        with torch.compiler.set_stance("force_eager"):
            optimizer.step(*closure)

    def _with_closure(self, optimizer: Any, closure: Closure, before: Exception) -> None:
        """A step that a closure might be needed for, since it failed without one."""
        try:
            self._taken(optimizer, closure)
        except Exception as error:
            raise self._failed("it takes a step on matrices", before) from error

    def _failed(self, when: str, error: Exception) -> InvalidInput:
        keywords = ", ".join(f"{k}={x!r}" for k, x in self.kwargs.items())
        first = (str(error).splitlines() or [""])[0]
        found = (
            f"{self.name}({keywords}), which raises {type(error).__name__} where {when}: {first}"
        )
        if any(sign in first for sign in DIFFERENTIATES):
            return InvalidInput(
                found,
                "an optimizer of gradients: one that differentiates them again needs "
                "backward(create_graph=True) and the Hessian, which a probe does not make",
                "derive its rule with the squares of single samples in the Hessian's place: "
                'scaling derive "G/(sqrt(ema(sample_square(G), beta)) + eps)"',
            )
        return InvalidInput(
            found,
            "an optimizer that trains float64 matrices of any shape, built as Class(tensors, "
            "**keywords)",
            "pass the keywords that it needs (--kwargs lr=1e-3), or wrap it in a class of your own "
            "that does: FILE.py:Class",
        )


def read_optimizer(place: str, kwargs: Mapping[str, Any] | None = None) -> OptimizerClass:
    """The class behind ``module:Class`` or ``FILE.py:Class``.

    Raises:
        InvalidInput: if there is no such file, module or class, or the class is no optimizer.
    """
    module, colon, name = place.rpartition(":")
    if not colon or not module or not name:
        raise InvalidInput(f"the optimizer '{place}'", "MODULE:CLASS or FILE.py:CLASS", _EXAMPLE)
    found = _module(module)
    classes = [n for n, x in vars(found).items() if inspect.isclass(x) and hasattr(x, "step")]
    made = getattr(found, name, None)
    if made is None:
        raise unknown(f"class of {module}", name, classes)
    return as_optimizer(made, place, kwargs)


def read_call(text: str) -> OptimizerClass:
    """The optimizer of a call as documentation writes it: ``module.Class(key=value)``.

    Raises:
        InvalidInput: for anything else, or as `read_optimizer`.

    >>> read_call("torch.optim.SGD(momentum=0.9)").kwargs
    {'momentum': 0.9}
    """
    place, bracket, inner = text.partition("(")
    module, dot, name = place.rpartition(".")
    if not (dot and bracket and inner.endswith(")")):
        raise InvalidInput(f"the optimizer '{text}'", "module.Class(key=value)", _EXAMPLE)
    return read_optimizer(f"{module}:{name}", read_kwargs(inner.removesuffix(")")))


def as_optimizer(
    made: Any, name: str = "", kwargs: Mapping[str, Any] | None = None
) -> OptimizerClass:
    """A class as an optimizer.

    Raises:
        InvalidInput: for anything that is none.
    """
    name = name or f"{getattr(made, '__module__', '')}:{getattr(made, '__name__', made)}"
    if not inspect.isclass(made) or not callable(getattr(made, "step", None)):
        raise InvalidInput(
            f"{name}, a {type(made).__name__} without a method step",
            "a class of optimizers: Class(tensors, **keywords) with step()",
            _EXAMPLE,
        )
    return OptimizerClass(name, made, dict(kwargs or {}))


def read_kwargs(text: str | None) -> dict[str, Any]:
    """Keywords from ``lr=1e-3,betas=(0.9,0.95)``, each a literal of Python.

    Raises:
        InvalidInput: for anything else.
    """
    if not text:
        return {}
    try:
        call = ast.parse(f"dict({text})", mode="eval").body
        assert isinstance(call, ast.Call), "the text of a call"
        if call.args or any(x.arg is None for x in call.keywords):
            raise ValueError
        return {str(x.arg): ast.literal_eval(x.value) for x in call.keywords}
    except (SyntaxError, ValueError):
        raise InvalidInput(
            f"the keywords '{text}'",
            "NAME=VALUE,... with literals of Python",
            "write for example --kwargs 'lr=1e-3,betas=(0.9,0.95)'",
        ) from None


def _module(name: str) -> Any:
    if name.endswith(".py"):
        path = Path(name)
        if not path.is_file():
            raise InvalidInput(f"no file {path}", "a Python file with the optimizer", _EXAMPLE)
        return module_of_file(path)
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InvalidInput(
            f"no module '{name}' ({error})",
            "a module that is installed, or a file",
            f"pip install {name.partition('.')[0]}, or pass FILE.py:CLASS",
        ) from None
