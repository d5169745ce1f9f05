"""Shampoo.

    dW = (L + rho_L I)^(-e/2) G (R + rho_R I)^(-e/2)      L = G G^T, R = G^T G, e = 1/2

L and R have the squared singular values of G on the span of G, so the update has spectral size
sigma^(1 - 2e) there: e = 1/2 removes the size of the gradient altogether (it is then orth(G) at
the first step), e = 0 is gradient descent.

Reproduces the Shampoo row of Prop. 4.1 and Table 1 of arXiv 2312.12226. One step: accumulated
factors are sums of terms of the same size.
"""

from fractions import Fraction

from derivations.declaration import Optimizer

OPTIMIZERS = (
    Optimizer(
        name="shampoo",
        update="(L + rho_L*I)**(-e/2) @ G @ (R + rho_R*I)**(-e/2)",
        about="Shampoo: both factors of the gradient's own second moment",
        reference="arXiv 1802.09568; arXiv 2312.12226",
        units={
            "lr": "weight per gradient^(1 - 2e)",
            "rho_L": "squared spectral norm of the gradient",
            "rho_R": "squared spectral norm of the gradient",
            "e": "power of the preconditioner, half on each side",
        },
        exponents={"e": Fraction(1, 2)},
    ),
)
