"""Measures whether a tuned learning rate transfers on a user's own model: plans, runs, keeps.

plan       one for every size, whose numbers at the base are all one: factors
cells      two ways x sizes x rates x seeds; those in the store are not run again
runs       trained by workers, written by this process alone, one transaction each
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from derivations.recipes import in_practice, recipe_of
from empirical.black_box.handed_over import recipe_with_probes
from empirical.measure.machine import pick_device
from empirical.measure.store import fingerprint
from empirical.plans.making import plan_of_file
from empirical.plans.plan import ModelPlan
from empirical.plans.planned_axes import at_sizes, derived_axes, named_parameters_of
from empirical.plans.planned_numbers import Tuned, TunedNumbers
from empirical.trace.given_model import GivenBatch, model_of
from empirical.trace.model_file import SEED, GrowingAxis, LossOf, ModelFile, read_axis, read_model
from empirical.trace.wrapped_names import tensors_of
from empirical.transfer.curve_loggers import loggers_of
from empirical.transfer.exported_runs import export, require_exporter
from empirical.transfer.measured_transfer import MARGIN, MeasuredTransfer
from empirical.transfer.model_source import GivenModel, ModelSource, SourceFile
from empirical.transfer.transfer_grid import FEWEST, RATES, cells_of, read_rates
from empirical.transfer.transfer_run import (
    HELD_OUT,
    TransferTraining,
    refuse_what_no_rule_trains,
)
from empirical.transfer.transfer_store import TransferStore
from empirical.transfer.transfer_workers import TransferBackend, trained_cells
from empirical.transfer.user_optimizer import at_planned_numbers, untold
from scaling.models.recipe import RATE, Recipe
from scaling.rules.rule import Rule
from scaling.sizes.errors import InvalidInput, is_finite, unknown

Tick = Callable[[str, int, int], None]


@dataclass(frozen=True)
class TransferRequest:
    """The wishes of a transfer.

    Args:
        axis: what grows, and its sizes.
        rates: log2 of the learning rates at the base, in even steps.
        steps: of training.
        seeds: how many; two at least.
        base: sizes at which the rate is given; the smallest of the axis where nothing is said.
        tuned: dampings and decays at the base, by symbol; the user's optimizer has its own.
        margin: within which a drift is none.
        diverged: a loss above so many times the one before training ends a run.
        change_code: whether the plan's factors of the code are changed, by hooks.
        device: where tensors live: "cpu", "cuda", or "auto" for the second where there is one.
    """

    axis: GrowingAxis
    rates: tuple[float, ...] = field(default_factory=lambda: read_rates(RATES))
    steps: int = 100
    seeds: int = 4
    base: Mapping[str, int] = field(default_factory=dict)
    tuned: Tuned = field(default_factory=dict)
    margin: float = MARGIN
    diverged: float = 100.0
    change_code: bool = False
    device: str = "cpu"

    def __post_init__(self) -> None:
        by = np.diff(self.rates) if np.isfinite(self.rates).all() else np.array([])
        if len(self.rates) < FEWEST or not len(by) or by[0] <= 0 or np.ptp(by) > 1e-9:
            raise InvalidInput(
                f"the log2 rates {self.rates}",
                f"{FEWEST} or more, rising in even steps",
                f"pass for example lr='{RATES}'",
            )
        counts = {"steps": (self.steps, 1), "seeds": (self.seeds, 2)}
        for name, (value, least) in counts.items():
            if not isinstance(value, int) or value < least:
                raise InvalidInput(
                    f"{name}={value}",
                    f"a whole number, at least {least}"
                    + (": intervals are over seeds" if name == "seeds" else ""),
                    f"pass --{name} {4 * least}",
                )
        if not (is_finite(self.margin) and 0 < self.margin < 1):
            raise InvalidInput(
                f"a margin of {self.margin}", "a number between 0 and 1", "pass --margin 0.25"
            )
        if not (is_finite(self.diverged) and self.diverged > 1):
            raise InvalidInput(
                f"diverged={self.diverged}", "a multiple above 1", "pass --diverged 100"
            )

    @property
    def sizes_at_base(self) -> dict[str, int]:
        """All sizes of the base."""
        return {self.axis.name: self.axis.sizes[0], **self.base}


@dataclass(frozen=True)
class TransferPlace:
    """Where runs are made and kept."""

    out: Path | None = None
    backend: TransferBackend = TransferBackend.joblib
    scheduler: str | None = None
    jobs: int = 0
    log: tuple[str, ...] = ()
    exports: tuple[Path, ...] = ()


def measure_transfer(
    build: Callable[..., nn.Module],
    batch: GivenBatch | None,
    recipe: Recipe | Rule | str,
    axis: str,
    lr: str | Sequence[float] = RATES,
    loss: LossOf | None = None,
    optimizer: Callable[[nn.Module], Any] | None = None,
    out: str | Path | None = None,
    backend: str = "joblib",
    scheduler: str | None = None,
    jobs: int = 1,
    **wishes: Any,
) -> MeasuredTransfer:
    """Loss against learning rate at growing sizes, under the plan and under one rate for all.

    Args:
        build: ``build(**axes)`` returns the module.
        batch: (inputs, targets), or a function of the axes, and of ``seed`` where each step is to
            draw other samples.
        recipe: what trains what: text, a TOML file, a rule, a name of one, or probe:MODULE:CLASS.
        axis: what grows, such as "width=64:512".
        lr: rates at the base, such as "2^-10:2^0"; or their log2, in even steps.
        loss: of outputs and targets; whole numbers mean cross-entropy, others squared error.
        optimizer: of a model, as its user trains it; without it the rule of the recipe trains.
        out: a folder where finished runs are kept, and taken up again.
        backend: "joblib" or "dask".
        scheduler: the address of a Dask cluster; without one, Dask has workers here.
        jobs: processes here; 0: as many as there are cores.
        wishes: the other fields of `TransferRequest`.

    Raises:
        InvalidInput: for what cannot be trained or planned.
        NotCovered: for what neither the theory nor the literature has a power for.

    >>> import torch
    >>> from torch import nn
    >>> def build(width=8):
    ...     return nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, 2, bias=False))
    >>> batch = torch.eye(3), torch.ones(3, 2)
    >>> rates = "2^-6:2^-4"
    >>> found = measure_transfer(build, batch, "sign(G)", "width=8:32", rates, steps=1, seeds=2)
    >>> found.sizes, found.rates
    ((8, 16, 32), (-6.0, -5.0, -4.0))
    """
    rates = read_rates(lr) if isinstance(lr, str) else tuple(map(float, lr))
    asked = TransferRequest(sizes_along(axis), rates, **wishes)
    file = replace(model_of(build, batch, loss), optimizer_of=optimizer)
    place = TransferPlace(
        None if out is None else Path(out), TransferBackend(backend), scheduler, jobs
    )
    return _measured(file, None, recipe, asked, place, None)


def sizes_along(text: str) -> GrowingAxis:
    """An axis and at least three sizes, from ``width=64:512`` or ``width=64,128,512``.

    Raises:
        InvalidInput: for anything else.
    """
    name = text.partition("=")[0].strip() or "width"
    example = f"write for example --axis {name}=64:256"
    try:
        axis = read_axis(text)
    except InvalidInput as refused:
        raise InvalidInput(f"--axis {text}", refused.needed, example) from None
    if not axis.sizes:
        raise InvalidInput(f"--axis {text} without sizes", "three sizes or more", example)
    return axis


def one_axis(name: str, asked: Sequence[str]) -> GrowingAxis:
    """The axis that is asked for, or the usual one of the file at 1, 2 and 3 times its size.

    Raises:
        InvalidInput: for several.
    """
    if len(asked) > 1:
        raise InvalidInput(
            f"{len(asked)} axes: {', '.join(asked)}",
            "one at a time: a drift is one of a size",
            f"pass --axis {asked[0]} first, and --base for sizes of the others",
        )
    return sizes_along(asked[0]) if asked else read_model(name).axis(None)


def transfer_of_file(
    name: str,
    recipe: Recipe | Rule | str,
    asked: TransferRequest,
    place: TransferPlace,
    tick: Tick | None = None,
    data_root: Path | None = None,
) -> MeasuredTransfer:
    """The same for FILE.py or FILE.py:BUILD, and its folder of data; see `measure_transfer`."""
    return _measured(read_model(name, data_root), name, recipe, asked, place, tick)


def _measured(
    file: ModelFile,
    name: str | None,
    recipe: Recipe | Rule | str,
    asked: TransferRequest,
    place: TransferPlace,
    tick: Tick | None,
) -> MeasuredTransfer:
    for path in place.exports:
        require_exporter(path)
    recipe, probed = recipe_with_probes(recipe)
    loggers = loggers_of(place.log, place.out, str(recipe))
    training, notes = planned_training(file, name, recipe, asked)
    cells = cells_of(asked.axis.sizes, asked.rates, asked.seeds)
    with TransferStore(place.out, settings_of(training, asked)) as store:
        runs = {cell: run for cell in cells if (run := store.get(cell)) is not None}
        missing = [cell for cell in cells if cell not in runs]
        if missing:
            trained_cells_of = trained_cells(
                training, missing, place.backend, place.scheduler, place.jobs
            )
            for cell, run in trained_cells_of:
                store.put(cell, run)
                runs[cell] = run
                for logger in loggers:
                    logger.log(cell, run)
                if tick is not None:
                    tick("training", len(runs), len(cells))
    for logger in loggers:
        logger.close()
    for path in place.exports:
        export(runs, path)
    return MeasuredTransfer(
        str(recipe), asked.axis.name, asked.sizes_at_base, asked.axis.sizes,
        asked.rates, asked.steps, asked.seeds, asked.margin, runs, (*probed, *notes),
        training.factors[asked.axis.sizes[-1]].told_changes,
    )  # fmt: skip


def planned_training(
    file: ModelFile, name: str | None, recipe: Recipe | Rule | str, asked: TransferRequest
) -> tuple[TransferTraining, tuple[str, ...]]:
    """The part that all runs share, and what it rests on.

    Raises:
        InvalidInput: for sizes, numbers, a recipe or an optimizer that cannot be used.
    """
    base = asked.sizes_at_base
    known = [*file.axes, *(x for x in named_parameters_of(file.batcher) if x != SEED)]
    for axis in base:
        if axis not in known:
            raise unknown("axis", axis, known)
    given = recipe_of(recipe)
    whole, own = in_practice(given), file.optimizer_of is not None
    numbers, noted = ({}, []) if own else _numbers_at_base(whole, given, asked)
    if own and asked.tuned:
        raise InvalidInput(
            f"{', '.join(asked.tuned)} beside optimizer(model) in {file.path}",
            "one of the two: the optimizer has its own numbers, which are those of the base",
            "leave the option out, or pass the number in optimizer(model)",
        )
    labels = [group.label for group in whole.groups]  # by group: factors alone, of no constants
    ones = {symbol: dict.fromkeys(labels, 1.0) for symbol in (RATE, *whole.scaled)}
    along, sizes = asked.axis.name, asked.axis.sizes
    if sizes[0] < base[along]:
        raise InvalidInput(
            f"{along}={base[along]} at the base, larger than {sizes[0]}",
            "a base that is no larger than what is trained",
            f"pass --base {along}={sizes[0]}, or larger sizes",
        )
    axes = derived_axes(
        whole, at_sizes(file, base), base, {**base, along: sizes[-1]}, asked.change_code
    )
    factors = {
        size: plan_of_file(
            file, given, base, {along: size}, ones, change_code=asked.change_code,
            derived=axes.at(along, size / base[along]),
        )
        for size in sizes
    }  # fmt: skip
    source: ModelSource = (
        GivenModel(at_sizes(file, base))
        if name is None
        else SourceFile.of(name, base, file.data_root)
    )
    training = TransferTraining(
        source, whole, asked.axis.name, factors, numbers, asked.steps, asked.diverged,
        wrapped=asked.change_code, device=pick_device(asked.device),
    )  # fmt: skip
    largest = factors[asked.axis.sizes[-1]]
    if own:
        noted = list(_about_optimizer(source.file(), asked.axis, factors))
    else:
        refuse_what_no_rule_trains(training, asked.axis.sizes[0])
    about = [*largest.assumptions, *noted, _about_data(file)]
    return training, tuple(dict.fromkeys(about))


def _numbers_at_base(
    whole: Recipe, given: Recipe, asked: TransferRequest
) -> tuple[dict[str, dict[str, float]], list[str]]:
    """By group, every number of its rule at the base; rates as shares of the largest."""
    rated = any(RATE in group.values for group in whole.groups)
    tuned = TunedNumbers(whole, dict(asked.tuned) if rated else {RATE: 1.0, **asked.tuned})
    own = {group.label: group.values for group in given.groups}
    found = {
        group.label: {
            **tuned.of(group, own[group.label], forgets=True),
            **{symbol: float(x) for symbol, x in group.exponents.items()},
        }
        for group in whole.groups
        if group.rule is not None
    }
    largest = max(numbers[RATE] for numbers in found.values())
    for numbers in found.values():
        numbers[RATE] /= largest
    return found, list(tuned.notes)


def _about_optimizer(
    file: ModelFile, axis: GrowingAxis, factors: Mapping[int, ModelPlan]
) -> Iterator[str]:
    """Lines on the user's optimizer, which is refused here if the plan does not fit it."""
    for size in (axis.sizes[0], axis.sizes[-1]):
        plan = factors[size]
        model = file.build({axis.name: size} if axis.name in file.axes else {})
        for name, tensor in tensors_of(model).items():
            tensor.requires_grad_(name not in plan.frozen)
        optimizers = file.optimizers(model)
        if size == axis.sizes[0]:
            kinds = ", ".join(type(x).__name__ for x in optimizers)
            yield (
                f"{kinds} of {file.path.name} does what the recipe says; its own numbers are those "
                "of the base, and --lr takes the place of its largest learning rate"
            )
            yield from untold(optimizers, model, plan.tensors)
        at_planned_numbers(optimizers, model, plan.tensors, 1.0)


def _about_data(file: ModelFile) -> str:
    if file.draws:
        return (
            "each step draws samples of its own, by batch(seed=...); the loss is that of "
            f"{HELD_OUT} batches held out"
        )
    return (
        "every step trains on the one batch of batch(), and the loss is its own: "
        "batch(seed=0) would draw others for each step"
    )


def settings_of(training: TransferTraining, asked: TransferRequest) -> dict[str, Any]:
    """All that decides a loss beside its cell, by names that a refusal can say."""
    file = training.source.file()
    inputs, targets = file.batch({})
    drawn = file.drawn({}, 0)
    optimizers: list[Any] = []
    if file.optimizer_of is not None:
        for x in file.optimizers(file.build({})):
            groups = [{k: y for k, y in g.items() if k != "params"} for g in x.param_groups]
            optimizers.append([type(x).__name__, str(groups)])
    plans = {
        f"plan at {asked.axis.name}={size}": fingerprint(plan.as_json())
        for size, plan in training.factors.items()
    }
    return {
        "model": training.source.mark,
        "tensors": fingerprint({n: [list(x.shape), _sum(x)] for n, x in drawn.items()}),
        "data": fingerprint({str(i): _sum(x) for i, x in enumerate((*inputs, targets))}),
        "recipe": str(training.recipe),
        "optimizer": optimizers or "the rule",
        "numbers": {label: dict(x) for label, x in training.numbers.items()},
        "axis": asked.axis.name,
        "base": asked.sizes_at_base,
        "steps": asked.steps,
        "diverged": asked.diverged,
        "change_code": asked.change_code,
        "device": training.device,
        "torch": torch.__version__,
        **plans,
    }


def _sum(x: Any) -> float:
    return float(x.detach().double().sum()) if isinstance(x, torch.Tensor) else 0.0
