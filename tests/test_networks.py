"""The dense network, against its formula written out in numpy."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import erf
from torch import Tensor, nn

from empirical.networks import MLP, Activation
from scaling.errors import InvalidInput

PHI = {
    Activation.tanh: np.tanh,
    Activation.relu: lambda u: np.maximum(u, 0),
    Activation.gelu: lambda u: u * (1 + erf(u / math.sqrt(2))) / 2,
    Activation.erf: erf,
    Activation.linear: lambda u: u,
}


def filled(network: MLP, seed: int = 0) -> MLP:
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        nn.init.normal_(parameter, generator=generator)
    return network


def dense(network: MLP) -> list[nn.Linear]:
    return [layer for layer in network.layers if isinstance(layer, nn.Linear)]


def inputs(samples: int = 5, features: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(samples, features, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("activation", list(Activation))
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("depth", [2, 3, 5])
def test_outputs_are_those_of_the_formula(depth: int, bias: bool, activation: Activation) -> None:
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
    for activation in Activation:
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
    assert network.activation is Activation.relu
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
