"""Adam in an eigenbasis: SOAP and EKFAC.

    SOAP        dW = Q_L (X / (sqrt(V) + eps)) Q_R^T    X = Q_L^T m Q_R, V averages (Q_L^T G Q_R)^2
    one-sided   dW = Q_L (X / (sqrt(V) + eps))          X = Q_L^T m,     V averages (Q_L^T G)^2
    EKFAC       dW = Q_B (X / (S + eps)^e) Q_A^T        X = Q_B^T G Q_A, e = 1
                S = mean over samples of (Q_B^T delta)^2 (h^T Q_A)^2

Q_X are the eigenvectors of X; L and R are moving averages of G G^T and G^T G. In these bases n
samples fill a corner of n x n entries, each of the size of the gradient's spectral norm sigma and
not of a typical entry of G. So SOAP's update has spectral size 1, as orth(G) has, and the exponents
of Shampoo with e = 1/2, not those of Adam; its eps stands beside sigma. With one basis alone the
other side still has entries, which add up over fan_in: exponents between the two.

EKFAC divides by second moments of size sigma^2 = |B| |A|, the product of K-FAC's eigenvalues on the
data: sigma^(1 - 2e), K-FAC's exponents with e_A = e_B = e, and one damping for both factors, which
is a product of K-FAC's two.

Reproduces, at the first step, the Shampoo row (SOAP) and the K-FAC row (EKFAC) of Prop. 4.1 of
arXiv 2312.12226; SOAP without eps is orth(G) there, the equivalence that arXiv 2409.11321
starts from.

From step to step V belongs to the number of an eigenvector, by falling eigenvalue. Eigenvectors
computed anew may change places, and then V is too small for m: with a tiny eps such steps are
huge, in this rule as in the same loop over dense matrices. The paper follows eigenvectors by a QR
step instead. Not covered: that, eigenvectors older than the gradient, the skipped first step, and
exponents of the second step (scaling/calculus/rotation.py).
"""

from fractions import Fraction

from derivations.declaration import Optimizer

_Q_L, _Q_R = "Q_L = eig(ema(L, shampoo_beta))", "Q_R = eig(ema(R, shampoo_beta))"
_BETAS = {"beta1": "decay per step", "beta2": "decay per step", "shampoo_beta": "decay per step"}
_VALUES = {"beta1": 0.95, "beta2": 0.95, "shampoo_beta": 0.95}
OPTIMIZERS = (
    Optimizer(
        name="soap",
        update="Q_L @ (X / (sqrt(V) + eps)) @ Q_R.T where "
        f"{_Q_L}, {_Q_R}, X = Q_L.T @ ema(G, beta1) @ Q_R, V = ema((Q_L.T @ G @ Q_R)**2, beta2)",
        about="SOAP: Adam in the eigenbases of Shampoo's factors",
        reference="arXiv 2409.11321",
        units={
            "lr": "spectral norm of the change of W",
            "eps": "spectral norm of the gradient",
            **_BETAS,
        },
        values=_VALUES,
    ),
    Optimizer(
        name="soap_one_sided",
        update="Q_L @ (X / (sqrt(V) + eps)) where "
        f"{_Q_L}, X = Q_L.T @ ema(G, beta1), V = ema((Q_L.T @ G)**2, beta2)",
        about="SOAP with the output side alone in its eigenbasis",
        reference="arXiv 2409.11321",
        units={
            "lr": "entries of the change of W in the eigenbasis",
            "eps": "entry of the gradient in the eigenbasis",
            **_BETAS,
        },
        values=_VALUES,
    ),
    Optimizer(
        name="ekfac",
        update="Q_B @ (X / (sample_square(X) + eps)**e) @ Q_A.T where "
        "Q_B = eig(B), Q_A = eig(A), X = Q_B.T @ G @ Q_A",
        about="EKFAC: second moments in the eigenbases of K-FAC's factors",
        reference="arXiv 1806.03884",
        units={
            "lr": "weight per natural gradient",
            "eps": "squared spectral norm of the gradient",
            "e": "power of the second moments",
        },
        exponents={"e": Fraction(1)},
    ),
    Optimizer(
        name="splus",
        update=f"Q_L @ sign(Q_L.T @ ema(G, beta1) @ Q_R) @ Q_R.T where {_Q_L}, {_Q_R}",
        about="SPlus: signs in the eigenbases of Shampoo's factors",
        reference="arXiv 2506.07254",
        units={"lr": "spectral norm of the change of W", "beta1": "decay", "shampoo_beta": "decay"},
        values={"beta1": 0.9, "shampoo_beta": 0.999},
    ),
    Optimizer(
        name="conda",
        update="Q @ (X / (sqrt(V) + eps)) where M = debiased(G, beta1), Q = eig(M @ M.T), "
        "X = Q.T @ M, V = debiased((Q.T @ G)**2, beta2)",
        about="Conda: Adam in the left singular vectors of the average",
        reference="arXiv 2509.24218",
        units={
            "lr": "entries of the change of W in the eigenbasis",
            "eps": "entry of the gradient in the eigenbasis",
            "beta1": "decay per step",
            "beta2": "decay per step",
        },
        values={"beta1": 0.9, "beta2": 0.99},
    ),
    Optimizer(
        name="adadiag",
        update=f"Q_L @ (X / (sqrt(V) + eps)) where {_Q_L}, X = Q_L.T @ ema(G, beta1), "
        "V = ema((Q_L.T @ G)**2, beta2)",
        about="AdaDiag: Adam where G G^T is diagonal (as soap_one_sided)",
        reference="arXiv 2502.07488",
        units={
            "lr": "entries of the change of W in the eigenbasis",
            "eps": "entry of the gradient in the eigenbasis",
            **_BETAS,
        },
        values=_VALUES,
    ),
    Optimizer(
        name="adadiag_two_sided",
        update="Q_L @ (X / (sqrt(V) + eps)) @ Q_R.T where "
        "Q_L = eig(L), Q_R = eig(R), X = Q_L.T @ ema(G, beta1) @ Q_R, "
        "V = ema((Q_L.T @ G @ Q_R)**2, beta2)",
        about="AdaDiag++: Adam in the singular vectors of the gradient",
        reference="arXiv 2502.07488",
        units={
            "lr": "spectral norm of the change of W",
            "eps": "spectral norm of the gradient",
            "beta1": "decay per step",
            "beta2": "decay per step",
        },
        values={"beta1": 0.95, "beta2": 0.95},
    ),
    Optimizer(
        name="galore",
        update="Q @ (X / (sqrt(V) + eps)) where Q = eig(L), X = Q.T @ project(G, 4), "
        "V = (Q.T @ project(G, 4))**2",
        about="GaLore at its first step: Adam in four left directions",
        reference="arXiv 2403.03507",
        units={
            "lr": "entries of the change of W in the eigenbasis",
            "eps": "entry of the gradient in the eigenbasis",
        },
    ),
)
