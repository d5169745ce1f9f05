"""Trust ratios: an update as long as the weights are.

    LARS    dW = trust(norm(W), norm(G) + eps) G
    LAMB    dW = trust(norm(W), norm(U)) U,     U = m / (sqrt(v) + eps)   (Adam's update)

trust(x, y) is x/y, and 1 where one of them is zero, as in public implementations: with the bare
quotient a weight or bias that is zero would never move.

The Frobenius norm of the update is that of the weights, sqrt(fan_out fan_in) M^(-b), whatever the
gradient's size. So the learning rate, a relative change, still has an exponent: LARS moves n
directions only and has a larger spectral size than weights of the same norm, LAMB adds up over
fan_in. Both need smaller rates in hidden layers as the width grows: "no tuning" they are not.
"""

from derivations.declaration import Optimizer

_LR = {"lr": "relative change of the weights"}
OPTIMIZERS = (
    Optimizer(
        name="lars",
        update="trust(norm(W), norm(G) + eps) * G",
        about="LARS: gradient descent with a trust ratio per layer",
        reference="arXiv 1708.03888",
        units={**_LR, "eps": "norm of the gradient"},
    ),
    Optimizer(
        name="lamb",
        update="trust(norm(W), norm(U)) * U "
        "where U = ema(G, beta1) / (sqrt(ema(G*G, beta2)) + eps)",
        about="LAMB: Adam with a trust ratio per layer",
        reference="arXiv 1904.00962",
        units={**_LR, "eps": "entry of the gradient", "beta1": "decay", "beta2": "decay"},
        values={"beta1": 0.9, "beta2": 0.999},
    ),
)
