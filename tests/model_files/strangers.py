"""Models as strangers bring them: what no test of a single construct was written for."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TOKENS, LENGTH, BATCH = 40, 8, 4


def text() -> tuple[Tensor, Tensor]:
    ids = torch.randint(TOKENS, (BATCH, LENGTH + 1), generator=torch.manual_seed(0))
    return ids[:, :-1], ids[:, 1:]


# --- nanoGPT: tied embeddings, its own initialisation --------------------------------------------


class CausalSelfAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.width = heads, width
        self.c_attn = nn.Linear(width, 3 * width)
        self.c_proj = nn.Linear(width, width)
        self.drop = nn.Dropout(0.0)

    def forward(self, x: Tensor) -> Tensor:
        b, t, c = x.size()
        q, k, v = self.c_attn(x).split(self.width, dim=2)
        q, k, v = (y.view(b, t, self.heads, c // self.heads).transpose(1, 2) for y in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=0.0, is_causal=True)
        return self.drop(self.c_proj(y.transpose(1, 2).contiguous().view(b, t, c)))


class NanoBlock(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = CausalSelfAttention(width, heads)
        self.c_fc, self.c_proj = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.c_proj(F.gelu(self.c_fc(self.ln_2(x))))


class NanoGPT(nn.Module):
    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(TOKENS, width), nn.Embedding(LENGTH, width)
        self.h = nn.ModuleList([NanoBlock(width, 4) for _ in range(depth)])
        self.ln_f, self.lm_head = nn.LayerNorm(width), nn.Linear(width, TOKENS, bias=False)
        self.wte.weight = self.lm_head.weight
        self.apply(self._init)
        for name, p in self.named_parameters():
            if name.endswith("c_proj.weight"):
                nn.init.normal_(p, std=0.02 / math.sqrt(2 * depth))

    def _init(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)

    def forward(self, ids: Tensor) -> Tensor:
        places = torch.arange(ids.size(1), device=ids.device)
        x = self.wte(ids) + self.wpe(places)
        for block in self.h:
            x = block(x)
        return self.lm_head(self.ln_f(x))


def nanogpt(width: int = 16, depth: int = 2) -> nn.Module:
    return NanoGPT(width, depth)


# --- a gated state-space block, as Mamba has it -----------------------------------------------


class Selective(nn.Module):
    def __init__(self, width: int, state: int = 4) -> None:
        super().__init__()
        inner = 2 * width
        self.state = state
        self.in_proj, self.out_proj = (
            nn.Linear(width, 2 * inner, bias=False),
            nn.Linear(inner, width),
        )
        self.conv = nn.Conv1d(inner, inner, 4, groups=inner, padding=3)
        self.x_proj = nn.Linear(inner, 2 * state + 2, bias=False)
        self.dt_proj = nn.Linear(2, inner)
        self.A_log = nn.Parameter(torch.log(torch.arange(1.0, state + 1).repeat(inner, 1)))
        self.D = nn.Parameter(torch.ones(inner))

    def forward(self, x: Tensor) -> Tensor:
        t = x.shape[1]
        u, z = self.in_proj(x).chunk(2, -1)
        u = F.silu(self.conv(u.transpose(1, 2))[..., :t].transpose(1, 2))
        dt, b, c = self.x_proj(u).split([2, self.state, self.state], -1)
        dt = F.softplus(self.dt_proj(dt))
        decay = torch.exp(dt.unsqueeze(-1) * -torch.exp(self.A_log))
        drive = dt.unsqueeze(-1) * b.unsqueeze(2) * u.unsqueeze(-1)
        h, found = torch.zeros_like(drive[:, 0]), []
        for i in range(t):
            h = decay[:, i] * h + drive[:, i]
            found.append((h * c[:, i].unsqueeze(1)).sum(-1))
        y = torch.stack(found, 1) + u * self.D
        return self.out_proj(y * F.silu(z))


class Mamba(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed, self.mixer = nn.Embedding(TOKENS, width), Selective(width)
        self.norm, self.norm_f = nn.RMSNorm(width), nn.RMSNorm(width)
        self.head = nn.Linear(width, TOKENS, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        return self.head(self.norm_f(x + self.mixer(self.norm(x))))


def mamba(width: int = 16) -> nn.Module:
    return Mamba(width)


# --- sets -------------------------------------------------------------------------------------


class DeepSets(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.phi = nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.rho = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 3))

    def forward(self, x: Tensor) -> Tensor:
        kept = x.new_empty(len(x), 1, 1).bernoulli_(0.9).div_(0.9)  # stochastic depth, as timm's
        return self.rho((self.phi(x) * kept).sum(1))


def deepsets(width: int = 16) -> nn.Module:
    return DeepSets(width)


# --- speech: convolutions over time, then a GRU -------------------------------------------------


class Speech(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, width, (3, 3), stride=(2, 1), padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.gru = nn.GRU(width * 5, width, num_layers=2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * width, 12)

    def forward(self, x: Tensor) -> Tensor:
        x = F.hardtanh(self.norm(self.conv(x)), 0, 20)
        b, c, f, t = x.shape
        x, _ = self.gru(x.view(b, c * f, t).transpose(1, 2))
        return self.head(x)


def speech(width: int = 16) -> nn.Module:
    return Speech(width)


# --- an autoencoder with a fixed bottleneck -----------------------------------------------------


def autoencoder(width: int = 16) -> nn.Module:
    return nn.Sequential(
        nn.Linear(6, width), nn.Tanh(), nn.Linear(width, 2),
        nn.Linear(2, width), nn.Tanh(), nn.Linear(width, 6),
    )  # fmt: skip


# --- two towers and a temperature ----------------------------------------------------------------


class Towers(nn.Module):
    """As CLIP: normalised embeddings, and a temperature that is learnt as a logarithm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.image = nn.Sequential(nn.Linear(6, width), nn.GELU(), nn.Linear(width, width))
        self.words = nn.Sequential(nn.Linear(5, width), nn.GELU(), nn.Linear(width, width))
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        u, v = F.normalize(self.image(x), dim=-1), F.normalize(self.words(y), dim=-1)
        return self.logit_scale.exp() * u @ v.t()


def towers(width: int = 16) -> nn.Module:
    return Towers(width)


# --- FiLM ---------------------------------------------------------------------------------------


class FiLM(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv, self.film = nn.Conv2d(3, width, 3, padding=1), nn.Linear(5, 2 * width)
        self.next, self.head = nn.Conv2d(width, width, 3, padding=1), nn.Linear(width, 10)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        gain, shift = self.film(condition)[..., None, None].chunk(2, 1)
        x = F.relu((1 + gain) * self.conv(x) + shift)
        return self.head(F.relu(self.next(x)).mean((2, 3)))


def film(width: int = 16) -> nn.Module:
    return FiLM(width)


# --- a hypernetwork -----------------------------------------------------------------------------


class Hyper(nn.Module):
    """The weights of a layer for each sample are what another network makes of its context."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width, self.trunk = width, nn.Linear(5, width)
        self.make = nn.Linear(width, 6 * width)
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        made = self.make(torch.relu(self.trunk(context))).view(-1, self.width, 6)
        return self.head(torch.relu(torch.bmm(made, x.unsqueeze(-1)).squeeze(-1)))


def hyper(width: int = 16) -> nn.Module:
    return Hyper(width)


# --- experts whose matrices are picked for each token -------------------------------------------


class Picked(nn.Module):
    """As libraries write a mixture without loops: the matrices of the best expert of each token."""

    def __init__(self, width: int, experts: int = 4) -> None:
        super().__init__()
        self.read, self.gate = nn.Linear(6, width), nn.Linear(width, experts, bias=False)
        self.up = nn.Parameter(torch.randn(experts, 2 * width, width))
        self.down = nn.Parameter(torch.randn(experts, width, width))
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.read(x)
        weights, best = self.gate(x).softmax(-1).topk(1, -1)
        one, other = torch.bmm(self.up[best[:, 0]], x.unsqueeze(-1)).chunk(2, 1)
        y = torch.bmm(self.down[best[:, 0]], F.silu(one) * other).squeeze(-1)
        return self.head(x + weights * y)


def picked(width: int = 16) -> nn.Module:
    return Picked(width)


# --- tensors of the model's own that are fed to layers, factors before a product, cells -----------


class Table(nn.Module):
    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(rows, width))

    def forward(self) -> Tensor:
        return self.weight * 1.0


class Latents(nn.Module):
    """Learned latents, and a table of times, are what layers are called with; data come as keys."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.latents = Table(4, width)
        self.query, self.keys = nn.Linear(width, width), nn.Linear(6, 2 * width)
        self.time, self.shift = nn.Linear(width, width), nn.Linear(width, width)
        self.out, self.head = nn.Linear(width, width), nn.Linear(width, 3)
        self.slope = nn.PReLU()

    def forward(self, x: Tensor) -> Tensor:
        latents = self.latents()
        width = latents.shape[-1]
        angles = torch.arange(4).float()[:, None] * torch.linspace(1, 0.1, width // 2)
        times = x.new_empty(*angles.shape[:-1], 2 * angles.shape[-1])
        times[..., : angles.shape[-1]] = angles.sin()
        times[..., angles.shape[-1] :] = angles.cos()
        times[:, 0].zero_()
        k, v = self.keys(x).chunk(2, -1)
        weights = (self.query(latents) / width @ k.mT).softmax(-1)
        z = latents + self.out(weights @ v) + self.shift(self.slope(self.time(times)))
        y: Tensor = self.head(z.relu().mean(-2)).expand(len(x), 3)
        return y


def latents(width: int = 16) -> nn.Module:
    return Latents(width)


class Cells(nn.Module):
    """A cell whose state is zero before the first word."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.words, self.cell = nn.Embedding(TOKENS, width), nn.LSTMCell(width, width)
        self.head = nn.Linear(width, TOKENS)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.words(ids)
        h = c = x.new_zeros(len(x), x.shape[-1])
        outputs = []
        for k in range(ids.shape[1]):
            h, c = self.cell(x[:, k], (h, c))
            outputs.append(self.head(h))
        return torch.stack(outputs, 1)


def cells(width: int = 16) -> nn.Module:
    return Cells(width)


class Cross(nn.Module):
    """torch's own attention to a memory; asked for weights, it scales queries before k."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.words, self.memory = nn.Embedding(TOKENS, width), nn.Linear(5, width)
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, TOKENS, bias=False)
        self.register_buffer("table", torch.randn(7, 5))

    def forward(self, ids: Tensor) -> Tensor:
        x, memory = self.words(ids), self.memory(self.table).expand(len(ids), -1, -1)
        y: Tensor = self.head(self.norm(x + self.attention(x, memory, memory)[0]))
        return y


def cross(width: int = 16) -> nn.Module:
    return Cross(width)


def _drawn(*shapes: tuple[int, ...]) -> tuple[Tensor, ...]:
    generator = torch.manual_seed(0)
    return tuple(torch.randn(shape, generator=generator) for shape in shapes)


def batch_of(name: str) -> tuple[object, Tensor]:
    if name in ("nanogpt", "mamba", "cells", "cross"):
        return text()
    if name == "deepsets":
        return _drawn((BATCH, 7, 6), (BATCH, 3))
    if name == "speech":
        return *_drawn((BATCH, 1, 10, 9)), torch.randint(12, (BATCH, 9))
    if name in ("picked", "latents"):
        return _drawn((BATCH, 6), (BATCH, 3))
    if name == "autoencoder":
        return (*_drawn((BATCH, 6)), *_drawn((BATCH, 6)))
    if name == "towers":
        return _drawn((BATCH, 6), (BATCH, 5)), torch.arange(BATCH)
    if name == "film":
        return _drawn((BATCH, 3, 8, 8), (BATCH, 5)), torch.arange(BATCH)
    x, context, y = _drawn((BATCH, 6), (BATCH, 5), (BATCH, 3))
    return (x, context), y
