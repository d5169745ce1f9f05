"""Sign descent, Adam and their relatives: entrywise normalisation.

    sign        dW = sign(G)
    Lion        dW = sign(beta1 m + (1 - beta1) G) + decay W      m a moving average of G
    Adam        dW = m / (sqrt(v) + eps)                  v a moving average of G*G
    debiased    the same with m / (1 - beta1^t) and v / (1 - beta2^t)
    AdamW       dW = m / (sqrt(v) + eps) + decay W
    Adam-atan2  dW = atan(m / sqrt(v))                    no eps to scale
    RMSprop     dW = G / (sqrt(v) + eps)
    Adagrad     dW = G / (sqrt(sum of G*G) + eps)         a sum that has one term at the first step
    Sophia      dW = clip(m / (gamma s + eps), 1)         s a moving average of a curvature

Every entry of the update is Theta(1) whatever the gradient's size, and being odd in G it stays
coherent with the layer's input: dW h adds up over fan_in (LLN). An eps must follow what it is
added to, the entries of sqrt(v) or of v, or one of the two drowns as the width grows. A decay of
the weights must follow 1/lr, which grows with the width in hidden and output layers: with a decay
that does not scale, wide layers hardly decay at all.

At the first step m = (1 - beta1) G and v = (1 - beta2) G*G; bias correction multiplies by numbers
of order one. Sophia's curvature is G*G here, an estimate by the gradient itself; estimates from
sampled labels have entries of the same size. Reproduces the Adam columns of arXiv 2203.03466
(Table 3) and, for eps, arXiv 2407.05872 (Sec. 4.3).
"""

from derivations.declaration import Optimizer

_LR = {"lr": "weight: the change of every entry"}
_EPS = {"eps": "entry of the gradient"}
_DECAY = {"decay": "1 / lr: lr decay is the part of the weights that a step takes away"}
_BETAS = {"beta1": "decay per step", "beta2": "decay per step"}
_ADAM = {"beta1": 0.9, "beta2": 0.999}
OPTIMIZERS = (
    Optimizer(
        name="sign",
        update="sign(G)",
        about="sign descent",
        reference="arXiv 1802.04434",
        units=_LR,
        library="pytorch_optimizer.SignSGD(momentum=0.0)",
    ),
    Optimizer(
        name="lion",
        update="sign(beta1*ema(G, beta2) + (1 - beta1)*G) + decay*W",
        about="Lion: sign of interpolated momentum, decoupled weight decay",
        reference="arXiv 2302.06675",
        units={**_LR, **_DECAY, **_BETAS},
        values={"beta1": 0.9, "beta2": 0.99},
        library="pytorch_optimizer.Lion(weight_decay=0.1)",
    ),
    Optimizer(
        name="adam",
        update="ema(G, beta1) / (sqrt(ema(G*G, beta2)) + eps)",
        about="Adam, first and second moments entry by entry",
        reference="arXiv 1412.6980",
        units={**_LR, **_EPS, **_BETAS},
        values=_ADAM,
    ),
    Optimizer(
        name="adam_debiased",
        update="debiased(G, beta1) / (sqrt(debiased(G*G, beta2)) + eps)",
        about="Adam with bias correction: sign descent at its first step",
        reference="arXiv 1412.6980, Alg. 1",
        units={**_LR, **_EPS, **_BETAS},
        values=_ADAM,
        library="torch.optim.Adam(eps=1e-3)",
    ),
    Optimizer(
        name="adamw",
        update="ema(G, beta1) / (sqrt(ema(G*G, beta2)) + eps) + decay*W",
        about="Adam with decoupled weight decay",
        reference="arXiv 1711.05101, Algorithm 2; arXiv 2405.13698",
        units={**_LR, **_EPS, **_DECAY, **_BETAS},
        values=_ADAM,
    ),
    Optimizer(
        name="adam_atan2",
        update="atan(ema(G, beta1) / sqrt(ema(G*G, beta2)))",
        about="Adam with an arctangent in place of eps",
        reference="arXiv 2407.05872",
        units={**_LR, **_BETAS},
        values=_ADAM,
    ),
    Optimizer(
        name="rmsprop",
        update="G / (sqrt(ema(G*G, beta)) + eps)",
        about="RMSprop: the second moment alone",
        reference="Tieleman and Hinton 2012",
        units={**_LR, **_EPS, "beta": "decay per step"},
        values={"beta": 0.99},
        library="torch.optim.RMSprop(eps=1e-3)",
    ),
    Optimizer(
        name="adagrad",
        update="G / (sqrt(G*G) + eps)",
        about="Adagrad at its first step: its sum of squares has one term",
        reference="Duchi et al. 2011",
        units={**_LR, **_EPS},
    ),
    Optimizer(
        name="sophia",
        update="clip(ema(G, beta1) / (gamma*ema(G*G, beta2) + eps), 1)",
        about="Sophia: momentum over curvature, entries cut off at one",
        reference="arXiv 2305.14342",
        units={**_LR, "eps": "squared entry of the gradient", "gamma": "a number", **_BETAS},
        values={"gamma": 0.05, "beta1": 0.96, "beta2": 0.99},
    ),
)
