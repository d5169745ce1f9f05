"""Group 10: the best damping transfers under muP, as the best learning rate does.

All dampings of a network are one factor times what each is added to at the narrowest width; under
muP they then follow the derived exponents, under SP they stay. The measures are those of group 9.
"""

from __future__ import annotations

from empirical.claims.claim import PAPER, Claim, Group
from empirical.claims.rate_transfer import control, evidence
from empirical.sweep import Axis

GROUP = Group(
    10,
    "damping transfer",
    (
        Claim(
            "10a",
            "the damping of K-FAC transfers under muP, and drifts under SP",
            "With dampings that follow the factors, the best one is the same at every width.",
            f"{PAPER}, figure of damping transfer: 3-layer CNN on FashionMNIST, squared loss "
            "(caption read)",
            lambda context: evidence(context, "kfac", Axis.damping),
            lambda context: control(context, "kfac", Axis.damping),
        ),
    ),
)
