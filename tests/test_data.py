"""The samples: fixed by their seed, disjoint from the probe, and refused when they are bad."""

from __future__ import annotations

import gzip
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from empirical.data.image_files import FOLDERS
from empirical.data.sources import NAMES, Data, given, images, load
from scaling.sizes.errors import InvalidInput


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


# --- files in a folder --------------------------------------------------------------------------


def cifar(root: Path, images: NDArray[np.uint8], name: str = "cifar10") -> Path:
    """The files of CIFAR as Python 2 wrote them: protocol 2, the old name of numpy's module."""
    label = "labels" if name == "cifar10" else "fine_labels"
    files = FOLDERS[name].files
    for part, file in zip(np.array_split(np.arange(len(images)), len(files)), files, strict=True):
        rows = images[part].reshape(len(part), -1)
        content = pickle.dumps({"data": rows, label: [int(i) % 10 for i in part]}, protocol=2)
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    return root


def idx(values: NDArray[np.uint8]) -> bytes:
    header = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">u4").tobytes()
    return header + values.tobytes()


def mnist(root: Path, images: NDArray[np.uint8], name: str = "mnist", packed: bool = False) -> Path:
    labels = (np.arange(len(images)) % 10).astype(np.uint8)
    for values, file in zip((images, labels), FOLDERS[name].files, strict=True):
        path = root / (f"{file}.gz" if packed else file)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(idx(values)) if packed else idx(values))
    return root


def noise(*shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def assert_all_read(data: Data, pixels: NDArray[np.uint8]) -> None:
    """Every image once, standardised by the moments of all, with the label it was written with."""
    grey = data.inputs.numpy() * pixels.astype(np.float64).std() + pixels.mean()
    flat = pixels.reshape(len(pixels), -1)
    found = [int(np.abs(flat - row).max(axis=1).argmin()) for row in grey]
    np.testing.assert_allclose(grey, flat[found], atol=1e-9)
    assert sorted(found) == list(range(len(pixels)))
    assert data.targets.argmax(dim=1).tolist() == [i % 10 for i in found]


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_is_read_from_the_folder_with_the_channel_first(name: str, tmp_path: Path) -> None:
    pixels = noise(40, 3, 32, 32)
    data = load(name, cifar(tmp_path, pixels, name), samples=40, probe=0)
    assert data.inputs.shape == (40, 3 * 32 * 32) and data.classes == 10
    assert_all_read(data, pixels)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", ["mnist", "fashionmnist"])
def test_mnist_is_read_as_it_is_and_packed(name: str, packed: bool, tmp_path: Path) -> None:
    pixels = noise(20, 28, 28)
    data = load(name, str(mnist(tmp_path, pixels, name, packed)), samples=20, probe=0)
    assert_all_read(data, pixels)


def test_images_are_the_same_samples_unflattened(tmp_path: Path) -> None:
    flat, square = load(samples=8, probe=4), images(samples=8, probe=4)
    assert square.inputs.shape == (8, 1, 8, 8) and square.features == flat.features == 64
    assert torch.equal(square.inputs.flatten(1), flat.inputs)
    assert torch.equal(square.probe_inputs.flatten(1), flat.probe_inputs)
    assert torch.equal(square.targets, flat.targets)
    pixels = noise(40, 3, 32, 32)
    found = images("cifar10", root=cifar(tmp_path, pixels), samples=40, probe=0).inputs
    first = pixels[np.random.default_rng(0).permutation(40)[0]]
    expected = (first - pixels.mean()) / pixels.astype(np.float64).std()
    np.testing.assert_allclose(found[0].numpy(), expected, rtol=1e-10)


def test_a_missing_file_is_named_with_what_belongs_there_and_where_it_is_from(
    tmp_path: Path,
) -> None:
    message = (
        r"found: no file .*cifar-10-batches-py.data_batch_1\n"
        r"needed: a folder with cifar-10-batches-py/data_batch_1 to data_batch_5 in it\n"
        r"do this: get cifar10 from https://www\.cs\.toronto\.edu.*root"
    )
    with pytest.raises(InvalidInput, match=message):
        load("cifar10", root=tmp_path)
    mnist(tmp_path, noise(20, 28, 28), "fashionmnist")
    (tmp_path / FOLDERS["fashionmnist"].files[1]).unlink()
    message = (
        r"found: no file .*train-labels-idx1-ubyte\nneeded: .*train-images-idx3-ubyte and "
        r"train-labels-idx1-ubyte in it\ndo this: .*zalandoresearch"
    )
    with pytest.raises(InvalidInput, match=message):
        load("fashionmnist", root=tmp_path)


def test_a_file_that_is_cut_off_or_of_another_kind_is_named(tmp_path: Path) -> None:
    cifar(tmp_path, noise(40, 3, 32, 32))
    batch = tmp_path / FOLDERS["cifar10"].files[2]
    whole = batch.read_bytes()
    batch.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InvalidInput, match=r"data_batch_3, cut off or damaged \(.*\)\n"):
        load("cifar10", tmp_path)
    batch.write_bytes(pickle.dumps({"labels": [1]}))
    with pytest.raises(InvalidInput, match=r"data_batch_3 without 'data' of 3072 columns and 'lab"):
        load("cifar10", tmp_path)
    mnist(tmp_path, noise(20, 28, 28))
    first = tmp_path / FOLDERS["mnist"].files[0]
    first.write_bytes(first.read_bytes()[:-100])
    with pytest.raises(
        InvalidInput, match=r"with 15,580 entries, which says it has \(20, 28, 28\)"
    ):
        load("mnist", tmp_path)
    first.write_bytes(b"<html>")
    with pytest.raises(InvalidInput, match=r"train-images-idx3-ubyte, which does not begin as an"):
        load("mnist", tmp_path)
    mnist(tmp_path, noise(20, 28, 28), "fashionmnist", packed=True)
    first = tmp_path / f"{FOLDERS['fashionmnist'].files[0]}.gz"
    first.write_bytes(first.read_bytes()[:-100])
    with pytest.raises(InvalidInput, match=r"idx3-ubyte\.gz, which cannot be read \(Compressed"):
        load("fashionmnist", tmp_path)
    mnist(tmp_path, noise(20, 28, 28))
    (tmp_path / FOLDERS["mnist"].files[1]).write_bytes(idx(np.zeros(19, np.uint8)))
    with pytest.raises(InvalidInput, match=r"images \(20, 28, 28\) and labels \(19,\)"):
        load("mnist", tmp_path)


def test_a_pickle_that_would_run_code_is_refused_unrun(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    cifar(tmp_path, noise(40, 3, 32, 32))
    (tmp_path / FOLDERS["cifar10"].files[0]).write_bytes(pickle.dumps(Evil()))
    with pytest.raises(InvalidInput, match=r"data_batch_1, cut off or damaged \(UnpicklingError"):
        load("cifar10", tmp_path)
    assert not (tmp_path / "ran").exists()


def test_blank_images_are_refused(tmp_path: Path) -> None:
    mnist(tmp_path, np.full((9, 28, 28), 7, dtype=np.uint8), "fashionmnist")
    with pytest.raises(InvalidInput, match=r"found: fashionmnist, whose pixels all have .* 7"):
        load("fashionmnist", root=tmp_path, samples=4, probe=4)


@pytest.mark.parametrize("name", NAMES[1:])
def test_a_missing_folder_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=rf"found: {name} without a root\nneeded: a folder"):
        load(name)
    with pytest.raises(InvalidInput, match=r"found: no folder .*absent\nneeded: .*\ndo this: get "):
        load(name, root=tmp_path / "absent")


# --- arrays of one's own ------------------------------------------------------------------------


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
