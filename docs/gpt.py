"""A small GPT, as `scaling derive adamw --model docs/gpt.py` reads it."""

import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x):
        b, t, d = x.shape
        parts = self.qkv(self.before(x)).view(b, t, 3, self.heads, -1).unbind(2)
        q, k, v = (y.transpose(1, 2) for y in parts)
        attention = (q @ k.transpose(-1, -2) * self.scale).softmax(-1)
        x = x + self.out((attention @ v).transpose(1, 2).reshape(b, t, d))
        return x + self.down(nn.functional.gelu(self.up(self.between(x))))


class GPT(nn.Module):
    def __init__(self, width, depth, heads):
        super().__init__()
        self.tokens, self.places = nn.Embedding(64, width), nn.Parameter(torch.randn(16, width))
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 64, bias=False)

    def forward(self, ids):
        return self.head(self.norm(self.blocks(self.tokens(ids) + self.places)))


def build(width=64, depth=1, heads=4):
    return GPT(width, depth, heads)


def batch():
    ids = torch.randint(64, (4, 17), generator=torch.manual_seed(0))
    return ids[:, :-1], ids[:, 1:]
