"""The verb `scaling claims`: the paper's statements, the objects that tests and notebook run."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import Annotated

import typer

from scaling.cli.options import (
    DeviceName,
    DeviceOption,
    OutOption,
    SeedOption,
    Style,
    StyleOption,
    ThreadsOption,
    verb,
)
from scaling.cli.requests import lazily
from scaling.sizes.errors import InvalidInput


class TierName(StrEnum):
    """How much is spent."""

    ci = "ci"
    desk = "desk"
    paper = "paper"


@verb
def claims(
    ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ID]...", help="A claim (4b) or a group (4); default: all."),
    ] = None,
    list_only: Annotated[bool, typer.Option("--list", help="List the claims, run none.")] = False,
    tier: Annotated[
        TierName, typer.Option(help="ci: minutes; desk: an hour; paper: its widths, for a GPU.")
    ] = TierName.ci,
    full: Annotated[bool, typer.Option("--full", help="Show the evidence of every claim.")] = False,
    redraw: Annotated[
        bool, typer.Option("--redraw", help="Draw the figures of --out again; run nothing.")
    ] = False,
    out: OutOption = None,
    seed: SeedOption = 0,
    style: StyleOption = Style.text,
    device: DeviceOption = DeviceName.cpu,
    threads: ThreadsOption = 0,
) -> None:
    """Check the claims of the papers: derive, measure, try to refute.

    With --out a run that was cut off, killed as well, is taken up where it was: what every cell
    measured is kept there, and the report of every claim that is finished.

    Example: scaling claims 4b --full.
    """
    report, registry = lazily("claims.claim_report"), lazily("claims.registry")
    chosen = registry.find(ids or [str(group.number) for group in registry.groups()])
    if redraw:
        if out is None:
            raise InvalidInput("--redraw without --out", "the folder of a run", "add --out DIR")
        for path in lazily("claims.figures").redraw(out):
            typer.echo(path)
        return
    if list_only:
        _list(report, chosen, style)
        return
    if out is not None:
        lazily("report.plots").require()
        report.require_own(out)
    module, machine = lazily("claims.environment"), lazily("measure.machine")
    with lazily("report.measured_tables").progress(sys.stderr.isatty()) as tick:
        context = module.Environment(
            module.Tier(tier),
            machine.pick_device(device),
            threads or machine.cores(),
            out,
            seed,
            tick,
        )
        context.require()
        chosen, left_out = registry.runnable(chosen)
        about = f"tier {tier}, {context.device}, seed {seed}; {module.describe(context.tier)}"
        about = "; ".join([about, *left_out])
        results = []
        for claim in chosen:
            results.append(claim.run(context))
            if out is not None and len(results) < len(chosen):
                so_far = f"{about}; {len(results)} of {len(chosen)} claims so far"
                report.write_tables(results, so_far, out)
    if out is not None:
        report.write(results, about, out)
    typer.echo(report.render(results, about, style, full))
    raise typer.Exit(
        lazily("verify.verification").exit_code([result.verdict for result in results])
    )


def _list(report, chosen, style: Style) -> None:  # type: ignore[no-untyped-def]
    from scaling.report.as_json import to_json
    from scaling.report.tables import Format, render

    if style is Style.json:
        typer.echo(to_json({"claims": [report.claim_json(claim) for claim in chosen]}))
    else:
        typer.echo(render(report.listing(chosen), Format(style)))
