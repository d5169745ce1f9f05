"""K-FAC of curvlinops, whose inverse is used as a preconditioner of the gradient.

    K-FAC            (B + rho*I)^-1 G (A + rho*I)^-1
    damping split    (B + sqrt(rho)/pi*I)^-1 G (A + sqrt(rho)*pi*I)^-1
                     pi^2 = mean(eig A)/mean(eig B)

The Fisher matrix is that of the gradients themselves (fisher_type "empirical"). The library takes
three losses and no other: the sum of squared errors at the targets y - sqrt(n)*g/2 has cotangents
sqrt(n)*g, whose B is that of the cotangents g of a mean over n samples, B = n g g^T. Its default
damping, 0, does not invert factors of few samples: here 1e-3. https://curvlinops.readthedocs.io
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from curvlinops import KFACInverseLinearOperator, KFACLinearOperator
from torch import Tensor, nn

from empirical.black_box.seen_batch import SeenBatch


class CurvlinopsKfac(SeenBatch):
    """K-FAC, one damping added to both factors."""

    options: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, module: nn.Module, lr: float = 1e-3, damping: float = 1e-3) -> None:
        super().__init__(module, lr, damping)

    def preconditioned(self, inputs: Tensor, cotangents: Tensor) -> None:
        """The inverse of the factors, times the gradient."""
        with torch.no_grad():
            targets = self.module(inputs) - len(inputs) ** 0.5 / 2 * cotangents
        parameters = list(self.module.parameters())
        factors = KFACLinearOperator(
            self.module, nn.MSELoss(reduction="sum"), parameters, [(inputs, targets)],
            fisher_type="empirical", check_deterministic=False,
        )  # fmt: skip
        inverse = KFACInverseLinearOperator(factors, damping=self.damping, **self.options)
        for p, update in zip(parameters, inverse @ [p.grad for p in parameters], strict=True):
            p.grad = update


class CurvlinopsKfacSplit(CurvlinopsKfac):
    """K-FAC, its damping split between the factors."""

    options: ClassVar[Mapping[str, Any]] = {"use_heuristic_damping": True}
