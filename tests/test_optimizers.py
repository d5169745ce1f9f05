"""Rules as optimizers: against torch's own, and against steps written by hand on dense matrices."""

import copy
import gc
import io
from collections.abc import Callable

import numpy as np
import pytest
import torch
from dense_layers import Array, assert_close, power
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from empirical import RuleOptimizer
from empirical.numbers.capture import Capture, LossFunction, sampled_cotangents
from empirical.numbers.optimizers import Fisher, LayerOptimizer, with_factor_ema
from scaling.rules.parser import parse
from scaling.sizes.errors import InvalidInput

KFAC = "(B + rho_B*I)**(-e_B) @ G @ (A + rho_A*I)**(-e_A)"
VALUES = {"rho_A": 0.1, "rho_B": 0.05, "e_A": 1.0, "e_B": 0.5}
Batch = tuple[Tensor, Tensor]


def mlp(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    layers = (nn.Linear(7, 16), nn.ReLU(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 3))
    return nn.Sequential(*layers).double()


def batches(steps: int = 4, n: int = 5) -> list[Batch]:
    draw = torch.Generator().manual_seed(1)
    return [
        (
            torch.randn(n, 7, generator=draw, dtype=torch.float64),
            torch.randint(3, (n,), generator=draw),
        )
        for _ in range(steps)
    ]


def train(model: nn.Module, optimizer: torch.optim.Optimizer, data: list[Batch]) -> None:
    for x, y in data:
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        optimizer.step()


def assert_same_weights(model: nn.Module, other: nn.Module, rtol: float = 1e-10) -> None:
    for name, weight in model.named_parameters():
        assert_close(weight.detach(), other.get_parameter(name).detach().numpy(), rtol)


def sides(model: nn.Sequential, x: Tensor, y: Tensor) -> dict[str, tuple[Array, Array]]:
    """Layer -> (H, D), from one backward pass for each sample, without hooks."""
    columns: dict[str, list[tuple[Array, Array]]] = {}
    for sample in range(len(x)):
        h, inputs, outputs = x[sample : sample + 1], {}, {}
        for name, module in model.named_children():
            inputs[name], h = h, module(h)
            outputs[name] = h
        loss = cross_entropy(h, y[sample : sample + 1])
        for name in ("0", "2", "4"):
            (delta,) = torch.autograd.grad(loss, outputs[name], retain_graph=True)
            pair = inputs[name].detach().T.numpy(), delta.T.numpy()
            columns.setdefault(name, []).append(pair)
            columns.setdefault(f"{name}.bias", []).append((np.ones((1, 1)), pair[1]))
    return {
        name: (np.hstack([h for h, _ in pairs]), np.hstack([d for _, d in pairs]))
        for name, pairs in columns.items()
    }


def weight_of(model: nn.Sequential, layer: str) -> Tensor:
    name = layer if layer.endswith(".bias") else f"{layer}.weight"
    return model.get_parameter(name).detach()


Factors = list[dict[str, tuple[Array, Array]]]
"""Step -> layer -> (A, B)."""


def dense_kfac(
    model: nn.Sequential,
    data: list[Batch],
    lr: float,
    e_B: float = 0.5,
    use: Callable[[Factors], dict[str, tuple[Array, Array]]] = lambda factors: factors[-1],
) -> None:
    """K-FAC by hand; ``use`` makes the factors of a step out of those of all steps so far."""
    factors: Factors = []
    for x, y in data:
        seen = sides(model, x, y)
        factors.append({k: (h @ h.T / len(x), d @ d.T / len(x)) for k, (h, d) in seen.items()})
        used = use(factors)
        for name, (h, d) in seen.items():
            a, b = used[name]
            step = power(b, -e_B, 0.05) @ d @ h.T @ power(a, -1, 0.1) / len(x)
            weight = weight_of(model, name)
            weight -= lr * torch.from_numpy(step).reshape(weight.shape)


@pytest.mark.parametrize("lr", [-0.1, float("nan"), "fast"])
def test_a_learning_rate_that_is_none_is_refused(lr: object) -> None:
    with pytest.raises(InvalidInput, match=r"lr = .* for layer '0'"):
        RuleOptimizer(nn.Sequential(nn.Linear(2, 3)), "G", lr=lr)


def test_the_rule_G_is_torchs_sgd() -> None:
    ours, theirs = mlp(), mlp()
    train(ours, RuleOptimizer(ours, parse("G"), lr=0.3), batches())
    train(theirs, torch.optim.SGD(theirs.parameters(), lr=0.3), batches())
    assert_same_weights(ours, theirs)
    train(ours, RuleOptimizer(ours, parse("G"), lr=0.3), batches(1))
    with pytest.raises(AssertionError, match="Not equal"):
        assert_same_weights(ours, theirs)


def test_the_rule_of_adam_is_torchs_adam_but_for_its_bias_correction() -> None:
    ours, theirs = mlp(), mlp()
    rule = parse("ema(G, 0.9) / (sqrt(ema(G*G, 0.99)) + eps)")
    optimizer = RuleOptimizer(ours, rule, 0.01, {"eps": 1e-6})
    reference = torch.optim.Adam(theirs.parameters(), lr=0.01, betas=(0.9, 0.99), eps=1e-6)
    for t, batch in enumerate(batches(), start=1):
        correction = (1 - 0.99**t) ** 0.5 / (1 - 0.9**t)
        for group in reference.param_groups:
            group["lr"] = 0.01 / correction
            group["eps"] = 1e-6 / (1 - 0.99**t) ** 0.5
        train(ours, optimizer, [batch])
        train(theirs, reference, [batch])
    assert_same_weights(ours, theirs)


def test_the_rule_sign_G_is_sign_descent() -> None:
    ours, theirs = mlp(), mlp()
    train(ours, RuleOptimizer(ours, parse("sign(G)"), lr=0.01), batches())
    for x, y in batches():
        theirs.zero_grad()
        cross_entropy(theirs(x), y).backward()
        for weight in theirs.parameters():
            assert weight.grad is not None
            weight.data -= 0.01 * weight.grad.sign()
    assert_same_weights(ours, theirs)


def test_kfac_is_the_dense_kfac_of_samples_taken_one_by_one() -> None:
    ours, theirs, wrong = mlp(), mlp(), mlp()
    train(ours, RuleOptimizer(ours, parse(KFAC), 0.1, VALUES), batches())
    dense_kfac(theirs, batches(), lr=0.1)
    assert_same_weights(ours, theirs)
    dense_kfac(wrong, batches(), lr=0.1, e_B=0.51)
    with pytest.raises(AssertionError, match="Not equal"):
        assert_same_weights(ours, wrong)


def test_factor_ema_averages_A_and_B_from_zero() -> None:
    def averaged(factors: Factors) -> dict[str, tuple[Array, Array]]:
        weights = [0.3 * 0.7 ** (len(factors) - 1 - t) for t in range(len(factors))]
        return {
            name: (
                sum(w * f[name][0] for w, f in zip(weights, factors, strict=True)),
                sum(w * f[name][1] for w, f in zip(weights, factors, strict=True)),
            )
            for name in factors[0]
        }

    ours, theirs = mlp(), mlp()
    train(ours, RuleOptimizer(ours, parse(KFAC), 0.1, VALUES, factor_ema=0.7), batches(6))
    dense_kfac(theirs, batches(6), lr=0.1, use=averaged)
    assert_same_weights(ours, theirs)
    rule = with_factor_ema(parse("(L + rho*I)**(-1/4) @ G @ (R + rho*I)**(-1/4)"), 0.5)
    expected = parse("(ema(L, 0.5) + rho*I)**(-1/4) @ G @ (ema(R, 0.5) + rho*I)**(-1/4)")
    assert rule == expected


def test_curvature_interval_keeps_the_factors_in_between() -> None:
    ours, theirs = mlp(), mlp()
    train(ours, RuleOptimizer(ours, parse(KFAC), 0.1, VALUES, curvature_interval=3), batches(7))
    dense_kfac(theirs, batches(7), lr=0.1, use=lambda factors: factors[(len(factors) - 1) // 3 * 3])
    assert_same_weights(ours, theirs)


def test_learning_rates_and_dampings_may_differ_by_layer() -> None:
    names = ("0", "0.bias", "2", "2.bias", "4", "4.bias")
    rates = {name: 0.1 * (i + 1) for i, name in enumerate(names)}
    dampings = {name: 0.01 * (i + 1) for i, name in enumerate(names)}
    model, before, (x, y) = mlp(), mlp(), batches(1)[0]
    optimizer = RuleOptimizer(model, parse("G @ (A + rho*I)**(-1)"), rates, {"rho": dampings})
    train(model, optimizer, [(x, y)])
    for name, (h, d) in sides(before, x, y).items():
        a = h @ h.T / len(x)
        update = d @ h.T / len(x) @ power(a, -1, dampings[name])
        assert_close(optimizer.updates()[name].dense(), update)
        step = (weight_of(before, name) - weight_of(model, name)).numpy()
        assert_close(step.reshape(update.shape), rates[name] * update, rtol=1e-9)


def test_a_learning_rate_scheduler_reaches_the_param_groups() -> None:
    ours, theirs = mlp(), mlp()
    pairs = (
        (ours, RuleOptimizer(ours, parse("G"), lr=0.3)),
        (theirs, torch.optim.SGD(theirs.parameters(), lr=0.3)),
    )
    for model, optimizer in pairs:
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
        for batch in batches():
            train(model, optimizer, [batch])
            scheduler.step()
    assert_same_weights(ours, theirs)


# --- capture ------------------------------------------------------------------------------------


class Recurrent(nn.Module):
    """One layer used twice, on sequences, with an input multiplier."""

    def __init__(self) -> None:
        super().__init__()
        self.core, self.head = nn.Linear(7, 7).double(), nn.Linear(7, 3, bias=False).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(0.5 * torch.relu_(self.core(torch.relu_(self.core(x)))))


def test_sequences_repeated_layers_and_multipliers_give_the_gradient_of_autograd() -> None:
    torch.manual_seed(0)
    model, x = Recurrent(), torch.randn(5, 4, 7).double()
    optimizer = RuleOptimizer(model, parse("G"), lr=0.0)
    with torch.no_grad():
        model(x)  # not differentiated: leaves no trace
    model(2 * x)  # never differentiated: likewise
    loss = model(x).square().mean()
    optimizer.zero_grad()  # between the passes, as is common
    loss.backward()
    optimizer.step()
    for name, parameter in (("core", "core.weight"), ("core.bias", "core.bias"), ("head", None)):
        gradient = model.get_parameter(parameter or "head.weight").grad
        assert gradient is not None
        dense = optimizer.updates()[name].dense()
        assert_close(dense.reshape(gradient.shape), gradient.numpy())


def test_a_layer_without_a_pass_and_a_frozen_one_do_not_move() -> None:
    model, before = mlp(), mlp()
    model[0].requires_grad_(False)
    optimizer = RuleOptimizer(model, parse("sign(G)"), lr=0.1)
    assert [group["name"] for group in optimizer.param_groups] == ["2", "2.bias", "4", "4.bias"]
    model[4](torch.ones(2, 16).double()).sum().backward()
    optimizer.step()
    assert set(optimizer.updates()) == {"4", "4.bias"}
    for name in ("0", "0.bias", "2", "2.bias"):
        assert torch.equal(weight_of(model, name), weight_of(before, name))
    assert not torch.equal(weight_of(model, "4"), weight_of(before, "4"))


def test_an_optimizer_that_is_gone_leaves_no_hooks_behind() -> None:
    model = mlp()
    optimizer = RuleOptimizer(model, parse("G"), lr=0.1)
    assert model[0]._forward_hooks
    del optimizer
    gc.collect()
    assert not model[0]._forward_hooks


@pytest.mark.parametrize("loss", LossFunction)
def test_the_true_fisher_is_that_of_sampled_targets(loss: LossFunction) -> None:
    model, (x, y) = mlp(), batches(1)[0]
    optimizer = RuleOptimizer(model, parse("B @ G"), lr=0.0, fisher=Fisher.TRUE)
    output = model(x)
    optimizer.sample_fisher(output, loss, torch.Generator().manual_seed(3))
    cross_entropy(output, y).backward()
    optimizer.step()
    # The last layer's cotangents are the output's; the layer below has them through W and tanh'.
    f = sampled_cotangents(output, loss, torch.Generator().manual_seed(3)).T.numpy()
    h, d = sides(model, x, y)["4"]
    assert_close(optimizer.updates()["4"].dense(), f @ f.T @ d @ h.T / len(x) ** 2)
    below = (weight_of(model, "4").numpy().T @ f) * (1 - h**2)
    h, d = sides(model, x, y)["2"]
    assert_close(optimizer.updates()["2"].dense(), below @ below.T @ d @ h.T / len(x) ** 2)


def test_sampled_labels_have_the_covariance_of_the_softmax() -> None:
    logits = torch.tensor([[0.0, 1.0, -1.0]]).double().expand(200_000, 3)
    f = sampled_cotangents(logits, LossFunction.CROSS_ENTROPY, torch.Generator().manual_seed(0))
    p = logits[0].softmax(0)
    expected = torch.diag(p) - torch.outer(p, p)
    # Entries are means of 200000 numbers of size below one: four standard errors are below 0.009.
    assert float((f.T @ f / len(f) - expected).abs().max()) < 0.009
    assert float((f.T @ f / len(f) - torch.diag(p)).abs().max()) > 0.009


# --- saving -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", [KFAC, "ema(G, 0.9) @ (ema(A, 0.5) + rho_A*I)**(-1)", "orth(ema(G, 0.9))"]
)
def test_a_run_that_is_saved_and_loaded_goes_on_as_if_it_had_not_been(text: str) -> None:
    rule, data = parse(text), batches(7)
    values = {k: VALUES[k] for k in (*rule.dampings, *rule.exponents)}

    def optimizer(model: nn.Module, lr: float) -> RuleOptimizer:
        return RuleOptimizer(model, rule, lr, values, curvature_interval=2, factor_ema=0.5)

    straight = mlp()
    train(straight, optimizer(straight, 0.1), data)
    first = mlp()
    interrupted = optimizer(first, 0.1)
    train(first, interrupted, data[:3])
    file = io.BytesIO()
    torch.save(interrupted.state_dict(), file)
    file.seek(0)
    second = copy.deepcopy(mlp())
    second.load_state_dict(first.state_dict())
    resumed = optimizer(second, lr=99.0)  # the saved one counts
    resumed.load_state_dict(torch.load(file, weights_only=True))
    train(second, resumed, data[3:])
    assert_same_weights(straight, second)


# --- refusals -----------------------------------------------------------------------------------


def shared() -> nn.Module:
    model = mlp()
    model[2].weight = nn.Parameter(torch.zeros(16, 16).double())
    model.append(nn.Linear(16, 16, bias=False))
    model[5].weight = model[2].weight
    return model


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: LayerOptimizer(
                Capture(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))), parse("G"), 0.1
            ),
            r"found: trainable parameters of '1' \(LayerNorm\)\nneeded: "
            r"(.|\n)*Linear, Conv2d or Embedding(.|\n)*do this: freeze",
        ),
        (lambda: RuleOptimizer(nn.ReLU(), parse("G"), 0.1), r"\(ReLU\) without trained tensors"),
        (lambda: Capture(shared()), "shared by '2' and '5'"),
        (lambda: RuleOptimizer(mlp(), parse(KFAC), 0.1), "no value for 'rho_B'"),
        (lambda: RuleOptimizer(mlp(), parse("G"), 0.1, {"rho": 1.0}), "symbol 'rho'"),
        (lambda: RuleOptimizer(mlp(), parse("G"), {"0": 0.1}), "lr = nothing for layer '0.bias'"),
        (lambda: RuleOptimizer(mlp(), parse("G"), {"o": 0.1}), "layer 'o'"),
        (lambda: RuleOptimizer(mlp(), parse("G"), float("nan")), "lr = nan for layer '0'"),
        (lambda: RuleOptimizer(mlp(), parse("G"), 0.1, curvature_interval=0), "interval of 0"),
        (lambda: RuleOptimizer(mlp(), parse("G"), 0.1, factor_ema=1.0), r"ema\(\w, 1\)"),
    ],
)
def test_what_cannot_be_trained_is_refused(build: Callable[[], object], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        build()


def test_steps_that_would_not_mean_what_they_say_are_refused() -> None:
    model, (x, y) = mlp(), batches(1)[0]
    optimizer = RuleOptimizer(model, parse("B @ G"), lr=0.1, fisher=Fisher.TRUE)
    cross_entropy(model(x), y).backward()
    with pytest.raises(InvalidInput, match=r"in layer '0'(.|\n)*no sampled cotangents"):
        optimizer.step()
    empirical = RuleOptimizer(model, parse("G"), lr=0.1)
    with pytest.raises(InvalidInput, match="sample_fisher on an optimizer with the empirical"):
        empirical.sample_fisher(model(x), LossFunction.MSE, torch.Generator())
    with pytest.raises(InvalidInput, match="a gradient of '0', though its layer was not called"):
        empirical.step()
    empirical.zero_grad()
    cross_entropy(model(x), y).backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
    with pytest.raises(InvalidInput, match=r"a \.grad of '0' other than(.|\n)*do not clip"):
        empirical.step()
    empirical.zero_grad()
    (model(x).sum() * torch.inf).backward()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(InvalidInput, match=r"in layer '0': \d+ entries of D that are not finite"):
        empirical.step()
    assert all(torch.equal(w, before[name]) for name, w in model.state_dict().items())
    with pytest.raises(InvalidInput, match="the state of the layers 0"):
        empirical.load_state_dict(RuleOptimizer(mlp()[:1], parse("G"), 0.1).state_dict())
