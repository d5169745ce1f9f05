"""The ``scaling`` command: the one place where theory, catalogue and measurement meet.

The verbs that measure are in measuring.py and claiming.py; those that derive import sympy only, and
torch when a measurement is asked for. Exit codes: 0 agree (or done), 1 contradict (or different),
2 invalid input, 3 inconclusive or crossover.
"""

from __future__ import annotations

import gc
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from scaling.cli.claiming import claims
from scaling.cli.measuring import (
    ALIGNED_STEPS,
    align,
    explain_measured,
    measure,
    measured_alignments,
    verify,
)
from scaling.cli.options import (
    AlignmentOption,
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
    Phi,
    PhiOption,
    RootOption,
    RuleArgument,
    SamplesOption,
    SeedsOption,
    SetOption,
    StepOption,
    StepsOption,
    Style,
    StyleOption,
    ThreadsOption,
    WidthsOption,
)
from scaling.cli.requests import (
    catalogue_names,
    literal_of,
    missing_package,
    problem_of,
    resolve,
    solution_of,
    table_of,
)
from scaling.sizes.errors import InvalidInput, NotCovered, ScalingError, unknown

if TYPE_CHECKING:
    from scaling.report.tables import Table

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
    from scaling.report.as_json import derived_json, to_json
    from scaling.report.tables import Table
    from scaling.solve.derive import derive
    from scaling.states.problem import CONVENTION

    solutions = {name: derive(o.rule) for name, o in catalogue().items()}
    if style is Style.json:
        typer.echo(to_json({name: derived_json(x) for name, x in solutions.items()}))
        return
    rows = tuple(
        (name, *solutions[name].exponents.c.values(), optimizer.about, optimizer.update)
        for name, optimizer in catalogue().items()
    )
    columns = ("name", "c input", "c hidden", "c output", "", "update")
    _print(Table("catalogue", columns, rows, (CONVENTION,)), style)


@app.command()
def table(
    style: StyleOption = Style.text,
    depth: DepthOption = 3,
    biases: BiasOption = False,
    activation: PhiOption = Phi.relu,
    loss: LossOption = LossName.mse,
    init: InitOption = None,
    alignment: AlignmentOption = None,
    step: StepOption = 1,
) -> None:
    """Print the exponents of every optimizer of the catalogue, layer by layer."""
    from scaling.report.as_json import derived_json, to_json
    from scaling.report.tables import catalogue_table

    setting = (depth, biases, activation, loss, FisherName.empirical, init, alignment)
    solutions, refused = [], dict[str, str]()
    for name in catalogue_names():
        try:
            solutions.append(solution_of(problem_of(name, None, *setting, step=step)))
        except NotCovered as error:
            refused[name] = error.found
            if len(refused) == len(catalogue_names()):
                raise
    if style is Style.json:
        found = {x.problem.rule.name: derived_json(x) for x in solutions}
        typer.echo(to_json({**found, **{k: {"not_covered": v} for k, v in refused.items()}}))
    else:
        _print(catalogue_table(solutions, refused), style)


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
    alignment: AlignmentOption = None,
    step: StepOption = 1,
    widths: WidthsOption = None,
    seeds: SeedsOption = None,
    steps: StepsOption = ALIGNED_STEPS,
    data: DataOption = "digits",
    data_root: RootOption = None,
    samples: SamplesOption = 16,
    device: DeviceOption = DeviceName.auto,
    threads: ThreadsOption = 0,
) -> None:
    """Derive the exponents of initialisation, learning rate and damping from an update rule.

    Nothing is measured, unless --alignment measured asks for it; see `scaling align`.
    """
    from scaling.report.as_json import derived_json, to_json
    from scaling.report.tables import derived_table

    setting = (depth, biases, activation, loss, fisher, init)
    where = (data, data_root, samples, device, threads)
    measured = measured_alignments(rule, settings, setting, steps, widths, seeds, *where)
    problem = problem_of(rule, settings, *setting, alignment, measured=measured, step=step)
    solution = solution_of(problem)
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
    alignment: AlignmentOption = None,
    step: StepOption = 1,
) -> None:
    """Predict what a step does under given exponents, and name the regime of each layer.

    Exponents that are not set are the derived ones; those that are set are taken literally.
    """
    from scaling.report.as_json import predicted_json, to_json
    from scaling.report.tables import predicted_table
    from scaling.solve.predict import predict as evaluate

    setting = (depth, biases, activation, loss, fisher, init, alignment)
    problem = problem_of(rule, settings, *setting, step=step)
    table, bounds = literal_of(problem)
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
    alignment: AlignmentOption = None,
    step: StepOption = 1,
    widths: WidthsOption = None,
    seeds: SeedsOption = None,
    data: DataOption = "digits",
    data_root: RootOption = None,
    samples: SamplesOption = 16,
    device: DeviceOption = DeviceName.auto,
    threads: ThreadsOption = 0,
) -> None:
    """Print the derivation of one layer's exponents, step by step."""
    from scaling.report.as_json import steps_json, to_json
    from scaling.report.tables import Format, render_steps

    setting = (depth, biases, activation, loss, fisher, init, alignment)
    problem = problem_of(rule, settings, *setting, practice=measured, step=step)
    solution = solution_of(problem)
    if layer not in solution.steps:
        raise unknown("layer", layer, solution.steps)
    title = f"{problem.rule.name or 'rule'}, {layer} layer: dW = {problem.rule}"
    line = solution.steps[layer]
    if measured:
        shown = solution, resolve(rule), layer, title, style
        explain_measured(*shown, widths, seeds, data, data_root, samples, device, threads)
    if style is Style.json:
        typer.echo(to_json(steps_json(title, line)))
    else:
        typer.echo(render_steps(title, line, Format(style)))


@app.command()
def compare(
    left: Annotated[str, typer.Argument(metavar="X", help="RULE or 'RULE; k=v; k=v'.")],
    right: Annotated[str, typer.Argument(metavar="Y", help="RULE or 'RULE; k=v; k=v'.")],
    style: StyleOption = Style.text,
    depth: DepthOption = 3,
) -> None:
    """Compare two tables of exponents modulo the abc symmetry.

    A table is the derived one of a rule, with literal changes after semicolons:
    'sgd; a_output=1; b_output=0; c_output=-1'. It is derived for 'adam; init=ntk' and
    'adam; init=ntk; alignment=full; alignment_output=none'.
    """
    from scaling.report.as_json import compared_json, to_json
    from scaling.report.tables import compared_table
    from scaling.solve.symmetry import compare as compare_tables

    result = compare_tables(*table_of(left, depth), *table_of(right, depth))
    if style is Style.json:
        typer.echo(to_json(compared_json(left, right, result)))
    else:
        _print(compared_table(left, right, result), style)
    raise typer.Exit(0 if result.equivalent else 1)


app.command()(claims)
app.command()(verify)
app.command()(measure)
app.command()(align)


def _print(table: Table, style: Style) -> None:
    from scaling.report.tables import Format, render

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
        typer.echo(str(missing_package(error)), err=True)
        raise SystemExit(2) from None
    except Exception as error:
        kind, usage = type(error).__name__, getattr(error, "format_message", None)
        if usage is None:
            raise
        if kind == "NoArgsIsHelpError":
            typer.echo(usage())
            raise SystemExit(0) from None
        advice = "run `scaling COMMAND --help`"
        if kind == "NoSuchOption":
            advice += "; a rule that begins with '-' goes in brackets: '(-G)'"
        needed = "the options that `scaling --help` lists"
        refusal = InvalidInput(usage(), needed, advice)
        typer.echo(str(refusal), err=True)
        raise SystemExit(2) from None
    if code == INTERRUPTED:
        typer.echo("interrupted: finished measurements are kept in --out, if given", err=True)
    raise SystemExit(code or 0)
