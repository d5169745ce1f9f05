"""A transformer on the text of Python's own language reference, character by character.

    scaling derive adamw --model examples/transformer.py
    python examples/tune_small_train_large.py examples/transformer.py

The model is that of nanoGPT, with heads of a fixed size, so that their number grows with the width.
The text is `pydoc_data.topics`, which every Python has; with ``--data-root DIR`` it is WikiText-2,
of the files DIR/wiki.train.tokens and DIR/wiki.valid.tokens.
"""

from functools import cache
from pydoc_data.topics import topics

import torch
from torch import nn
from torch.nn import functional

from empirical.data.text import wikitext

LETTERS = {chr(code): code - 31 for code in range(32, 127)} | {"\n": 0}  # others: read as "?"
LENGTH, HEAD = 32, 8

RECIPE, TUNED = "adamw", {"eps": 1e-8, "decay": 0.1}
SMALL = {"base": {"width": 8, "depth": 2}, "steps": 6, "rates": (-6, -5, -4), "seeds": 1}
DESK = {"base": {"width": 16, "depth": 2}, "steps": 80, "rates": (-9, -8, -7, -6, -5), "seeds": 2}


def numbers_of(text):
    return torch.tensor([LETTERS.get(letter, LETTERS["?"]) for letter in text])


@cache
def parts(data_root=None):
    """The letters to train on, and those held out."""
    if data_root is not None:
        return tuple(numbers_of(" ".join(words)) for words in wikitext(data_root))
    text = "\n".join(topics[name] for name in sorted(topics))
    return numbers_of(text[: len(text) * 9 // 10]), numbers_of(text[len(text) * 9 // 10 :])


class Block(nn.Module):
    def __init__(self, width, share):
        super().__init__()
        self.share = share
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        parts = self.qkv(self.before(x)).unflatten(-1, (3, -1, HEAD)).permute(2, 0, 3, 1, 4)
        heads = functional.scaled_dot_product_attention(*parts.unbind(0), is_causal=True)
        x = x + self.share * self.out(heads.transpose(1, 2).flatten(2))
        return x + self.share * self.down(functional.gelu(self.up(self.between(x))))


class Transformer(nn.Module):
    def __init__(self, width, depth, share):
        super().__init__()
        self.letters = nn.Embedding(len(LETTERS), width)
        self.places = nn.Embedding(LENGTH, width)
        self.blocks = nn.Sequential(*(Block(width, share) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, len(LETTERS), bias=False)

    def forward(self, letters):
        places = torch.arange(letters.shape[1], device=letters.device)
        return self.head(self.norm(self.blocks(self.letters(letters) + self.places(places))))


def build(width=32, depth=2, share=1.0):
    """What a block computes is added times ``share``."""
    return Transformer(width, depth, share)


def windows(text, seed, count=16):
    draw = torch.Generator().manual_seed(seed)
    starts = torch.randint(len(text) - LENGTH, (count,), generator=draw)
    rows = torch.stack([text[start : start + LENGTH + 1] for start in starts])
    return rows[:, :-1], rows[:, 1:]


def batch(seed=0, data_root=None):
    """Seeds 0 to 7 are held out: they draw from the last tenth of the text."""
    return windows(parts(data_root)[seed < 8], seed)


def optimizer(model, groups=None):
    return torch.optim.AdamW(groups or model.parameters(), lr=2**-7, eps=1e-8, weight_decay=0.1)
