"""One number a row or a column: normalised rows, columns, and second moments of a whole row.

    Adam-mini   dW = m / (sqrt(v) + eps)               v averages the mean square of a row
    RMNP, SRON  dW = M / rms of its rows               M an average of G, or G
    SCALE       dW = G / rms of its columns
    SinkGD      rows, then columns, of one length; once here, five times in the paper
    RACS        dW = G / (sqrt(V) + eps)               V = r c / mean, as Adafactor's
    CAME        Adafactor's update, averaged, over the root of what the average misses

Rows of a gradient of n samples have entries of one size, so that dividing by a row's RMS is as
dividing by every entry's: Adam's exponents.
"""

from derivations.declaration import Optimizer

_LR = {"lr": "weight: the RMS change of an entry"}
_EPS = {"eps": "entry of the gradient"}
_BETAS = {"beta1": "decay per step", "beta2": "decay per step"}
OPTIMIZERS = (
    Optimizer(
        name="adam_mini",
        update="debiased(G, beta1) / (sqrt(debiased(row_mean(G*G), beta2)) + eps)",
        about="Adam-mini: one second moment a neuron",
        reference="arXiv 2406.16793",
        units={**_LR, **_EPS, **_BETAS},
        values={"beta1": 0.9, "beta2": 0.999},
    ),
    Optimizer(
        name="rmnp",
        update="M / (sqrt(row_mean(M*M)) + eps) where M = ema(G, beta)",
        about="RMNP: rows of the average, of one length",
        reference="arXiv 2603.20527",
        units={**_LR, **_EPS, "beta": "decay per step"},
        values={"beta": 0.95},
    ),
    Optimizer(
        name="sron",
        update="G / (sqrt(row_mean(G*G)) + eps)",
        about="SRON: rows of the gradient, of one length",
        reference="Wen et al. 2025",
        units={**_LR, **_EPS},
    ),
    Optimizer(
        name="scale",
        update="G / (sqrt(col_mean(G*G)) + eps)",
        about="SCALE: columns of the gradient, of one length",
        reference="arXiv 2506.16659",
        units={**_LR, **_EPS},
    ),
    Optimizer(
        name="scale_momentum",
        update="M / (sqrt(col_mean(M*M)) + eps) where M = ema(G, beta)",
        about="SCALE, last layer: with momentum",
        reference="arXiv 2506.16659",
        units={**_LR, **_EPS, "beta": "decay per step"},
        values={"beta": 0.9},
    ),
    Optimizer(
        name="sinkgd",
        update="X / sqrt(col_mean(X*X)) where X = G / sqrt(row_mean(G*G))",
        about="SinkGD: rows, then columns, of one length; one sweep",
        reference="arXiv 2502.06742",
        units=_LR,
    ),
    Optimizer(
        name="racs",
        update="G / (sqrt(V) + eps) where V = ema(row_mean(G*G), beta) @ ema(col_mean(G*G), beta) "
        "/ ema(mean(G*G), beta)",
        about="RACS: rows and columns scaled once, without its limiter",
        reference="arXiv 2502.07752",
        units={**_LR, **_EPS, "beta": "decay per step"},
        values={"beta": 0.9},
    ),
    Optimizer(
        name="came",
        update="ema(U, beta1) / sqrt(S) "
        "where V = ema(row_mean(G*G), beta2) @ ema(col_mean(G*G), beta2) / ema(mean(G*G), beta2), "
        "N = G / sqrt(V), U = N / max(1, rms(N)), C = (U - ema(U, beta1))**2 + eps, "
        "S = ema(row_mean(C), beta3) @ ema(col_mean(C), beta3) / ema(mean(C), beta3)",
        about="CAME: Adafactor's update by its confidence",
        reference="arXiv 2307.02047",
        units={**_LR, "eps": "a number", **_BETAS, "beta3": "decay per step"},
        values={"beta1": 0.9, "beta2": 0.999, "beta3": 0.9999},
        library="pytorch_optimizer.CAME()",
    ),
)  # fmt: skip
