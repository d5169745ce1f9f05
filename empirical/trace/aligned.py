"""One model at several sizes, operation by operation: what is the same, and what grows.

    Tensor at sizes   its shapes, from which each axis has its exponent (growth.py)
    Argument          equal at all sizes as it is; a number that differs is `Varying`

Claim.  The same code makes the same list of operations at every size of an axis that only changes
lengths. Where the lists differ (more blocks: depth), fold.py first makes them alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from empirical.trace.export import ModelLeaf, Operation, Program, Ref, Where, place
from scaling.sizes.errors import NotCovered

Shapes = tuple[tuple[int, ...], ...]
"""The shape of one tensor at each size."""


@dataclass(frozen=True)
class Varying:
    """A number of the code that differs from size to size."""

    values: tuple[float, ...]


@dataclass(frozen=True)
class AlignedOperation:
    """One operation at all sizes."""

    name: str
    target: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    shapes: Shapes
    where: Where
    whole: bool
    body: AlignedBody | None = None

    @property
    def base(self) -> str:
        """The operation without its overload: aten.mul."""
        return ".".join(self.target.split(".")[:2]) if "." in self.target else self.target


@dataclass(frozen=True)
class AlignedBody:
    """A repeated block at all sizes."""

    operations: tuple[AlignedOperation, ...]
    arguments: tuple[str, ...]
    outputs: tuple[str, ...]
    leaves: tuple[str, ...]


@dataclass(frozen=True)
class AlignedLeaf:
    """A leaf at all sizes."""

    leaf: ModelLeaf
    shapes: Shapes


@dataclass(frozen=True)
class AlignedProgram:
    """A model at all sizes of an axis."""

    sizes: tuple[int, ...]
    leaves: tuple[AlignedLeaf, ...]
    operations: tuple[AlignedOperation, ...]
    output: str
    standing: tuple[Mapping[str, str], ...]
    """At each size: names of operations and leaves there -> names here."""


def align(axis: str, sizes: Sequence[int], programs: Sequence[Program]) -> AlignedProgram:
    """The programs side by side.

    Raises:
        NotCovered: at the first operation that is not the same at all sizes.
    """
    first = programs[0]
    several = [program.operations for program in programs]
    operations = _aligned(axis, sizes, several)
    leaves = []
    for name, leaf in first.leaves.items():
        found = [program.leaves.get(name) for program in programs]
        missing = next((s for x, s in zip(found, sizes, strict=True) if x is None), None)
        if missing is not None:
            raise NotCovered(
                f"the tensor '{name}', which the model has at {axis} = {sizes[0]} and lacks at "
                f"{axis} = {missing}",
                "the same tensors at all sizes",
                f"build with sizes of {axis} between which no tensor disappears",
            )
        leaves.append(AlignedLeaf(leaf, tuple(x.shape for x in found if x is not None)))
    standing = tuple(
        _standing(program, dict(_pairs(first.operations, program.operations)))
        for program in programs
    )
    return AlignedProgram(tuple(sizes), tuple(leaves), operations, first.output, standing)


def _pairs(one: Sequence[Operation], other: Sequence[Operation]) -> Iterator[tuple[str, str]]:
    """The name of every operation at another size, with its name at the first."""
    for x, y in zip(one, other, strict=True):
        yield y.name, x.name
        if x.body is not None:
            yield from _pairs(x.body.operations, y.body.operations)


def _standing(program: Program, names: dict[str, str]) -> Mapping[str, str]:
    """Follow a name to what stands for it, and to its name at the first size."""

    def home(name: str) -> str:
        while name in program.standing:
            name = program.standing[name]
        return names.get(name, name)

    every = {*names, *program.standing, *program.leaves}
    return {name: home(name) for name in every}


def _aligned(
    axis: str, sizes: Sequence[int], several: Sequence[Sequence[Operation]]
) -> tuple[AlignedOperation, ...]:
    """Lists of operations side by side, bodies of repeats likewise."""
    first = several[0]
    for operations, size in zip(several[1:], sizes[1:], strict=True):
        pairs = zip(first, operations, strict=False)
        odd = next((pair for pair in pairs if pair[0].target != pair[1].target), None)
        if odd is not None or len(first) != len(operations):
            raise _differ(axis, (sizes[0], size), first, operations, odd)
    names = [
        {other.name: one.name for one, other in zip(first, operations, strict=True)}
        for operations in several
    ]  # numbering may differ from size to size
    found = []
    for same in zip(*several, strict=True):
        one = same[0]
        args = _merged([_with_names(o.args, n) for o, n in zip(same, names, strict=True)])
        kwargs = {
            k: _merged([_with_names(o.kwargs[k], n) for o, n in zip(same, names, strict=True)])
            for k in one.kwargs
        }
        body = None
        if one.body is not None:
            inner = _aligned(axis, sizes, [o.body.operations for o in same])
            body = AlignedBody(inner, one.body.arguments, one.body.outputs, one.body.leaves)
        shapes = tuple(o.shape for o in same)
        found.append(
            AlignedOperation(one.name, one.target, args, kwargs, shapes, one.where, one.whole, body)
        )
    return tuple(found)


def _with_names(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, Ref):
        return Ref(names.get(value.name, value.name))
    if isinstance(value, tuple):
        return tuple(_with_names(x, names) for x in value)
    return value


def _merged(values: Sequence[Any]) -> Any:
    first = values[0]
    if all(type(v) is type(first) and v == first for v in values):
        return first
    if all(isinstance(v, tuple) for v in values) and len({len(v) for v in values}) == 1:
        return tuple(_merged(several) for several in zip(*values, strict=True))
    if all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        return Varying(tuple(values))
    raise NotCovered(
        f"an argument that is {' and '.join(str(v) for v in values[:2])} at two sizes",
        "the same tensors and options at all sizes",
        "choose sizes at which the code takes the same branch",
    )


def _differ(
    axis: str,
    sizes: tuple[int, int],
    one: Sequence[Operation],
    other: Sequence[Operation],
    odd: tuple[Operation, Operation] | None,
) -> NotCovered:
    if odd is not None:
        what = f"{odd[0].target} at {axis} = {sizes[0]} and {odd[1].target} at {axis} = {sizes[1]}"
        at = f", {place(odd[0].where)}"
    else:
        counts = len(one), len(other)
        what, at = (
            f"{counts[0]} operations at {axis} = {sizes[0]} and {counts[1]} at {sizes[1]}",
            "",
        )
    return NotCovered(
        f"a model of {what}{at}",
        "the same operations at all sizes, or blocks that repeat",
        f"choose sizes of {axis} at which the code takes the same branch",
    )
