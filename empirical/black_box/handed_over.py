"""From a probe to a recipe: the one way from a black box to all that takes a model.

    probe:torch.optim:Adam                          in the place of a recipe
    probe:torch.optim:Muon; rest: adamw             matrices, and what trains the rest
    hidden: probe:FILE.py:Mine(lr=0.1); rest: sgd   in the place of the rule of a group

An optimizer that equals a rule hands over that rule and its numbers. Any other hands over a rule
that is as large as its updates were:

    rms(G)^g fan_out^p fan_in^q max(fan_out, fan_in)^r sign(G)

with g the measured power of the gradient's size, and p, q, r from the exponents x of the roles,

    x_input = p + r - g      x_hidden = p + q + r + 1 - g      x_output = q + r + 1

which is derived again before it is handed over. It stands for matrices alone, which are all that
was measured: vectors need a group of their own. Where an exponent is open there is no such rule.
"""

from __future__ import annotations

import re
from fractions import Fraction

from derivations.recipes import recipe_of
from empirical.black_box.optimizer_class import read_kwargs
from empirical.black_box.own_updates import ROLES
from empirical.black_box.probed_optimizer import MEASURED, Probed, probe, snapped
from scaling.models.recipe import Recipe
from scaling.rules.language import Node
from scaling.rules.parser import parse
from scaling.rules.rule import Rule
from scaling.sizes.errors import NotCovered
from scaling.solve.derive import derive

PROBE = re.compile(r"probe:([\w./-]+:\w+)(?:\(((?:[^()]|\([^()]*\))*)\))?")
MATRICES = "hidden, embedding, readout"
_CLOSE = 0.05


def without_probes(recipe: str) -> tuple[str, tuple[str, ...]]:
    """The text of a recipe with rules in the place of probes, and what they rest on.

    Raises:
        InvalidInput: for an optimizer that cannot be probed.
        NotCovered: for one whose exponents stay open.
    """
    notes: list[str] = []

    def rule(match: re.Match[str]) -> str:
        found = probe(match[1], read_kwargs(match[2]))
        text, note = handed_over(found)
        notes.append(note)
        before = recipe[: match.start()].rstrip()
        if before and not before.endswith(";"):
            return text
        everything = match[0] == recipe.strip() and found.equal and found.takes_vectors
        return f"{'rest' if everything else MATRICES}: {text}"

    return PROBE.sub(rule, recipe), tuple(notes)


def recipe_with_probes(recipe: Recipe | Rule | Node | str) -> tuple[Recipe, tuple[str, ...]]:
    """A recipe as users write it, with rules in the place of probes, and what they rest on.

    Raises:
        InvalidInput: for what is no recipe, or an optimizer that cannot be probed.
        NotCovered: for one whose exponents stay open.
    """
    if not isinstance(recipe, str):
        return recipe_of(recipe), ()
    text, notes = without_probes(recipe)
    return recipe_of(text), notes


def handed_over(found: Probed) -> tuple[str, str]:
    """The rule of a group with its numbers, as text, and the line that says where it is from."""
    if found.equal:
        one = found.equal[0]
        rule = one.rule
        values = {k: x for k, x in one.values.items() if k not in rule.literals}
        numbers = ", ".join(f"{k}={x!r}" for k, x in values.items())
        text = rule.written + (f" with {numbers}" if numbers else "")
        return text, f"{found.optimizer} is {one.name} on its first two steps, as compared"
    text = fitted(found)
    exponents = ", ".join(f"{role} {x.rational}" for role, x in found.layers.items())
    return text, f"{found.optimizer}: exponents of own updates {exponents}; {MEASURED}"


def fitted(found: Probed) -> str:
    """A rule as large as measured updates, as text.

    Raises:
        NotCovered: for exponents that are open, or that no such rule has.
    """
    g = snapped(min(found.degrees.values()) - _CLOSE, max(found.degrees.values()) + _CLOSE)
    open_ = [role for role in ROLES if found.layers[role].rational is None]
    if g is None or open_:
        what = f"own updates of the {open_[0]} layer" if open_ else "its gradient's size"
        raise NotCovered(
            f"{found.optimizer}, which equals no rule, and whose exponent of {what} is open",
            "an exponent for each of input, hidden, output",
            f"scaling probe {found.optimizer} --seeds 16 shows how far it is; or write its update "
            "as a rule",
        )
    x = [found.layers[role].rational or Fraction(0) for role in ROLES]
    r = x[0] + x[2] - x[1]
    p, q = x[0] + g - r, x[2] - 1 - r
    sides = (("rms(G)", g), ("fan_out", p), ("fan_in", q), ("max(fan_out, fan_in)", r))
    factors = [side if power == 1 else f"{side}**({power})" for side, power in sides if power != 0]
    text = "*".join([*factors, "sign(G)"])
    derived = derive(parse(text)).exponents.c
    if [str(derived[role]) for role in ROLES] != [str(one) for one in x]:
        raise NotCovered(
            f"{found.optimizer}, whose exponents {', '.join(map(str, x))} no rule of its size has",
            "exponents of a rule of powers of the gradient's size and the sides",
            "write its update as a rule",
        )
    return text
