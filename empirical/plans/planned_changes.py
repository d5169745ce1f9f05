"""The factors of the code that a plan would change, each with the modules that have it.

A module of the target is known by its tensors: where blocks grow in number, it has the factor if
the tensor that stands for one of its own is one of the module's that the answer names. Modules
without tensors are known by their names, numbers of blocks apart.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from torch import nn

from empirical.plans.planned_axes import PlannedAxes, PlannedAxis
from empirical.plans.planned_tensors import PlannedChange
from empirical.trace.trained import starred
from scaling.solve.code_changes import CodeChange


def planned_changes(planned: PlannedAxes, model: nn.Module) -> tuple[PlannedChange, ...]:
    """The changes along all axes that grow, for the model at the target."""
    found: dict[tuple[object, ...], PlannedChange] = {}
    for axis in planned.axes:
        for change in axis.answer.changes if axis.ratio != 1 else ():
            _, file, line = _place(change.where)
            key = (axis.name, file, line, change.found, change.needed)
            before = found.get(key)
            modules = dict.fromkeys(before.modules if before else ())
            for path in _paths(axis, change):
                modules |= dict.fromkeys(_modules(path, axis, planned, model))
            found[key] = PlannedChange(
                axis.name, file, line, tuple(modules), _operation(axis, change),
                str(change.found), str(change.needed),
                axis.ratio ** float(change.needed - change.found),
                before.why if before else change.why,
            )  # fmt: skip
    return tuple(found.values())


def _modules(path: str, axis: PlannedAxis, planned: PlannedAxes, model: nn.Module) -> Sequence[str]:
    """The modules of the target that one at the base stands for."""
    names = [name for name, _ in model.named_modules()]
    path = "" if path == "model" and path not in names else path
    if planned.blocks is None:
        return [path] if path in names else []
    tensors = [name for name, _ in model.named_parameters()]
    below = f"{path}." if path else ""
    own = [x for x in axis.answer.tensors if x.startswith(below)]
    if not path or not own:
        return [name for name in names if starred(name) == starred(path)]
    suffix = own[0][len(below) :]
    return [
        t[: -len(suffix) - 1] for t in tensors
        if t.endswith(f".{suffix}") and own[0] in _stands_for(t, axis, planned)
    ]  # fmt: skip


def _stands_for(name: str, axis: PlannedAxis, planned: PlannedAxes) -> Sequence[str]:
    return [axis.at_target.get(name, name)] if axis.at_target else planned.alike(name)


def _operation(axis: PlannedAxis, change: CodeChange) -> str:
    return next(n.op for n in axis.answer.graph.walk() if n.name == change.node)


def _paths(axis: PlannedAxis, change: CodeChange) -> list[str]:
    """The modules of a change at the base: one, or one of each of equal blocks."""
    places = {n.name: n.where for n in axis.answer.graph.walk()}
    nodes = change.twins or (change.node,)
    found = [change.where if node == change.node else places[node] for node in nodes]
    return list(dict.fromkeys(_place(where)[0] for where in found))


def _place(where: str) -> tuple[str, str, int]:
    """Module, file and line of a node."""
    match = re.search(r"^(?:(.*): )?([^:]+):(\d+)$", where)
    return (match[1] or "", match[2], int(match[3])) if match else (where, "", 0)
