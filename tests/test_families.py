"""Families of architectures under signed steps, beside a loop in plain torch.

Each trained tensor alone takes a step of fixed length along the sign of its gradient, and the
output of the module that owns it is seen to move: by a power of the width, which the graph
foretells (`own` at the start). The loop shares no code with what traces, derives or executes.
"""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from model_files import strangers, zoo
from test_trace import BATCHES
from torch import Tensor, nn

from empirical.trace.given_model import model_of
from empirical.trace.read_model import graph_of
from scaling.solve.graph_solution import derive_graph

FAMILIES = {
    "resnet": (32, 64, 128), "convnext": (32, 64, 128), "unet": (32, 64, 128),
    "gru": (64, 128, 256), "word2vec": (64, 256, 1024), "mixer": (64, 128, 256),
    "latents": (64, 128, 256), "cells": (64, 128, 256),
}  # fmt: skip
SEEDS, STEP, MARGIN = 4, 1e-4, 0.25


def output(found: object) -> Tensor:
    return found[0] if isinstance(found, tuple) else found  # type: ignore[return-value]


def build(name: str) -> Callable[..., nn.Module]:
    found: Callable[..., nn.Module] = getattr(zoo if hasattr(zoo, name) else strangers, name)
    return found


def data(name: str) -> tuple[Tensor, Tensor]:
    return BATCHES[name]() if name in BATCHES else strangers.batch_of(name)  # type: ignore[return-value]


def loss_of(name: str, model: nn.Module) -> Tensor:
    inputs, targets = data(name)
    inputs = inputs.double() if inputs.is_floating_point() else inputs
    found = model(inputs)
    if targets.is_floating_point():
        return nn.functional.mse_loss(found, targets.double())
    return nn.functional.cross_entropy(found.reshape(-1, found.shape[-1]), targets.reshape(-1))


def moves(name: str, width: int, seed: int) -> Iterator[tuple[str, float]]:
    """By tensor, the RMS by which the output of its module moves when it alone takes a step."""
    torch.manual_seed(seed)
    model = build(name)(width=width).double().train()
    loss_of(name, model).backward()
    seen: list[Tensor] = []
    for place, module in model.named_modules():
        for own, p in module.named_parameters(recurse=False):
            handle = module.register_forward_hook(lambda m, x, y: seen.append(output(y).detach()))
            seen.clear()
            with torch.no_grad():
                loss_of(name, model)
                p -= STEP * p.grad.sign()
                loss_of(name, model)
                p += STEP * p.grad.sign()
            handle.remove()
            half = len(seen) // 2
            pairs = zip(seen[:half], seen[half:], strict=True)
            squares = [float((b - a).square().mean()) for a, b in pairs]
            yield f"{place}.{own}".strip("."), float(np.sqrt(np.mean(squares))) / STEP


def slopes(name: str) -> dict[str, float]:
    widths, logs = FAMILIES[name], dict[str, list[list[float]]]()
    for seed in range(SEEDS):
        for k, width in enumerate(widths):
            for tensor, size in moves(name, width, seed):
                if size > 0:
                    logs.setdefault(tensor, [[] for _ in widths])[k].append(np.log(size))
    return {
        tensor: np.polyfit(np.log(widths), [np.mean(x) for x in rows], 1)[0]
        for tensor, rows in logs.items()
        if all(rows)
    }


@pytest.mark.parametrize("name", FAMILIES)
def test_signed_steps_move_every_product_as_the_graph_foretells(name: str) -> None:
    answer = derive_graph("sign(G)", graph_of(model_of(build(name), data(name))).graph)
    measured = slopes(name)
    told = {n: x.start.own for n, x in answer.tensors.items() if x.start.own is not None}
    shared = [n for n in told if n in measured]
    assert len(shared) >= 2 and any(told[n] == 1 for n in shared)
    wrong = {n: (told[n], measured[n]) for n in shared if abs(measured[n] - told[n]) > MARGIN}
    assert not wrong
    planted = [n for n in shared if abs(measured[n] - told[n] - 0.5) <= MARGIN]
    assert not planted, "an error of 1/2 would be seen in every tensor"
