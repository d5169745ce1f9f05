"""Gradient makers of asdfghjkl (its module is asdl) as optimizers of a module.

    K-FAC       (B + sqrt(rho)/pi*I)^-1 G (A + sqrt(rho)*pi*I)^-1,  pi^2 = mean(eig A)/mean(eig B)
    diagonal    G/(sample_square(G) + rho)
    Shampoo     (L + rho*specnorm(L)*I)^(-1/4) G (R + rho*specnorm(R)*I)^(-1/4), sums over steps

The Fisher matrix is that of the gradients themselves (fisher_emp). ``damping`` has the library's
default, 1e-7. EKFAC of release 0.1a5 leaves the gradient as it is.
https://github.com/kazukiosawa/asdl
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import asdl
from torch import Tensor, nn

from empirical.black_box.seen_batch import SeenBatch
from empirical.measure.machine import default_dtype


class _Made(SeenBatch):
    """Steps along what a gradient maker leaves in the gradients."""

    maker: Any
    options: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, module: nn.Module, lr: float = 1e-3, damping: float = 1e-7) -> None:
        super().__init__(module, lr, damping)
        self.config = asdl.PreconditioningConfig(damping=damping)
        with default_dtype(next(module.parameters()).dtype):
            self.made = self.maker(module, self.config, **self.options)

    def preconditioned(self, inputs: Tensor, cotangents: Tensor) -> None:
        """The maker runs the batch again."""
        samples = self.config.data_size = len(inputs)

        def loss(outputs: Tensor, reduction: str = "mean") -> Tensor:
            return (outputs * cotangents).sum() * (samples if reduction == "sum" else 1)

        self.module.zero_grad()
        outputs = self.made.setup_model_call(self.module, inputs)
        self.made.setup_loss_call(loss, outputs)
        with default_dtype(inputs.dtype):  # identities are made in it
            self.made.forward_and_backward()


class AsdlKfac(_Made):
    """K-FAC, its damping split between the factors."""

    maker, options = asdl.KfacGradientMaker, {"fisher_type": asdl.FISHER_EMP}


class AsdlEkfac(_Made):
    """EKFAC: second moments in the eigenbases of K-FAC's factors."""

    maker, options = asdl.EkfacGradientMaker, {"fisher_type": asdl.FISHER_EMP}


class AsdlDiagonal(_Made):
    """The diagonal of the Fisher matrix, without a root."""

    maker, options = asdl.DiagNaturalGradientMaker, {"fisher_type": asdl.FISHER_EMP}


class AsdlShampoo(_Made):
    """Shampoo, its damping relative to the largest eigenvalues."""

    maker = asdl.ShampooGradientMaker
