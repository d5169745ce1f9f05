"""The sizes of every layer that a measurement returns, at the start and after the steps.

    init     RMS of h_l at the start (of f in the output layer)
    own      RMS of dW_l h_{l-1}: what the layer's own updates do to its output at the start
    feature  RMS of h_l after the steps minus h_l before them (df in the output layer); `Quantity`
             leaves it out where own updates are all that is asked
    shrink   <W_l - W_l after the steps, W_l> / <W_l, W_l>: the part of its weights that a layer
             loses, for rules with a decay
    ascent   RMS of X_l h_{l-1} for the perturbation X in ascended(X), of a single step

Where the problem asks for the second step, the start is the network after the first one: own is
dW_2 h with h after the first step, and feature what the second step alone changes. There shrink is
left out: the second descent lies along the first, hence along the weights, with decay or without.

A bias is a layer: its init is the RMS of the bias itself. Means over networks are geometric, since
a fit takes logarithms.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TypeAlias

from empirical.measure.trial import Constants, Trial
from scaling.rules.tree import Node
from scaling.sizes.errors import InvalidInput

Sums: TypeAlias = Mapping[tuple[str, Node], tuple[float, float]]
"""(layer, damped sum) -> sizes of the term without and of the term with the damping."""

MOST_NETWORKS = 16


class Quantity(StrEnum):
    """All quantities, or init and own alone, with no forward pass after the step."""

    ALL = "all"
    OWN = "own"


@dataclass(frozen=True)
class MeasuredSizes:
    """Measured sizes of one layer; ``feature`` of the output layer is df. None: not asked for."""

    init: float
    own: float
    feature: float | None = None
    shrink: float | None = None
    ascent: float | None = None

    def known(self) -> dict[str, float]:
        """The measured sizes, by name."""
        return {name: x for name, x in asdict(self).items() if x is not None}


@dataclass(frozen=True)
class Measurement:
    """Sizes at one width and seed, and what steps of training did to them."""

    rule: str
    width: int
    seed: int
    sizes: Mapping[str, MeasuredSizes]
    sums: Sums
    seconds: float
    peak_mb: float
    steps: int = 1
    samples: int | None = None
    probe: int | None = None
    """Samples trained on, and samples that the sizes are those of."""
    assumptions: tuple[str, ...] = ()
    """Assumptions on the rule's numbers."""

    def as_json(self) -> dict[str, object]:
        """The ``measure`` interface."""
        return {
            "rule": self.rule,
            "width": self.width,
            "seed": self.seed,
            "steps": self.steps,
            "samples": self.samples,
            "probe": self.probe,
            "sizes": {name: sizes.known() for name, sizes in self.sizes.items()},
            "seconds": self.seconds,
            "peak_mb": self.peak_mb,
            "assumptions": list(self.assumptions),
        }


def check_finite(sizes: Mapping[str, MeasuredSizes], width: int, seed: int) -> None:
    """Refuse sizes that are not finite."""
    for name, layer_sizes in sizes.items():
        for quantity, value in layer_sizes.known().items():
            if value != value or value in (float("inf"), float("-inf")):
                raise InvalidInput(
                    f"{quantity} = {value} in the {name} layer at width {width}, seed {seed}",
                    "finite sizes",
                    "smaller widths or exponents: under these the network overflows",
                )


Measure: TypeAlias = Callable[[Trial, Constants, int, int], Measurement]


def measure_mean(
    one: Measure, trial: Trial, constants: Constants, width: int, seed: int, networks: int
) -> Measurement:
    """The geometric mean of every size over independent networks of one width.

    A fit takes logarithms, and only their mean does not move with the number of networks. Narrow
    networks fluctuate more and cost less, so a fit over widths takes several of them for one wide
    network; ``one`` measures one. Seconds and peak memory are those of all of them.
    """
    runs = [one(trial, constants, width, seed * MOST_NETWORKS + i) for i in range(networks)]
    sizes = {
        name: MeasuredSizes(
            **{q: mean_size([run.sizes[name].known()[q] for run in runs]) for q in first.known()}
        )
        for name, first in runs[0].sizes.items()
    }
    sums = {
        key: (
            mean_size([run.sums[key][0] for run in runs]),
            mean_size([run.sums[key][1] for run in runs]),
        )
        for key in runs[0].sums
    }
    seconds, peak = sum(run.seconds for run in runs), max(run.peak_mb for run in runs)
    return Measurement(runs[0].rule, width, seed, sizes, sums, seconds, peak, runs[0].steps)


def mean_size(sizes: list[float]) -> float:
    """The geometric mean; where a size is zero, the arithmetic one."""
    if min(sizes) <= 0:
        return sum(sizes) / len(sizes)
    return math.exp(sum(math.log(x) for x in sizes) / len(sizes))
