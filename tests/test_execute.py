"""A model run node by node: the numbers of plain PyTorch, and the slopes that its code implies."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sympy import Rational
from test_trace import READ, file_of
from torch import nn

from empirical.fit.verdict import Verdict, at_most
from empirical.trace.execute import Execution, root_mean_square, start_sizes
from empirical.trace.given_model import model_of
from empirical.trace.model_file import read_model, standard_loss
from empirical.trace.read_model import graph_of
from empirical.verify.graph_verification import verify_graph


@pytest.mark.parametrize("name", [n for n in READ if n not in ("vit", "lstm")])
def test_values_and_gradients_are_those_of_the_model(name: str) -> None:
    file = file_of(name)
    width = file.axes["width"]
    assert width is not None
    run = Execution(file, {"width": width}, 3, {})
    values, cotangents, gradients = run.with_gradients()

    torch.set_default_dtype(torch.float64)
    torch.manual_seed(3)
    try:
        model = file.build({"width": width}).double().train()
        inputs, targets = file.batch({"width": width})
        inputs = tuple(x.double() if x.is_floating_point() else x for x in inputs)
        targets = targets.double() if targets.is_floating_point() else targets
        torch.manual_seed(3)
        loss = standard_loss(targets)(model(*inputs), targets)
    finally:
        torch.set_default_dtype(torch.float32)
    loss.backward()
    torch.testing.assert_close(values["loss"], loss.detach(), rtol=1e-10, atol=1e-12)
    for key, p in model.named_parameters():
        if p.requires_grad:
            assert p.grad is not None
            torch.testing.assert_close(gradients[key], p.grad, rtol=1e-8, atol=1e-12)
    assert set(cotangents) <= set(values)


def test_a_run_changes_no_buffer_and_draws_the_same_noise() -> None:
    run = Execution(file_of("vit"), {"width": 32}, 0, {})
    first, second = run.values(), run.values()
    assert torch.equal(first["loss"], second["loss"])
    norms = Execution(file_of("resnet"), {"width": 16}, 0, {})
    assert torch.equal(norms.values()["loss"], norms.values()["loss"])


def test_sizes_at_the_start_have_the_slopes_that_the_code_implies() -> None:
    """q.k sums over the head size with random signs; the code divides by its root."""
    file = file_of("llama")
    axis = file.axis("width=32,64,128,256")
    found = graph_of(file, "width=32,64,128,256")
    sizes = start_sizes(file, axis, found.standing, seeds=(0, 1))

    def slope(node: str, quantity: str = "init") -> float:
        means = np.log(np.array(sizes[node][quantity])).mean(0)
        return float(np.polyfit(np.log(axis.sizes), means, 1)[0])

    assert slope("matmul") == pytest.approx(0.5, abs=0.1)
    assert slope("mul_12") == pytest.approx(0, abs=0.1)
    assert slope("linear") == pytest.approx(0, abs=0.1)
    assert slope("linear_6", "cotangent") == pytest.approx(-0.5, abs=0.15)
    assert not abs(slope("matmul")) < 0.1  # a flat line would be contradicted


def test_values_of_folded_blocks_are_kept_under_the_name_of_the_first() -> None:
    file = file_of("llama")
    found = graph_of(file, "depth=2,3,4")
    run = Execution(file, {"depth": 4}, 0, found.standing[2])
    grouped = run.grouped(run.values())
    assert len(grouped["linear_6"]) == 4 and len(grouped["embedding"]) == 1
    assert {name for name in grouped if name != "loss"} <= set(found.made)
    assert isinstance(file.build({"depth": 4}), nn.Module)


def test_what_logits_add_to_a_cross_entropy_is_known_sample_by_sample() -> None:
    run = Execution(file_of("tied"), {"width": 32}, 0, {})
    values = run.values()
    logits, target = values["view"], file_of("tied").batch({})[1].flatten()
    by_hand = logits.logsumexp(1) - logits[range(len(target)), target] - np.log(logits.shape[1])
    assert by_hand.abs().mean() > 1  # an embedding of entries N(0, 1) is no small readout
    torch.testing.assert_close(run.excess["cross_entropy_loss"], by_hand)


def test_a_loss_that_falls_to_the_log_of_the_classes_is_no_contradiction() -> None:
    """The embedding is the readout: logits of size 8 at the smallest width vanish as M^-1."""
    at, sizes = ("cross_entropy_loss", "excess"), "width=32,64,128,256"
    planted = {at: Rational(-6)}
    found = verify_graph("sign(G)", file_of("tied"), sizes, expected=planted, seeds=(0, 1, 2))
    checks = {(c.name, c.quantity): c for c in found.checks}
    assert ("cross_entropy_loss", "init") not in checks
    assert checks[at].at_most and at_most(checks[at].fit, -1, found.margin) is Verdict.agree
    assert [c for c in found.checks if c.verdict is Verdict.contradict] == [checks[at]]


LEARNED_MASK = """
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention


class Attention(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.embed = nn.Embedding(8, width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.near = nn.Parameter(torch.zeros(2, 6, 6))
        self.head = nn.Linear(width, 8, bias=False)

    def forward(self, ids):
        x = self.embed(ids)
        q, k, v = (t.unflatten(-1, (2, -1)).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
        shown = torch.where(ids[:, None, None, :] >= 0, 0.0, -torch.inf)
        later = torch.ones(6, 6, dtype=torch.bool).triu(1)
        hidden = torch.zeros(6, 6, dtype=x.dtype).masked_fill(later, torch.finfo(x.dtype).min)
        mask = self.near + hidden + shown
        y = scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=1 / q.shape[-1])
        return self.head(y.transpose(1, 2).reshape(x.shape)).flatten(0, 1)


def build(width=16):
    return Attention(width)


def batch():
    ids = torch.arange(24).reshape(4, 6) * 5 % 8
    return ids, ids.flatten()
"""


def test_a_learned_bias_beside_masks_is_laid_out_as_its_kernel_likes_and_measured(
    tmp_path: Path,
) -> None:
    """One mask blanks nothing, and so is zero; one blanks by the least number of its type."""
    (tmp_path / "learned_mask.py").write_text(LEARNED_MASK)
    file = read_model(str(tmp_path / "learned_mask.py"))
    values, _, _ = Execution(file, {"width": 16}, 0, {}).with_gradients()
    (shown,) = (x for name, x in values.items() if name.startswith("where"))
    assert not shown.any() and root_mean_square([values["masked_fill"]]) == 0
    found = verify_graph("sign(G)", file, "width=16,32,64,128", seeds=(0, 1))
    checks = {(c.name, c.quantity): c for c in found.checks}
    assert checks["where", "init"].at_most and not checks["embedding", "init"].at_most
    assert not [c for c in found.checks if c.verdict is Verdict.contradict]


SCALED_READOUT = """
import torch
from torch import nn


class Tied(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.table = nn.Embedding(12, width)
        self.up = nn.Linear(width, width, bias=False)
        self.gain = nn.Parameter(torch.ones(width))

    def forward(self, ids):
        x = self.table(ids) + self.up(self.table(ids)).relu()
        x = self.gain * (x * x.square().mean(-1, keepdim=True).rsqrt())
        return x * x.shape[-1] ** -0.5 @ self.table.weight.T


def build(width=32):
    return Tied(width)


def batch():
    return torch.arange(9), torch.arange(9) * 5 % 12
"""


def test_a_factor_behind_a_product_is_part_of_how_much_the_product_moves(tmp_path: Path) -> None:
    """As in T5: the table binds at the readout, its second use; the gain may move by M^(1/2)."""
    (tmp_path / "scaled_readout.py").write_text(SCALED_READOUT)
    planted = {("gain", "own"): Rational(0)}
    model, sizes = str(tmp_path / "scaled_readout.py"), "width=32,64,128,256"
    found = verify_graph("sign(G)", model, sizes, expected=planted, seeds=(0, 1, 2))
    checks = {c.name: c for c in found.checks if c.quantity == "own"}
    assert found.answer.products["table.weight"] == found.answer.graph.outputs[0]
    assert checks["table.weight"].fit.slope == pytest.approx(-0.5, abs=0.1)
    assert checks["gain"].fit.slope == pytest.approx(0.5, abs=0.05)
    assert [c for c in found.checks if c.verdict is Verdict.contradict] == [checks["gain"]]


class Attention(nn.Module):
    """One head of torch's attention; ``scale`` in the place of the root of its size."""

    def __init__(self, width: int, scale: float | None = None) -> None:
        super().__init__()
        self.embed, self.qkv = nn.Embedding(16, width), nn.Linear(width, 3 * width)
        self.head, self.scale = nn.Linear(width, 16, bias=False), scale

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(self.embed(ids)).chunk(3, -1)
        return self.head(nn.functional.scaled_dot_product_attention(q, k, v, scale=self.scale))


@pytest.mark.parametrize("scale", [None, 0.1])
def test_a_factor_of_attention_is_one_of_its_logits_and_not_of_its_result(
    scale: float | None,
) -> None:
    """In plain torch: the factor in the code. A check refused the plan, or measured another net."""
    ids = torch.arange(24).reshape(3, 8) % 16
    usual = 16**-0.5 if scale is None else scale

    def loss(code: float | None, factors: dict[str, float]) -> float:
        file = model_of(lambda width: Attention(width, code), (ids, ids))
        return float(Execution(file, {"width": 16}, 0, {}, factors).values()["loss"])

    changed = loss(scale, {"scaled_dot_product_attention": 4.0})
    assert changed == pytest.approx(loss(4 * usual, {}), rel=1e-12)
    assert abs(changed - loss(scale, {})) > 1e-4
