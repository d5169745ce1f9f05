"""Which rules are measured how, and the measurements: every width and seed, none of them twice.

A plan splits rules by what they allow (wide/method.py): wide with dense networks as a cross-check,
or dense alone. `run` measures the cells of one rule, width by width, keeps each in the store as it
is finished, and takes from the store what an earlier run of the same configuration left there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from functools import partial
from itertools import product
from typing import Any, TypeAlias

from joblib import Parallel, delayed

from derivations.declaration import Optimizer
from empirical.data.sources import Data
from empirical.measure.dense_steps import measure
from empirical.measure.machine import cores
from empirical.measure.measured_sizes import (
    MOST_NETWORKS,
    Measure,
    Measurement,
    Quantity,
    measure_mean,
)
from empirical.measure.record import packed, require_alike, unpacked
from empirical.measure.store import Store, fingerprint
from empirical.measure.trial import Constants, Trial
from empirical.verify import derivation_lines
from empirical.wide import MEMORY_LIMIT, WIDE_PROBE, Streaming, measure_wide
from empirical.wide.method import Path, path_of, refuse_unless_wide
from empirical.wide.rows import is_one_task
from scaling.models.chain import Loss
from scaling.sizes.errors import InvalidInput
from scaling.sizes.scale import Bounds
from scaling.states.problem import Exponents, Problem

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
    steps: int = 1
    quantity: Quantity = Quantity.ALL
    most_seeds: int = 0
    """Seeds are doubled up to so many where more of them would settle what is undecided."""

    @property
    def own_only(self) -> bool:
        """Whether own updates are all that is asked for."""
        return self.quantity is Quantity.OWN

    @property
    def cells(self) -> int:
        """Measurements of one rule."""
        return self.seeds * len(self.widths)

    @property
    def base(self) -> int:
        """The width at which constants are calibrated, on dense networks."""
        return self.widths[0] if self.mode is Mode.DENSE else min(self.widths[0], BASE_AT_MOST)

    def __post_init__(self) -> None:
        if not (0 < self.margin < 1) or not math.isfinite(self.margin):
            raise InvalidInput(
                f"a margin of {self.margin}", "a number between 0 and 1", "try --margin 0.05"
            )


DENSE_WIDTHS = (64, 128, 256, 512, 1024, 2048, 4096)
WIDE_WIDTHS = {
    Path.CORE: tuple(4**k for k in range(4, 11)),
    Path.ROWS: tuple(2**k for k in range(8, 15)),
    Path.SAMPLE: tuple(4**k for k in range(6, 11)),
}
BASE_AT_MOST = 1024
"""Wide networks may begin at widths where a dense one, which calibrates them, would be dear."""
CROSS_WIDTHS = (64, 256, 1024, 4096)
"""Of the dense networks that wide mode is checked against."""
CROSS_SAMPLES = 4
"""What they are given at most: sizes go to their limits as n / M, so that few of them make narrow
networks wide. With 16, or 160 rows of a Gauss-Newton matrix, a width of 64 is next to nothing."""
SEEDS = 16
MORE_SEEDS = 4
"""How many times the usual seeds a rule may take; those that are asked for are all it takes."""
WIDE_SEEDS = {Path.CORE: 6, Path.ROWS: 20, Path.SAMPLE: 8}
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
    memory_limit: int | None = None,
    quantity: Quantity = Quantity.ALL,
) -> list[tuple[list[Row], Experiment]]:
    """Which rules are measured how: ``mode`` is auto, dense or wide.

    auto: wide for every rule that it covers, with dense networks of moderate width and few samples
    as a cross-check; dense alone for the others. Where ``quantity`` is own updates alone, entrywise
    rules reach further; see wide/method.py.
    """
    own = quantity is Quantity.OWN
    ways = [None if mode == "dense" else path_of(table[0].rule, own) for table in tables]
    for table, way in zip(tables, ways, strict=True):
        if mode == "wide" or way is not None:
            refuse_unless_wide(table[0].rule, max(widths or (1,)), own)
    streaming = Streaming(workers=threads or cores(), memory_limit=memory_limit or MEMORY_LIMIT)
    plans = []
    for path in Path:
        chosen = [table for table, way in zip(tables, ways, strict=True) if way is path]
        if chosen:
            experiment = Experiment(
                widths or WIDE_WIDTHS[path], seeds or WIDE_SEEDS[path],
                MARGIN[Mode.WIDE] if margin is None else margin,
                data.with_probe(WIDE_PROBE[path]), "cpu", threads, Mode.WIDE, streaming,
                quantity=quantity, most_seeds=0 if seeds else MORE_SEEDS * WIDE_SEEDS[path],
            )  # fmt: skip
            plans.append((chosen, experiment))
    for also_wide in (True, False):
        chosen = [table for table, way in zip(tables, ways, strict=True) if bool(way) is also_wide]
        if chosen and not (also_wide and mode == "wide"):
            experiment = Experiment(
                _within_dense(widths) if also_wide else widths or DENSE_WIDTHS,
                seeds or SEEDS,
                MARGIN[Mode.DENSE] if margin is None else margin,
                _few(data, chosen[0][0]) if also_wide else data, device, threads,
                quantity=quantity, most_seeds=0 if seeds else MORE_SEEDS * SEEDS,
            )  # fmt: skip
            plans.append((chosen, experiment))
    return plans


def deep_experiment(
    widths: tuple[int, ...] | None,
    seeds: int | None,
    margin: float | None,
    data: Data,
    device: str,
    threads: int,
) -> Experiment:
    """How the lines of derivations are measured; see derivation_lines.py."""
    return Experiment(
        widths or derivation_lines.WIDTHS, seeds or derivation_lines.SEEDS,
        derivation_lines.MARGIN if margin is None else margin, data, device, threads,
    )  # fmt: skip


def _within_dense(widths: tuple[int, ...] | None) -> tuple[int, ...]:
    """The widths asked for as far as dense networks reach, or the usual if they are too few."""
    within = tuple(width for width in widths or () if width <= CROSS_WIDTHS[-1])
    return within if len(within) >= 3 else CROSS_WIDTHS


def _few(data: Data, problem: Problem) -> Data:
    """So few samples that narrow networks are wide.

    Without the classes that they lack, where their errors are squared: those are f alone, which
    fades in wide networks beside the errors of the others. A softmax tells all classes apart.
    """
    few = data.with_samples(CROSS_SAMPLES)
    return few.with_own_classes() if problem.setting.loss is Loss.MSE else few


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


def counted(
    tick: Tick | None, name: str, total: int, before: int = 0
) -> Callable[[int], None] | None:
    """What `run` calls with the cells of one rule: they are counted after those ``before`` it."""
    return None if tick is None else lambda done: tick(name, before + done, total)


def run(
    name: str,
    trial: Trial,
    constants: Constants,
    experiment: Experiment,
    store: Store,
    tick: Callable[[int], None] | None = None,
) -> list[list[Measurement]]:
    """Measurements by seed and width; those in the store are not repeated.

    ``tick`` is called with the number of cells that are finished.
    """
    key = fingerprint(_configuration(trial, constants, experiment))
    runs: dict[tuple[int, int], Measurement] = {}
    for seed, width in product(range(experiment.seeds), experiment.widths):
        stored = store.get(key, width, seed)
        if stored is not None:
            runs[seed, width] = unpacked(name, width, seed, stored, trial, experiment.steps)
    for width in experiment.widths:
        missing = [seed for seed in range(experiment.seeds) if (seed, width) not in runs]
        for seed, measurement in _measured(trial, constants, experiment, width, missing):
            store.put(key, width, seed, packed(measurement))
            runs[seed, width] = measurement
            if tick is not None:
                tick(len(runs))
    require_alike(name, runs.values())
    if tick is not None:
        tick(experiment.cells)
    return [[runs[s, w] for w in experiment.widths] for s in range(experiment.seeds)]


def _measured(
    trial: Trial, constants: Constants, experiment: Experiment, width: int, seeds: Sequence[int]
) -> Iterator[tuple[int, Measurement]]:
    """The seeds of one width: shared among workers where a network is too small to be."""
    networks = min(MOST_NETWORKS, max(1, min(experiment.widths[-1], DENSE_WIDTHS[-1]) // width))
    streaming = experiment.streaming
    path = path_of(trial.problem.rule, experiment.own_only)
    small = experiment.mode is Mode.WIDE and is_one_task(path, width, streaming)
    inner = replace(streaming, workers=1) if small else streaming
    one = one_network(replace(experiment, streaming=inner))
    task = partial(measure_mean, one, trial, constants, width, networks=networks)
    if not small or streaming.workers == 1 or len(seeds) < 2:
        for seed in seeds:
            yield seed, task(seed)
        return
    run = Parallel(streaming.workers, return_as="generator")
    yield from zip(seeds, run(delayed(task)(seed) for seed in seeds), strict=True)


def one_network(experiment: Experiment) -> Measure:
    """The function that measures one network, by the experiment's mode."""
    if experiment.mode is Mode.DENSE:
        return partial(measure, steps=experiment.steps, quantity=experiment.quantity)
    return partial(
        measure_wide, steps=experiment.steps, streaming=experiment.streaming,
        quantity=experiment.quantity,
    )  # fmt: skip


def _configuration(trial: Trial, constants: Constants, experiment: Experiment) -> dict[str, Any]:
    """All that a measurement depends on but its width and seed."""
    problem, data = trial.problem, trial.data
    several = {"steps": experiment.steps} if experiment.steps != 1 else {}
    return {
        **several,  # absent for one step, as in records from before there were several
        "rule": str(problem.rule),
        "exponents": {k: str(v) for k, v in asdict(trial.exponents).items()},
        "symbols": {k: str(v) for k, v in problem.settings.exponents.items()},
        "values": dict(trial.values),
        "constants": {k: _rounded(x) for k, x in asdict(constants).items()},
        "layers": [layer.name for layer in problem.setting.layers],
        "activation": problem.setting.activation.label,
        "loss": problem.setting.loss,
        "fisher": problem.sampled_fisher,
        "step": problem.step,
        "base": experiment.base,
        "widest": experiment.widths[-1],
        "mode": experiment.mode,
        "quantity": experiment.quantity,
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


def _rounded(numbers: Any) -> Any:
    """Calibrated numbers, as far as they are the same on every machine."""
    if isinstance(numbers, Mapping):
        return {key: _rounded(x) for key, x in numbers.items()}
    return f"{numbers:.6g}"
