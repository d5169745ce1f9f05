"""Signs of averages of the gradient.

    Signum         dW = sign(m)                    m a moving average of G
    Tiger          dW = sign(m) + decay W
    Cautious Lion  dW = a U / mean(a) + decay W    U = sign(c m + (1 - c) G), a = [U G > 0]
    Rprop          dW = sign(G)                    the first step, with steps of one size

Entries of order one, coherent with the layer's input: sign descent's exponents. A mask keeps some
fraction of the entries at any width, and the mean of the mask is of order one.
"""

from derivations.declaration import Optimizer

_LR = {"lr": "weight: the change of every entry"}
_BETA = {"beta": "decay per step"}
_DECAY = {"decay": "1 / lr: lr decay is the part of the weights that a step takes away"}
OPTIMIZERS = (
    Optimizer(
        name="signum",
        update="sign(ema(G, beta))",
        about="Signum: the sign of a moving average of the gradient",
        reference="arXiv 1802.04434",
        units={**_LR, **_BETA},
        values={"beta": 0.9},
        library="pytorch_optimizer.SignSGD(momentum=0.9)",
    ),
    Optimizer(
        name="tiger",
        update="sign(ema(G, beta)) + decay*W",
        about="Tiger: Signum with decoupled weight decay",
        reference="Su 2023",
        units={**_LR, **_BETA, **_DECAY},
        values={"beta": 0.965},
        library="pytorch_optimizer.Tiger(weight_decay=0.1)",
    ),
    Optimizer(
        name="cautious_lion",
        update="agree(U, G)*U / (mean(agree(U, G)) + 1/(fan_in*fan_out)) + decay*W "
        "where U = sign(beta1/beta2*ema(G, beta2) + (1 - beta1/beta2)*G)",
        about="Cautious Lion: no step where it would be uphill",
        reference="arXiv 2411.16085",
        units={**_LR, **_DECAY, "beta1": "decay per step", "beta2": "decay per step"},
        values={"beta1": 0.9, "beta2": 0.99},
        library="pytorch_optimizer.Lion(weight_decay=0.1, cautious=True)",
    ),
)
