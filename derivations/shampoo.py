"""Shampoo and its variants.

    dW = (L + rho_L I)^(-e/2) G (R + rho_R I)^(-e/2)      L = G G^T, R = G^T G, e = 1/2

    blocked       L and R by diagonal blocks of a fixed size
    grafted       the direction of this, the norm of the gradient
    one-sided     (L + rho_L I)^(-e) G, or its mirror image

L and R have the squared singular values of G on the span of G, so the update has spectral size
sigma^(1 - 2e) there: e = 1/2 removes the size of the gradient altogether (it is then orth(G) at
the first step), e = 0 is gradient descent. A block of fixed size sees the entries of G and not its
spectrum, so blocks have other exponents. Grafting gives the learning rate of the rule whose norm
is taken.

Reproduces the Shampoo row of Prop. 4.1 and Table 1 of arXiv 2312.12226. One step: accumulated
factors are sums of terms of the same size.
"""

from fractions import Fraction

from derivations.declaration import Optimizer

_WHOLE = "(L + rho_L*I)**(-e/2) @ G @ (R + rho_R*I)**(-e/2)"
_SQUARED = "squared spectral norm of the gradient"
_UNITS = {
    "lr": "weight per gradient^(1 - 2e)",
    "rho_L": _SQUARED,
    "rho_R": _SQUARED,
    "e": "power of the preconditioner, half on each side",
}
_HALF = {"e": Fraction(1, 2)}
OPTIMIZERS = (
    Optimizer(
        name="shampoo",
        update=_WHOLE,
        about="Shampoo: both factors of the gradient's own second moment",
        reference="arXiv 1802.09568; arXiv 2312.12226",
        units=_UNITS,
        exponents=_HALF,
    ),
    Optimizer(
        name="shampoo_blocked",
        update="(block(L, 16) + rho_L*I)**(-e/2) @ G @ (block(R, 16) + rho_R*I)**(-e/2)",
        about="Shampoo with factors in diagonal blocks of a fixed size",
        reference="arXiv 2002.09018",
        units={**_UNITS, "rho_L": "squared row of the gradient", "rho_R": "squared column of it"},
        exponents=_HALF,
    ),
    Optimizer(
        name="shampoo_grafted",
        update=f"norm(G) / norm({_WHOLE}) * ({_WHOLE})",
        about="the direction of Shampoo with the norm of the gradient",
        reference="arXiv 2002.11803; arXiv 2309.06497",
        units={**_UNITS, "lr": "weight per gradient"},
        exponents=_HALF,
    ),
    Optimizer(
        name="one_sided_shampoo",
        update="(L + rho_L*I)**(-e) @ G",
        about="Shampoo with the output factor alone",
        reference="arXiv 2503.20762",
        units={"lr": _UNITS["lr"], "rho_L": _SQUARED, "e": "power of the preconditioner"},
        exponents=_HALF,
    ),
)
