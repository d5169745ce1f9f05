"""The lines to change where a check contradicts: of the optimizer, of the start, of the model.

a tensor   its learning rate, by the power of the axis that its answer has
a start    its standard deviation, where its own power is another
a factor   of the code, where it keeps tensors from a maximal update
a node     the line that computes it
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from sympy import Expr

from empirical.checks.own_optimizer import place_of
from empirical.fit.verdict import Verdict
from empirical.trace.execute import root_mean_square
from empirical.trace.model_file import GrowingAxis, ModelFile
from empirical.trace.uses import Use
from empirical.verify.graph_verification import GraphCheck
from scaling.models.graph import GraphParameter, Start
from scaling.report.graph_tables import answer_letter, change_line
from scaling.solve.graph_solution import GraphDerived

ROOM = 0.1
"""Of the power of a standard deviation, which one draw at each size has."""


def remedies(
    checks: Sequence[GraphCheck], answer: GraphDerived, file: ModelFile, axis: GrowingAxis,
    uses: Mapping[str, Use | None], starts: Mapping[str, GraphParameter], as_is: bool,
) -> list[str]:  # fmt: skip
    """Lines that name a tensor or a node, its place, and what to change; none where all agree.

    Args:
        checks: what was judged.
        answer: the exponents of a plan.
        file: of the model, with the optimizer as it is.
        axis: what grows.
        uses: where each tensor meets data.
        starts: the tensors of the graph.
        as_is: whether numbers are the user's own.
    """
    wrong = [c for c in checks if c.verdict is Verdict.contradict]
    if not wrong:
        return []
    letter, found = answer_letter(answer), []
    tensors = [c for c in wrong if c.quantity == "own"]
    at = place_of(file)
    by_power: dict[Expr, list[str]] = {}
    for check in tensors if as_is else ():
        by_power.setdefault(-answer.tensors[check.name].c, []).append(check.name)
    for power, names in by_power.items():
        found.append(
            f"change {at}: lr of {', '.join(names)} as {letter}^({power}), in groups of their own: "
            "scaling plan makes them"
        )
    for check in () if as_is else tensors:
        use = uses.get(check.name)
        where = "" if use is None else f"{use.node.where}: "
        found.append(f"{where}{check.name}: own {measured(check)}, {needs(check, letter)}")
    if as_is:
        found += _starts(answer, file, axis, uses, starts, letter)
    found += [f"change {change_line(answer, c)}" for c in answer.changes]
    return found + _nodes(wrong)


def _nodes(wrong: Sequence[GraphCheck]) -> list[str]:
    """The nodes of one line together."""
    by_line: dict[tuple[str, str], list[str]] = {}
    for check in wrong:
        if check.quantity != "own":
            line = check.where.rpartition(": ")[2]
            by_line.setdefault((line, check.quantity), []).append(check.name)
    return [
        f"at {line or 'no line'}: {quantity} of {', '.join(names[:3])}"
        + (f" and {len(names) - 3} others" if len(names) > 3 else "")
        for (line, quantity), names in by_line.items()
    ]


def _starts(
    answer: GraphDerived, file: ModelFile, axis: GrowingAxis, uses: Mapping[str, Use | None],
    starts: Mapping[str, GraphParameter], letter: str,
) -> list[str]:  # fmt: skip
    """Tensors whose standard deviation has another power than it needs."""
    drawn = [file.drawn({axis.name: size}, 0) for size in axis.sizes]
    found = []
    for name, x in answer.tensors.items():
        if starts[name].start is not Start.DRAWN or any(name not in one for one in drawn):
            continue
        sizes = [math.log(root_mean_square([one[name]])) for one in drawn]
        power = float(np.polyfit(np.log(axis.sizes), sizes, 1)[0])
        if abs(power + float(x.b)) > ROOM:
            use = uses.get(name)
            at = str(file.path) if use is None else use.node.where
            found.append(
                f"change {at}: the standard deviation of {name} as {letter}^({-x.b}), which is "
                f"{letter}^({power:.2f}): plan.apply_(model) draws it"
            )
    return found


def measured(check: GraphCheck) -> str:
    """The exponent with its interval."""
    return f"{check.fit.slope:+.2f} [{check.fit.low:+.2f}, {check.fit.high:+.2f}]"


def needs(check: GraphCheck, letter: str) -> str:
    """The exponent that is needed, in words."""
    most = "at most " if check.at_most else ""
    return f"{most}{letter}^({check.predicted}) is needed"
