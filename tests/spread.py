"""Choices spread over rules, where every rule under every choice would prove the same again."""

from collections.abc import Iterable, Sequence
from itertools import product
from typing import Any

EVERY = ("sgd", "kfac", "adam", "muon")
"""Rules that meet every combination: one without a preconditioner, and one of each kind."""


def spread(rules: Iterable[str], *choices: Sequence[Any]) -> list[tuple[Any, ...]]:
    """(rule, one of each choice): all combinations for a few rules, the next one for the others.

    >>> spread(["sgd", "lion", "lars", "soap"], "ab")
    [('sgd', 'a'), ('sgd', 'b'), ('lion', 'b'), ('lars', 'a'), ('soap', 'b')]
    """
    every = list(product(*choices))
    return [
        (rule, *chosen)
        for i, rule in enumerate(rules)
        for chosen in (every if rule in EVERY else [every[i % len(every)]])
    ]
