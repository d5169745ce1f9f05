"""`scaling phase`: the regimes of a step over two exponents."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scaling.cli.measuring import request_of
from scaling.cli.options import (
    InitOption,
    MarginOption,
    NetworkOptions,
    RuleArgument,
    SetOption,
    Style,
    StyleOption,
    SweepRun,
    verb,
)
from scaling.cli.requests import lazily, literal_of, problem_of, subject_of
from scaling.sizes.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from empirical.fit.verdict import Verdict
    from empirical.verify.campaign import RunRequest
    from empirical.verify.verification import Check
    from scaling.sizes.plane import Point
    from scaling.solve.phases import PhaseDiagram

PICTURES = ("png", "svg")


@verb
def phase(
    rule: RuleArgument,
    network: NetworkOptions,
    run: SweepRun,
    x: Annotated[
        str, typer.Option("--x", metavar="KEY", help="An exponent, as in --set.")
    ] = "b_output",
    y: Annotated[str, typer.Option("--y", metavar="KEY", help="Another one.")] = "c",
    window: Annotated[
        str,
        typer.Option(
            "--window", metavar="X0:X1,Y0:Y1", help="From and to of both; rational numbers."
        ),
    ] = "0:2,-1:2",
    of: Annotated[
        str, typer.Option("--of", metavar="LAYER", help="The layer of the regimes, or network.")
    ] = "network",
    settings: SetOption = None,
    init: InitOption = None,
    measured: Annotated[
        bool,
        typer.Option(
            "--points", help="Measure at a place of every region and boundary, and judge it."
        ),
    ] = False,
    margin: MarginOption = None,
    picture: Annotated[
        Path | None, typer.Option("--picture", metavar="FILE.png|.svg", help="Draw the diagram.")
    ] = None,
    style: StyleOption = Style.text,
) -> None:
    """Draw the regimes of a step over two exponents, bounded exactly.

    Exponents other than the two are the derived ones, or as they are set. Exits by the verdicts if
    it measures.

    Example: scaling phase kfac --x d_rho_A --y c_hidden --picture phases.svg.
    """
    from scaling.report.phase_tables import phase_json, phase_table
    from scaling.report.tables import Format, render
    from scaling.solve.phases import phases
    from scaling.solve.predict import predict

    if picture is not None and picture.suffix[1:] not in PICTURES:
        raise InvalidInput(
            f"--picture {picture}", f"a name that ends in .{' or .'.join(PICTURES)}",
            f"write --picture {picture.stem or 'phases'}.svg",
        )  # fmt: skip
    if x == y:
        raise InvalidInput(
            f"--x {x} and --y {y}", "two exponents", "write for example --x b_output --y c"
        )
    given = [*(settings or []), f"{x}=x", f"{y}=y"]
    problem = problem_of(rule, given, network, init=init, practice=True)
    exponents, bounds = literal_of(problem)
    found = predict(problem, exponents, bounds)
    diagram = phases(found, x, y, _window(window), of, bounds)
    verdicts, reasons, code = None, list[str](), 0
    if measured:
        request = request_of(run, margin)
        verdicts, reasons, code = _measured(rule, diagram, network, request, settings or [], init)
    if picture is not None:
        drawn = lazily("report.phase_figure").phase_picture(diagram, verdicts, picture.suffix[1:])
        lazily("measure.store").write_or_refuse(picture, drawn, "--picture")
    if style is Style.json:
        from scaling.report.as_json import to_json

        typer.echo(to_json(phase_json(diagram, verdicts, reasons)))
    else:
        typer.echo(render(phase_table(diagram, verdicts, reasons), Format(style)))
    raise typer.Exit(code)


def _window(text: str) -> list[str]:
    """From and to of x, from and to of y."""
    parts = [part.split(":") for part in text.split(",")]
    if [len(part) for part in parts] != [2, 2]:
        raise InvalidInput(
            f"--window {text}", "X0:X1,Y0:Y1", "write for example --window 0:2,-1:3/2"
        )
    return [number.strip() for part in parts for number in part]


def _measured(
    rule: str,
    diagram: PhaseDiagram,
    network: NetworkOptions,
    request: RunRequest,
    settings: Sequence[str],
    init: str | None,
) -> tuple[dict[Point, str], list[str], int]:
    """The verdict at each place of the diagram, on what it rests, and the exit code of all."""
    verifying, report = lazily("verify.verification"), lazily("report.measured_tables")
    verdicts, reasons = {}, list[str]()
    for _, at in diagram.places:
        here = [*settings, f"{diagram.x}={at[0]}", f"{diagram.y}={at[1]}"]
        problem = problem_of(
            rule, here, network, init=init, practice=True, numbers=request.data.numbers
        )
        planned = lazily("verify.campaign").plan([subject_of(rule, problem)], request)[:1]
        with report.progress(sys.stderr.isatty()) as tick:
            found = verifying.verify_all(planned, [], None, tick)
        told = [
            (_of_regime(check), check)
            for check in found.checks
            if diagram.layer in ("network", check.layer)
        ]
        verdicts[at] = lazily("fit.verdict").overall(verdict for verdict, _ in told)
        reasons += dict.fromkeys(
            f"{verdict} at ({at[0]}, {at[1]}), {check.quantity} {check.layer}: "
            + (check.note or f"{check.measured} where {check.predicted} is predicted")
            for verdict, check in told
            if verdict is verdicts[at] and verdict != "agree"
        )
    across = "; ".join(dict.fromkeys(series.about for series in found.series))
    reasons.insert(0, f"measured inside of regions and in the middle of boundaries: {across}")
    code = verifying.exit_code(verdicts.values())
    return {at: str(verdict) for at, verdict in verdicts.items()}, reasons, code


def _of_regime(check: Check) -> Verdict:
    """The verdict of a check, where a regime rests on the sign of an exponent alone."""
    agree, contradict = type(check.verdict).agree, type(check.verdict).contradict
    if check.verdict in (agree, contradict) or not check.predicted:
        return check.verdict
    one_sign = check.measured.low > 0 or check.measured.high < 0
    same = (check.measured.low > 0) == (check.predicted > 0)
    return agree if one_sign and same else check.verdict
