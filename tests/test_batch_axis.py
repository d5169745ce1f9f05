"""The batch as the axis: powers of n from the calculus, beside plain torch and a wide measurement.

The oracle is a network d - M - M - 4 by hand, float64: samples whose targets are signs drawn for
each (independent) or all 1 (aligned), and the growth of dW h with n on samples held out.
"""

import math
from collections.abc import Callable
from functools import cache

import pytest
import torch
from sympy import Rational
from torch import Tensor
from typed import Typed

from derivations.catalogue import find
from empirical.fit.verdict import Verdict, judge_interval
from empirical.verify.batch_sweep import samples, sweep
from scaling.cli.requests import problem_of, subject_of
from scaling.models.batch import BatchGrowth
from scaling.sizes.errors import InvalidInput, NotCovered
from scaling.solve.batch_rule import GROWTHS, batch_rule
from scaling.solve.sourced_powers import sourced_powers

INDEPENDENT, ALIGNED = GROWTHS
WIDTH, FEW, MANY, SEEDS, MARGIN = 512, 8, 64, 12, 0.15


@cache
def hidden_layer(count: int, growth: BatchGrowth, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """D / n, H and the features of samples held out, of the hidden layer."""
    data = samples(count, growth, seed)
    generator = torch.Generator().manual_seed(100 + seed)

    def normal(*sides: int) -> Tensor:
        return torch.randn(*sides, generator=generator, dtype=torch.float64)

    first, weight = normal(WIDTH, data.features) / data.features**0.5, normal(WIDTH, WIDTH)
    last, x = normal(data.classes, WIDTH) / WIDTH, data.inputs.T
    h = torch.relu(first @ x)
    u = weight @ h / WIDTH**0.5
    errors = last @ torch.relu(u) - data.targets.T
    return (last.T @ errors) * (u > 0) / count, h, torch.relu(first @ data.probe_inputs.T)


def polar(d: Tensor, h: Tensor) -> Tensor:
    (q, r), (p, s) = torch.linalg.qr(d), torch.linalg.qr(h)
    left, _, right = torch.linalg.svd(r @ s.T)
    return (q @ left) @ (p @ right.T).T


def damped(d: Tensor, h: Tensor, k: Tensor) -> Tensor:
    """D H^T (H K H^T + rho I)^-1 = D (H^T H K + rho I)^-1 H^T, rho a tenth of the largest."""
    m = h.T @ h @ k
    rho = 0.1 * torch.linalg.eigvals(m).real.max()
    return d @ torch.linalg.solve(m + rho * torch.eye(len(m)).double(), h.T)


Update = Callable[[Tensor, Tensor], Tensor]
RULES: dict[str, tuple[Update, str, str]] = {
    "G": (lambda d, h: d @ h.T, "-1/2", "0"),
    "sign(G)": (lambda d, h: (d @ h.T).sign(), "0", "0"),
    "G/norm(G)": (lambda d, h: d @ h.T / (d @ h.T).norm(), "0", "0"),
    "orth(G)": (polar, "0", "0"),
    "norm(W)/norm(orth(G))*orth(G)": (
        lambda d, h: polar(d, h) / polar(d, h).norm(), "-1/2", "-1/2",
    ),
    "G @ (R + rho*I)**(-1)": (lambda d, h: damped(d, h, d.T @ d), "1/2", "0"),
    "G @ (A + rho*I)**(-1)": (
        lambda d, h: damped(d, h, torch.eye(d.shape[1]).double() / d.shape[1]), "-1/2", "0",
    ),
    "G/(sqrt(sample_square(G)) + eps)": (
        lambda d, h: d @ h.T / (d.square() @ h.square().T * d.shape[1]).sqrt().clamp_min(1e-300),
        "-1/2", "0",
    ),
}  # fmt: skip


def slope(update: Update, growth: BatchGrowth) -> float:
    """The power of n of the RMS of dW h, over seeds."""
    total = 0.0
    for seed in range(SEEDS):
        few, many = (
            float((update(d, h) @ probe).square().mean())
            for d, h, probe in (hidden_layer(n, growth, seed) for n in (FEW, MANY))
        )
        total += math.log(many / few) / 2 / math.log(MANY / FEW) / SEEDS
    return total


@pytest.mark.parametrize("rule", RULES)
def test_powers_of_the_batch_are_those_of_a_network_by_hand(rule: str) -> None:
    update, *powers = RULES[rule]
    found = batch_rule(rule)
    for growth, power in zip(GROWTHS, powers, strict=True):
        assert found.own("hidden", growth) == Rational(power)
        measured = slope(update, growth)
        assert abs(measured - float(Rational(power))) < MARGIN, (growth, measured)


def test_the_linear_rule_and_the_square_root_come_out_of_the_calculus() -> None:
    sgd, adam = batch_rule(find("sgdw").rule), batch_rule(find("adamw").rule)
    for layer in sgd.layers:
        assert sgd.rate(layer, INDEPENDENT) == sgd.rate(layer, ALIGNED) == 1
        assert sgd.powers(layer, INDEPENDENT) == {"decay": 0}
        assert adam.rate(layer, INDEPENDENT) == Rational(1, 2)
        assert adam.powers(layer, INDEPENDENT) == {"eps": -Rational(1, 2), "decay": Rational(1, 2)}
        assert adam.rate(layer, ALIGNED) == 1
    for name, found in (("sgdw", sgd), ("adamw", adam)):  # the published rules, which plans take
        published = sourced_powers(find(name).rule, "batch")
        assert found.rate("hidden", INDEPENDENT) == published.lr
    shampoo = batch_rule(find("shampoo").rule)
    assert str(shampoo.own("hidden", INDEPENDENT)) == "e - 1/2"


@pytest.mark.parametrize(("name", "message"), [
    ("gauss_newton", "an inverse whose damping is smaller than the eigenvalues"),
    ("soap", "an eigenbasis, in which the gradient fills a corner as large as its rank"),
    ("kfac_pi", "their number grows, under a batch that grows, in .* of the input layer"),
    ("sign_muon", "entries of a full-rank polar factor"),
])  # fmt: skip
def test_what_is_not_covered_is_refused_by_name(name: str, message: str) -> None:
    with pytest.raises(NotCovered, match=message):
        batch_rule(find(name).rule)


def test_wide_networks_agree_and_a_wrong_power_would_not() -> None:
    names = ("sgd", "gauss_newton")
    subjects = [subject_of(x, problem_of(x, None, practice=True)) for x in names]
    found = sweep(subjects, (8, 16, 32), width=2048, seeds=8, margin=0.3)
    assert "smaller than the eigenvalues" in found.left_out["gauss_newton"]
    assert {x.rule for x in found.checks} == {"sgd"}
    assert found.verdict is Verdict.agree
    for x in found.checks:  # a power that is off by 1/2 would be contradicted
        wrong = float(x.predicted) + 0.5
        assert judge_interval(x.measured.low, x.measured.high, wrong, 0.1) is Verdict.contradict
    with pytest.raises(InvalidInput, match="a width of at least 64 times the batch"):
        sweep(subjects[:1], (8, 16, 32), width=1024)


def test_a_rule_that_cannot_be_measured_takes_no_other_with_it() -> None:
    rules = ("G/mean(G**400)**(1/400)", "G")  # in double precision the mean is zero
    subjects = [subject_of(x, problem_of(x, None, practice=True)) for x in rules]
    found = sweep(subjects, (4, 8, 16), width=1024, margin=1)
    assert "divided by exactly zero" in found.left_out[subjects[0].name]
    assert {x.rule for x in found.checks} == {subjects[1].name}


def test_the_command_line_derives_and_measures_the_batch(typed: Typed) -> None:
    shown = typed("derive", "adamw", "--axis", "batch")
    assert shown.code == 0 and "eps,  " in shown.out.replace("eps, ", "eps,  ")
    assert "assumed: samples are many, more than outputs and far fewer than neurons" in shown.out
    refused = typed("derive", "adamw", "--axis", "batch", "--step", "2")
    assert refused.code == 2 and "the first step of a rule, at one width" in refused.err
    refused = typed("derive", "adamw", "--axis", "depth=2:8")
    assert refused.code == 2 and "or write --axis batch" in refused.err
    words = ["verify", "gauss_newton", "--axis", "batch=8:32", "--widths", "2048"]
    left = typed(*words)
    assert left.code == 3 and "not measured: gauss_newton: an inverse" in left.out
    assert typed(*words, "--deep").code == 2
