"""Sums over layers at any width: those of the numeric interpreter, over all layers and no fewer."""

from dataclasses import replace

import pytest
import torch
from test_wide import numbers, runs
from test_wide_rows import axis, normal
from wide_trials import (
    ROUNDED,
    ROUNDING,
    SAME_BITS,
    assert_same_numbers,
    least_p_value,
    on_two_machines,
    ruled,
    trial,
)

from derivations.catalogue import find
from empirical.limits.infinite_width import limits
from empirical.measure.calibration import calibrate
from empirical.measure.dense_steps import measure
from empirical.measure.measured_sizes import Quantity
from empirical.measure.trial import Trial
from empirical.numbers.interpreter import LayerTensors, State, evaluate_network
from empirical.wide import measure_wide, span_update
from empirical.wide import wide_steps as wide
from empirical.wide.implicit import ImplicitGaussian, Span
from empirical.wide.method import Path, path_of, refuse_unless_wide
from empirical.wide.noise import ROWS, Stream
from empirical.wide.rows import RowLearner
from empirical.wide.span_update import (
    Coordinates,
    LayerBatch,
    Learner,
    NetworkValues,
    Source,
    sums_over_layers,
)
from empirical.wide.weight import Weight
from scaling.models.chain import Activation
from scaling.rules.parser import parse
from scaling.sizes.errors import InvalidInput, NotCovered

ALPHA = 1e-3
SIDES = {"input": (12, 3), "hidden": (14, 12), "output": (2, 14)}
VALUES = {"rho_A": 0.3, "rho_B": 0.2, "bound": 0.05, "beta": 0.6, "eps": 0.01}
RULES = [
    str(find("kfac_clipped").rule),
    "G * over_layers(norm(ema(G, beta)) * over_layers(rms(G)))",
    "ema(G, beta) / over_layers(trace(A + norm(ema(L, beta))*I))",
    "norm(W) * G / over_layers(rms(W))",
    "eig(L) @ ((eig(L).T @ G)**3) / over_layers(norm(sqrt(ema((eig(L).T @ G)**2, beta))))",
    "sign(G) * over_layers(inner(ema(G, beta), G)) + row_mean(abs(G)) * trace(B)",
    "ema(G, beta) / (sqrt(ema(G*G, beta)) + eps) / over_layers(norm(G))",
]


@pytest.mark.parametrize("text", RULES)
def test_updates_of_all_layers_are_those_of_whole_matrices(text: str) -> None:
    rule, steps = parse(text), 3
    kind = Learner if path_of(rule) is Path.CORE else RowLearner
    sources, weights, whole = dict[str, Source](), dict[str, Weight](), dict[str, torch.Tensor]()
    for i, (name, (fan_out, fan_in)) in enumerate(SIDES.items()):
        above, below = axis(fan_out), axis(fan_in)
        weights[name] = Weight(ImplicitGaussian.between(above, below, 1.0, Stream(0, (i,))))
        sources[name] = Source(rule, VALUES, Coordinates(Span(above), Span(below), steps))
        weights[name].norm()  # before all is known of it
        whole[name] = above.values(weights[name] @ below.given(torch.eye(fan_in)))
    learners = {name: kind(source) for name, source in sources.items()}
    states = {name: State() for name in SIDES}
    for step in range(steps):
        seen, layers = dict[str, LayerBatch](), dict[str, LayerTensors]()
        for i, (name, (fan_out, fan_in)) in enumerate(SIDES.items()):
            d, h = normal(10 * step + i, fan_out, 4), normal(10 * step + i + 5, fan_in, 4)
            weight = weights[name]
            seen[name] = weight.rows.given(d), weight.columns.given(h), None, weight, frozenset()
            layers[name] = LayerTensors(h, d, whole[name])
        joint = sums_over_layers(sources, seen)
        found = {name: learners[name].update(*seen[name], joint[name]) for name in SIDES}
        values = dict.fromkeys(SIDES, VALUES)
        exact = evaluate_network(rule, layers, values, states, dense=True)
        for name, (_, fan_in) in SIDES.items():
            x = weights[name].columns.given(torch.eye(fan_in))
            ours = weights[name].rows.values(found[name] @ x)
            torch.testing.assert_close(ours, exact[name].dense(), rtol=1e-8, atol=1e-10)


# --- networks -----------------------------------------------------------------------------------


def clipped(bound: float) -> Trial:
    t = trial("kfac_clipped", activation=Activation.RELU)
    return replace(t, values={**t.values, "bound": bound})


def test_sums_of_fewer_layers_are_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    t = clipped(0.01)
    constants = calibrate(t, 48)
    theirs = runs(lambda seed: numbers(measure(t, constants, 48, seed)), 40)

    def alone(
        sources: dict[str, Source], seen: dict[str, LayerBatch], told: dict[str, NetworkValues]
    ) -> dict[str, NetworkValues]:
        one = span_update.sums_over_layers
        return {n: one({n: sources[n]}, {n: seen[n]}, {n: told[n]})[n] for n in sources}

    monkeypatch.setattr(wide, "sums_over_layers", alone)
    wrong = runs(lambda seed: numbers(measure_wide(t, constants, 48, seed)), 40)
    assert least_p_value(wrong, theirs) < ALPHA


def test_a_sample_of_rows_is_told_the_sum() -> None:
    t = ruled("sign(G) / over_layers(norm(G))")
    assert path_of(t.problem.rule, own_only=True) is Path.SAMPLE
    constants = calibrate(t, 48)

    def own(one: object) -> dict[str, list[float]]:
        return runs(
            lambda seed: {
                name: x.own
                for name, x in one(t, constants, 48, seed, quantity=Quantity.OWN).sizes.items()  # type: ignore[operator]
            },
            40,
        )

    assert least_p_value(own(measure_wide), own(measure)) > ALPHA


@pytest.mark.parametrize("options", [*SAME_BITS, *ROUNDED])
def test_workers_and_memory_change_no_bit_and_chunks_no_more_than_rounding(
    options: dict[str, int],
) -> None:
    found = on_two_machines(clipped(0.01), 3 * ROWS + 17, 2, options)
    assert_same_numbers(*map(numbers, found), options, ROUNDING[torch.float64])


def test_the_limit_knows_the_sum() -> None:
    gaps = []
    t = clipped(0.01)
    constants = calibrate(t, 64)
    free = limits(clipped(1e9), constants, 300)
    for width in (300, 30_000):
        limit = limits(t, constants, width)
        ratios = {free[name].own / limit[name].own for name in limit}
        assert max(ratios) == pytest.approx(min(ratios), rel=1e-6) and min(ratios) > 2  # it binds
        found = [measure_wide(t, constants, width, seed).sizes for seed in range(6)]
        gaps.append(max(abs(x[n].own / limit[n].own - 1) for x in found for n in limit))
    assert gaps[1] < 0.05 and 3 < gaps[0] / gaps[1] < 30, gaps


def test_sums_of_what_sees_entries_are_refused_by_name() -> None:
    rule = parse("G / over_layers(norm(abs(G)))")
    with pytest.raises(InvalidInput, match=r"found: 'over_layers\(norm\(abs\(G\)\)\)' in"):
        refuse_unless_wide(rule)
    t = ruled("sign(G) / over_layers(norm(G))")
    with pytest.raises(NotCovered, match="the entrywise rule"):
        limits(t, calibrate(t, 16), 64)
