"""Models of many kinds, each of them a function of its sizes: what the tracer must read.

Written as people write them, on plain PyTorch; random weights.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

TOKENS, LENGTH, BATCH, CLASSES = 40, 8, 4, 10


def text(sequence: int = LENGTH) -> tuple[Tensor, Tensor]:
    ids = torch.randint(TOKENS, (BATCH, sequence + 1), generator=torch.manual_seed(0))
    return ids[:, :-1], ids[:, 1:]


def images(channels: int = 3, side: int = 16) -> tuple[Tensor, Tensor]:
    generator = torch.manual_seed(0)
    pixels = torch.randn(BATCH, channels, side, side, generator=generator)
    return pixels, torch.randint(CLASSES, (BATCH,), generator=generator)


def vectors() -> tuple[Tensor, Tensor]:
    generator = torch.manual_seed(0)
    return torch.randn(BATCH, 6, generator=generator), torch.randn(BATCH, 3, generator=generator)


# --- transformers -------------------------------------------------------------------------------


class RMSNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


class LlamaBlock(nn.Module):
    """Grouped queries, rotary positions, a gated MLP of rounded width, RMS norms by hand."""

    def __init__(self, width: int, heads: int, groups: int, scale: float | None = None) -> None:
        super().__init__()
        self.heads, self.groups, self.head = heads, groups, width // heads
        self.scale = scale or self.head**-0.5
        hidden = 8 * -(-8 * width // 3 // 8)
        self.q = nn.Linear(width, width, bias=False)
        self.k = nn.Linear(width, groups * self.head, bias=False)
        self.v = nn.Linear(width, groups * self.head, bias=False)
        self.o = nn.Linear(width, width, bias=False)
        self.gate = nn.Linear(width, hidden, bias=False)
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)
        self.before, self.between = RMSNorm(width), RMSNorm(width)

    def rotated(self, x: Tensor) -> Tensor:
        one, other = x.chunk(2, -1)
        half = self.head // 2
        turns = torch.arange(x.shape[-2])[:, None] * 100.0 ** (-torch.arange(half) / half)
        cos, sin = turns.cos(), turns.sin()
        return torch.cat([one * cos - other * sin, one * sin + other * cos], -1)

    def forward(self, x: Tensor) -> Tensor:
        b, t, d = x.shape
        y = self.before(x)
        q = self.q(y).view(b, t, self.heads, self.head).transpose(1, 2)
        k = self.k(y).view(b, t, self.groups, self.head).transpose(1, 2)
        v = self.v(y).view(b, t, self.groups, self.head).transpose(1, 2)
        q, k = self.rotated(q), self.rotated(k)
        k = k.repeat_interleave(self.heads // self.groups, 1)
        v = v.repeat_interleave(self.heads // self.groups, 1)
        logits = q @ k.transpose(-1, -2) * self.scale
        mask = torch.ones(t, t, dtype=torch.bool).tril()
        a = logits.masked_fill(~mask, float("-inf")).softmax(-1) @ v
        x = x + self.o(a.transpose(1, 2).reshape(b, t, d))
        y = self.between(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class Llama(nn.Module):
    def __init__(self, width: int, depth: int, heads: int, groups: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(TOKENS, width)
        self.blocks = nn.ModuleList(LlamaBlock(width, heads, groups) for _ in range(depth))
        self.norm = RMSNorm(width)
        self.head = nn.Linear(width, TOKENS, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def llama(width: int = 64, depth: int = 2, heads: int = 4, groups: int = 2) -> nn.Module:
    return Llama(width, depth, heads, groups)


class Encoder(nn.Module):
    """torch's own encoder, a class token and a raw positional table: a small ViT."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, stride=4)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(0.02 * torch.randn(1, 17, width))
        layer = nn.TransformerEncoderLayer(
            width, 4, 4 * width, 0.1, batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.positions
        return self.head(self.encoder(x)[:, 0])


def vit(width: int = 32, depth: int = 2) -> nn.Module:
    return Encoder(width, depth)


class Tied(nn.Module):
    """An embedding that is the readout, and a packed projection stored (in, out)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(TOKENS, width)
        self.proj = nn.Parameter(torch.randn(width, width) * width**-0.5)
        self.head = nn.Linear(width, TOKENS, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        y = x @ self.proj
        y += x
        return self.head(torch.tanh(y))


def tied(width: int = 32) -> nn.Module:
    return Tied(width)


class Experts(nn.Module):
    """A mixture: the best two of a fixed number of experts, stacked in one tensor."""

    def __init__(self, width: int, experts: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(TOKENS, width)
        self.router = nn.Linear(width, experts, bias=False)
        self.up = nn.Parameter(torch.randn(experts, width, 2 * width) * width**-0.5)
        self.down = nn.Parameter(torch.randn(experts, 2 * width, width) * (2 * width) ** -0.5)
        self.head = nn.Linear(width, TOKENS, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        best, which = self.router(x).softmax(-1).topk(2, -1)
        gates = torch.zeros(*x.shape[:2], self.up.shape[0]).scatter(-1, which, best)
        h = F.relu(torch.einsum("btd,edm->btem", x, self.up))
        return self.head(x + torch.einsum("btem,emd,bte->btd", h, self.down, gates))


def mixture(width: int = 32, experts: int = 4) -> nn.Module:
    return Experts(width, experts)


class LoRA(nn.Module):
    def __init__(self, width: int, rank: int) -> None:
        super().__init__()
        self.inner = nn.Linear(width, width, bias=False)
        self.inner.weight.requires_grad_(False)
        self.A = nn.Parameter(torch.randn(rank, width) * width**-0.5)
        self.B = nn.Parameter(torch.zeros(width, rank))
        self.scale = 16 / rank

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) + self.scale * (x @ self.A.T @ self.B.T)


def lora(width: int = 32, rank: int = 4) -> nn.Module:
    frozen = nn.Linear(6, width), nn.Linear(width, 3)
    for layer in frozen:
        layer.requires_grad_(False)
    return nn.Sequential(frozen[0], nn.Tanh(), LoRA(width, rank), nn.Tanh(), frozen[1])


# --- images -------------------------------------------------------------------------------------


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.two = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norms[0](self.one(x)), inplace=True)
        return F.relu(x + self.norms[1](self.two(y)))


class ResNet(nn.Module):
    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.blocks = nn.Sequential(*(Residual(width) for _ in range(depth)))
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(F.max_pool2d(F.relu(self.stem(x)), 2))
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


def resnet(width: int = 16, depth: int = 2) -> nn.Module:
    return ResNet(width, depth)


class ConvNeXtBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.gamma = nn.Parameter(1e-6 * torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.gamma * self.down(F.gelu(self.up(y)))
        return x + y.permute(0, 3, 1, 2)


def convnext(width: int = 16, depth: int = 2) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, width, 4, stride=4),
        *(ConvNeXtBlock(width) for _ in range(depth)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, CLASSES),
    )


class UNet(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.into = nn.Conv2d(3, width, 3, padding=1)
        self.down = nn.Conv2d(width, 2 * width, 2, stride=2)
        self.norm = nn.GroupNorm(4, 2 * width)
        self.up = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.out = nn.Conv2d(2 * width, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        skip = F.silu(self.into(x))
        deep = F.silu(self.norm(self.down(skip)))
        return self.out(torch.cat([skip, self.up(deep)], 1))


def unet(width: int = 16) -> nn.Module:
    return UNet(width)


class Mixer(nn.Module):
    def __init__(self, width: int, tokens: int = 16) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, stride=4)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.tokens = nn.Sequential(nn.Linear(tokens, 32), nn.GELU(), nn.Linear(32, tokens))
        self.channels = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).mT
        x = x + self.tokens(self.norms[0](x).mT).mT
        x = x + self.channels(self.norms[1](x))
        return self.head(self.norms[2](x).mean(1))


def mixer(width: int = 16) -> nn.Module:
    return Mixer(width)


# --- others -------------------------------------------------------------------------------------


def mlp(width: int = 32) -> nn.Module:
    return nn.Sequential(
        nn.Linear(6, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 3)
    )


def offset(width: int = 32) -> nn.Module:
    return nn.Sequential(nn.Linear(6, 3 * width + 7), nn.ReLU(), nn.Linear(3 * width + 7, 3))


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], width: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(TOKENS, width)
        self.cell = kind(width, width, batch_first=True)
        self.head = nn.Linear(width, TOKENS)

    def forward(self, ids: Tensor) -> Tensor:
        outputs, _ = self.cell(self.embed(ids))
        return self.head(outputs)


def gru(width: int = 16) -> nn.Module:
    return Recurrent(nn.GRU, width)


def lstm(width: int = 16) -> nn.Module:
    return Recurrent(nn.LSTM, width)


class Word2Vec(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(TOKENS, width, mode="mean")
        self.out = nn.Linear(width, TOKENS, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        return self.out(self.bag(ids))


def word2vec(width: int = 16) -> nn.Module:
    return Word2Vec(width)


def normed(width: int = 16) -> nn.Module:
    return nn.Sequential(
        parametrizations.weight_norm(nn.Linear(6, width)),
        nn.Tanh(),
        parametrizations.weight_norm(nn.Linear(width, width)),
        nn.Tanh(),
        nn.Linear(width, 3),
    )


class Branches(nn.Module):
    """Control flow that depends on data."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Linear(6, width)
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.inner(x)
        if y.sum() > 0:
            y = 2 * y
        return self.head(y)


def branches(width: int = 16) -> nn.Module:
    return Branches(width)


class Counting(nn.Module):
    """State that forward changes in place."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Linear(6, width)
        self.head = nn.Linear(width, 3)
        self.register_buffer("seen", torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.inner(x)
        self.seen += y.mean(0)
        return self.head(y - self.seen)


def counting(width: int = 16) -> nn.Module:
    return Counting(width)
