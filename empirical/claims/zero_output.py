"""Group 6: a last layer that starts at zero.

In its first step only the last layer moves, and K-FAC's is kernel regression (regression.py). Later
steps move the lower layers too, and features escape the kernel regime (escape.py).

Not covered: the paper's own network and data here (3-layer CNN, 1024 samples of FashionMNIST).
"""

from __future__ import annotations

from empirical.claims.claim import PAPER, Claim, Group
from empirical.claims.escape import escape, no_escape, ranking
from empirical.claims.regression import first_step, wrong_regression

GROUP = Group(
    6,
    "an output layer that starts at zero",
    (
        Claim(
            "6a",
            "one step of K-FAC is NNGP kernel regression; of SGD and Shampoo it is not",
            "From W_L = 0, f_1(x) = eta y (K + rho)^-1 k(x) in the limit of infinite width for "
            "K-FAC; SGD and Shampoo have no such form.",
            f"{PAPER}, zero-initialised last layer (text not read: secondary source)",
            first_step,
            wrong_regression,
        ),
        Claim(
            "6b",
            "later steps escape the kernel regime, more slowly with larger batches",
            "After its first step a network with a zero readout learns features; the larger the "
            "batch, the less it does in the same number of epochs.",
            f"{PAPER}, accuracy by b_output and batch size (caption read)",
            escape,
            no_escape,
        ),
        Claim(
            "6c",
            "b_output = 1 is the best readout at every batch size",
            "Accuracy at b_output = 1 is at least that of 1/2 and of zero initialisation.",
            f"{PAPER}, accuracy by b_output and batch size (caption read)",
            ranking,
            lambda context: ranking(context, handicap=1.0),
        ),
    ),
)
