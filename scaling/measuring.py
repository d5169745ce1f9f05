"""The verbs that measure: `scaling verify` and `scaling measure`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from scaling.errors import InvalidInput
from scaling.options import (
    AlignmentOption,
    BackendName,
    BackendOption,
    BiasOption,
    DataOption,
    DepthOption,
    DeviceName,
    DeviceOption,
    FisherName,
    FisherOption,
    InitOption,
    LossName,
    LossOption,
    MemoryOption,
    ModeName,
    ModeOption,
    Phi,
    PhiOption,
    RootOption,
    RuleArgument,
    SamplesOption,
    SchedulerOption,
    SeedsOption,
    SetOption,
    Style,
    StyleOption,
    ThreadsOption,
    WidthsOption,
)
from scaling.questions import (
    catalogue_names,
    lazily,
    literal_of,
    problem_of,
    resolve,
    solution_of,
)


def verify(
    rules: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RULE]...", help="Catalogue names or rules; default: a tour."),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="The whole catalogue.")] = False,
    deep: Annotated[
        bool, typer.Option("--deep", help="Every line of every derivation, on dense networks.")
    ] = False,
    settings: SetOption = None,
    widths: WidthsOption = None,
    seeds: SeedsOption = None,
    expect: Annotated[
        list[str] | None,
        typer.Option(
            "--expect",
            metavar="QUANTITY_LAYER=EXPONENT",
            help="Replace a prediction, e.g. own_hidden=1/4, to see it contradicted.",
        ),
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option("--margin", help="Around a prediction; default 0.02 wide, 0.05 dense."),
    ] = None,
    mode: ModeOption = ModeName.auto,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for records, report and plot.")
    ] = None,
    style: StyleOption = Style.text,
    depth: DepthOption = 3,
    biases: BiasOption = False,
    activation: PhiOption = Phi.relu,
    loss: LossOption = LossName.mse,
    fisher: FisherOption = FisherName.empirical,
    init: InitOption = None,
    alignment: AlignmentOption = "derived",
    data: DataOption = "digits",
    data_root: RootOption = None,
    samples: SamplesOption = 16,
    device: DeviceOption = DeviceName.auto,
    threads: ThreadsOption = 0,
    memory_limit: MemoryOption = None,
    backend: BackendOption = BackendName.local,
    scheduler: SchedulerOption = None,
) -> None:
    """Train networks of growing width for one step and compare measured with derived exponents."""
    verifying, report = lazily("verify"), lazily("report")
    if out is not None:
        lazily("plots").require()
    if everything and rules:
        raise InvalidInput("rules beside --all", "one of the two", "leave one out")
    names = catalogue_names() if everything else rules or list(verifying.TOUR)
    tables = []
    for name in names:
        setting = (depth, biases, activation, loss, fisher, init, alignment)
        problem = problem_of(name, settings, *setting, practice=True)
        tables.append((problem, *literal_of(problem), resolve(name)))
    known = (
        None if widths is None else lazily("widths").parse_widths(widths), seeds, margin,
        lazily("data").load(data, data_root, samples=samples),
        lazily("measure").pick_device(device), threads,
    )  # fmt: skip
    if deep:
        if expect:
            raise InvalidInput("--expect with --deep", "one of the two", "leave --expect out")
        experiment = lazily("campaign").deep_experiment(*known)
        steps = [solution_of(table[0]).steps for table in tables]
        with report.progress(sys.stderr.isatty()) as tick:
            result = verifying.verify_deep(tables, steps, experiment, tick)
        if out is not None:
            report.write(result, out)
        typer.echo(report.render(result, style))
        raise typer.Exit(verifying.EXIT_CODE[result.verdict])
    planned = lazily("campaign").plan(tables, mode, *known, _bytes(memory_limit))
    workers = lazily("cluster").workers_of(backend, scheduler)
    with workers, report.progress(sys.stderr.isatty()) as tick:
        result = verifying.verify_all(planned, expect or [], out, tick)
    if out is not None:
        report.write(result, out)
    typer.echo(report.render(result, style))
    raise typer.Exit(verifying.EXIT_CODE[result.verdict])


def measure(
    rule: RuleArgument,
    width: Annotated[str, typer.Option("--width", help="Width of the network.")] = "256",
    settings: SetOption = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the weights.")] = 0,
    mode: ModeOption = ModeName.auto,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Steps of training.")] = 1,
    style: StyleOption = Style.text,
    depth: DepthOption = 3,
    biases: BiasOption = False,
    activation: PhiOption = Phi.relu,
    loss: LossOption = LossName.mse,
    fisher: FisherOption = FisherName.empirical,
    init: InitOption = None,
    alignment: AlignmentOption = "derived",
    data: DataOption = "digits",
    data_root: RootOption = None,
    samples: SamplesOption = 16,
    device: DeviceOption = DeviceName.auto,
    threads: ThreadsOption = 0,
    memory_limit: MemoryOption = None,
    backend: BackendOption = BackendName.local,
    scheduler: SchedulerOption = None,
) -> None:
    """Measure steps of training at one width: sizes, seconds, peak memory."""
    measuring, report = lazily("measure"), lazily("report")
    once = lazily("once")
    setting = (depth, biases, activation, loss, fisher, init, alignment)
    problem = problem_of(rule, settings, *setting, practice=True)
    table, _ = literal_of(problem)
    options = {
        "width": lazily("widths").parse_width(width),
        "seed": seed,
        "data": lazily("data").load(data, data_root, samples=samples),
        "device": measuring.pick_device(device),
        "threads": threads,
        "mode": mode,
        "steps": steps,
        "memory_limit": _bytes(memory_limit),
    }
    values = {**resolve(rule).values, **problem.settings.values}
    with lazily("cluster").workers_of(backend, scheduler):
        result = once.measure_once(problem, table, values, **options)
    typer.echo(report.render_measurement(result, style))


def _bytes(text: str | None) -> int | None:
    return None if text is None else int(lazily("wide.streaming").parse_bytes(text))
