"""The responses of group 13 against steps that are taken, and path sums against a matrix power."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from sympy import Rational
from torch import nn
from torch.nn import functional

from empirical.claims import architecture_aware as aware

RATE = 1e-6


def stepped(layers: nn.Module, x: torch.Tensor, v: torch.Tensor, hidden: list[int]) -> float:
    """RMS of the change of the last pre-activations, by a step of SGD at a small rate."""
    before = layers(x)
    features = functional.relu(before)
    output = (features.mean((2, 3)) if before.ndim == 4 else features) @ v
    output.sum().backward()
    with torch.no_grad():
        for k in hidden:
            weight = layers[k].weight  # type: ignore[index]
            weight -= RATE * weight.grad
        return float((layers(x) - before).square().mean().sqrt()) / RATE


def test_the_response_of_a_chain_is_what_a_step_does() -> None:
    width, depth, draw = 24, 5, aware._drawing(3)
    x = draw(1, aware.FEATURES)
    first = draw(aware.FEATURES, width) / math.sqrt(aware.FEATURES)
    layers = nn.Sequential(
        nn.Linear(aware.FEATURES, width, bias=False),
        *(m for _ in range(depth) for m in (nn.ReLU(), nn.Linear(width, width, bias=False))),
    ).double()
    with torch.no_grad():
        layers[0].weight.copy_(first.T)
        for k in range(depth):
            layers[2 * k + 2].weight.copy_(draw(width, width) * math.sqrt(2 / width))
    hidden = [2 * k + 2 for k in range(depth)]
    found = stepped(layers, x, draw(width) / width, hidden)
    assert found == pytest.approx(aware.chain_response(width, depth, 3), rel=1e-4)


def test_the_response_of_a_kernel_is_what_a_step_does() -> None:
    side, n, draw = 5, aware.CHANNELS, aware._drawing(4)
    image = draw(1, n, aware.IMAGE, aware.IMAGE)
    layer = nn.Conv2d(n, n, side, padding=2, padding_mode="circular", bias=False).double()
    with torch.no_grad():
        layer.weight.copy_(draw(n, n, side, side) * math.sqrt(2 / n) / side)
    found = stepped(nn.Sequential(nn.ReLU(), layer), image, draw(n) / n, [1])
    assert found == pytest.approx(aware.kernel_response(side, 4), rel=1e-4)


def test_a_chain_as_a_graph_and_the_paths_of_a_full_graph() -> None:
    chain = tuple(pairwise(range(aware.NODES)))
    assert aware.path_lengths(chain) == [aware.NODES - 1]
    adjacency = np.triu(np.ones((aware.NODES, aware.NODES)), 1)
    counts = [np.linalg.matrix_power(adjacency, k)[0, -1] for k in range(aware.NODES)]
    found = aware.path_lengths(aware.EDGES)
    assert [found.count(k) for k in range(aware.NODES)] == counts
    assert all(aware.path_lengths(aware.random_graph(seed)) for seed in range(aware.GRAPHS))


def test_depth_and_side_are_derived_from_their_graphs() -> None:
    assert aware.derived_depth() == Rational(3, 2)
    assert aware.derived_side() == 2
