"""Claim 12b: a convolution has the exponents of a dense layer with its roles, measured.

A kernel has the axes (out, in, height, width). Height and width multiply the number of terms by a
constant, and so do the positions of an image, each one a sample. So a kernel from the pixels is an
input layer, one from channels to channels a hidden one, and nothing is derived anew:
`check_model` takes the exponents of these roles and measures one step of the network.

    conv 4x4, stride 2, 1 -> M      tanh      conv 2x2, M -> M      tanh      linear 4 M -> 10

What decides the sizes.  The exponents are those of widths beyond the number of samples, here nine
positions an image in the first layer: two images, and widths from 64 on. tanh, since units of ReLU
that are dead at every position make the spread over draws of narrow networks large.

Not covered: pooling, strides beyond the first layer, residual branches (group 9 trains those).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from sympy import Expr, S, sympify
from torch import Tensor, nn

from derivations.catalogue import find
from empirical.claims.claim import PAPER, Claim, Evidence, Finding
from empirical.claims.environment import Environment, Tier
from empirical.claims.exponents import PLANTED, curve, judged
from empirical.claims.families import half_square
from empirical.claims.figures import Curve, Figure
from empirical.data.sources import images
from empirical.fit.exponent import estimate
from empirical.fit.verdict import Verdict, overall
from empirical.measure.machine import blas_threads
from empirical.your_model.coordinate_check import MARGIN, check_model, standard

IMAGES = 2
WIDTHS = {Tier.ci: (64, 128, 256, 512), Tier.desk: (64, 128, 256, 512, 1024)}
SEEDS = {Tier.ci: 8, Tier.desk: 24}
RULES = ("kfac", "shampoo")
QUANTITIES = ("own", "feature")


def build(width: int) -> nn.Module:
    """The network of a width."""
    return nn.Sequential(
        nn.Conv2d(1, width, 4, stride=2),
        nn.Tanh(),
        nn.Conv2d(width, width, 2),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(4 * width, 10),
    )


@dataclass(frozen=True)
class KernelSizes:
    """Sizes of one step: layer -> quantity -> (seeds, widths), and what is predicted of them."""

    label: str
    widths: tuple[int, ...]
    tables: Mapping[str, Mapping[str, Any]]
    predicted: Mapping[str, Mapping[str, Expr]]

    def findings(self, planted: Expr = S.Zero) -> list[Finding]:
        """One finding a layer and quantity."""
        found = []
        for layer, quantities in self.tables.items():
            for quantity, table in quantities.items():
                fit = estimate(self.widths, np.array(table))
                x = self.predicted[layer][quantity] + planted
                found.append(judged(f"{self.label}: {quantity} of {layer}", fit, x, MARGIN))
        return found

    def curves(self) -> list[Curve]:
        """The feature changes against width."""
        return [
            curve(f"{self.label}: {layer}", self.widths, np.array(x["feature"]))
            for layer, x in self.tables.items()
        ]


def _measured(context: Environment, rule: str, usual: bool = False) -> KernelSizes:
    """Sizes under the derived parametrization, or under the ``usual`` one."""
    tier = Tier.ci if context.tier is Tier.ci else Tier.desk
    widths, seeds, declared = WIDTHS[tier], SEEDS[tier], find(rule)
    configuration = {"what": "convolution", "rule": rule, "usual": usual, "widths": widths,
                     "seeds": seeds, "images": IMAGES}  # fmt: skip

    def measure() -> Mapping[str, Any]:
        data = images("digits", samples=IMAGES, probe=4, seed=context.seed)
        x, y, probe = (t.to(context.device) for t in _tensors(data))
        scales = standard(build, widths[0]) if usual else None
        with blas_threads(context.threads):
            result = check_model(
                build, declared.rule, x, y, half_square, widths, probe=probe, scales=scales,
                values=declared.values, exponents=declared.exponents, seeds=seeds,
                device=context.device,
            )  # fmt: skip
        (series,) = result.series
        return {
            "tables": {n: {q: t[q].tolist() for q in QUANTITIES} for n, t in series.layers.items()},
            "predicted": {
                n: {c.quantity: str(c.predicted) for c in result.checks if c.layer == n}
                for n in series.layers
            },
        }

    cell = context.cell(configuration, widths[-1], 0, measure)
    if context.tick is not None:
        context.tick(f"convolution, {rule}", 1, 1)
    names = dict(zip(cell["tables"], ("first kernel", "second kernel", "output"), strict=True))
    predicted = {
        names[n]: {q: sympify(x) for q, x in row.items()} for n, row in cell["predicted"].items()
    }
    label = f"{rule}, {'standard' if usual else 'muP'}"
    return KernelSizes(label, widths, {names[n]: t for n, t in cell["tables"].items()}, predicted)


def _tensors(data: Any) -> tuple[Tensor, Tensor, Tensor]:
    return data.inputs, data.targets, data.probe_inputs


def _check(context: Environment) -> Evidence:
    runs = [_measured(context, rule) for rule in RULES]
    usual = [_measured(context, rule, usual=True) for rule in RULES]
    curves = [c for run in (runs[0], usual[0]) for c in run.curves()]
    figure = Figure("12b_convolution", "dh of a convolutional network against width", "width M",
                    "RMS of dh (df of the output)", tuple(curves), turn=3)  # fmt: skip
    found = [finding for run in runs for finding in run.findings()]
    found += [_moves(run) for run in usual]
    return Evidence(tuple(found), figures=(figure,))


def _moving(usual: KernelSizes) -> tuple[Verdict, str]:
    """The gravest verdict on the sizes of the standard parametrization, and whose it is."""
    verdicts = {f.subject: f.verdict for f in usual.findings()}
    gravest = overall(verdicts.values())
    names = [name.removeprefix(f"{usual.label}: ") for name, v in verdicts.items() if v is gravest]
    return gravest, ", ".join(names)


def _moves(usual: KernelSizes) -> Finding:
    """That some size depends on the width: agreed to if one contradicts the exponent 0."""
    gravest, names = _moving(usual)
    verdict = Verdict.agree if gravest is Verdict.contradict else Verdict.inconclusive
    verdict = Verdict.contradict if gravest is Verdict.agree else verdict
    return Finding(f"{usual.label}: some own or feature", "not 0", names, "", verdict)


def _control(context: Environment) -> Evidence:
    """Exponents off by 1/4; and the standard parametrization, said to move all sizes alike."""
    found = [f for rule in RULES for f in _measured(context, rule).findings(planted=PLANTED)]
    for rule in RULES:
        usual = _measured(context, rule, usual=True)
        gravest, names = _moving(usual)
        label = f"{usual.label}: every own and feature"
        found.append(Finding(label, "0", f"{gravest}: {names}", "", gravest))
    return Evidence(tuple(found))


CLAIM = Claim(
    "12b",
    "a convolution has the exponents of a dense layer of its role",
    "With the exponents derived for dense layers, K-FAC and Shampoo move the features of a "
    "convolutional network by Theta(1) in a step; with the standard parametrization they do not.",
    f"{PAPER}, convolutional networks (empirical there: secondary source)",
    _check,
    _control,
)
