"""A Gaussian matrix that never exists: its products are sampled from their exact conditional law.

Let W have independent entries N(0, s^2), and let W Q = U and W^T P = V be all that is known of it,
Q and P orthonormal. Then W = U Q^T + P V^T - P (P^T U) Q^T + (I - P P^T) Z (I - Q Q^T) in law, with
Z a fresh copy of W. So for q orthogonal to Q

    W q = P (V^T q) + s (I - P P^T) z          z fresh standard normal,

and the mirror image, with V = Q (U^T p) + ..., answers W^T p. (Bolthausen 2014; Bayati and
Montanari 2011, Lemma 11: the conditioning behind approximate message passing.)

Claim.  Any sequence of questions W @ x and W.T @ y, each chosen in view of the answers before it,
is answered in the law of a dense matrix, at the price of small Gram matrices over the neurons.

The Frobenius norm can be asked at any time. With p and q the ranks of P and Q, what is not known of
W is Gaussian in d = (fan_out - p)(fan_in - q) dimensions, so

    |W|^2 = |U|^2 + |V|^2 - |P^T U|^2 + r^2,      r^2 = s^2 chi^2_d,

and from then on that part is uniform on the sphere of radius r (it is independent of its length).
The m = (fan_out - p) k of its coordinates that k new directions reveal are

    r g / sqrt(|g|^2 + chi^2_(d-m)),    g = (I - P P^T) z,    r^2 <- r^2 chi^2 / (|g|^2 + chi^2),

so answers after the norm agree with it: all columns together have exactly that sum of squares.

Dependent questions are the rule (repeated samples, dead units, fewer classes than samples): what
lies in the span of earlier ones is answered from them. A direction counts as new if its squared
length exceeds `zero` of the column's; what is below is rounding and answered by zero.

Not covered: the spectral norm and other functions of W, which have no such law.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from empirical.numbers.basis import EIGENVALUE_ZERO, tolerance, triangular_root
from empirical.wide.columns import Columns, NeuronAxis, gram
from empirical.wide.noise import Stream


class Span:
    """An orthonormal basis of all columns that it has met, as combinations of them."""

    def __init__(self, axis: NeuronAxis) -> None:
        self.axis = axis
        self.basis = axis.none()
        self.zero = max(tolerance(axis.dtype) ** 2, EIGENVALUE_ZERO)

    def extend(self, x: Columns) -> Tensor:
        """Take in new columns; returns their coordinates, (rank, x.count), in the larger basis."""
        self.axis.know([(x, x), (self.basis, x)])
        inside, whole = gram(self.basis, x), gram(x, x)
        lengths = whole.diagonal().clamp(min=0).sqrt()
        scale = torch.where(lengths == 0, 1, lengths)
        outside = (whole - inside.T @ inside) / scale / scale[:, None]
        r, new = triangular_root(outside, self.zero, self.axis.side - self.basis.count)
        fresh = (x - self.basis @ inside).pick(new) @ torch.linalg.inv(r[:, new] * scale[new])
        self.basis = self.basis.beside(fresh)
        return torch.cat([inside, r * scale])


@dataclass(eq=False)
class _Side:
    """One side of a matrix: what was asked there, and the answers, which live on the other side."""

    span: Span
    images: Columns
    stream: Stream
    asked: int = 0
    foreseen: Columns | None = None

    @classmethod
    def between(cls, axis: NeuronAxis, other: NeuronAxis, stream: Stream) -> _Side:
        return cls(Span(axis), other.none(), stream)

    def foresee(self, count: int) -> Columns:
        """The noise of the next question, drawn ahead so that sums over it join an earlier pass."""
        self.foreseen = self.images.axis.noise(self.stream.at(self.asked), count)
        return self.foreseen

    def noise(self, count: int) -> Columns:
        """The noise of this question."""
        foreseen, self.foreseen = self.foreseen, None
        if foreseen is None or foreseen.count < count:
            foreseen = self.images.axis.noise(self.stream.at(self.asked), count)
        self.asked += 1
        return foreseen.pick(range(count))


@dataclass(eq=False)
class _Rest:
    """The part of a matrix that no product has shown, once the norm of the whole is known.

    ``square`` is r^2, ``whole`` the squared norm of the matrix; None as long as nobody asked.
    """

    stream: Stream
    square: float | None = None
    whole: float = 0.0
    asked: int = 0

    def chi_square(self, degrees: int) -> float:
        """The next number of this law; 0 for no degrees of freedom."""
        self.asked += 1
        return self.stream.at(self.asked).chi_square(degrees)

    def reveal(self, g: float, degrees: int) -> float:
        """The factor of coordinates of squared length ``g``, where ``degrees`` more stay hidden."""
        assert self.square is not None, "without a norm the rest is plain noise"
        hidden = self.chi_square(degrees)
        if g + hidden == 0:
            return 0.0
        ratio = self.square / (g + hidden)
        self.square = ratio * hidden
        return math.sqrt(ratio)


@dataclass(frozen=True, eq=False)
class ImplicitGaussian:
    """A matrix of independent N(0, std^2) entries, known by the products it was asked for.

    >>> import torch
    >>> from empirical.wide.streaming import MemoryLimit, Streaming
    >>> axis = lambda side: NeuronAxis(side, torch.float64, Streaming(), MemoryLimit(2**20))
    >>> rows, columns = axis(4), axis(3)
    >>> W = ImplicitGaussian.between(rows, columns, 1.0, Stream(0, ()))
    >>> x, y = columns.given(torch.eye(3)), rows.given(torch.eye(4))
    >>> torch.allclose(rows.values(W @ x), columns.values(W.T @ y).T)
    True
    """

    std: float
    _here: _Side
    _there: _Side
    _rest: _Rest

    @classmethod
    def between(
        cls, rows: NeuronAxis, columns: NeuronAxis, std: float, stream: Stream
    ) -> ImplicitGaussian:
        """A (rows.side, columns.side) matrix; the stream must not be used elsewhere."""
        right = _Side.between(columns, rows, stream.at(0))
        left = _Side.between(rows, columns, stream.at(1))
        return cls(std, right, left, _Rest(stream.at(2)))

    @property
    def T(self) -> ImplicitGaussian:
        """The transpose: the same matrix, and the same memory of what was asked."""
        return ImplicitGaussian(self.std, self._there, self._here, self._rest)

    @property
    def rows(self) -> NeuronAxis:
        """The axis on which W x lives."""
        return self._here.images.axis

    def __matmul__(self, x: Columns) -> Columns:
        """W x, for x on the axis of columns; the answer lives on the axis of rows."""
        return self.ask(x)

    def ask(self, x: Columns, then: int = 0) -> Columns:
        """W x. ``then``: how many columns W^T will be asked for next, a hint that saves a pass."""
        here, there = self._here, self._there
        if self.std == 0 or not x.terms:
            return self.rows.none(x.count)
        known = here.span.basis.count
        others = [x, here.span.basis, there.images]
        here.span.axis.know((y, x) for y in (*others, *([there.foresee(then)] if then else [])))
        coordinates = here.span.extend(x)
        fresh = here.span.basis.pick(range(known, here.span.basis.count))
        p, z = there.span.basis, here.noise(fresh.count)
        self.rows.know([(p, z)] if self._rest.square is None else [(p, z), (z, z)])
        std = self.std if self._rest.square is None else self._on_sphere(z)
        image = p @ (gram(there.images, fresh) - std * gram(p, z)) + std * z
        here.images = here.images.beside(image)
        return here.images @ coordinates

    def norm(self) -> float:
        """The Frobenius norm; what is asked later agrees with it."""
        if self.std == 0:
            return 0.0
        if self._rest.square is None:
            here, there = self._here, self._there
            q, p, u, v = here.span.basis, there.span.basis, here.images, there.images
            here.span.axis.know([(v, v)])
            there.span.axis.know([(u, u), (p, u)])
            shown = gram(u, u).trace() + gram(v, v).trace() - gram(p, u).square().sum()
            free = (self.rows.side - p.count) * (here.span.axis.side - q.count)
            self._rest.square = self.std**2 * self._rest.chi_square(free)
            self._rest.whole = float(shown) + self._rest.square
        return math.sqrt(self._rest.whole)

    def _on_sphere(self, z: Columns) -> float:
        """The factor of the noise of a question that the span took in, given the norm."""
        p = self._there.span.basis
        free = self.rows.side - p.count
        length = float(gram(z, z).trace() - gram(p, z).square().sum()) if free else 0.0
        left = self._here.span.axis.side - self._here.span.basis.count
        return self._rest.reveal(max(length, 0.0), free * left)
