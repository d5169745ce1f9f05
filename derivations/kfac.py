"""K-FAC and its one-sided relatives.

    K-FAC        dW = (B + rho_B I)^(-e_B) G (A + rho_A I)^(-e_A)      e_A = e_B = 1 in practice
    FOOF         dW = G (A + rho_A I)^(-e_A)
    left only    dW = (B + rho_B I)^(-e_B) G
    relative     rho_X = rho trace(X) / side, or rho specnorm(X): damping in units of the factor
    undamped     dW = B^(-1) G A^(-1), pseudo-inverses: layerwise Gauss-Newton

The key step is push-through: (B + rho I)^(-e) D = D (D^T D / n + rho I)^(-e), so the
preconditioner acts on the gradient's own n directions, where the eigenvalues of A are
fan_in |h|^2 and those of B are fan_out |delta|^2. A damping is valid if it follows them.

Reproduces Prop. 4.1 and Table 1 of arXiv 2312.12226. The gradient and the factors come from the
same batch. B of the loss's own cotangents ("empirical Fisher") is the default; sampled ones are an
option of the derivation and of the optimizer, not another rule.
"""

from fractions import Fraction

from derivations.declaration import Optimizer

_ONE = Fraction(1)
_LEFT, _RIGHT = "(B + rho_B*I)**(-e_B)", "(A + rho_A*I)**(-e_A)"
_UNITS_A = {"rho_A": "squared activation times fan_in", "e_A": "power of the input factor"}
_UNITS_B = {"rho_B": "squared cotangent times fan_out", "e_B": "power of the output factor"}
OPTIMIZERS = (
    Optimizer(
        name="kfac",
        update=f"{_LEFT} @ G @ {_RIGHT}",
        about="K-FAC: both Kronecker factors",
        reference="arXiv 1503.05671; arXiv 2312.12226",
        units={"lr": "weight per natural gradient", **_UNITS_B, **_UNITS_A},
        exponents={"e_B": _ONE, "e_A": _ONE},
    ),
    Optimizer(
        name="foof",
        update=f"G @ {_RIGHT}",
        about="FOOF: gradient descent on neurons, the input factor alone",
        reference="arXiv 2201.12250",
        units={"lr": "pre-activation per cotangent", **_UNITS_A},
        exponents={"e_A": _ONE},
    ),
    Optimizer(
        name="kfac_right_only",
        update=f"G @ {_RIGHT}",
        about="K-FAC with the input factor alone (the same rule as FOOF)",
        reference="arXiv 2312.12226",
        units={"lr": "pre-activation per cotangent", **_UNITS_A},
        exponents={"e_A": _ONE},
    ),
    Optimizer(
        name="kfac_left_only",
        update=f"{_LEFT} @ G",
        about="K-FAC with the output factor alone",
        reference="arXiv 2312.12226",
        units={"lr": "activation per cotangent", **_UNITS_B},
        exponents={"e_B": _ONE},
    ),
    Optimizer(
        name="kfac_relative",
        update="(B + rho_B*specnorm(B)*I)**(-e_B) @ G @ (A + rho_A*specnorm(A)*I)**(-e_A)",
        about="K-FAC with dampings relative to the largest eigenvalues",
        reference="arXiv 2312.12226, Sec. 4.2",
        units={"lr": "weight per natural gradient", "rho_B": "a fraction", "rho_A": "a fraction"},
        exponents={"e_B": _ONE, "e_A": _ONE},
    ),
    Optimizer(
        name="gauss_newton",
        update="B**(-1) @ G @ A**(-1)",
        about="layerwise Gauss-Newton with pseudo-inverses of the Kronecker factors",
        reference="arXiv 1503.05671",
        units={"lr": "weight per natural gradient"},
    ),
)
