"""What a tensor is follows from its use: models whose shapes mislead, beside plain torch loops.

The loops share no code with the tracer: one step of one tensor by the sign of its gradient, at the
rate of `for_model`, at three widths in float64. The output then moves alike at every width, and
does not at the rate that was once guessed from the shape.
"""

import math
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import pytest
import torch
from model_files import guessed
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from empirical import for_model, initialise_
from empirical.your_model.model_scales import ModelScales

SIGN, BASE, WIDTHS, SEEDS, MARGIN = "sign(G)", 64, (64, 256, 1024), 4, 0.2
Build = Callable[[int], nn.Module]
BATCHES: Mapping[Build, Any] = {
    guessed.Stored: guessed.NUMBERS, guessed.normed: guessed.NUMBERS,
    guessed.bottleneck: guessed.NUMBERS, guessed.Experts: guessed.NUMBERS,
    guessed.Depthwise: guessed.PIXELS, guessed.ClassToken: guessed.PIXELS,
}  # fmt: skip


def batch_of(build: Build) -> tuple[Tensor, Tensor]:
    return BATCHES.get(build, guessed.TEXT)


@cache
def scales(build: Build, width: int = 4 * BASE) -> ModelScales:
    return for_model(SIGN, build, base=BASE, width=width, batch=batch_of(build))


def table(build: Build) -> dict[str, tuple[str, str]]:
    return {n: (str(x.b), str(x.c)) for n, x in scales(build).read.answer.tensors.items()}


TABLES: list[tuple[Build, Mapping[str, tuple[str, str]]]] = [
    # a raw table of positions is no readout
    (guessed.Places, {"places": ("0", "0"), "inner.weight": ("1/2", "1"),
                      "head.weight": ("1", "1")}),
    # x @ w of matrices stored (in, out)
    (guessed.Stored, {"first": ("0", "0"), "inner": ("1/2", "1"), "last": ("1", "1")}),
    # every channel has a kernel of its own
    (guessed.Depthwise, {"first.weight": ("0", "0"), "up.weight": ("0", "0"),
                         "head.weight": ("1", "1")}),
    # a gain, and a direction whose size means nothing: drawn at size one
    (guessed.normed, {"2.parametrizations.weight.original0": ("0", "0"),
                      "2.parametrizations.weight.original1": ("0", "1/2")}),
    # keys and values of a few groups are no readouts of the model: rates as the queries', and less
    (guessed.grouped, {"k.weight": ("1", "1"), "v.weight": ("1", "1")}),
    # what stands above a bottleneck is a layer like the first
    (guessed.bottleneck, {"0.weight": ("0", "0"), "2.weight": ("1", "1"), "4.weight": ("0", "0"),
                          "6.weight": ("1", "1")}),
    # one tensor, two uses, one rate
    (guessed.Tied, {"words.weight": ("1", "1"), "inner.weight": ("1/2", "0")}),
    (guessed.ClassToken, {"token": ("0", "0"), "patches.weight": ("0", "0"),
                          "head.weight": ("1", "1")}),
    (guessed.Experts, {"up": ("1/2", "1"), "down": ("1/2", "1"), "head.weight": ("1", "1")}),
    (guessed.Encoder, {"words.weight": ("0", "1/2"),
                       "encoder.layers.0.self_attn.in_proj_weight": ("1/2", "3/2"),
                       "encoder.layers.0.linear1.weight": ("1/2", "1"),
                       "encoder.layers.0.norm1.weight": ("0", "0"), "head.weight": ("1", "1")}),
]  # fmt: skip


@pytest.mark.parametrize(("build", "expected"), TABLES, ids=[build.__name__ for build, _ in TABLES])
def test_a_tensor_has_the_exponents_of_its_use(
    build: Build, expected: Mapping[str, tuple[str, str]]
) -> None:
    found = table(build)
    assert {name: found[name] for name in expected} == expected


def test_logits_over_the_root_of_the_head_size_are_seen_and_their_line_is_named() -> None:
    found = scales(guessed.rooted)
    assert table(guessed.rooted)["q.weight"] == table(guessed.rooted)["k.weight"] == ("1/2", "3/2")
    assert found["q.weight"].lr == pytest.approx(4**-1.5)
    text = " ".join(str(found).split())
    assert "softmax" in text and "guessed.py:" in text
    assert "a factor M^(-1/2), where M^(-1) is needed: k.weight, q.weight, words.weight" in text


def test_what_the_code_draws_gets_the_derived_size_and_keeps_its_entries() -> None:
    """A readout drawn at M^(-1/2) by the model's own code is to start at M^(-1)."""
    model, width = guessed.Stored(4 * BASE), 4 * BASE
    before = {name: x.detach().clone() for name, x in model.named_parameters()}
    found = initialise_(model, guessed.Stored(BASE), scales(guessed.Stored), seed=0, width=width)
    assert found.rescaled == ("last",) and found.left == {"first": "given", "inner": "given"}
    torch.testing.assert_close(model.inner, before["inner"])
    ratio = model.last.detach() / before["last"]
    assert float(ratio.std()) < 1e-6 and float(ratio.mean()) == pytest.approx(0.5, rel=0.3)


# --- plain loops --------------------------------------------------------------------------------


READOUTS = {guessed.normed: "4.weight", guessed.bottleneck: "6.weight"}


def started(build: Build, width: int, seed: int) -> nn.Module:
    """As torch draws it, in float64, readouts M^(-1/2) smaller: b = 1."""
    torch.manual_seed(seed)
    model = build(width).double()
    with torch.no_grad():
        for name, x in model.named_parameters():
            if name in ("head.weight", "last") or name == READOUTS.get(build):
                x *= (width / BASE) ** -0.5
            if name.endswith("original1"):
                x *= (width / BASE) ** 0.5
    return model


def output_and_loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    x, y = (t.double() if t.is_floating_point() else t for t in batch)
    f = model(x)
    if y.is_floating_point():
        return f, mse_loss(f, y)
    return f, cross_entropy(f.flatten(0, -2), y.flatten())


def moved(build: Build, name: str, width: int, seed: int, rate: float) -> float:
    """RMS change of the output by a step of one tensor."""
    model, batch = started(build, width, seed), batch_of(build)
    before, loss = output_and_loss(model, batch)
    tensor = model.get_parameter(name)
    (gradient,) = torch.autograd.grad(loss, tensor)
    with torch.no_grad():
        tensor -= rate * gradient.sign()
        after, _ = output_and_loss(model, batch)
    return float((after - before).detach().square().mean().sqrt())


def slope(build: Build, name: str, c: float) -> float:
    """The exponent of the change at the rate M^(-c)."""
    y = []
    for width in WIDTHS:
        rate = 1e-3 * (width / BASE) ** -c
        logs = [math.log(moved(build, name, width, seed, rate)) for seed in range(SEEDS)]
        y.append(sum(logs) / SEEDS)
    return (y[-1] - y[0]) / math.log(WIDTHS[-1] / WIDTHS[0])


LOOPS = [
    # the tensor, and the rate that its shape suggests
    (guessed.Places, "places", 1.0),
    (guessed.Stored, "first", 1.0),
    (guessed.Stored, "last", 0.0),
    (guessed.Depthwise, "up.weight", 1.0),
    (guessed.normed, "2.parametrizations.weight.original0", None),
    (guessed.normed, "2.parametrizations.weight.original1", 1.0),
    (guessed.bottleneck, "4.weight", None),
    (guessed.bottleneck, "6.weight", 0.0),
    (guessed.ClassToken, "token", 1.0),
    (guessed.Experts, "up", 0.0),
]


@pytest.mark.parametrize(
    ("build", "name", "wrong"), LOOPS, ids=[f"{b.__name__}-{n}" for b, n, _ in LOOPS]
)
def test_a_plain_step_moves_the_output_alike_at_the_derived_rate_and_not_at_the_guessed_one(
    build: Build, name: str, wrong: float | None
) -> None:
    c = float(scales(build).read.answer.tensors[name].c)
    assert abs(slope(build, name, c)) < MARGIN
    if wrong is not None:
        assert abs(slope(build, name, wrong)) > 2 * MARGIN
