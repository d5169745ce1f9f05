"""Tuning strategies against independent truths: closed forms, finite differences, textbooks."""

import ast
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from optuna._hypervolume import compute_hypervolume
from torch import nn

from empirical.transfer.transfer_grid import TransferWay
from empirical.tuning import online_hypergradients, tuning_strategy
from empirical.tuning.cross_entropy import CrossEntropySampler, smoothing
from empirical.tuning.gradient_filter import IsotropicKalman, Outlook, SelfTuned
from empirical.tuning.hypervolume import front, hypervolume
from empirical.tuning.losses_by_task import weights_of
from empirical.tuning.measured_tuning import over_seeds
from empirical.tuning.online_hypergradients import RateRecurrence
from empirical.tuning.optimization_law import (
    RateLaw,
    ShortRun,
    divergence_f1,
    features,
    fitted,
    hits,
)
from empirical.tuning.optuna_studies import searched
from empirical.tuning.rate_schedules import SCHEDULES, multipliers
from empirical.tuning.recurring_halving import RecurringRatePruner
from empirical.tuning.search_space import grid_of, read_budget, read_space
from empirical.tuning.tuning_run import TunedPoint, TunedRun, TuningRun
from empirical.tuning.tuning_strategy import HOMES, TuningTask, play, strategy
from empirical.tuning.weighted_pretraining import response
from empirical.tuning.zeroth_order import estimated, unit_vectors
from scaling.sizes.errors import InvalidInput

ROOT = Path(__file__).resolve().parent.parent
BEST = -5.3
SPACE = read_space("lr=2^-12:2^0")


def valley(run: TuningRun, best: Mapping[str, float] | None = None) -> TunedRun:
    """A loss whose logarithm is a parabola of the logarithms; beyond 2^-2 it diverges."""
    numbers = run.point.numbers
    log = sum((numbers[k] - x) ** 2 / 20 for k, x in (best or {"lr": BEST}).items())
    if numbers["lr"] > -2:
        return TunedRun(2.0, math.nan, "a loss of nan", 3, 0.0, 3.0)
    left = 0.5 * (1 - run.steps / max(run.length, run.steps))
    loss = 0.1 * math.exp(log) + left
    return TunedRun(2.0, loss, "", run.steps, 0.0, float(run.steps))


def task(runs: int = 20, seed: int = 0, space: str = "lr=2^-12:2^0", steps: int = 27) -> TuningTask:
    return TuningTask(read_space(space), steps, runs * steps, seed)


# --- spaces, budgets, schedules -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found", "do_this"),
    [
        ("", "an empty space", "--space lr=2^-12:2^0"),
        ("lr=2^0:2^-3", "an empty space: lr", "2^-7:2^0"),
        ("lr=1:1", "an empty space", "--space lr"),
        ("lr=0:1", "lr=0:1", "write for example"),
        ("lr", "with 'lr'", "write for example"),
        ("lr=3^1:3^2", "lr=3", "write for example"),
        ("lr=2^-2:1,lr=2^-1:1", "twice", "write for example"),
    ],
)
def test_a_space_that_is_none_is_refused(text: str, found: str, do_this: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        read_space(text)
    assert found in refused.value.found and do_this in refused.value.do_this


def test_a_budget_is_in_steps_or_runs_and_one_run_at_least() -> None:
    assert [read_budget(x, 50) for x in ("50steps", "1 run", "3runs", "120 steps")] == [
        50, 50, 150, 120,
    ]  # fmt: skip
    for text in ("49steps", "0runs", "forty", "3", "-1runs"):
        with pytest.raises(InvalidInput, match="budget"):
            read_budget(text, 50)


def test_every_schedule_starts_at_the_rate_and_all_but_the_constant_fall() -> None:
    for name in (*SCHEDULES, "recurring:5,15"):
        found = multipliers(name, 20)
        assert found[0] == 1 and len(found) == 20 and min(found) >= 0
        assert (found[-1] < 0.3) is (name != "constant"), name
    assert multipliers("recurring:5,15", 20)[5] == 1  # begun anew


def test_a_grid_has_both_ends_and_no_more_points_than_runs() -> None:
    space = read_space("lr=2^-4:2^0,eps=2^-2:2^0")
    points = list(grid_of(space, 10))
    assert len(points) == 9 and points[0] == {"lr": -4, "eps": -2} and points[-1]["lr"] == 0
    assert list(grid_of(space, 3)) == [space.centre]


# --- searches on a valley that is known -----------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["random", "grid", "tpe", "cross-entropy", "morl", "pareto", "opt-laws", "hozog"]
)
def test_a_search_finds_the_valley_within_its_budget(name: str) -> None:
    own = task(30)
    answer = play(strategy(name).tune(own), own, valley)
    assert own.spent <= own.budget
    assert abs(answer.numbers["lr"] - BEST) < 1.2, answer
    assert own.offered == sorted(own.offered, key=lambda x: (x[0], -x[1]))
    again = task(30)
    assert play(strategy(name).tune(again), again, valley) == answer  # a function of the seed


def test_runs_that_diverge_are_counted_and_have_learned_nothing() -> None:
    own = task(13, space="lr=2^-3:2^3")
    answer = play(strategy("grid").tune(own), own, valley)
    assert own.diverged == 10 and answer.numbers["lr"] <= -2
    assert valley(TuningRun(TransferWay.plan, 4, 0, TunedPoint({"lr": 0.0}), 27)).value == (
        math.log(2)
    )


def test_cross_entropy_follows_its_formulas() -> None:
    sampler = CrossEntropySampler(population=5, rho=0.4, a=0.7, b=0.8, q=5.0, seed=1)
    study = optuna.create_study(sampler=sampler)
    values: list[tuple[float, float]] = []

    def f(trial: optuna.Trial) -> float:
        x = trial.suggest_float("x", -8, 8)
        values.append(((x - 3) ** 2, x))
        return values[-1][0]

    study.optimize(f, n_trials=10)
    mean, deviation = 0.0, 4.0
    for t, rows in enumerate((values[:5], values[5:10]), start=1):
        elite = [x for _, x in sorted(rows)[:2]]
        mean = 0.7 * float(np.mean(elite)) + 0.3 * mean
        smooth = 0.8 - 0.8 * (1 - 1 / t) ** 5
        assert smoothing(t) == smooth
        deviation = smooth * float(np.std(elite)) + (1 - smooth) * deviation
    space = sampler.infer_relative_search_space(study, study.trials[-1])
    found = sampler.law(study, space)
    assert np.allclose(found, [[mean], [deviation]], rtol=1e-12)


def test_cross_entropy_needs_its_elite() -> None:
    def reached(rho: float) -> float:
        space, far = "lr=2^-12:2^-2.1,eps=2^-9:2^0", {"lr": -9.0, "eps": -7.0}
        own = task(60, 3, space)
        sampler = CrossEntropySampler(12, rho, seed=3)
        play(searched(own, sampler), own, lambda run: valley(run, far))
        return own.best_value

    assert reached(0.2) < math.log(0.1) + 0.02 < reached(1.0)


def test_optuna_takes_the_sampler_and_the_pruner_as_its_own() -> None:
    pruner = RecurringRatePruner(steps=18)
    study = optuna.create_study(
        direction="maximize", sampler=CrossEntropySampler(4, seed=0), pruner=pruner
    )

    def f(trial: optuna.Trial) -> float:
        x = trial.suggest_float("x", 1e-4, 1.0, log=True)
        trial.suggest_int("n", 1, 3)
        score = -abs(math.log10(x) + 2)
        for end in pruner.ends:
            trial.report(score, end)
            if end < 18 and trial.should_prune():
                raise optuna.TrialPruned
        return score

    study.optimize(f, n_trials=60)
    assert abs(math.log10(study.best_params["x"]) + 2) < 0.1
    states = [trial.state.name for trial in study.trials]
    assert 20 < states.count("PRUNED") < 60


def test_halving_trains_few_to_the_end_and_pays_a_prefix_once() -> None:
    own = task(20)
    asked: list[TuningRun] = []

    def train(run: TuningRun) -> TunedRun:
        asked.append(run)
        return valley(run)

    answer = play(strategy("morl").tune(own), own, train)
    whole = [run for run in asked if run.steps == 27]
    begun = [run for run in asked if run.paid == 0]
    assert answer.schedule == "recurring:3,6,18" and {run.length for run in asked} == {27}
    assert len(begun) > 2 * 20 and len(whole) < len(begun) / 2
    assert own.spent == sum(max(0.0, valley(run).cost - run.paid) for run in asked)


# --- hypergradients -------------------------------------------------------------------------------


def test_zeroth_order_means_are_the_hypergradient_of_a_quadratic() -> None:
    """T steps of gradient descent, a rate for each coordinate: the loss has a closed form."""
    curvature, steps = np.array([0.3, 1.0, 2.0]), 4
    x = np.log2([0.5, 0.4, 0.3])

    def f(place: np.ndarray) -> float:
        w = np.ones(3)
        for _ in range(steps):
            w = w - 2.0**place * curvature * w
        return float(curvature @ w**2) / 2

    rate = 2.0**x
    exact = -math.log(2) * rate * curvature**2 * steps * (1 - rate * curvature) ** (2 * steps - 1)
    assert np.allclose(estimated(f, x, np.eye(3) * 1.0, 1e-6), exact, rtol=1e-4)
    draw = np.random.default_rng(0)
    many = np.array([estimated(f, x, unit_vectors(1, 3, draw), 1e-4) for _ in range(4000)])
    error = many.std(axis=0) / math.sqrt(len(many))
    assert (np.abs(many.mean(axis=0) - exact) < 4 * error + 1e-3 * np.abs(exact)).all()
    assert (np.abs(many.mean(axis=0) / 3 - exact) > 4 * error).any()  # without the factor p


def small_model() -> tuple[nn.Module, Callable[[int], torch.Tensor]]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    x, y = torch.randn(6, 7, 3).double(), torch.randn(6, 7, 2).double()
    return model, lambda t: nn.functional.mse_loss(model(x[t % 6]), y[t % 6])


def after(rates: list[float], groups: list[int], decay: float) -> RateRecurrence:
    model, loss = small_model()
    factors = [1.0, 0.5, 2.0, 1.5]
    shares = [1.0, 0.0, 0.5, 2.0]
    weights = list(model.parameters())
    found = RateRecurrence(weights, groups, rates, factors, decay, shares, by_decay=True)
    for step in range(5):
        found.step(loss(step))
    return found


@pytest.mark.parametrize("groups", [[0, 0, 0, 0], [0, 1, 2, 3], [0, 0, 1, 1]])
def test_recurrences_of_rates_and_decay_are_finite_differences(groups: list[int]) -> None:
    rates, decay, h = [0.3, 0.2, 0.25, 0.15][: max(groups) + 1], 0.05, 1e-5
    found = after(rates, groups, decay)
    for k in range(len(rates)):
        up, down = ([x + s * h * (i == k) for i, x in enumerate(rates)] for s in (1, -1))
        pairs = zip(
            after(up, groups, decay).tensors, after(down, groups, decay).tensors, strict=True
        )
        for z, (one, other) in zip(found.by_rate[k], pairs, strict=True):
            assert torch.allclose(z, (one - other).detach() / (2 * h), rtol=1e-6, atol=1e-9)
    pairs = zip(
        after(rates, groups, decay + h).tensors,
        after(rates, groups, decay - h).tensors,
        strict=True,
    )
    for y, (one, other) in zip(found.by_decay or [], pairs, strict=True):
        assert torch.allclose(y, (one - other).detach() / (2 * h), rtol=1e-6, atol=1e-9)


def test_a_recurrence_without_the_hessian_is_no_derivative(monkeypatch: pytest.MonkeyPatch) -> None:
    right = after([0.3], [0] * 4, 0.0).by_rate[0]
    zeros = lambda g, w, v: [torch.zeros_like(x) for x in w]  # noqa: E731
    monkeypatch.setattr(online_hypergradients, "hessian_vector", zeros)
    wrong = after([0.3], [0] * 4, 0.0).by_rate[0]
    assert not torch.allclose(right[0], wrong[0], rtol=1e-2)


def test_slopes_of_rates_are_those_of_the_loss_held_out_and_rates_follow_them() -> None:
    def held_out(rate: float, decay: float = 0.2) -> tuple[float, RateRecurrence, torch.Tensor]:
        model, loss = small_model()
        own = RateRecurrence(list(model.parameters()), [0] * 4, [rate], decay=decay, by_decay=True)
        for step in range(5):
            own.step(loss(step))
        value = loss(5)
        return float(value.detach()), own, value

    value, own, loss = held_out(0.3)
    slope, pull = own.slopes(loss)
    h = 1e-5
    assert slope == pytest.approx((held_out(0.3 + h)[0] - held_out(0.3 - h)[0]) / (2 * h), rel=1e-6)
    ends = [held_out(0.3, 0.2 + s * h)[0] for s in (1, -1)]
    assert pull == pytest.approx((ends[0] - ends[1]) / (2 * h), rel=1e-6)
    own.descend([slope, pull], 0.1)
    assert own.rates[0] == pytest.approx(max(0.0, 0.3 - 0.1 * slope))
    assert own.decay == pytest.approx(max(0.0, 0.2 - 0.1 * pull))
    own.rates, own.decay = [0.3], 0.2
    own.descend_logs([slope / value, pull / value], 0.1)
    assert own.rates[0] == pytest.approx(0.3 * math.exp(-0.1 * 0.3 * slope / value))
    assert own.decay == pytest.approx(0.2 * math.exp(-0.1 * 0.2 * pull / value))


# --- the filter -----------------------------------------------------------------------------------


def test_the_filter_is_the_textbooks() -> None:
    """Mean and covariance by full matrices, for the same known shifts and noises."""
    draw = np.random.default_rng(0)
    own = IsotropicKalman([torch.zeros(3, dtype=torch.float64)], [2.0])
    mean, cov = np.zeros(3), 2.0 * np.eye(3)
    for _ in range(6):
        shift, seen = draw.normal(size=3), draw.normal(size=3)
        q, r = draw.uniform(0.1, 1, size=2)
        own.predict([torch.tensor(shift)], [q])
        mean, cov = mean + shift, cov + q * np.eye(3)
        own.update([torch.tensor(seen)], [r])
        gain = cov @ np.linalg.inv(cov + r * np.eye(3))
        mean, cov = mean + gain @ (seen - mean), (np.eye(3) - gain) @ cov
        assert np.allclose(own.mean[0].numpy(), mean, rtol=1e-10)
        assert np.allclose(own.variance[0] * np.eye(3), cov, rtol=1e-10)


def test_the_outlook_has_the_moments_of_samples() -> None:
    """f_(t+1) - f_t for d = m, with gradient and curvature drawn around their means."""
    draw = np.random.default_rng(1)
    m, alpha, count = np.array([1.0, -2.0, 0.5]), 0.7, 200_000
    p, q, s = 0.3, 0.2, 0.1
    product = np.array([0.5, -1.0, 2.0])  # B d
    g = m + math.sqrt(p) * draw.normal(size=(count, 3))
    h = product + math.sqrt(q) * draw.normal(size=(count, 3))
    noise = math.sqrt(s) * (draw.normal(size=count) - draw.normal(size=count))
    change = -alpha * g @ m + alpha**2 * h @ m / 2 + noise
    square = float(m @ m)
    outlook = Outlook(square, float(m @ product), s, p * square, q * square)
    assert outlook.mean(alpha) == pytest.approx(change.mean(), abs=5 * change.std() / count**0.5)
    assert outlook.deviation(alpha) == pytest.approx(change.std(), rel=0.01)
    wrong = replace(outlook, curvature_variance=4 * q * square)  # without the 1/4
    assert wrong.deviation(alpha) != pytest.approx(change.std(), rel=0.01)


def test_the_self_tuned_rate_of_a_quadratic_is_the_newton_step() -> None:
    w = nn.Parameter(torch.tensor([3.0, 3.0], dtype=torch.float64))
    own = SelfTuned([w], [1.0], 0.01)
    rates = [own.step([2.5 * (w * w).sum()] * 2) for _ in range(12)]
    assert rates[5] == pytest.approx(0.2, rel=0.03)
    assert float(w.detach().abs().max()) < 1e-6


# --- strategies and packages ----------------------------------------------------------------------


def test_every_strategy_has_a_file_and_a_source() -> None:
    for name, home in HOMES.items():
        module = __import__(f"empirical.tuning.{home}", fromlist=["STRATEGIES"])
        found = module.STRATEGIES[name]
        assert found.name == name and found.source
        head = ast.get_docstring(ast.parse(Path(str(module.__file__)).read_text()))
        assert (head and "Source:" in head) or name == "grid", home


def test_optuna_is_imported_by_the_files_that_need_it_alone() -> None:
    folder = ROOT / "empirical" / "tuning"
    using = {path.stem for path in folder.glob("*.py") if "optuna" in imported(path)}
    assert "optuna_studies" in using
    assert not using & {"tuning_strategy", "measuring_tuning", "search_space", "tuning_loop"}
    assert not using & {"zeroth_order", "online_hypergradients", "gradient_filter"}


def imported(path: Path) -> set[str]:
    """Packages and own files that a file imports, and optuna where these do."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            found.add(str(node.module).split(".")[0])
            if str(node.module).startswith("empirical.tuning."):
                found |= imported(path.with_name(f"{str(node.module).split('.')[-1]}.py"))
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
    return found


def test_a_package_that_is_missing_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(name="optuna")

    monkeypatch.setattr(tuning_strategy.importlib, "import_module", missing)
    with pytest.raises(InvalidInput, match="optuna") as refused:
        strategy("tpe")
    assert "scaling[tuning]" in refused.value.do_this
    with pytest.raises(InvalidInput, match="strategy 'tpr'") as unknown:
        strategy("tpr")
    assert "tpe" in unknown.value.do_this


def test_intervals_over_seeds_are_students() -> None:
    found = over_seeds([1.0, 2.0, 4.0])
    assert found.value == pytest.approx(7 / 3)
    assert found.high - found.value == pytest.approx(4.303 * 1.5275 / math.sqrt(3), rel=1e-3)


# --- weights of tasks -----------------------------------------------------------------------------


def test_the_hypergradient_of_weights_is_that_of_unrolled_steps() -> None:
    """At a w that its weighted tasks hold in place, so that every unrolled step is the same."""
    centres = torch.tensor([[1.0, 0.0], [-1.0, 2.0], [0.0, -1.0]], dtype=torch.float64)
    curved = torch.tensor([[1.0, 2.0], [0.5, 1.0], [2.0, 0.3]], dtype=torch.float64)
    wanted, rate = torch.tensor([0.3, -0.2], dtype=torch.float64), 0.2

    def pretraining(w: torch.Tensor, phi: torch.Tensor) -> torch.Tensor:
        each = (curved * (w - centres) ** 2).sum(1) / 2
        return (weights_of(phi) * each).sum() / 3

    phi = torch.tensor([0.2, -0.1, 0.4], dtype=torch.float64, requires_grad=True)
    a = weights_of(phi.detach())[:, None] * curved
    w = ((a * centres).sum(0) / a.sum(0)).requires_grad_()
    for terms in (1, 2, 5):
        moved = w.detach()
        for _ in range(terms):
            moved = moved.requires_grad_() if not moved.requires_grad else moved
            (g,) = torch.autograd.grad(pretraining(moved, phi), [moved], create_graph=True)
            moved = moved - rate * g
        held_out = ((moved - wanted) ** 2).sum()
        (exact,) = torch.autograd.grad(held_out, [phi])
        value = [2 * (w.detach() - wanted)]
        found = response(pretraining(w, phi), [w], value, phi, [rate], terms)
        assert torch.allclose(found, exact, rtol=1e-9), terms
        if terms > 1:
            short = response(pretraining(w, phi), [w], value, phi, [rate], 1)
            assert not torch.allclose(short, exact, rtol=1e-2)


# --- multi-objective, laws ------------------------------------------------------------------------


def test_hypervolumes_are_those_of_a_library() -> None:
    draw = np.random.default_rng(0)
    for count in (1, 2, 7, 20):
        points = [tuple(map(float, row)) for row in draw.uniform(0, 1.3, size=(count, 2))]
        inside = np.array([p for p in points if max(p) < 1]).reshape(-1, 2)
        exact = compute_hypervolume(inside, np.ones(2)) if len(inside) else 0.0
        assert hypervolume(points, (1.0, 1.0)) == pytest.approx(exact, rel=1e-12, abs=1e-15)
        best = front(points)
        assert hypervolume(best, (1.0, 1.0)) == hypervolume(points, (1.0, 1.0))
    assert hypervolume([(0.2, 0.5), (0.4, 0.1)], (1.0, 1.0)) == pytest.approx(0.8 * 0.5 + 0.6 * 0.4)


def test_trajectories_that_promise_nothing_are_stopped() -> None:
    """None of them diverges, which would end a run as well."""
    own, asked = task(16, space="lr=2^-12:2^-2.5", steps=16), []

    def train(run: TuningRun) -> TunedRun:
        asked.append(run)
        return valley(run)

    play(strategy("pareto").tune(own), own, train)
    whole = sum(run.steps == 16 for run in asked)
    begun = sum(run.paid == 0 for run in asked)
    assert whole < begun and begun > 16 and not own.diverged


def test_a_law_is_found_again_and_ranks_what_it_has_not_seen() -> None:
    true = RateLaw(0.2, 1.0, 0.6, 0.01, 0.3, 1.0)
    draw = np.random.default_rng(0)

    def runs(steps: int, count: int) -> list[ShortRun]:
        found = []
        for k in range(count):
            rate = float(2.0 ** draw.uniform(-6, 1))
            name = list(SCHEDULES)[k % 4]
            rates = tuple(rate * x for x in multipliers(name, steps))
            loss = true.loss(rates)
            log = math.log(loss) if math.isfinite(loss) else 3.0
            found.append(ShortRun(rates, log, not math.isfinite(loss)))
        return found

    seen, unseen = runs(12, 30), runs(48, 16)
    law = fitted(seen)
    for run in seen:
        if not run.diverged:
            assert math.log(law.loss(run.rates)) == pytest.approx(run.log_loss, abs=0.02)
    assert (
        0.7 < law.boundary < 1.4 and hits(law, unseen) >= 2 / 3 and divergence_f1(law, unseen) > 0.7
    )
    blind = replace(law, amplitude=0.0, annealing=0.0, noise=0.0, boundary=math.inf)
    assert divergence_f1(blind, unseen) == 0 < sum(run.diverged for run in unseen)
    s1, s2, peak = features((1.0, 0.5, 0.25))
    assert (s1, peak) == (1.75, 1.0) and s2 == pytest.approx(0.5 + (0.99 * 0.5 + 0.25))
