"""The answer for a user's model, as a table of its tensors and as JSON.

Tensors of equal blocks that have one answer share a row: blocks.*.attn.q.weight.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import takewhile
from typing import Any

from sympy import Expr

from scaling.models.recipe import Recipe
from scaling.report.as_json import crossover_json
from scaling.report.drawn_graph import axis_letter
from scaling.report.tables import Table
from scaling.sizes.derivation import CONDITION, Step
from scaling.sizes.scale import Scale, Size
from scaling.solve.code_changes import CodeChange
from scaling.solve.graph_regimes import crossovers_in_graph, unbalanced
from scaling.solve.graph_solution import GraphDerived, TensorAnswer
from scaling.states.problem import CONVENTION


def graph_table(answer: GraphDerived, notes: Sequence[str] = ()) -> Table:
    """b, c, d of every tensor, with the node that binds; what the code itself would have to be."""
    scaled, grouped = answer.recipe.scaled, not answer.recipe.is_plain
    rows: dict[tuple[Any, ...], list[TensorAnswer]] = {}
    for x in answer.tensors.values():
        d = (x.d.get(k, "") for k in scaled)
        group = (x.group,) if grouped else ()
        key = (_star(x.name), *group, x.b, x.c, *d, _star(binding_place(answer, x.binds)))
        rows.setdefault(key, []).append(x)
    group = ("group",) if grouped else ()
    columns = ("tensor", *group, "b", "c", *(f"d_{k}" for k in scaled), "binds")
    within = common_prefix(answer.tensors)
    shown = tuple(
        (
            _pattern([x.name for x in same]).removeprefix(within),
            *key[1:-1],
            str(key[-1]).replace(f" {within}", " ") if within else key[-1],
        )
        for key, same in rows.items()
    )
    below = [*rule_lines(answer.recipe), convention_of(answer)]
    below += [f"within {within[:-1]}: names in the table begin with '{within}'"] if within else []
    below += [f"free: {', '.join(answer.free)}"] if answer.free else []
    below += graph_notes(answer, notes)
    return Table(recipe_title(answer.recipe), columns, shown, tuple(below))


def side_by_side(answers: Sequence[tuple[GraphDerived, tuple[str, ...]]]) -> Table:
    """b, c, d of every tensor along several axes: one group of columns an axis.

    A tensor of a block that stands for others along an axis has their exponents in its row.
    """
    scaled = answers[0][0].recipe.scaled
    rows: dict[tuple[Any, ...], list[str]] = {}
    for name in max((list(answer.tensors) for answer, _ in answers), key=len):
        key: list[Any] = [_star(name)]
        for answer, _ in answers:
            stands = [x for n, x in answer.tensors.items() if n == name or _star(n) == key[0]]
            x = answer.tensors.get(name) or (stands[0] if stands else None)
            key += [""] * (2 + len(scaled)) if x is None else [x.b, x.c]
            key += [] if x is None else [x.d.get(k, "") for k in scaled]
        rows.setdefault(tuple(key), []).append(name)
    axes = [answer.graph.axis for answer, _ in answers]
    heads = ("b", "c", *(f"d_{k}" for k in scaled))
    columns = ("tensor", *(f"{head} {axis}" for axis in axes for head in heads))
    within = common_prefix(answers[0][0].tensors)
    shown = tuple((_pattern(same).removeprefix(within), *key[1:]) for key, same in rows.items())
    below = [f"within {within[:-1]}: names in the table begin with '{within}'"] if within else []
    below += [*rule_lines(answers[0][0].recipe), CONVENTION.replace("width M", "M, each axis")]
    for answer, notes in answers:
        lines = [f"free: {', '.join(answer.free)}"] if answer.free else []
        lines += [x for x in graph_notes(answer, notes) if not x.startswith("assumed: ")]
        below += [f"{answer.graph.axis}: {line}" for line in lines]
    everywhere = _once(text for answer, _ in answers for text in answer.assumptions)
    below += [f"assumed: {text}" for text in everywhere]
    return Table(recipe_title(answers[0][0].recipe), columns, shown, tuple(below))


def graph_notes(answer: GraphDerived, notes: Sequence[str] = ()) -> list[str]:
    """The lines below a table: states, lines to change, assumptions, regimes, what was read."""
    lines = [*_states(answer), *(f"change {change_line(answer, c)}" for c in answer.changes)]
    lines += [f"assumed: {text}" for text in answer.assumptions]
    lines += regimes_in_graph(answer)
    return [*lines, *_crossovers(answer), *(f"read: {text}" for text in notes)]


def regimes_in_graph(answer: GraphDerived) -> list[str]:
    """Sums of the rule that are not balanced, with the tensors in which they are not."""
    return [
        f"regime in {_few(_together(answer, names))}: {text}"
        for text, names in unbalanced(answer).items()
    ]


def _crossovers(answer: GraphDerived) -> list[str]:
    """The sizes at which terms trade places, tensors that share one together."""
    where: dict[str, list[str]] = {}
    for one in crossovers_in_graph(answer):
        where.setdefault(str(one), []).append(one.layer)
    return [
        f"crossover in {_few(_together(answer, names))}: {text}" for text, names in where.items()
    ]


def _together(answer: GraphDerived, names: Sequence[str]) -> list[str]:
    """Tensors of all blocks under one name, where these are all of them."""
    apart = {_star(name) for name in answer.tensors if name not in names}
    return _once(x if (x := _star(name)) not in apart else name for name in names)


def recipe_title(recipe: Recipe) -> str:
    """A rule as it is written, or the groups of a recipe."""
    if recipe.is_plain:
        rule = recipe.rules[0]
        return f"{rule.name or 'rule'}: dW = {rule.written}"
    return f"{recipe.name or 'recipe'}: {recipe}"


def rule_lines(recipe: Recipe) -> list[str]:
    """The rules behind the names in a recipe of several groups."""
    named = [rule for rule in recipe.rules if rule.name and not recipe.is_plain]
    return [f"{rule.name}: dW = {rule.written}" for rule in named]


def predicted_graph_table(answer: GraphDerived) -> Table:
    """The effect of a first step on every tensor's own product, and on the node that binds it."""
    rows = tuple((x.name, x.b, x.c, *own_and_bound(x), regime(x)) for x in answer.tensors.values())
    notes = (
        *rule_lines(answer.recipe),
        "own: size of the tensor's own product dW h; bound: of the node that binds its rate, per "
        "what that node bears",
        *(f"assumed: {text}" for text in answer.assumptions),
        *regimes_in_graph(answer),
        *_crossovers(answer),
    )
    columns = ("tensor", "b", "c", "own", "bound", "regime")
    return Table(recipe_title(answer.recipe), columns, rows, notes)


def own_and_bound(x: TensorAnswer) -> tuple[Expr | str, Expr | str]:
    """Exponents of a first step; a tensor that it does not move has none."""
    state = x.start
    if state.c is None or state.moves is None:
        return "0", "0"
    return state.moves - x.c, state.c - x.c


def regime(x: TensorAnswer) -> str:
    """The regime of a tensor in a step at the answer's rate."""
    own, bound = own_and_bound(x)
    if isinstance(own, str) or isinstance(bound, str):
        return "does not move at first"
    if not (own.is_number and bound.is_number):
        return "open"
    if bound > 0:
        return "unstable"
    if own == x.start.borne:
        return "maximal"
    return "bound" if bound == 0 else "sub-maximal"


def graph_json(answer: GraphDerived) -> dict[str, Any]:
    """The keys that programs rely on; exponents are texts in sympy syntax."""
    tensors = {
        x.name: {
            "a": "0",
            "b": str(x.b),
            "c": str(x.c),
            "d": {k: str(v) for k, v in x.d.items()},
            "binds": x.binds,
            "fan_in": str(x.fan_in),
            "fan_out": str(x.fan_out),
            "rule": str(x.rule),
            "group": x.group,
            "kind": str(x.kind),
            "states": {
                "start": None if x.start.c is None else str(x.start.c),
                "moved": None if x.moved.c is None else str(x.moved.c),
            },
        }
        for x in answer.tensors.values()
    }
    return {
        "recipe": str(answer.recipe),
        "axis": answer.graph.axis,
        "tensors": tensors,
        "changes": [
            {**_file(c), "found": _factor(answer, c.found), "needed": _factor(answer, c.needed),
             "why": c.why}
            for c in answer.changes
        ],
        "free": list(answer.free),
        "regimes": regimes_in_graph(answer),
        "crossovers": [crossover_json(x, "tensor") for x in crossovers_in_graph(answer)],
        "assumptions": list(answer.assumptions),
        "convention": convention_of(answer),
    }  # fmt: skip


def tensor_steps(answer: GraphDerived, name: str) -> Step:
    """The derivation of one tensor's rate: in the state that decides it, from h and delta on."""
    x = answer.tensors[name]
    states = [s for s in (x.moved, x.start) if s.update is not None and s.c == x.c]
    updates = [s.derived for s in states[:1]]
    inputs = tuple(update.step for update in updates if update is not None)
    inputs += tuple(s.bound for s in states[:1] if s.bound is not None)
    text = f"maximal update: the largest rate that every node above bears; {x.binds} binds"
    line = Step(CONDITION, f"c of {name}", Scale.of_width(-x.c, Size.SCALAR), text, inputs)
    for assumption in answer.assumptions:
        line = line.because(assumption)
    return line


def answer_letter(answer: GraphDerived) -> str:
    """The letter for what grows."""
    return axis_letter(answer.graph)


def convention_of(answer: GraphDerived) -> str:
    """The base of the powers: M, or the name of the axis."""
    letter = answer_letter(answer)
    width = "width M" if letter == "M" else letter
    return CONVENTION.replace("M^", f"{letter}^").replace("width M", width)


def _states(answer: GraphDerived) -> list[str]:
    """The tensors that have another rate at the start than moved, and both rates."""
    found: dict[str, list[str]] = {}
    for x in answer.tensors.values():
        if x.start.c != x.moved.c:
            start, moved = (
                "no gradient" if c is None else f"c = {c}" for c in (x.start.c, x.moved.c)
            )
            text = f"at the start {start}, at moved weights {moved}; the smaller rate is the answer"
            found.setdefault(text, []).append(_star(x.name))
    return [f"{_few(_once(names))}: {text}" for text, names in found.items()]


def _few(names: Sequence[str]) -> str:
    """The first of many names."""
    if len(names) < 4:
        return ", ".join(names)
    return f"{', '.join(names[:2])} and {len(names) - 2} others"


def _once(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(text for text in texts if text))


def change_line(answer: GraphDerived, c: CodeChange) -> str:
    """The line of the code, its factor, and the one that is needed."""
    place = _file(c)
    at = f"{place['file']}:{place['line']}" if place["line"] else c.where or c.node
    names, joint, rest = c.why.partition(" would have")
    why = f"{_few(names.split(', '))}{joint}{rest}"
    found, needed = _factor(answer, c.found), _factor(answer, c.needed)
    return f"{at}: a factor {found}, where {needed} is needed: {why}"


def _factor(answer: GraphDerived, x: Expr) -> str:
    return f"{answer_letter(answer)}^({x})"


def _file(c: CodeChange) -> dict[str, Any]:
    match = re.search(r"(?:^|: )([^:]+):(\d+)$", c.where)
    return {"file": match[1] if match else "", "line": int(match[2]) if match else 0}


def binding_place(answer: GraphDerived, binds: str) -> str:
    """The node that binds, by the module that it stands in."""
    if binds.startswith("its own product"):
        return "its own product"
    name = binds.split(" into ")[-1]
    where = next((n.where for n in answer.graph.walk() if n.name == name), "")
    module = where.split(":")[0]
    return f"{name} in {module}" if module else name


def common_prefix(names: Iterable[str]) -> str:
    """The modules that all tensors are within, up to a last dot; none of a single tensor.

    >>> common_prefix(["model.embed.weight", "model.head.weight"]), common_prefix(["0.weight"])
    ('model.', '')
    """
    parts = [name.split(".")[:-1] for name in names]
    same = takewhile(lambda several: len(set(several)) == 1, zip(*parts, strict=False))
    return "".join(f"{several[0]}." for several in same) if len(parts) > 1 else ""


def _pattern(names: Sequence[str]) -> str:
    """Names as one, with the numbers blanked in which they differ.

    >>> _pattern(["h.0.mlp.0.weight", "h.0.mlp.2.weight"]), _pattern(["h.1.ln_2.bias"])
    ('h.0.mlp.*.weight', 'h.1.ln_2.bias')
    """
    pieces = [re.split(r"(\d+)", name) for name in names]
    if len({len(x) for x in pieces}) > 1:
        return _star(names[0])
    return "".join(x[0] if len(set(x)) == 1 else "*" for x in zip(*pieces, strict=True))


def _star(text: str) -> str:
    """Numbers of modules and of nodes blanked: blocks.3.q -> blocks.*.q, softmax_1 -> softmax."""
    text = re.sub(r"(?<=\.)\d+(?=\.|$)|^\d+(?=\.)", "*", text)
    return re.sub(r"\b([a-z_]+?)_\d+(\.\d+)?\b", r"\1", text)
