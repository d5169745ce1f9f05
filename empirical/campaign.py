"""Which rules are measured how, and the measurements: every width and seed, none of them twice.

A plan splits rules by what they allow: wide for updates D C H^T, dense for the others. `run`
measures the cells of one rule, width by width, keeps each in the store as it is finished, and takes
from the store what an earlier run of the same configuration left there.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from functools import partial
from typing import Any, TypeAlias

from derivations.declaration import Optimizer
from empirical.data import Data
from empirical.measure import (
    MOST_NETWORKS,
    Constants,
    Measure,
    Measurement,
    Sizes,
    Trial,
    measure,
    measure_mean,
)
from empirical.store import Store, fingerprint
from empirical.wide import Streaming, measure_wide
from empirical.wide.low_rank import is_low_rank, refuse_unless_low_rank
from scaling.errors import InvalidInput
from scaling.problem import Exponents, Problem
from scaling.scale import Bounds

Tick = Callable[[str, int, int], None]


class Mode(StrEnum):
    """How a network is measured: every matrix in memory, or exact in law at any width."""

    DENSE = "dense"
    WIDE = "wide"


@dataclass(frozen=True)
class Experiment:
    """Widths, seeds and data shared by all rules of a run."""

    widths: tuple[int, ...]
    seeds: int
    margin: float
    data: Data
    device: str = "cpu"
    threads: int = 0
    mode: Mode = Mode.DENSE
    streaming: Streaming = field(default_factory=Streaming)

    def __post_init__(self) -> None:
        if not (0 < self.margin < 1) or not math.isfinite(self.margin):
            raise InvalidInput(
                f"a margin of {self.margin}", "a number between 0 and 1", "try --margin 0.05"
            )


DENSE_WIDTHS = (64, 128, 256, 512, 1024, 2048, 4096)
WIDE_WIDTHS = tuple(4**k for k in range(4, 11))
WIDE_PROBE = 16
"""Probe samples in wide mode, where every sample is a column of the widest layer."""
SEEDS = {Mode.DENSE: 16, Mode.WIDE: 6}
MARGIN = {Mode.DENSE: 0.05, Mode.WIDE: 0.02}
Row: TypeAlias = tuple[Problem, Exponents, Bounds, Optimizer]


def plan(
    tables: Sequence[Row],
    mode: str,
    widths: tuple[int, ...] | None,
    seeds: int | None,
    margin: float | None,
    data: Data,
    device: str,
    threads: int,
) -> list[tuple[list[Row], Experiment]]:
    """Which rules are measured how: ``mode`` is auto, dense, wide or both.

    auto: wide for every rule of the form D C H^T, dense for the others. both: all rules dense too.
    """
    wide = [table for table in tables if mode != "dense" and is_low_rank(table[0].rule)]
    if mode == "wide":
        for table in tables:
            refuse_unless_low_rank(table[0].rule)
    dense = [table for table in tables if mode in ("dense", "both") or table not in wide]
    plans = []
    for chosen, how, usual in ((wide, Mode.WIDE, WIDE_WIDTHS), (dense, Mode.DENSE, DENSE_WIDTHS)):
        if chosen:
            tolerance = MARGIN[how] if margin is None else margin
            place = device if how is Mode.DENSE else "cpu"
            streaming = Streaming(workers=threads or os.cpu_count() or 1)
            few = replace(data, probe_inputs=data.probe_inputs[:WIDE_PROBE],
                          probe_targets=data.probe_targets[:WIDE_PROBE])  # fmt: skip
            experiment = Experiment(
                widths or usual,
                seeds or SEEDS[how],
                tolerance,
                data if how is Mode.DENSE else few,
                place,
                threads,
                how,
                streaming,
            )
            plans.append((chosen, experiment))
    return plans


def trial_of(table: Row, experiment: Experiment) -> Trial:
    """What is measured for one rule; every constant of the rule must have a value."""
    problem, exponents, _, declared = table
    values = {**declared.values, **problem.settings.values}
    missing = [x for x in problem.rule.constants if x not in values]
    if missing:
        raise InvalidInput(
            f"no value for '{missing[0]}' of the rule {problem.rule}",
            "a number for every hyper-parameter of the rule",
            f"add --set {missing[0]}=0.9, or whatever value you mean",
        )
    return Trial(problem, exponents, values, experiment.data, experiment.device)


def run(
    name: str,
    trial: Trial,
    constants: Constants,
    experiment: Experiment,
    store: Store,
    index: int,
    total: int,
    tick: Tick | None,
) -> list[list[Measurement]]:
    """Measurements by seed and width; those in the store are not repeated."""
    cells = [(s, w) for w in experiment.widths for s in range(experiment.seeds)]
    key = fingerprint(_configuration(trial, experiment))
    runs: dict[tuple[int, int], Measurement] = {}
    for done, (seed, width) in enumerate(cells):
        stored = store.get(key, width, seed)
        if stored is None:
            networks = min(
                MOST_NETWORKS, max(1, min(experiment.widths[-1], DENSE_WIDTHS[-1]) // width)
            )
            measurement = measure_mean(
                one_network(experiment), trial, constants, width, seed, networks
            )
            store.put(key, width, seed, _packed(measurement))
        else:
            measurement = _unpacked(name, width, seed, stored, trial)
        runs[seed, width] = measurement
        if tick is not None:
            tick(name, index * len(cells) + done + 1, total * len(cells))
    return [[runs[s, w] for w in experiment.widths] for s in range(experiment.seeds)]


def one_network(experiment: Experiment) -> Measure:
    """The function that measures one network, by the experiment's mode."""
    if experiment.mode is Mode.DENSE:
        return measure
    return partial(measure_wide, streaming=experiment.streaming)


def _configuration(trial: Trial, experiment: Experiment) -> dict[str, Any]:
    problem, data = trial.problem, trial.data
    return {
        "rule": str(problem.rule),
        "exponents": {k: str(v) for k, v in asdict(trial.exponents).items()},
        "symbols": {k: str(v) for k, v in problem.settings.exponents.items()},
        "values": dict(trial.values),
        "layers": [layer.name for layer in problem.setting.layers],
        "activation": problem.setting.activation.label,
        "loss": problem.setting.loss,
        "fisher": problem.sampled_fisher,
        "base": experiment.widths[0],
        "widest": experiment.widths[-1],
        "mode": experiment.mode,
        "device": trial.device,
        "data": [
            data.name,
            fingerprint(
                {
                    "inputs": data.inputs.tolist(),
                    "targets": data.targets.tolist(),
                    "probe": data.probe_inputs.tolist(),
                }
            ),
        ],
    }


def _packed(m: Measurement) -> dict[str, Any]:
    sums = [[layer, str(node), *terms] for (layer, node), terms in m.sums.items()]
    sizes = {name: asdict(x) for name, x in m.sizes.items()}
    return {"sizes": sizes, "sums": sums, "seconds": m.seconds, "peak_mb": m.peak_mb}


def _unpacked(
    name: str, width: int, seed: int, record: dict[str, Any], trial: Trial
) -> Measurement:
    nodes = {str(node): node for node in trial.problem.rule.expression.walk()}
    sums = {(layer, nodes[text]): (x, y) for layer, text, x, y in record["sums"]}
    sizes = {k: Sizes(**x) for k, x in record["sizes"].items()}
    return Measurement(name, width, seed, sizes, sums, record["seconds"], record["peak_mb"])
