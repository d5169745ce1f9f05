"""LoRA: a transformer of the language reference goes on to Python source, by adapters alone.

    scaling derive adam --model examples/lora.py
    python examples/tune_small_train_large.py examples/lora.py

Everything but the adapters is frozen: a body as in transformer.py whose blocks are added times
2/depth, trained before under a plan of its own (`prepare`; --small leaves it as it is drawn). B
starts at zero, so that the model starts as it was; the text is the source of argparse.
"""

import argparse
import inspect
from functools import cache

import torch
import transformer
from torch import nn
from torch.nn.functional import cross_entropy

from empirical import plan

SOURCE = transformer.numbers_of(inspect.getsource(argparse))
PARTS = SOURCE[: len(SOURCE) * 9 // 10], SOURCE[len(SOURCE) * 9 // 10 :]
RANK = 4

RECIPE, TUNED = "adam", {"eps": 1e-8}
SMALL = {"base": {"width": 8, "depth": 2}, "steps": 6, "rates": (-6, -5, -4), "seeds": 1}
DESK = {"base": {"width": 16, "depth": 2}, "steps": 80, "rates": (-7, -6, -5, -4, -3), "seeds": 2}


class LoRA(nn.Module):
    def __init__(self, linear):
        super().__init__()
        self.linear = linear
        self.a = nn.Linear(linear.in_features, RANK, bias=False)
        self.b = nn.Linear(RANK, linear.out_features, bias=False)
        nn.init.zeros_(self.b.weight)

    def forward(self, x):
        return self.linear(x) + self.b(self.a(x))


def body(width=32, depth=2):
    return transformer.build(width, depth, share=2 / depth)


def build(width=32, depth=2):
    model = body(width, depth).requires_grad_(False)
    nn.init.normal_(model.head.weight, std=3 / width)  # as trained under a plan: of size 1/width
    for block in model.blocks:
        for name in ("qkv", "out", "up", "down"):
            setattr(block, name, LoRA(getattr(block, name)))
    return model


def batch(seed=0):
    """Seeds 0 to 7 are held out: they draw from the last tenth of the source."""
    return transformer.windows(PARTS[seed < 8], seed)


def prepare(model, sizes, steps):
    """Put weights into what is frozen: those of transformer.py, trained under a plan of its own."""
    if steps <= SMALL["steps"]:
        return
    own = {name.replace(".linear.", "."): p for name, p in model.named_parameters()}
    trained = _trained(tuple(sizes.items()), steps)
    with torch.no_grad():
        for name, p in trained.named_parameters():
            own[name].copy_(p)


@cache
def _trained(sizes, steps):
    base, at = transformer.DESK["base"], dict(sizes)
    base = {axis: min(base[axis], size) for axis, size in at.items()}
    tuned = {"lr": 2**-6, **transformer.TUNED}
    numbers = plan(body, transformer.batch, transformer.RECIPE, base, at, tuned)
    model = body(**at)
    numbers.apply_(model)
    optimizer = transformer.optimizer(model, numbers.param_groups(model))
    for step in range(steps):
        letters, targets = transformer.batch(8 + step)
        optimizer.zero_grad()
        cross_entropy(model(letters).flatten(0, -2), targets.flatten()).backward()
        optimizer.step()
    return model


def optimizer(model, groups=None):
    trained = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.Adam(groups or trained, lr=2**-6, eps=1e-8)
