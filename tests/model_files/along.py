"""Small models, each with one axis that grows and is not the width.

Places whose changes are watched are modules, so that hooks can see them.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

WORDS, LENGTH, SIDE = 6, 5, 16


def text(length: int = LENGTH) -> tuple[Tensor, Tensor]:
    """Texts that repeat themselves, words unlike in number, and the next ones: gradients add up."""
    ids = (torch.arange(length + 1) ** 2 + torch.tensor([[0], [0], [1]])) % WORDS
    return ids[:, :-1], ids[:, 1:]


def vectors(samples: int = 6) -> tuple[Tensor, Tensor]:
    """Inputs and targets that both have a mean, as the theory takes data."""
    g = torch.manual_seed(0)
    return torch.randn(samples, 4, generator=g) + 1, torch.randn(samples, 3, generator=g) + 2


def series() -> tuple[Tensor, Tensor]:
    """Three channels over 48 places, and numbers to foretell."""
    g = torch.manual_seed(0)
    return torch.randn(2, 3, 48, generator=g) + 1, torch.randn(2, 3, generator=g) + 2


class Attention(nn.Module):
    """Words, places, one layer of attention, a readout; ``heads`` of four channels each."""

    def __init__(self, heads: int = 4, words: int = WORDS, length: int = 0) -> None:
        super().__init__()
        width, self.heads = 4 * heads, heads
        self.words = nn.Embedding(words, width)
        self.places = nn.Parameter(torch.randn(length, width)) if length else None
        self.norm, self.last = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value, self.out = (
            nn.Linear(width, width, bias=False) for _ in range(4)
        )
        self.logits, self.stream = nn.Identity(), nn.Identity()
        self.head = nn.Linear(width, words, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.words(ids)
        x = self.stream(x if self.places is None else x + self.places)
        h = self.norm(x)
        q, k, v = (f(h).unflatten(-1, (self.heads, 4)) for f in (self.query, self.key, self.value))
        p = self.logits(torch.einsum("bqhd,bkhd->bhqk", q, k) / 2).softmax(-1)
        x = self.stream(x + self.out(torch.einsum("bhqk,bkhd->bqhd", p, v).flatten(2)))
        y: Tensor = self.head(self.last(x))
        return y


class Kernels(nn.Module):
    """Two convolutions of a series that is closed to a ring, a mean, a readout."""

    def __init__(self, kernel: int) -> None:
        super().__init__()
        self.kernel = kernel
        self.first, self.second = nn.Conv1d(3, SIDE, kernel), nn.Conv1d(SIDE, SIDE, kernel)
        self.head = nn.Linear(SIDE, 3)

    def forward(self, x: Tensor) -> Tensor:
        around = (self.kernel // 2,) * 2
        for layer in (self.first, self.second):
            x = torch.relu(layer(functional.pad(x, around, mode="circular")))
        y: Tensor = self.head(x.mean(-1))
        return y


class Adapted(nn.Module):
    """A frozen layer and an adapter of growing rank, over rank^power."""

    def __init__(self, rank: int, power: float) -> None:
        super().__init__()
        self.read, self.kept = nn.Linear(4, SIDE, bias=False), nn.Linear(SIDE, SIDE, bias=False)
        self.down, self.head = nn.Linear(SIDE, rank, bias=False), nn.Linear(SIDE, 3, bias=False)
        self.up, self.factor = nn.Parameter(torch.zeros(SIDE, rank)), rank**-power
        for frozen in (self.read, self.kept, self.head):
            frozen.requires_grad_(False)
        self.stream = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.read(x))
        x = self.stream(self.kept(h) + self.factor * (self.down(h) @ self.up.T))
        y: Tensor = self.head(torch.tanh(x))
        return y


class Dense(nn.Module):
    """Two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(4, SIDE), nn.Linear(SIDE, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(torch.tanh(self.first(x)))
        return y


class Experts(nn.Module):
    """A softmax over all experts, or the two best of them, who are fetched or sent for."""

    def __init__(self, experts: int, way: str) -> None:
        super().__init__()
        self.way, self.experts = way, experts
        self.router = nn.Linear(4, experts, bias=False)
        self.up = nn.Parameter(torch.randn(experts, 4, SIDE) / 2)
        self.down = nn.Parameter(torch.randn(experts, SIDE, 4) / 4)
        self.head = nn.Linear(4, 3, bias=False)
        self.hidden, self.stream = nn.Identity(), nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        logits = self.router(x)
        if self.way == "fetched":
            best, which = logits.topk(2, -1)
            h = torch.relu(self.hidden(torch.einsum("bi,bkio->bko", x, self.up[which])))
            y = torch.einsum("bk,bko,bkoi->bi", best.softmax(-1), h, self.down[which])
        else:
            p = logits.softmax(-1)
            if self.way == "one_hot":
                best, which = logits.topk(2, -1)
                hot = functional.one_hot(which, self.experts).to(x.dtype)
                p = torch.einsum("bk,bke->be", best.softmax(-1), hot)
            if self.way == "scattered":
                best, which = logits.topk(2, -1)
                p = torch.zeros_like(logits).scatter(-1, which, best.softmax(-1))
            h = torch.relu(self.hidden(torch.einsum("bi,eio->beo", x, self.up)))
            y = torch.einsum("be,beo->bo", p, torch.einsum("beo,eoi->bei", h, self.down))
        out: Tensor = self.head(torch.tanh(self.stream(x + y)))
        return out


class Places(nn.Module):
    """A table of places, of which one is read in the end: the first, or channel by channel the
    largest."""

    def __init__(self, places: int, way: str) -> None:
        super().__init__()
        self.table, self.way = nn.Parameter(torch.randn(places, SIDE)), way
        self.read, self.head = nn.Linear(4, SIDE), nn.Linear(SIDE, 3)
        self.kept = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.read(x)[:, None] + self.table)
        y: Tensor = self.head(self.kept(h[:, 0] if self.way == "first" else h.amax(1)))
        return y
