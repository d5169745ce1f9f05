"""Rows of shapes: views, parts, joins, and what is looked up by index."""

from __future__ import annotations

from typing import Any

from empirical.trace.aligned import Shapes
from empirical.trace.aten_algebra import discrete, reduced
from empirical.trace.lowering import Lowering, Traced, row

# --- views --------------------------------------------------------------------------------------


@row(
    "aten.reshape", "aten.flatten", "aten.unflatten", "aten.squeeze",
    "aten.unsqueeze", "aten.view_as", "aten.reshape_as",
)  # fmt: skip
def view(low: Lowering, x: Traced, *_: Any, **__: Any) -> Traced:
    """The same entries in other axes."""
    return low.reshape(x, low.result())


@row("aten.transpose", "aten.swapaxes")
def transpose(low: Lowering, x: Traced, one: int, other: int) -> Traced:
    """Two axes trade places."""
    order = list(range(x.rank))
    one, other = x.axis(one), x.axis(other)
    order[one], order[other] = other, one
    return low.permute(x, order)


@row("aten.t", "aten.numpy_T", "aten.mT", "aten.adjoint")
def matrix_transpose(low: Lowering, x: Traced) -> Traced:
    """The last two axes trade places."""
    return transpose(low, x, -1, -2) if x.rank > 1 else x


@row("aten.permute", "aten.movedim")
def permute(low: Lowering, x: Traced, order: Any, to: Any = None) -> Traced:
    """The axes in another order."""
    if to is None:
        return low.permute(x, order)
    sources = [x.axis(i) for i in (order if isinstance(order, tuple) else (order,))]
    targets = [x.axis(i) for i in (to if isinstance(to, tuple) else (to,))]
    rest = iter(i for i in range(x.rank) if i not in sources)
    placed = dict(zip(targets, sources, strict=True))
    return low.permute(x, [placed[i] if i in placed else next(rest) for i in range(x.rank)])


@row("aten.expand", "aten.expand_as", "aten.broadcast_to", "aten.repeat", "aten.tile")
def expand(low: Lowering, x: Traced, *_: Any, **__: Any) -> Traced:
    """Copies along axes."""
    return expanded(low, x, low.result())


def expanded(low: Lowering, x: Traced, shapes: Shapes) -> Traced:
    """A tensor broadcast to other shapes."""
    if x.shapes == shapes:
        return x
    if any(n not in (1, m) for s, t in zip(x.shapes, shapes, strict=True)
           for n, m in zip(s[::-1], t[::-1], strict=False)):  # fmt: skip
        return low.emit("rearrange", (x,), shapes, x.whole)  # repeat of an axis that is there
    return low.emit("expand", (x,), shapes, x.whole)


@row("aten.repeat_interleave", "aten.flip", "aten.roll", "aten.pad", "aten.constant_pad_nd",
     "aten.pixel_shuffle", "aten.pixel_unshuffle", "aten.tril", "aten.triu", "aten.rot90",
     "aten.reflection_pad2d", "aten.replication_pad2d", "aten.channel_shuffle",
     "aten.upsample_nearest1d", "aten.upsample_nearest2d", "aten.upsample_bilinear2d",
     "aten.upsample_bicubic2d", "aten.upsample_linear1d", "aten.unfold", "aten.im2col")  # fmt: skip
def rearrange(low: Lowering, x: Traced, *_: Any, **__: Any) -> Traced:
    """The same entries elsewhere, fixed weights of neighbours, or padding."""
    op = "discrete" if x.whole else "rearrange"
    return low.emit(op, (x,), low.result(), x.whole)


@row("aten.broadcast_tensors")
def broadcast_tensors(low: Lowering, tensors: tuple[Traced, ...]) -> tuple[Traced, ...]:
    """Several tensors, each with the axes of all."""
    shapes = low.broadcast(*tensors)
    return tuple(expanded(low, x, shapes) for x in tensors)


# --- parts and joins ----------------------------------------------------------------------------


@row("aten.slice", "aten.narrow")
def part(
    low: Lowering, x: Traced, axis: Any = 0, start: Any = 0, stop: Any = None, step: int = 1
) -> Traced:
    """A part of an axis."""
    shapes = low.result()
    if x.shapes == shapes:
        return x
    axis = x.axis(axis)
    length, first = x.length(axis)[0], _at(start, 0) or 0
    first = min(first + length if first < 0 else first, length)
    extent = {"start": first, "stop": first + shapes[0][axis]} if step == 1 else {}
    return low.emit("slice", (x,), shapes, x.whole, axis=axis, **extent)


@row("aten.select")
def select(low: Lowering, x: Traced, axis: int, index: Any) -> Traced:
    """One index of an axis, which is dropped."""
    axis, first = x.axis(axis), _at(index, 0)
    return _one(low, x, axis, first + x.length(axis)[0] if first < 0 else first)


def _one(low: Lowering, x: Traced, axis: int, k: int) -> Traced:
    shapes = x.without(axis, keep=True)
    one = low.emit("slice", (x,), shapes, x.whole, axis=axis, start=k, stop=k + 1)
    return low.reshape(one, x.without(axis))


@row("aten.unbind")
def unbind(low: Lowering, x: Traced, axis: int = 0) -> tuple[Traced, ...]:
    """Every index of an axis."""
    axis = x.axis(axis)
    counts = set(x.length(axis))
    if len(counts) > 1:
        raise low.refused(
            "an axis of growing length, taken apart",
            "a fixed number of parts",
            "keep the axis, and use a sum or a product over it",
        )
    return tuple(_one(low, x, axis, k) for k in range(counts.pop()))


@row("aten.split", "aten.split_with_sizes", "aten.chunk")
def split(low: Lowering, x: Traced, sizes: Any, axis: int = 0) -> tuple[Traced, ...]:
    """Parts of an axis, side by side."""
    assert low.current is not None, "an operation is being lowered"
    axis, found = x.axis(axis), []
    parts: list[tuple[int, ...]] = []
    for k, length in enumerate(x.length(axis)):
        at = _at(sizes, k)
        if isinstance(at, tuple):
            parts.append(at)
            continue
        step = -(-length // at) if low.current.base == "aten.chunk" else at
        parts.append(tuple(min(step, length - i) for i in range(0, length, step)))
    if len({len(p) for p in parts}) > 1:
        raise low.refused(
            "an axis that is split in a growing number of parts",
            "a fixed number of parts",
            "use chunk with a fixed number, or a view with one more axis",
        )
    first = 0
    for lengths in zip(*parts, strict=True):
        shapes, last = x.replaced(axis, lengths), first + lengths[0]
        found.append(low.emit("slice", (x,), shapes, x.whole, axis=axis, start=first, stop=last))
        first = last
    return tuple(found)


def _at(value: Any, k: int) -> Any:
    """A number of the code at size k."""
    if isinstance(value, tuple):
        return tuple(_at(v, k) for v in value)
    return int(value.values[k]) if hasattr(value, "values") else value


@row("aten.cat", "aten.concat", "aten.concatenate")
def concatenate(low: Lowering, parts: tuple[Traced, ...], axis: int = 0) -> Traced:
    """Tensors end to end."""
    whole = all(x.whole for x in parts)
    op = "discrete" if whole else "concatenate"
    attributes = {} if whole else {"axis": parts[0].axis(axis)}
    return low.emit(op, parts, low.result(), whole, **attributes)


@row("aten.stack")
def stack(low: Lowering, parts: tuple[Traced, ...], axis: int = 0) -> Traced:
    """Tensors along a new axis."""
    place = axis % (parts[0].rank + 1)
    shapes = tuple((*s[:place], 1, *s[place:]) for s in parts[0].shapes)
    return concatenate(low, tuple(low.reshape(x, shapes) for x in parts), place)


@row("getitem")
def item(low: Lowering, several: Any, index: int) -> Any:
    """One of several results."""
    if isinstance(several, Traced):
        raise low.refused(
            f"several results of '{several.name}', an operation that is not known",
            "operations that have a row",
            "write it with plain sums, products and views, or leave it out",
        )
    return several[index]


# --- by index -----------------------------------------------------------------------------------


@row("aten.embedding")
def embedding(low: Lowering, table: Traced, index: Traced, *_: Any, **__: Any) -> Traced:
    """Rows of a table."""
    return low.emit("gather", (table, index), low.result(), axis=0)


@row("aten.index_select")
def index_select(low: Lowering, x: Traced, axis: int, index: Traced) -> Traced:
    """Indices of an axis."""
    return low.emit("gather", (x, index), low.result(), x.whole, axis=x.axis(axis))


@row("aten.index")
def index(low: Lowering, x: Traced, indices: tuple[Traced | None, ...]) -> Traced:
    """Advanced indexing by one tensor, or by several that stand side by side."""
    used = [(i, t) for i, t in enumerate(indices) if t is not None]
    if x.whole:
        return discrete(low, x)
    if len(used) == 1:
        axis, by = used[0]
        return low.emit("gather", (x, by), low.result(), axis=axis)
    axes = [i for i, _ in used]
    if axes != list(range(axes[0], axes[0] + len(axes))):
        raise low.refused(
            "indices of axes that are apart",
            "one index, or indices of neighbouring axes",
            "index one axis after the other",
        )
    joined = tuple(
        (*s[: axes[0]], _product(s[axes[0] : axes[-1] + 1]), *s[axes[-1] + 1 :]) for s in x.shapes
    )
    flat = low.reshape(x, joined)
    shapes = low.broadcast(*(t for _, t in used))
    by = low.emit("discrete", [t for _, t in used], shapes, whole=True)
    return low.emit("gather", (flat, by), low.result(), axis=axes[0])


def _product(numbers: tuple[int, ...]) -> int:
    total = 1
    for n in numbers:
        total *= n
    return total


@row("aten.gather", "aten.take_along_dim")
def take_along(low: Lowering, x: Traced, axis: int, index: Traced, **_: Any) -> Traced:
    """One entry per index along an axis."""
    return low.emit("take_along", (x, index), low.result(), x.whole, axis=x.axis(axis))


@row("aten.embedding_bag", "aten._embedding_bag")
def embedding_bag(
    low: Lowering, table: Traced, index: Traced, offsets: Traced, scale: bool = False, mode: int =
    0, *_: Any, **__: Any,
) -> tuple[Any, ...]:  # fmt: skip
    """The sum or mean of rows of a table, bag by bag."""
    bags = offsets.length(0)
    sizes = tuple(n // b for n, b in zip(index.length(0), bags, strict=True))
    width = table.length(1)
    grid = low.reshape(index, tuple(zip(bags, sizes, strict=True)))
    rows = low.emit("gather", (table, grid), tuple(zip(bags, sizes, width, strict=True)), axis=0)
    kind = {0: "sum", 1: "mean", 2: "max"}[mode]
    return reduced(low, kind, rows, 1), None, None, None


@row("aten.scatter", "aten.scatter_add", "aten.scatter_reduce", "aten.index_add", "aten.index_copy")
def scatter(
    low: Lowering, x: Traced, axis: int, index: Traced, source: Any, *_: Any, **__: Any
) -> Traced:
    """Entries added or put at indices of an axis."""
    assert low.current is not None, "an operation is being lowered"
    kind = "add" if "add" in low.current.target else "replace"
    given = low.tensor(source)
    return low.emit("scatter", (x, index, given), x.shapes, axis=x.axis(axis), kind=kind)


@row("aten.slice_scatter", "aten.select_scatter")
def put(low: Lowering, x: Traced, source: Traced, axis: int = 0, *_: Any, **__: Any) -> Traced:
    """A part of a tensor replaced."""
    place = low.emit("discrete", (), x.shapes, whole=True)
    assert low.current is not None, "an operation is being lowered"
    if low.current.base == "aten.select_scatter":
        source = low.reshape(source, x.without(x.axis(axis), keep=True))
    return low.emit("scatter", (x, place, source), x.shapes, axis=x.axis(axis), kind="replace")


@row("aten.copy")
def copy(low: Lowering, x: Traced, source: Traced, *_: Any) -> Traced:
    """A tensor overwritten by another."""
    return expanded(low, source, x.shapes)


@row("aten.index_put")
def index_put(
    low: Lowering, x: Traced, indices: tuple[Traced | None, ...], source: Traced, add: bool = False
) -> Traced:
    """Entries added or put at an index of one axis."""
    used = [(i, t) for i, t in enumerate(indices) if t is not None]
    if len(used) != 1:
        raise low.refused(
            "a write at indices of several axes", "an index of one axis", "flatten the axes first"
        )
    axis, by = used[0]
    kind = "add" if add else "replace"
    return low.emit("scatter", (x, by, source), x.shapes, axis=axis, kind=kind)


@row("aten.topk")
def top_k(
    low: Lowering, x: Traced, count: Any, axis: int = -1, *_: Any, **__: Any
) -> tuple[Any, ...]:
    """The largest entries of an axis, and where they stand."""
    axis = x.axis(axis)
    number = tuple(int(_at(count, k)) for k in range(len(low.sizes)))
    shapes = x.replaced(axis, number)
    values = low.emit("top_k", (x,), shapes, axis=axis)
    return values, low.emit("discrete", (x,), shapes, whole=True)


@row("aten.sort")
def sort(low: Lowering, x: Traced, axis: int = -1, *_: Any, **__: Any) -> tuple[Any, ...]:
    """The entries of an axis in order, and where they stood."""
    values = low.emit("sort", (x,), x.shapes, axis=x.axis(axis))
    return values, low.emit("discrete", (x,), x.shapes, whole=True)


@row("aten.one_hot")
def one_hot(low: Lowering, index: Traced, classes: Any = -1) -> Traced:
    """Whole numbers as rows of zeros with a one."""
    return low.emit("one_hot", (index,), low.result(), whole=False)
