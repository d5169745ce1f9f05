"""HOZOG: hypergradients of zeroth order, from differences of the loss after whole runs.

    g = (p/mu) (1/q) sum_i [f(x + mu u_i) - f(x)] u_i,      u_i unit vectors, drawn evenly
    x <- x - h g

f is the loss after T steps of training, x the p logarithms of the numbers, so that nothing of the
rule or of the model is differentiated: any recipe can be tuned.

Source: arXiv 2102.09026 and its code: mu = 0.01, q = 5. The mean of g over u is the gradient of f
smoothed over a ball of radius mu. Ours: f is the log of the loss; x is in doublings; q is at most
p, since directions of one number are two, which tell the same; h = 4 doublings per unit of g, and a
step of at most 2 doublings; the first x is the middle of the space.
"""

from __future__ import annotations

from collections.abc import Callable, Generator

import numpy as np
from numpy.typing import NDArray

from empirical.tuning.tuning_strategy import Tuning, TuningStrategy, TuningTask

MU, Q, H, LARGEST = 0.01, 5, 4.0, 2.0
Vector = NDArray[np.float64]


def unit_vectors(count: int, dimension: int, draw: np.random.Generator) -> Vector:
    """Unit vectors (count, dimension), drawn evenly."""
    found = draw.normal(size=(count, dimension))
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), float)


def hypergradient(
    x: Vector, at: float, directions: Vector, mu: float
) -> Generator[Vector, float, Vector]:
    """g, from the values at the points that are asked for one by one.

    Args:
        x: the point.
        at: the value there.
        directions: unit vectors (q, p).
        mu: the length of a step.
    """
    total = np.zeros_like(x)
    for u in directions:
        value = yield x + mu * u
        total += (value - at) * u
    return total * (len(x) / mu / len(directions))


def estimated(
    f: Callable[[Vector], float], x: Vector, directions: Vector, mu: float = MU
) -> Vector:
    """The same of a function.

    >>> import numpy as np
    >>> estimated(lambda x: float(x @ x), np.array([1.0, 0.0]), np.eye(2), mu=1e-6).round(3)
    array([2., 0.])
    """
    asked = hypergradient(x, f(x), directions, mu)
    place = next(asked)
    while True:
        try:
            place = asked.send(f(place))
        except StopIteration as end:
            found: Vector = end.value
            return found


def _tune(task: TuningTask) -> Tuning:
    draw = np.random.default_rng(task.seed)
    space = task.space
    names, x = space.names, np.array(list(space.centre.values()))
    q = min(Q, len(x))

    def named(place: Vector) -> dict[str, float]:
        return dict(zip(names, map(float, place), strict=True))

    while task.affords(task.steps):
        here = yield task.run(named(x))
        task.offer(named(x), here.value)
        if not task.affords(q * task.steps):
            break
        asked = hypergradient(x, here.value, unit_vectors(q, len(x), draw), MU)
        place = next(asked)
        while True:
            there = yield task.run(named(place))
            try:
                place = asked.send(there.value)
            except StopIteration as end:
                step = -H * end.value
                break
        if here.diverged:
            step = -np.ones_like(x)  # what diverged has no slope: a doubling back
        x = np.array(list(space.inside(named(x + np.clip(step, -LARGEST, LARGEST))).values()))
    return task.best


STRATEGIES = {"hozog": TuningStrategy("hozog", "arXiv 2102.09026", _tune)}
