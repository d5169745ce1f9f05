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
        library="torch_optimizer.Lamb(clamp_value=1e9, eps=1e-3)",
    ),
    Optimizer(
        name="fromage",
        update="trust(norm(W), norm(G))*G",
        about="Fromage: steps as long as the weights, without shrinking",
        reference="arXiv 2002.03432",
        units=_LR,
        library="pytorch_optimizer.Fromage(lr=1e-7)",
    ),
    Optimizer(
        name="novograd",
        update="ema(G/(sqrt(debiased(norm(G)**2, beta2)) + eps), beta1)",
        about="NovoGrad: the average of gradients over norms of layers",
        reference="arXiv 1905.11286",
        units={
            "lr": "norm of the change of W",
            "eps": "norm of the gradient",
            "beta1": "decay",
            "beta2": "decay",
        },
        values={"beta1": 0.95, "beta2": 0.98},
    ),
    Optimizer(
        name="adalomo",
        update="rms(W)*(U / max(1, rms(U))) where V = ema(row_mean(G*G), beta) "
        "@ ema(col_mean(G*G), beta) / ema(mean(G*G), beta), U = G / sqrt(V)",
        about="AdaLomo: Adafactor's update, relative to the weights",
        reference="arXiv 2310.10195",
        units={**_LR, "beta": "decay per step"},
        values={"beta": 0.85},
    ),
    Optimizer(
        name="nero",
        update="sqrt(row_mean(W*W))/(sqrt(row_mean(G*G)) + eps)*G",
        about="Nero: a trust ratio for each neuron, without its constraint",
        reference="arXiv 2102.07227",
        units={**_LR, "eps": "entry of the gradient"},
    ),
    Optimizer(
        name="madam",
        update="abs(W)*ema(G, beta1)/(sqrt(ema(G*G, beta2)) + eps)",
        about="Madam: steps in proportion to every weight",
        reference="arXiv 2006.14560",
        units={**_LR, "eps": "entry of the gradient", "beta1": "decay", "beta2": "decay"},
        values={"beta1": 0.9, "beta2": 0.999},
    ),
    Optimizer(
        name="amos",
        update="rms(W)*G/(sqrt(debiased(mean(G*G), beta)) + eps)",
        about="Amos at its first step: relative steps, no decay yet",
        reference="arXiv 2210.11693",
        units={**_LR, "eps": "entry of the gradient", "beta": "decay per step"},
        values={"beta": 0.999},
    ),
)
