"""The machine that measures: its device, its cores, and the memory that is free.

A dense network is refused before anything is allocated if it would not fit. Threads of torch and of
every BLAS are limited together, and restored; so is the type that tensors have by default.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from joblib import cpu_count
from threadpoolctl import ThreadpoolController

from empirical.data.free_memory import free_memory
from scaling.sizes.errors import InvalidInput


def pick_device(name: str) -> str:
    """``auto``, ``cpu`` or ``cuda`` as a torch device.

    Raises:
        InvalidInput: if cuda is asked for and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise InvalidInput(
            "--device cuda, but torch sees no CUDA device",
            "a CUDA device and a CUDA build of torch",
            "use --device cpu, or --device auto",
        )
    return "cuda" if name == "cuda" or (name == "auto" and torch.cuda.is_available()) else "cpu"


def check_memory(width: int, depth: int, features: int = 0) -> None:
    """Refuse a dense network that would not fit, before anything is allocated."""
    weights = width * (width * max(depth - 2, 0) + features)
    needed, available = 8.0 * weights * 3, free_memory()  # weights, gradient, one temporary
    if needed > 0.9 * available:
        wide = f" with {features:,} features" if features > width else ""
        raise InvalidInput(
            f"a dense network of width {width:,}{wide}, which needs {needed / 2**30:,.1f} GiB",
            f"at most the {available / 2**30:,.1f} GiB that are free",
            "choose a smaller width; `verify` and `measure` reach it by --mode wide",
        )


def cores() -> int:
    """The processor cores that this process may use."""
    return int(cpu_count())


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Tensors are of this type unless they say otherwise; as before afterwards."""
    usual = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(usual)


@contextmanager
def blas_threads(threads: int) -> Iterator[None]:
    """Use that many threads for torch and every BLAS (0: all cores), and restore the old number."""
    count, old = threads or cores(), torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with _thread_pools().limit(limits=count, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(old)


@cache
def _thread_pools() -> ThreadpoolController:
    return ThreadpoolController()


def peak_memory(device: str) -> float:
    """Peak memory of the process (of the device, on CUDA) in MB."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3
