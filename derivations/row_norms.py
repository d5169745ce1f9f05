"""One number a row or a column: normalised rows, columns, and second moments of a whole row.

    Adam-mini   dW = m / (sqrt(v) + eps)               v averages the mean square of a row
    RMNP, SRON  dW = M / rms of its rows               M an average of G, or G
    SCALE       dW = G / rms of its columns
    SinkGD      rows, then columns, of one length; once here, five times in the paper
    RACS        dW = G / (sqrt(r) sqrt(c) + eps)       r, c the mean squares of rows and columns
    CAME        Adafactor's update, averaged, without its confidence

Rows of a gradient of n samples have entries of one size, so that dividing by a row's RMS is as
dividing by every entry's: Adam's exponents. RACS divides by rows and by columns, by the gradient's
size twice, and has exponents of its own.
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
        update="G / (sqrt(ema(row_mean(G*G), beta) + eps)@sqrt(ema(col_mean(G*G), beta) + eps))",
        about="RACS: rows and columns by their RMS, without its limiter",
        reference="arXiv 2502.07752",
        units={
            "lr": "weight times gradient", "eps": "squared entry of the gradient",
            "beta": "decay per step",
        },
        values={"beta": 0.9},
    ),
    Optimizer(
        name="came",
        update="ema(U / max(1, rms(U)), beta1) where V = ema(row_mean(G*G + eps), beta2) "
        "@ ema(col_mean(G*G + eps), beta2) / ema(mean(G*G + eps), beta2), U = G / sqrt(V)",
        about="CAME without its confidence: Adafactor's update averaged",
        reference="arXiv 2307.02047",
        units={**_LR, "eps": "squared entry of the gradient", **_BETAS},
        values={"beta1": 0.9, "beta2": 0.999},
    ),
)  # fmt: skip
