"""The verbs that measure: `scaling verify`, `measure`, `align` and what other verbs measure."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from scaling.cli.options import (
    AlignmentOption,
    InitOption,
    MarginOption,
    ModelOptions,
    ModeOptions,
    NetworkOptions,
    NumberOptions,
    OutOption,
    QuantityName,
    RuleArgument,
    Run,
    SetOption,
    StepOption,
    StepsOption,
    Style,
    StyleOption,
    SweepRun,
    verb,
)
from scaling.cli.requests import (
    catalogue_names,
    lazily,
    literal_of,
    numbers_given,
    problem_of,
    resolve,
    solution_of,
    subject_of,
)
from scaling.sizes.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from empirical.data.sources import Data
    from empirical.verify.campaign import RunRequest
    from empirical.verify.subject import Subject
    from scaling.models.alignment import Alignment
    from scaling.models.batch import Batch
    from scaling.report.step_lines import Derivation
    from scaling.solve.presets import MeasuredAlignment
    from scaling.states.problem import Problem


ALIGNED_STEPS = 8
"""Of the verbs that measure alignments, where --steps is not given."""


@verb
def verify(
    network: NetworkOptions,
    model: ModelOptions,
    run: SweepRun,
    how: ModeOptions,
    rules: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RULE]...", help="Catalogue names or rules; default: a tour."),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="The whole catalogue.")] = False,
    deep: Annotated[
        bool, typer.Option("--deep", help="Every line of every derivation, on dense networks.")
    ] = False,
    settings: SetOption = None,
    init: InitOption = None,
    alignment: AlignmentOption = None,
    step: StepOption = 1,
    expect: Annotated[
        list[str] | None,
        typer.Option(
            "--expect",
            metavar="QUANTITY_LAYER=EXPONENT",
            help="Replace a prediction, e.g. own_hidden=1/4, to see it contradicted.",
        ),
    ] = None,
    margin: MarginOption = None,
    out: OutOption = None,
    style: StyleOption = Style.text,
) -> None:
    """Train networks of growing width, and judge what was derived.

    Example: scaling verify kfac --set d_rho_B=0.
    """
    chain = {"init": init, "alignment": alignment, "step": step, "out": out}
    if model.batch is None and model.given(
        network, run, how, taken=("seed", "seeds", "threads", "device"), **chain
    ):
        names = rules or []
        if len(names) != 1 or everything or deep:
            raise InvalidInput(
                f"{len(names)} rules beside --model", "one", "write scaling verify RULE --model ..."
            )
        from scaling.cli.modelling import verify_model

        with lazily("measure.machine").blas_threads(run.threads):
            verify_model(names[0], model, run, settings, expect, margin, style)
    verifying, report = lazily("verify.verification"), lazily("report.measured_tables")
    if out is not None:
        lazily("report.plots").require()
        report.require_own(out)
    if everything and rules:
        raise InvalidInput("rules beside --all", "one of the two", "leave one out")
    names = catalogue_names() if everything else rules or list(verifying.TOUR)
    if model.batch is not None:
        beside = (deep, expect, out, init, alignment, step != 1, network != NetworkOptions())
        _verify_batch(names, model.batch, run, settings, margin, beside, style)
    request = request_of(run, margin)
    subjects = [
        subject_of(
            name,
            problem_of(
                name, settings, network, init=init, alignment=alignment, step=step, practice=True,
                numbers=request.data.numbers,
            ),
        )
        for name in names
    ]  # fmt: skip
    campaign = lazily("verify.campaign")
    if deep:
        own = how.quantity is QuantityName.own
        for option, asked in (("--expect", expect), ("--quantity", own)):
            if asked:
                raise InvalidInput(f"{option} with --deep", "one of the two", f"leave {option} out")
        steps = [solution_of(subject.problem).steps for subject in subjects]
        with report.progress(sys.stderr.isatty()) as tick:
            experiment = campaign.deep_experiment(request)
            result = verifying.verify_deep(subjects, steps, experiment, tick)
    else:
        quantity = lazily("measure.measured_sizes").Quantity(how.quantity)
        limit = _bytes(how.memory_limit)
        planned = campaign.plan(subjects, request, how.mode, limit, quantity)
        workers = lazily("verify.cluster").workers_of(how.backend, how.scheduler)
        with workers, report.progress(sys.stderr.isatty()) as tick:
            result = verifying.verify_all(planned, expect or [], out, tick)
    if out is not None:
        report.write(result, out)
    typer.echo(report.render(result, style))
    raise typer.Exit(verifying.EXIT_CODE[result.verdict])


def _verify_batch(
    names: Sequence[str],
    sizes: str,
    run: SweepRun,
    settings: list[str] | None,
    margin: float | None,
    beside: Sequence[object],
    style: Style,
) -> None:
    """Measure own updates at growing batches, print them beside powers of n, exit by verdict."""
    if any(beside) or run.samples is not None or run.data != Run.data:
        raise InvalidInput(
            "--axis batch beside options of the network, its data or other sweeps",
            "rules, --set, --widths (one), --seeds, --seed, --margin, --threads and --format",
            "leave the others out: scaling verify sgd adam --axis batch=4:64",
        )
    swept, widths = lazily("verify.batch_sweep"), lazily("measure.widths")
    subjects = [subject_of(name, problem_of(name, settings, practice=True)) for name in names]
    batches = widths.parse_widths(sizes) if sizes else swept.BATCHES
    width = swept.WIDTH if run.widths is None else widths.parse_width(run.widths)
    report, machine = lazily("report.batch_checks"), lazily("measure.machine")
    workers = run.threads or machine.cores()
    with (
        machine.blas_threads(run.threads),
        lazily("report.measured_tables").progress(sys.stderr.isatty()) as tick,
    ):
        found = swept.sweep(
            subjects, batches, width, run.seeds or swept.SEEDS, margin or swept.MARGIN,
            lazily("wide").Streaming(workers=workers), run.seed * 2**16, tick,
        )  # fmt: skip
    typer.echo(report.render(found, style))
    raise typer.Exit(lazily("verify.verification").EXIT_CODE[found.verdict])


@verb
def measure(
    rule: RuleArgument,
    network: NetworkOptions,
    run: Run,
    how: ModeOptions,
    width: Annotated[str, typer.Option("--width", help="Width of the network.")] = "256",
    steps: StepsOption = 1,
    settings: SetOption = None,
    init: InitOption = None,
    alignment: AlignmentOption = None,
    style: StyleOption = Style.text,
) -> None:
    """Measure steps of training at one width: sizes and seconds.

    Example: scaling measure adam --width 1e7.
    """
    once, report = lazily("verify.single"), lazily("report.measured_tables")
    data = _data(run)
    problem = problem_of(
        rule, settings, network, init=init, alignment=alignment, practice=True,
        numbers=data.numbers,
    )  # fmt: skip
    table, _ = literal_of(problem)
    options = {
        "width": lazily("measure.widths").parse_width(width),
        "seed": run.seed,
        "data": data,
        "device": lazily("measure.machine").pick_device(run.device),
        "threads": run.threads,
        "mode": how.mode,
        "steps": steps,
        "memory_limit": _bytes(how.memory_limit),
        "quantity": lazily("measure.measured_sizes").Quantity(how.quantity),
    }
    literals = {name: float(x) for name, x in problem.rule.literals.items()}
    values = {**literals, **resolve(rule).values, **problem.settings.values}
    with lazily("verify.cluster").workers_of(how.backend, how.scheduler):
        result = once.measure_once(problem, table, values, **options)
    typer.echo(report.render_measurement(result, style))


@verb
def align(
    rule: RuleArgument,
    network: NetworkOptions,
    run: SweepRun,
    steps: StepsOption = ALIGNED_STEPS,
    settings: SetOption = None,
    init: InitOption = None,
    margin: MarginOption = None,
    style: StyleOption = Style.text,
) -> None:
    """Measure how updates align with what they act on, over training.

    Exits by the verdicts on what one step has, at step 1 and at later ones. Widths 64 to 1024 and
    8 seeds, where not said otherwise.

    Example: scaling align muon --steps 8.
    """
    aligned, report = lazily("verify.measured_alignments"), lazily("report.measured_tables")
    request = request_of(run, margin)
    problem = problem_of(
        rule, settings, network, init=init, practice=True, numbers=request.data.numbers
    )
    subject, experiment = subject_of(rule, problem), aligned.experiment_of(request)
    with report.progress(sys.stderr.isatty()) as tick:
        found = aligned.measure_alignments(subject, experiment, steps, tick)
    typer.echo(report.render_alignments(found, style))
    raise typer.Exit(lazily("verify.verification").EXIT_CODE[found.verdict])


def measured_alignments(
    rule: str, start: Callable[[], Problem], steps: int, run: SweepRun
) -> MeasuredAlignment:
    """The training of networks for ``--alignment measured``, under exponents of derived alignment.

    ``start`` gives the problem before anything is measured.
    """

    def measured(layers: Sequence[str]) -> Mapping[str, Alignment]:
        aligned, report = lazily("verify.measured_alignments"), lazily("report.measured_tables")
        subject = subject_of(rule, start(), literal=False)
        experiment = aligned.experiment_of(request_of(run))
        with report.progress(sys.stderr.isatty()) as tick:
            found = aligned.measure_alignments(subject, experiment, steps, tick)
        given: Mapping[str, Alignment] = aligned.as_given(found, layers)
        return given

    return measured


def explain_measured(
    subject: Subject, layer: str, derivation: Derivation, style: Style, run: SweepRun
) -> None:
    """Print one layer's derivation with a measurement beside every line, and exit by verdict."""
    report = lazily("report.measured_tables")
    campaign = lazily("verify.campaign")
    experiment = campaign.deep_experiment(request_of(run))
    trial = campaign.trial_of(subject, experiment)
    steps = {layer: derivation.step}
    with lazily("measure.machine").blas_threads(run.threads):
        found = lazily("verify.derivation_lines").measured_lines(
            trial, steps, experiment.widths, experiment.seeds, experiment.margin,
            experiment.first_seed,
        )  # fmt: skip
    (lines,) = found.values()
    typer.echo(report.render_lines(derivation, lines, style))
    verdicts = [line.verdict for line in lines if line.verdict is not None]
    raise typer.Exit(lazily("verify.verification").exit_code(verdicts))


def request_of(run: SweepRun, margin: float | None = None) -> RunRequest:
    """The options of a run, as `campaign` takes them."""
    across = None if run.widths is None else lazily("measure.widths").parse_widths(run.widths)
    device = lazily("measure.machine").pick_device(run.device)
    request: RunRequest = lazily("verify.campaign").RunRequest(
        _data(run), across, run.seeds, margin, device, run.threads, run.seed
    )
    return request


def numbers_asked(numbers: NumberOptions, run: Run, measured: bool) -> Batch:
    """The numbers of the data: as they are given, or those of data that are named or measured on.

    Raises:
        InvalidInput: for numbers beside data that have their own.
    """
    if not measured and run.data == Run.data:
        return numbers_given(numbers, run.samples)
    if numbers != NumberOptions():
        raise InvalidInput(
            f"--classes, --drawn or --features beside the data '{run.data}'",
            "numbers that the data have",
            "leave them out: they are counted",
        )
    found: Batch = _data(run).numbers
    return found


def _data(run: Run) -> Data:
    found: Data = lazily("data.sources").load(run.data, run.data_root, samples=run.samples)
    return found


def _bytes(text: str | None) -> int | None:
    return None if text is None else int(lazily("wide.streaming").parse_bytes(text))
