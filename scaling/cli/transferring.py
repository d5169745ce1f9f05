"""`scaling transfer`: does the learning rate that was tuned small stay the best one large?"""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from scaling.cli.options import MODEL_HELP, OutOption, Style, StyleOption, verb
from scaling.cli.planning import RecipeArgument, sizes_of
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
        str,
        typer.Option(
            "--axis", metavar="NAME=SIZES", help="What grows: width=64:1024 or width=64,128,256."
        ),
    ],
    lr: Annotated[
        str,
        typer.Option(
            "--lr",
            metavar="2^A:2^B[:STEP]",
            help="Learning rates at the base, in doublings or steps of them.",
        ),
    ] = "2^-10:2^0",
    steps: Annotated[int, typer.Option("--steps", min=1, help="Steps of training.")] = 100,
    seeds: Annotated[int, typer.Option("--seeds", min=2, help="Seeds; two at least.")] = 4,
    base: Annotated[
        str | None,
        typer.Option(
            "--base",
            metavar="NAME=SIZE,...",
            help="Where the rate is given, and sizes of other axes; default: the smallest size.",
        ),
    ] = None,
    eps: Annotated[float | None, typer.Option("--eps", help="The damping eps at the base.")] = None,
    decay: Annotated[float | None, typer.Option("--decay", help="The decay at the base.")] = None,
    change_code: Annotated[
        bool,
        typer.Option(
            "--change-code", help="Make the code's changes that the plan lists, by hooks."
        ),
    ] = False,
    margin: Annotated[
        float, typer.Option("--margin", help="A drift within it is none, in doublings.")
    ] = 0.25,
    diverged: Annotated[
        float,
        typer.Option(
            "--diverged", help="A loss above so many times that before training ends a run."
        ),
    ] = 100.0,
    backend: Annotated[
        RunnerName, typer.Option("--backend", help="This machine's processes, or Dask.")
    ] = RunnerName.joblib,
    scheduler: Annotated[
        str | None,
        typer.Option(
            "--scheduler",
            metavar="ADDRESS",
            help="Of the Dask cluster: tcp://HOST:8786; without it, Dask has workers here.",
        ),
    ] = None,
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
    """Train a model of growing size at many rates: does the best one stay, under the plan?

    Beside it the same under your standard: the code's own start and one rate for all tensors, or
    `optimizer(model)` of the file as it is. With --out, a run that is interrupted is taken up where
    it was. Exits by the verdict on the plan: the best rate does not drift.

    Example: scaling transfer adam --model mlp.py --axis width=64:1024 --lr 2^-10:2^0 --out tuned.
    """
    measuring, report = lazily("transfer.measuring_transfer"), lazily("report.transfer_report")
    numbers = {"eps": eps, "decay": decay}
    request = measuring.TransferRequest(
        measuring.sizes_along(axis),
        lazily("transfer.transfer_grid").read_rates(lr),
        steps,
        seeds,
        {} if base is None else sizes_of("--base", base),
        {symbol: x for symbol, x in numbers.items() if x is not None},
        margin,
        diverged,
        change_code,
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
