"""The networks, against their formulas written out in numpy and in plain torch."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from scipy.special import erf
from torch import Tensor, nn
from torch.nn import functional

from empirical.networks import CBOW, CNN, MLP, Nonlinearity, ResNet
from scaling.sizes.errors import InvalidInput

Network = TypeVar("Network", bound=nn.Module)

PHI = {
    Nonlinearity.tanh: np.tanh,
    Nonlinearity.relu: lambda u: np.maximum(u, 0),
    Nonlinearity.gelu: lambda u: u * (1 + erf(u / math.sqrt(2))) / 2,
    Nonlinearity.erf: erf,
    Nonlinearity.linear: lambda u: u,
}


def filled(network: Network, seed: int = 0) -> Network:
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        nn.init.normal_(parameter, generator=generator)
    return network


def dense(network: MLP) -> list[nn.Linear]:
    return [layer for layer in network.layers if isinstance(layer, nn.Linear)]


def inputs(samples: int = 5, features: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(samples, features, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("activation", list(Nonlinearity))
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("depth", [2, 3, 5])
def test_outputs_are_those_of_the_formula(depth: int, bias: bool, activation: Nonlinearity) -> None:
    multipliers = [0.5 + l for l in range(depth)]
    network = filled(MLP(3, 7, 2, depth, activation, bias, multipliers))
    h, expected = inputs().numpy(), []
    for l, layer in enumerate(dense(network)):
        u = multipliers[l] * h @ layer.weight.detach().numpy().T
        u = u + (layer.bias.detach().numpy() if bias else 0)
        h = u if l == depth - 1 else PHI[activation](u)
        expected.append(h)
    found = network.hidden(inputs())
    assert len(found) == depth
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours.detach().numpy(), theirs, rtol=1e-10, atol=1e-12)
    assert torch.equal(network(inputs()), found[-1])


def test_every_activation_has_its_function() -> None:
    u = torch.linspace(-3, 3, 13, dtype=torch.float64)
    for activation in Nonlinearity:
        np.testing.assert_allclose(activation(u).numpy(), PHI[activation](u.numpy()), rtol=1e-12)


def test_layers_have_the_shapes_of_their_roles() -> None:
    network = MLP(features=3, width=7, classes=2, depth=4, bias=True)
    layers = dense(network)
    assert len(layers) == len(network.layers) == 4
    assert [layer.weight.shape for layer in layers] == [(7, 3), (7, 7), (7, 7), (2, 7)]
    assert [layer.bias.shape for layer in layers] == [(7,), (7,), (7,), (2,)]
    assert all(before.out_features == after.in_features for before, after in pairwise(layers))


def test_without_biases_the_weights_are_all_the_parameters() -> None:
    assert len(list(MLP(3, 7, 2, depth=4).parameters())) == 4


def test_a_hook_on_a_layer_reads_the_input_with_its_multiplier() -> None:
    network = filled(MLP(3, 7, 2, multipliers=[1, 0.25, 1]))
    seen: list[Tensor] = []
    network.layers[1].register_forward_hook(lambda layer, given, output: seen.append(given[0]))
    first = network.hidden(inputs())[0]
    torch.testing.assert_close(seen[0], 0.25 * first, rtol=0, atol=0)


def test_gradients_reach_every_parameter() -> None:
    network = filled(MLP(3, 7, 2, bias=True))
    network(inputs()).square().sum().backward()
    for parameter in network.parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0


def test_a_forgotten_initialisation_shows_in_the_output() -> None:
    network = MLP(3, 7, 2, bias=True)
    assert all(parameter.isnan().all() for parameter in network.parameters())
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert network(inputs()).isnan().all()


def test_building_draws_no_random_numbers() -> None:
    before = torch.random.get_rng_state()
    MLP(3, 500, 2)
    assert torch.equal(before, torch.random.get_rng_state())


def test_weights_travel_as_a_state_dict() -> None:
    ours, theirs = filled(MLP(3, 7, 2)), MLP(3, 7, 2)
    theirs.load_state_dict(ours.state_dict())
    assert torch.equal(ours(inputs()), theirs(inputs()))


def test_dtype_device_and_a_named_activation_are_kept() -> None:
    network = MLP(3, 7, 2, activation="relu", dtype=torch.float32, device="meta")
    assert network.activation is Nonlinearity.relu
    assert all(layer.weight.dtype == torch.float32 for layer in dense(network))
    assert all(layer.weight.device.type == "meta" for layer in dense(network))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_network_on_cuda_computes_what_it_does_on_the_cpu() -> None:
    here, there = filled(MLP(3, 7, 2)), MLP(3, 7, 2, device="cuda")
    there.load_state_dict(here.state_dict())
    torch.testing.assert_close(there(inputs().cuda()).cpu(), here(inputs()), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, r"found: width=0\nneeded: a whole number, 1 or larger\ndo this: pass "),
        ({"width": 64.0}, r"found: width=64.0\nneeded: a whole number"),
        ({"features": True}, r"found: features=True\n"),
        ({"classes": -1}, r"found: classes=-1\n"),
        ({"depth": 1}, r"found: depth=1\nneeded: a whole number, 2 or larger"),
        ({"activation": "rleu"}, r"found: activation 'rleu'\nneeded: .*\ndo this: .*'relu'"),
        ({"multipliers": [1, 1]}, r"found: 2 multipliers for 3 layers\n.*\ndo this: pass 3"),
        ({"multipliers": [1, 0, 1]}, r"found: multiplier 0 at layer 2\nneeded: .*larger than 0"),
        ({"multipliers": [1, 1, math.nan]}, r"found: multiplier nan at layer 3\n"),
        ({"dtype": torch.int64}, r"found: dtype=torch.int64\nneeded: a floating-point type"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {"features": 3, "width": 7, "classes": 2}
    with pytest.raises(InvalidInput, match=message):
        MLP(**{**good, **options})


# --- images and words ---------------------------------------------------------------------------


def pictures(channels: int = 1, size: int = 8) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(3, channels, size, size, generator=generator, dtype=torch.float64)


def weights(network: nn.Module) -> list[Tensor]:
    return [parameter.detach() for parameter in network.parameters()]


def conv(h: Tensor, w: Tensor) -> Tensor:
    """A 3 x 3 convolution as a sum over the nine shifts of the padded image."""
    padded = functional.pad(h, (1, 1, 1, 1))
    side = h.shape[-1]
    return sum(
        torch.einsum("oc,nchw->nohw", w[:, :, i, j], padded[:, :, i : i + side, j : j + side])
        for i in range(3)
        for j in range(3)
    )  # type: ignore[return-value]


def pool(h: Tensor) -> Tensor:
    n, c, side, _ = h.shape
    return h.reshape(n, c, side // 2, 2, side // 2, 2).mean(dim=(3, 5))


@pytest.mark.parametrize(("channels", "size"), [(1, 8), (3, 16)])
def test_the_cnn_is_its_formula(channels: int, size: int) -> None:
    m = [0.5, 1.5, 2.0, 0.25, 3.0]
    network = filled(CNN(4, channels, size, 5, Nonlinearity.tanh, multipliers=m))
    a, b, c, d, e = weights(network)
    x = pictures(channels, size)
    h = torch.tanh(conv(m[0] * x, a))
    h = pool(torch.tanh(conv(m[1] * h, b)))
    h = pool(torch.tanh(conv(m[2] * h, c)))
    h = pool(torch.tanh(conv(m[3] * h, d)))
    expected = (m[4] * h).reshape(3, -1) @ e.T
    torch.testing.assert_close(network(x), expected, rtol=1e-10, atol=1e-12)
    assert [h.shape[-1] for h in network.hidden(x)[:-1]] == [size, size, size // 2, size // 4]


def test_the_residual_network_is_its_formula() -> None:
    m, beta = [0.5, 1.5, 2.0, 0.25, 3.0, 0.75], 0.4
    network = filled(ResNet(4, blocks=2, branch=beta, multipliers=m))
    stem, a, b, c, d, head = weights(network)
    h = conv(m[0] * pictures(), stem)
    for first, second, m1, m2 in ((a, b, m[1], m[2]), (c, d, m[3], m[4])):
        h = pool(h + beta * conv(m2 * torch.relu(conv(m1 * torch.relu(h), first)), second))
    expected = m[5] * torch.relu(h).mean(dim=(2, 3)) @ head.T
    torch.testing.assert_close(network(pictures()), expected, rtol=1e-10, atol=1e-12)
    plain = filled(ResNet(4, blocks=2, branch=0.0, multipliers=m))
    h = pool(pool(conv(m[0] * pictures(), stem)))
    expected = m[5] * torch.relu(h).mean(dim=(2, 3)) @ head.T
    torch.testing.assert_close(plain(pictures()), expected, rtol=1e-10, atol=1e-12)


def test_the_bag_of_words_is_its_formula() -> None:
    network = filled(CBOW(4, 7, Nonlinearity.tanh, multipliers=[0.5, 2.0]))
    embedding, head = weights(network)
    ids = torch.tensor([[0, 6, 6], [1, 2, 3]])
    one_hot = functional.one_hot(ids, 7).double()
    expected = 2.0 * torch.tanh((0.5 * one_hot @ embedding).mean(dim=1)) @ head.T
    torch.testing.assert_close(network(ids), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("build", [
    lambda **k: CNN(4, **k), lambda **k: ResNet(4, **k), lambda **k: CBOW(4, 7, **k),
])  # fmt: skip
def test_weights_are_blank_multipliers_are_counted_and_types_kept(build: Any) -> None:
    network = build(dtype=torch.float32, bias=True)
    assert all(p.isnan().all() and p.dtype == torch.float32 for p in network.parameters())
    with pytest.raises(InvalidInput, match=r"found: 9 multipliers for \d layers"):
        build(multipliers=[1.0] * 9)
    with pytest.raises(InvalidInput, match="found: activation 'rleu'"):
        build(activation="rleu")


@pytest.mark.parametrize(("build", "message"), [
    (lambda: CNN(4, size=28), r"found: size=28\nneeded: .* multiple of 8(.|\n)*32 x 32"),
    (lambda: ResNet(4, size=8, blocks=4), r"found: size=8\nneeded: .* multiple of 16"),
    (lambda: ResNet(4, branch=math.inf), r"found: branch=inf"),
    (lambda: CNN(0), r"found: width=0"),
    (lambda: CBOW(4, vocabulary=0), r"found: vocabulary=0"),
])  # fmt: skip
def test_images_and_vocabularies_that_do_not_fit_are_refused(build: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        build()
