"""Inputs and cotangents of every trained tensor of a model, taken while it runs.

A tensor whose rule looks at G, L, R and W alone needs no more than ``.grad``: nothing is watched
for it, and the model may be compiled, checkpointed, or have its gradients clipped. For A, B and
single samples' gradients the calls of the model are watched (weight_tracker.py), and autograd tells
the gradient of each call's result (weight_columns.py).

What was seen is compared with ``.grad`` at every step: a use that went unseen (a compiled model, a
recurrent layer that torch computes as one call) is refused, never left out in silence.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from empirical.numbers.capture import LossFunction, drawn_cotangents
from empirical.numbers.layer_matrices import LayerTensors
from empirical.numbers.matrix_axes import MatrixAxes
from empirical.trace.weight_columns import UseColumns, columns_of, explains, layers_of
from empirical.trace.weight_tracker import Tracker, WeightCall, watching_calls
from scaling.sizes.errors import InvalidInput


class UseCapture:
    """The trained tensors of a model as matrices, and what each sees; see `LayerSource`.

    Args:
        model: whose forward is watched for as long as this lives.
        axes: of each trained tensor, by its name without ".weight".
        sampled: names of the tensors whose rule looks at inputs or cotangents.
        outputs: whether `sample` will be called: each call's place in autograd is kept.
    """

    def __init__(
        self,
        model: nn.Module,
        axes: Mapping[str, MatrixAxes],
        sampled: Collection[str],
        outputs: bool = False,
    ) -> None:
        tensors = {n.removesuffix(".weight"): p for n, p in model.named_parameters()}
        self.parameters: dict[str, nn.Parameter] = {name: tensors[name] for name in axes}
        self.axes, self._watched = dict(axes), frozenset(sampled)
        self._outputs, self._sampling = outputs, False
        self._tracker = Tracker({name: self.parameters[name] for name in self._watched})
        self._passes: list[ExitStack] = []
        self._seen: dict[str, list[UseColumns]] = {}
        self._coarsest: dict[str, float] = {}
        self._drawn: dict[str, list[UseColumns]] = {}
        self._calls: list[WeightCall] = []
        for name, x in self.parameters.items():
            axes[name].check(name, x.shape)
        if self._watched:
            me = weakref.ref(self)
            handles = [
                model.register_forward_pre_hook(_before(me)),
                model.register_forward_hook(_after(me), always_call=True),
            ]
            weakref.finalize(self, _remove, handles)

    def views(self, name: str) -> list[Tensor]:
        """Each matrix of a tensor as a view (*rows, *columns), to be changed in place."""
        return self.axes[name].views(self.parameters[name].detach())

    def layers(self, name: str) -> list[LayerTensors] | None:
        """Each matrix of a tensor as a rule sees it; None for one without a gradient.

        Raises:
            InvalidInput: for a tensor whose inputs and cotangents are asked for and do not make
                up its ``.grad``.
        """
        weight = self.parameters[name].detach()
        gradient = self.parameters[name].grad
        if gradient is None:
            return None
        gradient = (gradient.to_dense() if gradient.is_sparse else gradient).to(weight.dtype)
        axes, several = self.axes[name], self._seen.get(name, [])
        if name not in self._watched:
            pairs = zip(axes.stacked(gradient), axes.stacked(weight), strict=True)
            return [LayerTensors.of_gradient(g, w) for g, w in pairs]
        if not explains(axes, gradient, several, self._coarsest.get(name, 0.0)):
            raise _unseen(name)
        return layers_of(name, axes, weight, gradient, several, self._drawn.get(name, ()))

    def was_sampled(self, name: str) -> bool:
        """Whether cotangents of sampled targets came by."""
        return name not in self._watched or bool(self._drawn.get(name))

    def sample(self, output: Tensor, loss: LossFunction, generator: torch.Generator) -> None:
        """Draw targets from the model for the last pass, and collect their cotangents."""
        calls = [call for call in self._calls if call.edge is not None]
        self._sampling = True
        try:
            edges = [call.edge for call in calls if call.edge is not None]
            gradients = drawn_cotangents(output, loss, generator, edges)
        finally:
            self._sampling = False
        for call, gradient in zip(calls, gradients, strict=True):
            if gradient is not None:
                columns = self._columns(call, gradient)
                self._drawn.setdefault(call.name, []).append(columns)
        self._calls = []

    def clear(self) -> None:
        """Forget everything seen so far."""
        self._seen, self._drawn, self._calls, self._coarsest = {}, {}, [], {}

    def clear_gradients(self) -> None:
        """Forget the passes that were differentiated; one that is under way goes on."""
        self._seen, self._coarsest = {}, {}

    # --- watching -----------------------------------------------------------------------------

    def begin(self) -> None:
        """A pass begins."""
        stack = ExitStack()
        if not self._passes and torch.is_grad_enabled():
            self._tracker.clear()
            stack.enter_context(watching_calls(self._tracker))
        self._passes.append(stack)

    def end(self) -> None:
        """A pass has ended, perhaps by an error."""
        if not self._passes:
            return
        self._passes.pop().close()
        if self._passes:
            return
        for call in self._tracker.found:
            if call.edge is not None:
                call.edge.node.register_prehook(_hook(weakref.ref(self), call))
                if self._outputs:
                    self._calls.append(call)
        self._tracker.clear()

    def take(self, call: WeightCall, gradient: Tensor) -> None:
        """The gradient by the result of a call came by."""
        if self._sampling:
            return
        coarsest = max(_rounding(x) for x in (gradient, call.met.x))
        self._coarsest[call.name] = max(self._coarsest.get(call.name, 0.0), coarsest)
        self._seen.setdefault(call.name, []).append(self._columns(call, gradient.detach()))

    def _columns(self, call: WeightCall, gradient: Tensor) -> UseColumns:
        with torch.no_grad(), torch.autocast(gradient.device.type, enabled=False):
            index, dtype = self._tracker.places(call), self.parameters[call.name].dtype
            return columns_of(call.met, gradient, index, dtype)


def _unseen(name: str) -> InvalidInput:
    return InvalidInput(
        f"a .grad of '{name}' other than what its calls' inputs and cotangents give",
        "products of the tensor with data that run in the model's forward, as Python calls of "
        "torch, and gradients as the backward pass left them",
        f"train it by a rule without A, B and sample_square: '{name}: adamw; rest: kfac'. Or do "
        "not compile the model, do not clip or scale .grad, and call zero_grad after every step",
    )


def _rounding(x: Tensor) -> float:
    return torch.finfo(x.dtype).eps if x.is_floating_point() else 0.0


def _remove(handles: Iterable[RemovableHandle]) -> None:
    for handle in handles:
        handle.remove()


def _before(me: weakref.ref[UseCapture]) -> Callable[..., None]:
    def hook(*_: Any) -> None:
        capture = me()
        if capture is not None and not torch.compiler.is_compiling():
            capture.begin()

    return hook


def _after(me: weakref.ref[UseCapture]) -> Callable[..., None]:
    def hook(*_: Any) -> None:
        capture = me()
        if capture is not None and not torch.compiler.is_compiling():
            capture.end()

    return hook


def _hook(me: weakref.ref[UseCapture], call: WeightCall) -> Callable[..., None]:
    def hook(gradients: tuple[Tensor | None, ...]) -> None:
        capture, edge = me(), call.edge
        if capture is not None and edge is not None:
            gradient = gradients[edge.output_nr]
            if gradient is not None:
                capture.take(call, gradient)

    return hook
