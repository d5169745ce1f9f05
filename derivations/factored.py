"""Second moments kept as a row and a column: Adafactor.

    Adafactor     dW = U / max(1, rms(U))           U = G / sqrt(V + eps)
    relative      dW = rms(W) U / max(1, rms(U))    V = row_mean(G*G) col_mean(G*G) / mean(G*G)

V has the size of G*G, so the entries of U are Theta(1), as Adam's, and the clipping at RMS one
changes a factor. With "relative" step sizes the update is scaled by the parameter's own RMS, so
the learning rate loses the exponent of the initialisation: b_l is taken out of c_l.

eps stands beside the entries of V. Reproduces the Adafactor columns of arXiv 2407.05872 (with
relative step sizes) for the alignment that this calculus derives.
"""

from derivations.declaration import Optimizer

_PARTS = "V = row_mean(G*G) @ col_mean(G*G) / rms(G)**2, U = G / sqrt(V + eps)"
_EPS = {"eps": "squared entry of the gradient"}
OPTIMIZERS = (
    Optimizer(
        name="adafactor",
        update=f"U / max(1, rms(U)) where {_PARTS}",
        about="Adafactor: factored second moments, updates of RMS <= 1",
        reference="arXiv 1804.04235",
        units={"lr": "weight: the change of every entry", **_EPS},
    ),
    Optimizer(
        name="adafactor_relative",
        update=f"rms(W) * (U / max(1, rms(U))) where {_PARTS}",
        about="Adafactor with step sizes relative to the weights",
        reference="arXiv 1804.04235, Sec. 7",
        units={"lr": "change of an entry per RMS weight", **_EPS},
    ),
)
