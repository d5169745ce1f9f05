"""Recipes as users write them: groups as text, a TOML file, one rule for all tensors, or a name.

Rules are names of the catalogue or updates of one's own:

>>> print(recipe_of("hidden: muon; *.bias: frozen; rest: adamw").groups[0].rule)
orth(G)
>>> recipe_of("muon").is_plain
True
>>> in_practice(recipe_of("hidden: shampoo; rest: adam")).groups[0].exponents
{'e': 1/2}
>>> [group.label for group in recipe_of("torch_muon").groups]
['hidden', 'rest']
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from sympy import Rational

from derivations.catalogue import catalogue, find, refuse_probes, rule_of
from derivations.ready_made import ready_made
from scaling.models.recipe import Recipe, TensorGroup, as_recipe
from scaling.models.recipe_text import parse_recipe, read_recipe
from scaling.rules.language import Node
from scaling.rules.rule import Rule


def recipe_of(recipe: Recipe | Rule | Node | str | Path) -> Recipe:
    """The recipe that someone means by a recipe, a file, text, a rule or the name of either.

    Raises:
        InvalidInput: for anything else; see `rule_of` and scaling/models/recipe_text.py.
    """
    if isinstance(recipe, str):
        refuse_probes(recipe)
    if isinstance(recipe, str) and recipe.strip().endswith(".toml"):
        recipe = Path(recipe.strip())
    if isinstance(recipe, str) and recipe.strip() in ready_made():
        return replace(ready_made()[recipe.strip()].recipe, name=recipe.strip())
    if isinstance(recipe, Path):
        return read_recipe(recipe, rule_of)
    return parse_recipe(recipe, rule_of) if isinstance(recipe, str) else as_recipe(recipe)


def in_practice(recipe: Recipe) -> Recipe:
    """The recipe with the exponents and constants that declarations name, where it gives none."""

    def filled(group: TensorGroup) -> TensorGroup:
        name = "" if group.rule is None else group.rule.name
        if name not in catalogue() and name not in ready_made():
            return group
        known = find(name)
        usual = {k: Rational(*x.as_integer_ratio()) for k, x in known.exponents.items()}
        return replace(
            group,
            exponents={**usual, **group.exponents},
            values={**known.values, **group.values},
        )

    return recipe.mapped(filled)
