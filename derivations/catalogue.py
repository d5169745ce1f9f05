"""Finds the declared optimizers: every module of this package may define ``OPTIMIZERS``.

>>> find("kfac").rule.dampings
('rho_B', 'rho_A')

What users call a rule, on the command line or in Python, is a name of the catalogue or an update of
their own:

>>> rule_of("muon") == rule_of("orth(G)")
False
>>> rule_of("muon").expression == rule_of("orth(G)").expression
True
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from difflib import get_close_matches
from functools import cache

import derivations
from derivations.declaration import Optimizer
from derivations.outside import bare, class_named, outside
from derivations.ready_made import ready_made
from scaling.models.recipe_text import is_recipe
from scaling.rules.language import Add, Node, Subtract, Symbol
from scaling.rules.parser import as_rule, parse
from scaling.rules.rule import Rule
from scaling.sizes.errors import InvalidInput, RuleError

_PROBE = re.compile(r"(?<!\w)probe:([\w./-]+:\w+)")
_NAME = re.compile(r"[A-Za-z_]\w+")


@cache
def families() -> dict[str, tuple[Optimizer, ...]]:
    """The optimizers of each file, by the claim that opens it."""
    found: dict[str, tuple[Optimizer, ...]] = {}
    for module in pkgutil.iter_modules(derivations.__path__):
        declared = importlib.import_module(f"derivations.{module.name}")
        if optimizers := getattr(declared, "OPTIMIZERS", ()):
            claim = (declared.__doc__ or module.name).partition("\n\n")[0]
            found[" ".join(claim.split()).removesuffix(".")] = tuple(optimizers)
    return found


@cache
def catalogue() -> dict[str, Optimizer]:
    """All optimizers by name, in the order of their files."""
    found: dict[str, Optimizer] = {}
    for optimizer in (one for family in families().values() for one in family):
        if optimizer.name in found:
            raise ValueError(f"two optimizers are called {optimizer.name}")
        found[optimizer.name] = optimizer
    return found


def find(name: str) -> Optimizer:
    """The optimizer of that name, or an `InvalidInput` with the nearest one.

    >>> find("torch_adamw").values["decay"]
    0.01
    """
    if name in catalogue():
        return catalogue()[name]
    if name not in ready_made():
        raise _unknown(name)
    found = ready_made()[name].optimizer
    if found is None:
        raise _several(name)
    return found


def resolve(text: str) -> Optimizer:
    """A catalogue entry by its name, or the text of an update as an undeclared optimizer.

    Raises:
        InvalidInput: for a name that the catalogue lacks; `RuleError` for text that is no rule.
    """
    name = text.strip()
    refuse_probes(name)
    if (of := class_named(name)) is not None:
        raise _class(name, *of)
    if is_recipe(name):
        raise _several(name)
    if _NAME.fullmatch(name):
        return find(name)
    _refuse_names_as_updates(parse(name))
    return Optimizer(name="", update=name, about="", reference="")


def refuse_probes(text: str) -> None:
    """Refuse an optimizer in the place of a rule, where it is not measured first.

    Raises:
        InvalidInput: naming the optimizer.
    """
    found = _PROBE.search(text)
    if found is not None:
        raise InvalidInput(
            f"the optimizer 'probe:{found[1]}' in the place of a rule",
            "a rule: an optimizer is measured for the exponents of a model, and trains by itself",
            f"add --model FILE.py (in Python: plan, for_model, check); or write the rule that "
            f"'scaling probe {found[1]}' names; or train by {found[1].rpartition(':')[2]}("
            "plan.param_groups(model))",
        )


def _unknown(name: str) -> InvalidInput:
    """The refusal of a name: what the optimizer needs, or the nearest names."""
    known = outside(name)
    if known is not None:
        return known.refusal(name)
    near = get_close_matches(name, catalogue(), n=8, cutoff=0.0)
    meant = _spelled_alike(name) or next(iter(get_close_matches(name, near, cutoff=0.5)), None)
    return InvalidInput(
        f"optimizer '{name}'",
        f"a rule, or a name of the catalogue such as {', '.join(near)}",
        f"did you mean '{meant}'?" if meant
        else "write its update, for example sign(G); 'scaling list' has all names",
    )  # fmt: skip


def _spelled_alike(name: str) -> str | None:
    """The name of the catalogue that differs in case and marks alone."""
    return {bare(x): x for x in catalogue()}.get(bare(name))


def _class(text: str, module: str, name: str) -> InvalidInput:
    """The refusal of a class of optimizers in the place of a rule."""
    known = outside(name)
    if known is not None:
        return known.refusal(text)
    same = _spelled_alike(name)
    measured = f"scaling probe {module}:{name}"
    return InvalidInput(
        f"the class '{text}' in the place of a rule",
        "a rule by its name or as text",
        f"write for example {same}; or measure the class: {measured}"
        if same
        else f"measure the class, which names the rules that it equals: {measured}",
    )


def _several(recipe: str) -> InvalidInput:
    return InvalidInput(
        f"the recipe '{recipe}', where one rule trains everything",
        "a model whose tensors it groups, or the rule of one group",
        "add --model FILE.py, or write for example muon",
    )


def _refuse_names_as_updates(rule: Rule) -> None:
    """Refuse the name of an optimizer where a matrix is added to it: its update is meant."""
    nodes = (node for node in rule.expression.walk() if not node.shape.is_scalar)
    for node in (node for node in nodes if isinstance(node, Add | Subtract)):
        for term in node.children:
            if isinstance(term, Symbol) and term.name in catalogue():
                raise RuleError(
                    f"'{term}', the name of an optimizer, as a term of '{node}'",
                    "an update in terms of G, A, B, L, R, W and numbers",
                    f"write what {term} does: {catalogue()[term.name].rule}",
                )


def rule_of(rule: Rule | Node | str) -> Rule:
    """The rule that someone means by a rule, a tree, a name of the catalogue or text.

    Raises:
        InvalidInput: for anything else.
    """
    return resolve(rule).rule if isinstance(rule, str) else as_rule(rule)
