"""What is asked of a network as it grows, as named objects that a user can switch.

>>> [condition.name for condition in STANDARD][:4]
['stable start', 'stable step', 'maximal update', 'maximal readback']
>>> {condition.name: str(condition.fixes) for condition in STANDARD if condition.fixes}
{'balanced damping': 'damping', 'balanced decay': 'decay', 'maximal perturbation': 'radius'}
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from scaling.rules.symbols import SymbolKind
from scaling.sizes.derivation import PAPER


@dataclass(frozen=True)
class Condition:
    """A requirement on sizes, with the equation that `derive` solves.

    ``fixes``: the kind of hyper-parameter whose exponent d follows from it, if it is about one.
    """

    name: str
    statement: str
    reference: str
    fixes: SymbolKind | None = None


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
    SymbolKind.DAMPING,
)
BOUNDED_DAMPING = Condition(
    "bounded damping",
    "where balanced damping has no solution, no damping is larger than what it is added to",
    f"{PAPER}, Sec. 4.2",
)
BALANCED_DECAY = Condition(
    "balanced decay",
    "one step takes a Theta(1) fraction of the weights away: learning rate x decay = Theta(1)",
    "arXiv 2405.13698",
    SymbolKind.DECAY,
)
MAXIMAL_PERTURBATION = Condition(
    "maximal perturbation",
    "the perturbation moves every layer's output by as much as is stable: X_l h_{l-1} = Theta(1)",
    "arXiv 2411.00075",
    SymbolKind.RADIUS,
)
STANDARD = (
    STABLE_START,
    STABLE_STEP,
    MAXIMAL_UPDATE,
    MAXIMAL_READBACK,
    BALANCED_DAMPING,
    BOUNDED_DAMPING,
    BALANCED_DECAY,
    MAXIMAL_PERTURBATION,
)


def fixes(kind: SymbolKind, conditions: Iterable[Condition]) -> bool:
    """Whether one of the conditions fixes the exponent of that kind of hyper-parameter."""
    return any(condition.fixes is kind for condition in conditions)
