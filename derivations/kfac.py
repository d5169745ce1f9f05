"""K-FAC and its one-sided relatives.

    K-FAC        dW = (B + rho_B I)^(-e_B) G (A + rho_A I)^(-e_A)      e_A = e_B = 1 in practice
    FOOF         dW = G (A + rho_A I)^(-e_A)
    left only    dW = (B + rho_B I)^(-e_B) G
    relative     rho_X = rho specnorm(X), rho trace(X), or rho trace(X) / side: damping in units of
                 the factor
    pi split     rho_A = sqrt(rho) pi, rho_B = sqrt(rho) / pi,
                 pi^2 = (trace(A) / fan_in) / (trace(B) / fan_out): one damping for both
    norm bound   dW = U / max(1, sqrt(sum over layers of <U, G>) / bound),   U = K-FAC's update
    undamped     dW = B^(-1) G A^(-1), pseudo-inverses: layerwise Gauss-Newton

The key step is push-through: (B + rho I)^(-e) D = D (D^T D / n + rho I)^(-e), so the
preconditioner acts on the gradient's own n directions, where the eigenvalues of A are
fan_in |h|^2 and those of B are fan_out |delta|^2. A damping is valid if it follows them: relative
to the largest eigenvalue or to the trace, which n eigenvalues make, it need not scale. The mean
eigenvalue is smaller by the side, and a damping relative to it must grow with the width. So must
the two halves of the pi split, which compares mean eigenvalues: in hidden layers both err alike and
one rho does not scale; in input and output layers, with sides of two kinds, no single rho balances
both factors (arXiv 2312.12226, Sec. 4.2).

The norm bound ("KL clip") keeps lr^2 <U, G> summed over layers below kappa: U is multiplied by
nu = min(1, sqrt(kappa / (lr^2 sum <U, G>))). The rate lr is not part of the language, hence
bound = sqrt(kappa) / lr: a bound that holds at all widths as long as lr does not scale, which is so
for e_A = e_B = 1, where <U, G> is of order one in every layer.

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
        library="empirical.black_box.through_curvlinops.CurvlinopsKfac(damping=1e-2)",
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
        name="kfac_trace",
        update="(B + rho_B*trace(B)*I)**(-e_B) @ G @ (A + rho_A*trace(A)*I)**(-e_A)",
        about="K-FAC with dampings relative to the traces",
        reference="arXiv 2312.12226, Sec. 4.2",
        units={"lr": "weight per natural gradient", "rho_B": "a fraction", "rho_A": "a fraction"},
        exponents={"e_B": _ONE, "e_A": _ONE},
    ),
    Optimizer(
        name="kfac_mean",
        update="(B + rho_B*trace(B)/fan_out*I)**(-e_B) @ G @ (A + rho_A*trace(A)/fan_in*I)**(-e_A)",
        about="K-FAC with dampings relative to the mean eigenvalues",
        reference="arXiv 2312.12226, Sec. 4.2",
        units={"lr": "weight per natural gradient", "rho_B": "a multiple", "rho_A": "a multiple"},
        exponents={"e_B": _ONE, "e_A": _ONE},
    ),
    Optimizer(
        name="kfac_pi",
        update="(B + sqrt(rho)/pi*I)**(-e_B) @ G @ (A + sqrt(rho)*pi*I)**(-e_A) "
        "where pi = sqrt((trace(A)/fan_in) / (trace(B)/fan_out))",
        about="K-FAC with one damping, split by the mean eigenvalues",
        reference="arXiv 1503.05671, Sec. 6.3; arXiv 2312.12226, Sec. 4.2",
        units={"lr": "weight per natural gradient", "rho": "damping of A times damping of B"},
        exponents={"e_B": _ONE, "e_A": _ONE},
        library="empirical.black_box.through_asdl.AsdlKfac(damping=1e-2)",
    ),
    Optimizer(
        name="kfac_clipped",
        update="U / max(1, sqrt(over_layers(inner(U, G))) / bound) "
        "where U = (B + rho_B*I)**(-1) @ G @ (A + rho_A*I)**(-1)",
        about="K-FAC with all layers' updates bounded (KL clip)",
        reference="Ba, Grosse and Martens 2017, Sec. 5",
        units={
            "lr": "weight per natural gradient",
            "bound": "root of natural gradient times gradient, sqrt(kappa) / lr",
            **_UNITS_B,
            **_UNITS_A,
        },
        values={"bound": 1.0},
    ),
    Optimizer(
        name="gauss_newton",
        update="B**(-1) @ G @ A**(-1)",
        about="layerwise Gauss-Newton: K-FAC with pseudo-inverses",
        reference="arXiv 1503.05671",
        units={"lr": "weight per natural gradient"},
    ),
    Optimizer(
        name="tkfac",
        update="trace(A)*trace(B)*((B + rho_B*I)**(-1) @ G @ (A + rho_A*I)**(-1))",
        about="TKFAC: K-FAC with factors of trace one",
        reference="arXiv 2011.10741",
        units={"lr": "weight per gradient", **_UNITS_B, **_UNITS_A},
    ),
)
