"""Models in plain torch, each beside its inputs and cotangents written out by hand.

`seen` of a model returns, for every tensor, the matrices of a rule in float64: H (fan_in, n) and
D (fan_out, n) of every use with D n times the gradient by the use's result, G, and how a matrix of
the update is put back into the tensor. Cotangents come from zeros that are added to the results of
products ("taps"), never from hooks. No code is shared with the tracer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

Taps = Mapping[str, Tensor]


@dataclass
class Matrix:
    """One matrix of a tensor; ``put``: from (fan_out, fan_in) to the axes of ``at``, a view."""

    h: Tensor
    d: Tensor
    g: Tensor
    at: Callable[[Tensor], Tensor]
    put: Callable[[Tensor], Tensor]


Seen = dict[str, list[Matrix]]


def whole(x: Tensor) -> Tensor:
    return x


def flat(x: Tensor) -> Tensor:
    """(places, features) of (..., features), as columns."""
    return x.reshape(-1, x.shape[-1]).T


def paired(
    h: Tensor, d: Tensor, put: Callable[[Tensor], Tensor] = whole,
    at: Callable[[Tensor], Tensor] = whole,
) -> Matrix:  # fmt: skip
    """H and the gradient by the result, both with a column a sample."""
    n = h.shape[1]
    return Matrix(h, n * d, d @ h.T, at, put)


def column(d: Tensor, shape: torch.Size) -> Matrix:
    """A bias: an input of ones."""
    return paired(d.new_ones(1, d.shape[1]), d, lambda u: u.reshape(shape))


def gain(x: Tensor, dy: Tensor, shape: torch.Size) -> Matrix:
    """One column: h is the root mean square of what a sample multiplies, delta = G / h."""
    h = x.square().mean(dim=0, keepdim=True).sqrt()
    return paired(h, dy * x / h, lambda u: u.reshape(shape))


class Tapped(nn.Module):
    """A model that adds a zero to the result of every product, and says what each product met."""

    def run(self, x: Tensor, tap: Callable[[str, Tensor, Tensor], Tensor]) -> Tensor:
        """Forward; ``tap(name, input, result)`` returns the result with its zero."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """As an optimizer sees it."""
        return self.run(x, lambda name, given, result: result)

    def taken(self, x: Tensor, y: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Name of a tap -> what its product met, and the gradient of the loss by its result."""
        met: dict[str, Tensor] = {}
        zeros: dict[str, Tensor] = {}

        def tap(name: str, given: Tensor, result: Tensor) -> Tensor:
            met[name], zeros[name] = given.detach(), torch.zeros_like(result, requires_grad=True)
            return result + zeros[name]

        loss = functional.mse_loss(self.run(x, tap), y)
        cotangents = torch.autograd.grad(loss, list(zeros.values()))
        return {k: (met[k], d) for k, d in zip(met, cotangents, strict=True)}


class Raw(Tapped):
    """Matrices stored (in, out), a table of places, a gain, a bias, transformers' Conv1D."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.randn(3, 6) / 2)
        self.places = nn.Parameter(torch.randn(4, 6) / 2)
        self.gain, self.bias = nn.Parameter(1 + torch.randn(6) / 4), nn.Parameter(torch.randn(6))
        self.last = nn.Parameter(torch.randn(6, 2) / 2)

    def run(self, x: Tensor, tap: Callable[[str, Tensor, Tensor], Tensor]) -> Tensor:
        """(n, 4, 3) -> (n, 4, 2)."""
        h = tap("first", x, x @ self.first)
        h = torch.tanh(tap("places", h, h + self.places))
        h = tap("gain", h, h * self.gain)
        h = tap("bias", h, h + self.bias)
        size = (*h.shape[:-1], 2)
        return tap("last", h, torch.addmm(h.new_zeros(2), h.view(-1, 6), self.last).view(size))

    def seen(self, x: Tensor, y: Tensor, parts: int = 1) -> Seen:
        """Every tensor as matrices."""
        taken = self.taken(x, y)
        found = {
            name: [paired(flat(taken[name][0]), flat(taken[name][1]), lambda u: u.T)]
            for name in ("first", "last")
        }
        d = taken["places"][1]
        found["places"] = [column(d.reshape(len(d), -1).T, self.places.shape)]
        found["gain"] = [gain(*map(flat, taken["gain"]), self.gain.shape)]
        found["bias"] = [column(flat(taken["bias"][1]), self.bias.shape)]
        return found


class Expert(Tapped):
    """A layer for each of three experts, (experts, in, out), and an einsum the other way round."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Parameter(torch.randn(3, 4, 7) / 2)
        self.down = nn.Parameter(torch.randn(7, 2, 3) / 2)

    def run(self, x: Tensor, tap: Callable[[str, Tensor, Tensor], Tensor]) -> Tensor:
        """(3, n, 4) -> (3, n, 2)."""
        h = torch.tanh(tap("up", x, torch.bmm(x, self.up)))
        return tap("down", h, torch.einsum("enf,foe->eno", h, self.down))

    def seen(self, x: Tensor, y: Tensor, parts: int = 1) -> Seen:
        """A matrix for each expert."""
        found: Seen = {"up": [], "down": []}
        for name, (h, d) in self.taken(x, y).items():
            for e in range(3):
                at = (lambda w, e=e: w[e]) if name == "up" else (lambda w, e=e: w[:, :, e])
                found[name].append(paired(h[e].T, d[e].T, lambda u: u.T, at))
        return found


class Pixels(Tapped):
    """A plain, a grouped and a transposed convolution, in one dimension."""

    def __init__(self) -> None:
        super().__init__()
        self.plain = nn.Conv1d(2, 4, 3, padding=1, bias=False)
        self.grouped = nn.Conv1d(4, 6, 2, groups=2, dilation=2, bias=False)
        self.turned = nn.ConvTranspose1d(6, 2, 3, stride=2, padding=1, bias=False)

    def run(self, x: Tensor, tap: Callable[[str, Tensor, Tensor], Tensor]) -> Tensor:
        """(n, 2, 6) -> (n, 2, 7)."""
        h = torch.tanh(tap("plain", x, self.plain(x)))
        h = torch.tanh(tap("grouped", h, self.grouped(h)))
        return tap("turned", h, self.turned(h))

    def seen(self, x: Tensor, y: Tensor, parts: int = 1) -> Seen:
        """Patches by their definition, one place after the other."""
        taken, found = self.taken(x, y), {}
        h, d = taken["plain"]
        p = functional.pad(h, (1, 1))
        patches = torch.stack([p[:, :, t : t + 3].flatten(1) for t in range(6)], 2)
        found["plain.weight"] = [
            paired(*(z.transpose(0, 1).flatten(1) for z in (patches, d)),
                   lambda u: u.reshape(4, 2, 3))
        ]  # fmt: skip
        h, d = taken["grouped"]
        every = torch.stack([h[:, :, t : t + 3 : 2] for t in range(4)], 2)  # (n, 4, places, 2)
        halves = [every[:, 2 * g : 2 * g + 2].permute(1, 3, 0, 2).reshape(4, -1) for g in range(2)]
        d = d.transpose(0, 1).flatten(1)
        g = torch.cat([d[3 * i : 3 * i + 3] @ halves[i].T for i in range(2)])
        found["grouped.weight"] = [
            Matrix(torch.cat(halves, 1), d.shape[1] * d, g, whole, lambda u: u.reshape(6, 2, 2))
        ]
        h, d = taken["turned"]
        n, columns = len(h), []
        for t in range(7):  # y[t] = sum over k of x[(t + 1 - k) / 2] w[k]
            taps = []
            for k in range(3):
                s, odd = divmod(t + 1 - k, 2)
                taps.append(h[:, :, s] if not odd and 0 <= s < 4 else torch.zeros(n, 6))
            columns.append(torch.stack(taps, 2).flatten(1))
        patches = torch.stack(columns, 2)
        found["turned.weight"] = [
            paired(*(z.transpose(0, 1).flatten(1) for z in (patches, d)),
                   lambda u: u.reshape(2, 6, 3).transpose(0, 1))
        ]  # fmt: skip
        return found


class Tied(Tapped):
    """Words whose table is the readout, and a layer that is applied twice."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(5, 4)
        self.inner = nn.Linear(4, 4, bias=False)

    def run(self, x: Tensor, tap: Callable[[str, Tensor, Tensor], Tensor]) -> Tensor:
        """(n,) ids -> (n, 5)."""
        h = self.words(x)
        for i in range(2):
            h = torch.tanh(tap(f"inner {i}", h, self.inner(h)))
        return tap("words", h, h @ self.words.weight.T)

    def seen(self, x: Tensor, y: Tensor, parts: int = 1) -> Seen:
        """Two uses of inner are samples of one matrix; words is the readout, G is of both uses."""
        taken = self.taken(x, y)
        (h, d), (k, e) = (map(flat, taken[f"inner {i}"]) for i in range(2))
        found = {"inner.weight": [paired(torch.cat([h, k], 1), torch.cat([d, e], 1))]}
        loss = functional.mse_loss(self(x), y)
        (g,) = torch.autograd.grad(loss, [self.words.weight])
        h, d = map(flat, taken["words"])
        found["words.weight"] = [Matrix(h, h.shape[1] * d, g, whole, whole)]
        return found


class Packed(Tapped):
    """Self-attention with torch's own module, whose projection packs queries, keys and values."""

    def __init__(self) -> None:
        super().__init__()
        self.mha = nn.MultiheadAttention(4, 2, batch_first=True)

    def run(self, x: Tensor, tap: Callable[[str, Tensor, Tensor], Tensor]) -> Tensor:
        """(n, 3, 4) -> (n, 3, 4), by hand."""
        m = self.mha
        u = tap("in", x, functional.linear(x, m.in_proj_weight, m.in_proj_bias))
        q, k, v = (z.unflatten(-1, (2, 2)).transpose(1, 2) for z in u.chunk(3, -1))
        h = (q @ k.mT / 2**0.5).softmax(-1) @ v
        h = h.transpose(1, 2).flatten(2)
        return tap("out", h, functional.linear(h, m.out_proj.weight, m.out_proj.bias))

    def forward(self, x: Tensor) -> Tensor:
        """By the module."""
        return self.mha(x, x, x, need_weights=False)[0]

    def seen(self, x: Tensor, y: Tensor, parts: int = 1) -> Seen:
        """The packed projection as one matrix or as three."""
        taken = self.taken(x, y)
        found: Seen = {}
        for tap, weight, bias in (
            ("in", "mha.in_proj_weight", "mha.in_proj_bias"),
            ("out", "mha.out_proj.weight", "mha.out_proj.bias"),
        ):
            h, d = map(flat, taken[tap])
            found[bias] = [column(d, torch.Size([len(d)]))]
            count = parts if tap == "in" else 1
            rows = len(d) // count
            found[weight] = [
                paired(h, d[i * rows : (i + 1) * rows],
                       at=lambda w, i=i, rows=rows: w[i * rows : (i + 1) * rows])
                for i in range(count)
            ]  # fmt: skip
        return found
