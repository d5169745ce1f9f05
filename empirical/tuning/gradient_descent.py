"""The recipes that strategies which differentiate through steps know: gradient descent.

w+ = w - eta (g + decay w)        "G" and "G + decay*W", of every tensor that is trained
"""

from __future__ import annotations

from empirical.trace.model_file import ModelFile
from empirical.tuning.search_space import SearchSpace
from scaling.models.recipe import RATE, Recipe
from scaling.sizes.errors import InvalidInput

DESCENT = ("G", "G + decay*W")


def refuse_other_rules(recipe: Recipe, file: ModelFile, space: SearchSpace) -> InvalidInput | None:
    """Why a strategy that knows gradient descent alone cannot tune these, or None."""
    del file
    other = next((str(rule) for rule in recipe.rules if str(rule) not in DESCENT), None)
    if other is not None:
        return InvalidInput(
            f"the rule {other}, to be differentiated through its steps",
            "gradient descent, whose step is the gradient times the rate",
            "tune sgd, or take --strategy hozog, which needs no derivative of a step",
        )
    if RATE not in space.names:
        return InvalidInput(
            f"a space of {', '.join(space.names)}, for a strategy that tunes the learning rate",
            "the rate among the numbers",
            f"add lr=2^-8:2^0 to --space {space}",
        )
    return None
