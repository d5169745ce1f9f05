"""Sign descent and Adam: entrywise normalisation.

    sign    dW = sign(G)
    Adam    dW = m / (sqrt(v) + eps)      m, v moving averages of G and G*G

Every entry of the update is Theta(1) whatever the gradient's size, and being odd in G it stays
coherent with the layer's input: dW h adds up over fan_in (LLN). Adam's eps must follow the
entries of sqrt(v), or one of the two drowns as the width grows.

At the first step m = (1 - beta1) G and v = (1 - beta2) G*G; bias correction multiplies by numbers
of order one. Reproduces the Adam columns of arXiv 2203.03466 (Table 3) and, for eps,
arXiv 2407.05872 (Sec. 4.3).
"""

from derivations.declaration import Optimizer

OPTIMIZERS = (
    Optimizer(
        name="sign",
        update="sign(G)",
        about="sign descent",
        reference="arXiv 1802.04434",
        units={"lr": "weight: the change of every entry"},
    ),
    Optimizer(
        name="adam",
        update="ema(G, beta1) / (sqrt(ema(G*G, beta2)) + eps)",
        about="Adam, first and second moments entry by entry",
        reference="arXiv 1412.6980",
        units={
            "lr": "weight: the change of every entry",
            "eps": "entry of the gradient",
            "beta1": "decay per step",
            "beta2": "decay per step",
        },
        values={"beta1": 0.9, "beta2": 0.999},
    ),
)
