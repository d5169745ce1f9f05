"""Inputs and cotangents of a weight, from what it met and the cotangent of the result.

    product   H, D: one column for each place and sample that shares the matrix
    lookup    H: one-hot words, each distinct word once, D: the cotangents of its places summed
    gain      H (1, n): root mean square of what the gain meets in a sample, D = dy x / H
    bias      H (1, n) = 1, D = dy

so that the gradient of each matrix is D H^T, exactly, and a gain is what the theory reads it as:
one column, with h of the size of what it meets and delta = G / h.

Claim.  Where all columns of H and D belong together (`paired`), D H^T / n is G, for D times n. In
two cases they do not: the groups of a convolution, which share a matrix whose rows or columns see
different channels, and a tensor with a use of the other orientation (an embedding that is the
readout too). There G is ``.grad``, A and B are second moments of the columns of the main use.

    entries of a matrix      by their place in the tensor, so that views of a tensor (a transpose, a
                             slice, one of several heads) find their rows and columns
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import Tensor

from empirical.numbers.layer_matrices import LayerTensors
from empirical.numbers.matrix_axes import MatrixAxes
from empirical.trace.weight_rows import Meeting, Met
from scaling.sizes.errors import InvalidInput


@dataclass(frozen=True, eq=False)
class UseColumns:
    """Samples of several matrices: h (k, columns, n), d (k, rows, n), and where entries stand.

    ``rows`` (k, rows) and ``columns`` (k, columns): flat places in the tensor of the first column
    and of the first row of each matrix. ``every``: all cotangents, of words that were summed.
    """

    h: Tensor
    d: Tensor
    rows: Tensor
    columns: Tensor
    every: Tensor | None = None


def columns_of(met: Met, dy: Tensor, index: Tensor, dtype: torch.dtype) -> UseColumns:
    """The data that a weight saw in one call.

    Args:
        met: the weight and what it met.
        dy: the gradient of the loss by the result of the call.
        index: the weight's entries as flat places in the tensor that it is made of.
        dtype: of the tensor.
    """
    dy = met.sign * dy.to(dtype)
    if met.meeting is Meeting.LOOKUP:
        ids = met.x.reshape(-1)
        dy = dy.reshape(len(ids), -1)
        if met.unlearned is not None:
            ids, dy = ids[ids != met.unlearned], dy[ids != met.unlearned]
        return _words(ids, dy, index)
    x, dy = met.of_x(met.x.detach().to(dtype)), met.of_result(dy)
    if met.meeting is Meeting.PRODUCT:
        return _product(met.equation, x, dy, met.of_weight(index))
    return _entrywise(None if met.meeting is Meeting.BIAS else x, dy, index)


def _product(equation: str, x: Tensor, dy: Tensor, index: Tensor) -> UseColumns:
    factors, out = equation.split("->")
    other, mine = factors.split(",")
    both = [c for c in mine if c in other and c in out]
    summed = [c for c in mine if c in other and c not in out]
    kept = [c for c in mine if c not in other]
    rows = [c for c in other if c not in mine and c in out]
    lengths = dict(zip((*mine, *out), (*index.shape, *dy.shape), strict=True))
    k, n = (math.prod(lengths[c] for c in letters) for letters in (both, rows))
    h = torch.einsum(f"{other}->{''.join((*both, *summed, *rows))}", x).reshape(k, -1, n)
    d = torch.einsum(f"{out}->{''.join((*both, *kept, *rows))}", dy).reshape(k, -1, n)
    places = index.permute([mine.index(c) for c in (*both, *kept, *summed)])
    places = places.reshape(k, d.shape[1], h.shape[1])
    return UseColumns(h, d, places[:, :, 0], places[:, 0, :])


def _words(ids: Tensor, every: Tensor, index: Tensor) -> UseColumns:
    index = index.reshape(len(index), -1)
    words, place, counts = torch.unique(ids, return_inverse=True, return_counts=True)
    length = counts.to(every.dtype).sqrt()
    h = every.new_zeros(len(index), len(words))
    h[words, torch.arange(len(words), device=h.device)] = length
    sums = every.new_zeros(len(words), every.shape[1]).index_add_(0, place, every)
    d = (sums / length[:, None]).T
    return UseColumns(h[None], d[None], index[:1], index[:, 0][None], every.T)


def _entrywise(x: Tensor | None, dy: Tensor, index: Tensor) -> UseColumns:
    for axis in range(index.ndim):
        if index.stride(axis) == 0:  # expanded: the same entry for every sample
            index = index.narrow(axis, 0, 1)
    own = (1,) * (dy.ndim - index.ndim) + tuple(index.shape)
    shared = [a for a, n in enumerate(own) if n == 1]
    kept = [a for a, n in enumerate(own) if n != 1]
    t = dy if x is None else dy * x
    d = t.permute(*kept, *shared).reshape(index.numel(), -1)
    if x is None:
        h = d.new_ones(1, d.shape[1])
    else:
        laid = x.expand_as(dy).permute(*kept, *shared).reshape(index.numel(), -1)
        h = laid.square().mean(dim=0, keepdim=True).sqrt()
        d = d / torch.where(h == 0, 1, h)
    places = index.reshape(1, -1)
    return UseColumns(h[None], d[None], places, places[:, :1])


Places: TypeAlias = tuple[Tensor, Tensor, Tensor]
"""Number, row and column of the matrix of each entry."""


def places_of(axes: MatrixAxes, shape: Sequence[int], flat: Tensor) -> Places:
    """The matrix, the row and the column of entries of a tensor.

    >>> import torch
    >>> axes = MatrixAxes((), (1,), (0,), parts=2)
    >>> [x.tolist() for x in places_of(axes, (2, 4), torch.tensor([3, 4]))]
    [[1, 0], [1, 0], [0, 1]]
    """
    coordinates = torch.unravel_index(flat, tuple(shape))

    def along(chosen: Sequence[int]) -> Tensor:
        total = torch.zeros_like(flat)
        for a in chosen:
            total = total * shape[a] + coordinates[a]
        return total

    count, rows, columns = (along(x) for x in (axes.batched, axes.left, axes.contracted))
    side = math.prod(shape[a] for a in axes.left) // axes.parts
    return count * axes.parts + rows // side, rows % side, columns


@dataclass
class MatrixSamples:
    """All that one matrix saw: pairs of H and D, and halves that do not belong together."""

    pairs: list[tuple[Tensor, Tensor, Tensor | None]] = field(default_factory=list)
    h: list[Tensor] = field(default_factory=list)
    d: list[Tensor] = field(default_factory=list)


def gathered(
    name: str, axes: MatrixAxes, shape: Sequence[int], several: Sequence[UseColumns]
) -> tuple[list[MatrixSamples], bool]:
    """The data that each matrix of a tensor saw, and whether pairs make up the whole gradient.

    Raises:
        InvalidInput: for a use that mixes rows and columns of the tensor's matrices.
    """
    count, rows, columns = axes.sides(shape)
    found, whole = [MatrixSamples() for _ in range(count)], True
    for x in several:
        at, over = (places_of(axes, shape, flat) for flat in (x.rows, x.columns))
        if not (_is_one(over[1]) and _is_one(at[2])):
            if _is_one(at[1]) and _is_one(over[2]):
                whole = False  # rows are columns there: a use of the other orientation
                continue
            raise InvalidInput(
                f"a use of '{name}' whose sums run over other axes than those of its main use",
                "uses that sum over the same axes of a tensor",
                f"train it by another group of a recipe: '{name}: adamw; rest: kfac'",
            )
        for m, chosen in _by_matrix(at[0]):
            one = [_part(x, at, over, m, i) for i in chosen]
            alone = len(one) == 1 and axes.parts == 1
            first = one[0]
            if all(torch.equal(p.r, first.r) and torch.equal(p.c, first.c) for p in one):
                for p in one:
                    pair = _laid(p.h, p.c, columns), _laid(p.d, p.r, rows)
                    found[m].pairs.append((*pair, x.every if alone else None))
            else:  # groups of a convolution: other rows, or other columns, of one matrix
                whole = False
                found[m].h += _joined([(p.h, p.c) for p in one], columns)
                found[m].d += _joined([(p.d, p.r) for p in one], rows)
    return found, whole


def _is_one(x: Tensor) -> bool:
    """Whether the entries of each row are one number."""
    return bool((x == x[..., :1]).all())


@dataclass(frozen=True, eq=False)
class _Part:
    """The data that one matrix saw in one of a stack: h and d, with their columns and rows."""

    h: Tensor
    c: Tensor
    d: Tensor
    r: Tensor


def _part(x: UseColumns, at: Places, over: Places, m: int, i: int) -> _Part:
    mine = at[0][i] == m
    if bool(mine.all()):
        return _Part(x.h[i], over[2][i], x.d[i], at[1][i])
    return _Part(x.h[i], over[2][i], x.d[i][mine], at[1][i][mine])


def _by_matrix(numbers: Tensor) -> Iterator[tuple[int, list[int]]]:
    """Each matrix with the entries of a stack that belong to it, wholly or in part."""
    owners: dict[int, list[int]] = {}
    for i, row_ in enumerate(numbers):
        for m in row_.unique().tolist():
            owners.setdefault(int(m), []).append(i)
    yield from owners.items()


def _laid(x: Tensor, places: Tensor, side: int) -> Tensor:
    """Rows of (k, n) at their places in (side, n)."""
    if len(places) == side and torch.equal(places, torch.arange(side, device=places.device)):
        return x
    return x.new_zeros(side, x.shape[1]).index_copy_(0, places, x)


def _joined(several: Sequence[tuple[Tensor, Tensor]], side: int) -> list[Tensor]:
    """Further samples where the places agree, one longer side where they differ."""
    places = [x[1] for x in several]
    if all(torch.equal(p, places[0]) for p in places):
        return [_laid(x, p, side) for x, p in several]
    return [_laid(torch.cat([x for x, _ in several]), torch.cat(places), side)]


def layers_of(
    name: str, axes: MatrixAxes, weight: Tensor, gradient: Tensor, several: Sequence[UseColumns],
    sampled: Sequence[UseColumns] = (),
) -> list[LayerTensors]:  # fmt: skip
    """Each matrix of a tensor as a rule sees it.

    Args:
        name: of the tensor, for refusals.
        axes: what its axes are.
        weight: the tensor.
        gradient: of the loss by it.
        several: what it saw in each use.
        sampled: the same with cotangents of sampled targets.
    """
    stack, slopes = axes.stacked(weight), axes.stacked(gradient)
    found, whole = gathered(name, axes, weight.shape, several)
    drawn, _ = gathered(name, axes, weight.shape, sampled)
    layers = []
    for w, g, seen, other in zip(stack, slopes, found, drawn, strict=True):
        fisher = _cotangents(other) if sampled else None
        if whole and seen.pairs:
            h = torch.cat([pair[0] for pair in seen.pairs], dim=1)
            d = torch.cat([pair[1] for pair in seen.pairs], dim=1)
            n, every = h.shape[1], _cotangents(seen)
            root = (n / every.shape[1]) ** 0.5  # n columns stand for as many samples as there are
            if fisher is None and n < every.shape[1]:
                fisher = every
            layers.append(LayerTensors(root * h, n / root * d, w, fisher))
        elif not seen.pairs and not seen.h:  # no sample came by: an expert that no token chose
            d, h = (g.new_zeros(side, 1) for side in g.shape)
            layers.append(LayerTensors(h, d, w, G=g))
        else:
            h = torch.cat([*(pair[0] for pair in seen.pairs), *seen.h], dim=1)
            d = _cotangents(seen)
            layers.append(LayerTensors(h, d, w, fisher, G=g))
    return layers


def _cotangents(seen: MatrixSamples) -> Tensor:
    """All cotangents of a matrix, those of summed words one by one, of each sample's own loss."""
    pairs = [pair[1] if pair[2] is None else pair[2] for pair in seen.pairs]
    found = torch.cat([*pairs, *seen.d], dim=1)
    return found * found.shape[1]


def explains(
    axes: MatrixAxes, gradient: Tensor, several: Sequence[UseColumns], rounding: float = 0.0
) -> bool:
    """Whether the largest row of a gradient is what was seen: O(n fan).

    ``rounding``: of the coarsest dtype that the pass went through.
    """
    slopes = axes.stacked(gradient)
    sizes = slopes.square().sum(dim=2)
    if not bool(sizes.isfinite().all()):
        return True  # the rule refuses it, naming the entries
    m, r = divmod(int(sizes.argmax()), sizes.shape[1])
    total, size = torch.zeros_like(slopes[m, r]), slopes.new_zeros(())
    for x in several:
        at, over = (places_of(axes, gradient.shape, flat) for flat in (x.rows, x.columns))
        own, other, mine, theirs = at, over, x.d, x.h
        if not (_is_one(over[1]) and _is_one(at[2])):  # a use of the other orientation
            own, other, mine, theirs = over, at, x.h, x.d
        for k, i in ((own[0] == m) & (own[1] == r)).nonzero().tolist():
            total.index_add_(0, other[2][k], theirs[k] @ mine[k, i])
            size = size + torch.linalg.vector_norm(theirs[k]) * torch.linalg.vector_norm(mine[k, i])
    allowed = max(torch.finfo(gradient.dtype).eps, rounding) ** 0.5 * size
    return bool(torch.linalg.vector_norm(total - slopes[m, r]) <= allowed)
