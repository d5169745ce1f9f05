"""Samples of the user's own, as arrays in an .npz file of numpy.

    inputs          (n, features)
    targets         (n, classes)      one-hot rows, or any numbers for squared errors
    probe_inputs    (m, features)     what is probed with; without them the first rows of the file
    probe_targets   (m, classes)

Written by ``numpy.savez("mine.npz", inputs=x, targets=y)``. Arrays of objects, which a reader would
have to unpickle, are refused.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from empirical.data.free_memory import free_memory
from scaling.sizes.errors import InvalidInput

NEEDED, PROBES = ("inputs", "targets"), ("probe_inputs", "probe_targets")
SUFFIX = ".npz"
REAL = "biuf"
"""Kinds of numpy's types that hold real numbers."""
DAMAGED = (
    OSError, ValueError, TypeError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""Errors of a file that is no array, or is cut off, encrypted or packed in an unknown way."""


def read(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a file, by name.

    Raises:
        InvalidInput: for a file that is missing, damaged or holds other arrays.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            _refuse_unless_it_fits(path, archive.zip)
            arrays = {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise _refusal(f"no file {path}") from None
    except DAMAGED as error:
        raise _refusal(f"{path}, which is no archive of number arrays ({error})") from error
    for name, array in arrays.items():
        if array.dtype.kind not in REAL:
            raise _refusal(f"{path}, where {name} holds {array.dtype}")
    missing = [name for name in NEEDED if name not in arrays]
    known = {*NEEDED, *PROBES}
    if missing or not set(arrays) <= known:
        raise _refusal(f"{path} with the arrays {', '.join(sorted(arrays)) or 'none'}")
    return arrays


def _refuse_unless_it_fits(path: Path, archive: zipfile.ZipFile) -> None:
    """Refuse a file that would not fit into memory twice: as it is, and as float64."""
    needed, free = 2 * sum(info.file_size for info in archive.infolist()), free_memory()
    if needed > 0.9 * free:
        raise InvalidInput(
            f"{path}, whose arrays need {needed / 2**30:,.1f} GiB",
            f"at most the {free / 2**30:,.1f} GiB that are free",
            "write fewer rows, or inputs with fewer features, such as their principal components",
        )


def _refusal(found: str) -> InvalidInput:
    return InvalidInput(
        found,
        "an .npz file with the arrays inputs (n, features) and targets (n, classes), and, where "
        "others are probed with, probe_inputs and probe_targets",
        'write it by numpy.savez("mine.npz", inputs=x, targets=y)',
    )
