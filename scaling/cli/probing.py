"""`scaling probe`: an optimizer of someone's library as a black box."""

from __future__ import annotations

from typing import Annotated

import typer

from scaling.cli.options import Style, StyleOption, verb
from scaling.cli.requests import lazily


@verb
def probe(
    optimizer: Annotated[
        str, typer.Argument(metavar="MODULE:CLASS", help="Or FILE.py:CLASS: the optimizer.")
    ],
    kwargs: Annotated[
        str | None,
        typer.Option("--kwargs", metavar="NAME=VALUE,...", help="Keywords that it is built with."),
    ] = None,
    widths: Annotated[
        str | None,
        typer.Option("--widths", metavar="64:1024", help="Widths of the chains; 64 to 1024."),
    ] = None,
    seeds: Annotated[int | None, typer.Option("--seeds", help="Number of seeds; 5.")] = None,
    style: StyleOption = Style.text,
) -> None:
    """Measure an optimizer's own updates; name the rules it equals.

    A black box on chains of growing width: exponents with intervals, measured and not derived.

    Example: scaling probe torch.optim:Adam --kwargs lr=1e-3.
    """
    from scaling.report.as_json import to_json
    from scaling.report.tables import Format, render

    probing = lazily("black_box.probed_optimizer")
    given = lazily("black_box.optimizer_class").read_kwargs(kwargs)
    sizes = probing.WIDTHS if widths is None else lazily("measure.widths").parse_widths(widths)
    found = probing.probe(optimizer, given, sizes, probing.SEEDS if seeds is None else seeds)
    if style is Style.json:
        typer.echo(to_json(found.as_json()))
    else:
        typer.echo(render(found.table(), Format(style)))
