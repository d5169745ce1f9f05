"""Group 9: the best learning rate stays put across widths under muP, and drifts under SP.

For every family, optimizer and parametrization: log2 of the best rate against log2 of the width,
its drift with an interval, and the three measures of `empirical.transfer.transfer_measures`. muP
and SP coincide at the narrowest width, so they differ in the scaling alone.

A drift is taken to be none if its interval lies within 1/4 of zero, half of 1/2, the smallest step
between a rule's own exponents; SP is said to drift if its interval lies outside of that.

What to expect of SP is not obvious. One step of it, rates and dampings constant, moves the output
by M^x; the largest stable rate then falls as M^(-x). The notes give x, as `predict` has it: 0 for
K-FAC and FOOF at e = 1, so that one step names no reason for a drift, and 1/2 for Shampoo.

The best rate after many steps is not the largest stable one, though. Shampoo's step has the size of
its rate whatever the gradient, so what one step overshoots the next ones take back: under SP its
loss has a bump that moves to smaller rates with the width, as x says, beside a lowest point that
stays where it is, with 16 steps (tier ci) as with 100 (desk). K-FAC's loss under SP has two low
points, with a bump between them that grows with the width: after 16 steps the lower one changes
sides between widths 128 and 512, which is a drift; after 100 steps both are as low as each other at
width 1024, and the claim is left open. What is found is reported, contradictions included.
"""

from __future__ import annotations

import math

from derivations.catalogue import find
from empirical.claims.claim import PAPER, Claim, Evidence, Finding, Group
from empirical.claims.environment import Environment
from empirical.claims.exponents import literal
from empirical.claims.families import families, swept
from empirical.claims.figures import Curve, Figure
from empirical.fit.verdict import Verdict
from empirical.transfer.sweep import SweptAxis, SweptParametrization
from empirical.transfer.transfer_measures import (
    Interval,
    Losses,
    Transfer,
    parametrization_penalty,
    transfer,
)
from scaling.report.tables import Table
from scaling.solve.predict import predict

MARGIN = 0.25
MUP, SP = SweptParametrization.mup, SweptParametrization.sp
AXES = {
    SweptAxis.rate: "learning rate at the narrowest width",
    SweptAxis.damping: "damping at the narrowest width, over the factor's largest eigenvalue",
}


def interval_finding(
    subject: str, found: Interval, predicted: float, edge: tuple[int, ...]
) -> Finding:
    """A drift beside the predicted one; open where a best rate lies at the edge of the grid."""
    return _drift(subject, f"{predicted:g}", found, found.judge(predicted, MARGIN), "", edge)


def moves(subject: str, found: Interval, edge: tuple[int, ...]) -> Finding:
    """That a drift is none of zero: the verdict on zero, turned round."""
    of_zero = found.judge(0.0, MARGIN)
    opposite = {Verdict.agree: Verdict.contradict, Verdict.contradict: Verdict.agree}
    verdict, note = opposite.get(of_zero, of_zero), ""
    if verdict is Verdict.contradict:
        stays = found.low <= 0 <= found.high
        less = f"it moves by less than {MARGIN:g} doublings a doubling"
        note = "the best value stays put under SP too" if stays else less
    return _drift(subject, f"not 0 (beyond {MARGIN:g})", found, verdict, note, edge)


def _drift(
    subject: str, predicted: str, found: Interval, verdict: Verdict, note: str,
    edge: tuple[int, ...],
) -> Finding:  # fmt: skip
    """The verdict on a drift, open where a best rate lies at the edge of the grid."""
    if edge:
        verdict = Verdict.inconclusive
        note = f"the best value lies at the edge of the grid at width {', '.join(map(str, edge))}"
    shown = f"[{found.low:+.3f}, {found.high:+.3f}]"
    return Finding(subject, predicted, f"{found.value:+.3f}", shown, verdict, note)


def measures(title: str, rows: list[tuple[str, Transfer]], penalties: list[str]) -> Table:
    """The three measures, one row a sweep."""
    shown = tuple(
        (
            label, str(t.drift), f"{t.residual:.2f}", str(t.miss), percent(t.excess),
            f"{t.tolerance:.2f}", percent(t.penalty),
        )
        for label, t in rows
    )  # fmt: skip
    columns = (
        "", "drift per doubling", "residual of the law", "miss when extrapolated",
        "its loss excess", "doublings within 5 %", "penalty of the narrowest's",
    )  # fmt: skip
    notes = (
        "drift, residual, miss and tolerance in doublings of the value; see transfer_measures.py",
    )
    return Table(title, columns, shown, (*notes, *penalties))


def percent(x: Interval) -> str:
    """A relative loss."""
    return f"{100 * x.value:.0f} % [{100 * x.low:.0f}, {100 * x.high:.0f}]"


def loss_figure(name: str, title: str, losses: Losses, x_label: str) -> Figure:
    """Loss against the swept value, one curve a width."""
    mean = losses.logs.mean(axis=1)
    x = tuple(2.0**v for v in losses.rates)
    curves = tuple(
        Curve(f"M = {width}", x, tuple(math.exp(y) for y in row))
        for width, row in zip(losses.widths, mean, strict=True)
    )
    return Figure(name, title, x_label, "training loss", curves)


def evidence(context: Environment, rule: str, axis: SweptAxis, p: SweptParametrization) -> Evidence:
    """The drift under one parametrization, over all families; measures of both beside it."""
    found: list[Finding] = []
    rows: list[tuple[str, Transfer]] = []
    penalties: list[str] = []
    figures: list[Figure] = []
    for row in families(context, rule, axis):
        losses = {q: swept(context, row, rule, q, axis) for q in (MUP, SP)}
        results = {q: transfer(table, context.seed) for q, table in losses.items()}
        rows += [(f"{row.name}, {rule}, {q}", result) for q, result in results.items()]
        subject = f"{row.name}, {rule}, {p}: drift of the best {axis}"
        shown = results[p]
        if p is MUP:
            found.append(interval_finding(subject, shown.drift, 0.0, shown.at_edge))
        else:
            found.append(moves(subject, shown.drift, shown.at_edge))
        label = f"{row.name}, {rule}, {p}"
        name = f"{axis}_{row.name}_{rule}_{p}"
        figures.append(loss_figure(name, label, losses[p], AXES[axis]))
        at_widest = parametrization_penalty(losses[MUP], losses[SP], context.seed)
        limit = parametrization_penalty(losses[MUP], losses[SP], context.seed, limit=True)
        penalties.append(
            f"{row.name}, {rule}: lowest loss of SP over that of muP, minus one: "
            f"{percent(at_widest)} at the widest, {percent(limit)} in the limit"
        )
    table = measures(f"transfer of the {axis}: {rule}", rows, penalties)
    notes = (one_step(rule),) if p is SP and axis is SweptAxis.rate else ()
    return Evidence(tuple(found), notes, (table,), tuple(figures))


def one_step(rule: str) -> str:
    """The exponent of the output's change in one step of SP, rates and dampings constant."""
    declared = find(rule)
    settings = [f"{k}={v}" for k, v in declared.exponents.items()]
    settings += ["c=0", *(f"d_{k}=0" for k in declared.rule.dampings)]
    subject = literal(rule, *settings, init="standard")
    x = predict(subject.problem, subject.exponents, subject.bounds).layers["output"].feature
    start = f"one step of {rule} under SP, by theory: df"
    if x is None:
        return f"{start} not predicted, since features grow"
    drift = "no drift" if x == 0 else "a drift"
    return f"{start} ~ M^({x}), {drift} of the largest stable rate"


def control(context: Environment, rule: str, axis: SweptAxis, p: SweptParametrization) -> Evidence:
    """Of muP: that the best value goes with the width, or with its inverse. Of SP: that muP drifts.

    Where muP does not hold the best value in place, saying that SP does not either means nothing,
    and the second control then voids the claim.
    """
    found = []
    for row in families(context, rule, axis):
        result = transfer(swept(context, row, rule, MUP, axis), context.seed)
        subject = f"{row.name}, {rule}, mup: drift of the best {axis}"
        if p is MUP:
            for planted in (-1.0, 1.0):
                found.append(interval_finding(subject, result.drift, planted, ()))
        else:
            found.append(moves(subject, result.drift, ()))
    return Evidence(tuple(found))


def claim(
    id: str, rule: str, axis: SweptAxis, p: SweptParametrization, texts: tuple[str, str, str]
) -> Claim:
    """``texts``: title, statement, reference."""
    return Claim(
        id,
        *texts,
        lambda context: evidence(context, rule, axis, p),
        lambda context: control(context, rule, axis, p),
    )


_WHERE = (
    f"{PAPER}, figures of learning-rate transfer, of K-FAC alone (captions read), no interval "
    "given; asked of FOOF and Shampoo here"
)
_NAMES = {"kfac": "K-FAC", "foof": "FOOF", "shampoo": "Shampoo"}
_STAYS = tuple(
    claim(
        f"9{letter}",
        rule,
        SweptAxis.rate,
        MUP,
        (
            f"the learning rate of {name} transfers under muP",
            f"Trained with {name} under muP, the best learning rate is the same at every width.",
            _WHERE,
        ),
    )
    for letter, (rule, name) in zip("abc", _NAMES.items(), strict=True)
)
_DRIFTS = tuple(
    claim(
        f"9{letter}",
        rule,
        SweptAxis.rate,
        SP,
        (
            f"the learning rate of {name} drifts under SP",
            f"Trained with {name} under the standard parametrization, the best learning rate "
            "moves with the width.",
            _WHERE,
        ),
    )
    for letter, (rule, name) in zip("def", _NAMES.items(), strict=True)
)
GROUP = Group(9, "learning-rate transfer", (*_STAYS, *_DRIFTS))
