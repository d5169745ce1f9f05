"""Normalised updates: Muon and normalised gradient descent.

    Muon              dW = orth(G) = U V^T       for G = U S V^T
    normalised SGD    dW = G / norm(G)           layer by layer, Frobenius norm

Both have spectral size 1 whatever the gradient's size, since a gradient of n samples has O(1)
singular values; what is left of the learning rate's exponent is the target sqrt(fan_out/fan_in).
That is the size factor which practice multiplies Muon by (arXiv 2310.17813, Sec. 3).
"""

from derivations.declaration import Optimizer

_UNITS = {"lr": "spectral norm of the change of W"}
OPTIMIZERS = (
    Optimizer(
        name="muon",
        update="orth(G)",
        about="Muon: the polar factor of the gradient",
        reference="Jordan 2024; arXiv 2409.20325",
        units=_UNITS,
    ),
    Optimizer(
        name="normalized_sgd",
        update="G / norm(G)",
        about="gradient descent with the gradient's Frobenius norm divided out",
        reference="arXiv 1507.02030",
        units=_UNITS,
    ),
)
