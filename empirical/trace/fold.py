"""Blocks that repeat: a list of operations that grows with the depth, folded into one `repeat`.

    found      by name: a container of numbered children (blocks.0, blocks.1, ...) that has more of
               them at a larger size, and the operations that use their tensors or stand in their
               modules. Of a container that holds a stem and a head as well, the longest run of
               equal children, or of equal groups of neighbours (linear, relu, linear, relu)
    equal      block i is block 0 with its own tensors: the same operations, wired alike. A value of
               the block before is carried; a value from outside is the same for all blocks
    folded     one operation `repeat` (body, count); its tensors bear the names of block 0

Not covered, and refused by name: blocks that differ, values of a block in the middle that are used
outside (skips to a decoder, losses of every layer).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from empirical.trace.export import Operation, Program, Ref, Where, place
from scaling.sizes.errors import NotCovered

REPEAT = "repeat"
Spans = dict[tuple[int, ...], tuple[int, int]]
"""By the numbers of the children that make up a block: begin and end in the list of operations."""
_CHILD = re.compile(r"^((?:.*?\.)?)(\d+)(?:\.|$)")
"""A container with its dot, which the root lacks, and the number of a child."""


@dataclass(frozen=True)
class Body:
    """The operations of one block: what it is called with, and what it hands on."""

    operations: tuple[Operation, ...]
    arguments: tuple[str, ...]
    outputs: tuple[str, ...]
    leaves: tuple[str, ...]


def fold(programs: Sequence[Program]) -> list[Program]:
    """The programs, each with its repeated blocks folded, where their number grows.

    Raises:
        NotCovered: for blocks that differ, or are used one by one.
    """
    found = list(programs)
    for container in growing(programs):
        spans = [_spans(program, container) for program in found]
        fewest = min(len(x) for x in spans)
        found = [_folded(p, container, x, fewest) for p, x in zip(found, spans, strict=True)]
    return found


def growing(programs: Sequence[Program]) -> list[str]:
    """The containers that have more children at larger sizes, outermost first."""
    counts: dict[str, list[int]] = {}
    for k, program in enumerate(programs):
        children: dict[str, set[int]] = {}
        names = [*program.leaves, *(f"{o.where.module}." for o in program.operations)]
        for name in names:
            match = _CHILD.match(name)
            if match:
                children.setdefault(match[1], set()).add(int(match[2]))
        for container, indices in children.items():
            counts.setdefault(container, [0] * len(programs))[k] = len(indices)
    return [c for c, n in counts.items() if n[0] > 1 and sorted(set(n)) == n]


def _folded(program: Program, container: str, spans: Spans, fewest: int) -> Program:
    indices, leaves = list(spans), list(program.leaves)
    program, spans_ = _counted(program, container, indices, fewest), list(spans.values())
    blocks = [program.operations[i:j] for i, j in spans_]
    first, last = spans_[0][0], spans_[-1][1]
    homes = {o.name: (b, p) for b, block in enumerate(blocks) for p, o in enumerate(block)}
    slots = _slots(container, indices, blocks, homes)
    used = sorted({p for o in (*program.operations[last:],) for b, p in _read(o, homes)
                   if b == len(blocks) - 1})  # fmt: skip
    carried = sorted({p for kind, p in slots.values() if kind == "carried"} | set(used))
    begins = {p: slot for slot, (kind, p) in slots.items() if kind == "carried"}
    lone = [p for p in carried if p not in begins]
    if lone:
        raise NotCovered(
            f"{blocks[-1][lone[0]].name} of the last of '{container}', used after it and handed on "
            f"by no block, at {place(blocks[-1][lone[0]].where)}",
            "blocks that hand on all that is used after them",
            "return it from every block, and take it as an argument of the next",
        )
    outside = [slot for slot, (kind, _) in slots.items() if kind == "outside"]
    names: dict[str, str] = {}
    arguments: list[Ref] = []
    inside: dict[tuple[int, tuple[int, ...]], str] = {}
    for p in carried:
        slot = begins[p]
        arguments.append(_at(blocks[0], slot))
        for other, (kind, q) in slots.items():
            if kind == "carried" and q == p:
                inside[other] = f"{container}argument_{len(arguments) - 1}"
    for slot in outside:
        ref = _at(blocks[0], slot)
        if ref.name not in names:
            arguments.append(ref)
            names[ref.name] = f"{container}argument_{len(arguments) - 1}"
        inside[slot] = names[ref.name]
    body = tuple(
        replace(o, args=_put(o.args, p, (), inside), kwargs=_put_named(o, p, inside))
        for p, o in enumerate(blocks[0])
    )
    own = tuple(x for x in program.leaves if x.startswith(_homes(container, indices[0])))
    outputs = tuple(blocks[0][p].name for p in carried)
    repeat = Operation(
        f"{container}repeat",
        REPEAT,
        tuple(arguments),
        {"count": len(blocks)},
        blocks[0][carried[0]].shape,
        Where(container.rstrip("."), *_file(blocks[0])),
        body=Body(
            body, tuple(f"{container}argument_{i}" for i in range(len(arguments))), outputs, own
        ),
    )
    results = {blocks[-1][p].name: f"{container}result_{i}" for i, p in enumerate(carried)}
    items = [
        Operation(name, "getitem", (Ref(repeat.name), i), {}, blocks[0][p].shape, repeat.where)
        for i, (p, name) in enumerate(zip(carried, results.values(), strict=True))
    ]
    after = []
    for o in program.operations[last:]:
        _refuse_middle(o, homes, results, container)
        after.append(
            replace(o, args=_renamed(o.args, results),
                    kwargs={k: _renamed(v, results) for k, v in o.kwargs.items()})
        )  # fmt: skip
    operations = (*program.operations[:first], repeat, *items, *after)
    output = results.get(program.output, program.output)
    standing = dict(program.standing)
    for block in blocks[1:]:
        standing |= {o.name: first.name for o, first in zip(block, blocks[0], strict=True)}
    for children in indices[1:]:
        pairs = zip(_homes(container, children), _homes(container, indices[0]), strict=True)
        for child, home in pairs:
            standing |= {n: home + n[len(child) :] for n in leaves if n.startswith(child)}
    return replace(program, operations=operations, output=output, standing=standing)


# --- where blocks begin and end -----------------------------------------------------------------


def _homes(container: str, children: Sequence[int]) -> tuple[str, ...]:
    """How the names of what a block holds begin."""
    return tuple(f"{container}{index}." for index in children)


def _spans(program: Program, container: str) -> Spans:
    """The longest run of equal children, or of equal groups of neighbours."""
    starts: dict[int, int] = {}
    for k, o in enumerate(program.operations):
        index = _index(o, container)
        if index is not None:
            starts.setdefault(index, k)
    targets = [o.target for o in program.operations]
    best: Spans = {}
    order = sorted(starts)
    for group in range(1, len(order) // 2 + 1):
        for i, child in enumerate(order[:-group]):
            length = starts[order[i + group]] - starts[child]
            for shift in range(max(length, 1)):
                run: Spans = {}
                for n, k in enumerate(range(i, len(order) - group + 1, group)):
                    children = tuple(order[k : k + group])
                    a = starts[child] - shift + n * length
                    span = (a, a + length)
                    if starts[children[0]] - shift != a or a < 0 or span[1] > len(targets):
                        break
                    if run and not _alike(program.operations, next(iter(run.values())), span):
                        break
                    run[children] = span
                if _covered(run) > _covered(best) and len(run) > 1:
                    best = run
    if len(best) < 2:
        raise _unequal(container, "of different operations, or not one after the other")
    return best


def _alike(operations: Sequence[Operation], one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two stretches of operations are the same, apart from the tensors."""
    pairs = zip(operations[slice(*one)], operations[slice(*other)], strict=True)
    return all(x.target == y.target and _same_numbers(x, y) for x, y in pairs)


def _covered(run: Spans) -> int:
    return sum(b - a for a, b in run.values())


def _counted(
    program: Program, container: str, indices: list[tuple[int, ...]], fewest: int
) -> Program:
    """Children that stand after the run numbered as at the size with the fewest blocks."""
    shift = (len(indices) - fewest) * len(indices[0])
    folded = tuple(home for children in indices[1:] for home in _homes(container, children))
    kept = {name: leaf for name, leaf in program.leaves.items() if not name.startswith(folded)}
    names = {}
    for name in kept:
        match = _CHILD.match(name)
        if shift and match and match[1] == container and int(match[2]) > indices[-1][-1]:
            names[name] = f"{container}{int(match[2]) - shift}{name[match.end(2) :]}"
    leaves = {names.get(n, n): replace(x, name=names.get(n, n)) for n, x in kept.items()}
    operations = tuple(
        replace(o, args=_renamed(o.args, names), kwargs={k: _renamed(v, names) for k, v in
        o.kwargs.items()}) for o in program.operations
    )  # fmt: skip
    standing = {**program.standing, **names}
    return replace(program, leaves=leaves, operations=operations, standing=standing)


def _index(o: Operation, container: str) -> int | None:
    names = [
        f"{o.where.module}.",
        *(f"{r.name}." for r in _refs((o.args, tuple(o.kwargs.values())))),
    ]
    for name in names:
        if name.startswith(container):
            child = name[len(container) :].split(".")[0]
            if child.isdigit():
                return int(child)
    return None


# --- how blocks are wired ------------------------------------------------------------------------

Slot = tuple[int, tuple[Any, ...]]
"""Where an argument stands in a block: the operation, and the way into its arguments."""


def _slots(
    container: str,
    indices: Sequence[tuple[int, ...]],
    blocks: Sequence[Sequence[Operation]],
    homes: dict[str, tuple[int, int]],
) -> dict[Slot, tuple[str, int]]:
    """The arguments of a block that come from elsewhere: carried (from where), or from outside."""
    found: dict[Slot, tuple[str, int]] = {}
    for b, block in enumerate(blocks):
        for p, o in enumerate(block):
            for way, ref in _ways(o):
                slot, home = (p, way), homes.get(ref.name)
                if home is not None and home[0] == b:
                    mark = ("inside", home[1])
                elif home is not None and home[0] == b - 1:
                    mark = ("carried", home[1])
                elif ref.name.startswith(_homes(container, indices[b])):
                    continue
                elif home is None:
                    mark = ("outside", -1)
                else:
                    raise _unequal(container, f"wired to blocks farther back, {place(o.where)}")
                if b <= 1:
                    was = found.get(slot)
                    if b == 1 and was is not None and was[0] == "outside" and mark[0] == "carried":
                        found[slot] = mark
                        continue
                    found.setdefault(slot, mark)
                if b >= 1 and found.get(slot) != mark:
                    raise _unequal(container, f"wired otherwise, {place(o.where)}")
                if b >= 1 and mark[0] == "outside" and _at(blocks[0], slot) != ref:
                    raise _unequal(container, f"given other values, {place(o.where)}")
            if b and not _same_numbers(o, blocks[0][p]):
                raise _unequal(
                    container, f"with numbers of their own: {_numbers(blocks[0][p])} in one, "
                    f"{_numbers(o)} in another, {place(o.where)}"
                )  # fmt: skip
    return {slot: mark for slot, mark in found.items() if mark[0] != "inside"}


def _same_numbers(one: Operation, other: Operation) -> bool:
    if one.target.startswith("aten.dropout"):  # its rate changes no size
        return True
    same = _blank(one.args) == _blank(other.args)
    return bool(same and _blank(tuple(one.kwargs.items())) == _blank(tuple(other.kwargs.items())))


def _numbers(o: Operation) -> str:
    return f"{o.target}{_blank(o.args)}"


def _blank(value: Any) -> Any:
    if isinstance(value, Ref):
        return Ref("")
    return tuple(map(_blank, value)) if isinstance(value, tuple) else value


def _ways(o: Operation) -> list[tuple[tuple[Any, ...], Ref]]:
    found: list[tuple[tuple[Any, ...], Ref]] = []

    def go(value: Any, way: tuple[Any, ...]) -> None:
        if isinstance(value, Ref):
            found.append((way, value))
        elif isinstance(value, tuple):
            for i, x in enumerate(value):
                go(x, (*way, i))

    go(o.args, ())
    for k, v in o.kwargs.items():
        go(v, (k,))
    return found


def _at(block: Sequence[Operation], slot: Slot) -> Ref:
    p, way = slot
    value: Any = block[p].kwargs if way and isinstance(way[0], str) else block[p].args
    for step in way:
        value = value[step]
    assert isinstance(value, Ref), "a way leads to a tensor"
    return value


def _put(value: Any, p: int, way: tuple[Any, ...], inside: dict[Slot, str]) -> Any:
    if isinstance(value, Ref):
        return Ref(inside.get((p, way), value.name))
    if isinstance(value, tuple):
        return tuple(_put(x, p, (*way, i), inside) for i, x in enumerate(value))
    return value


def _put_named(o: Operation, p: int, inside: dict[Slot, str]) -> dict[str, Any]:
    return {k: _put(v, p, (k,), inside) for k, v in o.kwargs.items()}


# --- after the last block -------------------------------------------------------------------------


def _read(o: Operation, homes: dict[str, tuple[int, int]]) -> list[tuple[int, int]]:
    return [homes[r.name] for _, r in _ways(o) if r.name in homes]


def _refuse_middle(
    o: Operation, homes: dict[str, tuple[int, int]], results: dict[str, str], container: str
) -> None:
    for _, ref in _ways(o):
        if ref.name in homes and ref.name not in results:
            raise NotCovered(
                f"a value of one of '{container}', used after all of them, at {place(o.where)}",
                "blocks of which only the last one's result is used",
                f"let {container} hand on one running value, such as the sum over blocks",
            )


def _renamed(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, Ref):
        return Ref(names.get(value.name, value.name))
    return tuple(_renamed(x, names) for x in value) if isinstance(value, tuple) else value


def _refs(value: Any) -> list[Ref]:
    if isinstance(value, Ref):
        return [value]
    return [r for x in value for r in _refs(x)] if isinstance(value, tuple) else []


def _file(block: Sequence[Operation]) -> tuple[str, int, str]:
    where = block[0].where
    return where.file, where.line, where.code


def _unequal(container: str, how: str) -> NotCovered:
    return NotCovered(
        f"the blocks '{container}0', '{container}1', ..., which are {how}",
        "equal blocks, one after the other, of which the depth makes more",
        "build all blocks from the same code and numbers, or look at another axis",
    )
