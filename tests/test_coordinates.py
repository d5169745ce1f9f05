"""The coordinate check of models: agrees where it must, and contradicts what is wrong."""

from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, cross_entropy

from empirical.data import sources, text
from empirical.fit.verdict import Verdict
from empirical.measure.parametrize import LayerScales
from empirical.networks import CBOW, ResNet
from empirical.report.measured_tables import as_frame, as_json, render
from empirical.verify.verification import Check, Verification
from empirical.your_model.coordinate_check import Build, Scales, check_model, standard
from empirical.your_model.initialise import initialise_
from empirical.your_model.model_scales import for_model
from scaling.rules.parser import parse
from scaling.sizes.errors import InvalidInput

IMAGES, WORDS = sources.images(samples=6), text.load(vocabulary=30, samples=16, probe=16, radius=1)
SMALL = avg_pool2d(IMAGES.inputs, 2)
SGD = parse("G")


def convolutional(width: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, width, 2, stride=2), nn.Tanh(), nn.Conv2d(width, width, 2), nn.Tanh(),
        nn.Flatten(), nn.Linear(width, 10),
    )  # fmt: skip


def residual(width: int) -> nn.Module:
    return ResNet(width, size=4, blocks=1)


def verbal(width: int) -> nn.Module:
    return CBOW(width, 30)


BATCHES = {
    convolutional: (SMALL, IMAGES.targets), residual: (SMALL, IMAGES.targets),
    verbal: (WORDS.inputs, WORDS.targets),
}  # fmt: skip
KFAC = "(B + rho_B*I)**(-1) @ G @ (A + rho_A*I)**(-1)"
SHAMPOO = "(L + rho*I)**(-1/4) @ G @ (R + rho*I)**(-1/4)"
WIDTHS = (8, 16, 32, 64, 128)
CASES: dict[str, tuple[str, Build, Tensor, Tensor, tuple[int, ...], tuple[str, ...]]] = {
    # what the standard parametrization breaks, as "layer quantity"
    "cnn, K-FAC": (KFAC, convolutional, SMALL, IMAGES.targets, WIDTHS,
                   ("0 own", "2 own", "2 feature")),
    "resnet, SGD": ("G", residual, SMALL, IMAGES.targets, WIDTHS,
                    ("stem own", "blocks.0.first own", "blocks.0.second feature")),
    "cbow, Shampoo": (SHAMPOO, verbal, WORDS.inputs, WORDS.targets, (16, 32, 64, 128),
                      ("embedding own", "embedding feature")),
}  # fmt: skip


def checks(result: Verification) -> dict[str, Check]:
    return {f"{c.layer} {c.quantity}": c for c in result.checks}


@pytest.mark.parametrize("case", CASES)
def test_derived_exponents_agree_and_the_standard_parametrization_is_contradicted(
    case: str,
) -> None:
    rule, build, inputs, targets, widths, broken = CASES[case]
    options: dict[str, Any] = {"seeds": 6, "margin": 0.25}
    args = (build, parse(rule), inputs, targets, cross_entropy, widths)
    derived = checks(check_model(*args, **options))
    for name, check in derived.items():
        predicted = float(check.predicted)
        assert check.verdict is not Verdict.contradict, (name, str(check.measured))
        assert check.measured.low - 0.1 <= predicted <= check.measured.high + 0.1, name
        assert abs(check.measured.slope - predicted) < 0.25, (name, str(check.measured))
    agree = sum(check.verdict is Verdict.agree for check in derived.values())
    assert agree >= 0.5 * len(derived), agree
    wrong = check_model(*args, **options, scales=standard(build, widths[0]))
    assert wrong.verdict is Verdict.contradict
    found = checks(wrong)
    for name in broken:
        assert found[name].verdict is Verdict.contradict, (name, str(found[name].measured))


def test_any_optimizer_is_checked_and_torchs_sgd_is_the_rule_G() -> None:
    def torchs(model: nn.Module, scales: Scales) -> torch.optim.Optimizer:
        groups = [{"params": [p], "lr": scales[n].lr} for n, p in model.named_parameters()]
        return torch.optim.SGD(groups)

    args = (convolutional, SGD, SMALL, IMAGES.targets, cross_entropy, (4, 8))
    ours, theirs = (
        check_model(*args, seeds=1, steps=3, optimizer=optimizer).series[0]
        for optimizer in (None, torchs)
    )
    for layer, quantities in ours.layers.items():
        for quantity, sizes in quantities.items():
            np.testing.assert_allclose(sizes, theirs.layers[layer][quantity], rtol=1e-9)
    other = check_model(*args, seeds=1, steps=2).series[0]
    assert not np.allclose(other.layers["2"]["feature"], ours.layers["2"]["feature"], rtol=1e-3)


def test_sizes_are_those_of_the_layers_taken_by_hand() -> None:
    width, base, lr = 8, 4, 0.5
    found = check_model(
        convolutional, SGD, SMALL, IMAGES.targets, cross_entropy, (base, width), seeds=1, lr=lr
    )
    scales = for_model(SGD, convolutional(4), convolutional(8), base, width, lr)
    model = convolutional(width).double()
    initialise_(model, convolutional(base), scales, seed=0, width=width)
    u = model[0](SMALL)
    h = model[1](u)
    start = h, model[2](h)
    cross_entropy(model(SMALL), IMAGES.targets).backward()
    with torch.no_grad():
        old = model[2].weight.clone()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None
            parameter -= scales[name].lr * parameter.grad
        own = nn.functional.conv2d(start[0], model[2].weight - old)
        feature = model[2](model[1](model[0](SMALL))) - start[1]
    for quantity, size in (("init", start[1]), ("own", own), ("feature", feature)):
        measured = found.series[0].layers["2"][quantity][0, 1]
        assert measured == pytest.approx(float(size.detach().square().mean().sqrt()), rel=1e-9)


def test_the_table_is_a_verification_with_a_note_on_roles_and_what_is_not_judged() -> None:
    def build(width: int) -> nn.Module:
        return nn.Sequential(nn.Linear(64, 3), nn.Linear(3, width), nn.Linear(width, 10))

    flat = IMAGES.inputs.flatten(1)
    result = check_model(build, SGD, flat, IMAGES.targets, cross_entropy, (4, 8, 16), seeds=2)
    assert "roles: 0 constant, 1 input, 2 output" in result.notes
    assert "not judged, since no axis of theirs grows: 0" in result.notes
    assert {c.layer for c in result.checks} == {"1", "2"}
    assert "predicted" in render(result, "text") and len(as_json(result)["checks"]) == 6
    assert set(as_frame(result)["layer"]) == {"0", "1", "2"}


def test_layers_with_more_samples_than_outputs_are_named_where_curvature_matters() -> None:
    args = (SMALL, IMAGES.targets, cross_entropy, (8, 16))
    values = {"rho_A": 0.1, "rho_B": 0.1}
    result = check_model(convolutional, parse(KFAC), *args, seeds=1, values=values)
    (note,) = (note for note in result.notes if note.startswith("more samples than 8"))
    assert ": 0 (24); every position" in note  # 6 images, 4 positions; layer 2 has 6 samples
    plain = check_model(convolutional, SGD, *args, seeds=1)
    assert not any(note.startswith("more samples") for note in plain.notes)
    verbal_args = (WORDS.inputs, WORDS.targets, cross_entropy, (16, 64))
    result = check_model(verbal, parse(KFAC), *verbal_args, seeds=1, values=values)
    assert any(": embedding (32); every" in note for note in result.notes)


def test_dampings_are_taken_as_given_and_exponents_are_needed() -> None:
    rule = parse("G @ (A + rho*I)**(-e_A)")
    args = (convolutional, rule, SMALL, IMAGES.targets, cross_entropy, (4, 8))
    one, other = (
        check_model(*args, seeds=1, values={"rho": rho}, exponents={"e_A": Fraction(1)})
        for rho in (1e-3, 1e3)
    )
    sizes = [r.series[0].layers["2"]["feature"][0, 1] for r in (one, other)]
    assert abs(sizes[0] / sizes[1] - 1) > 1e-2
    with pytest.raises(InvalidInput, match="no value for 'e_A'"):
        check_model(*args, seeds=1)


class Bypass(nn.Module):
    """A weight that is used without calling its layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(16, width, bias=False), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(x.flatten(1) @ self.first.weight.T)


class Tied(nn.Sequential):
    def __init__(self, width: int) -> None:
        layers = nn.Linear(16, width), nn.Linear(width, width), nn.Linear(width, width)
        super().__init__(*layers, nn.Linear(width, 10))
        layers[2].weight = layers[1].weight


def squared(width: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(16, width**2), nn.Linear(width**2, 10))


class Pair(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = convolutional(width)

    def forward(self, x: Tensor) -> tuple[Tensor, int]:
        return self.layers(x), 0


@pytest.mark.parametrize(("options", "message"), [
    ({"widths": (8,)}, r"found: the widths 8\nneeded: at least 2 widths"),
    ({"widths": (8, 4)}, r"found: the widths 8, 4\nneeded: .* from the narrowest"),
    ({"widths": (0, 4)}, r"found: the widths 0, 4\n"),
    ({"seeds": 0}, r"found: seeds=0"),
    ({"rule": "G @ B"}, r"as many columns on the left"),
    ({"rule": 3}, r"found: a int as a rule"),
    ({"inputs": SMALL.numpy()}, r"found: inputs of type ndarray\nneeded: a tensor"),
    ({"build": lambda w: 3}, r"found: a int from build\(4\)"),
    ({"steps": 0}, r"found: steps=0"),
    ({"values": {"rho": 1.0}}, r"found: symbol 'rho'"),
    ({"build": lambda w: nn.Flatten()}, r"a model \(Flatten\) without trainable Linear, Conv2d"),
    ({"build": lambda w: nn.Sequential(nn.Flatten(), nn.Linear(16, 10))}, "the axis 'width', with"),
    ({"scales": lambda w: {"0.weight": LayerScales(1, 1, {})}}, r"scales of 0.weight\n(.|\n)*add"),
    ({"build": Tied}, r"a parameter shared by '1' and '2'"),
    ({"build": Pair}, r"found: a tuple from the model, which the loss does not take"),
    ({"loss": partial(cross_entropy, reduction="none")}, r"found: a loss of shape \(\d+,\)"),
    ({"rule": "G/eps"}, r"a rule that leaves d_eps_0.weight open: G/eps"),
    ({"rule": "kfac"}, r"no value for 'e_B'(.|\n)*pass exponents=\{'e_B': Fraction\(1, 2\)\}"),
    ({"exponents": {"e": Fraction(1)}}, r"found: exponent 'e'"),
    ({"rule": "kfac", "exponents": {"e_B": 0.5}}, r"the exponent e_B=0.5\nneeded: an exact number"),
    ({"build": Bypass}, r"the layer 'first', which the model does not call"),
])  # fmt: skip
def test_what_cannot_be_checked_is_refused(options: dict[str, Any], message: str) -> None:
    good = {
        "build": convolutional, "rule": SGD, "inputs": SMALL, "targets": IMAGES.targets,
        "loss": cross_entropy, "widths": (4, 8),
    }  # fmt: skip
    with pytest.raises(InvalidInput, match=message):
        check_model(**{**good, **options})


# --- numbers for convolutions and embeddings ----------------------------------------------------


def mixed(width: int) -> nn.Module:
    return nn.Sequential(
        nn.Embedding(50, width), nn.Unflatten(-1, (width, 1, 1)), nn.Flatten(0, 1),
        nn.Conv2d(width, 5, 1, padding=(1, 2)), nn.ConvTranspose2d(5, 4, 2), nn.Linear(6, 3),
    )  # fmt: skip


def test_fans_count_kernel_axes_and_one_term_of_a_one_hot_input() -> None:
    read = for_model("G", mixed, base=8, width=8).read
    tensors = dict(mixed(8).named_parameters())
    found = {name: read.fan_in(name, x) for name, x in tensors.items() if name.endswith("weight")}
    assert found == {"0.weight": 1, "3.weight": 8, "4.weight": 20, "5.weight": 6}
    assert read.fan_in("3.bias", tensors["3.bias"]) is None


@pytest.mark.parametrize(("build", "layers"), [
    (convolutional, ("0", "2", "5")),
    (residual, ("stem", "blocks.0.first", "head")),
    (verbal, ("embedding", "head")),
])  # fmt: skip
def test_weights_start_at_the_root_of_the_fan_in_times_the_power_of_the_width(
    build: Build, layers: tuple[str, ...]
) -> None:
    """muP: kernels and embeddings 1/sqrt(fan_in) whatever their axes, readouts once more so."""
    base, width = 8, 32
    scales = for_model(SGD, build(4), build(8), base, width, batch=BATCHES[build])
    model = build(width).double()
    initialise_(model, build(base), scales, seed=1, width=width)
    for layer in layers:
        weight = model.get_submodule(layer).weight.detach()
        assert isinstance(weight, Tensor)
        fan = 1 if isinstance(model.get_submodule(layer), nn.Embedding) else weight[0].numel()
        readout = layer in ("5", "head")
        expected = fan**-0.5 * (base / width) ** (0.5 if readout else 0)
        spread = 4 / (2 * weight.numel()) ** 0.5
        assert float(weight.std() / expected) == pytest.approx(1, abs=spread), layer
    biases = [p for n, p in model.named_parameters() if n.endswith("bias")]
    assert all(not bias.any() for bias in biases)


def test_rates_of_kernels_are_those_of_dense_layers_and_embeddings_those_of_inputs() -> None:
    """SGD: c = -1, 0, 1. K-FAC: c = 0, 0, 0 with d_B = 1, 1, 0 ... as its dense layers."""
    for rule in (SGD, parse(KFAC), parse("sign(G)")):
        dense = for_model(rule, *(
            nn.Sequential(nn.Linear(3, w), nn.Linear(w, w), nn.Linear(w, 2)) for w in (4, 8)
        ), 64, 256)  # fmt: skip
        for build, names in (
            (convolutional, {"0.weight": "0", "2.weight": "1", "5.weight": "2"}),
            (residual, {"stem.weight": "0", "blocks.0.second.weight": "1", "head.weight": "2"}),
            (verbal, {"embedding.weight": "0", "head.weight": "2"}),
        ):
            found = for_model(rule, build(4), build(8), 64, 256, batch=BATCHES[build])
            for name, twin in names.items():
                assert found[name] == dense[f"{twin}.weight"]
                assert isinstance(found[name], LayerScales)
