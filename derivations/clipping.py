"""Gradients that are cut off, centred or normalised before the optimizer sees them.

    global clipping     G / max(1, |all G| / bound)      the norm over all layers
    spectral clipping   G / max(1, specnorm(G) / bound)
    centralisation      G - its row means
    normalised          m / norm(m), or the average of G / norm(G)

The norm over all layers is that of the readout, the only layer whose gradient's norm grows with the
width under maximal updates. SGD inherits that number as a factor of all rates, Adam forgets it,
and only its eps moves along. Row means of a gradient are smaller than its entries, or of their
size, and in both cases what is left is a gradient of its order.
"""

from derivations.declaration import Optimizer

_LR = {"lr": "weight: the change of every entry"}
_BETAS = {"beta1": "decay per step", "beta2": "decay per step"}
_USUAL = {"beta1": 0.9, "beta2": 0.999}
_DECAY = {"decay": "1 / lr: lr decay is the part of the weights that a step takes away"}
_CLIPPED = "X = G / max(1, sqrt(over_layers(norm(G)**2))/bound)"
OPTIMIZERS = (
    Optimizer(
        name="sgd_clipped_globally",
        update="G / max(1, sqrt(over_layers(norm(G)**2))/bound)",
        about="gradient descent clipped at a norm of all layers",
        reference="arXiv 1211.5063",
        units={"lr": "weight per gradient", "bound": "norm of all gradients"},
        values={"bound": 1.0},
    ),
    Optimizer(
        name="adamw_clipped_globally",
        update=f"ema(X, beta1) / (sqrt(ema(X*X, beta2)) + eps) + decay*W where {_CLIPPED}",
        about="AdamW of gradients clipped at a norm of all layers",
        reference="arXiv 1711.05101; arXiv 1211.5063",
        units={
            **_LR, **_BETAS, **_DECAY, "bound": "norm of all gradients",
            "eps": "entry of the clipped gradient",
        },
        values={**_USUAL, "bound": 1.0},
    ),
    Optimizer(
        name="sgd_clipped_spectrally",
        update="G / max(1, specnorm(G)/bound)",
        about="gradient descent clipped at a spectral norm",
        reference="arXiv 2506.01913",
        units={"lr": "weight per gradient", "bound": "spectral norm of the gradient"},
        values={"bound": 1.0},
    ),
    Optimizer(
        name="sgd_spectral_cut",
        update="spectral_map(G, min(sigma, bound))",
        about="spectral clipping: every singular value cut off",
        reference="arXiv 2506.01913",
        units={"lr": "weight per gradient", "bound": "singular value of the gradient"},
        values={"bound": 1.0},
    ),
    Optimizer(
        name="sgd_centred",
        update="G - row_mean(G)",
        about="gradient descent, centralised: without its row means",
        reference="arXiv 2004.01461",
        units={"lr": "weight per gradient"},
    ),
    Optimizer(
        name="adam_centred",
        update="debiased(X, beta1) / (sqrt(debiased(X*X, beta2)) + eps) where X = G - row_mean(G)",
        about="Adam of centralised gradients",
        reference="arXiv 2004.01461",
        units={**_LR, **_BETAS, "eps": "entry of the gradient"},
        values=_USUAL,
    ),
    Optimizer(
        name="momentum_normalized",
        update="ema(G, beta)/norm(ema(G, beta))",
        about="momentum over its own norm",
        reference="arXiv 2002.03305",
        units={"lr": "norm of the change of W", "beta": "decay per step"},
        values={"beta": 0.9},
    ),
    Optimizer(
        name="adamw_clipped",
        update="U/max(1, rms(U)/bound) + decay*W "
        "where U = ema(G, beta1) / (sqrt(ema(G*G, beta2)) + eps)",
        about="AdamW with updates cut off at an RMS",
        reference="arXiv 1804.04235, Sec. 6",
        units={
            **_LR, **_BETAS, **_DECAY, "eps": "entry of the gradient", "bound": "RMS of the update",
        },
        values={**_USUAL, "bound": 1.0},
    ),
)  # fmt: skip
