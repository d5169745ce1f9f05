"""The samples that a measurement runs on: the same at every width, drawn apart from the weights.

Claim.  An exponent of the width is read off networks that differ in nothing but their width and the
draw of their weights, so the data are drawn once, by their own seed, and held fixed. One number is
subtracted from all inputs and one divides them: pixel by pixel, a pixel that is always black would
divide zero by zero.

``inputs`` and ``probe_inputs`` of a data set have no sample in common. `load` flattens images with
the channel first, as a convolution expects them back; `images` gives the same samples unflattened.

Not covered: augmentation, batching, targets that are sequences.

References: digits are the 8 x 8 images of Alpaydin and Kaynak (1998), shipped with scikit-learn;
MNIST (LeCun et al. 1998), Fashion-MNIST (Xiao et al. 2017), CIFAR (Krizhevsky 2009) are read from a
folder of the user's, and arrays of the user's from a file. Nothing is downloaded.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from empirical.data import array_file
from empirical.data.image_files import FOLDERS
from scaling.models.batch import Batch
from scaling.sizes.errors import InvalidInput, unknown

Images: TypeAlias = NDArray[Any]
"""(samples, height, width) or (samples, channels, height, width), of the source's own type."""

CHUNK = 1024
"""Images turned into float64 at a time while the mean and the spread are computed."""


@dataclass(frozen=True, slots=True, eq=False)
class Data:
    """Samples to train on and samples to probe with, all float64."""

    inputs: Tensor
    """(n, features), or (n, channels, height, width)"""
    targets: Tensor
    """(n, classes), one-hot"""
    probe_inputs: Tensor
    probe_targets: Tensor
    name: str

    def with_probe(self, count: int) -> Data:
        """The same training samples with at most so many probe samples."""
        inputs, targets = self.probe_inputs[:count], self.probe_targets[:count]
        return replace(self, probe_inputs=inputs, probe_targets=targets)

    def with_samples(self, count: int) -> Data:
        """At most so many training samples, the first ones, and the same probe samples."""
        return replace(self, inputs=self.inputs[:count], targets=self.targets[:count])

    def with_own_classes(self) -> Data:
        """Without the outputs whose target is zero in every training sample, if others are left."""
        own = (self.targets != 0).any(dim=0)
        own = own if own.any() else ~own
        return replace(self, targets=self.targets[:, own], probe_targets=self.probe_targets[:, own])

    @property
    def samples(self) -> int:
        """Training samples, n."""
        return self.inputs.shape[0]

    @property
    def features(self) -> int:
        """Numbers in one input."""
        return math.prod(self.inputs.shape[1:])

    @property
    def classes(self) -> int:
        """Columns of the targets."""
        return self.targets.shape[1]

    @property
    def numbers(self) -> Batch:
        """All that theory is told of the samples: how many, and how many directions they have.

        Classes are drawn as often as the targets have directions.
        """
        drawn, rank = _rank(self.targets), _rank(self.inputs.flatten(1))
        usual = min(self.samples, self.features)
        return Batch(
            self.samples,
            self.classes,
            self.features,
            max(1, drawn),
            rank=0 if rank == usual else rank,
        )


def _rank(x: Tensor) -> int:
    """The rank of (n, m), by the smaller one of its two Gram matrices."""
    gram = x @ x.T if x.shape[0] <= x.shape[1] else x.T @ x
    sizes = torch.linalg.eigvalsh(gram)
    return int((sizes > FLAT * sizes.max()).sum())


FLAT = 1e-10
"""Directions of squares smaller than this, relative to the largest one, are none."""
NAMES = ("digits", *FOLDERS)
"""Data sets that ``load`` knows."""
LARGEST, SMALLEST = 1e12, 1e-12
"""From here to there sums of squares stay far from overflow and underflow in single precision."""
SAMPLES = 16
"""To train on, where it is not said."""


def _balanced(
    order: NDArray[np.int64], labels: NDArray[np.int64], samples: int
) -> NDArray[np.int64]:
    """The order with every class in turn among the first ``samples``.

    A class that the batch lacks leaves the output's curvature with eigenvalues of two orders.
    """
    _, inverse = np.unique(labels[order], return_inverse=True)
    turn = np.empty(len(order), dtype=np.int64)
    for label in range(int(inverse.max()) + 1):
        places = np.flatnonzero(inverse == label)
        turn[places] = np.arange(len(places))
    first = np.argsort(turn, kind="stable")[:samples]
    rest = np.setdiff1d(np.arange(len(order)), first)
    balanced: NDArray[np.int64] = order[np.concatenate([first, rest])]
    return balanced


def load(
    name: str = "digits",
    root: str | Path | None = None,
    samples: int | None = None,
    probe: int = 64,
    seed: int = 0,
) -> Data:
    """``samples`` images to train on and ``probe`` others, standardised by one mean and one spread.

    The training images depend on ``seed`` alone, not on how many are probed with. ``root`` is the
    folder that holds a data set, as torchvision lays it out (image_files.py); digits need none. A
    name that ends in .npz is a file of the user's (array_file.py), whose first ``samples`` and
    ``probe`` rows are taken as they are. Without a number, 16 samples are taken, or all rows of a
    file that has fewer.

    InvalidInput is raised on a name that is not known, more images than there are, and a folder or
    files in it that are missing or damaged.

    >>> data = load("digits", samples=8)
    >>> data.inputs.shape, data.targets.shape, data.probe_inputs.shape
    (torch.Size([8, 64]), torch.Size([8, 10]), torch.Size([64, 64]))
    """
    if name.lower().endswith(array_file.SUFFIX):
        _check_counts(SAMPLES if samples is None else samples, probe)
        path = Path(root or ".") / name
        mine = given(**array_file.read(path), name=path.stem)
        if samples is not None and samples > mine.samples:
            raise InvalidInput(
                found=f"samples={samples} of {path}, which has {mine.samples} rows of inputs",
                needed=f"at most {mine.samples}",
                do_this=f"pass --samples {mine.samples}, or leave it out",
            )
        return mine.with_samples(samples or SAMPLES).with_probe(probe)
    if name not in NAMES:
        raise unknown("data set", name, (*NAMES, "FILE.npz"))
    data = images(name, root, SAMPLES if samples is None else samples, probe, seed)
    inputs, probe_inputs = data.inputs.flatten(1), data.probe_inputs.flatten(1)
    return replace(data, inputs=inputs, probe_inputs=probe_inputs)


def images(
    name: str = "digits",
    root: str | Path | None = None,
    samples: int = 16,
    probe: int = 64,
    seed: int = 0,
) -> Data:
    """The samples of `load` as images, (n, channels, height, width), standardised alike.

    >>> images("digits", samples=8).inputs.shape
    torch.Size([8, 1, 8, 8])
    """
    if name not in NAMES:
        raise unknown("data set", name, NAMES)
    _check_counts(samples, probe)
    pixels, labels = _digits() if name == "digits" else FOLDERS[name].read(root)
    if samples + probe > len(pixels):
        raise InvalidInput(
            found=f"samples={samples} and probe={probe}, {samples + probe} in all",
            needed=f"at most {len(pixels)}, the images of {name}",
            do_this="ask for fewer: an exponent needs few samples, the same at every width",
        )
    drawn = _balanced(np.random.default_rng(seed).permutation(len(pixels)), labels, samples)
    drawn = drawn[: samples + probe]
    mean, spread = _moments(pixels)
    if spread == 0:
        raise InvalidInput(
            found=f"{name}, whose pixels all have the value {mean}",
            needed="images that differ",
            do_this="replace the files: they are damaged",
        )
    chosen = pixels[drawn].astype(np.float64)
    chosen = chosen[:, None] if chosen.ndim == 3 else chosen
    inputs = torch.from_numpy((chosen - mean) / spread)
    targets = torch.from_numpy(np.eye(int(labels.max()) + 1)[labels[drawn]])
    return Data(inputs[:samples], targets[:samples], inputs[samples:], targets[samples:], name)


def _check_counts(samples: int, probe: int) -> None:
    if samples < 1 or probe < 0:
        raise InvalidInput(
            found=f"samples={samples}, probe={probe}",
            needed="at least 1 sample to train on, and 0 or more to probe with",
            do_this="pass for instance samples=16, probe=64",
        )


def given(
    inputs: ArrayLike | Tensor,
    targets: ArrayLike | Tensor,
    probe_inputs: ArrayLike | Tensor | None = None,
    probe_targets: ArrayLike | Tensor | None = None,
    name: str = "given",
) -> Data:
    """Data from arrays (n, features) and (n, classes), taken as they are.

    Without probe arrays, the samples to train on are the samples to probe with.

    InvalidInput is raised on other shapes, on no sample at all, on NaN, infinity and numbers whose
    products would be.

    >>> given([[0.0, 1.0], [2.0, 3.0]], [[1, 0], [0, 1]]).features
    2
    """
    if (probe_inputs is None) != (probe_targets is None):
        raise InvalidInput(
            found="probe inputs without probe targets, or the other way round",
            needed="both or neither",
            do_this="pass probe_inputs and probe_targets together",
        )
    x, y = _pair(inputs, targets, "inputs", "targets")
    if probe_inputs is None or probe_targets is None:
        return Data(x, y, x, y, name)
    probe_x, probe_y = _pair(probe_inputs, probe_targets, "probe_inputs", "probe_targets")
    for part, ours, theirs in (("inputs", x, probe_x), ("targets", y, probe_y)):
        if ours.shape[1] != theirs.shape[1]:
            raise InvalidInput(
                found=f"{part} with {ours.shape[1]} columns, probe_{part} with {theirs.shape[1]}",
                needed="the same columns in both",
                do_this=f"prepare probe_{part} in the way of {part}",
            )
    return Data(x, y, probe_x, probe_y, name)


def _pair(
    inputs: ArrayLike | Tensor, targets: ArrayLike | Tensor, first: str, second: str
) -> tuple[Tensor, Tensor]:
    x, y = _matrix(inputs, first), _matrix(targets, second)
    if len(x) != len(y):
        raise InvalidInput(
            found=f"{len(x)} rows of {first}, {len(y)} rows of {second}",
            needed="one row of each to a sample",
            do_this=f"pass the rows of {first} and {second} that belong together",
        )
    return x, y


def _matrix(values: ArrayLike | Tensor, name: str) -> Tensor:
    """``values`` as a finite float64 matrix of its own, with at least one row and one column."""
    source = values.detach().cpu().numpy() if isinstance(values, Tensor) else values
    try:
        array = np.array(source, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidInput(
            found=f"{name} that are no table of numbers ({error})",
            needed="numbers in rows of equal length",
            do_this="pass a matrix with a row to every sample",
        ) from error
    if array.ndim != 2 or array.size == 0:
        raise InvalidInput(
            found=f"{name} of shape {array.shape}",
            needed="a matrix with at least 1 row, the sample, and at least 1 column",
            do_this="flatten images to rows, and turn class labels into one-hot rows",
        )
    smallest, largest = float(array.min()), float(array.max())
    if not (math.isfinite(smallest) and math.isfinite(largest)):
        row, column = np.argwhere(~np.isfinite(array))[0]
        raise InvalidInput(
            found=f"{array[row, column]} in {name} at row {row}, column {column}",
            needed="finite numbers",
            do_this="drop that sample, or fill the value in",
        )
    largest = max(largest, -smallest)
    if largest > LARGEST:
        raise InvalidInput(
            found=f"{largest:.1e} in {name}",
            needed=f"numbers of at most {LARGEST:.0e}, whose products do not overflow",
            do_this="divide them by their standard deviation",
        )
    if 0 < largest < SMALLEST:
        raise InvalidInput(
            found=f"{name} of {largest:.1e} at most",
            needed=f"numbers that reach {SMALLEST:.0e}, whose products do not underflow",
            do_this="divide them by their standard deviation",
        )
    return torch.from_numpy(array)


def _moments(images: Images) -> tuple[float, float]:
    """Mean and standard deviation over all pixels of all images, without a float64 copy of them."""
    chunks = [images[start : start + CHUNK] for start in range(0, len(images), CHUNK)]
    mean = sum(float(chunk.sum(dtype=np.float64)) for chunk in chunks) / images.size
    squares = sum(float(np.square(chunk - np.float64(mean)).sum()) for chunk in chunks)
    return mean, float(np.sqrt(squares / images.size))


def _digits() -> tuple[Images, NDArray[np.int64]]:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return np.asarray(bunch.images), np.asarray(bunch.target, dtype=np.int64)
