"""Blocks in number: convolutions and reshapes keep their signs, adapters keep published rates."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from sympy import Rational
from torch import nn

from derivations.recipes import in_practice, recipe_of
from empirical import plan
from empirical.trace.given_model import model_of
from empirical.trace.trained import trained
from scaling.models.settings import Settings
from scaling.solve.graph_solution import derive_graph

X = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
Y = torch.randn(4, 16, generator=torch.Generator().manual_seed(1))


def answers(build: Callable[..., nn.Module], axis: str, x: torch.Tensor = X) -> dict[str, str]:
    recipe = in_practice(recipe_of("adam"))
    model = trained(recipe, model_of(build, (x, Y)), axis)
    found = derive_graph(recipe, model.lowered.graph, Settings(), kinds=model.kinds)
    return {name: str(x.c) for name, x in found.tensors.items()}


class Convolved(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.map = nn.BatchNorm2d(width), nn.Conv2d(width, width, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.map(self.norm(x).relu())


class Turned(nn.Module):
    """What it adds is turned at the end."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.map = nn.LayerNorm(width), nn.Linear(width, width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.map(self.norm(x).relu())
        return x + y.unflatten(-1, (2, -1)).transpose(-1, -2).flatten(-2)


def images(width: int = 4, depth: int = 2) -> nn.Module:
    blocks = nn.Sequential(*(Convolved(width) for _ in range(depth)))
    last = nn.Sequential(nn.BatchNorm2d(width), nn.Flatten(), nn.Linear(width * 4, 16))
    return nn.Sequential(nn.Conv2d(8, width, 1), blocks, last)


def rows(width: int = 4, depth: int = 2) -> nn.Module:
    blocks = nn.Sequential(*(Turned(width) for _ in range(depth)))
    return nn.Sequential(nn.Linear(8, width), blocks, nn.LayerNorm(width), nn.Linear(width, 16))


SQUARES = X[:, :, None, None].expand(4, 8, 2, 2) * torch.ones(2, 2).cumsum(1)


def test_blocks_of_convolutions_and_of_reshapes_add_up_with_signs_of_their_own() -> None:
    """As dense blocks do: the stream is the root of the depth, and a rate falls as that."""
    for build, x in ((images, SQUARES), (rows, X)):
        found = answers(build, "depth=2,4,6", x)
        blocks = {c for name, c in found.items() if ".0.map" in name or ".0.norm" in name}
        assert blocks == {"1/2"}, found
        assert {c for name, c in found.items() if name.startswith("0.")} == {"0"}


def test_one_rate_for_blocks_of_a_stream_that_grows_is_an_assumption_of_the_answer() -> None:
    def calm(width: int = 4, depth: int = 2) -> nn.Module:
        blocks = Scaled([Turned(width) for _ in range(depth)])
        return nn.Sequential(nn.Linear(8, width), blocks, nn.Linear(width, 16))

    recipe = in_practice(recipe_of("adam"))
    for build, x, axis, grows in (
        (images, SQUARES, "depth=2,4,6", True), (calm, X, "depth=2,4,6", False),
        (rows, X, "width=4,8,12", False),
    ):  # fmt: skip
        model = trained(recipe, model_of(build, (x, Y)), axis)
        found = derive_graph(recipe, model.lowered.graph, Settings(), kinds=model.kinds)
        assert any("that of a typical one" in text for text in found.assumptions) is grows


class Scaled(nn.Module):
    """Blocks over their number."""

    def __init__(self, blocks: list[Turned]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = x + block.map(block.norm(x).relu()) / len(self.blocks)  # type: ignore[union-attr,operator]
        return x


def convolved_change(depth: int, seed: int) -> dict[str, float]:
    """RMS of the change of the outputs of `images` by a small signed step of half of its blocks.

    In plain torch, the norms written out; per unit of the rate. The second half: a folded block
    stands for a typical one, and the gradients of the first few are larger by (depth/k)^(0.7).
    """
    torch.manual_seed(seed)
    width, step = 16, 1e-6
    maps = torch.randn(depth, width, width, 1, 1, dtype=torch.float64) / width**0.5
    tensors = {"map": maps, "gain": torch.ones(depth, width, 1, 1, dtype=torch.float64)}
    x0 = torch.randn(16, width, 2, 2, dtype=torch.float64)
    readout = torch.randn(4 * width, 3, dtype=torch.float64) / width

    def normed(x: torch.Tensor) -> torch.Tensor:
        centred = x - x.mean((0, 2, 3), keepdim=True)
        return centred / centred.square().mean((0, 2, 3), keepdim=True).sqrt()

    def output() -> torch.Tensor:
        x = x0
        for block, gain in zip(tensors["map"], tensors["gain"], strict=True):
            x = x + nn.functional.conv2d((normed(x) * gain).relu(), block)
        return normed(x).flatten(1) @ readout

    for x in tensors.values():
        x.requires_grad_()
    before = output()
    gradients = torch.autograd.grad((before - 1).square().mean(), list(tensors.values()))
    found = {}
    with torch.no_grad():
        for (name, x), g in zip(tensors.items(), gradients, strict=True):
            way = g.sign()
            way[: depth // 2] = 0
            x -= step * way
            found[name] = float((output() - before).square().mean().sqrt()) / step
            x += step * way
    return found


def test_outputs_of_convolutions_in_blocks_move_by_the_root_of_the_depth() -> None:
    """At a rate of its own the depth is felt as its root: the derived rates take that away."""
    depths, seeds = (8, 24, 72), range(6)
    sizes = [[convolved_change(depth, seed) for seed in seeds] for depth in depths]
    derived = answers(images, "depth=2,4,6", SQUARES)
    for name, tensor in (("map", "1.0.map.weight"), ("gain", "1.0.norm.weight")):
        logs = [np.mean([np.log(x[name]) for x in row]) for row in sizes]
        slope = np.polyfit(np.log(depths), logs, 1)[0]
        assert abs(slope - float(Rational(derived[tensor]))) < 0.2, (name, slope)


class Adapted(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.kept = nn.Linear(width, width).requires_grad_(False)
        self.a, self.b = nn.Linear(width, 2, bias=False), nn.Linear(2, width, bias=False)
        nn.init.zeros_(self.b.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = nn.functional.layer_norm(x, x.shape[-1:]).tanh()
        return x + self.kept(y) + self.b(self.a(y))


def adapted(power: float) -> Callable[..., nn.Module]:
    def build(width: int = 32) -> nn.Module:
        head = nn.Linear(width, 16, bias=False)
        nn.init.normal_(head.weight, std=3 * width**-power)
        blocks = (Adapted(width) for _ in range(2))
        return only_adapters(nn.Sequential(nn.Linear(8, width), nn.Sequential(*blocks), head))

    return build


def only_adapters(model: nn.Module) -> nn.Module:
    for name, p in model.named_parameters():
        p.requires_grad_(".a." in name or ".b." in name)
    return model


def test_adapters_in_several_layers_have_the_rates_of_one() -> None:
    """arXiv 2402.12354: A's rate falls as 1/n and B's stays, whichever layer they are in."""
    found = answers(adapted(1), "width=32,64,96")
    assert len(found) == 4
    for name, c in found.items():
        assert c == ("1" if ".a." in name else "0"), found
    loud = answers(adapted(0.5), "width=32,64,96")  # a head of size n^(-1/2) adds up what B adds
    assert {c for name, c in loud.items() if ".b." in name} == {"1/2"}


def test_blocks_that_start_at_different_sizes_start_like_the_smallest() -> None:
    """The first A has nothing trained below it, and no block of a deeper model is that one."""

    def deep(width: int = 32, depth: int = 2) -> nn.Module:
        head = nn.Linear(width, 16, bias=False)
        nn.init.normal_(head.weight, std=3 / width)
        blocks = nn.Sequential(*(Adapted(width) for _ in range(depth)))
        last = nn.LayerNorm(width, elementwise_affine=False)
        return only_adapters(nn.Sequential(nn.Linear(8, width), blocks, last, head))

    sizes = {"width": 32, "depth": 2}, {"width": 128, "depth": 4}
    found = plan(deep, (X, Y), "adam", *sizes, {"lr": 0.1, "eps": 1e-8})
    starts = [x.std for name, x in found.tensors.items() if name.endswith("a.weight")]
    assert len(starts) == 4 and len(set(starts)) == 1
    base = 1 / (3 * 32) ** 0.5  # the standard deviation that PyTorch gives a matrix of 32 columns
    assert starts[0] == pytest.approx(base / 4, rel=0.1)
    assert any("start like the smallest" in text for text in found.assumptions)
