"""`scaling transfer`: does the learning rate that was tuned small stay the best one large?"""

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
    DeviceName,
    DeviceOption,
    MarginOption,
    OutOption,
    StepsOption,
    Style,
    StyleOption,
    verb,
)
from scaling.cli.planning import BASE_HELP, ChangeCodeOption, RecipeArgument, sizes_of
from scaling.cli.requests import lazily


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
    eps: Annotated[float | None, typer.Option("--eps", help="The damping eps at the base.")] = None,
    decay: Annotated[float | None, typer.Option("--decay", help="The decay at the base.")] = None,
    change_code: ChangeCodeOption = False,
    margin: MarginOption = None,
    diverged: Annotated[
        float,
        typer.Option(
            "--diverged", help="A loss above so many times that before training ends a run."
        ),
    ] = 100.0,
    backend: Annotated[
        RunnerName, typer.Option("--backend", help=BACKEND_HELP)
    ] = RunnerName.joblib,
    scheduler: Annotated[
        str | None,
        typer.Option("--scheduler", metavar="ADDRESS", help=SCHEDULER_HELP),
    ] = None,
    device: DeviceOption = DeviceName.cpu,
    jobs: Annotated[
        int, typer.Option("--jobs", min=0, help="Processes, of a thread each; 0: all cores.")
    ] = 0,
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
    numbers = {"eps": eps, "decay": decay}
    given = {"seeds": seeds, "margin": margin}
    request = measuring.TransferRequest(
        measuring.one_axis(model, axis or []),
        lazily("transfer.transfer_grid").read_rates(lr),
        steps,
        base={} if base is None else sizes_of("--base", base),
        tuned={symbol: x for symbol, x in numbers.items() if x is not None},
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
        result = measuring.transfer_of_file(model, recipe, request, place, tick)
    if out is not None:
        report.write_transfer(result, out)
    typer.echo(report.render_transfer(result, style))
    raise typer.Exit(lazily("verify.verification").EXIT_CODE[result.verdict()])
