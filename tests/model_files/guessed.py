"""Small models whose tensors have roles that no shape tells: each of them was once read wrongly.

Every one is a function of its width, on one batch; all entries are drawn as torch draws them.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

WORDS, LENGTH = 12, 6
IDS = torch.randint(WORDS, (4, LENGTH + 1), generator=torch.manual_seed(0))
TEXT = IDS[:, :-1], IDS[:, 1:]
NUMBERS = torch.randn(8, 6, generator=torch.manual_seed(1)), torch.ones(8, 3)
PIXELS = (
    torch.randn(4, 3, 8, 8, generator=torch.manual_seed(2)),
    torch.randint(3, (4,), generator=torch.manual_seed(3)),
)


class Places(nn.Module):
    """A raw table of positions, (length, width), as a readout is stored."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, width)
        self.places = nn.Parameter(torch.randn(LENGTH, width))
        self.inner, self.head = nn.Linear(width, width), nn.Linear(width, WORDS, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(torch.relu(self.inner(self.words(ids) + self.places)))


class Stored(nn.Module):
    """Matrices stored (in, out), and used as x @ w."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.randn(6, width) / 6**0.5)
        self.inner = nn.Parameter(torch.randn(width, width) / width**0.5)
        self.last = nn.Parameter(torch.randn(width, 3) / width**0.5)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(torch.relu(x @ self.first) @ self.inner) @ self.last


class Depthwise(nn.Module):
    """A transposed convolution with a kernel of its own for every channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, width, 1)
        self.up = nn.ConvTranspose2d(width, width, 2, stride=2, groups=width, bias=False)
        self.head = nn.Linear(width, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.up(torch.relu(self.first(x)))).mean((-1, -2)))


def normed(width: int) -> nn.Module:
    """Weight norm: a gain (width, 1) and a direction (width, width)."""
    inner = parametrizations.weight_norm(nn.Linear(width, width, bias=False))
    return nn.Sequential(
        nn.Linear(6, width), nn.ReLU(), inner, nn.ReLU(), nn.Linear(width, 3, bias=False)
    )


class Attention(nn.Module):
    """Heads of a fixed size that grow in number, or heads that grow; keys for a few groups."""

    def __init__(self, width: int, heads: int, groups: int, power: float = -1.0) -> None:
        super().__init__()
        self.heads, self.groups, self.size = heads, groups, width // heads
        self.scale = self.size**power
        self.words = nn.Embedding(WORDS, width)
        self.q = nn.Linear(width, width, bias=False)
        self.k = nn.Linear(width, groups * self.size, bias=False)
        self.v = nn.Linear(width, groups * self.size, bias=False)
        self.out, self.head = (nn.Linear(width, n, bias=False) for n in (width, WORDS))

    def forward(self, ids: Tensor) -> Tensor:
        x = self.words(ids)
        q, k, v = (
            f(x).unflatten(-1, (-1, self.size)).transpose(1, 2) for f in (self.q, self.k, self.v)
        )
        k, v = (y.repeat_interleave(self.heads // self.groups, 1) for y in (k, v))
        a = (q @ k.mT * self.scale).softmax(-1) @ v
        return self.head(x + self.out(a.transpose(1, 2).flatten(-2)))


def grouped(width: int) -> nn.Module:
    """Two groups of keys and values, of heads of size 4."""
    return Attention(width, width // 4, 2)


def rooted(width: int) -> nn.Module:
    """Two heads whose logits are divided by the root of their size."""
    return Attention(width, 2, 2, -0.5)


def bottleneck(width: int) -> nn.Module:
    """Four units in the middle."""
    return nn.Sequential(
        nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 4, bias=False), nn.ReLU(),
        nn.Linear(4, width, bias=False), nn.ReLU(), nn.Linear(width, 3, bias=False),
    )  # fmt: skip


class Tied(nn.Module):
    """The readout is the embedding."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.words, self.inner = nn.Embedding(WORDS, width), nn.Linear(width, width)

    def forward(self, ids: Tensor) -> Tensor:
        return torch.tanh(self.inner(self.words(ids))) @ self.words.weight.T


class ClassToken(nn.Module):
    """A token of its own, (1, 1, width)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, stride=4)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.inner, self.head = nn.Linear(width, width), nn.Linear(width, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).mT
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        return self.head(torch.relu(self.inner(x)).mean(1))


class Experts(nn.Module):
    """Three experts in one tensor, (experts, in, out)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(6, width)
        self.router = nn.Linear(width, 3, bias=False)
        self.up = nn.Parameter(torch.randn(3, width, 2 * width) / width**0.5)
        self.down = nn.Parameter(torch.randn(3, 2 * width, width) / (2 * width) ** 0.5)
        self.head = nn.Linear(width, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        h = torch.relu(torch.einsum("bd,edm->bem", x, self.up))
        parts = torch.einsum("bem,emd->bed", h, self.down)
        return self.head(x + (self.router(x).softmax(-1)[..., None] * parts).sum(1))


class Encoder(nn.Module):
    """torch's own encoder layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(WORDS, width), nn.Linear(width, WORDS, bias=False)
        layer = nn.TransformerEncoderLayer(width, 2, 2 * width, 0.0, F.gelu, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.encoder(self.words(ids)))
