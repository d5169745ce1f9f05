"""A call of PyTorch on a weight: the equation by which the weight meets data.

    product   y = x w, summed over shared axes: linear, matmul, einsum, convolutions (of patches)
    lookup    y = w[ids]: a product with one-hot words
    gain      y = x * w, entry by entry              bias    y = x + w

One row for each call, by the name that `torch.nn.functional` and aten have in common, with what
aten orders otherwise in `ATEN`. A row lists the tensors that may be weights; who calls knows which
of them are. What has no row is not taken
apart, and its weights have no inputs and cotangents of their own.

    patches   (n, groups, fan_in, places): of a transposed convolution those of the input with
              zeros between its places, so that fan_in is what an output sees
"""

from __future__ import annotations

import math
import string
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

LETTERS = string.ascii_lowercase + string.ascii_uppercase
Change: TypeAlias = Callable[[Tensor], Tensor]


class Meeting(StrEnum):
    """How a weight meets data."""

    PRODUCT = "product"
    LOOKUP = "lookup"
    GAIN = "gain"
    BIAS = "bias"


def _same(x: Tensor) -> Tensor:
    return x


@dataclass(frozen=True, eq=False)
class Met:
    """A weight and what it meets in one call.

    ``x``: the data, to be brought into the axes of the equation by ``of_x``; likewise ``of_weight``
    and, for the result, ``of_result``. ``equation``: "data,weight->result", of a product. Gains and
    biases are laid along the last axes of the result. ``sign``: of a difference. ``unlearned``: the
    word of a table whose row gets no gradient.
    """

    weight: Tensor
    meeting: Meeting
    x: Tensor
    equation: str = ""
    of_x: Change = _same
    of_weight: Change = _same
    of_result: Change = _same
    sign: float = 1.0
    unlearned: int | None = None


Mets: TypeAlias = Iterator[Met]
ROWS: dict[str, Callable[..., Mets]] = {}


def row(*names: str) -> Callable[[Callable[..., Mets]], Callable[..., Mets]]:
    """Place a row under the names of calls."""

    def placed(function: Callable[..., Mets]) -> Callable[..., Mets]:
        ROWS.update(dict.fromkeys(names, function))
        return function

    return placed


# --- products -----------------------------------------------------------------------------------


@row("linear")
def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Mets:
    """X w^T + bias."""

    def rows(x: Tensor) -> Tensor:
        return x.reshape(-1, x.shape[-1])

    if weight.ndim == 2:
        yield Met(weight, Meeting.PRODUCT, input, "nf,of->no", rows, of_result=rows)
    if bias is not None:
        yield Met(bias, Meeting.BIAS, input)


@row("matmul", "__matmul__", "mm", "bmm", "mv")
def matmul(input: Tensor, other: Tensor) -> Mets:
    """The product over the last axis of the first and the last but one of the second."""
    one, two = (_matrix_letters(x, i) for i, x in enumerate((input, other)))
    lead = [c for c in (one[0] if len(one[0]) > len(two[0]) else two[0])]
    kept = [c for c in one[1] + two[1] if c != "X"]
    left, right = (
        "".join(c for i, c in enumerate(names) if x.shape[i] != 1) + tail
        for x, (names, tail) in ((input, one), (other, two))
    )
    out = "".join(c for c in lead if c in left + right) + "".join(kept)
    changes = [_without_ones(len(x[0])) for x in (one, two)]
    drop = _without_ones(len(lead))
    for w, x, equation, (of_w, of_x) in (
        (other, input, f"{left},{right}->{out}", changes[::-1]),
        (input, other, f"{right},{left}->{out}", changes),
    ):
        yield Met(w, Meeting.PRODUCT, x, equation, of_x, of_w, drop)


@row("__rmatmul__")
def reversed_matmul(input: Tensor, other: Tensor) -> Mets:
    """The second times the first."""
    yield from matmul(other, input)


@row("addmm", "baddbmm")
def addmm(input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: float = 1, alpha: float = 1) -> Mets:
    """The sum of a bias and a product."""
    if beta == alpha == 1:
        yield from matmul(mat1, mat2)
        yield Met(input, Meeting.BIAS, mat1)


@row("einsum")
def einsum(equation: str, *operands: Any) -> Mets:
    """A sum of products of factors, ellipses apart: the others are multiplied first."""
    found = operands[0] if len(operands) == 1 and not isinstance(operands[0], Tensor) else operands
    left, arrow, out = equation.replace(" ", "").partition("->")
    parts = left.split(",")
    if len(found) < 2 or "." in left or any(len(set(p)) < len(p) for p in parts):
        return
    if not arrow:
        out = "".join(sorted(c for c in set("".join(parts)) if "".join(parts).count(c) == 1))
    for i, own in enumerate(parts):
        others = [k for k in range(len(parts)) if k != i]
        kept = "".join(dict.fromkeys(c for k in others for c in parts[k] if c in own + out))
        given = f"{','.join(parts[k] for k in others)}->{kept}"
        times = partial(_multiplied, given, [found[k] for k in others[1:]])
        yield Met(found[i], Meeting.PRODUCT, found[others[0]], f"{kept},{own}->{out}", times)


def _multiplied(equation: str, factors: Sequence[Tensor], x: Tensor) -> Tensor:
    """Data times the other factors: over the axes that the weight or the result has."""
    return torch.einsum(equation, x, *(y.detach().to(x.dtype) for y in factors))


def _matrix_letters(x: Tensor, which: int) -> tuple[str, str]:
    """Letters of the leading axes, counted from the right, and of the last two."""
    lead = max(x.ndim - 2, 0)
    names = "".join(reversed(LETTERS[:lead]))
    if x.ndim == 1:
        return names, "X"
    return names, "YX" if which == 0 else "XZ"


def _without_ones(lead: int) -> Change:
    """Leading axes of length one are dropped: they broadcast."""

    def change(x: Tensor) -> Tensor:
        kept = [n for i, n in enumerate(x.shape) if i >= lead or n != 1]
        return x.reshape(kept)

    return change


# --- convolutions -------------------------------------------------------------------------------


@row("conv1d", "conv2d", "conv3d")
def convolution(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0,
    dilation: Any = 1, groups: int = 1,
) -> Mets:  # fmt: skip
    """A convolution: a product with the patch at each place, in each group."""
    space = weight.ndim - 2
    steps, apart = _each(stride, space), _each(dilation, space)
    kernel = weight.shape[2:]
    around = _padding(padding, kernel, apart)

    def patches(x: Tensor) -> Tensor:
        x = x if x.ndim == weight.ndim else x[None]
        return _patches(_padded(x, around), kernel, steps, apart, groups)

    def grouped(w: Tensor) -> Tensor:
        return w.reshape(groups, w.shape[0] // groups, -1)

    yield Met(
        weight, Meeting.PRODUCT, input, "ngfp,gof->ngop", patches, grouped, _places(groups, weight)
    )
    if bias is not None:
        yield Met(bias, Meeting.BIAS, input, of_result=_channels_last(weight))


@row("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def transposed_convolution(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0,
    output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
) -> Mets:  # fmt: skip
    """A transposed convolution: a convolution of what is spread out, with the kernel turned."""
    space, kernel = weight.ndim - 2, weight.shape[2:]
    steps, apart = _each(stride, space), _each(dilation, space)
    margin, more = _each(padding, space), _each(output_padding, space)
    around = [
        (d * (k - 1) - p, d * (k - 1) - p + o)
        for k, d, p, o in zip(kernel, apart, margin, more, strict=True)
    ]
    axes = tuple(range(2, weight.ndim))

    def patches(x: Tensor) -> Tensor:
        x = x if x.ndim == weight.ndim else x[None]
        sides = [(n - 1) * s + 1 for n, s in zip(x.shape[2:], steps, strict=True)]
        spread = x.new_zeros(*x.shape[:2], *sides)
        spread[(slice(None), slice(None), *(slice(None, None, s) for s in steps))] = x
        return _patches(_padded(spread, around), kernel, (1,) * space, apart, groups)

    def grouped(w: Tensor) -> Tensor:
        turned = w.flip(axes).reshape(groups, w.shape[0] // groups, w.shape[1], -1)
        return turned.transpose(1, 2).reshape(groups, w.shape[1], -1)

    yield Met(
        weight, Meeting.PRODUCT, input, "ngfp,gof->ngop", patches, grouped, _places(groups, weight)
    )
    if bias is not None:
        yield Met(bias, Meeting.BIAS, input, of_result=_channels_last(weight))


def _each(x: Any, space: int) -> tuple[int, ...]:
    several = tuple(x) if isinstance(x, Sequence) else (x,)
    return tuple(int(n) for n in (several * space if len(several) == 1 else several))


def _padding(padding: Any, kernel: Sequence[int], apart: Sequence[int]) -> list[tuple[int, int]]:
    if padding == "valid":
        return [(0, 0)] * len(kernel)
    if padding == "same":
        total = [d * (k - 1) for k, d in zip(kernel, apart, strict=True)]
        return [(n // 2, n - n // 2) for n in total]
    return [(n, n) for n in _each(padding, len(kernel))]


def _padded(x: Tensor, around: Sequence[tuple[int, int]]) -> Tensor:
    sides = [n for pair in reversed(around) for n in pair]
    return functional.pad(x, sides) if any(sides) else x


def _patches(
    x: Tensor, kernel: Sequence[int], steps: Sequence[int], apart: Sequence[int], groups: int
) -> Tensor:
    """(n, groups, channels x kernel, places) of (n, groups x channels, *space)."""
    space = len(kernel)
    for axis, (k, step, gap) in enumerate(zip(kernel, steps, apart, strict=True), 2):
        x = x.unfold(axis, gap * (k - 1) + 1, step)[..., ::gap]
    order = (0, 1, *range(2 + space, 2 + 2 * space), *range(2, 2 + space))
    x = x.permute(order)
    n, channels = x.shape[:2]
    places = math.prod(x.shape[2 + space :])
    return x.reshape(n, groups, channels // groups * math.prod(kernel), places)


def _places(groups: int, weight: Tensor) -> Change:
    def change(y: Tensor) -> Tensor:
        y = y if y.ndim == weight.ndim else y[None]
        return y.reshape(y.shape[0], groups, y.shape[1] // groups, -1)

    return change


def _channels_last(weight: Tensor) -> Change:
    def change(y: Tensor) -> Tensor:
        y = y if y.ndim == weight.ndim else y[None]
        return y.movedim(1, -1)

    return change


# --- lookups, gains, biases ---------------------------------------------------------------------


@row("embedding")
def embedding(
    input: Tensor, weight: Tensor, padding_idx: int | None = None, max_norm: float | None = None,
    norm_type: float = 2.0, scale_grad_by_freq: bool = False, sparse: bool = False,
) -> Mets:  # fmt: skip
    """Rows of a table."""
    pad = None if padding_idx is None or padding_idx < 0 else padding_idx
    yield Met(weight, Meeting.LOOKUP, input, unlearned=pad)


@row("__getitem__", "index_select")
def picked(input: Tensor, index: Any, *more: Any) -> Mets:
    """Rows of a table, by whole numbers: table[ids]."""
    ids = more[0] if more and index == 0 else index
    if isinstance(ids, Tensor) and not ids.is_floating_point() and ids.dtype != torch.bool:
        yield Met(input, Meeting.LOOKUP, ids)


@row("mul", "multiply", "__mul__", "__rmul__", "mul_", "__imul__")
def multiply(input: Any, other: Any) -> Mets:
    """A gain."""
    if isinstance(input, Tensor) and isinstance(other, Tensor):
        yield Met(other, Meeting.GAIN, input)
        yield Met(input, Meeting.GAIN, other)


@row("add", "__add__", "__radd__", "add_", "__iadd__")
def add(input: Any, other: Any, *, alpha: float = 1) -> Mets:
    """A bias."""
    if isinstance(input, Tensor) and isinstance(other, Tensor) and alpha == 1:
        yield Met(other, Meeting.BIAS, input)
        yield Met(input, Meeting.BIAS, other)


@row("sub", "subtract", "__sub__")
def subtract(input: Any, other: Any, *, alpha: float = 1) -> Mets:
    """A bias that is taken away."""
    if isinstance(input, Tensor) and isinstance(other, Tensor) and alpha == 1:
        yield Met(other, Meeting.BIAS, input, sign=-1.0)
        yield Met(input, Meeting.BIAS, other)


@row("cat", "concat", "concatenate")
def concatenate(tensors: Sequence[Tensor], dim: int = 0) -> Mets:
    """A token of its own beside others: a bias in its part of the result."""
    start = 0
    for i, w in enumerate(tensors):
        others = [x for j, x in enumerate(tensors) if j != i]
        if others:
            yield Met(w, Meeting.BIAS, others[0], of_result=_narrowed(dim, start, w.shape[dim]))
        start += w.shape[dim]


def _narrowed(dim: int, start: int, length: int) -> Change:
    return lambda y: y.narrow(dim, start, length)


def _affine(x: Tensor, gain: Tensor | None, bias: Tensor | None, normed: Change, at: int) -> Mets:
    """The gain and the bias of a norm, along the axis ``at`` and those after it (1: channels)."""

    def laid(y: Tensor) -> Tensor:
        return y.movedim(1, -1) if at == 1 else y

    if gain is not None:
        yield Met(gain, Meeting.GAIN, x, of_x=lambda x: laid(normed(x)), of_result=laid)
    if bias is not None:
        yield Met(bias, Meeting.BIAS, x, of_result=laid)


@row("layer_norm")
def layer_norm(
    input: Tensor, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5,
    *_: Any,
) -> Mets:  # fmt: skip
    """Layer norm."""
    shape = tuple(normalized_shape)

    def normed(x: Tensor) -> Tensor:
        return functional.layer_norm(x, shape, eps=eps)

    yield from _affine(input, weight, bias, normed, -1)


@row("rms_norm")
def rms_norm(
    input: Tensor, normalized_shape: Any, weight: Any = None, eps: float | None = None
) -> Mets:
    """RMS norm."""
    shape = tuple(normalized_shape)

    def normed(x: Tensor) -> Tensor:
        return functional.rms_norm(x, shape, eps=eps)

    yield from _affine(input, weight, None, normed, -1)


@row("group_norm")
def group_norm(
    input: Tensor, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5,
    *_: Any,
) -> Mets:  # fmt: skip
    """Group norm."""

    def normed(x: Tensor) -> Tensor:
        return functional.group_norm(x, num_groups, eps=eps)

    yield from _affine(input, weight, bias, normed, 1)


@row("batch_norm")
def batch_norm(
    input: Tensor, running_mean: Any, running_var: Any, weight: Any = None, bias: Any = None,
    training: bool = False, momentum: float = 0.1, eps: float = 1e-5, *_: Any,
) -> Mets:  # fmt: skip
    """Batch norm, as the batch or its running statistics have it."""

    def normed(x: Tensor) -> Tensor:
        if training:
            return functional.batch_norm(x, None, None, training=True, eps=eps)
        return functional.batch_norm(x, running_mean, running_var, eps=eps)

    yield from _affine(input, weight, bias, normed, 1)


# --- aten, where its arguments stand in another order -------------------------------------------


def _aten_embedding(weight: Tensor, indices: Tensor, padding_idx: int = -1, *_: Any) -> Mets:
    return embedding(indices, weight, padding_idx)


def _aten_index(x: Tensor, indices: Sequence[Any]) -> Mets:
    return picked(x, indices[0]) if len(indices) == 1 else iter(())


def _aten_batch_norm(
    x: Tensor, weight: Any, bias: Any, mean: Any, variance: Any, training: bool, momentum: float,
    eps: float, *_: Any,
) -> Mets:  # fmt: skip
    return batch_norm(x, mean, variance, weight, bias, training, momentum, eps)


def _aten_convolution(
    x: Tensor, weight: Tensor, bias: Any, stride: Any, padding: Any, dilation: Any,
    transposed: bool, output_padding: Any, groups: int,
) -> Mets:  # fmt: skip
    if transposed:
        return transposed_convolution(
            x, weight, bias, stride, padding, output_padding, groups, dilation
        )
    return convolution(x, weight, bias, stride, padding, dilation, groups)


ATEN: dict[str, Callable[..., Mets]] = {
    "embedding": _aten_embedding,
    "index": _aten_index,
    "batch_norm": _aten_batch_norm,
    "convolution": _aten_convolution,
}
