"""Group 3: f(D D^T) D = D f(D^T D), in numbers and as the reason for the scales of group 2.

    (B + rho I)^(-e) D = D (D^T D / n + rho I)^(-e)        B = D D^T / n

The left-hand side is a matrix of the width's size, the right-hand side one of the batch's: so the
preconditioner meets the gradient with eigenvalues of B on the gradient's own span, and the damping
that matters is measured against those. It needs B and the gradient from the same batch: with B from
another one the gradient lies outside B's span, and the damping alone sets the size.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from sympy import S
from torch import Tensor

from empirical.claims.claim import PAPER, Claim, Evidence, Finding, Group
from empirical.claims.environment import Environment
from empirical.claims.exponents import LAYERS, derived, judged
from empirical.claims.figures import Curve, Figure
from empirical.fit.exponent import estimate
from empirical.fit.verdict import Verdict
from scaling.sizes.derivation import PUSH_THROUGH

SAMPLES = 12
SIDES = (3, 12, 64, 256)
POWERS = (0.25, 0.5, 1.0, 1.5)
DAMPINGS = (1.0, 0.1)
ROUNDING = 1e-9
"""The error of an eigendecomposition in float64 at a condition number of 10^3, to the power 3/2."""
INVERSE_DAMPINGS = (10**2, 10**3, 10**4, 10**5, 10**6)


def _draw(side: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(side, SAMPLES, generator=generator, dtype=torch.float64)


def _power(matrix: Tensor, p: float) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    raised: Tensor = (vectors * values.clamp(min=0) ** p) @ vectors.T
    return raised


def _gap(d: Tensor, other: Tensor, rho: float, e: float) -> float:
    """The relative distance of the two sides, B made of ``other``."""
    b = other @ other.T / SAMPLES + rho * torch.eye(len(d), dtype=d.dtype)
    small = d.T @ d / SAMPLES + rho * torch.eye(SAMPLES, dtype=d.dtype)
    left, right = _power(b, -e) @ d, d @ _power(small, -e)
    return float(torch.linalg.matrix_norm(left - right) / torch.linalg.matrix_norm(right))


def _identity(context: Environment, same: bool) -> Evidence:
    found = []
    for side in SIDES:
        for rho in DAMPINGS:
            gaps = []
            for e in POWERS:
                d = _draw(side, context.seed)
                gaps.append(_gap(d, d if same else _draw(side, context.seed + 1), rho, e))
            largest = max(gaps) if same else min(gaps)
            verdict = Verdict.agree if largest < ROUNDING else Verdict.contradict
            label = f"side {side}, rho = {rho:g}, e = {', '.join(f'{e:g}' for e in POWERS)}"
            predicted = f"< {ROUNDING:g}"
            found.append(Finding(label, predicted, f"{largest:.1e}", "", verdict))
    what = "largest" if same else "smallest"
    note = f"relative distance of the two sides, the {what} over e; B from the {SAMPLES} samples"
    return Evidence(tuple(found), (note if same else f"{note} of another batch",))


def _reach(same: bool, seeds: int) -> NDArray[np.float64]:
    """|(B + rho)^(-1) D| / |D| for falling rho, (seeds, dampings)."""
    rows = []
    for seed in range(seeds):
        d = _draw(4 * SAMPLES, seed)
        other = d if same else _draw(4 * SAMPLES, seed + 1000)
        b, one = other @ other.T / SAMPLES, torch.eye(len(d), dtype=d.dtype)
        row = [torch.linalg.solve(b + one / x, d) for x in INVERSE_DAMPINGS]
        rows.append([float(torch.linalg.matrix_norm(r) / torch.linalg.matrix_norm(d)) for r in row])
    return np.array(rows)


def _reason(context: Environment) -> Evidence:
    """The derivation rests on it, and so does what a vanishing damping does."""
    found = []
    for rule in ("kfac", "kfac_left_only"):
        for layer in LAYERS:
            used = [s for s in derived(rule).steps[layer].lines() if s.inference is PUSH_THROUGH]
            verdict = Verdict.agree if used else Verdict.contradict
            shown = ", ".join(s.subject for s in used) or "none"
            label = f"{rule}, {layer}: a step by push-through"
            found.append(Finding(label, "at least one", shown, "", verdict))
    rows: Sequence[tuple[str, bool, int]] = (
        ("the same batch", True, 0),
        ("another batch", False, 1),
    )
    curves = []
    for label, same, exponent in rows:
        table = _reach(same, 8)
        fit = estimate(INVERSE_DAMPINGS, table)
        text = f"|(B + rho)^(-1) D| in 1/rho, B of {label}"
        found.append(judged(text, fit, S(exponent), context.sizes.margin))
        middle = tuple(float(x) for x in np.exp(np.log(table).mean(axis=0)))
        curves.append(Curve(f"B of {label}", tuple(map(float, INVERSE_DAMPINGS)), middle))
    figure = Figure("3_span", "on and off the span of B", "1/rho", "stretch of D", tuple(curves))
    return Evidence(tuple(found), figures=(figure,))


def _no_reason(context: Environment) -> Evidence:
    """B of another batch, said to act as B of the same one; a derivation that never meets B."""
    fit = estimate(INVERSE_DAMPINGS, _reach(False, 8))
    text = "|(B + rho)^(-1) D| in 1/rho, B of another batch"
    steps = derived("sgd").steps["hidden"].lines()
    used = [s for s in steps if s.inference is PUSH_THROUGH]
    verdict = Verdict.agree if used else Verdict.contradict
    bare = Finding("sgd, hidden: a step by push-through", "at least one", "none", "", verdict)
    return Evidence((judged(text, fit, S.Zero, context.sizes.margin), bare))


GROUP = Group(
    3,
    "the push-through identity",
    (
        Claim(
            "3a",
            "(B + rho I)^(-e) D = D (D^T D / n + rho I)^(-e)",
            "A spectral function of a factor acts on the cotangents that made it as the same "
            "function of their n x n Gram matrix.",
            f"{PAPER}, proof of Prop. 4.1",
            lambda context: _identity(context, same=True),
            lambda context: _identity(context, same=False),
        ),
        Claim(
            "3b",
            "push-through is why dampings follow the eigenvalues on the batch's span",
            "The derivation of K-FAC's exponents takes this step in every layer; with B from "
            "another batch the damping alone sets the size of the update.",
            f"{PAPER}, proof of Prop. 4.1; the second half is derived here",
            _reason,
            _no_reason,
        ),
    ),
)
