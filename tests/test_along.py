"""Axes other than the width: exponents by reasoning, and a loop in plain torch beside them.

For each tensor alone, at three sizes of the axis: a small step of the rule at the derived rate, and
the change of every module's result. None of them may grow, and one must not shrink: the rate is the
largest stable one. Another exponent is a half away: the mean over seeds lies within a quarter of
what is derived, and seeds are drawn until its standard error tells the two apart; planted rates
that are wrong by a half are contradicted. A tensor without a gradient at the start is looked at
after a step of the others. The loop shares no code with what traces, derives or executes.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import NamedTuple

import numpy as np
import pytest
import torch
from model_files import along
from sympy import Expr, Rational, S
from torch import Tensor, nn
from torch.nn import functional

from empirical.trace.given_model import model_of
from empirical.trace.read_model import graph_of
from scaling.models.graph import Graph, Start
from scaling.solve.graph_solution import GraphDerived, derive_graph

HALF = Rational(1, 2)
RULES = ("sign(G)", "G")
STEP_OF_EXPONENTS = 0.5
MARGIN = STEP_OF_EXPONENTS / 2
"""Exponents are halves, so that one that is measured nearer than this to another is not it."""
ERROR = 0.1
"""Of a mean over seeds, which are doubled until the standard error is no more than this.

A rate that is wrong by a half is then off the margin by 2.5 standard errors, the 97 % point of
Student's distribution for eight seeds: how many there are follows from their spread alone.
"""
FEWEST, MOST = 8, 64


@dataclass(frozen=True)
class Case:
    """A model, its axis, and by tensor b, and c of signs and of SGD."""

    build: Callable[..., nn.Module]
    batch: Callable[..., tuple[Tensor, Tensor]]
    sizes: tuple[int, ...]
    expected: dict[str, tuple[Expr | int, Expr | int, Expr | int]]
    data_grow: bool = False
    summed: bool = False

    def data(self, size: int) -> tuple[Tensor, Tensor]:
        return self.batch(size) if self.data_grow else self.batch()

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        kind = "sum" if self.summed else "mean"
        if targets.is_floating_point():
            return functional.mse_loss(outputs, targets.to(outputs.dtype), reduction=kind)
        flat = outputs.flatten(0, -2), targets.flatten()
        return functional.cross_entropy(*flat, reduction=kind)


def pair() -> tuple[Tensor, Tensor]:
    return along.vectors(2)


MATRIX = (HALF, 1, 0)
FIXED, VECTOR = (0, 0, 0), (0, 0, -1)
CASES = {
    # heads of fixed size: the width grows with them, and logits are sums of four terms at any width
    "heads": Case(lambda n: along.Attention(heads=n), along.text, (8, 24, 72), {
        "words.weight": VECTOR, "norm.weight": VECTOR, "query.weight": MATRIX, "key.weight": MATRIX,
        "value.weight": MATRIX, "out.weight": MATRIX, "last.weight": VECTOR,
        "head.weight": (1, 1, 1),
    }),
    # a place is met by one of n mean losses: its gradient is 1/n, all others are fixed
    "sequence": Case(
        lambda n: along.Attention(length=n), along.text, (12, 36, 108), {
            "places": (0, 0, -1), "words.weight": FIXED, "query.weight": FIXED,
            "value.weight": FIXED, "out.weight": FIXED, "head.weight": FIXED,
        }, data_grow=True,
    ),
    # few rows are looked up, whatever their number; of many classes few are targets
    "vocabulary": Case(lambda n: along.Attention(words=n), along.text, (128, 512, 2048), {
        "words.weight": FIXED, "query.weight": FIXED, "out.weight": FIXED, "head.weight": FIXED,
    }),
    # fan_in of a kernel is its channels times its length
    "kernel": Case(lambda n: along.Kernels(n), along.series, (5, 15, 45), {
        "first.weight": (HALF, 1, 1), "second.weight": (HALF, 1, 1), "first.bias": FIXED,
        "second.bias": FIXED, "head.weight": FIXED,
    }),
    # B A x: B is a readout of the rank, whose factor is the code's
    "rank": Case(lambda n: along.Adapted(n, 1.0), along.vectors, (4, 16, 64), {
        "down.weight": (0, 0, -1), "up": (S.Infinity, 0, -1),
    }),
    "rank, over its root": Case(lambda n: along.Adapted(n, 0.5), along.vectors, (4, 16, 64), {
        "down.weight": (0, 0, -1), "up": (S.Infinity, HALF, 0),
    }),
    "samples": Case(lambda n: along.Dense(), along.vectors, (8, 32, 128), {
        "first.weight": FIXED, "first.bias": FIXED, "head.weight": FIXED,
    }, data_grow=True),
    "samples, summed": Case(lambda n: along.Dense(), along.vectors, (8, 32, 128), {
        "first.weight": (0, 0, 1), "first.bias": (0, 0, 1), "head.weight": (0, 0, 1),
    }, data_grow=True, summed=True),
    # each of n experts has 1/n of the gradient
    "experts": Case(lambda n: along.Experts(n, "all"), along.vectors, (16, 64, 256), {
        "router.weight": VECTOR, "up": VECTOR, "down": VECTOR, "head.weight": FIXED,
    }),
    **{
        # one place of n has all of the gradient
        f"places, {way}": Case(partial(along.Places, way=way), along.vectors, (16, 64, 256), {
            "table": FIXED, "read.weight": FIXED, "head.weight": FIXED,
        })
        for way in ("first", "largest")
    },
    **{
        # two experts of n serve a sample, and move as far as if there were no others
        f"experts, {way}": Case(partial(along.Experts, way=way), pair, (16, 64, 256), {
            "router.weight": FIXED, "up": FIXED, "down": FIXED, "head.weight": FIXED,
        })
        for way in ("fetched", "one_hot", "scattered")
    },
}  # fmt: skip


@cache
def graph(name: str) -> Graph:
    case = CASES[name]

    def build(n: int = case.sizes[0]) -> nn.Module:
        return case.build(n)

    def grown(n: int = case.sizes[0]) -> tuple[Tensor, Tensor]:
        return case.batch(n)

    file = model_of(build, grown if case.data_grow else case.batch(), case.loss)
    sizes = ",".join(map(str, (5, 7, 9) if name == "kernel" else case.sizes))
    return graph_of(file, f"n={sizes}").graph


@cache
def derived(name: str, rule: str) -> GraphDerived:
    return derive_graph(rule, graph(name))


@pytest.mark.parametrize("name", CASES)
def test_exponents_along_an_axis_are_those_of_reasoning(name: str) -> None:
    sign, plain = (derived(name, rule).tensors for rule in RULES)
    for tensor, (b, of_signs, of_sgd) in CASES[name].expected.items():
        found = sign[tensor].b, sign[tensor].c, plain[tensor].c
        assert found == (b, of_signs, of_sgd), tensor


# --- the loop ------------------------------------------------------------------------------------


def direction(rule: str, gradient: Tensor) -> Tensor:
    return gradient.sign() if rule == "sign(G)" else gradient


class Trial:
    """A model at one size, drawn at the derived starts, in double precision."""

    def __init__(self, case: Case, answer: GraphDerived, size: int, seed: int) -> None:
        torch.manual_seed(seed)
        self.case, self.size = case, size / case.sizes[0]
        self.model = case.build(size).double()
        self.tensors = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
        starts = {p.name: p.start for p in answer.graph.parameters}
        with torch.no_grad():
            for name, p in self.tensors.items():
                if starts[name] is Start.DRAWN:
                    p.copy_(
                        torch.randn_like(p) * (0.25 * self.size ** -float(answer.tensors[name].b))
                    )
        inputs, self.targets = case.data(size)
        self.inputs = inputs.double() if inputs.is_floating_point() else inputs
        self.c = {name: float(answer.tensors[name].c) for name in self.tensors}

    def gradients(self) -> dict[str, Tensor]:
        self.model.zero_grad()
        self.case.loss(self.model(self.inputs), self.targets).backward()
        return {
            n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in self.tensors.items()
        }

    def results(self) -> dict[str, Tensor]:
        """What every module returns, each time it is called."""
        seen: dict[str, Tensor] = {}
        handles = []
        for place, module in self.model.named_modules():

            def keep(m: nn.Module, x: object, y: Tensor, place: str = place) -> None:
                calls = sum(key.startswith(f"{place} ") for key in seen)
                seen[f"{place} {calls}"] = y.detach()

            handles.append(module.register_forward_hook(keep))
        with torch.no_grad():
            out = self.model(self.inputs)
            if not self.targets.is_floating_point():  # few of many classes
                seen["targets"] = out.gather(-1, self.targets[..., None])
        for handle in handles:
            handle.remove()
        return seen


STEP = 1e-6
Place = tuple[str, str]


def changes(case: Case, answer: GraphDerived, rule: str, seed: int) -> list[dict[Place, float]]:
    """The size of the change by tensor and place, at every size of the axis."""
    trials = [Trial(case, answer, size, seed) for size in case.sizes]
    found: list[dict[Place, float]] = [{} for _ in trials]
    base: dict[str, float] = {}
    for trial, sizes in zip(trials, found, strict=True):
        ways = {n: direction(rule, g) for n, g in trial.gradients().items()}
        norms = {n: float(way.square().mean().sqrt()) for n, way in ways.items()}
        base = base or norms
        still = [n for n, x in norms.items() if not x]
        if still:  # the others move, by a tenth at the smallest size
            with torch.no_grad():
                for n in set(ways) - set(still):
                    trial.tensors[n] -= 0.1 / base[n] * trial.size ** -trial.c[n] * ways[n]
            later = trial.gradients()
            ways |= {n: direction(rule, later[n]) for n in still}
        before = trial.results()
        for name, way in ways.items():
            p, step = trial.tensors[name], STEP * trial.size ** -trial.c[name]
            with torch.no_grad():
                p -= step * way
                after = trial.results()
                p += step * way
            for place, x in after.items():
                sizes[name, place] = float((x - before[place]).square().mean().sqrt()) / STEP
    return found


ALIKE = ("experts, one_hot", "experts, scattered")
"""In numbers these are "experts, fetched"."""


class Slope(NamedTuple):
    """A power of the size: the mean over seeds, and its standard error."""

    mean: float
    error: float

    def __str__(self) -> str:
        return f"{self.mean:+.2f} +- {self.error:.2f}"


def slopes(name: str, rule: str, answer: GraphDerived) -> dict[str, Slope]:
    """By tensor that is listed, the largest power of the size by which a place's change grows."""
    case, rows, found = CASES[name], [], dict[str, Slope]()
    while not found or (len(rows) < MOST and max(x.error for x in found.values()) > ERROR):
        seeds = range(len(rows), 2 * len(rows) or FEWEST)
        rows += [changes(case, answer, rule, seed) for seed in seeds]
        found = {}
        for tensor, place in rows[0][0]:
            table = np.array([[sizes[tensor, place] for sizes in row] for row in rows])
            if tensor in case.expected and (table > 1e-9).all():
                every = np.polyfit(np.log(case.sizes), np.log(table).T, 1)[0]  # of each seed
                slope = Slope(float(every.mean()), float(every.std(ddof=1) / len(every) ** 0.5))
                found[tensor] = max(found.get(tensor, slope), slope)
    return found


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", [n for n in CASES if n not in ALIKE])
def test_at_the_derived_rates_something_moves_alike_and_nothing_grows(name: str, rule: str) -> None:
    found = slopes(name, rule, derived(name, rule))
    assert set(found) == set(CASES[name].expected)
    assert not {n: str(x) for n, x in found.items() if x.error > ERROR or abs(x.mean) > MARGIN}


PLANTED = {"kernel": "second.weight", "experts": "up"}


@pytest.mark.parametrize("wrong", [HALF, -HALF])
@pytest.mark.parametrize("name", PLANTED)
def test_a_rate_that_is_wrong_by_a_half_is_contradicted(name: str, wrong: Rational) -> None:
    """The negative control: of the tensor with the wrong rate, and of no other."""
    answer, planted = derived(name, "sign(G)"), PLANTED[name]
    tensors = {
        n: replace(x, c=x.c + wrong) if n == planted else x for n, x in answer.tensors.items()
    }
    found = slopes(name, "sign(G)", replace(answer, tensors=tensors))
    assert [n for n, x in found.items() if abs(x.mean) > MARGIN] == [planted]
    assert (found[planted].mean < 0) == (wrong > 0)


@pytest.mark.parametrize("kind", ["classes", "probabilities", "numbers"])
def test_losses_sample_by_sample_are_read_as_their_mean(kind: str) -> None:
    """Weighted or masked by hand, as code does that asks for no reduction."""
    inputs, targets = along.vectors()
    if kind != "numbers":
        targets = targets.argmax(-1) if kind == "classes" else targets.softmax(-1)

    def every(outputs: Tensor, targets: Tensor) -> Tensor:
        if kind == "numbers":
            return functional.mse_loss(outputs, targets, reduction="none").mean()
        return (functional.cross_entropy(outputs, targets, reduction="none") * 0.5).mean()

    def whole(outputs: Tensor, targets: Tensor) -> Tensor:
        if kind == "numbers":
            return functional.mse_loss(outputs, targets)
        return functional.cross_entropy(outputs, targets)

    def build(width: int = 8) -> nn.Module:
        return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 3))

    one, other = (
        derive_graph("G", graph_of(model_of(build, (inputs, targets), loss)).graph).tensors
        for loss in (every, whole)
    )
    assert {n: (x.b, x.c) for n, x in one.items()} == {n: (x.b, x.c) for n, x in other.items()}
