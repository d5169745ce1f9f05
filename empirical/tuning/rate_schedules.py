"""Schedules of the learning rate: a multiplier of the tuned one, step by step.

    constant              1
    cosine                (1 + cos(pi t/T))/2
    linear                1 - t/T
    annealed              1, and over the last fifth of the run linear to 0
    recurring:r1,r2,...   cosine over r1 steps, again over the next r2, ... (MORL's rungs)

>>> [round(multiplier("cosine", t, 4), 2) for t in range(4)]
[1.0, 0.85, 0.5, 0.15]
>>> [multiplier("recurring:1,2", t, 3) for t in range(3)]
[1.0, 1.0, 0.5]
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

ANNEALED = 0.2


def cosine(step: float, steps: float) -> float:
    """The multiplier at a step of a run of so many."""
    return (1 + math.cos(math.pi * step / steps)) / 2


def _annealed(step: int, steps: int) -> float:
    return min(1.0, (steps - step) / max(1.0, ANNEALED * steps))


SCHEDULES: Mapping[str, Callable[[int, int], float]] = {
    "constant": lambda step, steps: 1.0,
    "cosine": cosine,
    "linear": lambda step, steps: 1 - step / steps,
    "annealed": _annealed,
}


def multiplier(schedule: str, step: int, steps: int) -> float:
    """The multiplier of a schedule at step 0, 1, ... of ``steps``."""
    name, _, lengths = schedule.partition(":")
    if name != "recurring":
        return SCHEDULES[name](step, steps)
    begun = 0
    for length in map(int, lengths.split(",")):
        if step < begun + length:
            return cosine(step - begun, length)
        begun += length
    return 0.0


def recurring(ends: tuple[int, ...]) -> str:
    """The schedule whose rungs end at these steps."""
    lengths = [end - begin for begin, end in zip((0, *ends), ends, strict=False)]
    return f"recurring:{','.join(map(str, lengths))}"


def multipliers(schedule: str, steps: int) -> list[float]:
    """All of a run."""
    return [multiplier(schedule, step, steps) for step in range(steps)]
