"""Tunes at a small size, plans for a large one, trains there, and says what was lost.

    base        every strategy and seed searches there, with a budget in steps
    target      its numbers (and the best ones at a quarter and half of the budget) are trained
                under the plan and under the standard, with the seed of the search
    reference   a grid over the same space at the target itself, for all seeds

At the base a plan multiplies all numbers by one, so plan and standard differ there in the law of
the weights alone (normal, or as the code draws them), and the search is made once, in the plan's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from derivations.recipes import in_practice, recipe_of
from empirical.black_box.handed_over import recipe_with_probes
from empirical.measure.machine import cores
from empirical.trace.given_model import GivenBatch, model_of
from empirical.trace.model_file import GrowingAxis, LossOf, ModelFile, read_model
from empirical.transfer.measuring_transfer import (
    Tick,
    TransferRequest,
    planned_training,
    settings_of,
)
from empirical.transfer.transfer_grid import TransferWay
from empirical.transfer.user_optimizer import DECAY
from empirical.tuning.measured_tuning import SHARES, MeasuredTuning, TunedSmall
from empirical.tuning.search_space import SPACE, SearchSpace, grid_of, read_budget, read_space
from empirical.tuning.tuning_run import TunedPoint, TunedRun, TuningRun
from empirical.tuning.tuning_store import TuningStore
from empirical.tuning.tuning_strategy import (
    ALL,
    HOMES,
    TuningStrategy,
    TuningTask,
    strategy,
)
from empirical.tuning.tuning_workers import TuningWorkers, tuning_workers
from scaling.models.recipe import RATE, Recipe
from scaling.rules.rule import Rule
from scaling.sizes.errors import InvalidInput, NotCovered


@dataclass(frozen=True)
class TuningRequest:
    """The wishes of a tuning.

    Args:
        axis: what grows.
        base: its size where strategies tune.
        at: its size at the target.
        budget: in steps at the base, for each strategy and seed.
        strategies: by name; "all".
        space: to search in.
        steps: of a run.
        seeds: how many; two at least.
        others: sizes of other axes, at the base and the target.
        diverged: a loss above so many times the one before training ends a run.
        change_code: whether the plan's factors of the code are changed, by hooks.
        device: where tensors live.
    """

    axis: str
    base: int
    at: int
    budget: int
    strategies: tuple[str, ...] = (ALL,)
    space: SearchSpace = field(default_factory=lambda: read_space(SPACE))
    steps: int = 100
    seeds: int = 3
    others: Mapping[str, int] = field(default_factory=dict)
    diverged: float = 100.0
    change_code: bool = False
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.at <= self.base:
            raise InvalidInput(
                f"{self.axis}={self.base} at the base and {self.at} at the target",
                "a target above the base: tuning small is to save tuning large",
                f"pass --at {self.axis}={16 * self.base}",
            )
        if self.seeds < 2:
            raise InvalidInput(
                f"seeds={self.seeds}", "at least 2: intervals are over seeds", "pass --seeds 3"
            )
        if self.budget < self.steps:
            read_budget(f"{self.budget}steps", self.steps)

    def transfer(self, tuned: Mapping[str, float]) -> TransferRequest:
        """The plan of the two sizes."""
        return TransferRequest(
            GrowingAxis(self.axis, (self.base, self.at)), steps=self.steps, seeds=self.seeds,
            base=dict(self.others), tuned=tuned, diverged=self.diverged,
            change_code=self.change_code, device=self.device,
        )  # fmt: skip


def tune(
    build: Callable[..., nn.Module],
    batch: GivenBatch | None,
    recipe: Recipe | Rule | str,
    axis: str,
    base: int,
    at: int,
    budget: str = "20runs",
    strategy: str = ALL,
    space: str = SPACE,
    loss: LossOf | None = None,
    optimizer: Callable[[nn.Module], Any] | None = None,
    out: str | Path | None = None,
    jobs: int = 1,
    **wishes: Any,
) -> MeasuredTuning:
    """Tune a model small by a strategy, train it large, and measure the regret.

    Args:
        build: ``build(**axes)`` returns the module.
        batch: (inputs, targets), or a function of the axes, and of ``seed`` where each step is to
            draw other samples.
        recipe: what trains what: text, a TOML file, a rule, or a name of one.
        axis: what grows.
        base: its size where it is tuned.
        at: its size where it is trained then.
        budget: such as "40runs" or "2000steps", of each strategy and seed.
        strategy: a name, or "all".
        space: such as "lr=2^-12:2^0,eps=1e-10:1e-4".
        loss: of outputs and targets; whole numbers mean cross-entropy, others squared error.
        optimizer: of a model, as its user trains it; without it the rule of the recipe trains.
        out: a folder where finished runs are kept, and taken up again.
        jobs: processes here; 0: as many as there are cores.
        wishes: the other fields of `TuningRequest`.

    Raises:
        InvalidInput: for what cannot be tuned, trained or planned.
        NotCovered: for what neither the theory nor the literature has a power for.

    >>> import torch
    >>> from torch import nn
    >>> def build(width=8):
    ...     return nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, 2, bias=False))
    >>> batch = torch.eye(3), torch.ones(3, 2)
    >>> wishes = dict(strategy="cross-entropy", space="lr=2^-6:2^-1", steps=2, seeds=2)
    >>> found = tune(build, batch, "sign(G)", "width", 8, 32, "4runs", **wishes)
    >>> [len(several) for several in found.strategies.values()]
    [2]
    """
    steps = int(wishes.get("steps", TuningRequest.steps))
    asked = TuningRequest(
        axis, base, at, read_budget(budget, steps), (strategy,), read_space(space), **wishes
    )
    file = replace(model_of(build, batch, loss), optimizer_of=optimizer)
    return _tuned(file, None, recipe, asked, None if out is None else Path(out), jobs, None)


def tune_of_file(
    name: str, recipe: Recipe | Rule | str, asked: TuningRequest, out: Path | None = None,
    jobs: int = 0, tick: Tick | None = None, data_root: Path | None = None,
) -> MeasuredTuning:  # fmt: skip
    """The same for FILE.py or FILE.py:BUILD, and its folder of data; see `tune`."""
    return _tuned(read_model(name, data_root), name, recipe, asked, out, jobs, tick)


def _tuned(
    file: ModelFile, name: str | None, recipe: Recipe | Rule | str, asked: TuningRequest,
    out: Path | None, jobs: int, tick: Tick | None,
) -> MeasuredTuning:  # fmt: skip
    recipe, probed = recipe_with_probes(recipe)
    whole = in_practice(recipe_of(recipe))
    asked.space.refuse_unknown(whole)
    strategies, skipped = chosen(asked, whole, file)
    centre = {k: 2.0**x for k, x in asked.space.centre.items() if k != RATE}
    own = file.optimizer_of is not None
    if own:
        _refuse_what_the_optimizer_lacks(file, whole, asked)
    transfer = asked.transfer({} if own else centre)
    training, notes = planned_training(file, name, recipe, transfer)
    tasks = {
        (one.name, seed): TuningTask(asked.space, asked.steps, asked.budget, seed, asked.base)
        for one in strategies
        for seed in range(asked.seeds)
    }
    tunings = {
        (one.name, seed): (one.tune(tasks[one.name, seed]), tasks[one.name, seed])
        for one in strategies
        for seed in range(asked.seeds)
    }
    total = len(tasks) * asked.budget

    def at_base(run: TuningRun, outcome: TunedRun) -> None:
        if tick is not None:
            tick("tuning", int(min(total, sum(task.spent for task in tasks.values()))), total)

    settings = {**settings_of(training, transfer), "steps": asked.steps}
    count = jobs or (1 if training.device == "cuda" else cores())
    with TuningStore(out, settings) as store:
        with tuning_workers(training, store, count, at_base) as workers:
            answers = dict(workers.played(tunings))
        with tuning_workers(training, store, count, _ticking(tick, asked, len(tasks))) as workers:
            target, reference = _at_target(workers, asked, tasks, answers)
    found = {
        one.name: tuple(
            _small(tasks[one.name, seed], answers[one.name, seed], one.name, seed, target, asked)
            for seed in range(asked.seeds)
        )
        for one in strategies
    }
    told = [f"{key[0]}: {line}" for key, task in tasks.items() for line in task.told]
    return MeasuredTuning(
        str(recipe), asked.axis, asked.base, asked.at, asked.space, asked.budget, asked.steps,
        asked.seeds, found, reference, skipped,
        tuple(dict.fromkeys([*probed, *notes])), tuple(dict.fromkeys(told)),
    )  # fmt: skip


def chosen(
    asked: TuningRequest, recipe: Recipe, file: ModelFile
) -> tuple[list[TuningStrategy], dict[str, str]]:
    """The strategies that are asked for; of "all", those that can tune this, and why others cannot.

    Raises:
        InvalidInput: for one that is asked for by name and cannot.
    """
    every = ALL in asked.strategies
    found, skipped = [], {}
    for name in HOMES if every else dict.fromkeys(asked.strategies):
        try:
            one = strategy(name)
            refused = one.refuses(recipe, file, asked.space)
            if refused is not None:
                raise refused
            found.append(one)
        except (InvalidInput, NotCovered) as refused:
            if not every:
                raise
            skipped[name] = f"{refused.found}; {refused.needed}"
    return found, skipped


def _refuse_what_the_optimizer_lacks(file: ModelFile, recipe: Recipe, asked: TuningRequest) -> None:
    """Refuse numbers that the user's optimizer has under no name."""
    groups = [g for x in file.optimizers(file.build({})) for g in x.param_groups]
    for name in asked.space.names:
        key = DECAY if name in recipe.decays else name
        if name != RATE and not any(key in group for group in groups):
            raise InvalidInput(
                f"{name} to be tuned, and optimizer(model) in {file.path.name}, which has no {key}",
                "a number of its groups, or the rule itself as the optimizer",
                f"leave {name} out of --space, or leave optimizer out of the file",
            )


def _ticking(
    tick: Tick | None, asked: TuningRequest, searches: int
) -> Callable[[TuningRun, TunedRun], None]:
    done = [0]
    points = sum(1 for _ in _reference(asked))
    total = len(TransferWay) * (searches * len(SHARES) + points * asked.seeds)

    def finished(run: TuningRun, outcome: TunedRun) -> None:
        done[0] += 1
        if tick is not None:
            tick(f"training at {run.size}", done[0], total)

    return finished


def reference_runs(space: SearchSpace, runs: int) -> int:
    """Points of the reference: one a doubling of a single number, else as many as the budget.

    At least three values of each number: a grid of its middle alone would be nothing to lose to.

    >>> (
    ...     reference_runs(read_space("lr=2^-6:2^0"), 3),
    ...     reference_runs(read_space("lr=1:8,eps=1:8"), 3),
    ... )
    (7, 9)
    """
    return int(space.widths[0]) + 1 if space.dimension == 1 else max(runs, 3**space.dimension)


def _reference(asked: TuningRequest) -> Iterator[dict[str, float]]:
    return grid_of(asked.space, reference_runs(asked.space, asked.budget // asked.steps))


Targets = dict[tuple[str, int, TransferWay, int], TunedRun]
References = dict[TransferWay, tuple[tuple[TunedPoint, tuple[TunedRun, ...]], ...]]


def _at_target(
    workers: TuningWorkers, asked: TuningRequest, tasks: Mapping[tuple[str, int], TuningTask],
    answers: Mapping[tuple[str, int], TunedPoint],
) -> tuple[Targets, References]:  # fmt: skip
    """The runs at the target: of the strategies' points, and of the reference."""
    runs: dict[Any, TuningRun] = {}
    for way in TransferWay:
        for (name, seed), task in tasks.items():
            for k, point in enumerate(so_far(task, answers[name, seed], asked.budget)):
                run = TuningRun(way, asked.at, seed, point, asked.steps)
                runs[name, seed, way, k] = run
    points = list(_reference(asked))
    for way in TransferWay:
        for k, numbers in enumerate(points):
            for seed in range(asked.seeds):
                point = TunedPoint(numbers)
                runs["", way, k, seed] = TuningRun(way, asked.at, seed, point, asked.steps)
    done = dict(workers.trained(runs))
    reference = {
        way: tuple(
            (TunedPoint(numbers), tuple(done["", way, k, seed] for seed in range(asked.seeds)))
            for k, numbers in enumerate(points)
        )
        for way in TransferWay
    }
    return {key: run for key, run in done.items() if key[0] != ""}, reference


def so_far(task: TuningTask, answer: TunedPoint, budget: float) -> list[TunedPoint]:
    """The best points at the shares of the budget; the last is the answer."""
    found = []
    for share in SHARES[:-1]:
        stood = [point for spent, _, point in task.offered if spent <= share * budget]
        first = task.offered[0][2] if task.offered else answer
        found.append(stood[-1] if stood else first)
    return [*found, answer]


def _small(
    task: TuningTask, answer: TunedPoint, name: str, seed: int, target: Targets,
    asked: TuningRequest,
) -> TunedSmall:  # fmt: skip
    first = task.offered[0][0] if task.offered else task.spent
    spent = [max(first, min(share * asked.budget, task.spent)) for share in SHARES[:-1]]
    runs = {
        way: tuple(target[name, seed, way, k] for k in range(len(SHARES))) for way in TransferWay
    }
    return TunedSmall(task.spent, task.diverged, answer, (*spent, task.spent), runs)
