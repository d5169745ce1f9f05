"""Steps at any width: in law those of dense networks, and the same however they are computed."""

import math
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from sympy import Rational
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

from empirical import RuleOptimizer
from empirical.data.sources import Data, given, load
from empirical.measure.calibration import calibrate
from empirical.measure.dense_steps import measure
from empirical.measure.measured_sizes import Measurement
from empirical.measure.training import dense_network, loss_of
from empirical.measure.trial import Constants, Trial
from empirical.numbers.interpreter import LayerTensors, State, evaluate
from empirical.wide import Streaming, measure_wide
from empirical.wide.activations import ACTIVATIONS, EntryFunction
from empirical.wide.method import Path, path_of, refuse_unless_wide
from empirical.wide.noise import ROWS
from scaling.models.chain import Activation, Loss
from scaling.rules.parser import parse
from scaling.sizes.errors import InvalidInput

ALPHA = 1e-3
SEEDS = 40
Run = Callable[[int], Mapping[str, float]]


def numbers(measurement: Measurement) -> dict[str, float]:
    sizes = {
        f"{quantity} of {name}": getattr(sizes, quantity)
        for name, sizes in measurement.sizes.items()
        for quantity in ("init", "own", "feature")
    }
    sums = {
        f"term {i} of {total} in {layer}": term
        for (layer, total), terms in measurement.sums.items()
        for i, term in enumerate(terms)
    }
    return {**sizes, **sums}


def runs(one: Run, seeds: int = SEEDS) -> dict[str, list[float]]:
    found = [one(seed) for seed in range(seeds)]
    return {name: [run[name] for run in found] for name in found[0]}


# --- in law what dense networks do --------------------------------------------------------------

FREE = ("c_input=0", "c_hidden=0")  # what a readout of zeros leaves open
TRIALS = {
    "sgd": trial("sgd", 4, Activation.RELU, Loss.CROSS_ENTROPY, biases=True),
    "kfac": trial("kfac", settings=["b_output=1/2"]),
    "kfac with the true Fisher": trial("kfac", activation=Activation.RELU, fisher=True),
    "shampoo": trial("shampoo", 2, Activation.RELU),
    "foof": trial("foof", loss=Loss.CROSS_ENTROPY, settings=["a_hidden=1/2", "b_output=oo", *FREE]),
    "muon": trial("muon", activation=Activation.ERF, biases=True),
    "normalized sgd": trial("normalized_sgd", 4),
    "kfac, left only": trial("kfac_left_only", activation=Activation.GELU),
    "sign": trial("sign", 4, biases=True),
    "adam": trial("adam", activation=Activation.RELU, loss=Loss.CROSS_ENTROPY),
    "lars": trial("lars", activation=Activation.RELU, biases=True),
    "lamb": trial("lamb"),
    "adafactor, relative": trial("adafactor_relative", activation=Activation.RELU),
    "shampoo, blocked": trial("shampoo_blocked", activation=Activation.RELU),
    "kfac, clipped": trial("kfac_clipped", settings=["bound=1/100"], biases=True),
    "soap, one side": trial("soap_one_sided", activation=Activation.RELU),
    "a sum over layers beside entries": ruled("sign(G) / over_layers(norm(G))"),
    "decay": ruled("G + shrink*W"),
    "decay of a sign": ruled("sign(G) + rms(W)*shrink*W"),
}


@pytest.mark.parametrize("name", TRIALS)
def test_a_step_has_the_law_of_a_dense_network(name: str) -> None:
    t, width = TRIALS[name], 256 if name == "kfac" else 48
    constants = calibrate(t, width)
    ours = runs(lambda seed: numbers(measure_wide(t, constants, width, seed)))
    theirs = runs(lambda seed: numbers(measure(t, constants, width, seed)))
    assert least_p_value(ours, theirs) > ALPHA


def test_a_wrong_initialisation_is_rejected() -> None:
    right = trial("kfac")
    b = {**right.exponents.b, "hidden": Rational(11, 20)}
    wrong = replace(right, exponents=replace(right.exponents, b=b))
    constants = calibrate(right, 48)
    ours = runs(lambda seed: numbers(measure_wide(wrong, constants, 48, seed)))
    theirs = runs(lambda seed: numbers(measure(right, constants, 48, seed)))
    assert least_p_value(ours, theirs) < ALPHA


def two_dense_steps(t: Trial, constants: Constants, width: int, seed: int) -> dict[str, float]:
    """Two steps of a dense network: own and feature, as changes since the start."""
    scales = t.scales(width, constants)
    model = dense_network(t, scales, width, seed)
    rule, names = t.problem.rule, dict(t.layers())
    values: dict[str, object] = {
        s: {n: scales[layer.name].scaled[s] for n, layer in names.items()} for s in rule.scaled
    }
    given_values = {**t.values, **{k: float(v) for k, v in t.problem.settings.exponents.items()}}
    values |= {s: given_values[s] for s in (*rule.constants, *rule.exponents)}
    rates = {n: scales[layer.name].lr for n, layer in names.items()}
    optimizer = RuleOptimizer(model, rule, rates, values)
    first = {n: model.get_parameter(_tensor(n)).detach().clone() for n in names}
    probe = t.data.probe_inputs
    before = [h.detach() for h in model.hidden(probe)]
    for _ in range(2):
        optimizer.zero_grad()
        loss_of(t.problem.setting.loss, model(t.data.inputs), t.data.targets).backward()
        optimizer.step()
    after = [h.detach() for h in model.hidden(probe)]
    found = {}
    for n, layer in names.items():
        moved = model.get_parameter(_tensor(n)).detach() - first[n]
        l = layer.position - 1
        source = scales[layer.name].multiplier * (before[l - 1] if l else probe)
        own = moved if layer.is_bias else source @ moved.T
        found[f"own of {layer.name}"] = float(own.square().mean().sqrt())
        found[f"feature of {layer.name}"] = float((after[l] - before[l]).square().mean().sqrt())
    return found


def _tensor(name: str) -> str:
    return name if name.endswith("bias") else f"{name}.weight"


TWO_STEPS = {
    "kfac": trial("kfac", activation=Activation.RELU),
    "momentum": trial("momentum", activation=Activation.RELU, biases=True),
    "shampoo": trial("shampoo", activation=Activation.RELU),
    "lars": trial("lars", activation=Activation.RELU),
    "kfac, clipped": trial("kfac_clipped", settings=["bound=1/100"]),
    "soap, one side": trial("soap_one_sided", activation=Activation.RELU),
    "averages in a sum over layers": ruled("G / over_layers(norm(ema(G, beta)))"),
    "decay of the weights": ruled("norm(W) / norm(G) * G + shrink*W"),
    "decay beside entries": ruled("sign(ema(G, beta)) + shrink*W"),
}


@pytest.mark.parametrize("name", TWO_STEPS)
def test_two_steps_have_the_law_of_a_dense_network(name: str) -> None:
    t = TWO_STEPS[name]
    constants = calibrate(t, 48)

    def wide(seed: int) -> dict[str, float]:
        found = numbers(measure_wide(t, constants, 48, seed, steps=2))
        return {k: x for k, x in found.items() if k.startswith(("own", "feature"))}

    ours, theirs = runs(wide), runs(lambda seed: two_dense_steps(t, constants, 48, seed))
    assert least_p_value(ours, theirs) > ALPHA


def test_the_second_step_is_felt() -> None:
    t = trial("kfac", activation=Activation.RELU)
    constants = calibrate(t, 48)
    one = runs(lambda seed: numbers(measure_wide(t, constants, 48, seed)))
    two = runs(lambda seed: numbers(measure_wide(t, constants, 48, seed, steps=2)))
    assert least_p_value(one, two) < ALPHA


# --- the same numbers however they are made -----------------------------------------------------


def test_chunks_are_as_long_as_a_cache_and_half_of_the_memory_hold() -> None:
    plain = Streaming()
    assert [plain.rows(size) // ROWS for size in (1, 1000, 2000, 10**6)] == [8, 4, 2, 1]
    assert Streaming(workers=2, memory_limit=2**26).rows(1000) == 2 * ROWS
    assert Streaming(chunk=2 * ROWS).rows(1000) == 2 * ROWS
    assert plain.rows(2000, before=8 * ROWS) == 8 * ROWS
    assert Streaming(memory_limit=2**26).rows(2000, before=8 * ROWS) == 2 * ROWS
    for size in (290, 400, 1000, 3000):  # a pass that needs twice as much has half as many
        little = Streaming(memory_limit=2**25)
        before = little.rows(size)
        assert little.rows(2 * size, before=before) >= max(before // 2, ROWS)
    assert Streaming(device="cuda").rows(1000) > 8 * ROWS


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("options", [*SAME_BITS, *ROUNDED])
def test_workers_and_memory_change_no_bit_and_chunks_no_more_than_rounding(
    options: dict[str, int], dtype: torch.dtype
) -> None:
    found = on_two_machines(trial("kfac", biases=True), 3 * ROWS + 17, 2, options, dtype)
    assert_same_numbers(*map(numbers, found), options, ROUNDING[dtype])


@pytest.mark.parametrize(("dtype", "part"), [(torch.float32, 230), (torch.float64, 300)])
def test_chunks_are_equally_long_in_all_passes_kept_or_made_again(
    dtype: torch.dtype, part: int
) -> None:
    """Of ``part`` MiB chunks fill less than half, and what is kept does not fit.

    The control: with memory for short chunks alone, sums are rounded in another way.
    """
    t = trial("kfac", biases=True)
    constants, width = calibrate(t, 48), 44 * ROWS + 5

    def under(memory_limit: int, workers: int = 1) -> dict[str, float]:
        machine = Streaming(dtype, memory_limit, workers)
        return numbers(measure_wide(t, constants, width, 5, 2, machine))

    usual = under(2**30)
    assert under(part * 2**20) == under(2**30, workers=3) == usual
    assert under(2**25) != usual
    assert under(2**25) == pytest.approx(usual, rel=ROUNDING[dtype])


THREADS_OF_WORKERS = """
from concurrent.futures import ThreadPoolExecutor
import torch
from threadpoolctl import threadpool_info
from empirical.measure.machine import blas_threads
from empirical.wide.noise import ROWS
from empirical.wide.passes import Workers, mapped

draw = torch.Generator().manual_seed(0)
x, c = (torch.randn(10, rows, generator=draw) for rows in (ROWS, 10))

def product(rows):
    found = [x["num_threads"] for x in threadpool_info() if x["user_api"] == "openmp"]
    return max(found), torch.mm(x.T, c)

with blas_threads(1):
    one, alone = product(None)
    left, _ = ThreadPoolExecutor(1).submit(product, None).result()
found = list(mapped(product, [slice(0, 1)] * 3, 2, Workers.THREADS))
print(one, left, [n for n, _ in found], all(torch.equal(alone, y) for _, y in found))
"""


def test_workers_compute_on_one_thread_each() -> None:
    """With more, products of ten columns are cut in two, and rounded in another way.

    The control: a new thread that is left as it is has all that the process was given.
    """
    run = [sys.executable, "-c", THREADS_OF_WORKERS]
    env = {**os.environ, "OMP_NUM_THREADS": "2"}
    done = subprocess.run(run, env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "1 2 [1, 1, 1] True\n"


def test_a_seed_gives_its_numbers_again_and_another_seed_others() -> None:
    t = trial("kfac")
    constants = calibrate(t, 64)
    one, again, other = (numbers(measure_wide(t, constants, 5000, s)) for s in (3, 3, 4))
    assert one == again
    assert all(one[name] != other[name] for name in one if not name.startswith("term"))


def test_float32_is_float64_up_to_its_accuracy() -> None:
    t = trial("sgd", settings=["b_output=1/2", "c=1"])  # features move by M^(-1/2) and less
    constants = calibrate(t, 64)
    sizes = [
        [
            measure_wide(t, constants, 20_000, seed, 1, machine).sizes["hidden"].feature
            for seed in range(12)
        ]
        for machine in (Streaming(torch.float32), Streaming(torch.float64))
    ]
    assert least_p_value({"feature": sizes[0]}, {"feature": sizes[1]}) > ALPHA


PLAIN = {
    "tanh": torch.tanh, "relu": torch.relu, "erf": torch.erf, "gelu": torch.nn.functional.gelu,
    "linear": lambda u: u,
}  # fmt: skip


@pytest.mark.parametrize("name", PLAIN)
def test_changes_are_accurate_however_small_they_are(name: str) -> None:
    def made(function: EntryFunction, *arguments: torch.Tensor) -> torch.Tensor:
        before = [x.clone() for x in arguments]
        function(*arguments, out=(out := torch.full_like(arguments[0], math.nan)))
        assert all(map(torch.equal, arguments, before)), "others read them too"
        return out

    u = torch.linspace(-3, 3, 41, dtype=torch.float64) + 0.01
    phi, point = ACTIVATIONS[name], u.clone().requires_grad_()
    (exact,) = torch.autograd.grad([PLAIN[name](point).sum()], [point])
    torch.testing.assert_close(made(phi.value, u), PLAIN[name](u), rtol=0, atol=0)
    slope = made(phi.slope, u, torch.full_like(u, 2.0))
    torch.testing.assert_close(slope, 2 * exact, rtol=1e-10, atol=1e-12)
    for v in (0.7, -4.0):
        change = made(phi.change, u, torch.full_like(u, v))
        torch.testing.assert_close(
            change, PLAIN[name](u + v) - PLAIN[name](u), rtol=1e-9, atol=1e-12
        )
    small = made(phi.change, u.float(), torch.full_like(u, 1e-6).float()).double()
    torch.testing.assert_close(small, 1e-6 * exact, rtol=1e-3, atol=1e-11)


# --- data that leave directions out -------------------------------------------------------------


def _repeated() -> Data:
    data = load("digits", samples=3, probe=4)
    twice = [0, 0, 1, 2, 2]
    return given(data.inputs[twice], data.targets[twice], data.probe_inputs, data.probe_targets)


def _narrow() -> Data:
    """More samples than inputs."""
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(9, 2)), np.eye(3)[draw.integers(0, 3, 9)]
    return given(x[:6], y[:6], x[6:], y[6:])


@pytest.mark.parametrize("data", [_repeated(), _narrow()], ids=["repeated", "narrow"])
@pytest.mark.parametrize("name", ["kfac", "shampoo", "muon"])
def test_degenerate_data_have_the_law_of_a_dense_network(name: str, data: Data) -> None:
    t = trial(name, activation=Activation.RELU, data=data)
    constants = calibrate(t, 24)
    ours = runs(lambda seed: numbers(measure_wide(t, constants, 24, seed)), 40)
    theirs = runs(lambda seed: numbers(measure(t, constants, 24, seed)), 40)
    assert least_p_value(ours, theirs) > ALPHA


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_repeated_samples_count_as_one_direction_at_a_large_width(dtype: torch.dtype) -> None:
    t = trial("muon", data=_repeated())
    constants = calibrate(t, 64)
    sizes = measure_wide(t, constants, 30_000, 0, streaming=Streaming(dtype)).sizes
    exact = measure_wide(t, constants, 30_000, 0, streaming=Streaming(torch.float64)).sizes
    for name, x in sizes.items():
        assert x.own == pytest.approx(exact[name].own, rel=0.03)


# --- exponents ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["kfac", "shampoo"])
def test_own_updates_do_not_depend_on_the_width(name: str) -> None:
    t = trial(name)
    widths = [10**2, 10**3, 10**4, 10**5, 10**6]
    constants = calibrate(t, 100)
    logs = np.array(
        [
            [
                [math.log(x.own) for x in measure_wide(t, constants, w, seed).sizes.values()]
                for seed in range(4 if w < 10**5 else 1)
            ]
            for w in widths
        ],
        dtype=object,
    )
    means = np.array([np.mean(np.array(list(x), dtype=float), axis=0) for x in logs])
    slopes = np.polyfit(np.log(widths[1:]), means[1:], 1)[0]
    assert np.abs(slopes).max() < 0.01


# --- rules, and what is refused -----------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "G",
        "orth(G)",
        "G / norm(G)",
        "ema(G, beta)",
        "(L + rho*I)**(-1/4) @ G @ (R + rho*I)**(-1/4)",
        "(B / trace(B) + rho*I)**(-1/2) @ G",
        "G + orth(G)",
        "sqrt(trace(A) / fan_in) * G",
        "norm(W) / norm(G) * (G + lam*W)",
    ],
)
def test_spectral_rules_stay_in_the_span_of_the_data(text: str) -> None:
    assert path_of(parse(text)) is Path.CORE


@pytest.mark.parametrize(
    "text",
    [
        "sign(G)",
        "G / (sqrt(G*G) + eps)",
        "(diag(L) + rho*I)**(-1/2) @ G",
        "G - row_mean(G)",
        "G**3",
        "sign((B + rho*I)**(-1) @ G)",
        "G / (norm(abs(G)) + specnorm(A))",
        "G @ (block(A, 4) + rho*I)**(-1)",
        "-(rms(W) * sign(G) - lam*W)",
    ],
)
def test_rules_that_see_entries_go_by_rows(text: str) -> None:
    assert path_of(parse(text)) is Path.ROWS


@pytest.mark.parametrize(
    ("text", "node"),
    [
        ("W", "W"),
        ("sign(W) + G", "sign(W)"),
        ("G + specnorm(W)*W", "specnorm(W)"),
        ("ema(G + lam*W, beta)", "ema(G + lam*W, beta)"),
        ("atan(G + lam*W)", "lam*W"),
        ("G*W", "G*W"),
        ("G @ (block(A, 300) + rho*I)**(-1)", "block(A, 300)"),
        ("(block(B, 100) + rho*I)**(-1) @ G @ block(A, 101)", "block(A, 101)"),
        ("orth(sign(G))", "orth(sign(G))"),
        ("(B + rho*I)**(-1) @ sign(G)", "(B + rho*I)**(-1) @ sign(G)"),
        ("G / specnorm(abs(G))", "specnorm(abs(G))"),
        ("G @ (diag(A) + A)**(-1)", "diag(A) + A"),
    ],
)
def test_a_refusal_names_the_node(text: str, node: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        refuse_unless_wide(parse(text))
    assert refusal.value.found.startswith(f"'{node}' in")


def test_widths_that_rows_cannot_reach_are_refused() -> None:
    t = trial("adam")
    constants = calibrate(t, 16)
    with pytest.raises(InvalidInput, match=r"found: the width 10,000,000 for '.*' in adam"):
        measure_wide(t, constants, 10**7, 0)
    with pytest.raises(InvalidInput, match="found: steps=0"):
        measure_wide(trial("sgd"), constants, 100, 0, steps=0)
    with pytest.raises(InvalidInput, match="found: sampled_rows=0"):
        measure_wide(trial("sign"), constants, 100, 0, sampled_rows=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"chunk": 1000}, f"found: chunks of 1000 neurons\nneeded: a multiple of {ROWS}"),
        ({"workers": 0}, "found: workers=0"),
        ({"memory_limit": 0}, "found: memory_limit=0"),
        ({"dtype": torch.int32}, "found: dtype=torch.int32"),
    ],
)
def test_bad_options_are_named(options: dict[str, int], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        Streaming(**options)


# --- the interpreter, told the true sides -------------------------------------------------------

SPECTRAL = [
    "(B + rho_B*I)**(-1) @ G @ (A + rho_A*I)**(-1/2)",
    "(L + rho_A*I)**(-1/4) @ G @ (R + rho_B*I)**(-1/4)",
    "(B / (trace(B) / fan_out) + rho_A*I)**(-1/2) @ G / (rms(G) + rho_B)",
    "orth(G) * sqrt(fan_out / fan_in) / (norm(A) + rms(B) + specnorm(L))",
    "ema(G, beta) @ (ema(A, beta) + rho_A*I)**(-1)",
]


@pytest.mark.parametrize("text", SPECTRAL)
@pytest.mark.parametrize("sides", [(40, 30), (9, 30)], ids=["both longer", "one short"])
def test_coordinates_with_true_sides_give_what_the_matrices_give(
    text: str, sides: tuple[int, int]
) -> None:
    rule, draw = parse(text), torch.Generator().manual_seed(0)
    values = {"rho_A": 0.3, "rho_B": 0.2, "beta": 0.7}
    states = State(), State()
    bases = [
        torch.linalg.qr(torch.randn(s, min(s, 12), generator=draw, dtype=torch.float64)).Q
        for s in sides
    ]
    for _ in range(3):
        small = [torch.randn(b.shape[1], 4, generator=draw, dtype=torch.float64) for b in bases]
        d, h = (b @ x for b, x in zip(bases, small, strict=True))
        whole = evaluate(rule, LayerTensors(h, d, torch.zeros(sides).double()), values, states[0])
        rows = small[0], small[1]
        w = torch.zeros(len(rows[0]), len(rows[1]), dtype=torch.float64)
        layer = LayerTensors(rows[1], rows[0], w, sides=sides)
        core = evaluate(rule, layer, values, states[1])
        expected = bases[0] @ core.dense() @ bases[1].T
        torch.testing.assert_close(whole.dense(), expected, rtol=1e-9, atol=1e-12)
        assert float(whole.rms()) == pytest.approx(float(core.rms()), rel=1e-9)


def test_more_coordinates_than_a_side_is_long_are_refused() -> None:
    x = torch.zeros(5, 2, dtype=torch.float64)
    with pytest.raises(InvalidInput, match="found: a side of length 4, for which 5 coordinates"):
        LayerTensors(x, x, torch.zeros(5, 5, dtype=torch.float64), sides=(4, 5))
