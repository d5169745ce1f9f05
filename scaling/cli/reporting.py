"""`scaling report`: everything about rules or recipes on one page."""

from __future__ import annotations

import shlex
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scaling.cli.measuring import request_of
from scaling.cli.options import (
    InitOption,
    ModelOptions,
    NetworkOptions,
    NumberOptions,
    OutOption,
    SetOption,
    SweepRun,
    verb,
)
from scaling.cli.requests import lazily, numbers_given, problem_of, solution_of, subject_of
from scaling.sizes.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import TypeAlias

    from empirical.measure.trial import Trial
    from empirical.report.page_sections import Section
    from empirical.verify.campaign import Experiment
    from empirical.verify.derivation_lines import Line
    from scaling.solve.derive import Derived

    Lines: TypeAlias = Mapping[str, Sequence[Line]]


@verb
def report(
    network: NetworkOptions,
    model: ModelOptions,
    run: SweepRun,
    recipes: Annotated[
        list[str],
        typer.Argument(metavar="RECIPE...", help="Catalogue names, rules, or recipes of a model."),
    ],
    out: OutOption = None,
    theory: Annotated[bool, typer.Option("--theory", help="Leave out all measurements.")] = False,
    settings: SetOption = None,
    init: InitOption = None,
) -> None:
    """Write all about rules on one page of HTML.

    One file that needs no network. Exits by the verdicts if it measures.

    Example: scaling report kfac shampoo --out report.html.
    """
    if out is None or out.suffix not in (".html", ".htm"):
        raise InvalidInput(
            "no file for the page" if out is None else f"--out {out}",
            "a name that ends in .html",
            "write --out report.html",
        )
    if model.given(network, run, taken=("seed", "seeds", "threads"), init=init):
        sections, axis = _of_model(recipes, model, run, settings, theory)
    else:
        sections, axis = _of_chain(recipes, network, run, settings, init, theory), "width"
    command = shlex.join(["scaling", *sys.argv[1:]])
    text = lazily("report.html_page").page(sections, command, axis, model.model or "")
    lazily("measure.store").write_or_refuse(Path(out), text.encode(), "--out")
    for section in sections:
        typer.echo(f"{section.name}: {section.verdict or 'derived'}")
    typer.echo(f"written: {out}")
    told = [lazily("fit.verdict").Verdict[x.verdict] for x in sections if x.verdict]
    raise typer.Exit(lazily("verify.verification").exit_code(told) if told else 0)


def _of_chain(
    rules: Sequence[str],
    network: NetworkOptions,
    run: SweepRun,
    settings: Sequence[str] | None,
    init: str | None,
    theory: bool,
) -> list[Section]:
    made = lazily("report.page_sections").chain_section
    if theory:
        numbers = numbers_given(NumberOptions(), run.samples)
        return [
            made(solution_of(problem_of(x, settings, network, init=init, numbers=numbers)))
            for x in rules
        ]
    verifying, report = lazily("verify.verification"), lazily("report.measured_tables")
    campaign, request = lazily("verify.campaign"), request_of(run)
    sections = []
    for rule in rules:
        numbers = request.data.numbers
        asked = partial(problem_of, rule, settings, network, init=init, numbers=numbers)
        answer, subject = solution_of(asked()), subject_of(rule, asked(practice=True))
        practice = solution_of(subject.problem)
        deep = campaign.lines_experiment(request)
        with report.progress(sys.stderr.isatty()) as tick:
            planned = campaign.plan([subject], request)
            found = verifying.verify_all(planned, [], None, tick)
            with lazily("measure.machine").blas_threads(run.threads):
                trial = campaign.trial_of(subject, deep)
                lines, unseen = lines_or_why(trial, practice, deep)
        sections.append(made(answer, found, lines, practice, unseen))
    return sections


def lines_or_why(trial: Trial, practice: Derived, at: Experiment) -> tuple[Lines, str]:
    """The lines of derivations, measured, or why they are not; the rest of a page needs none."""
    measured = lazily("verify.derivation_lines").measured_lines
    try:
        seen = measured(trial, practice.steps, at.widths, at.seeds, at.margin, at.first_seed)
    except InvalidInput as error:
        return {}, f"not measured: {error.found}"
    return seen, ""


def _of_model(
    rules: Sequence[str],
    model: ModelOptions,
    run: SweepRun,
    settings: Sequence[str] | None,
    theory: bool,
) -> tuple[list[Section], str]:
    from scaling.cli.modelling import answer_of, measured_models

    made = lazily("report.page_sections").model_section
    sections = []
    for rule in rules:
        answer, notes = answer_of(rule, model, settings)
        found = None if theory else measured_models(rule, model, run, settings)[0]
        sections.append(made(answer, notes, found))
    return sections, answer.graph.axis
