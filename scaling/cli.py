"""The ``scaling`` command: the one place where theory, catalogue and measurement meet.

Verbs that derive import sympy only; torch is imported inside the verbs that measure. Exit codes:
0 agree (or done), 1 contradict (or different), 2 invalid input, 3 inconclusive or crossover.
"""

from __future__ import annotations

import gc
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scaling.errors import InvalidInput, ScalingError, unknown
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

if TYPE_CHECKING:
    from derivations.declaration import Optimizer
    from scaling.problem import Exponents, Problem
    from scaling.render import Table
    from scaling.scale import Bounds
    from scaling.solve import Derived

INTERRUPTED = 130

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="How an optimizer's hyper-parameters must change with width, derived from its update "
    "rule and checked by measurement.",
)


# --- verbs that derive --------------------------------------------------------------------------


@app.command("list")
def list_command(style: StyleOption = Style.text) -> None:
    """List the catalogue, with the derived learning-rate exponents."""
    from derivations.catalogue import catalogue
    from scaling.problem import CONVENTION
    from scaling.render import Table, derived_json, to_json
    from scaling.solve import derive

    solutions = {name: derive(o.rule) for name, o in catalogue().items()}
    if style is Style.json:
        typer.echo(to_json({name: derived_json(x) for name, x in solutions.items()}))
        return
    rows = tuple(
        (name, *solutions[name].exponents.c.values(), optimizer.update, optimizer.about)
        for name, optimizer in catalogue().items()
    )
    columns = ("name", "c input", "c hidden", "c output", "update", "")
    _print(Table("catalogue", columns, rows, (CONVENTION,)), style)


@app.command()
def table(
    style: StyleOption = Style.text,
    depth: DepthOption = 3,
    biases: BiasOption = False,
    activation: PhiOption = Phi.relu,
    loss: LossOption = LossName.mse,
    init: InitOption = None,
    alignment: AlignmentOption = "derived",
) -> None:
    """Print the exponents of every optimizer of the catalogue, layer by layer."""
    from scaling.render import catalogue_table, derived_json, to_json

    setting = (depth, biases, activation, loss, FisherName.empirical, init, alignment)
    solutions = [_solve(_problem(name, None, *setting)) for name in _catalogue_names()]
    if style is Style.json:
        typer.echo(to_json({x.problem.rule.name: derived_json(x) for x in solutions}))
    else:
        _print(catalogue_table(solutions), style)


@app.command()
def derive(
    rule: RuleArgument,
    settings: SetOption = None,
    style: StyleOption = Style.text,
    depth: DepthOption = 3,
    biases: BiasOption = False,
    activation: PhiOption = Phi.relu,
    loss: LossOption = LossName.mse,
    fisher: FisherOption = FisherName.empirical,
    init: InitOption = None,
    alignment: AlignmentOption = "derived",
) -> None:
    """Derive the exponents of initialisation, learning rate and damping from an update rule."""
    from scaling.render import derived_json, derived_table, to_json

    problem = _problem(rule, settings, depth, biases, activation, loss, fisher, init, alignment)
    solution = _solve(problem)
    if style is Style.json:
        typer.echo(to_json(derived_json(solution)))
    else:
        _print(derived_table(solution), style)


@app.command()
def predict(
    rule: RuleArgument,
    settings: SetOption = None,
    style: StyleOption = Style.text,
    depth: DepthOption = 3,
    biases: BiasOption = False,
    activation: PhiOption = Phi.relu,
    loss: LossOption = LossName.mse,
    fisher: FisherOption = FisherName.empirical,
    init: InitOption = None,
    alignment: AlignmentOption = "derived",
) -> None:
    """Predict what one step does under given exponents, and name the regime of each layer.

    Exponents that are not set are the derived ones; those that are set are taken literally.
    """
    from scaling.prediction import predict as evaluate
    from scaling.render import predicted_json, predicted_table, to_json

    problem = _problem(rule, settings, depth, biases, activation, loss, fisher, init, alignment)
    table, bounds = _literal(problem)
    result = evaluate(problem, table, bounds)
    if style is Style.json:
        typer.echo(to_json(predicted_json(result)))
    else:
        _print(predicted_table(result), style)


@app.command()
def explain(
    rule: RuleArgument,
    layer: Annotated[str, typer.Option(help="Layer to explain.")] = "hidden",
    measured: Annotated[
        bool, typer.Option("--measured", help="Measure every line on dense networks, beside it.")
    ] = False,
    settings: SetOption = None,
    style: StyleOption = Style.text,
    depth: DepthOption = 3,
    biases: BiasOption = False,
    activation: PhiOption = Phi.relu,
    loss: LossOption = LossName.mse,
    fisher: FisherOption = FisherName.empirical,
    init: InitOption = None,
    alignment: AlignmentOption = "derived",
    widths: WidthsOption = None,
    seeds: SeedsOption = None,
    data: DataOption = "digits",
    data_root: RootOption = None,
    samples: SamplesOption = 16,
    device: DeviceOption = DeviceName.auto,
    threads: ThreadsOption = 0,
) -> None:
    """Print the derivation of one layer's exponents, step by step."""
    from scaling.render import Format, render_steps, steps_json, to_json

    setting = (depth, biases, activation, loss, fisher, init, alignment)
    problem = _problem(rule, settings, *setting, practice=measured)
    solution = _solve(problem)
    if layer not in solution.steps:
        raise unknown("layer", layer, solution.steps)
    title = f"{problem.rule.name or 'rule'}, {layer} layer: dW = {problem.rule}"
    step = solution.steps[layer]
    if measured:
        campaign, report = _empirical("campaign"), _empirical("report")
        known = _empirical("data").load(data, data_root, samples=samples)
        experiment = campaign.deep_experiment(
            None if widths is None else _empirical("widths").parse_widths(widths), seeds, None,
            known, _empirical("measure").pick_device(device), threads,
        )  # fmt: skip
        row = (problem, solution.exponents, solution.bounds, _resolve(rule))
        trial = campaign.trial_of(row, experiment)
        shared = experiment.widths, experiment.seeds, experiment.margin
        with _empirical("measure").blas_threads(threads):
            lines = _empirical("nodes").measured_lines(trial, {layer: step}, *shared)[layer]
        typer.echo(report.render_lines(title, lines, style))
        raise typer.Exit(
            _empirical("verify").exit_code([x.verdict for x in lines if x.verdict is not None])
        )
    if style is Style.json:
        typer.echo(to_json(steps_json(title, step)))
    else:
        typer.echo(render_steps(title, step, Format(style)))


@app.command()
def compare(
    left: Annotated[str, typer.Argument(metavar="X", help="RULE or 'RULE; k=v; k=v'.")],
    right: Annotated[str, typer.Argument(metavar="Y", help="RULE or 'RULE; k=v; k=v'.")],
    style: StyleOption = Style.text,
    depth: DepthOption = 3,
) -> None:
    """Compare two tables of exponents modulo the abc symmetry.

    A table is the derived one of a rule, with literal changes after semicolons:
    'sgd; a_output=1; b_output=0; c_output=-1'.
    """
    from scaling.render import compared_json, compared_table, to_json
    from scaling.symmetry import compare as compare_tables

    tables: list[tuple[Problem, Exponents]] = []
    for text in (left, right):
        rule, *changes = (part.strip() for part in text.split(";"))
        problem = _problem(rule, changes, depth, False)
        tables.append((problem, _literal(problem)[0]))
    result = compare_tables(*tables[0], *tables[1])
    if style is Style.json:
        typer.echo(to_json(compared_json(left, right, result)))
    else:
        _print(compared_table(left, right, result), style)
    raise typer.Exit(0 if result.equivalent else 1)


# --- verbs that measure -------------------------------------------------------------------------


@app.command()
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
    verifying, report = _empirical("verify"), _empirical("report")
    if out is not None:
        _empirical("plots").require()
    if everything and rules:
        raise InvalidInput("rules beside --all", "one of the two", "leave one out")
    names = _catalogue_names() if everything else rules or list(verifying.TOUR)
    tables = []
    for name in names:
        setting = (depth, biases, activation, loss, fisher, init, alignment)
        problem = _problem(name, settings, *setting, practice=True)
        tables.append((problem, *_literal(problem), _resolve(name)))
    known = (
        None if widths is None else _empirical("widths").parse_widths(widths), seeds, margin,
        _empirical("data").load(data, data_root, samples=samples),
        _empirical("measure").pick_device(device), threads,
    )  # fmt: skip
    if deep:
        if expect:
            raise InvalidInput("--expect with --deep", "one of the two", "leave --expect out")
        experiment = _empirical("campaign").deep_experiment(*known)
        steps = [_solve(table[0]).steps for table in tables]
        with report.progress(sys.stderr.isatty()) as tick:
            result = verifying.verify_deep(tables, steps, experiment, tick)
        if out is not None:
            report.write(result, out)
        typer.echo(report.render(result, style))
        raise typer.Exit(verifying.EXIT_CODE[result.verdict])
    planned = _empirical("campaign").plan(tables, mode, *known, _bytes(memory_limit))
    workers = _empirical("cluster").workers_of(backend, scheduler)
    with workers, report.progress(sys.stderr.isatty()) as tick:
        result = verifying.verify_all(planned, expect or [], out, tick)
    if out is not None:
        report.write(result, out)
    typer.echo(report.render(result, style))
    raise typer.Exit(verifying.EXIT_CODE[result.verdict])


@app.command()
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
    measuring, report = _empirical("measure"), _empirical("report")
    once = _empirical("once")
    setting = (depth, biases, activation, loss, fisher, init, alignment)
    problem = _problem(rule, settings, *setting, practice=True)
    table, _ = _literal(problem)
    options = {
        "width": _empirical("widths").parse_width(width),
        "seed": seed,
        "data": _empirical("data").load(data, data_root, samples=samples),
        "device": measuring.pick_device(device),
        "threads": threads,
        "mode": mode,
        "steps": steps,
        "memory_limit": _bytes(memory_limit),
    }
    values = {**_resolve(rule).values, **problem.settings.values}
    with _empirical("cluster").workers_of(backend, scheduler):
        result = once.measure_once(problem, table, values, **options)
    typer.echo(report.render_measurement(result, style))


def _bytes(text: str | None) -> int | None:
    return None if text is None else int(_empirical("wide.streaming").parse_bytes(text))


def _catalogue_names() -> list[str]:
    from derivations.catalogue import catalogue

    return list(catalogue())


# --- helpers ------------------------------------------------------------------------------------


def _resolve(text: str) -> Optimizer:
    """A catalogue entry, or rule text as an undeclared optimizer."""
    from derivations.catalogue import catalogue, find
    from derivations.declaration import Optimizer
    from scaling.parser import parse

    name = text.strip()
    if name in catalogue() or re.fullmatch(r"[A-Za-z]\w{1,}", name):
        return find(name)
    parse(name)
    return Optimizer(name="", update=name, about="", reference="")


def _problem(
    rule: str,
    settings: list[str] | None,
    depth: int = 3,
    biases: bool = False,
    activation: Phi = Phi.relu,
    loss: LossName = LossName.mse,
    fisher: FisherName = FisherName.empirical,
    init: str | None = None,
    alignment: str = "derived",
    practice: bool = False,
) -> Problem:
    """Everything that fixes what an exponent means.

    ``practice`` gives the rule's exponent symbols the values that its declaration names, where the
    user gave none: measurements need numbers, derivations keep the symbols.
    """
    from dataclasses import replace

    from sympy import Rational

    from scaling.ledger import Activation, Loss, Setting, mlp
    from scaling.presets import alignment as read_alignment
    from scaling.presets import parametrization
    from scaling.problem import Problem
    from scaling.settings import read_settings

    layers = mlp(depth, biases)
    phi = next(member for member in Activation if member.label == activation)
    declared = _resolve(rule)
    preset = [] if init is None else parametrization(init, layers)
    chosen = read_settings([*preset, *(settings or [])], declared.rule, layers)
    if practice:
        usual = {k: Rational(*x.as_integer_ratio()) for k, x in declared.exponents.items()}
        chosen = replace(chosen, exponents={**usual, **chosen.exponents})
    setting = Setting(layers, phi, Loss(loss), read_alignment(alignment))
    return Problem(declared.rule, setting, chosen, fisher is FisherName.true)


def _solve(problem: Problem, literal: bool = False) -> Derived:
    from scaling.settings import Settings
    from scaling.solve import derive

    settings = problem.settings
    if literal:
        settings = Settings(exponents=settings.exponents)
    return derive(problem.rule, settings, problem.setting, sampled_fisher=problem.sampled_fisher)


def _literal(problem: Problem) -> tuple[Exponents, Bounds]:
    """The derived table with what is set taken literally, and what is known of its symbols."""
    from sympy import S, Symbol

    solution = _solve(problem, literal=True)
    table = solution.exponents.updated(problem.settings)
    known = {b.name: (S.Zero, S.Infinity) for b in table.b.values() if isinstance(b, Symbol)}
    return table, problem.bounds(known)


def _empirical(module: str):  # type: ignore[no-untyped-def]
    import importlib

    gc.enable()
    try:
        return importlib.import_module(f"empirical.{module}")
    except ModuleNotFoundError as error:
        raise _missing(error) from None


def _missing(error: ModuleNotFoundError) -> InvalidInput:
    """What to install; our own modules cannot be missing, so that is a bug and stays one."""
    if error.name is None or error.name.split(".")[0] in ("empirical", "scaling", "derivations"):
        raise error
    if error.name.split(".")[0] in ("dask", "distributed"):
        extra, what = "cluster", "a Dask cluster needs"
    else:
        extra, what = "empirical", "measuring needs"
    return InvalidInput(
        f"no package '{error.name}', which {what}",
        f"the extra '{extra}' of this package",
        f"pip install 'scaling[{extra}]'",
    )


def _print(table: Table, style: Style) -> None:
    from scaling.render import Format, render

    typer.echo(render(table, Format(style)))


def main() -> None:
    """Entry point: refusals are printed in three parts and exit with 2."""
    gc.disable()  # deriving takes a moment and no cycles; the verbs that measure switch it on
    try:
        code = app(standalone_mode=False)
    except ScalingError as error:
        typer.echo(str(error), err=True)
        raise SystemExit(2) from None
    except (BrokenPipeError, SystemExit):  # the reader of our output left: no verdict
        sys.stderr.close()
        raise SystemExit(0) from None
    except ModuleNotFoundError as error:
        typer.echo(str(_missing(error)), err=True)
        raise SystemExit(2) from None
    except Exception as error:
        kind, usage = type(error).__name__, getattr(error, "format_message", None)
        if usage is None:
            raise
        if kind == "NoArgsIsHelpError":
            typer.echo(usage())
            raise SystemExit(0) from None
        refusal = InvalidInput(
            usage(), "the options that `scaling --help` lists", "run `scaling COMMAND --help`"
        )
        typer.echo(str(refusal), err=True)
        raise SystemExit(2) from None
    if code == INTERRUPTED:
        typer.echo("interrupted: finished measurements are kept in --out, if given", err=True)
    raise SystemExit(code or 0)


if __name__ == "__main__":
    main()
