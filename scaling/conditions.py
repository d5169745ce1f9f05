"""What is asked of a network as it grows, as named objects that a user can switch.

>>> [condition.name for condition in STANDARD]
['stable start', 'stable step', 'maximal update', 'maximal readback', 'balanced damping']
"""

from __future__ import annotations

from dataclasses import dataclass

from scaling.derivation import PAPER


@dataclass(frozen=True)
class Condition:
    """A requirement on sizes, with the equation that `derive` solves."""

    name: str
    statement: str
    reference: str


STABLE_START = Condition(
    "stable start",
    "at initialisation h_l = Theta(1) in every layer and f = O(1)",
    f"{PAPER}, Sec. 3",
)
STABLE_STEP = Condition(
    "stable step",
    "after one step the features and the output have moved by O(1)",
    f"{PAPER}, Sec. 3",
)
MAXIMAL_UPDATE = Condition(
    "maximal update",
    "every layer's own update dW_l h_{l-1} is as large as a stable step allows: Theta(1)",
    "arXiv 2011.14522, Sec. 3",
)
MAXIMAL_READBACK = Condition(
    "maximal readback",
    "moved features move the output by Theta(1): W_L dh_{L-1} = Theta(1), so b_L = 1",
    f"{PAPER}, Prop. 4.1",
)
BALANCED_DAMPING = Condition(
    "balanced damping",
    "every damping is as large as what it is added to",
    f"{PAPER}, Sec. 4",
)
STANDARD = (STABLE_START, STABLE_STEP, MAXIMAL_UPDATE, MAXIMAL_READBACK, BALANCED_DAMPING)
