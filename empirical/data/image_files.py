"""Files of image data sets in a folder of the user's: MNIST, Fashion-MNIST, CIFAR-10, CIFAR-100.

Two formats, each as its home page gives it and as torchvision lays it out in a folder:

    IDX       big-endian: 0, 0, 8 (bytes), number of axes, the length of each axis, the entries;
              as it is or with .gz
    pickle    a dictionary with "data" (n, 3 * 32 * 32), red, green, then blue, and "labels"
              ("fine_labels" in CIFAR-100)

A pickle can run code while it is read. These are read by an unpickler that knows the parts of a
numpy array and nothing else. Nothing is downloaded; the training half is read, not the test half.

Whatever is wrong with a file, it is named with what its folder should hold and where that is from.
"""

from __future__ import annotations

import gzip
import io
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from scaling.sizes.errors import InvalidInput

Bytes: TypeAlias = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Folder:
    """A data set in a folder: ``files`` within it, the ``label`` of a pickle, and its home page."""

    name: str
    files: tuple[str, ...]
    home: str
    label: str | None = None

    def read(self, root: str | Path | None) -> tuple[Bytes, NDArray[np.int64]]:
        """Images, (n, h, w) or (n, 3, h, w), and labels.

        Raises `InvalidInput` for a folder or a file that is missing, cut off or of another format.
        """
        if root is None:
            raise self._refusal(f"{self.name} without a root")
        if not Path(root).is_dir():
            raise self._refusal(f"no folder {root}")
        if self.label is None:
            images, labels = (self._idx(Path(root) / file) for file in self.files)
        else:
            batches = [self._batch(Path(root) / file, self.label) for file in self.files]
            images = np.concatenate([batch for batch, _ in batches])
            labels = np.concatenate([batch for _, batch in batches])
        if images.ndim < 3 or labels.shape != images.shape[:1]:
            raise self._refusal(f"images {images.shape} and labels {labels.shape} in {root}")
        return images, labels.astype(np.int64)

    def _refusal(self, found: str) -> InvalidInput:
        first, *rest = self.files
        last = f" {'to' if rest[1:] else 'and'} {rest[-1].rsplit('/', 1)[-1]}" if rest else ""
        return InvalidInput(
            found,
            f"a folder with {first}{last} in it",
            f"get {self.name} from {self.home}, unpack it there, and pass the folder as root "
            "(--data-root on the command line)",
        )

    def _bytes(self, path: Path) -> bytes:
        packed = path.with_name(f"{path.name}.gz")
        try:
            if path.exists() or not packed.exists():
                return path.read_bytes()
            return gzip.decompress(packed.read_bytes())
        except FileNotFoundError as error:
            raise self._refusal(f"no file {path}") from error
        except (OSError, EOFError) as error:
            broken = path if path.exists() else packed
            raise self._refusal(f"{broken}, which cannot be read ({error})") from error

    def _idx(self, path: Path) -> Bytes:
        content = self._bytes(path)
        axes = content[3] if len(content) > 3 else 0
        start = 4 + 4 * axes
        if content[:3] != b"\0\0\x08" or len(content) < start:
            raise self._refusal(f"{path}, which does not begin as an IDX file of bytes")
        shape = tuple(int(n) for n in np.frombuffer(content, ">u4", count=axes, offset=4))
        entries = np.frombuffer(content, np.uint8, offset=start)
        if len(entries) != np.prod(shape, dtype=np.int64):
            raise self._refusal(f"{path} with {len(entries):,} entries, which says it has {shape}")
        return entries.reshape(shape)

    def _batch(self, path: Path, label: str) -> tuple[Bytes, NDArray[np.int64]]:
        try:
            content: Any = _Arrays(io.BytesIO(self._bytes(path)), encoding="latin1").load()
        except InvalidInput:
            raise
        except Exception as error:  # a damaged pickle fails in whatever way it happens to
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise self._refusal(f"{path}, cut off or damaged ({reason})") from error
        images = content.get("data") if isinstance(content, Mapping) else None
        labels = content.get(label) if isinstance(content, Mapping) else None
        if not isinstance(images, np.ndarray) or images.shape[1:] != (3072,) or labels is None:
            raise self._refusal(f"{path} without 'data' of 3072 columns and '{label}'")
        return images.reshape(-1, 3, 32, 32), np.asarray(labels, dtype=np.int64)


class _Arrays(pickle.Unpickler):
    """Reads what numpy arrays, lists and strings are made of, and refuses all else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):  # how protocol 2 writes bytes
            return super().find_class(module, name)
        arrays = {"numpy": ("ndarray", "dtype"), "multiarray": ("_reconstruct",)}
        if module.split(".")[0] == "numpy" and name in arrays.get(module.split(".")[-1], ()):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} has no place in a file of images")


_MNIST = ("raw/train-images-idx3-ubyte", "raw/train-labels-idx1-ubyte")
_CIFAR = "https://www.cs.toronto.edu/~kriz/cifar.html"

FOLDERS = {
    folder.name: folder
    for folder in (
        Folder("mnist", tuple(f"MNIST/{x}" for x in _MNIST), "http://yann.lecun.com/exdb/mnist"),
        Folder(
            "fashionmnist",
            tuple(f"FashionMNIST/{x}" for x in _MNIST),
            "https://github.com/zalandoresearch/fashion-mnist",
        ),
        Folder(
            "cifar10",
            tuple(f"cifar-10-batches-py/data_batch_{i}" for i in range(1, 6)),
            _CIFAR,
            label="labels",
        ),
        Folder("cifar100", ("cifar-100-python/train",), _CIFAR, label="fine_labels"),
    )
}
