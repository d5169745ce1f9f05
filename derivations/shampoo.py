"""Shampoo and its variants.

    dW = (L + rho_L I)^(-e/2) G (R + rho_R I)^(-e/2)      L = G G^T, R = G^T G, e = 1/2

    blocked       L and R by diagonal blocks of a fixed size
    relative      rho_L = rho specnorm(L), likewise R
    grafted       the direction of this, the norm of the gradient, or of Adam's update
    KL-Shampoo    S_L^(-1/2) G S_R^(-1/2),  S_R = G^T S_L^(-1) G / fan_out,  S_L = G G^T / fan_in
    one-sided     (L + rho_L I)^(-e) G, or its mirror image

L and R have the squared singular values of G on the span of G, so the update has spectral size
sigma^(1 - 2e) there: e = 1/2 removes the size of the gradient altogether (it is then orth(G) at
the first step), e = 0 is gradient descent. A block of fixed size sees the entries of G and not its
spectrum, so blocks have other exponents. Grafting gives the learning rate of the rule whose norm
is taken.

KL-Shampoo estimates each factor from gradients that the other one has whitened. Here it is one
sweep of that alternation, from S_R = I: the gradient's size cancels, and what remains is
sqrt(fan_out). A damping of S_R is then a number in units of fan_in / fan_out.

Reproduces the Shampoo row of Prop. 4.1 and Table 1 of arXiv 2312.12226. L and R are those of
one step; accumulated ones are sums of terms of the same size, and ema(L, beta) in their place is
read at the second step too.
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
        update=f"norm(G) / norm(U) * U where U = {_WHOLE}",
        about="the direction of Shampoo with the norm of the gradient",
        reference="arXiv 2002.11803; arXiv 2309.06497",
        units={**_UNITS, "lr": "weight per gradient"},
        exponents=_HALF,
    ),
    Optimizer(
        name="shampoo_grafted_adam",
        update=f"norm(Adam) / norm(U) * U where U = {_WHOLE}, "
        "Adam = ema(G, beta1) / (sqrt(ema(G*G, beta2)) + eps)",
        about="the direction of Shampoo with the norm of Adam's update",
        reference="arXiv 2002.11803; arXiv 2309.06497",
        units={
            **_UNITS,
            "lr": "weight: the RMS change of an entry",
            "eps": "entry of the gradient",
            "beta1": "decay per step",
            "beta2": "decay per step",
        },
        exponents=_HALF,
        values={"beta1": 0.9, "beta2": 0.999},
    ),
    Optimizer(
        name="shampoo_relative",
        update="(L + rho_L*specnorm(L)*I)**(-e/2) @ G @ (R + rho_R*specnorm(R)*I)**(-e/2)",
        about="Shampoo with dampings relative to the largest eigenvalues",
        reference="arXiv 2002.09018; arXiv 2312.12226, Sec. 4.2",
        units={**_UNITS, "rho_L": "a fraction", "rho_R": "a fraction"},
        exponents=_HALF,
    ),
    Optimizer(
        name="kl_shampoo",
        update="X @ (S_R + rho_R*I)**(-1/2) where "
        "S_L = L/fan_in + rho_L*I, X = S_L**(-1/2) @ G, S_R = X.T @ X/fan_out",
        about="KL-Shampoo: factors of gradients whitened by the other",
        reference="arXiv 2509.03378",
        units={
            "lr": "weight per 1, in spectral norm per sqrt(fan_out)",
            "rho_L": "squared spectral norm of the gradient per fan_in",
            "rho_R": "fan_in per fan_out",
        },
    ),
    Optimizer(
        name="one_sided_shampoo",
        update="(L + rho_L*I)**(-e) @ G",
        about="Shampoo with the output factor alone",
        reference="arXiv 2503.20762",
        units={"lr": _UNITS["lr"], "rho_L": _SQUARED, "e": "power of the preconditioner"},
        exponents=_HALF,
    ),
    Optimizer(
        name="asgo",
        update="(ema(L, beta2) + rho_L*I)**(-1/2) @ ema(G, beta1)",
        about="ASGO: the output factor alone, with averages",
        reference="arXiv 2503.20762",
        units={
            "lr": "spectral norm of the change of W",
            "rho_L": _SQUARED,
            "beta1": "decay per step",
            "beta2": "decay per step",
        },
        values={"beta1": 0.9, "beta2": 0.95},
    ),
    Optimizer(
        name="freon",
        update="(M @ M.T + rho*I)**(-e) @ M where M = ema(G, beta)/norm(ema(G, beta))",
        about="Freon: a power of singular values, SGD to beyond Muon",
        reference="arXiv 2605.11181",
        units={
            "lr": "spectral norm of the change of W",
            "rho": "a number, the squared norm of M being one",
            "e": "from 0 (normalised SGD) by 1/2 (Muon) to beyond",
            "beta": "decay per step",
        },
        exponents={"e": Fraction(3, 4)},
        values={"beta": 0.95},
    ),
)
