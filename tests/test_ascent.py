"""SAM: radii against the published scaling, two steps against torch, wrong radii contradicted."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from sympy import Expr, Rational, S
from torch import nn

from empirical import RuleOptimizer
from empirical.data.sources import load
from empirical.fit.verdict import Verdict
from empirical.measure.calibration import calibrate
from empirical.measure.dense_steps import measure
from empirical.measure.machine import blas_threads
from empirical.verify.campaign import Experiment, Mode, trial_of
from empirical.verify.derivation_lines import measured_lines
from empirical.verify.verification import verify
from scaling.cli.requests import literal_of, problem_of, problem_with, subject_of
from scaling.models.chain import Setting, mlp
from scaling.models.settings import read_settings
from scaling.rules.parser import parse
from scaling.sizes.derivation import ASCENT
from scaling.sizes.errors import InvalidInput, NotCovered, RuleError
from scaling.solve.conditions import MAXIMAL_PERTURBATION, STANDARD
from scaling.solve.derive import Derived, derive
from scaling.solve.predict import predict

HALF = S.Half
SAM = "ascended(radius*G/norm(G))"
GLOBAL = "ascended(radius*G/sqrt(over_layers(norm(G)**2)))"
ADAM = f"ema({SAM}, b1) / (sqrt(ema({SAM}**2, b2)) + eps)"


def solve(text: str, *given: str, depth: int = 3, biases: bool = False, **options: Any) -> Derived:
    rule, setting = parse(text), Setting(mlp(depth, biases))
    return derive(rule, read_settings(given, rule, setting.layers), setting, **options)


def radii(found: Derived) -> list[Expr]:
    return [x["radius"] for x in found.exponents.d.values()]


# --- theory -------------------------------------------------------------------------------------


def test_radii_of_layers_keep_the_spectral_norm_that_is_published() -> None:
    """arXiv 2411.00075: |X_l| = sqrt(fan_out/fan_in) in spectral norm, for every layer."""
    for depth in (3, 5):
        found = solve(SAM, depth=depth, biases=True)
        for layer in found.problem.setting.layers:
            spectral = HALF * (layer.fan_out - layer.fan_in)  # norm(G)/norm(G) has norm 1
            assert found.exponents.d[layer.name]["radius"] == -spectral, layer.name
        assert found.exponents.c == solve("G", depth=depth, biases=True).exponents.c
        assert found.free == ()


def test_radii_beside_the_norm_of_all_layers_differ_as_rates_of_gradient_descent() -> None:
    """X_l is a common multiple of M^(-d_l) G_l there, and SGD's rates M^(1, 0, -1) are known."""
    d = radii(solve(GLOBAL))
    assert [x - d[1] for x in d] == [-1, 0, 1] == list(solve("G").exponents.c.values())
    assert d[2] == HALF  # the readout has the norm of all layers
    one = predict(*_literal(GLOBAL, "d_radius=1/2"))
    assert [x.ascent for x in one.layers.values()] == [-2, -1, 0]  # the readout alone is perturbed


def _literal(text: str, *given: str) -> Any:
    problem = problem_of(text, list(given))
    return problem, *literal_of(problem)


def test_every_line_of_a_radius_is_in_the_derivation() -> None:
    found = solve(SAM).steps["hidden"]
    lines = {line.subject: line for line in found.lines()}
    assert lines["radius of hidden"].result.width == 0
    assert lines[str(parse(SAM))].inference is ASCENT
    assert {"h_1 at W + X", "delta_2 at W + X", "G at W + X"} <= set(lines)
    assert {line.time for line in found.lines()} == {1}


def test_adam_uphill_has_the_exponents_of_adam_and_the_radii_of_sam() -> None:
    found, adam = solve(ADAM), solve("ema(G, b1) / (sqrt(ema(G*G, b2)) + eps)")
    assert found.exponents.c == adam.exponents.c and radii(found) == radii(solve(SAM))
    assert [x["eps"] for x in found.exponents.d.values()] == [
        x["eps"] for x in adam.exponents.d.values()
    ]


def test_a_radius_is_free_without_the_condition_and_kept_if_given() -> None:
    off = [x for x in STANDARD if x is not MAXIMAL_PERTURBATION]
    with pytest.raises(NotCovered, match="cotangents in the input layer follow the perturbation"):
        solve(SAM, conditions=off)
    small = solve(SAM, "d_radius=1", conditions=off)
    assert radii(small) == [1, 1, 1] and small.exponents.c == solve("G").exponents.c
    damped = solve("ascended(radius*G/(norm(G) + eps))")
    assert radii(damped) == radii(solve(SAM))
    assert [x["eps"] for x in damped.exponents.d.values()] == [HALF, 0, -HALF]  # |G| itself


REFUSED = [
    (SAM, ("d_radius_hidden=-1/2",), "step 2 after|moves h_2 by"),
    (SAM, ("b_output=oo",), "cotangents in the input layer follow the perturbation"),
    (SAM, ("b_output=2",), "cotangents in the input layer follow the perturbation"),
    (f"{SAM} - G", (), "may be smaller than either"),
    (f"G + norm(G)*sign({SAM}) - norm(G)*sign(G)", (), "may be smaller than either"),
    (f"{SAM} + col_mean({SAM})", (), "a mean of a gradient at moved weights"),
    ("ascended(radius*G/sqrt(over_layers(norm(radius*G)**2)))", (), "the radii of others"),
    ("ascended(radius*sign(G)*abs(G)*abs(G)*sign(G))", (), "even in the gradient"),
    (f"(B + rho*I)**(-1/2) @ ({SAM}/abs({SAM})**(1/2))", (), "division by a sum over samples"),
]


@pytest.mark.parametrize(("text", "given", "why"), REFUSED)
def test_what_is_not_covered_is_refused_by_name(
    text: str, given: tuple[str, ...], why: str
) -> None:
    with pytest.raises(NotCovered, match=why):
        solve(text, *given)


def test_one_perturbation_is_not_made_of_another() -> None:
    with pytest.raises(RuleError, match="inside"):
        parse(f"ascended(radius*{SAM})")
    with pytest.raises(RuleError, match="a change of the weights"):
        parse("ascended(A)")


# --- numbers ------------------------------------------------------------------------------------


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)).double()


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(6, 5, generator=generator, dtype=torch.float64)
    return x, torch.randn(6, 3, generator=generator, dtype=torch.float64)


def sam_by_hand(net: nn.Module, lr: float, radius: float, joint: bool, steps: int) -> None:
    """The algorithm of arXiv 2010.01412, with norms by tensor or of all."""
    x, y = batch()
    parameters = list(net.parameters())
    for _ in range(steps):
        gradients = torch.autograd.grad((net(x) - y).square().mean(), parameters)
        norms = [g.norm() for g in gradients]
        whole = torch.stack(norms).norm()
        moves = [
            radius * g / (whole if joint else n) for g, n in zip(gradients, norms, strict=True)
        ]
        with torch.no_grad():
            for p, move in zip(parameters, moves, strict=True):
                p += move
        uphill = torch.autograd.grad((net(x) - y).square().mean(), parameters)
        with torch.no_grad():
            for p, move, g in zip(parameters, moves, uphill, strict=True):
                p += -move - lr * g


@pytest.mark.parametrize(("text", "joint"), [(SAM, False), (GLOBAL, True)])
def test_two_steps_are_those_of_sam_by_hand(text: str, joint: bool) -> None:
    ours, theirs, other = model(), model(), model()
    x, y = batch()
    optimizer = RuleOptimizer(ours, parse(text), 0.3, {"radius": 0.5})

    def closure() -> float:
        optimizer.zero_grad()
        loss = (ours(x) - y).square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    losses = [optimizer.step(closure) for _ in range(2)]
    assert losses[1] < losses[0]
    sam_by_hand(theirs, 0.3, 0.5, joint, 2)
    sam_by_hand(other, 0.3, 0.0, joint, 2)
    for p, q, r in zip(ours.parameters(), theirs.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-11, atol=1e-13)
        assert not torch.allclose(p, r, rtol=1e-3)  # plain gradient descent is something else


def test_weights_are_put_back_if_the_second_pass_fails_and_a_closure_is_needed() -> None:
    net = model()
    before = [p.detach().clone() for p in net.parameters()]
    x, y = batch()
    optimizer = RuleOptimizer(net, parse(SAM), 0.3, {"radius": 0.5})
    calls: list[int] = []

    def closure() -> float:
        calls.append(0)
        if len(calls) == 2:
            raise KeyboardInterrupt
        optimizer.zero_grad()
        loss = (net(x) - y).square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    with pytest.raises(KeyboardInterrupt):
        optimizer.step(closure)
    for p, q in zip(net.parameters(), before, strict=True):
        assert bool((p == q).all())
    with pytest.raises(InvalidInput, match="without a closure"):
        optimizer.step()


# --- measured -----------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with blas_threads(1):
        yield


EXPERIMENT: dict[str, Any] = {
    "widths": (64, 128, 256, 512, 1024), "seeds": 6, "margin": 0.25, "threads": 1,
    "mode": Mode.DENSE, "data": load("digits", samples=16, probe=16),
}  # fmt: skip


def test_the_derived_radii_are_measured_and_wrong_ones_are_contradicted(tmp_path: Path) -> None:
    table = subject_of("sam", problem_with("sam"))
    found = verify([table], Experiment(**EXPERIMENT), out=tmp_path)
    ascents = {c.layer: c for c in found.checks if c.quantity == "ascent"}
    assert {c.verdict for c in ascents.values()} == {Verdict.agree}
    assert Verdict.contradict not in {c.verdict for c in found.checks}
    wrong = [f"ascent_{layer}=1/2" for layer in ascents]
    planted = verify([table], Experiment(**EXPERIMENT), wrong, tmp_path)
    for check in planted.checks:
        assert (check.verdict is Verdict.contradict) is (check.quantity == "ascent"), check


def test_one_radius_for_all_layers_perturbs_what_theory_says(tmp_path: Path) -> None:
    """A negative control of the derivation: d = 1/2 everywhere perturbs the readout alone."""
    table = subject_of(SAM, problem_with(SAM, "d_radius=1/2"))
    found = verify([table], Experiment(**EXPERIMENT), out=tmp_path)
    ascents = {c.layer: c for c in found.checks if c.quantity == "ascent"}
    assert [c.predicted for c in ascents.values()] == [-1, -HALF, 0]
    assert {c.verdict for c in ascents.values()} == {Verdict.agree}
    claimed = verify([table], Experiment(**EXPERIMENT), ["ascent_hidden=0"], tmp_path)
    assert claimed.verdict is Verdict.contradict


def test_radii_share_a_tenth_and_lines_are_refused_by_name() -> None:
    table = subject_of("sam", problem_with("sam"))
    trial = trial_of(table, Experiment(**EXPERIMENT))
    constants = calibrate(trial, 64)
    for layer, sizes in measure(trial, constants, 64, 0).sizes.items():
        assert sizes.ascent == pytest.approx(0.1 / 3, rel=1e-6), layer
    with pytest.raises(InvalidInput, match="at other weights"):
        measured_lines(trial, {}, (64, 128, 256), 2)


def test_the_radius_is_exact() -> None:
    assert all(isinstance(x, Rational) for x in radii(solve(SAM)))
