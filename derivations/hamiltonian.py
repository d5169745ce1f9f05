"""H-Fac: momentum and second moment both kept as a row and a column, by Hamiltonian descent.

    u <- b1 u + (1 - b1) row means of G       v <- b1 v + (1 - b1) column means of G
    r <- b2 r + (1 - b2) row means of G*G + eps     s likewise by columns     V = r s^T / mean(r)

    dW = (phi + psi) / 2 + U / max(1, rms(U) / bound)           U = G / sqrt(V)
    phi = (u - row_mean(G)) / sqrt(r)         psi = (v - col_mean(G)) / sqrt(s)

with b_t = beta (1 - beta^(t-1)) / (1 - beta^t) in place of b1 and b2, so that every average is
`debiased`. With the averages of the step before, phi is b_t (u_old - row_mean(G)) / sqrt(r): it
replaces the row means of the gradient by their moving averages. At the first step u is the row mean
and phi and psi are exactly zero: U alone moves the weights, as in Adafactor.

At the second step they appear. The entries of phi are of order one where h has a mean (ReLU) and
M^(-1/2) where it has none. Those of psi follow the mean of delta, M^(-1/2) at the first step; since
dW_1^T delta lies along h, it is of order one at the second under ReLU. Neither outgrows U, so the
exponents are those of the first step.

Source of the formulas: arXiv 2406.09958, read in secondary sources, which leave open whether phi is
multiplied by b_t once or twice; that is a factor of order one. Weight decay is left out.
"""

from derivations.declaration import Optimizer

OPTIMIZERS = (
    Optimizer(
        name="h_fac",
        update="1/2*(phi + psi) + U / max(1, rms(U) / bound) where "
        "r = debiased(row_mean(G*G + eps), beta2), "
        "s = debiased(col_mean(G*G + eps), beta2), "
        "V = r @ s / debiased(rms(sqrt(G*G + eps))**2, beta2), "
        "U = G / sqrt(V), "
        "phi = (debiased(row_mean(G), beta1) - row_mean(G)) / sqrt(r), "
        "psi = (debiased(col_mean(G), beta1) - col_mean(G)) / sqrt(s)",
        about="H-Fac: momentum and second moment as a row and a column",
        reference="arXiv 2406.09958",
        units={
            "lr": "weight: the change of every entry",
            "eps": "squared entry of the gradient",
            "beta1": "decay per step",
            "beta2": "decay per step",
            "bound": "RMS of an update",
        },
        values={"beta1": 0.9, "beta2": 0.999, "bound": 1.0},
    ),
)
