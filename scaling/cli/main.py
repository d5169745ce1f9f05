"""The ``scaling`` command: the one place where theory, catalogue and measurement meet.

The verbs that measure are in measuring.py and claiming.py; those that derive import sympy only, and
torch when a measurement is asked for. Exit codes: 0 agree (or done), 1 contradict (or different),
2 invalid input, 3 inconclusive or crossover, 70 what nobody foresaw (failures.py), 130 interrupted.
"""

from __future__ import annotations

import gc
import sys
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scaling.cli.checking_model import check
from scaling.cli.claiming import claims
from scaling.cli.failures import FAILED, silence, told
from scaling.cli.measuring import (
    ALIGNED_STEPS,
    align,
    explain_measured,
    measure,
    measured_alignments,
    numbers_asked,
    verify,
)
from scaling.cli.options import (
    AlignmentOption,
    InitOption,
    ModelOptions,
    NetworkOptions,
    NumberOptions,
    RequireOption,
    RoundingName,
    RoundingOption,
    RuleArgument,
    SampleOptions,
    SetOption,
    SolveForOption,
    StepOption,
    StepsOption,
    Style,
    StyleOption,
    SweepRun,
    verb,
)
from scaling.cli.phasing import phase
from scaling.cli.planning import plan
from scaling.cli.probing import probe
from scaling.cli.reporting import report
from scaling.cli.requests import (
    catalogue_names,
    literal_of,
    missing_package,
    numbers_given,
    problem_of,
    solution_of,
    subject_of,
    table_of,
)
from scaling.cli.transferring import transfer, tune
from scaling.sizes.errors import InvalidInput, NotCovered, ScalingError, unknown

if TYPE_CHECKING:
    from scaling.report.tables import Table
    from scaling.solve.inverse import Inverse
    from scaling.states.problem import Problem

INTERRUPTED = 130

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="How an optimizer's hyper-parameters must change with width, derived from its update "
    "rule and checked by measurement.",
)


def _versions(asked: bool) -> None:
    """Our version and those of the libraries that answers rest on."""
    if asked:
        from importlib.metadata import PackageNotFoundError, version

        for name in ("scaling", "sympy", "numpy", "torch"):
            try:
                typer.echo(f"{name} {version(name)}")
            except PackageNotFoundError:
                typer.echo(f"{name} is not installed")
        raise typer.Exit()


@app.callback()
def beside_verbs(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_versions, help="Show the versions and exit."
        ),
    ] = False,
) -> None:
    """Options without a verb; the help of the command is that of `app`."""


# --- verbs that derive --------------------------------------------------------------------------


@app.command("list")
@verb
def list_command(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Show the rule of this one.")
    ] = None,
    recipes: Annotated[
        bool, typer.Option("--recipes", help="List the ready-made recipes in its place.")
    ] = False,
    style: StyleOption = Style.text,
) -> None:
    """List the catalogue, or show the rule of one optimizer.

    Example: scaling list shampoo.
    """
    from derivations.catalogue import catalogue, families, find
    from derivations.ready_made import ready_made
    from scaling.cli.listing import catalogue_pages, catalogue_text, declared_table
    from scaling.solve.derive import derive

    if recipes or name in ready_made():
        _print_recipes(name, style)
    elif style is Style.json:
        from scaling.report.as_json import derived_json, to_json

        chosen = catalogue() if name is None else {name: find(name)}
        typer.echo(to_json({key: derived_json(derive(o.rule)) for key, o in chosen.items()}))
    elif name is None and style is Style.text:
        typer.echo(catalogue_text(families()))
    elif name is None:
        for page in catalogue_pages(families()):
            _print(page, style)
            typer.echo()
    else:
        _print(declared_table(find(name)), style)


def _print_recipes(name: str | None, style: Style) -> None:
    from derivations.ready_made import ready_made
    from scaling.cli.listing import recipe_json, recipe_table, recipes_table, recipes_text

    known = ready_made()
    if name is not None and name not in known:
        raise unknown("ready-made recipe", name, known)
    if style is Style.json:
        from scaling.report.as_json import to_json

        chosen = known if name is None else {name: known[name]}
        typer.echo(to_json({key: recipe_json(one) for key, one in chosen.items()}))
    elif name is None and style is Style.text:
        typer.echo(recipes_text(known.values()))
    else:
        _print(recipes_table(known.values()) if name is None else recipe_table(known[name]), style)


@app.command()
@verb
def table(
    network: NetworkOptions,
    numbers: SampleOptions,
    style: StyleOption = Style.text,
    init: InitOption = None,
    alignment: AlignmentOption = None,
    step: StepOption = 1,
) -> None:
    """Print the exponents of every optimizer of the catalogue.

    Example: scaling table --loss cross_entropy.
    """
    from scaling.report.tables import catalogue_table

    solutions, refused = [], dict[str, str]()
    given = numbers_given(numbers, numbers.samples)
    for name in catalogue_names():
        try:
            asked = problem_of(
                name, None, network, init=init, alignment=alignment, step=step, numbers=given
            )
            solutions.append(solution_of(asked))
        except NotCovered as error:
            refused[name] = error.found
            if len(refused) == len(catalogue_names()):
                raise
    if style is Style.json:
        from scaling.report.as_json import derived_json, to_json

        found = {x.problem.rule.name: derived_json(x) for x in solutions}
        typer.echo(to_json({**found, **{k: {"not_covered": v} for k, v in refused.items()}}))
    else:
        _print(catalogue_table(solutions, refused), style)


@app.command()
@verb
def derive(
    rule: RuleArgument,
    network: NetworkOptions,
    model: ModelOptions,
    numbers: NumberOptions,
    run: SweepRun,
    settings: SetOption = None,
    style: StyleOption = Style.text,
    init: InitOption = None,
    alignment: AlignmentOption = None,
    step: StepOption = 1,
    rounding: RoundingOption = RoundingName.exact,
    steps: StepsOption = ALIGNED_STEPS,
    solve_for: SolveForOption = None,
    require: RequireOption = None,
) -> None:
    """Derive exponents of initialisation, learning rate and damping.

    For a chain of dense layers, or with --model for every tensor of your own model.
    Nothing is measured, unless --alignment measured asks for it; see `scaling align`.
    With --solve-for the other way round: which powers or dampings give what --require says?

    Example: scaling derive "orth(G)", or scaling derive adamw --model gpt.py.
    """
    from scaling.report.tables import derived_table

    if model.batch is not None:
        given = numbers_asked(numbers, run, False)
        problem = problem_of(
            rule, settings, network, init=init, alignment=alignment, step=step,
            rounding=rounding, numbers=given,
        )  # fmt: skip
        _print_batch(problem, solve_for or require, style)
        return
    if model.given(
        network, numbers, run, init=init, alignment=alignment, step=step, steps=steps,
        rounding=rounding,
    ):  # fmt: skip
        from scaling.cli.modelling import derive_model, inverse_on_model

        if solve_for or require:
            asked = rule, model, settings, solve_for or "", require or []
            _print_inverse(inverse_on_model(*asked), style)
        else:
            derive_model(rule, model, settings, style)
        return
    given = numbers_asked(numbers, run, "measured" in str(alignment))
    start = partial(problem_of, rule, settings, network, init=init, practice=True, numbers=given)
    measured = measured_alignments(rule, start, steps, run)
    problem = problem_of(
        rule, settings, network, init=init, alignment=alignment, step=step, rounding=rounding,
        measured=measured, numbers=given,
    )  # fmt: skip
    if solve_for or require:
        from scaling.solve.asked_network import OnChain
        from scaling.solve.inverse import solve_on

        _print_inverse(solve_on(OnChain(problem), solve_for or "", require or []), style)
        return
    solution = solution_of(problem)
    if style is Style.json:
        from scaling.report.as_json import derived_json, to_json

        typer.echo(to_json(derived_json(solution)))
    else:
        _print(derived_table(solution), style)


def _print_batch(problem: Problem, beside: object, style: Style) -> None:
    from scaling.report.batch_tables import batch_json, batch_table
    from scaling.solve.batch_rule import batch_rule

    if beside or problem.step > 1 or problem.setting.batch.grows or problem.sampled_fisher:
        raise InvalidInput(
            "--axis batch beside --solve-for, --require, --step, --batch or --fisher",
            "the first step of a rule, at one width",
            "leave the others out: scaling derive adam --axis batch",
        )
    found = batch_rule(problem.rule, problem.settings, problem.setting)
    if style is Style.json:
        from scaling.report.as_json import to_json

        typer.echo(to_json(batch_json(found)))
    else:
        _print(batch_table(found), style)


def _print_inverse(found: Inverse, style: Style) -> None:
    from scaling.report.inverse_tables import inverse_json, inverse_table

    if style is Style.json:
        from scaling.report.as_json import to_json

        typer.echo(to_json(inverse_json(found)))
    else:
        _print(inverse_table(found), style)


@app.command()
@verb
def predict(
    rule: RuleArgument,
    network: NetworkOptions,
    model: ModelOptions,
    numbers: SampleOptions,
    settings: SetOption = None,
    style: StyleOption = Style.text,
    init: InitOption = None,
    alignment: AlignmentOption = None,
    step: StepOption = 1,
    rounding: RoundingOption = RoundingName.exact,
) -> None:
    """Predict what a step does under given exponents: its regimes.

    Exponents that are not set are the derived ones; those that are set are taken literally.

    Example: scaling predict kfac --set d_rho_B=0.
    """
    from scaling.report.tables import predicted_table
    from scaling.solve.predict import predict as evaluate

    if model.given(network, numbers, init=init, alignment=alignment, step=step, rounding=rounding):
        from scaling.cli.modelling import predict_model

        predict_model(rule, model, settings, style)
        return
    problem = problem_of(
        rule, settings, network, init=init, alignment=alignment, step=step, rounding=rounding,
        numbers=numbers_given(numbers, numbers.samples),
    )  # fmt: skip
    table, bounds = literal_of(problem)
    result = evaluate(problem, table, bounds)
    if style is Style.json:
        from scaling.report.as_json import predicted_json, to_json

        typer.echo(to_json(predicted_json(result)))
    else:
        _print(predicted_table(result), style)


@app.command()
@verb
def explain(
    rule: RuleArgument,
    network: NetworkOptions,
    model: ModelOptions,
    numbers: NumberOptions,
    run: SweepRun,
    layer: Annotated[str, typer.Option(help="Layer to explain.")] = "hidden",
    measured: Annotated[
        bool, typer.Option("--measured", help="Measure every line on dense networks, beside it.")
    ] = False,
    tensor: Annotated[
        str | None, typer.Option("--tensor", help="With --model: the tensor to explain.")
    ] = None,
    settings: SetOption = None,
    style: StyleOption = Style.text,
    init: InitOption = None,
    alignment: AlignmentOption = None,
    step: StepOption = 1,
    rounding: RoundingOption = RoundingName.exact,
) -> None:
    """Print the derivation of one layer or tensor, line by line.

    Example: scaling explain shampoo --layer output.
    """
    from scaling.report.step_lines import Derivation, render_steps
    from scaling.report.tables import Format

    if model.given(
        network, numbers, run, layer=layer, measured=measured, init=init, alignment=alignment,
        step=step, rounding=rounding,
    ):  # fmt: skip
        from scaling.cli.modelling import explain_model

        explain_model(rule, model, tensor, settings, style)
        return
    problem = problem_of(
        rule, settings, network, init=init, alignment=alignment, step=step, rounding=rounding,
        practice=measured, numbers=numbers_asked(numbers, run, measured),
    )  # fmt: skip
    solution = solution_of(problem)
    if layer not in solution.steps:
        raise unknown("layer", layer, solution.steps)
    shown = Derivation(problem.rule, f"{layer} layer", solution.steps[layer])
    if measured:
        about = subject_of(rule, problem, literal=False)
        explain_measured(about, layer, shown, style, run)
    if style is Style.json:
        from scaling.report.as_json import steps_json, to_json

        title = f"{shown.label}: dW = {problem.rule}"
        typer.echo(to_json(steps_json(title, shown.step)))
    else:
        typer.echo(render_steps(shown, Format(style)))


@app.command()
@verb
def compare(
    left: Annotated[str, typer.Argument(metavar="X", help="RULE or 'RULE; k=v; k=v'.")],
    right: Annotated[str, typer.Argument(metavar="Y", help="RULE or 'RULE; k=v; k=v'.")],
    network: NetworkOptions,
    numbers: SampleOptions,
    style: StyleOption = Style.text,
) -> None:
    """Compare two tables of exponents modulo the abc symmetry.

    A table is the derived one of a rule, with literal changes after semicolons:
    'sgd; a_output=1; b_output=0; c_output=-1'. It is derived for 'adam; init=ntk' and
    'adam; init=ntk; alignment=full; alignment_output=none'.

    Example: scaling compare 'adam; init=ntk' adam.
    """
    from scaling.report.tables import compared_table
    from scaling.solve.symmetry import compare as compare_tables

    given = numbers_given(numbers, numbers.samples)
    result = compare_tables(*table_of(left, network, given), *table_of(right, network, given))
    if style is Style.json:
        from scaling.report.as_json import compared_json, to_json

        typer.echo(to_json(compared_json(left, right, result)))
    else:
        _print(compared_table(left, right, result), style)
    raise typer.Exit(0 if result.equivalent else 1)


for measuring in (
    claims,
    verify,
    measure,
    align,
    phase,
    plan,
    check,
    probe,
    transfer,
    tune,
    report,
):
    app.command()(measuring)


def _print(table: Table, style: Style) -> None:
    from scaling.report.tables import Format, render

    typer.echo(render(table, Format(style)))


def main() -> None:
    """Entry point: refusals are printed in three parts and exit with 2; see failures.py."""
    gc.disable()  # deriving takes a moment and no cycles; the verbs that measure switch it on
    try:
        code = app(standalone_mode=False)
    except ScalingError as error:
        code = _refused(error)
    except (BrokenPipeError, SystemExit):  # the reader of our output left: no verdict
        sys.stderr.close()
        code = 0
    except ModuleNotFoundError as error:
        code = _missing(error)
    except Exception as error:
        code = _usage(error) if hasattr(error, "format_message") else _failed(error)
    if not gc.isenabled():
        gc.freeze()  # the search for cycles at exit would take a quarter of the time of all
    if code == INTERRUPTED:
        typer.echo("interrupted: finished measurements are kept in --out, if given", err=True)
    raise SystemExit(code or 0)


def _refused(error: ScalingError) -> int:
    typer.echo(str(error), err=True)
    return 2


def _missing(error: ModuleNotFoundError) -> int:
    """A package that is not installed is named; a module of ours that is missing is a failure."""
    try:
        return _refused(missing_package(error))
    except ModuleNotFoundError:
        return _failed(error)


def _usage(error: Any) -> int:
    """The words of the parser of options, in our three parts."""
    if type(error).__name__ == "NoArgsIsHelpError":
        typer.echo(error.format_message())
        return 0
    at = getattr(error, "ctx", None)
    asked = (
        "scaling --help" if at is None or at.parent is None else f"scaling {at.info_name} --help"
    )
    advice = f"run `{asked}`"
    if type(error).__name__ == "NoSuchOption":
        advice += "; a rule that begins with '-' goes in brackets: '(-G)'"
    missing = getattr(error, "param", None) if type(error).__name__ == "MissingParameter" else None
    if missing is not None and missing.opts[0].startswith("-"):
        advice = f"add {missing.opts[0]} {missing.make_metavar(at)}, which `{asked}` explains"
    needed = f"what `{asked}` lists"
    return _refused(InvalidInput(error.format_message(), needed, advice))


def _failed(error: Exception) -> int:
    silence()
    typer.echo(told(error), err=True)
    return FAILED
