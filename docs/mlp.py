"""A small network and the optimizer that trains it, as `scaling transfer` reads them."""

import torch
from torch import nn


def build(width=64):
    return nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 4))


def batch(seed=0):
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(64, 8, generator=draw)
    return x, x[:, :4] * x[:, 4:]


def optimizer(model):
    return torch.optim.Adam(model.parameters(), lr=0.01)
