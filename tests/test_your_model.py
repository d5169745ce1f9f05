"""A user's own model: weights alone move it, every tensor is calibrated, what is given stays."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from empirical import RuleOptimizer, check_model, for_model, initialise_
from empirical.data.sources import load
from empirical.fit.verdict import Verdict
from empirical.measure.parametrize import LayerScales
from empirical.report.measured_tables import as_json, render
from empirical.your_model.model_scales import RegimeWarning
from empirical.your_model.model_trial import ModelTrial
from scaling.rules.parser import parse
from scaling.sizes.errors import InvalidInput, NotCovered

DATA = load("digits", samples=12)
X, Y = DATA.inputs, DATA.targets
Scales = Mapping[str, LayerScales]


def rms(x: Tensor) -> float:
    return float(x.detach().square().mean().sqrt())


def torchs(kind: Callable[..., torch.optim.Optimizer], **options: Any) -> Any:
    """An optimizer of torch at the rates of the scales."""

    def make(model: nn.Module, scales: Scales) -> torch.optim.Optimizer:
        trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        return kind([{"params": [p], "lr": scales[n].lr} for n, p in trained], **options)

    return make


# --- buffers stand still ------------------------------------------------------------------------


def normalised(width: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(64, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 10)
    )


def test_running_statistics_do_not_count_as_features() -> None:
    """A step of 1e-9 moves everything a million times less than one of 1e-3."""
    args = (normalised, "G", X, Y, cross_entropy, (16, 32))
    options: dict[str, Any] = {"seeds": 1, "optimizer": torchs(torch.optim.SGD)}
    small, usual = (check_model(*args, lr=lr, **options).series[0] for lr in (1e-9, 1e-3))
    for layer in ("0", "3"):
        ratio = usual.layers[layer]["feature"] / small.layers[layer]["feature"]
        assert ratio == pytest.approx(1e6, rel=0.05), (layer, ratio)


def test_features_behind_batch_normalisation_are_those_that_training_sees() -> None:
    """By hand: forward in training mode before and after one step of torch's SGD."""
    width, lr = 32, 0.05
    options: dict[str, Any] = {"seeds": 1, "optimizer": torchs(torch.optim.SGD), "lr": lr}
    found = check_model(normalised, "G", X, Y, cross_entropy, (16, width), **options).series[0]
    scales = for_model("G", normalised(16), normalised(32), 16, width, lr)
    model = normalised(width).double()
    initialise_(model, normalised(16), scales, seed=0, width=width)
    model.train()
    before = model(X)
    cross_entropy(before, Y).backward()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None
            parameter -= scales[name].lr * parameter.grad
    expected = rms(model(X) - before)
    assert found.layers["3"]["feature"][0, 1] == pytest.approx(expected, rel=1e-9)


class Averaging(nn.Module):
    """Counts calls in a buffer and scales with it: a state that training moves."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(64, width), nn.Linear(width, 10)
        self.register_buffer("calls", torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.calls = self.calls + 1
        return self.last(torch.relu(self.calls * self.first(x)))


def test_a_buffer_that_the_next_call_reads_is_refused_by_name() -> None:
    with pytest.raises(
        NotCovered, match="state that forward keeps from one call to the next: calls"
    ):
        check_model(Averaging, "G", X, Y, cross_entropy, (16, 32), seeds=1, lr=1e-9)


# --- every trained tensor is calibrated ---------------------------------------------------------


class Positioned(nn.Module):
    """A gain, a shift and a table of one's own beside two matrices."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(64, width), nn.LayerNorm(width)
        self.table = nn.Parameter(torch.full((width,), 0.5))
        self.last = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.norm(self.first(x)) + self.table))


def trial(build: Callable[[int], nn.Module], optimizer: Any, width: int = 32) -> ModelTrial:
    return ModelTrial(
        build, parse("G"), X, Y, cross_entropy, X, width, None, optimizer, {}, {}, 1, "cpu"
    )


def test_the_change_by_each_tensor_alone_is_a_tenth_by_hand() -> None:
    """Plain torch: one tensor moved at a time, at the calibrated rate, all others still."""
    run = trial(Positioned, torchs(torch.optim.SGD))
    constants = run.calibrated(None)
    model = Positioned(32).double()
    initialise_(model, Positioned(32), run.parametrization(32), seed=0, width=32)
    cross_entropy(model(X), Y).backward()
    h = model.first(X)
    normed = model.norm(h)

    def own(name: str, output: Callable[[], Tensor]) -> float:
        tensor = model.get_parameter(name)
        assert tensor.grad is not None
        with torch.no_grad():
            before, old = output(), tensor.clone()
            tensor -= constants.eta[name] * tensor.grad
            after = output()
            tensor.copy_(old)
        return rms(after - before)

    outputs: dict[str, Callable[[], Tensor]] = {
        "norm.weight": lambda: model.norm(h), "norm.bias": lambda: model.norm(h),
        "first.weight": lambda: model.first(X), "last.bias": lambda: model.last(torch.relu(normed)),
    }  # fmt: skip
    for name, output in outputs.items():
        assert own(name, output) == pytest.approx(0.1, rel=1e-6), name
    # the table is the model's own: its module is the model, and the step is to first order
    constants.eta["table"] *= 1e-4  # type: ignore[index]
    assert own("table", lambda: model(X)) == pytest.approx(0.1e-4, rel=1e-3)


def test_features_are_not_those_of_the_gains_alone() -> None:
    def build(width: int) -> nn.Module:
        return nn.Sequential(
            nn.Linear(64, width), nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, 10)
        )

    adam = torchs(torch.optim.Adam, eps=1e-12)
    rule = "ema(G, 0.9)/(sqrt(ema(G*G, 0.999)) + 1e-12)"
    result = check_model(build, rule, X, Y, cross_entropy, (16, 32), seeds=2, optimizer=adam)
    assert float(result.series[0].layers["3"]["feature"].max()) < 0.6  # a few tenths


# --- what stays at the start --------------------------------------------------------------------


class Adapted(nn.Module):
    """Frozen weights, LoRA whose B is zero, A_log and the bias of dt as in Mamba."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.base = nn.Linear(8, width)
        self.base.requires_grad_(False)
        self.lora_a, self.lora_b = nn.Linear(8, 4, bias=False), nn.Linear(4, width, bias=False)
        nn.init.zeros_(self.lora_b.weight)
        self.dt = nn.Linear(width, width)
        nn.init.constant_(self.dt.bias, -4.6)
        self.A_log = nn.Parameter(torch.arange(1.0, 5).log().repeat(width, 1))
        self.last = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.dt(self.base(x) + self.lora_b(self.lora_a(x))))
        return self.last(h * torch.exp(-self.A_log.exp()).mean(-1))


BATCH = torch.ones(2, 8), torch.ones(2, 3)


def test_what_is_frozen_zero_or_given_stays_and_the_rest_is_drawn() -> None:
    scales = for_model("G", Adapted(4), Adapted(8), 8, 16, batch=BATCH)
    model = Adapted(16)
    before = {name: x.detach().clone() for name, x in model.named_parameters()}
    start = initialise_(model, Adapted(8), scales, seed=0, width=16)
    after = dict(model.named_parameters())
    stays = ("base.weight", "base.bias", "lora_b.weight", "A_log", "dt.bias")
    for name in stays:
        assert torch.equal(after[name], before[name]), name
    for name in ("lora_a.weight", "dt.weight", "last.weight"):
        assert not torch.equal(after[name], before[name]), name
    assert not after["last.bias"].any()
    assert start.left == {
        "base.weight": "frozen", "base.bias": "frozen", "lora_b.weight": "zero",
        "A_log": "given", "dt.bias": "given",
    }  # fmt: skip
    assert set(start.drawn) == {"lora_a.weight", "dt.weight", "last.weight"}
    assert start.zeroed == ("last.bias",)
    assert "left as it was (frozen): base.weight, base.bias" in str(start)


def test_a_pattern_keeps_and_another_draws() -> None:
    args = ("G", Adapted(4), Adapted(8), 8, 16)
    scales = for_model(*args, batch=BATCH, draw=["lora_b.*"])
    model = Adapted(16)
    last = model.last.weight.detach().clone()
    start = initialise_(
        model, Adapted(8), scales, seed=0, width=16, keep=["last.*"], draw=["lora_b.*"]
    )
    assert torch.equal(model.last.weight, last) and start.left["last.bias"] == "kept"
    assert float(model.lora_b.weight.detach().std()) == pytest.approx(
        4**-0.5 * scales["lora_b.weight"].std, rel=0.3
    )
    for words in ({"keep": ["head.*"]}, {"draw": ["head.*"]}):
        with pytest.raises(InvalidInput, match=r"='head.\*', which names no tensor of the model"):
            initialise_(model, Adapted(8), scales, seed=0, width=16, **words)  # type: ignore[arg-type]
    unaware = for_model(*args, batch=BATCH)
    with pytest.raises(InvalidInput, match=r"(.|\n)*pass draw=\['lora_b.weight'\] to for_model"):
        initialise_(model, Adapted(8), unaware, seed=0, width=16, draw=["lora_b.*"])
    with pytest.raises(InvalidInput, match=r"draw='dt.bias', which is added"):
        initialise_(model, Adapted(8), scales, seed=0, width=16, draw=["dt.bias"])


def zero_readout(width: int) -> nn.Module:
    last = nn.Linear(width, 10)
    nn.init.zeros_(last.weight)
    return nn.Sequential(nn.Linear(64, width), nn.ReLU(), last)


def test_the_check_reports_what_stays_and_does_not_judge_what_is_exactly_zero() -> None:
    args = (zero_readout, "sign(G)", X, Y, cross_entropy, (32, 64, 128))
    result = check_model(*args, seeds=3)
    assert "left as it was (zero): 2.weight" in result.notes
    assert {(c.layer, c.quantity) for c in result.checks} == {
        ("0", "init"), ("2", "own"), ("2", "feature")
    }  # fmt: skip
    assert any("own 0, feature 0, init 2" in note for note in result.notes)
    drawn = check_model(*args, seeds=3, draw=["2.weight"])
    assert len(drawn.checks) == 6 and drawn.verdict is not Verdict.contradict


# --- dtypes and inputs --------------------------------------------------------------------------


class Bare(nn.Module):
    """Makes a tensor without a dtype inside forward."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(64, width), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        shift = torch.ones(len(x), 64)
        return self.last(torch.relu(self.first(shift) + self.first(x)))


class Insisting(Bare):
    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.first(x.float())))


class Two(Bare):
    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.last(torch.relu(self.first(x * mask)))


def test_tensors_made_inside_forward_follow_or_are_refused_by_name() -> None:
    args = ("G", X, Y, cross_entropy, (16, 32))
    before = torch.get_default_dtype()
    assert check_model(Bare, *args, seeds=1).checks
    with pytest.raises(
        InvalidInput, match=r"a dtype of its own(.|\n)*do this: write dtype=x.dtype"
    ):
        check_model(Insisting, *args, seeds=1)
    assert torch.get_default_dtype() is before


def test_a_model_of_two_inputs_takes_a_tuple_or_a_mapping() -> None:
    mask = (torch.arange(64) % 2).expand(len(X), 64)
    both, named = (
        check_model(Two, "G", inputs, Y, cross_entropy, (16, 32), seeds=1).series[0].layers
        for inputs in ((X, mask), {"x": X, "mask": mask})
    )
    alone = check_model(Plain, "G", X * mask, Y, cross_entropy, (16, 32), seeds=1)
    for layer, sizes in both.items():
        for quantity, size in sizes.items():
            assert size == pytest.approx(named[layer][quantity], rel=1e-12)
            assert size == pytest.approx(alone.series[0].layers[layer][quantity], rel=1e-12)
    with pytest.raises(InvalidInput, match=r"a Two that does not take 1 tensors(.|\n)*a tuple"):
        check_model(Two, "G", X, Y, cross_entropy, (16, 32), seeds=1)


class Plain(Bare):
    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.first(x)))


@pytest.mark.parametrize("rule", ["G", "G @ (A + 0.1*I)**(-1)"])
def test_a_step_under_autocast_is_the_step_in_single_precision_within_rounding(rule: str) -> None:
    """SGD beside torch's own under autocast; a preconditioned step beside the one without."""

    def model() -> nn.Sequential:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))

    torch.manual_seed(1)
    x, y = torch.randn(8, 16), torch.randn(8, 4)
    half, whole = model(), model()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        optimizer = RuleOptimizer(half, rule, 0.5)
        mse_loss(half(x).float(), y).backward()
    if rule == "G":
        other: torch.optim.Optimizer = torch.optim.SGD(whole.parameters(), lr=0.5)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mse_loss(whole(x).float(), y).backward()
    else:
        other = RuleOptimizer(whole, rule, 0.5)
        mse_loss(whole(x), y).backward()
    optimizer.step()
    other.step()
    start = model()
    for one, two, old in zip(
        half.parameters(), whole.parameters(), start.parameters(), strict=True
    ):
        assert one.dtype is torch.float32
        moved = rms(two - old)
        assert moved > 0 and rms(one - two) < 0.03 * moved


def test_a_gradient_that_was_changed_is_still_refused_under_autocast() -> None:
    torch.manual_seed(0)
    model = nn.Linear(16, 4)
    optimizer = RuleOptimizer(model, "G", 0.1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(torch.randn(8, 16)).float().square().mean().backward()
    assert model.weight.grad is not None
    model.weight.grad *= 0.5
    with pytest.raises(InvalidInput, match=r"a .grad of '' other than"):
        optimizer.step()


# --- assumptions and regimes --------------------------------------------------------------------


def test_the_check_has_assumptions_and_regimes_prints_them_and_warns() -> None:
    args = (Plain, "G/(1 + norm(W))", X, Y, cross_entropy, (16, 32))
    with pytest.warns(RegimeWarning, match="norm"):
        result = check_model(*args, seeds=1)
    assert any("branches do not cancel" in text for text in result.assumptions)
    assert "regime in first.weight, first.bias: 1 ~ 1, norm(W) ~ M^(1/2): norm(W) dominates" in (
        result.regimes
    )
    shown = " ".join(render(result, "text").split())  # long lines are wrapped
    for line in (*result.assumptions, *result.regimes):
        assert " ".join(line.split()) in " ".join(shown.split())
    assert as_json(result)["regimes"] == list(result.regimes)


@pytest.mark.parametrize("rule", ["sgd_centred", "adam_centred"])
def test_a_rule_that_never_moves_a_bias_is_refused_with_a_recipe_that_is_taken(rule: str) -> None:
    """A bias is one column, of which the mean is the entry itself."""

    def build(width: int = 8) -> nn.Module:
        return nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 3))

    def numbers(recipe: str) -> Any:
        batch = torch.ones(2, 6), torch.ones(2, 3)
        return for_model(recipe, build, base=8, width=32, lr=0.1, batch=batch)

    with pytest.raises(InvalidInput, match=r"never moves '0\.bias' and 1 more") as caught:
        numbers(rule)
    offered = re.search("such as '(.*)', or", caught.value.do_this)
    assert offered and len(numbers(offered[1])) == 4
