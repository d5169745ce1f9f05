"""Gradient descent, with and without momentum.

    dW = G                       G = D H^T / n

The spectral size of G is sqrt(fan_out fan_in) |delta| |h|, with |delta| = M^(-b_L) below the
output. Momentum is a moving average of G, and Nesterov's looks one step ahead along it: the same
size at every step, so the same exponents.

Reproduces the SGD columns of arXiv 2011.14522 (Table 2) and arXiv 2312.12226 (Table 1).
"""

from derivations.declaration import Optimizer

_UNITS = {"lr": "weight per gradient"}
_MOMENTUM = {**_UNITS, "beta": "decay per step"}
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
        units=_MOMENTUM,
        values={"beta": 0.9},
    ),
    Optimizer(
        name="nesterov",
        update="(1 - beta)*G + beta*ema(G, beta)",
        about="gradient descent with Nesterov's momentum",
        reference="Nesterov 1983; Sutskever et al. 2013",
        units=_MOMENTUM,
        values={"beta": 0.9},
    ),
)
