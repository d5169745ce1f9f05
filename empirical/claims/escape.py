"""Later steps from a zero readout: features escape the kernel regime, less so in large batches.

After the first step W_L != 0, so that residuals that are left move the lower layers. A large batch
leaves small ones after its first step, and escaping takes longer: the change of features, against
that of a network with b_output = 1 trained alike, falls with the batch size. Networks of all rates
train at once (stacked.py), with K-FAC, over the same epochs of the same samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from derivations.catalogue import find
from empirical.claims.claim import Evidence, Finding
from empirical.claims.environment import Environment, Tier
from empirical.claims.families import half_square
from empirical.claims.figures import Curve, Figure
from empirical.fit.verdict import Verdict
from empirical.measure.machine import blas_threads
from empirical.measure.parametrize import draw_, power_of_width
from empirical.networks import MLP
from empirical.networks.stacked import Stack
from empirical.transfer.transfer_measures import Interval, bootstrapped
from scaling.models.settings import exact
from scaling.report.tables import Table

Floats = NDArray[np.float64]
READOUTS = ("1/2", "1", "oo")


@dataclass(frozen=True)
class Schedule:
    """Samples, epochs, batches, width and log2 learning rates of the table."""

    samples: int
    epochs: int
    batches: tuple[int, ...]
    width: int
    rates: tuple[float, ...]
    seeds: int


SCHEDULES = {
    Tier.ci: Schedule(512, 1, (8, 32, 128), 256, (-2.0, -1.0, 0.0), 4),
    Tier.desk: Schedule(1024, 4, (4, 16, 64, 256, 1024), 512, (-3.0, -2.0, -1.0, 0.0, 1.0), 8),
    Tier.paper: Schedule(1024, 20, (4, 16, 64, 256, 1024), 2048, (-3.0, -2.0, -1.0, 0.0, 1.0), 8),
}
DAMPING = 0.1
"""Of every factor's largest eigenvalue in the first batch, at b_output = 1."""
OWN = (0.1, 0.1, 0.3)
"""RMS change of every layer's output in the first step at b_output = 1 and rate 2^0: features by a
tenth, the output by the size of one-hot targets of ten classes."""
SLACK = 0.01
"""Accuracies this close are as good as each other."""
HELD_OUT = 256


def _weights(schedule: Schedule, b_output: str, seed: int) -> MLP:
    m = schedule.width
    model = MLP(64, m, 10, 3, "relu", dtype=torch.float32)
    stds = [64**-0.5, m**-0.5, power_of_width(m, exact(b_output), "b_output")]
    for index, (std, tensor) in enumerate(zip(stds, model.parameters(), strict=True)):
        draw_(tensor, std, seed, m, index)
    return model


def _trained(
    context: Environment, schedule: Schedule, b: str, batch: int, seed: int
) -> dict[str, Any]:
    """Held-out accuracy, training loss and change of features for every rate."""
    data, rule = context.data(schedule.samples, HELD_OUT), find("kfac").rule
    x, y = (t.to(context.device, torch.float32) for t in (data.inputs, data.targets))
    probe = data.probe_inputs.to(context.device, torch.float32)
    truth = data.probe_targets.argmax(dim=1)
    model = _weights(schedule, b, seed).to(context.device)
    order = torch.Generator().manual_seed(seed)
    count = len(schedule.rates)
    usual = _weights(schedule, "1", seed).to(context.device)
    dampings = _dampings(usual, x[:batch], y[:batch])
    units = _rates(usual, dampings, x[:batch], y[:batch], probe)
    rates = torch.tensor([2.0**v for v in schedule.rates], dtype=torch.float64).to(context.device)
    lr = {layer: unit * rates for layer, unit in units.items()}
    stack = Stack([model] * count, rule, lr, _values(dampings, count, rates.device), half_square)
    before = model.hidden(probe)[-2].detach()
    for _ in range(schedule.epochs):
        for chosen in torch.split(torch.randperm(len(x), generator=order), batch):
            stack.step(x[chosen], y[chosen])
    accuracy, moved = [], []
    for i in range(count):
        with torch.no_grad():
            for tensor, weight in zip(model.parameters(), stack.weights, strict=True):
                tensor.copy_(weight[i])
            hidden = model.hidden(probe)
        right = hidden[-1].argmax(dim=1).cpu() == truth
        accuracy.append(float(right.double().mean()))
        moved.append(float((hidden[-2] - before).double().square().mean().sqrt()))
    return {"accuracy": accuracy, "moved": moved, "loss": stack.losses(x, y).tolist()}


def _values(
    dampings: Mapping[str, Mapping[str, float]], count: int, device: torch.device
) -> dict[str, dict[str, Tensor]]:
    """K-FAC's numbers, alike for all networks of a stack; e_A = e_B = 1."""
    one = torch.ones(count, dtype=torch.float64, device=device)
    found = {k: {n: v * one for n, v in table.items()} for k, table in dampings.items()}
    return found | {k: dict.fromkeys(dampings["rho_A"], one) for k in ("e_A", "e_B")}


def _rates(
    model: MLP, dampings: Mapping[str, Mapping[str, float]], x: Tensor, y: Tensor, probe: Tensor
) -> dict[str, float]:
    """Rates at which the first step moves every layer's output by its share of `OWN`."""
    one = torch.ones(1, dtype=torch.float64, device=x.device)
    lr = dict.fromkeys(dampings["rho_A"], one)
    stack = Stack([model], find("kfac").rule, lr, _values(dampings, 1, x.device), half_square)
    before = [weight.clone() for weight in stack.weights]
    stack.step(x, y)
    with torch.no_grad():
        inputs = [probe, *model.hidden(probe)]
        moved = [
            float((h @ (new - old)[0].T).square().mean().sqrt())
            for h, new, old in zip(inputs, stack.weights, before, strict=False)
        ]
    return {layer: own / size for layer, own, size in zip(lr, OWN, moved, strict=True)}


def _dampings(model: MLP, x: Tensor, y: Tensor) -> dict[str, dict[str, float]]:
    """A share of lambda_max of A and B in the first batch."""
    hidden = model.hidden(x)
    gradients = torch.autograd.grad(half_square(hidden[-1], y), hidden)
    found: dict[str, dict[str, float]] = {"rho_A": {}, "rho_B": {}}
    slopes = [(h > 0).to(h.dtype) for h in hidden[:-1]] + [torch.ones_like(hidden[-1])]
    n = len(x)
    for i, h in enumerate([x, *hidden[:-1]]):
        d = n * gradients[i] * slopes[i]
        for k, rows in (("rho_A", h), ("rho_B", d)):
            size = float(torch.linalg.matrix_norm(rows.detach().double(), 2)) ** 2 / n
            found[k][f"layers.{i}"] = DAMPING * size
    return found


def _table(context: Environment) -> dict[tuple[str, int], list[dict[str, Any]]]:
    """(b_output, batch) -> records by seed."""
    schedule, found = SCHEDULES[context.tier], {}
    with blas_threads(context.threads):
        for b in READOUTS:
            for batch in schedule.batches:
                configuration = {"what": "escape", "b": b, "batch": batch, **vars(schedule),
                                 "damping": DAMPING, "own": OWN}  # fmt: skip

                def measure(
                    width: int, seed: int, b: str = b, batch: int = batch
                ) -> Mapping[str, Any]:
                    return _trained(context, schedule, b, batch, seed)

                (row,) = context.cells(
                    configuration, [schedule.width], schedule.seeds, measure,
                    f"b_output {b}, batch {batch}",
                )  # fmt: skip
                found[b, batch] = row
    return found


def _best(records: Sequence[Mapping[str, Any]]) -> int:
    """The rate of the lowest mean log loss over seeds."""
    losses = np.array([r["loss"] for r in records], dtype=float)
    return int(np.argmin(np.log(np.where(np.isfinite(losses), losses, 1e3)).mean(axis=0)))


def _of(records: Sequence[Mapping[str, Any]], what: str) -> Floats:
    """A quantity by seed, at the best rate."""
    best = _best(records)
    return np.array([r[what][best] for r in records], dtype=float)


def _escape_slope(context: Environment) -> tuple[Interval, Floats]:
    """How log(dh / dh of b_output = 1) changes per doubling of the batch; and the logs."""
    table, batches = _table(context), SCHEDULES[context.tier].batches
    ratio = []
    for n in batches:  # trained alike: at the rate that is best for b_output = 1
        usual, zero = table["1", n], table["oo", n]
        best = _best(usual)
        ratio.append(
            [z["moved"][best] / u["moved"][best] for z, u in zip(zero, usual, strict=True)]
        )
    logs = np.log(np.array(ratio))
    x = np.log2(batches)
    return bootstrapped(logs, lambda m: float(np.polyfit(x, m, 1)[0]), context.seed), logs


def _falls(found: Interval, planted: float = 0.0) -> Finding:
    """That the ratio falls with the batch; ``planted`` is added to the slope by the control."""
    low, high, value = (x + planted for x in (found.low, found.high, found.value))
    verdict = Verdict.inconclusive
    if high < 0:
        verdict = Verdict.agree
    elif low > 0:
        verdict = Verdict.contradict
    label = "log of dh(b_output = oo) / dh(b_output = 1) per doubling of the batch"
    return Finding(label, "< 0", f"{value:+.3f}", f"[{low:+.3f}, {high:+.3f}]", verdict)


def _accuracies(context: Environment) -> Table:
    table, batches = _table(context), SCHEDULES[context.tier].batches
    rows = tuple(
        (
            f"b_output = {b}",
            *(
                f"{100 * _of(table[b, n], 'accuracy').mean():.1f} % (dh "
                f"{_of(table[b, n], 'moved').mean():.2g})"
                for n in batches
            ),
        )
        for b in READOUTS
    )
    columns = ("", *(f"batch {n}" for n in batches))
    s = SCHEDULES[context.tier]
    note = (
        f"held-out accuracy and change of features at the best rate; MLP of width {s.width}, "
        f"{s.epochs} epochs of {s.samples} digits, {s.seeds} seeds"
    )
    return Table("accuracy by b_output and batch size", columns, rows, (note,))


def escape(context: Environment) -> Evidence:
    """That the change of features from a zero readout falls with the batch, relative to usual."""
    slope, logs = _escape_slope(context)
    batches = tuple(map(float, SCHEDULES[context.tier].batches))
    middle = tuple(float(x) for x in np.exp(logs.mean(axis=1)))
    title = "features learned from a zero readout, against b_output = 1"
    figure = Figure(
        "6b_escape", title, "batch size", "ratio of dh", (Curve("K-FAC", batches, middle),)
    )
    table = _table(context)
    own = [_of(table["oo", int(n)], "moved") / _of(table["1", int(n)], "moved") for n in batches]
    shown = ", ".join(
        f"{float(np.mean(x)):.2f} at {n:g}" for n, x in zip(batches, own, strict=True)
    )
    note = f"dh ratios if each is trained at its own best rate, by batch: {shown}"
    return Evidence((_falls(slope),), (note,), (_accuracies(context),), (figure,))


def no_escape(context: Environment) -> Evidence:
    """The same ratios, grown by a factor e per doubling of the batch."""
    return Evidence((_falls(_escape_slope(context)[0], planted=1.0),))


def ranking(context: Environment, handicap: float = 0.0) -> Evidence:
    """Accuracy of b_output = 1 over that of the others, batch by batch.

    The control takes a ``handicap`` off the accuracy of b_output = 1.
    """
    table, found = _table(context), []
    for batch in SCHEDULES[context.tier].batches:
        for b in READOUTS:
            if b == "1":
                continue
            gap = _of(table["1", batch], "accuracy") - _of(table[b, batch], "accuracy") - handicap
            x = bootstrapped(gap[None], lambda mean: float(mean[0]), context.seed)
            verdict = Verdict.inconclusive
            if x.low > -SLACK:
                verdict = Verdict.agree
            elif x.high < -SLACK:
                verdict = Verdict.contradict
            label = f"batch {batch}: accuracy of b_output = 1 minus that of {b}"
            shown = f"[{x.low:+.3f}, {x.high:+.3f}]"
            found.append(Finding(label, f"> -{SLACK:g}", f"{x.value:+.3f}", shown, verdict))
    return Evidence(tuple(found), (), () if handicap else (_accuracies(context),))
