"""The samples: fixed by their seed, disjoint from the probe, and refused when they are bad."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from empirical.data import NAMES, Data, given, images, load
from scaling.errors import InvalidInput


def rows(data: Data) -> tuple[set[bytes], set[bytes]]:
    """The training and the probe inputs, each sample as one hashable value."""
    train, probe = data.inputs.numpy(), data.probe_inputs.numpy()
    return {row.tobytes() for row in train}, {row.tobytes() for row in probe}


def test_digits_have_the_stated_shapes_and_type() -> None:
    data = load("digits", samples=16, probe=64)
    assert (data.samples, data.features, data.classes) == (16, 64, 10)
    assert data.probe_inputs.shape == (64, 64) and data.probe_targets.shape == (64, 10)
    parts = (data.inputs, data.targets, data.probe_inputs, data.probe_targets)
    assert {part.dtype for part in parts} == {torch.float64}
    assert data.name == "digits"


def test_targets_are_one_hot() -> None:
    data = load("digits", samples=100)
    assert torch.equal(data.targets.sum(dim=1), torch.ones(100, dtype=torch.float64))
    assert set(data.targets.flatten().tolist()) == {0.0, 1.0}


def test_training_and_probe_samples_are_disjoint_and_together_all_of_them() -> None:
    data = load("digits", samples=797, probe=1000)
    train, probe = rows(data)
    every = {row.tobytes() for row in load_digits().images}
    assert len(train | probe) == len(every)
    assert not train & probe


def test_all_digits_together_have_mean_0_and_spread_1() -> None:
    data = load("digits", samples=1797, probe=0)
    assert data.inputs.mean().item() == pytest.approx(0, abs=1e-12)
    assert data.inputs.std(correction=0).item() == pytest.approx(1)
    assert data.probe_inputs.shape == (0, 64)


def test_one_mean_and_one_spread_keep_a_constant_pixel_constant() -> None:
    data = load("digits", samples=1797, probe=0)
    always_black = load_digits().images.reshape(-1, 64).max(axis=0) == 0
    assert always_black.any()
    assert len(set(data.inputs[:, torch.from_numpy(always_black)].flatten().tolist())) == 1
    assert data.inputs.isfinite().all()


def test_images_keep_their_own_labels() -> None:
    digits = load_digits()
    pairs = zip(digits.images, digits.target, strict=True)
    label = {image.tobytes(): target for image, target in pairs}
    data = load("digits", samples=50)
    images = (data.inputs * digits.images.std() + digits.images.mean()).round().numpy()
    for image, target in zip(images, data.targets, strict=True):
        assert label[image.tobytes()] == target.argmax().item()


def test_the_seed_alone_decides_the_training_samples() -> None:
    assert torch.equal(load(seed=3).inputs, load(seed=3, probe=5).inputs)
    assert torch.equal(load(seed=3).inputs[:4], load(seed=3, samples=4).inputs)
    assert not torch.equal(load(seed=3).inputs, load(seed=4).inputs)


def test_loading_leaves_the_random_state_of_others_alone() -> None:
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    load()
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_misspelt_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(InvalidInput, match=r"found: data set 'cifar'\n.*\ndo this: .*'cifar10'"):
        load("cifar")


def test_more_images_than_there_are_are_refused() -> None:
    with pytest.raises(InvalidInput, match=r"found: .*1800 in all\nneeded: at most 1797.*\ndo "):
        load("digits", samples=1700, probe=100)


@pytest.mark.parametrize(("samples", "probe"), [(0, 4), (-1, 4), (4, -1)])
def test_no_samples_are_refused(samples: int, probe: int) -> None:
    with pytest.raises(InvalidInput, match=r"found: samples=.*\nneeded: at least 1 sample"):
        load("digits", samples=samples, probe=probe)


def fake_torchvision(monkeypatch: pytest.MonkeyPatch, reader: str, make: Any) -> None:
    """Puts a torchvision in place whose ``datasets.<reader>`` is ``make``."""
    package, datasets = ModuleType("torchvision"), ModuleType("torchvision.datasets")
    setattr(datasets, reader, make)
    package.datasets = datasets  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchvision", package)
    monkeypatch.setitem(sys.modules, "torchvision.datasets", datasets)


def test_cifar_is_read_from_the_folder_with_the_channel_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    asked: dict[str, object] = {}

    def cifar10(root: str, **options: object) -> SimpleNamespace:
        asked.update(options, root=root)
        return SimpleNamespace(data=images, targets=[i % 10 for i in range(40)])

    fake_torchvision(monkeypatch, "CIFAR10", cifar10)
    data = load("cifar10", root=tmp_path, samples=40, probe=0)
    assert asked == {"root": str(tmp_path), "train": True, "download": False}
    assert data.inputs.shape == (40, 3 * 32 * 32) and data.classes == 10
    first = images[np.random.default_rng(0).permutation(40)[0]].transpose(2, 0, 1).ravel()
    expected = (first - images.mean()) / images.astype(np.float64).std()
    np.testing.assert_allclose(data.inputs[0].numpy(), expected, rtol=1e-10)


def test_images_are_the_same_samples_unflattened(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    flat, square = load(samples=8, probe=4), images(samples=8, probe=4)
    assert square.inputs.shape == (8, 1, 8, 8) and square.features == flat.features == 64
    assert torch.equal(square.inputs.flatten(1), flat.inputs)
    assert torch.equal(square.probe_inputs.flatten(1), flat.probe_inputs)
    assert torch.equal(square.targets, flat.targets)
    colours = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    source = SimpleNamespace(data=colours, targets=[i % 10 for i in range(40)])
    fake_torchvision(monkeypatch, "CIFAR10", lambda root, **options: source)
    found = images("cifar10", root=tmp_path, samples=40, probe=0).inputs
    first = colours[np.random.default_rng(0).permutation(40)[0]]
    expected = (first - colours.mean()) / colours.astype(np.float64).std()
    np.testing.assert_allclose(found[0, 1].numpy(), expected[:, :, 1], rtol=1e-10)


def test_mnist_tensors_are_read_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = SimpleNamespace(
        data=torch.arange(20 * 784).remainder(256).to(torch.uint8).view(20, 28, 28),
        targets=torch.arange(20) % 10,
    )
    fake_torchvision(monkeypatch, "MNIST", lambda root, **options: source)
    assert load("mnist", root=str(tmp_path), samples=4, probe=4).inputs.shape == (4, 784)


def test_a_folder_without_the_files_says_what_belongs_there_and_where_it_is_from(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def cifar10(root: str, **options: object) -> None:
        raise RuntimeError("Dataset not found or corrupted. You can use download=True")

    fake_torchvision(monkeypatch, "CIFAR10", cifar10)
    message = (
        r"found: no readable cifar10 in .*RuntimeError: Dataset not found.*\n"
        r"needed: .*cifar-10-batches-py/data_batch_1.*\n"
        r"do this: .*cs\.toronto\.edu.*root"
    )
    with pytest.raises(InvalidInput, match=message):
        load("cifar10", root=tmp_path)


def test_a_truncated_file_is_refused_like_a_missing_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def cifar100(root: str, **options: object) -> None:
        raise EOFError("Ran out of input")

    fake_torchvision(monkeypatch, "CIFAR100", cifar100)
    with pytest.raises(InvalidInput, match=r"EOFError: Ran out.*\nneeded: .*cifar-100-python"):
        load("cifar100", root=tmp_path)


def test_blank_images_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    blank = SimpleNamespace(data=np.full((9, 28, 28), 7, dtype=np.uint8), targets=list(range(9)))
    fake_torchvision(monkeypatch, "FashionMNIST", lambda root, **options: blank)
    with pytest.raises(InvalidInput, match=r"found: fashionmnist, whose pixels all have .* 7"):
        load("fashionmnist", root=tmp_path, samples=4, probe=4)


@pytest.mark.parametrize("name", NAMES[1:])
def test_a_missing_folder_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=rf"found: {name} without a root\nneeded: a folder"):
        load(name)
    with pytest.raises(InvalidInput, match=r"found: no folder .*absent\nneeded: .*\ndo this: get "):
        load(name, root=tmp_path / "absent")


def test_a_missing_torchvision_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(InvalidInput, match=r"no torchvision.*\nneeded: .*\ndo this: install"):
        load("mnist", root=tmp_path)


def test_given_arrays_are_taken_as_they_are_and_copied() -> None:
    inputs, targets = np.arange(6.0).reshape(3, 2), np.eye(3)
    data = given(inputs, torch.from_numpy(targets))
    np.testing.assert_array_equal(data.inputs.numpy(), inputs)
    np.testing.assert_array_equal(data.targets.numpy(), targets)
    inputs[0, 0] = 99
    assert data.inputs[0, 0] == 0


def test_given_arrays_are_probed_with_themselves_unless_told_otherwise() -> None:
    same = given([[1.0]], [[1.0]])
    assert same.probe_inputs is same.inputs and same.probe_targets is same.targets
    other = given([[1.0]], [[1.0]], [[2.0], [3.0]], [[0.0], [1.0]], name="mine")
    assert other.probe_inputs.tolist() == [[2.0], [3.0]] and other.name == "mine"


def test_float32_tensors_are_widened() -> None:
    assert given(torch.ones(2, 3), torch.ones(2, 1)).inputs.dtype == torch.float64


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_value_that_is_not_finite_is_named_by_row_and_column(bad: float) -> None:
    with pytest.raises(InvalidInput, match=r"found: .* in inputs at row 1, column 2\nneeded: f"):
        given([[0.0, 0, 0], [0, 0, bad]], [[1], [1]])
    with pytest.raises(InvalidInput, match=r"in targets at row 0, column 0\n"):
        given([[0.0]], [[bad]])


@pytest.mark.parametrize(
    ("inputs", "targets", "message"),
    [
        (np.ones(3), np.ones((3, 1)), r"found: inputs of shape \(3,\)\nneeded: a matrix"),
        (np.ones((3, 1)), np.ones(3), r"found: targets of shape \(3,\)\n.*\ndo this: .*one-hot"),
        (np.ones((0, 2)), np.ones((0, 1)), r"found: inputs of shape \(0, 2\)\n.*at least 1 row"),
        (np.ones((3, 2)), np.ones((2, 1)), r"found: 3 rows of inputs, 2 rows of targets"),
        ([[1.0], [1.0, 2.0]], [[1.0]], r"found: inputs that are no table of numbers"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(inputs: Any, targets: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        given(inputs, targets)


def test_a_probe_must_be_whole_and_of_the_same_columns() -> None:
    with pytest.raises(InvalidInput, match=r"found: probe inputs without probe targets"):
        given([[1.0]], [[1.0]], probe_inputs=[[1.0]])
    with pytest.raises(InvalidInput, match=r"found: inputs with 1 columns, probe_inputs with 2"):
        given([[1.0]], [[1.0]], [[1.0, 2.0]], [[1.0]])
