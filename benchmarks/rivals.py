"""One step of K-FAC and Shampoo, timed beside ASDL and curvlinops on the same network and batch.

    python benchmarks/rivals.py [--widths 1024 2048 4096] [--samples 16] [--only kfac asdl-kfac]

Timed: zero_grad, forward, backward, preconditioning with factors of this very batch, and the
update of the weights; not the making of model and optimizer. The network is an MLP 64-M-M-10 with
ReLU and without biases, under torch's mean squared error, in float32.

Each measurement has a process of its own. Its peak memory is that process's, Python and torch
included (ru_maxrss), or what torch allocated on CUDA; the first row shows what a plain pass needs.
On a machine that others use too, --threads 1 --clock cpu counts this process's own seconds.

Claim.  All of them compute the same update up to a constant, so seconds compare with seconds: the
last column is the cosine between the changes of the weights, in the worst layer. Each library has
its own damping convention, and the rule is given the same dampings: for K-FAC the split of Martens
and Grosse (arXiv 1503.05671, section 6.3), which hides the scale of a factor,

    rho_A = sqrt(damping) pi    rho_B = sqrt(damping) / pi    pi^2 = mean eig(A) / mean eig(B)

and for Shampoo a ridge relative to the largest eigenvalue.

Not covered: stale or averaged factors, sampled cotangents, blocked or distributed preconditioners.
ASDL is asdfghjkl on PyPI, curvlinops is curvlinops-for-pytorch; what is missing keeps its row.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import platform
import resource
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import distributions
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from wide_speed import trial

from derivations.catalogue import find
from empirical.measure.calibration import calibrate
from empirical.measure.machine import pick_device
from empirical.numbers.capture import Capture
from empirical.numbers.layer_matrices import LayerTensors
from empirical.numbers.optimizers import PerLayer
from empirical.wide import Streaming, measure_wide
from empirical.your_model.rule_optimizer import RuleOptimizer

PACKAGES = ("torch", "asdfghjkl", "curvlinops-for-pytorch")
FEATURES, CLASSES = 64, 10
DAMPING = RIDGE = 1e-3


class Problem:
    """A model, its batch, and the learning rate of a step; the same numbers for every method."""

    def __init__(self, width: int, samples: int, device: str, lr: float) -> None:
        random = torch.Generator().manual_seed(0)
        fans = (FEATURES, width), (width, width), (width, CLASSES)
        first, second, third = (nn.Linear(*fan, bias=False) for fan in fans)
        self.model = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third)
        self.weights = list(self.model.parameters())
        for weight in self.weights:
            nn.init.normal_(weight, std=weight.shape[1] ** -0.5, generator=random)
        self.model.to(device)
        self.x = torch.randn(samples, FEATURES, generator=random).to(device)
        self.y = torch.randn(samples, CLASSES, generator=random).to(device)
        self.lr = lr

    def forward_backward(self) -> None:
        """Leave the gradient of the mean squared error in ``.grad``."""
        self.model.zero_grad()
        functional.mse_loss(self.model(self.x), self.y).backward()  # type: ignore[no-untyped-call]

    def gradients(self) -> list[Tensor]:
        """What is in ``.grad``, one matrix a layer."""
        return [weight.grad for weight in self.weights if weight.grad is not None]

    @torch.no_grad()
    def descend(self, updates: list[Tensor]) -> None:
        """W -= lr * update, layer by layer."""
        for weight, update in zip(self.weights, updates, strict=True):
            weight.add_(update, alpha=-self.lr)

    def layers(self) -> dict[str, LayerTensors]:
        """Inputs and cotangents of every layer, from a pass of their own."""
        capture = Capture(self.model)
        self.forward_backward()
        seen = {name: capture.tensors(name) for name in capture.parameters}
        return {name: layer for name, layer in seen.items() if layer is not None}


Step = Callable[[], None]


def plain(problem: Problem) -> Step:
    """Forward and backward, no update."""
    return problem.forward_backward


def our_step(problem: Problem, rule: str, dampings: Mapping[str, Mapping[str, float]]) -> Step:
    """One of the project's declared rules, with the exponents that practice uses."""
    declared = find(rule)
    values: dict[str, PerLayer] = {**dampings}
    values |= {symbol: float(power) for symbol, power in declared.exponents.items()}
    optimizer = RuleOptimizer(problem.model, declared.rule, problem.lr, values)

    def step() -> None:
        problem.forward_backward()
        optimizer.step()

    return step


def our_kfac(problem: Problem) -> Step:
    """The rule, with the split of Martens and Grosse; mean eig(A) is the mean square of H."""
    ratios = {n: l.H.square().mean() / l.D.square().mean() for n, l in problem.layers().items()}
    rho_a = {name: math.sqrt(DAMPING * float(ratio)) for name, ratio in ratios.items()}
    rho_b = {name: math.sqrt(DAMPING / float(ratio)) for name, ratio in ratios.items()}
    return our_step(problem, "kfac", {"rho_A": rho_a, "rho_B": rho_b})


def our_shampoo(problem: Problem) -> Step:
    """The rule, with a ridge relative to the largest eigenvalue of L and R, |G|^2."""
    ridges = {}
    for name, layer in problem.layers().items():
        core = torch.linalg.qr(layer.D).R @ torch.linalg.qr(layer.H).R.T / layer.D.shape[1]
        ridges[name] = RIDGE * float(torch.linalg.matrix_norm(core, 2)) ** 2
    return our_step(problem, "shampoo", {"rho_L": ridges, "rho_R": ridges})


def asdl_step(problem: Problem, maker: Any) -> Step:
    """A step of any of ASDL's gradient makers, which leave the update in ``.grad``."""

    def step() -> None:
        problem.model.zero_grad()
        output = maker.setup_model_call(problem.model, problem.x)
        maker.setup_loss_call(functional.mse_loss, output, problem.y)
        maker.forward_and_backward()
        problem.descend(problem.gradients())

    return step


def asdl_kfac(problem: Problem, swift: bool = False) -> Step:
    """ASDL's K-FAC: Cholesky inverses, or Sherman-Morrison-Woodbury to dense ones if ``swift``.

    It sums the loss over the classes, where torch averages: its B is CLASSES^2 times ours.
    """
    import asdl

    config = asdl.PreconditioningConfig(data_size=len(problem.x), damping=CLASSES**2 * DAMPING)
    kinds = {"fisher_type": asdl.FISHER_EMP, "loss_type": asdl.LOSS_MSE, "swift": swift}
    return asdl_step(problem, asdl.KfacGradientMaker(problem.model, config, **kinds))


def asdl_shampoo(problem: Problem) -> Step:
    """ASDL's Shampoo: fourth roots by Newton's iteration; a decay of 1 keeps the last step only."""
    import asdl

    config = asdl.PreconditioningConfig(damping=RIDGE, ema_decay=1.0)
    return asdl_step(problem, asdl.ShampooGradientMaker(problem.model, config))


def curvlinops_kfac(problem: Problem) -> Step:
    """The inverse of curvlinops' K-FAC, by Cholesky, applied to the gradient.

    A new operator at each step, as its documentation asks for when weights change, and two passes:
    it does not give away the gradient of its own. Its B is CLASSES times ours.
    """
    import curvlinops

    # The last three spare it a pass each: they are what it would find out.
    settings = {"fisher_type": "empirical", "check_deterministic": False}
    settings |= {"num_per_example_loss_terms": 1, "num_data": len(problem.x)}
    damping = {"damping": CLASSES * DAMPING, "use_heuristic_damping": True}
    given = problem.model, nn.MSELoss(), problem.weights, [(problem.x, problem.y)]

    def step() -> None:
        problem.forward_backward()
        factors = curvlinops.KFACLinearOperator(*given, **settings)
        inverse = curvlinops.KFACInverseLinearOperator(factors, **damping)
        problem.descend(inverse @ problem.gradients())

    return step


@dataclass(frozen=True)
class Method:
    """What is timed, and which of our methods it is compared with."""

    title: str
    build: Callable[[Problem], Step]
    ours: str = ""


METHODS: Mapping[str, Method] = {
    "plain": Method("forward + backward", plain),
    "kfac": Method("ours, K-FAC", our_kfac),
    "asdl-kfac": Method("ASDL, K-FAC", asdl_kfac, "kfac"),
    "asdl-kfac-swift": Method("ASDL, K-FAC (swift)", partial(asdl_kfac, swift=True), "kfac"),
    "curvlinops-kfac": Method("curvlinops, K-FAC", curvlinops_kfac, "kfac"),
    "shampoo": Method("ours, Shampoo", our_shampoo),
    "asdl-shampoo": Method("ASDL, Shampoo", asdl_shampoo, "shampoo"),
}


@dataclass(frozen=True)
class Measured:
    """One method at one width; no cosine where nothing of ours compares."""

    seconds: float
    peak_mb: float
    cosine: float | None


def measure(method: Method, width: int, options: argparse.Namespace) -> Measured:
    """Time steps, look at the peak memory, and only then compare updates."""
    step = method.build(Problem(width, options.samples, options.device, lr=1e-6))
    clock = time.process_time if options.clock == "cpu" else time.perf_counter
    seconds: list[float] = []
    while len(seconds) <= options.runs and sum(seconds) <= options.budget:
        start = clock()
        step()
        if options.device == "cuda":
            torch.cuda.synchronize()
        seconds.append(clock() - start)
    if options.device == "cuda":
        peak = torch.cuda.max_memory_allocated() / 2**20
    else:  # ru_maxrss is in bytes on macOS, in KiB elsewhere
        held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        peak = held / (2**20 if sys.platform == "darwin" else 2**10)
    median = statistics.median(seconds[1:] or seconds)  # the first one warms up
    return Measured(median, peak, cosine(method, options) if method.ours else None)


def cosine(method: Method, options: argparse.Namespace) -> float:
    """Between the change of the weights under a method and under ours, in the worst layer."""
    changes = []
    for build in (method.build, METHODS[method.ours].build):
        problem = Problem(options.check_width, options.samples, options.device, lr=1.0)
        before = [weight.detach().double() for weight in problem.weights]
        build(problem)()
        changes.append([w.detach() - old for w, old in zip(problem.weights, before, strict=True)])
    pairs = zip(*changes, strict=True)
    return min(float((a * b).sum() / (a.norm() * b.norm())) for a, b in pairs)


def answer(sender: Connection, name: str, width: int, options: argparse.Namespace) -> None:
    """What a process is for: send a measurement, or one line about the exception."""
    warnings.simplefilter("ignore")  # libraries warn about their own use of torch
    torch.set_num_threads(options.threads)
    try:
        sender.send(measure(METHODS[name], width, options))
    except Exception as error:  # whatever a library raises belongs into its row
        sender.send(" ".join(f"{type(error).__name__}: {error}".split()).replace("|", "/"))


def in_own_process(name: str, width: int, options: argparse.Namespace) -> Measured | str:
    """A measurement, or why there is none."""
    spawn = multiprocessing.get_context("spawn")
    receiver, sender = spawn.Pipe(duplex=False)
    process = spawn.Process(target=answer, args=(sender, name, width, options))
    process.start()
    sender.close()  # so that the end of the process ends the waiting
    try:
        found: Measured | str = f"over {options.limit:g} s"
        if receiver.poll(options.limit):
            found = receiver.recv()
        return found
    except EOFError:
        return "its process was ended, perhaps for want of memory"
    finally:
        process.kill()
        process.join()


def at_all_widths(name: str, options: argparse.Namespace) -> dict[int, Measured | str]:
    """By width. After a failure wider ones are not tried."""
    found: dict[int, Measured | str] = {}
    for width in options.widths:
        failed = any(isinstance(it, str) for it in found.values())
        found[width] = "not tried" if failed else in_own_process(name, width, options)
        print(f"{name} at M = {width}: {found[width]}", file=sys.stderr)
    return found


def row(name: str, found: Mapping[str, Mapping[int, Measured | str]]) -> list[str]:
    """A line of the table: costs at every width, growth of the time, cosine with ours."""
    method, cells = METHODS[name], []
    for width, it in found[name].items():
        ours = found[method.ours][width] if method.ours in found else None
        if isinstance(it, str):
            cells.append(it)
        elif isinstance(ours, Measured):
            slower, larger = it.seconds / ours.seconds, it.peak_mb / ours.peak_mb
            cells.append(f"{it.seconds:.3g} s ({slower:.1f}×), {it.peak_mb:.0f} MB ({larger:.1f}×)")
        else:
            cells.append(f"{it.seconds:.3g} s, {it.peak_mb:.0f} MB")
    done = [(width, it) for width, it in found[name].items() if isinstance(it, Measured)]
    growth = alike = "–"
    if len(done) > 1:
        (m, a), (n, b) = done[-2:]
        growth = f"{math.log(b.seconds / a.seconds) / math.log(n / m):.2f} ({m} to {n})"
    if done and done[0][1].cosine is not None:
        alike = f"{done[0][1].cosine:.6f}"
    return [method.title, *cells, growth, alike]


def wide_seconds(name: str, options: argparse.Namespace) -> float:
    """One step of a network that is never formed."""
    subject = trial(name, options.samples, probe=4)
    constants = calibrate(subject, 64)
    streaming = Streaming(torch.float32, workers=options.threads)
    runs = [measure_wide(subject, constants, options.beyond, 0, 1, streaming) for _ in range(3)]
    return min(run.seconds for run in runs)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--widths", type=int, nargs="+", default=[1024, 2048, 4096])
    parser.add_argument("--samples", type=int, default=16, help="batch size")
    parser.add_argument("--runs", type=int, default=5, help="timed steps after a first one")
    parser.add_argument("--budget", type=float, default=60, help="seconds after which to stop")
    parser.add_argument("--limit", type=float, default=600, help="seconds that a process may take")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--clock", default="wall", choices=["wall", "cpu"])
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--only", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--check-width", type=int, default=256, help="where updates are compared")
    parser.add_argument("--beyond", type=int, default=10**6, help="a width of ours alone; 0: none")
    options = parser.parse_args()
    options.device = pick_device(options.device)
    hardware = torch.cuda.get_device_name() if options.device == "cuda" else platform.machine()
    versions = {it.name: it.version for it in distributions()}
    print(f"n = {options.samples}, float32, {hardware}, {options.threads} threads, ", end="")
    print(f"{options.clock} time")
    print(", ".join(f"{it} {versions.get(it, 'not installed')}" for it in PACKAGES) + "\n")
    found = {name: at_all_widths(name, options) for name in options.only}
    widths = [f"M = {width}" for width in options.widths]
    header = ["one step", *widths, "time ~ M^", f"cosine with ours, M = {options.check_width}"]
    for line in (header, ["---"] * len(header), *(row(name, found) for name in found)):
        print("| " + " | ".join(line) + " |")
    print("\n(×): against ours in this run")
    if options.beyond:
        print(
            f"\nOurs at M = {options.beyond:,}, exact in law, n = {options.samples}, wall time:\n"
        )
        print("| one step | seconds |\n| --- | --- |")
        for name in ("kfac", "shampoo"):
            print(f"| {name} | {wide_seconds(name, options):.3g} |")


if __name__ == "__main__":
    main()
