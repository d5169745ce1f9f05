"""Finds the claims: every module of this package may define a ``GROUP``.

>>> [group.number for group in groups()] == list(range(1, 15))
True
>>> [claim.id for claim in find(["3"])]
['3a', '3b']
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Sequence
from functools import cache

import empirical.claims
from empirical.claims.claim import Claim, Group
from scaling.sizes.errors import unknown


@cache
def groups() -> tuple[Group, ...]:
    """All groups, in order of their numbers."""
    found: dict[int, Group] = {}
    for module in pkgutil.iter_modules(empirical.claims.__path__):
        group = getattr(importlib.import_module(f"empirical.claims.{module.name}"), "GROUP", None)
        if group is None:
            continue
        if group.number in found or any(claim.group != group.number for claim in group.claims):
            raise ValueError(f"group {group.number} ({group.title}) twice, or with a foreign claim")
        found[group.number] = group
    return tuple(found[number] for number in sorted(found))


def claims() -> dict[str, Claim]:
    """All claims by id, in order."""
    return {claim.id: claim for group in groups() for claim in group.claims}


def find(ids: Iterable[str]) -> tuple[Claim, ...]:
    """The claims of these ids, each once; a number alone stands for its group.

    Raises:
        InvalidInput: for an unknown id, with the nearest one.
    """
    known = claims()
    numbers = {str(group.number): group.claims for group in groups()}
    found: dict[str, Claim] = {}
    for name in ids:
        key = name.strip().lower()
        if key in numbers:
            found.update({claim.id: claim for claim in numbers[key]})
        elif key in known:
            found[key] = known[key]
        else:
            raise unknown("claim", name, [*numbers, *known])
    return tuple(found.values())


def runnable(chosen: Sequence[Claim]) -> tuple[list[Claim], list[str]]:
    """The claims whose packages are installed, and of each other one why it is left out.

    Raises:
        InvalidInput: if none is left.
    """
    refused = {claim.id: why for claim in chosen if (why := claim.missing) is not None}
    if refused and len(refused) == len(chosen):
        raise next(iter(refused.values()))
    told = [f"{name} is left out: {why.found}; {why.do_this}" for name, why in refused.items()]
    return [claim for claim in chosen if claim.id not in refused], told
