"""The recipes that strategies which differentiate through steps know: gradient descent.

They take the steps by themselves, w+ = w - eta g, the rule "G" of every tensor that is trained. So
an ``optimizer(model)`` of the file must be the same rule: torch's SGD without momentum. (A decay is
refused with the plan, since the rule has none.)
"""

from __future__ import annotations

import torch

from empirical.trace.model_file import ModelFile
from empirical.tuning.search_space import SearchSpace
from scaling.models.recipe import RATE, Recipe
from scaling.sizes.errors import InvalidInput

DESCENT = ("G",)


def refuse_other_rules(recipe: Recipe, file: ModelFile, space: SearchSpace) -> InvalidInput | None:
    """Why a strategy that knows gradient descent alone cannot tune these, or None."""
    other = next((str(rule) for rule in recipe.rules if str(rule) not in DESCENT), None)
    if other is not None:
        return InvalidInput(
            f"the rule {other}, to be differentiated through its steps",
            "gradient descent, whose step is the gradient times the rate",
            "tune sgd, or take --strategy hozog, which needs no derivative of a step",
        )
    own = () if file.optimizer_of is None else file.optimizers(file.build({}))
    for one in own:
        plain = isinstance(one, torch.optim.SGD)
        if not plain or any(group["momentum"] for group in one.param_groups):
            return InvalidInput(
                f"{type(one).__name__} in {file.path.name}" + (" with momentum" if plain else ""),
                "gradient descent, whose steps the strategy takes by itself",
                "write torch.optim.SGD(model.parameters(), lr=0.1), or take --strategy hozog",
            )
    if RATE not in space.names:
        return InvalidInput(
            f"a space of {', '.join(space.names)}, for a strategy that tunes the learning rate",
            "the rate among the numbers",
            f"add lr=2^-8:2^0 to --space {space}",
        )
    return None
