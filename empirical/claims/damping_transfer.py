"""Group 10: the best damping transfers under muP, as the best learning rate does.

All dampings of a network are one factor times what each is added to at the narrowest width; under
muP they then follow the derived exponents, under SP they stay. The measures are those of group 9.
"""

from __future__ import annotations

from empirical.claims.claim import PAPER, Group
from empirical.claims.rate_transfer import MUP, SP, claim
from empirical.transfer.sweep import SweptAxis

_WHERE = (
    f"{PAPER}, figure of damping transfer: 3-layer CNN on FashionMNIST, squared loss (caption read)"
)
GROUP = Group(
    10,
    "damping transfer",
    (
        claim(
            "10a",
            "kfac",
            SweptAxis.damping,
            MUP,
            (
                "the damping of K-FAC transfers under muP",
                "With dampings that follow the factors, the best one is the same at every width.",
                _WHERE,
            ),
        ),
        claim(
            "10b",
            "kfac",
            SweptAxis.damping,
            SP,
            (
                "the damping of K-FAC drifts under SP",
                "With dampings that do not scale, the best one moves with the width.",
                _WHERE,
            ),
        ),
    ),
)
