"""`scaling transfer` and `scaling tune`: do numbers that were tuned small win at a large size?

transfer    does the best learning rate stay where it is?
tune        which strategy finds numbers at a small size that are the best at a large one?
"""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from scaling.cli.options import (
    AXIS_HELP,
    BACKEND_HELP,
    MODEL_HELP,
    SCHEDULER_HELP,
    SEEDS_HELP,
    DataRootOption,
    DeviceName,
    DeviceOption,
    DivergedOption,
    JobsOption,
    MarginOption,
    OutOption,
    StepsOption,
    Style,
    StyleOption,
    verb,
)
from scaling.cli.planning import (
    AT_HELP,
    BASE_HELP,
    ChangeCodeOption,
    DecayOption,
    EpsOption,
    RecipeArgument,
    sizes_of,
    tuned_of,
)
from scaling.cli.requests import lazily
from scaling.sizes.errors import InvalidInput


class RunnerName(StrEnum):
    """Who trains the runs."""

    joblib = "joblib"
    dask = "dask"


class CurveLoggerName(StrEnum):
    """Where loss curves go."""

    tensorboard = "tensorboard"
    wandb = "wandb"


@verb
def transfer(
    recipe: RecipeArgument,
    model: Annotated[str, typer.Option("--model", metavar="FILE.py[:BUILD]", help=MODEL_HELP)],
    axis: Annotated[
        list[str] | None, typer.Option("--axis", metavar="NAME=SIZES", help=AXIS_HELP)
    ] = None,
    lr: Annotated[
        str,
        typer.Option(
            "--lr",
            metavar="2^A:2^B[:STEP]",
            help="Learning rates at the base, in doublings or steps of them.",
        ),
    ] = "2^-10:2^0",
    steps: StepsOption = 100,
    seeds: Annotated[int | None, typer.Option("--seeds", min=1, help=SEEDS_HELP)] = None,
    base: Annotated[
        str | None, typer.Option("--base", metavar="NAME=SIZE,...", help=BASE_HELP)
    ] = None,
    eps: EpsOption = None,
    decay: DecayOption = None,
    change_code: ChangeCodeOption = False,
    margin: MarginOption = None,
    diverged: DivergedOption = 100.0,
    data_root: DataRootOption = None,
    backend: Annotated[
        RunnerName, typer.Option("--backend", help=BACKEND_HELP)
    ] = RunnerName.joblib,
    scheduler: Annotated[
        str | None,
        typer.Option("--scheduler", metavar="ADDRESS", help=SCHEDULER_HELP),
    ] = None,
    device: DeviceOption = DeviceName.cpu,
    jobs: JobsOption = 0,
    log: Annotated[
        list[CurveLoggerName] | None,
        typer.Option("--log", help="Loss curves of the runs, into --out. Repeatable."),
    ] = None,
    export: Annotated[
        list[Path] | None,
        typer.Option("--export", metavar="FILE", help="Every run as .csv or .parquet. Repeatable."),
    ] = None,
    out: OutOption = None,
    style: StyleOption = Style.text,
) -> None:
    """Train at growing sizes and many rates: does the best one stay?

    Under the plan, and beside it under your standard: the code's own start and one rate for all
    tensors, or `optimizer(model)` of the file as it is. With --out, a run that is interrupted is
    taken up where it was. Exits by the verdict on the plan: the best rate does not drift.

    Example: scaling transfer adam --model mlp.py --axis width=64:1024 --lr 2^-10:2^0 --out tuned.
    """
    measuring, report = lazily("transfer.measuring_transfer"), lazily("report.transfer_report")
    given = {"seeds": seeds, "margin": margin}
    request = measuring.TransferRequest(
        measuring.one_axis(model, axis or []),
        lazily("transfer.transfer_grid").read_rates(lr),
        steps,
        base={} if base is None else sizes_of("--base", base),
        tuned=tuned_of({"eps": eps, "decay": decay}),
        diverged=diverged,
        change_code=change_code,
        device=device,
        **{name: x for name, x in given.items() if x is not None},
    )
    place = measuring.TransferPlace(
        out,
        lazily("transfer.transfer_workers").TransferBackend(backend),
        scheduler,
        jobs,
        tuple(log or ()),
        tuple(export or ()),
    )
    if out is not None:
        lazily("report.plots").require()
        report.require_own_reports(out)
    with lazily("report.measured_tables").progress(sys.stderr.isatty()) as tick:
        result = measuring.transfer_of_file(model, recipe, request, place, tick, data_root)
    if out is not None:
        report.write_transfer(result, out)
    typer.echo(report.render_transfer(result, style))
    raise typer.Exit(lazily("verify.verification").EXIT_CODE[result.verdict()])


@verb
def tune(
    recipe: RecipeArgument,
    model: Annotated[str, typer.Option("--model", metavar="FILE.py[:BUILD]", help=MODEL_HELP)],
    at: Annotated[str, typer.Option("--at", metavar="NAME=SIZE,...", help=AT_HELP)],
    axis: Annotated[
        list[str] | None, typer.Option("--axis", metavar="NAME=SIZES", help=AXIS_HELP)
    ] = None,
    strategy: Annotated[
        str,
        typer.Option(
            "--strategy",
            help="random, grid, tpe, cross-entropy, morl, .. (docs/tuning.md), several with "
            "commas, or all.",
        ),
    ] = "all",
    budget: Annotated[
        str,
        typer.Option(
            "--budget", metavar="NUMBER(steps|runs)", help="At the base, of a strategy and a seed."
        ),
    ] = "20runs",
    space: Annotated[
        str,
        typer.Option(
            "--space",
            metavar="NUMBER=LOW:HIGH,...",
            help="The numbers that are tuned, at the base; searched in their logarithm.",
        ),
    ] = "lr=2^-12:2^0",
    steps: StepsOption = 100,
    seeds: Annotated[int | None, typer.Option("--seeds", min=1, help=SEEDS_HELP)] = None,
    change_code: ChangeCodeOption = False,
    diverged: DivergedOption = 100.0,
    data_root: DataRootOption = None,
    device: DeviceOption = DeviceName.cpu,
    jobs: JobsOption = 0,
    out: OutOption = None,
    style: StyleOption = Style.text,
) -> None:
    """Tune small, train large: what is the regret?

    Every strategy tunes at the size of --axis; its numbers are trained at that of --at under the
    plan and under your standard, and compared with tuning there. With --out, a run that is
    interrupted is taken up where it was.

    Example: scaling tune sgd --model mlp.py --axis width=64 --at width=1024 --strategy tpe.
    """
    spaces, report = lazily("tuning.search_space"), lazily("report.tuning_report")
    measuring = lazily("tuning.measuring_tuning")
    name, base, target = _sizes(axis or [], at)
    request = measuring.TuningRequest(
        name,
        base,
        target,
        spaces.read_budget(budget, steps),
        tuple(part.strip() for part in strategy.split(",")),
        spaces.read_space(space),
        steps,
        **({} if seeds is None else {"seeds": seeds}),
        diverged=diverged,
        change_code=change_code,
        device=device,
    )
    if out is not None:
        lazily("report.plots").require()
        report.require_own_tuning(out)
    with lazily("report.measured_tables").progress(sys.stderr.isatty()) as tick:
        result = measuring.tune_of_file(model, recipe, request, out, jobs, tick, data_root)
    if out is not None:
        report.write_tuning(result, out)
    typer.echo(report.render_tuning(result, style))


def _sizes(axis: list[str], at: str) -> tuple[str, int, int]:
    """The axis, its size at the base and at the target."""
    target = sizes_of("--at", at)
    if len(axis) != 1 or len(target) != 1:
        raise InvalidInput(
            f"{len(axis)} axes at the base and {len(target)} at the target",
            "one axis, with the size to tune at and the size to train at",
            "write for example --axis width=64 --at width=1024",
        )
    base = sizes_of("--axis", axis[0])
    (name, size), (other, larger) = *base.items(), *target.items()
    if name != other:
        raise InvalidInput(
            f"--axis {name} and --at {other}",
            "one axis",
            f"write for example --at {name}={16 * size}",
        )
    return name, size, larger
