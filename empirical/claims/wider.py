"""Group 11: wider is better under muP: the loss after a fixed number of steps falls with width.

At one learning rate, the best of the narrowest width, as the paper's curves have it: that is where
a parametrization that does not transfer loses. Per doubling of the width the change of log loss is
given with its interval over seeds; muP must improve at every one, SP must fail to at some.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from empirical.claims.claim import PAPER, Claim, Evidence, Finding, Group
from empirical.claims.environment import Environment
from empirical.claims.families import families, swept
from empirical.claims.figures import Curve, Figure
from empirical.claims.rate_transfer import MUP, SP
from empirical.fit.verdict import Verdict
from empirical.transfer.sweep import SweptParametrization
from empirical.transfer.transfer_measures import Interval, Losses, bootstrapped

RULES = ("kfac", "shampoo")
FLAT = 0.02
"""A change of log loss per doubling that counts as none."""


PLANTED = 2.0
"""By how much controls tilt log loss at every doubling: more than any gain or loss met here."""


def at_narrow_best(losses: Losses) -> NDArray[np.float64]:
    """Log losses (widths, seeds) at the grid's best rate of the narrowest width."""
    logs = losses.logs
    found: NDArray[np.float64] = logs[:, :, int(np.argmin(logs[0].mean(axis=0)))]
    return found


def gains(logs: NDArray[np.float64], seed: int) -> list[Interval]:
    """The change of mean log loss at every doubling."""

    def change(i: int) -> Interval:
        return bootstrapped(logs, lambda mean: float(mean[i + 1] - mean[i]), seed)

    return [change(i) for i in range(len(logs) - 1)]


def _improves(label: str, gain: Interval) -> Finding:
    verdict = Verdict.inconclusive
    if gain.high < FLAT:
        verdict = Verdict.agree
    elif gain.low > FLAT:
        verdict = Verdict.contradict
    shown = f"[{gain.low:+.3f}, {gain.high:+.3f}]"
    return Finding(label, f"< {FLAT:g}", f"{gain.value:+.3f}", shown, verdict)


def _fails_somewhere(label: str, found: list[Interval]) -> Finding:
    worst = max(found, key=lambda gain: gain.value)
    verdict = Verdict.inconclusive
    if any(gain.low > FLAT for gain in found):
        verdict = Verdict.agree
    elif all(gain.high < FLAT for gain in found):
        verdict = Verdict.contradict
    shown = f"[{worst.low:+.3f}, {worst.high:+.3f}]"
    note = "wider is better under SP too" if verdict is Verdict.contradict else ""
    return Finding(label, f"> {FLAT:g} at some", f"{worst.value:+.3f}", shown, verdict, note)


def _curve(label: str, losses: Losses) -> Curve:
    mean = at_narrow_best(losses).mean(axis=1)
    x = tuple(map(float, losses.widths))
    return Curve(label, x, tuple(math.exp(y) for y in mean))


def _evidence(context: Environment, p: SweptParametrization, planted: float = 0.0) -> Evidence:
    """``planted`` is added to log loss at every doubling: what the control does."""
    found: list[Finding] = []
    curves: list[Curve] = []
    for rule in RULES:
        for row in families(context, rule):
            losses = swept(context, row, rule, p)
            logs = at_narrow_best(losses)
            tilt = planted * np.arange(len(logs))[:, None]
            changes = gains(logs + tilt, context.seed)
            label = f"{row.name}, {rule}, {p}: change of log loss"
            if p is SP:
                found.append(_fails_somewhere(f"{label}, worst doubling", changes))
            else:
                widths = zip(losses.widths, losses.widths[1:], strict=False)
                for (narrow, wide), change in zip(widths, changes, strict=True):
                    found.append(_improves(f"{label}, {narrow} to {wide}", change))
            curves.append(_curve(f"{row.name}, {rule}, {p}", losses))
    title = f"loss against width at the narrowest's best rate, {p}"
    figure = Figure(f"11_{p}", title, "width M", "training loss", tuple(curves))
    return Evidence(tuple(found), figures=() if planted else (figure,))


GROUP = Group(
    11,
    "wider is better under muP",
    (
        Claim(
            "11a",
            "under muP the loss at a fixed step falls with the width",
            "At the narrowest network's best learning rate, every doubling of the width lowers "
            "the training loss after the same number of steps.",
            f"{PAPER}, learning curves against width (captions read)",
            lambda context: _evidence(context, MUP),
            lambda context: _evidence(context, MUP, planted=PLANTED),
        ),
        Claim(
            "11b",
            "under SP it does not",
            "Under the standard parametrization some wider network is worse at that rate.",
            f"{PAPER}, learning curves against width (captions read)",
            lambda context: _evidence(context, SP),
            lambda context: _evidence(context, SP, planted=-PLANTED),
        ),
    ),
)
