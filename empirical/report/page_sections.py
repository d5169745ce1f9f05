"""The parts of a report about one rule or recipe: tables, derivations, drawings, plots.

    chain    a rule on a chain of dense layers: every line of its derivation measured on dense
             networks, sizes as `verify` measures them
    model    a recipe on a model of the user's own: a line is measured where it speaks of a node or
             of a tensor's own product

Nothing is measured here: sections are made of results.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from sympy import Expr, S

from empirical.fit.exponent import Estimate
from empirical.report.graph_checks import checks_table
from empirical.report.inline_plots import plots_of_chain, plots_of_model
from empirical.report.measured_tables import as_table
from empirical.verify.derivation_lines import Line
from empirical.verify.graph_verification import GraphCheck, GraphVerification, answer_starts
from empirical.verify.verification import Verification
from scaling.models.architectures import perceptron
from scaling.report.drawn_graph import Drawing, drawings
from scaling.report.graph_tables import answer_letter, graph_table, recipe_title, tensor_steps
from scaling.report.step_lines import SIZE_OF, Derivation, PrintedLine
from scaling.report.tables import Table, derived_table
from scaling.sizes.derivation import Step
from scaling.solve.derive import Derived
from scaling.solve.graph_solution import GraphDerived, TensorAnswer
from scaling.states.moved_state import two_states


@dataclass(frozen=True)
class UnfoldedLine:
    """A line of a derivation, with the measured exponent beside it where there is one."""

    printed: PrintedLine
    of: str
    measured: str = ""
    verdict: str = ""


@dataclass(frozen=True)
class Unfolded:
    """A derivation, line by line, and the exponent that it ends in."""

    place: str
    answer: str
    lines: tuple[UnfoldedLine, ...]
    statements: tuple[str, ...]

    @property
    def is_measured(self) -> bool:
        """Whether something stands beside a line."""
        return any(line.measured for line in self.lines)


@dataclass(frozen=True)
class Section:
    """Everything about one rule or recipe.

    ``plots``: (caption, svg). ``across``: the sizes that were measured. ``unseen``: why the lines
    of its derivations have no measurement.
    """

    name: str
    rule: str
    table: Table
    derivations: tuple[Unfolded, ...]
    drawings: tuple[Drawing, ...]
    plots: tuple[tuple[str, str], ...] = ()
    checks: Table | None = None
    slopes: Table | None = None
    limits: Table | None = None
    verdict: str = ""
    across: str = ""
    unseen: str = ""


def chain_section(
    answer: Derived,
    measured: Verification | None = None,
    lines: Mapping[str, Sequence[Line]] | None = None,
    practice: Derived | None = None,
    unseen: str = "",
) -> Section:
    """A rule on a chain of layers.

    Args:
        answer: exponents, with the symbols of the rule.
        measured: sizes at growing widths, of this rule alone.
        lines: of each layer's derivation, measured.
        practice: the answer with numbers for the symbols, of which the lines speak.
        unseen: why no line is measured, if none is.
    """
    rule, shown = answer.problem.rule, practice or answer
    table = derived_table(answer)
    found = []
    for name, step in shown.steps.items():
        beside = {x.step: (x.measured, str(x.verdict)) for x in (lines or {}).get(name, ())}
        at = Derivation(rule, f"{name} layer", step)
        found.append(_unfolded(at, f"c = {answer.exponents.c[name]}", beside))
    plots = list[tuple[str, str]]()
    if measured is not None:
        for series in measured.series:
            shown_here = plots_of_chain(measured, series)
            plots += [(f"{series.mode}: {caption}", svg) for caption, svg in shown_here]
    section = Section(
        rule.name or str(rule), rule.written, table, tuple(found), tuple(_chain_drawings(shown)),
        tuple(plots), unseen=unseen,
    )  # fmt: skip
    if measured is None:
        return section
    fits = [
        (f"{c.mode}, {c.layer}: {c.quantity}", c.predicted, c.measured) for c in measured.checks
    ]
    limits = [c for c in measured.checks if c.limit is not None]
    across = "; ".join(dict.fromkeys(series.about for series in measured.series))
    return _measured(section, as_table(measured), fits, str(measured.verdict), across, Table(
        "own updates at the widest width, and what they tend to",
        ("layer", "size", "limit", "ratio"),
        tuple((c.layer, f"{c.size:.4g}", f"{c.limit:.4g}", f"{c.size / c.limit:.3f}")
              for c in limits if c.size is not None and c.limit),
        ("limit: from the kernels of infinite width, at the same constants",),
    ) if limits else None)  # fmt: skip


def model_section(
    answer: GraphDerived, notes: Sequence[str] = (), measured: GraphVerification | None = None
) -> Section:
    """A recipe on a model of the user's own."""
    checks = {} if measured is None else {(c.node, c.quantity): c for c in measured.checks}
    found = []
    for name, x in answer.tensors.items():
        step = tensor_steps(answer, name)
        beside = {line: beside_line(checks, x, line) for line in step.lines()}
        found.append(_unfolded(Derivation(x.rule, name, step), f"c = {x.c}", beside))
    start, _ = two_states(answer.graph, answer_starts(answer))
    sizes = {name: value.size for name, value in start.values.items()}
    name = answer.recipe.name or (answer.recipe.rules[0].name if answer.recipe.is_plain else "")
    section = Section(
        name or str(answer.recipe), recipe_title(answer.recipe), graph_table(answer, notes),
        tuple(found), tuple(drawings(answer.graph, sizes, answer_letter(answer))),
        tuple(plots_of_model(measured, str(answer.recipe))) if measured else (),
    )  # fmt: skip
    if measured is None:
        return section
    fits = [(f"{c.name}: {c.quantity}", c.predicted, c.fit) for c in measured.checks]
    axis = measured.axis
    across = f"{axis.name} {', '.join(map(str, axis.sizes))} ({measured.seeds} seeds)"
    return _measured(
        section, checks_table(measured, everything=True), fits, measured.verdict.name, across
    )


def _measured(
    section: Section,
    checks: Table,
    fits: Iterable[tuple[str, Expr, Estimate]],
    verdict: str,
    across: str,
    limits: Table | None = None,
) -> Section:
    rows = []
    for place, predicted, fit in fits:
        local = ", ".join(f"{x:+.3f} at {at:,.0f}" for at, x in fit.local_slopes)
        rows.append((place, predicted, f"{fit.slope:+.3f}", local))
    slopes = Table(
        "slopes between neighbouring sizes",
        ("quantity", "predicted", "over the upper half", "local slope at the middle of two sizes"),
        tuple(rows),
        ("drifting slopes widen an interval; see docs/measuring.md",),
    )
    return replace(
        section, checks=checks, slopes=slopes, limits=limits, verdict=verdict, across=across
    )


def _unfolded(
    at: Derivation, answer: str, measured: Mapping[Step, tuple[Estimate | None, str]]
) -> Unfolded:
    lines, printed = [], list(at.lines())
    for x in printed:
        fit, verdict = measured.get(x.step, (None, ""))
        beside = "" if fit is None else f"{fit.slope:+.2f} [{fit.low:+.2f}, {fit.high:+.2f}]"
        lines.append(UnfoldedLine(x, SIZE_OF[x.step.result.of], beside, verdict if fit else ""))
    named = dict.fromkeys(x.step.inference for x in printed)
    statements = tuple(
        f"{i.name}: {i.statement}" + f" [{i.reference}]" * bool(i.reference) for i in named
    )
    return Unfolded(at.place, answer, tuple(lines), statements)


def beside_line(
    checks: Mapping[tuple[str, str], GraphCheck], x: TensorAnswer, line: Step
) -> tuple[Estimate | None, str]:
    """The measurement of a line about a node, its cotangent, or a tensor's own product.

    A first step is measured. A line that speaks of moved weights has another exponent there, or is
    a bound of it, and has nothing beside it.
    """
    subject, place, power = line.subject, None, S.Zero
    if subject == "dW h per learning rate":
        place, power = (x.name, "own"), x.c
    elif subject.startswith("|d loss / d ") and subject.endswith("|"):
        place = (subject[12:-1], "cotangent")
    elif subject.startswith("|") and subject.endswith("|"):
        place = (subject[1:-1], "init")
    check = checks.get(place) if place else None
    if check is None or check.at_most or line.result.is_zero:
        return None, ""
    if check.predicted + power != line.result.width:
        return None, ""
    return moved_by(check.fit, float(power)), check.verdict.name


def moved_by(fit: Estimate, power: float) -> Estimate:
    """The exponent of the same sizes times the axis to a power."""
    return replace(fit, slope=fit.slope + power, low=fit.low + power, high=fit.high + power)


def _chain_drawings(answer: Derived) -> list[Drawing]:
    """The chain with its sizes at the start; none where its start has other forms than b alone."""
    setting, x = answer.problem.setting, answer.exponents
    plain = all(value.is_number for value in x.b.values()) and not any(x.a.values())
    if not plain or any(layer.is_bias for layer in setting.layers):
        return []
    losses = {"mse": "mean_squared_error"}
    graph = perceptron(
        setting.depth, False, setting.activation.label,
        losses.get(str(setting.loss), str(setting.loss)),
    )  # fmt: skip
    finite = {name: b for name, b in x.b.items() if not b.is_infinite}
    start, _ = two_states(graph, finite)
    return drawings(graph, {name: value.size for name, value in start.values.items()})
