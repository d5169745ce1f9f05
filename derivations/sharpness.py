"""Sharpness-aware minimization: a gradient that is taken uphill.

    SAM    dW = G at W + X,  X_l = radius_l G_l / |G_l|        norms layer by layer

The perturbation is a step of normalised gradient descent that is taken back, and its radius scales
like the rate of one: radius ~ M^(1/2), 1, M^(-1/2) in input, hidden and output layers with norms of
their own, so that |X_l| in spectral norm is sqrt(fan_out / fan_in) (arXiv 2411.00075). The learning
rates are those of SGD: D' H'^T has the sizes of D H^T.

With the norm of all layers instead, sqrt(over_layers(norm(G)**2)), the readout has the largest part
of it, so that a single radius perturbs the readout alone; radii by layers then differ as the
learning rates of SGD do. `scaling derive` says so of that rule too.
"""

from derivations.declaration import Optimizer

_LR = {"lr": "weight per gradient"}
OPTIMIZERS = (
    Optimizer(
        name="sam",
        update="ascended(radius * G / norm(G))",
        about="SAM: the gradient at weights moved uphill, layer by layer",
        reference="arXiv 2010.01412, Eq. 2; arXiv 2411.00075",
        units={**_LR, "radius": "Frobenius norm of the perturbation of W"},
    ),
    Optimizer(
        name="sam_adam",
        update="ema(X, beta1) / (sqrt(ema(X*X, beta2)) + eps) "
        "where X = ascended(radius * G / norm(G))",
        about="SAM with Adam: Adam of the gradient taken uphill",
        reference="arXiv 2010.01412",
        units={
            "lr": "weight: the change of every entry",
            "eps": "entry of the gradient",
            "radius": "Frobenius norm of the perturbation of W",
            "beta1": "decay per step",
            "beta2": "decay per step",
        },
        values={"beta1": 0.9, "beta2": 0.999},
    ),
    Optimizer(
        name="sassha",
        update="ema(ascended(radius * G / norm(G)), beta1) / (sqrt(ema(D, beta2)) + eps) "
        "where D = sample_square(G)",
        about="SASSHA: the gradient taken uphill over a root curvature",
        reference="arXiv 2502.18153",
        units={
            "lr": "weight: the change of every entry",
            "eps": "entry of the gradient",
            "radius": "Frobenius norm of the perturbation of W",
            "beta1": "decay per step",
            "beta2": "decay per step",
        },
        values={"beta1": 0.9, "beta2": 0.999},
    ),
)
