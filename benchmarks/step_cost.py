"""What one step of a rule costs, beside a plain forward and backward pass of the same batch.

    python benchmarks/step_cost.py [--width 4096] [--samples 16] [--device auto]

Prints a Markdown table: seconds of forward+backward, and of forward+backward+step under each rule,
with the ratio. Runs alternate, so that a drifting machine drifts under both; medians are shown.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from derivations.catalogue import find
from empirical.measure.machine import pick_device
from empirical.networks import MLP
from empirical.your_model.rule_optimizer import RuleOptimizer

RULES = ("sgd", "kfac", "shampoo", "foof", "muon", "sign")


def model_of(width: int, device: str, dtype: torch.dtype) -> MLP:
    """A 3-layer MLP with plain initialisation."""
    model = MLP(64, width, 10, device=device, dtype=dtype)
    generator = torch.Generator(device=device).manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, parameter.shape[-1] ** -0.5, generator=generator)
    return model


def timed(work: Callable[[], None], device: str) -> float:
    """Seconds of one call, the device's queue included."""
    start = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--dtype", default="float32", choices=["float32", "float64"])
    options = parser.parse_args()
    device = pick_device(options.device)
    if options.threads:
        torch.set_num_threads(options.threads)
    model = model_of(options.width, device, getattr(torch, options.dtype))
    x = torch.randn(options.samples, 64, device=device, dtype=getattr(torch, options.dtype))
    y = torch.randn(options.samples, 10, device=device, dtype=getattr(torch, options.dtype))

    def forward_backward() -> None:
        model.zero_grad()
        nn.functional.mse_loss(model(x), y).backward()

    name = torch.cuda.get_device_name() if device == "cuda" else platform.machine()
    threads = torch.get_num_threads()
    print(
        f"M = {options.width}, n = {options.samples}, {options.dtype}, {name}, {threads} threads\n"
    )
    print("| rule | forward+backward (s) | with the step (s) | ratio |\n|---|---|---|---|")
    for rule in RULES:
        declared = find(rule)
        symbols = {k: 1e-3 for k in declared.rule.dampings}
        symbols |= {k: float(v) for k, v in declared.exponents.items()} | dict(declared.values)
        plain, full = [], []
        for _ in range(options.runs):
            plain.append(timed(forward_backward, device))
            optimizer = RuleOptimizer(model, declared.rule, 1e-6, symbols)

            def step(optimizer: RuleOptimizer = optimizer) -> None:
                forward_backward()
                optimizer.step()

            full.append(timed(step, device))
            del step, optimizer  # takes its hooks off the model
        a, b = statistics.median(plain), statistics.median(full)
        print(f"| {rule} | {a:.4f} | {b:.4f} | {b / a:.2f} |")


if __name__ == "__main__":
    main()
