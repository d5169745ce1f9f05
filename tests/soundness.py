"""A rule and a setting, read by the calculus and by the simulator: `make fuzz`, test_soundness.py.

The simulator (simulator.py) shares no code with the package. `theory` says what a step does to each
layer, or by which words the calculus refuses; `practice` measures it at the same exponents, on
networks of growing width. Sizes are those on samples held out unless `on_batch`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from settled_terms import Sights, settled
from simulator import Net, Slope, Unread, exponents, own, state
from sympy import Expr, S

from scaling.models.batch import Batch
from scaling.models.chain import Activation, Loss, Setting, mlp
from scaling.models.settings import read_settings
from scaling.rules.parser import parse
from scaling.sizes.errors import ScalingError
from scaling.solve.derive import derive
from scaling.solve.predict import predict
from scaling.states.problem import Exponents

TOLERANCE = 0.25
"""Between an exponent and a slope over widths up to 2048: half of the smallest step, 1/2."""
DRAWS = 8
"""Draws whose geometric mean says how large a step of rate one is."""
DISTINCT, BALANCED = tuple(range(6)), (*range(10), *range(6))
FEW = (0, 1, 2, 3)
REPEATED = (1, 6, 0, 0, 4, 3, 5, 9)


@dataclass(frozen=True)
class Question:
    """A rule, what is fixed with it, and the data. ``labels``: the class of each sample."""

    rule: str
    fixed: tuple[str, ...] = ()
    activation: str = "relu"
    loss: str = "mse"
    depth: int = 3
    step: int = 1
    labels: tuple[int, ...] = DISTINCT
    classes: int = 10
    features: int = 16
    readout: float = 0.25
    settled: tuple[str, ...] = ()
    """Names whose values make that term of a sum the larger one that grows faster."""
    sights: Sights | None = None
    """Where the terms are compared for it."""

    @property
    def setting(self) -> Setting:
        """The same as the calculus is told."""
        phi = next(x for x in Activation if x.label == self.activation)
        drawn = len(set(self.labels))
        batch = Batch(len(self.labels), self.classes, self.features, drawn)
        return Setting(mlp(self.depth), phi, Loss(self.loss), batch=batch)

    def __str__(self) -> str:
        words = [f'"{self.rule}"', *(f"--set {x}" for x in self.fixed)]
        words += [f"--activation {self.activation} --loss {self.loss} --depth {self.depth}"]
        words += [f"--step {self.step}", f"labels {self.labels} of {self.classes}"]
        return " ".join([*words, f"features {self.features}"])


@dataclass(frozen=True)
class Answer:
    """What the calculus says: the exponent of each layer's own update, or a refusal."""

    own: dict[str, Expr]
    exponents: Exponents | None = None
    refusal: str = ""
    assumptions: tuple[str, ...] = ()


def theory(question: Question) -> Answer:
    """The answer of the calculus, by its public way."""
    rule, setting = parse(question.rule), question.setting
    try:
        chosen = read_settings(question.fixed, rule, setting.layers)
        solution = derive(rule, chosen, setting, step=question.step)
        found = predict(solution.problem, solution.exponents, solution.bounds)
    except ScalingError as error:
        return Answer({}, refusal=f"{type(error).__name__}: {error.found}")
    return Answer(
        {name: layer.own for name, layer in found.layers.items()}, solution.exponents,
        assumptions=found.assumptions,
    )  # fmt: skip


def network(question: Question, found: Exponents, base: bool = True) -> Net:
    """The simulator's network at the exponents that were found; what is free is zero."""

    def number(x: Expr) -> float:
        return float(x.subs(dict.fromkeys(x.free_symbols, S.Zero)))

    names = list(found.b)
    rule, values = parse(question.rule), []
    known = (*rule.exponents, *rule.scaled, *rule.constants)
    for text in question.fixed:
        key, _, written = text.partition("=")
        if key in known:
            values.append((key, float(Fraction(written))))
    values += [(k, 0.9) for k in rule.averages if k not in dict(values)]
    net = Net(
        question.labels, question.classes, question.features, question.depth,
        question.activation, question.loss,
        tuple(number(found.a[k]) for k in names),
        tuple(number(found.b[k]) for k in names),
        tuple(number(found.c[k]) for k in names),
        tuple(tuple((s, number(x)) for s, x in found.d[k].items()) for k in names),
        tuple(values),
    )  # fmt: skip
    net = replace(net, readout=question.readout)
    names = frozenset(question.settled)
    with np.errstate(all="ignore"):
        if names:
            net = settled(question.rule, net, names, sights=question.sights)
        if not base or question.step == 1:
            return net
        first = [own(question.rule, net, 64, seed) for seed in range(DRAWS)]
        sizes = np.maximum([x.batch for x in first], [x.held for x in first])
        parts = [0.3] * (net.depth - 1) + [0.1]  # a layer moves by a part of its size, outputs
        moved = zip(parts, np.exp(np.log(sizes).mean(0)), strict=True)  # by less than they lack
        net = replace(net, rates=tuple(part / x if x > 1e-12 else 1.0 for part, x in moved))
        net = calmed(question.rule, net)
        return settled(question.rule, net, names, 2, question.sights) if names else net


def calmed(rule: str, net: Net) -> Net:
    """The same at a tenth of the rates, until no layer grows threefold when all are moved at once.

    A step may have a large part that the own layer's inputs do not meet, and moved inputs do.
    """

    def outputs(step: int) -> np.ndarray:
        states = [state(rule, net, 64, seed, step) for seed in range(DRAWS // 2)]
        sizes = [[np.sqrt(np.mean(x.w.times(x.h) ** 2)) for x in layers] for layers in states]
        return np.exp(np.log(sizes).mean(0))

    least = np.maximum(outputs(1), 0.1)  # outputs against their targets
    for _ in range(12):
        if (outputs(2) <= 3 * least).all():
            break
        net = replace(net, rates=tuple(0.1 * rate for rate in net.rates))
    return net


def practice(
    question: Question, found: Exponents, widths: tuple[int, ...], seeds: int,
    on_batch: bool = False,
) -> dict[str, Slope]:  # fmt: skip
    """The exponent of each layer's own update, measured."""
    net = network(question, found)
    with np.errstate(all="ignore"):
        return exponents(question.rule, net, question.step, widths, seeds, on_batch)


def disagreements(
    answer: Answer, measured: dict[str, Slope], tolerance: float = TOLERANCE, errors: float = 2.0
) -> dict[str, str]:
    """Layer -> predicted and measured, where they contradict each other.

    They may differ by the tolerance and so many standard errors.
    """
    wrong = {}
    for name, x in answer.own.items():
        slope = measured[name]
        if x.free_symbols or slope.exponent == -math.inf:
            continue  # measured as exactly zero, or with a rate that nothing fixes
        if x is S.NegativeInfinity:
            if slope.size > 1e-10:
                wrong[name] = f"predicted exactly zero, measured {slope.size:.1e}"
        elif not abs(slope.exponent - float(x)) <= tolerance + errors * slope.error:
            wrong[name] = f"predicted {x}, measured {slope}"
    return wrong


__all__ = ["Question", "Unread", "disagreements", "practice", "theory"]
