"""Gradient descent, with and without momentum, with and without weight decay.

    SGD         dW = G                         G = D H^T / n
    penalised   dW = G + decay W               the gradient of a loss with decay/2 |W|^2
    momentum    dW = m, or m of G + decay W    m a moving average
    SGDW        dW = m + decay W               decoupled

The spectral size of G is sqrt(fan_out fan_in) |delta| |h|, with |delta| = M^(-b_L) below the
output. Momentum is a moving average of G, and Nesterov's looks one step ahead along it: of the size
of G at the first step and at the second (averages.py), so the same exponents. A decay has
lr decay = Theta(1), whether the weights are added before the average or after it.

Reproduces the SGD columns of arXiv 2011.14522 (Table 2) and arXiv 2312.12226 (Table 1).
"""

from derivations.declaration import Optimizer

_UNITS = {"lr": "weight per gradient"}
_MOMENTUM = {**_UNITS, "beta": "decay per step"}
_DECAY = {"decay": "gradient per weight: lr decay is the part of the weights that a step takes"}
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
    Optimizer(
        name="sgd_penalised",
        update="G + decay*W",
        about="gradient descent with a penalty on the squared weights",
        reference="Krogh and Hertz 1991",
        units={**_UNITS, **_DECAY},
    ),
    Optimizer(
        name="momentum_penalised",
        update="ema(G + decay*W, beta)",
        about="momentum with a penalty on the squared weights",
        reference="Krogh and Hertz 1991; arXiv 1711.05101, Algorithm 1",
        units={**_MOMENTUM, **_DECAY},
        values={"beta": 0.9},
    ),
    Optimizer(
        name="sgdw",
        update="ema(G, beta) + decay*W",
        about="momentum with decoupled weight decay",
        reference="arXiv 1711.05101, Algorithm 1",
        units={**_MOMENTUM, **_DECAY},
        values={"beta": 0.9},
    ),
)
