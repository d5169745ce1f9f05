"""Preconditioned gradients of libraries that look at the batch, as optimizers of a module.

    dW = -lr P(G),   P made by a library from the inputs x and the cotangents g of one batch

Claim.  A library of curvature wants a model, data and a loss. Hooks keep the inputs of the module
and the cotangents of its outputs in the last forward and backward; the loss (y*g).sum(), linear in
the outputs y, has these gradients again. So the library sees what the optimizer's gradient came
from, whatever the loss was.

A class says by ``takes_module`` that it is built on a module in the place of a list of tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from scaling.sizes.errors import InvalidInput


class SeenBatch(torch.optim.Optimizer):
    """Gradient descent along what `preconditioned` leaves in the gradients.

    Args:
        module: of layers without biases, called on one tensor (samples, fan_in).
        lr: learning rate.
        damping: of the curvature, in the library's own unit.
    """

    takes_module = True

    def __init__(self, module: nn.Module, lr: float, damping: float) -> None:
        super().__init__(module.parameters(), {"lr": lr, "damping": damping})
        self.module, self.lr, self.damping = module, lr, damping
        self._looking = True
        self._inputs: Tensor | None = None
        self._cotangents: Tensor | None = None
        module.register_forward_hook(self._look)

    def preconditioned(self, inputs: Tensor, cotangents: Tensor) -> None:
        """Put the preconditioned gradient in the place of the gradient.

        Args:
            inputs: (samples, fan_in).
            cotangents: of the loss, a mean over samples: (samples, fan_out).
        """
        raise NotImplementedError

    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:  # type: ignore[override]
        """One step from the gradients that are there.

        Raises:
            InvalidInput: before a backward pass.
        """
        loss = closure() if closure is not None else None
        if self._inputs is None or self._cotangents is None:
            raise InvalidInput(
                f"a step of {type(self).__name__} before a backward pass",
                "inputs and cotangents of a batch",
                "call loss.backward() first",
            )
        self._looking = False
        try:
            self.preconditioned(self._inputs, self._cotangents)
        finally:
            self._looking = True
        with torch.no_grad():
            for p in self.module.parameters():
                assert p.grad is not None
                p.add_(p.grad, alpha=-self.lr)
        return loss

    def _look(self, _: nn.Module, args: tuple[Any, ...], outputs: Tensor) -> None:
        if self._looking and outputs.requires_grad:
            self._inputs = args[0].detach()
            outputs.register_hook(self._keep)  # type: ignore[no-untyped-call]

    def _keep(self, cotangents: Tensor) -> None:
        if self._looking:
            self._cotangents = cotangents.detach()
