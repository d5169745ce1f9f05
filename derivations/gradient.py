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
        library="torch.optim.SGD()",
    ),
    Optimizer(
        name="momentum",
        update="ema(G, beta)",
        about="gradient descent along a moving average of the gradient",
        reference="Polyak 1964",
        units=_MOMENTUM,
        values={"beta": 0.9},
        library="torch.optim.SGD(momentum=0.9)",
    ),
    Optimizer(
        name="nesterov",
        update="(1 - beta)*G + beta*ema(G, beta)",
        about="gradient descent with Nesterov's momentum",
        reference="Nesterov 1983; Sutskever et al. 2013",
        units=_MOMENTUM,
        values={"beta": 0.9},
        library="torch.optim.SGD(momentum=0.9, nesterov=True)",
    ),
    Optimizer(
        name="sgd_penalised",
        update="G + decay*W",
        about="gradient descent with a penalty on the squared weights",
        reference="Krogh and Hertz 1991",
        units={**_UNITS, **_DECAY},
        library="torch.optim.SGD(weight_decay=0.1)",
    ),
    Optimizer(
        name="momentum_penalised",
        update="ema(G + decay*W, beta)",
        about="momentum with a penalty on the squared weights",
        reference="Krogh and Hertz 1991; arXiv 1711.05101, Algorithm 1",
        units={**_MOMENTUM, **_DECAY},
        values={"beta": 0.9},
        library="torch.optim.SGD(momentum=0.9, weight_decay=0.1)",
    ),
    Optimizer(
        name="sgdw",
        update="ema(G, beta) + decay*W",
        about="momentum with decoupled weight decay",
        reference="arXiv 1711.05101, Algorithm 1",
        units={**_MOMENTUM, **_DECAY},
        values={"beta": 0.9},
    ),
    Optimizer(
        name="qhm",
        update="(1 - nu)*G + nu*ema(G, beta)",
        about="quasi-hyperbolic momentum: the gradient beside its average",
        reference="arXiv 1810.06801",
        units={**_MOMENTUM, "nu": "a part"},
        values={"beta": 0.999, "nu": 0.7},
        library="pytorch_optimizer.QHM(momentum=0.999, nu=0.7)",
    ),
    Optimizer(
        name="aggmo",
        update="(ema(G, beta1)/(1 - beta1) + ema(G, beta2)/(1 - beta2) + G)/3",
        about="AggMo: the mean of three averages, one of them the gradient",
        reference="arXiv 1804.00325",
        units={**_UNITS, "beta1": "decay per step", "beta2": "decay per step"},
        values={"beta1": 0.9, "beta2": 0.99},
        library="pytorch_optimizer.AggMo(betas=(0.0, 0.9, 0.99))",
    ),
    Optimizer(
        name="grokfast",
        update="G + alpha*ema(G, beta)",
        about="Grokfast: slow gradients amplified before a step",
        reference="arXiv 2405.20233",
        units={**_MOMENTUM, "alpha": "a number"},
        values={"beta": 0.98, "alpha": 2.0},
    ),
    Optimizer(
        name="sgdp",
        update="M - inner(W, M)/norm(W)**2*W where M = ema(G, beta)",
        about="SGDP: momentum without its part along the weights",
        reference="arXiv 2006.08217",
        units=_MOMENTUM,
        values={"beta": 0.9},
    ),
    Optimizer(
        name="orthograd",
        update="norm(G)/norm(X)*X where X = G - inner(W, G)/norm(W)**2*W",
        about="OrthoGrad: the gradient across the weights, its length kept",
        reference="arXiv 2501.04697",
        units=_UNITS,
    ),
    Optimizer(
        name="msvag",
        update="M*M/V*M where M = debiased(G, beta), V = debiased(G*G, beta)",
        about="M-SVAG: momentum times its signal-to-noise ratio",
        reference="arXiv 1705.07774",
        units=_MOMENTUM,
        values={"beta": 0.9},
    ),
    Optimizer(
        name="lbfgs_first",
        update="min(1, 1/over_layers(fan_out*fan_in*mean(abs(G))))*G",
        about="L-BFGS at its first step: the gradient by its 1-norm",
        reference="Liu and Nocedal 1989",
        units={"lr": "1-norm of the change of all weights"},
    ),
)
