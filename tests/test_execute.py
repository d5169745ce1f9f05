"""A model run node by node: the numbers of plain PyTorch, and the slopes that its code implies."""

import numpy as np
import pytest
import torch
from sympy import Rational
from test_trace import READ, file_of
from torch import nn

from empirical.fit.verdict import Verdict, at_most
from empirical.trace.execute import Execution, start_sizes
from empirical.trace.model_file import standard_loss
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
