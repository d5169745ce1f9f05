"""The verbs that measure: `scaling verify`, `measure`, `align` and what other verbs measure."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scaling.cli.options import (
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
    QuantityName,
    QuantityOption,
    RootOption,
    RuleArgument,
    SamplesOption,
    SchedulerOption,
    SeedsOption,
    SetOption,
    StepOption,
    StepsOption,
    Style,
    StyleOption,
    ThreadsOption,
    WidthsOption,
    folder,
)
from scaling.cli.requests import (
    catalogue_names,
    lazily,
    literal_of,
    problem_of,
    resolve,
    solution_of,
)
from scaling.sizes.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from derivations.declaration import Optimizer
    from scaling.models.alignment import Alignment
    from scaling.solve.derive import Derived
    from scaling.solve.presets import MeasuredAlignment


ALIGNED_STEPS = 8
"""Of the verbs that measure alignments, where --steps is not given."""


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
    quantity: QuantityOption = QuantityName.all,
    out: Annotated[
        Path | None,
        typer.Option("--out", parser=folder, help="Folder for records, report and plot."),
    ] = None,
    style: StyleOption = Style.text,
    depth: DepthOption = 3,
    biases: BiasOption = False,
    activation: PhiOption = Phi.relu,
    loss: LossOption = LossName.mse,
    fisher: FisherOption = FisherName.empirical,
    init: InitOption = None,
    alignment: AlignmentOption = None,
    step: StepOption = 1,
    data: DataOption = "digits",
    data_root: RootOption = None,
    samples: SamplesOption = 16,
    device: DeviceOption = DeviceName.auto,
    threads: ThreadsOption = 0,
    memory_limit: MemoryOption = None,
    backend: BackendOption = BackendName.local,
    scheduler: SchedulerOption = None,
) -> None:
    """Train networks of growing width for a step and compare measured with derived exponents."""
    verifying, report = lazily("verify.verification"), lazily("report.measured_tables")
    if out is not None:
        lazily("report.plots").require()
        report.require_own(out)
    if everything and rules:
        raise InvalidInput("rules beside --all", "one of the two", "leave one out")
    names = catalogue_names() if everything else rules or list(verifying.TOUR)
    tables = []
    for name in names:
        setting = (depth, biases, activation, loss, fisher, init, alignment)
        problem = problem_of(name, settings, *setting, practice=True, step=step)
        tables.append((problem, *literal_of(problem), resolve(name)))
    known = _experiment(widths, seeds, margin, data, data_root, samples, device, threads)
    if deep:
        for option, asked in (("--expect", expect), ("--quantity", quantity is QuantityName.own)):
            if asked:
                raise InvalidInput(f"{option} with --deep", "one of the two", f"leave {option} out")
        experiment = lazily("verify.campaign").deep_experiment(*known)
        steps = [solution_of(table[0]).steps for table in tables]
        with report.progress(sys.stderr.isatty()) as tick:
            result = verifying.verify_deep(tables, steps, experiment, tick)
    else:
        asked = lazily("measure.measured_sizes").Quantity(quantity)
        planned = lazily("verify.campaign").plan(tables, mode, *known, _bytes(memory_limit), asked)
        workers = lazily("verify.cluster").workers_of(backend, scheduler)
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
    quantity: QuantityOption = QuantityName.all,
    steps: StepsOption = 1,
    style: StyleOption = Style.text,
    depth: DepthOption = 3,
    biases: BiasOption = False,
    activation: PhiOption = Phi.relu,
    loss: LossOption = LossName.mse,
    fisher: FisherOption = FisherName.empirical,
    init: InitOption = None,
    alignment: AlignmentOption = None,
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
    once, report = lazily("verify.single"), lazily("report.measured_tables")
    setting = (depth, biases, activation, loss, fisher, init, alignment)
    problem = problem_of(rule, settings, *setting, practice=True)
    table, _ = literal_of(problem)
    options = {
        "width": lazily("measure.widths").parse_width(width),
        "seed": seed,
        "data": lazily("data.sources").load(data, data_root, samples=samples),
        "device": lazily("measure.machine").pick_device(device),
        "threads": threads,
        "mode": mode,
        "steps": steps,
        "memory_limit": _bytes(memory_limit),
        "quantity": lazily("measure.measured_sizes").Quantity(quantity),
    }
    values = {**resolve(rule).values, **problem.settings.values}
    with lazily("verify.cluster").workers_of(backend, scheduler):
        result = once.measure_once(problem, table, values, **options)
    typer.echo(report.render_measurement(result, style))


def align(
    rule: RuleArgument,
    settings: SetOption = None,
    widths: WidthsOption = None,
    seeds: SeedsOption = None,
    steps: StepsOption = ALIGNED_STEPS,
    margin: Annotated[
        float | None, typer.Option("--margin", help="Around a prediction; default 0.1.")
    ] = None,
    style: StyleOption = Style.text,
    depth: DepthOption = 3,
    biases: BiasOption = False,
    activation: PhiOption = Phi.relu,
    loss: LossOption = LossName.mse,
    fisher: FisherOption = FisherName.empirical,
    init: InitOption = None,
    data: DataOption = "digits",
    data_root: RootOption = None,
    samples: SamplesOption = 16,
    device: DeviceOption = DeviceName.auto,
    threads: ThreadsOption = 0,
) -> None:
    """Measure how updates align with what they act on, over steps of training dense networks.

    Exits by the verdicts on what one step has, at step 1 and at later ones. Widths 64 to 1024 and
    8 seeds, where not said otherwise.
    """
    aligned, report = lazily("verify.measured_alignments"), lazily("report.measured_tables")
    setting = (depth, biases, activation, loss, fisher, init)
    problem = problem_of(rule, settings, *setting, practice=True)
    row = (problem, *literal_of(problem), resolve(rule))
    known = _experiment(widths, seeds, margin, data, data_root, samples, device, threads)
    with report.progress(sys.stderr.isatty()) as tick:
        found = aligned.measure_alignments(row, aligned.experiment_of(*known), steps, tick)
    typer.echo(report.render_alignments(found, style))
    raise typer.Exit(lazily("verify.verification").EXIT_CODE[found.verdict])


def measured_alignments(
    rule: str,
    settings: list[str] | None,
    setting: tuple[int, bool, Phi, LossName, FisherName, str | None],
    steps: int,
    widths: str | None,
    seeds: int | None,
    *where: Any,
) -> MeasuredAlignment:
    """What trains networks for ``--alignment measured``, under the exponents of derived alignment.

    ``setting`` is depth, biases, activation, loss, fisher, init; ``where`` is data, their root,
    samples, device, threads.
    """

    def measured(layers: Sequence[str]) -> Mapping[str, Alignment]:
        aligned, report = lazily("verify.measured_alignments"), lazily("report.measured_tables")
        problem = problem_of(rule, settings, *setting, practice=True)
        solution = solution_of(problem)
        row = (problem, solution.exponents, solution.bounds, resolve(rule))
        experiment = aligned.experiment_of(*_experiment(widths, seeds, None, *where))
        with report.progress(sys.stderr.isatty()) as tick:
            found = aligned.measure_alignments(row, experiment, steps, tick)
        given: Mapping[str, Alignment] = aligned.as_given(found, layers)
        return given

    return measured


def explain_measured(
    solution: Derived,
    declared: Optimizer,
    layer: str,
    title: str,
    style: Style,
    widths: str | None,
    seeds: int | None,
    data: str,
    data_root: Path | None,
    samples: int,
    device: DeviceName,
    threads: int,
) -> None:
    """Print one layer's derivation with a measurement beside every line, and exit by verdict."""
    campaign, report = lazily("verify.campaign"), lazily("report.measured_tables")
    known = _experiment(widths, seeds, None, data, data_root, samples, device, threads)
    experiment = campaign.deep_experiment(*known)
    row = (solution.problem, solution.exponents, solution.bounds, declared)
    trial, steps = campaign.trial_of(row, experiment), {layer: solution.steps[layer]}
    shared = experiment.widths, experiment.seeds, experiment.margin
    with lazily("measure.machine").blas_threads(threads):
        lines = lazily("verify.derivation_lines").measured_lines(trial, steps, *shared)[layer]
    typer.echo(report.render_lines(title, lines, style))
    verdicts = [line.verdict for line in lines if line.verdict is not None]
    raise typer.Exit(lazily("verify.verification").exit_code(verdicts))


def _experiment(
    widths: str | None,
    seeds: int | None,
    margin: float | None,
    data: str,
    data_root: Path | None,
    samples: int,
    device: DeviceName,
    threads: int,
) -> tuple[Any, ...]:
    """What `campaign.plan` and `campaign.deep_experiment` take, from what was typed."""
    across = None if widths is None else lazily("measure.widths").parse_widths(widths)
    known = lazily("data.sources").load(data, data_root, samples=samples)
    return across, seeds, margin, known, lazily("measure.machine").pick_device(device), threads


def _bytes(text: str | None) -> int | None:
    return None if text is None else int(lazily("wide.streaming").parse_bytes(text))
