"""Tracing a transformer and deriving the exponents of its tensors, in seconds of processor time.

    python benchmarks/model_speed.py [--blocks 12]

A fresh process imports torch, and then all that `scaling derive adamw --model FILE` imports, traces
and derives; the time of `import torch` stands beside, as a measure of the machine.
"""

from __future__ import annotations

import argparse
import gc
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

MODEL = Path(__file__).resolve().parent.parent / "docs" / "gpt.py"
GOAL = 5.0


def seconds(blocks: int) -> dict[str, float]:
    """Processor time of each part, in this process, which has to be fresh."""
    gc.disable()  # as the command does
    now = time.process_time
    marks = {"start": now()}
    import torch

    assert torch is not None
    marks["import torch"] = now()
    from derivations.catalogue import find
    from empirical.trace.model_file import GrowingAxis, read_model
    from empirical.trace.read_model import graph_of
    from scaling.solve.graph_solution import derive_graph

    marks["import scaling"] = now()
    file = read_model(str(MODEL))
    width = file.axes["width"]
    assert width is not None
    deep = replace(file, builder=lambda width: file.builder(width=width, depth=blocks))
    graph = graph_of(deep, GrowingAxis("width", (width, 2 * width, 3 * width))).graph
    marks["trace"] = now()
    derive_graph(find("adamw").rule, graph)
    marks["derive"] = now()
    times = list(marks.values())
    return dict(zip(list(marks)[1:], (b - a for a, b in pairwise(times)), strict=True))


def main() -> None:
    """Measure in a process of its own, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=12)
    parser.add_argument("--fresh", action="store_true", help="this is the fresh process")
    asked = parser.parse_args()
    if not asked.fresh:
        words = [sys.executable, __file__, "--fresh", "--blocks", str(asked.blocks)]
        sys.exit(subprocess.run(words, check=False).returncode)
    found = seconds(asked.blocks)
    torch_alone = found.pop("import torch")
    parts = ", ".join(f"{name} {x:.2f}" for name, x in found.items())
    total = sum(found.values())
    print(f"A transformer of {asked.blocks} blocks, AdamW, width: {total:.2f} s of processor time ")
    print(f"beyond `import torch` ({parts}), which takes {torch_alone:.2f} s; ", end="")
    print(f"{total / torch_alone:.1f} times that (asked for: {GOAL:.0f} s on a quiet core).")


if __name__ == "__main__":
    main()
