"""Gradient descent and momentum.

    dW = G                       G = D H^T / n

The spectral size of G is sqrt(fan_out fan_in) |delta| |h|, with |delta| = M^(-b_L) below the
output. Momentum is a moving average of G: the same size at every step, so the same exponents.

Reproduces the SGD columns of arXiv 2011.14522 (Table 2) and arXiv 2312.12226 (Table 1).
"""

from derivations.declaration import Optimizer

_UNITS = {"lr": "weight per gradient"}
OPTIMIZERS = (
    Optimizer(
        name="sgd",
        update="G",
        about="gradient descent",
        reference="Robbins and Monro 1951",
        units=_UNITS,
    ),
    Optimizer(
        name="momentum",
        update="ema(G, beta)",
        about="gradient descent along a moving average of the gradient",
        reference="Polyak 1964",
        units={**_UNITS, "beta": "decay per step"},
        values={"beta": 0.9},
    ),
)
