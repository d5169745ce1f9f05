"""The plan of measurements and their run: every width and seed, none of them twice.

A plan splits rules by what they allow (wide/method.py): wide with dense networks as a cross-check,
or dense alone. `run` measures the cells of one rule, width by width, keeps each in the store as it
is finished, and takes from the store what an earlier run of the same configuration left there.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from functools import partial
from itertools import product
from typing import Any

from joblib import Parallel, delayed
from torch import Tensor

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
from empirical.verify.subject import Subject
from empirical.wide import WIDE_PROBE, Streaming, measure_wide, usual_memory
from empirical.wide.method import Path, path_of, refuse_unless_wide
from empirical.wide.rows import is_one_task
from scaling.models.chain import Loss
from scaling.sizes.errors import InvalidInput
from scaling.states.problem import Problem

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
    base_seed: int = 0
    """Another one draws other weights."""

    @property
    def first_seed(self) -> int:
        """Of the networks; the others follow."""
        return self.base_seed * SEED_STRIDE

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
"""The most that they are given: sizes go to their limits as n / M, so that few of them make narrow
networks wide. With 16, or 160 rows of a Gauss-Newton matrix, a width of 64 is next to nothing."""
SEEDS = 16
MORE_SEEDS = 4
"""How many times the usual seeds a rule may take; those that are asked for are all it takes."""
WIDE_SEEDS = {Path.CORE: 6, Path.ROWS: 10, Path.SAMPLE: 8}
MARGIN = {Mode.DENSE: 0.05, Mode.WIDE: 0.02}
PIECE = 2**12
"""Numbers that are turned into text at a time."""
SEED_STRIDE = 2**16
"""Seeds of one base seed: two runs of different bases share none of them."""


@dataclass(frozen=True)
class RunRequest:
    """The wishes for a run; None: the usual value for the way it is measured."""

    data: Data
    widths: tuple[int, ...] | None = None
    seeds: int | None = None
    margin: float | None = None
    device: str = "cpu"
    threads: int = 0
    base_seed: int = 0

    def experiment(
        self, widths: tuple[int, ...], seeds: int, margin: float, **more: Any
    ) -> Experiment:
        """The experiment, with these where nothing else is asked; ``more`` are other fields."""
        known = {
            "widths": self.widths or widths,
            "seeds": self.seeds or seeds,
            "margin": margin if self.margin is None else self.margin,
            "data": self.data,
            "device": self.device,
            "threads": self.threads,
            "base_seed": self.base_seed,
        }
        return Experiment(**{**known, **more})


def plan(
    subjects: Sequence[Subject],
    request: RunRequest,
    mode: str = "auto",
    memory_limit: int | None = None,
    quantity: Quantity = Quantity.ALL,
) -> list[tuple[list[Subject], Experiment]]:
    """The way each rule is measured: ``mode`` is auto, dense or wide.

    auto: wide for every rule that it covers, with dense networks of moderate width and few samples
    as a cross-check; dense alone for the others. Where ``quantity`` is own updates alone, entrywise
    rules reach further; see wide/method.py.
    """
    own, data = quantity is Quantity.OWN, request.data
    ways = [None if mode == "dense" else path_of(x.problem.rule, own) for x in subjects]
    for subject, way in zip(subjects, ways, strict=True):
        if mode == "wide" or way is not None:
            widest = max(request.widths or (1,))
            refuse_unless_wide(subject.problem.rule, widest, own, request.device)
    workers = (request.threads or cores()) if request.device == "cpu" else 1
    limit = memory_limit or usual_memory(request.device)
    streaming = Streaming(workers=workers, memory_limit=limit, device=request.device)
    plans = []
    for path in Path:
        chosen = [subject for subject, way in zip(subjects, ways, strict=True) if way is path]
        if chosen:
            usual = WIDE_WIDTHS[path], WIDE_SEEDS[path], MARGIN[Mode.WIDE]
            experiment = request.experiment(
                *usual, data=data.with_probe(WIDE_PROBE[path]), mode=Mode.WIDE,
                streaming=streaming, quantity=quantity, most_seeds=_most(request, usual[1]),
            )  # fmt: skip
            plans.append((chosen, experiment))
    for crossed in (True, False):
        chosen = [x for x, way in zip(subjects, ways, strict=True) if bool(way) is crossed]
        if chosen and not (crossed and mode == "wide"):
            experiment = request.experiment(
                DENSE_WIDTHS, SEEDS, MARGIN[Mode.DENSE], quantity=quantity,
                most_seeds=_most(request, SEEDS),
            )  # fmt: skip
            if crossed:
                few, within = _few(data, chosen[0].problem), _within_dense(request.widths)
                experiment = replace(experiment, data=few, widths=within)
            plans.append((chosen, experiment))
    return plans


def _most(request: RunRequest, seeds: int) -> int:
    """The seeds that may be added up to; those that are asked for are all there are."""
    return 0 if request.seeds else MORE_SEEDS * seeds


def deep_experiment(request: RunRequest) -> Experiment:
    """How the lines of derivations are measured; see derivation_lines.py."""
    x = derivation_lines
    return request.experiment(x.WIDTHS, x.SEEDS, x.MARGIN)


def lines_experiment(request: RunRequest) -> Experiment:
    """The same beside other measurements: half as many seeds, widths to 1024 at most."""
    x = derivation_lines
    most = x.WIDTHS[-2]
    within = tuple(width for width in request.widths or () if width <= most)
    widths = within if len(within) >= 3 else x.WIDTHS[:-1]
    return replace(request.experiment(widths, x.SEEDS // 2, x.MARGIN), widths=widths)


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


def trial_of(subject: Subject, experiment: Experiment) -> Trial:
    """The trial of one rule; every constant of the rule must have a value."""
    problem = subject.problem
    literals = {name: float(x) for name, x in problem.rule.literals.items()}
    values = {**literals, **subject.declared.values, **problem.settings.values}
    missing = [x for x in problem.rule.constants if x not in values]
    if missing:
        raise InvalidInput(
            f"no value for '{missing[0]}' of the rule {problem.rule}",
            "a number for every hyper-parameter of the rule",
            f"add --set {missing[0]}=0.9, or whatever value you mean",
        )
    return Trial(problem, subject.exponents, values, experiment.data, experiment.device)


def counted(
    tick: Tick | None, name: str, total: int, before: int = 0
) -> Callable[[int], None] | None:
    """A counter of the cells of one rule for `run`: they are counted after those ``before`` it."""
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
            drawn = experiment.first_seed + seed
            runs[seed, width] = unpacked(name, width, drawn, stored, trial, experiment.steps)
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
    """The seeds of one width: shared among workers where a network is too small to be.

    A seed is numbered from 0; the networks are drawn by what follows the first of the experiment.
    """
    networks = min(MOST_NETWORKS, max(1, min(experiment.widths[-1], DENSE_WIDTHS[-1]) // width))
    streaming = experiment.streaming
    path = path_of(trial.problem.rule, experiment.own_only)
    small = experiment.mode is Mode.WIDE and is_one_task(path, width, streaming)
    inner = replace(streaming, workers=1) if small else streaming
    one = one_network(replace(experiment, streaming=inner))
    task = partial(measure_mean, one, trial, constants, width, networks=networks)
    if not small or streaming.workers == 1 or len(seeds) < 2:
        for seed in seeds:
            yield seed, task(experiment.first_seed + seed)
        return
    run = Parallel(streaming.workers, return_as="generator")
    drawn = [experiment.first_seed + seed for seed in seeds]
    yield from zip(seeds, run(delayed(task)(seed) for seed in drawn), strict=True)


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
    based = {"base_seed": experiment.base_seed} if experiment.base_seed else {}
    return {
        **several,  # absent for one step, as in records from before there were several
        **based,  # absent for 0, as in records from before there were others
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
        "data": [data.name, samples_of(data)],
    }


def samples_of(data: Data) -> str:
    """The `fingerprint` of the samples as lists of numbers, which need not be in memory at once."""
    tables = {"inputs": data.inputs, "probe": data.probe_inputs, "targets": data.targets}
    text = hashlib.sha256()
    for i, (name, table) in enumerate(tables.items()):
        text.update(f'{", " if i else "{"}"{name}": '.encode())
        for piece in _json(table):
            text.update(piece.encode())
    text.update(b"}")
    return text.hexdigest()[:16]


def _json(table: Tensor) -> Iterator[str]:
    """The JSON of a tensor as nested lists, in pieces."""
    yield "["
    if table.dim() == 1:
        for i in range(0, len(table), PIECE):
            yield (", " if i else "") + json.dumps(table[i : i + PIECE].tolist())[1:-1]
    else:
        for i, row in enumerate(table):
            yield ", " if i else ""
            yield from _json(row)
    yield "]"


def _rounded(numbers: Any) -> Any:
    """Calibrated numbers, as far as they are the same on every machine."""
    if isinstance(numbers, Mapping):
        return {key: _rounded(x) for key, x in numbers.items()}
    return f"{numbers:.6g}"
