"""The verbs on a user's own model: what they do where --model names its file.

derive    b, c, d of every tensor            predict   a step under exponents that are set
explain   the derivation of one tensor       verify    every node and tensor, measured
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import typer
from sympy import Expr

from scaling.cli.options import ModelOptions, Style, SweepRun
from scaling.cli.requests import lazily
from scaling.models.graph import Graph
from scaling.models.recipe import Recipe, TensorGroup
from scaling.models.settings import Settings, read_settings
from scaling.sizes.errors import InvalidInput, unknown
from scaling.solve.asked_network import OnGraph, trained_layers
from scaling.solve.graph_solution import GraphDerived
from scaling.solve.inverse import Inverse, solve_on

if TYPE_CHECKING:
    from empirical.verify.graph_verification import GraphVerification

Read = tuple[GraphDerived, tuple[str, ...]]
"""The answer for a model along an axis, and what was read into its code."""


def asked_of(
    recipe: str, model: ModelOptions, settings: Sequence[str] | None
) -> list[tuple[OnGraph, tuple[str, ...]]]:
    """The recipe on the graph of a model, and what was read into its code, axis by axis."""
    assert model.model is not None, "asked for where --model is given"
    chosen, probed = lazily("black_box.handed_over").recipe_with_probes(recipe)
    tracing = lazily("trace.trained")
    asked = []
    for file, axis in lazily("trace.model_file").read_model(model.model).along(model.axis or []):
        found = tracing.trained(chosen, file, axis, starts=starts_of(chosen, settings))
        graph = found.lowered.graph
        given = settings_of(chosen, graph, settings, found.groups)
        one = OnGraph(chosen, graph, given, found.kinds, tuple(probed))
        asked.append((one, (*found.lowered.notes, *found.notes)))
    return asked


def answers_of(recipe: str, model: ModelOptions, settings: Sequence[str] | None) -> list[Read]:
    """The answers for a model, axis by axis."""
    return [(one.derived(one.settings), x) for one, x in asked_of(recipe, model, settings)]


def answer_of(recipe: str, model: ModelOptions, settings: Sequence[str] | None) -> Read:
    """The answer along one axis.

    Raises:
        InvalidInput: for several.
    """
    _refuse_several_axes(model)
    return answers_of(recipe, model, settings)[0]


def inverse_on_model(
    recipe: str, model: ModelOptions, settings: Sequence[str] | None, unknowns: str,
    require: Sequence[str],
) -> Inverse:  # fmt: skip
    """Exponents of a recipe that make those of tensors what is required, along one axis.

    Raises:
        InvalidInput: for several axes.
    """
    _refuse_several_axes(model)
    ((asked, _),) = asked_of(recipe, model, settings)
    return solve_on(asked, unknowns, require)


def _refuse_several_axes(model: ModelOptions) -> None:
    if len(model.axis or ()) > 1:
        raise InvalidInput(
            f"{len(model.axis or ())} axes at once",
            "one axis, for all verbs but derive and verify",
            f"pass --axis {(model.axis or [''])[0]} alone",
        )


def settings_of(
    recipe: Recipe,
    graph: Graph,
    settings: Sequence[str] | None,
    groups: Mapping[str, TensorGroup],
) -> Settings:
    """The settings by the names of the graph's tensors: c=0, c_head.weight=1, e=1/2.

    Raises:
        InvalidInput: for a setting that cannot be read, or of a damping that the tensor's rule
            does not have.
    """
    found = read_settings(settings or (), recipe, trained_layers(graph))
    asked = {pair.partition("=")[0].strip() for pair in settings or ()}
    for name, group in groups.items():
        own = group.rule.scaled if group.rule is not None else ()
        for symbol in recipe.scaled:
            if symbol not in own and f"d_{symbol}_{name}" in asked:
                raise unknown(f"damping or decay of '{group}', which trains {name}:", symbol, own)
    return found


def starts_of(
    recipe: Recipe, settings: Sequence[str] | None
) -> Callable[[Graph], Mapping[str, Expr]]:
    """B that is given, by the names of a graph's tensors."""
    return lambda graph: settings_of(recipe, graph, settings, {}).b


def derive_model(
    recipe: str, model: ModelOptions, settings: Sequence[str] | None, style: Style
) -> None:
    """Print the exponents of every tensor."""
    from scaling.report.as_json import to_json
    from scaling.report.graph_tables import graph_json, graph_table, side_by_side
    from scaling.report.tables import Format, render

    answers = answers_of(recipe, model, settings)
    if style is Style.json:
        found = [{**graph_json(answer), "read": list(notes)} for answer, notes in answers]
        typer.echo(to_json(found[0] if len(found) == 1 else {"axes": found}))
    elif len(answers) == 1:
        typer.echo(render(graph_table(*answers[0]), Format(style)))
    else:
        typer.echo(render(side_by_side(answers), Format(style)))


def predict_model(
    recipe: str, model: ModelOptions, settings: Sequence[str] | None, style: Style
) -> None:
    """Print what a first step does to every tensor and to the node that binds it."""
    from scaling.report.as_json import to_json
    from scaling.report.graph_tables import (
        graph_json,
        own_and_bound,
        predicted_graph_table,
        regime,
    )
    from scaling.report.tables import Format, render

    answer, _ = answer_of(recipe, model, settings)
    if style is Style.json:
        found = graph_json(answer)
        for name, x in answer.tensors.items():
            own, bound = own_and_bound(x)
            found["tensors"][name] |= {"own": str(own), "bound": str(bound), "regime": regime(x)}
        typer.echo(to_json(found))
    else:
        typer.echo(render(predicted_graph_table(answer), Format(style)))


def explain_model(
    recipe: str,
    model: ModelOptions,
    tensor: str | None,
    settings: Sequence[str] | None,
    style: Style,
) -> None:
    """Print the derivation of one tensor's exponents."""
    from scaling.report.as_json import steps_json, to_json
    from scaling.report.graph_tables import tensor_steps
    from scaling.report.step_lines import Derivation, render_steps
    from scaling.report.tables import Format

    answer, _ = answer_of(recipe, model, settings)
    if tensor is None:
        raise InvalidInput(
            "no tensor to explain",
            "the name of a tensor of the model",
            f"pass --tensor {next(iter(answer.tensors))}",
        )
    if tensor not in answer.tensors:
        raise unknown("tensor", tensor, answer.tensors)
    rule = answer.tensors[tensor].rule
    shown = Derivation(rule, tensor, tensor_steps(answer, tensor))
    if style is Style.json:
        typer.echo(to_json(steps_json(f"{shown.label}: dW = {rule}", shown.step)))
    else:
        typer.echo(render_steps(shown, Format(style)))


def verify_model(
    recipe: str,
    model: ModelOptions,
    run: SweepRun,
    settings: Sequence[str] | None,
    expect: Sequence[str] | None,
    margin: float | None,
    style: Style,
) -> None:
    """Measure every node and tensor, print the verdicts, and exit by them."""
    from scaling.report.as_json import to_json
    from scaling.report.tables import Format, render

    report = lazily("report.graph_checks")
    found = measured_models(recipe, model, run, settings, expect, margin)
    if style is Style.json:
        several = [report.checks_json(one) for one in found]
        typer.echo(to_json(several[0] if len(several) == 1 else {"axes": several}))
    else:
        shown = [render(report.checks_table(one), Format(style)) for one in found]
        typer.echo("\n\n".join(shown))
    verdict = lazily("fit.verdict").overall(one.verdict for one in found)
    raise typer.Exit(lazily("verify.verification").EXIT_CODE[verdict])


def measured_models(
    recipe: str,
    model: ModelOptions,
    run: SweepRun,
    settings: Sequence[str] | None,
    expect: Sequence[str] | None = None,
    margin: float | None = None,
) -> list[GraphVerification]:
    """Every node and tensor, measured axis by axis."""
    from derivations.recipes import in_practice

    asked, probed = lazily("black_box.handed_over").recipe_with_probes(recipe)
    chosen, found = in_practice(asked), []
    verification, expected = lazily("verify.graph_verification"), _expected(expect or ())
    seeds = None if run.seeds is None else range(run.seed, run.seed + run.seeds)
    # auto is the CPU here: forward may make tensors of its own, which only its author can place
    device = "cpu" if run.device == "auto" else lazily("measure.machine").pick_device(run.device)
    for file, axis in lazily("trace.model_file").read_model(model.model).along(model.axis or []):
        starts = starts_of(chosen, settings)
        trained = lazily("trace.trained").trained(chosen, file, axis, starts=starts)
        given = settings_of(chosen, trained.lowered.graph, settings, trained.groups)
        width = verification.MARGIN if margin is None else margin
        verify = verification.verify_graph
        one = verify(chosen, trained, axis, given, expected, seeds, width, run.seed, device)
        found.append(replace(one, answer=one.answer.assuming(probed)))
    return found


def _expected(pairs: Sequence[str]) -> dict[tuple[str, str], Expr]:
    """Predictions that replace derived ones, by name and quantity."""
    from scaling.models.settings import exact

    expected = {}
    for pair in pairs:
        place, equals, value = pair.rpartition("=")
        quantity, _, name = place.partition("_")
        if not equals or not name:
            raise InvalidInput(
                f"the expectation '{pair}'",
                "QUANTITY_NAME=EXPONENT",
                "pass for example --expect own_head.weight=1/4",
            )
        expected[name, quantity] = exact(value)
    return expected
