"""The machine that a benchmark ran on, in one line."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import numpy
import torch

from empirical.measure.machine import cores


def processor() -> str:
    """The name of the processor, where the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def main() -> None:
    """Print it."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else "no CUDA device"
    print(f"Machine: {cores()} cores of {processor()}, {memory:.0f} GiB, {cuda}; ", end="")
    print(
        f"Python {platform.python_version()}, torch {torch.__version__}, numpy {numpy.__version__}."
    )


if __name__ == "__main__":
    main()
