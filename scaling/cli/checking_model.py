"""`scaling check`: the coordinate check of a plan, or of what a user does today."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scaling.cli.options import (
    MODEL_HELP,
    AxisOption,
    MarginOption,
    SeedOption,
    SeedsOption,
    StepsOption,
    Style,
    StyleOption,
    ThreadsOption,
    verb,
)
from scaling.cli.planning import RecipeArgument
from scaling.cli.requests import lazily
from scaling.sizes.errors import InvalidInput


@verb
def check(
    recipe: RecipeArgument,
    model: Annotated[
        str,
        typer.Option(
            "--model",
            metavar="FILE.py[:BUILD]",
            help=MODEL_HELP,
        ),
    ],
    plan: Annotated[
        Path | None,
        typer.Option(
            "--plan",
            metavar="FILE",
            help="A plan of scaling plan --save: its numbers, made anew at every size.",
        ),
    ] = None,
    as_is: Annotated[
        bool,
        typer.Option(
            "--as-is", help="Weights of the code and numbers of optimizer(model), as they are."
        ),
    ] = False,
    axis: AxisOption = None,
    steps: StepsOption = 1,
    seeds: SeedsOption = None,
    margin: MarginOption = None,
    seed: SeedOption = 0,
    threads: ThreadsOption = 0,
    style: StyleOption = Style.text,
) -> None:
    """Check a model: which node or tensor grows, shrinks, or stays.

    The model's file may have optimizer(model), or optimizer(model, groups) that takes the groups of
    a plan. Without --axis the width is doubled three times from the base of the plan or from the
    default of build.

    Example: scaling check adamw --model gpt.py --axis width=64:512.
    """
    from scaling.report.as_json import to_json
    from scaling.report.tables import Format, render

    if len(axis or ()) > 1:
        raise InvalidInput(
            f"{len(axis or ())} axes at once", "one axis", f"pass --axis {(axis or [''])[0]} alone"
        )
    checking, report = lazily("checks.checking"), lazily("report.model_checks")
    made = None if plan is None else lazily("plans.plan").ModelPlan.load(plan)
    with lazily("measure.machine").blas_threads(threads):
        found = checking.check_file(
            lazily("trace.model_file").read_model(model),
            recipe,
            axis[0] if axis else None,
            plan=made,
            as_is=as_is,
            steps=steps,
            seeds=None if seeds is None else range(seed, seed + seeds),
            first_seed=seed,
            margin=checking.MARGIN if margin is None else margin,
        )
    if style is Style.json:
        typer.echo(to_json(report.coordinates_json(found)))
    else:
        typer.echo(render(report.coordinates_table(found), Format(style)))
    raise typer.Exit(lazily("verify.verification").EXIT_CODE[found.verdict])
