"""The matrices that a rule sees of one layer, made from inputs, cotangents and weights.

    H (fan_in, n), D (fan_out, n), W (fan_out, fan_in)     G = D H^T / n     A = H H^T / n
    B = D D^T / n, or F F^T / m for given cotangents F     L = G G^T         R = G^T G

One column a sample; a cotangent is the gradient of that sample's own loss by the layer's output.

Claim.  All of them live on two bases, the span of [D, F] on the left and of H on the right, and
those are computed once a layer and only if a rule asks for a spectral function.

Not covered: layers whose inputs and outputs are not vectors. A convolution is such a layer once its
patches are columns, which layer_samples.py does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from empirical.numbers import algebra
from empirical.numbers.basis import Basis, product
from empirical.numbers.layer_values import Entries, LayerValue, LowRank, Outer
from empirical.numbers.square_matrices import Square
from scaling.rules.symbols import FANS, MATRICES
from scaling.sizes.errors import InvalidInput


@dataclass(frozen=True, eq=False)
class LayerTensors:
    """One layer as a rule sees it: inputs, cotangents, weights; one column a sample.

    ``H`` (fan_in, n), ``D`` (fan_out, n), ``W`` (fan_out, fan_in). ``fisher`` (fan_out, m) holds
    the cotangents of sampled targets if B is to be the true Fisher's factor. Cotangents are those
    of the samples' own losses, not divided by n. Raises `InvalidInput` for shapes that do not fit
    or entries of H, D or fisher that are not finite; W is looked at only when a rule uses it.

    ``sides`` (fan_out, fan_in) declares the true lengths of sides of which H, D and fisher hold
    coordinates in some orthonormal basis that spans them. Rules that look at single entries have no
    meaning then, and all others give coordinates of the update in the same bases.

    ``G`` (fan_out, fan_in) is the gradient where it is not D H^T / n: that of a tensor with further
    uses, or of a matrix whose rows see different inputs. H and D may differ in the number of their
    columns then. `of_gradient` makes a layer that has no H and D at all.
    """

    H: Tensor
    D: Tensor
    W: Tensor
    fisher: Tensor | None = None
    sides: tuple[int, int] | None = None
    G: Tensor | None = None
    has_samples: bool = True

    @classmethod
    def of_gradient(cls, gradient: Tensor, weight: Tensor) -> LayerTensors:
        """A layer of which the gradient is known and no samples: rules with A or B are refused."""
        rows, columns = (gradient.new_zeros(side, 1) for side in gradient.shape)
        return cls(columns, rows, weight, G=gradient, has_samples=False)

    def __post_init__(self) -> None:
        fisher = self.D if self.fisher is None else self.fisher
        shapes = {n: tuple(x.shape) for n, x in (("H", self.H), ("D", self.D), ("W", self.W))}
        fits = (
            self.H.ndim == self.D.ndim == fisher.ndim == 2
            and self.H.shape[1] > 0 < self.D.shape[1]
            and (self.G is not None or self.H.shape[1] == self.D.shape[1])
            and (self.G is None or self.G.shape == self.W.shape)
            and self.W.shape == (len(self.D), len(self.H))
            and len(fisher) == len(self.D)
            and fisher.shape[1] > 0
        )
        if not fits or not self.H.dtype == self.D.dtype == self.W.dtype == fisher.dtype:
            raise InvalidInput(
                f"layer tensors of shapes {shapes}, fisher {tuple(fisher.shape)}, "
                f"dtypes {self.H.dtype}, {self.D.dtype}, {self.W.dtype}, {fisher.dtype}",
                "H (fan_in, n), D (fan_out, n), W (fan_out, fan_in), fisher (fan_out, m), "
                "all of one dtype",
                "put one sample in each column",
            )
        rows = len(self.D), len(self.H)
        for side, length in zip(self.sides or rows, rows, strict=True):
            if side < length:
                raise InvalidInput(
                    f"a side of length {side}, for which {length} coordinates are given",
                    "no more coordinates than the side is long",
                    "take coordinates in an orthonormal basis",
                )
        given = (("H", self.H), ("D", self.D), ("fisher", self.fisher), ("G", self.G))
        for name, x in given:
            if x is not None:
                _refuse_unless_finite(name, x)


class LayerValues:
    """The named matrices of a layer, on bases that are computed once and only when needed."""

    def __init__(self, layer: LayerTensors, dense: bool) -> None:
        fisher = layer.D if layer.fisher is None else layer.fisher
        h, d, f, w = layer.H, layer.D, fisher, layer.W
        self.h, self.d, self.f, self.w = (x.double() if dense else x for x in (h, d, f, w))
        fan_out, fan_in = layer.sides or (len(d), len(h))
        self.fans = dict(zip(FANS, (fan_in, fan_out), strict=True))
        self.dense, self._dtype = dense, h.dtype
        self.g = layer.G
        self.has_samples, self.is_paired = layer.has_samples, layer.G is None

    @cached_property
    def right(self) -> Basis:
        """The span of the inputs."""
        side = self.fans["fan_in"]
        return Basis.whole(side, self._dtype) if self._is_whole else Basis.spanning(self.h, side)

    @cached_property
    def left(self) -> Basis:
        """The span of the cotangents, those for B included."""
        side = self.fans["fan_out"]
        if self._is_whole:
            return Basis.whole(side, self._dtype)
        both = self.d if self.f is self.d else torch.cat([self.d, self.f], dim=1)
        return Basis.spanning(both, side)

    @cached_property
    def gradient(self) -> Outer | LowRank | Entries:
        """G, (fan_out, fan_in): as its factors, unless they are longer than the matrix.

        So they are where every patch of an image is a sample.
        """
        if self.g is not None:
            return Entries(self.g.to(torch.float64) if self.dense else self.g)
        samples = self.d.shape[1]
        if self.dense:
            return Entries(self.d / samples @ self.h.T)
        if self.left.is_whole and self.right.is_whole:
            return LowRank(self.left, product(self.d, self.h) / samples, self.right)
        return Outer(self.d / samples, self.h, self.left, self.right)

    @property
    def _is_whole(self) -> bool:
        """Whether bases are those of whole sides: a given G need not lie in the span of H and D."""
        return self.dense or self.g is not None

    def matrix(self, name: str) -> LayerValue:
        """One of G A B L R W I.

        Raises:
            InvalidInput: for A and B of a layer without samples.
        """
        if name in ("A", "B") and not self.has_samples:
            raise no_samples(name)
        match name:
            case "G":
                return self.gradient
            case "A":
                return Square.gram(self.right, self.h)
            case "B":
                return Square.gram(self.left, self.f)
            case "L":
                return algebra.matmul(self.gradient, self.gradient.T, MATRICES[name][0])
            case "R":
                return algebra.matmul(self.gradient.T, self.gradient, MATRICES[name][0])
            case "W":
                _refuse_unless_finite(name, self.w)
                return Entries(self.w.clone())  # the weight moves on, the update must not
            case "I":
                return self.scalar(1)
        raise AssertionError(f"the language has no matrix {name}")

    def scalar(self, x: float) -> Entries:
        """A number as a value."""
        return Entries(torch.tensor(float(x), dtype=torch.float64, device=self.h.device))


def no_samples(what: str) -> InvalidInput:
    """The refusal of what needs inputs and cotangents, for a layer that has none."""
    return InvalidInput(
        f"{what}, of a tensor whose inputs and cotangents are not at hand",
        "a product of the tensor with data, whose inputs and cotangents are those of its samples",
        "train it by another group of a recipe: 'NAME: adamw; rest: kfac'",
    )


def _refuse_unless_finite(name: str, x: Tensor) -> None:
    if math.isfinite(float(x.sum())):  # five times as fast; a sum may overflow, so look again
        return
    bad = int((~torch.isfinite(x)).sum())
    if bad:
        raise InvalidInput(
            f"{bad} entries of {name} that are not finite",
            "finite tensors",
            "lower the learning rate, or look for an overflow in the forward pass",
        )
