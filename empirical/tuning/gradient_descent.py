"""The recipes that strategies which differentiate through steps know: gradient descent.

They take the steps by themselves, w+ = w - eta g, the rule "G" of every tensor that is trained;
some take w+ = w - eta (g + lam w), the rule "G + decay*W", too. So an ``optimizer(model)`` of the
file must be the same rule: torch's SGD without momentum. (A decay that the rule lacks is refused
with the plan.) And torch must differentiate the model twice: a product with its Hessian tells.
"""

from __future__ import annotations

import torch

from empirical.trace.model_file import ModelFile
from empirical.transfer.transfer_run import undisturbed
from empirical.tuning.search_space import SearchSpace
from empirical.tuning.second_derivatives import gradients, hessian_vector
from scaling.models.recipe import RATE, Recipe
from scaling.rules.rule import Rule
from scaling.sizes.errors import InvalidInput


def refuse_other_rules(
    recipe: Recipe, file: ModelFile, space: SearchSpace, decays: bool = False
) -> InvalidInput | None:
    """Why a strategy that knows gradient descent alone cannot tune these, or None.

    ``decays``: whether it knows gradient descent with a decay, too.
    """
    other = next((str(rule) for rule in recipe.rules if not _is_descent(rule, decays)), None)
    if other is not None:
        step = "the gradient" + (", or gradient + decay*W," if decays else "")
        return InvalidInput(
            f"the rule {other}, to be differentiated through its steps",
            f"gradient descent, whose step is {step} times the rate",
            "tune sgd, or take --strategy hozog, which needs no derivative of a step",
        )
    if len(recipe.decays) > 1:
        first, second = recipe.decays[:2]
        return InvalidInput(
            f"the decays {first} and {second}, to be differentiated through their steps",
            "one decay for all tensors that have one",
            f"write {first} for {second} in the recipe, or take --strategy hozog",
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
    return _refused_derivative(file)


def _refused_derivative(file: ModelFile) -> InvalidInput | None:
    """The refusal of a model that torch does not differentiate twice, met before any training."""
    with undisturbed("cpu"):
        model = file.build({}).train()
        inputs, targets = file.batch({})
        weights = [w for w in model.parameters() if w.requires_grad]
        gradient = gradients(file.loss_for(targets)(model(*inputs), targets), weights)
        try:
            hessian_vector(gradient, weights, [torch.ones_like(w) for w in weights])
        except InvalidInput as refused:
            return refused
    return None


def _is_descent(rule: Rule, decays: bool) -> bool:
    if not rule.decays:
        return str(rule) == "G"
    (first, *more) = rule.decays
    return decays and not more and str(rule) in (f"G + {first}*W", f"{first}*W + G")
