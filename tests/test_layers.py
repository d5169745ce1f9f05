"""Convolutions and embeddings: patches and words as samples, against loops, torch and Linear.

The oracles form every patch and every one-hot column by hand and take each sample's gradient by a
backward pass of its own; what a rule makes of them is computed in numpy (dense_layers.py).
"""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from dense_layers import RULES, VALUES, Array, Dense, assert_close, power
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from empirical import RuleOptimizer
from empirical.networks import CBOW, CNN, ResNet
from empirical.numbers import layer_samples
from empirical.numbers.capture import Capture, LossFunction
from empirical.numbers.layer_samples import ScaledEmbedding
from empirical.numbers.optimizers import Fisher
from scaling.rules.parser import parse
from scaling.sizes.errors import InvalidInput

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")

KFAC = "(B + rho_B*I)**(-e_B) @ G @ (A + rho_A*I)**(-e_A)"
ADAM = "ema(G, 0.9) / (sqrt(ema(G*G, 0.99)) + eps)"
WORDS, CONTEXT = 9, 4

CONVOLUTIONS: dict[str, dict[str, Any]] = {
    "plain": {"kernel_size": 3},
    "oblong": {"kernel_size": (2, 3), "stride": (2, 1), "padding": (0, 2), "dilation": (1, 2)},
    "same": {"kernel_size": (3, 2), "padding": "same", "dilation": (2, 1)},
    "valid, strided": {"kernel_size": 2, "stride": 2, "padding": "valid", "bias": False},
    "circular": {"kernel_size": 3, "padding": (2, 1), "padding_mode": "circular"},
    "1 x 1": {"kernel_size": 1},
}


def draws(seed: int = 0) -> Callable[..., Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)


def drawn(model: nn.Module, seed: int = 0) -> nn.Module:
    normal = draws(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(normal(*parameter.shape) / max(1, parameter[0].numel()) ** 0.5)
    return model.double()


def classify(layer: nn.Module, last: int) -> nn.Sequential:
    """A layer, and a fixed readout of all that it gives."""
    head = nn.Linear(last, 3, bias=False).requires_grad_(False)
    model = nn.Sequential(layer, nn.Tanh(), nn.Flatten(), head)
    drawn(model)
    return model


def convolutional(name: str, stem: int = 2) -> tuple[nn.Sequential, Tensor, Tensor]:
    layer = nn.Conv2d(stem, 5, **CONVOLUTIONS[name])
    x = draws(1)(4, stem, 6, 5)
    model = classify(layer, layer(x.float()).numel() // len(x))
    return model, x, torch.tensor([0, 2, 1, 2])


def verbal(multiplier: float = 1.0) -> tuple[nn.Sequential, Tensor, Tensor]:
    x = torch.tensor([[0, 3, 3, 1], [3, 8, 0, 2], [2, 2, 5, 0]])
    return classify(ScaledEmbedding(WORDS, 5, multiplier), 5 * CONTEXT), x, torch.tensor([0, 2, 1])


def patches(layer: nn.Conv2d, x: Tensor) -> Array:
    """(fan_in, positions) of one image, entry by entry, from coordinates of the padded image."""
    (kh, kw), (sh, sw), (dh, dw) = layer.kernel_size, layer.stride, layer.dilation
    mode = "wrap" if layer.padding_mode == "circular" else "constant"
    if layer.padding == "same":
        total = [dh * (kh - 1), dw * (kw - 1)]
        pad = [(t // 2, t - t // 2) for t in total]
    else:
        amounts = (0, 0) if layer.padding == "valid" else layer.padding
        pad = [(int(p), int(p)) for p in amounts]
    image = np.pad(x.numpy(), [(0, 0), *pad], mode=mode)  # type: ignore[call-overload]
    _, height, width = image.shape
    columns = [
        [
            image[c, top + i * dh, left + j * dw]
            for c in range(len(image))
            for i in range(kh)
            for j in range(kw)
        ]
        for top in range(0, height - dh * (kh - 1), sh)
        for left in range(0, width - dw * (kw - 1), sw)
    ]
    return np.array(columns).T


def dense(model: nn.Sequential, x: Tensor, y: Tensor) -> Dense:
    """The first layer as matrices: one backward pass a sample, one column a patch or word."""
    layer = model[0]
    h, d = [], []
    for sample, target in zip(x, y, strict=True):
        u = layer(sample[None]).detach().requires_grad_()
        (gradient,) = torch.autograd.grad(cross_entropy(model[1:](u), target[None]), u)
        if isinstance(layer, nn.Conv2d):
            h.append(patches(layer, sample))
            d.append(gradient[0].flatten(1).numpy())
        else:
            h.append(np.eye(WORDS)[:, sample.numpy()] * getattr(layer, "multiplier", 1.0))
            d.append(gradient[0].T.numpy())
    positions = d[0].shape[1]
    cotangents = positions * np.hstack(d)
    w = layer.weight.detach()
    matrix = (w.T if isinstance(layer, nn.Embedding) else w.flatten(1)).numpy()
    return Dense(np.hstack(h), cotangents, matrix, cotangents)


def update(model: nn.Module, x: Tensor, y: Tensor, rule: str, name: str = "0") -> Tensor:
    parsed = parse(rule)
    known = (*parsed.dampings, *parsed.exponents, *parsed.constants)
    optimizer = RuleOptimizer(model, parsed, 0.0, {symbol: VALUES[symbol] for symbol in known})
    optimizer.zero_grad()
    cross_entropy(model(x), y).backward()
    optimizer.step()
    return optimizer.updates()[name].dense()


# --- against loops over patches and words -------------------------------------------------------


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_the_gradient_is_that_of_autograd(name: str) -> None:
    model, x, y = convolutional(name)
    found = update(model, x, y, "G")
    gradient = model[0].weight.grad
    assert gradient is not None
    assert_close(found.reshape(gradient.shape), gradient.numpy())
    if model[0].bias is not None:
        assert_close(update(model, x, y, "G", "0.bias")[:, 0], model[0].bias.grad.numpy())


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_on_a_kernel_is_the_dense_rule_on_its_patches(rule: str) -> None:
    for name in ("oblong", "same", "valid, strided"):
        model, x, y = convolutional(name)
        assert_close(update(model, x, y, rule), RULES[rule](dense(model, x, y)), 1e-8)


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_on_an_embedding_is_the_dense_rule_on_one_hot_columns(rule: str) -> None:
    for multiplier in (1.0, 0.5):
        model, x, y = verbal(multiplier)
        assert_close(update(model, x, y, rule), RULES[rule](dense(model, x, y)), 1e-8)


def test_patches_in_another_order_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    right = layer_samples._patches

    def wrong(layer: nn.Conv2d, x: Tensor) -> Tensor:
        channels_last = right(layer, x).unflatten(1, (x.shape[1], -1)).transpose(1, 2)
        return channels_last.flatten(1, 2)

    model, x, y = convolutional("plain")
    expected = RULES["sign(G)"](dense(model, x, y))
    assert_close(update(model, x, y, "sign(G)"), expected)
    monkeypatch.setattr(layer_samples, "_patches", wrong)
    with pytest.raises(InvalidInput, match=r"a \.grad of '0' other than"):
        update(model, x, y, "sign(G)")


def test_kfac_of_a_kernel_is_expand_with_damping_and_rate_times_the_positions() -> None:
    """Eschenhagen et al.: B = sum d d^T / n over the images' own losses, A = sum h h^T / (n P)."""
    model, x, y = convolutional("plain")
    seen, n = dense(model, x, y), len(x)
    positions = seen.D.shape[1] // n
    own = seen.D / positions
    a, b = seen.H @ seen.H.T / (n * positions), own @ own.T / n
    expand = power(b, -1, 0.1) @ (own @ seen.H.T / n) @ power(a, -1, 0.2)
    optimizer = RuleOptimizer(
        model, parse(KFAC), 0.0, {"rho_A": 0.2, "rho_B": 0.1 * positions, "e_A": 1.0, "e_B": 1.0}
    )
    cross_entropy(model(x), y).backward()
    optimizer.step()
    found = positions * optimizer.updates()["0"].dense()
    assert_close(found, expand, 1e-9)
    with pytest.raises(AssertionError):
        assert_close(found / positions, expand, 1e-9)


# --- against Linear layers ----------------------------------------------------------------------


def twin_steps(ours: nn.Module, theirs: nn.Module, mine: Tensor, same: Tensor, y: Tensor) -> None:
    """Two steps of K-FAC with a sampled Fisher on two models that are one function."""
    values = {"rho_A": 0.2, "rho_B": 0.1, "e_A": 0.5, "e_B": 1.0}
    for model, x in ((ours, mine), (theirs, same)):
        optimizer = RuleOptimizer(model, parse(KFAC), 0.3, values, Fisher.TRUE)
        generator = torch.Generator().manual_seed(5)
        for _ in range(2):
            optimizer.zero_grad()
            output = model(x)
            optimizer.sample_fisher(output, LossFunction.CROSS_ENTROPY, generator)
            cross_entropy(output, y).backward()
            optimizer.step()


def test_a_kernel_as_large_as_the_image_is_a_linear_layer() -> None:
    x, y = draws(1)(6, 2, 4, 3), torch.tensor([0, 1, 2, 0, 1, 2])
    ours, theirs = classify(nn.Conv2d(2, 5, (4, 3)), 5), classify(nn.Linear(24, 5), 5)
    theirs[0].load_state_dict({k: w.reshape(5, -1).squeeze(1) if w.ndim > 1 else w
                               for k, w in ours[0].state_dict().items()})  # fmt: skip
    twin_steps(ours, theirs, x, x.flatten(1), y)
    assert_close(ours[0].weight.detach().flatten(1), theirs[0].weight.detach().numpy())
    assert_close(ours[0].bias.detach(), theirs[0].bias.detach().numpy())


@pytest.mark.parametrize("words", [WORDS, 400], ids=["few words", "many words"])
def test_an_embedding_is_a_linear_layer_on_one_hot_inputs(words: int) -> None:
    x, y = verbal()[1], torch.tensor([0, 1, 2])
    ours = classify(nn.Embedding(words, 5), 5 * CONTEXT)
    theirs = classify(nn.Linear(words, 5, bias=False), 5 * CONTEXT)
    theirs[0].load_state_dict({"weight": ours[0].weight.detach().T.clone()})
    one_hot = nn.functional.one_hot(x, words).double()
    twin_steps(ours, theirs, x, one_hot, y)
    assert_close(ours[0].weight.detach().T, theirs[0].weight.detach().numpy())
    unseen = torch.tensor([i for i in range(words) if i not in x])
    before = classify(nn.Embedding(words, 5), 5 * CONTEXT)[0].weight
    assert torch.equal(ours[0].weight[unseen], before[unseen])


@pytest.mark.parametrize("mode", ["mean", "sum"])
def test_a_bag_of_words_is_a_linear_layer_on_its_counts(mode: str) -> None:
    x, y = verbal()[1], torch.tensor([0, 1, 2])
    ours = classify(nn.EmbeddingBag(WORDS, 5, mode=mode), 5)
    theirs = classify(nn.Linear(WORDS, 5, bias=False), 5)
    theirs[0].load_state_dict({"weight": ours[0].weight.detach().T.clone()})
    counts = nn.functional.one_hot(x, WORDS).double().sum(dim=1)
    twin_steps(ours, theirs, x, counts / CONTEXT if mode == "mean" else counts, y)
    assert_close(ours[0].weight.detach().T, theirs[0].weight.detach().numpy())


@pytest.mark.parametrize(
    "call",
    [
        lambda bag: bag(torch.tensor([0, 1, 2]), torch.tensor([0, 2])),
        lambda bag: bag(torch.tensor([[0, 1]]), per_sample_weights=torch.ones(1, 2).double()),
    ],
)
def test_bags_of_another_kind_are_refused_when_called(call: Callable[[nn.Module], Tensor]) -> None:
    bag = nn.EmbeddingBag(5, 3, mode="sum").double()
    optimizer = RuleOptimizer(nn.Sequential(bag), parse("G"), 0.1)
    with pytest.raises(InvalidInput, match=r"a call of '0' \(EmbeddingBag, sum\) on ids of"):
        call(bag)
    del optimizer


# --- whole networks -----------------------------------------------------------------------------

Build = Callable[[], nn.Module]
IMAGES, LABELS = draws(2)(3, 1, 8, 8), torch.tensor([1, 0, 2])
NETWORKS: dict[str, tuple[Build, Tensor, Tensor]] = {
    "cnn": (lambda: drawn(CNN(4, classes=3, activation="tanh", bias=True)), IMAGES, LABELS),
    "resnet": (lambda: drawn(ResNet(4, classes=3, bias=True)), IMAGES, LABELS),
    "cbow": (lambda: drawn(CBOW(6, WORDS, multipliers=(0.5, 2.0))), *verbal()[1:]),
}


def train(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> None:
    for _ in range(3):
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        optimizer.step()


def assert_same(model: nn.Module, other: nn.Module) -> None:
    for name, weight in model.named_parameters():
        assert_close(weight.detach(), other.get_parameter(name).detach().numpy(), 1e-9)


@pytest.mark.parametrize("name", NETWORKS)
def test_whole_networks_train_as_with_torchs_sgd_and_adam(name: str) -> None:
    build, x, y = NETWORKS[name]
    ours, theirs = build(), build()
    train(ours, RuleOptimizer(ours, parse("G"), 0.3), x, y)
    train(theirs, torch.optim.SGD(theirs.parameters(), 0.3), x, y)
    assert_same(ours, theirs)
    assert not torch.equal(next(ours.parameters()), next(build().parameters()))
    ours, theirs = build(), build()
    optimizer = RuleOptimizer(ours, parse(ADAM), 0.01, {"eps": 1e-6})
    reference = torch.optim.Adam(theirs.parameters(), betas=(0.9, 0.99))
    for t in range(1, 4):  # the rule has no bias correction, so torch's is undone
        for group in reference.param_groups:
            group["lr"] = 0.01 * (1 - 0.9**t) / (1 - 0.99**t) ** 0.5
            group["eps"] = 1e-6 / (1 - 0.99**t) ** 0.5
        for model, torch_or_ours in ((ours, optimizer), (theirs, reference)):
            torch_or_ours.zero_grad()
            cross_entropy(model(x), y).backward()
            torch_or_ours.step()
    assert_same(ours, theirs)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_run_that_is_saved_and_loaded_goes_on_as_if_it_had_not_been(name: str) -> None:
    build, x, y = NETWORKS[name]
    values = {"rho_A": 0.2, "rho_B": 0.1, "e_A": 1.0, "e_B": 1.0}

    def optimizer(model: nn.Module) -> RuleOptimizer:
        return RuleOptimizer(model, parse(KFAC), 0.01, values, curvature_interval=2, factor_ema=0.5)

    straight, first, second = build(), build(), build()
    long = optimizer(straight)
    train(straight, long, x, y)
    train(straight, long, x, y)
    interrupted, file = optimizer(first), io.BytesIO()
    train(first, interrupted, x, y)
    torch.save(interrupted.state_dict(), file)
    file.seek(0)
    second.load_state_dict(first.state_dict())
    resumed = optimizer(second)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    train(second, resumed, x, y)
    assert_same(straight, second)


def test_single_precision_agrees_with_double_to_its_own_accuracy() -> None:
    """Curvature is added up in float64 whatever the data are, also where patches outnumber rows."""
    build, x, y = NETWORKS["cnn"]
    for rule in (KFAC, "(L + rho*I)**(-e/2) @ G @ (R + rho*I)**(-e/2)", "orth(G)"):
        exact = update(build(), x, y, rule, "layers.1")
        single = update(build().float(), x.float(), y, rule, "layers.1")
        assert single.dtype == torch.float32
        assert_close(single.double(), exact.numpy(), 2e-4)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_on_cuda_move_as_on_the_cpu(name: str) -> None:
    build, x, y = NETWORKS[name]
    here, there = build(), build().cuda()
    values = {"rho_A": 0.2, "rho_B": 0.1, "e_A": 1.0, "e_B": 1.0}
    for model, device in ((here, "cpu"), (there, "cuda")):
        train(model, RuleOptimizer(model, parse(KFAC), 0.1, values), x.to(device), y.to(device))
    assert_same(here, there.cpu())


# --- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (nn.Conv2d(4, 4, 3, groups=2), r"found: groups=2 in '0' \(Conv2d\)\nneeded: groups=1"),
        (nn.Embedding(5, 3, padding_idx=0), r"found: padding_idx=0 in '0' \(Embedding\)"),
        (nn.Embedding(5, 3, max_norm=1.0), r"found: max_norm=1.0(.|\n)*do this: .*max_norm"),
        (nn.Embedding(5, 3, sparse=True), r"found: sparse=True"),
        (nn.Embedding(5, 3, scale_grad_by_freq=True), r"found: scale_grad_by_freq=True"),
        (
            nn.Conv1d(4, 4, 3),
            r"parameters of '0' \(Conv1d\)(.|\n)*Linear, Conv2d or Embedding\(Bag\)",
        ),
        (nn.ConvTranspose2d(4, 4, 3), r"parameters of '0' \(ConvTranspose2d\)"),
        (nn.EmbeddingBag(5, 3, padding_idx=1), r"found: padding_idx=1 in '0' \(EmbeddingBag\)"),
        (nn.GRU(5, 3), r"parameters of '0' \(GRU\)"),
    ],
)
def test_layers_that_are_no_matrix_on_samples_are_refused_by_name(
    layer: nn.Module, message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        Capture(nn.Sequential(layer))
