"""One measured step against the same step written out in numpy, on dense float64 matrices."""

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from dense_layers import Array, power
from scipy.special import softmax
from tour import tour

from derivations.catalogue import catalogue
from empirical import RuleOptimizer
from empirical.data.sources import Data, given, load
from empirical.measure import dense_steps
from empirical.measure.calibration import calibrate
from empirical.measure.dense_steps import READOUTS, measure
from empirical.measure.machine import blas_threads, check_memory, pick_device
from empirical.measure.measured_sizes import MOST_NETWORKS, Measurement, measure_mean
from empirical.measure.parametrize import draw_
from empirical.measure.training import damped_sums, dampings_in
from empirical.measure.trial import Constants, Trial
from empirical.networks import MLP
from empirical.numbers.basis import EIGENVALUE_ZERO, triangular_root
from empirical.verify.single import measure_once
from scaling.models.chain import Activation, Loss, Setting, mlp
from scaling.models.settings import Settings, exact, read_settings
from scaling.rules.parser import parse
from scaling.sizes.errors import InvalidInput, NotCovered
from scaling.solve.derive import derive
from scaling.solve.symmetry import move, shift
from scaling.states.problem import Problem

PHI = {
    Activation.TANH: (np.tanh, lambda u: 1 - np.tanh(u) ** 2),
    Activation.RELU: (lambda u: np.maximum(u, 0), lambda u: (u > 0).astype(float)),
}


def small(samples: int = 5, probe: int = 7, features: int = 6, classes: int = 3) -> Data:
    draw = np.random.default_rng(0)
    x = draw.standard_normal((samples + probe, features))
    y = np.eye(classes)[draw.integers(classes, size=samples + probe)]
    return given(x[:samples], y[:samples], x[samples:], y[samples:])


def trial_of(
    rule: str,
    *settings: str,
    setting: Setting | None = None,
    data: Data | None = None,
) -> Trial:
    declared = catalogue().get(rule)
    parsed = declared.rule if declared else parse(rule)
    setting = setting or Setting()
    chosen = read_settings(settings, parsed, setting.layers)
    powers = {k: exact(str(v)) for k, v in declared.exponents.items()} if declared else {}
    chosen = replace(chosen, exponents={**powers, **chosen.exponents})
    solved = derive(parsed, Settings(exponents=chosen.exponents), setting).exponents
    values = {**(declared.values if declared else {}), **chosen.values}
    problem = Problem(parsed, setting, chosen)
    return Trial(problem, solved.updated(chosen), values, data or small())


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with blas_threads(1):
        yield


# --- against numpy ------------------------------------------------------------------------------


class Step(NamedTuple):
    """What is drawn, and what one step makes of it, by layer name."""

    own: dict[str, float]
    feature: dict[str, float]
    init: dict[str, float]


def rms(x: Array) -> float:
    return float(np.sqrt(np.mean(np.square(x))))


def drawn(shape: tuple[int, ...], std: float, seed: int, width: int, index: int) -> Array:
    tensor = torch.empty(shape, dtype=torch.float64)
    draw_(tensor, std, seed, width, index)
    return tensor.numpy()


def kfac(h: Array, d: Array, rho: Mapping[str, float]) -> Array:
    n = h.shape[1]
    left, right = power(d @ d.T / n, -1, rho["rho_B"]), power(h @ h.T / n, -1, rho["rho_A"])
    return left @ d @ h.T @ right / n


def sgd(h: Array, d: Array, rho: Mapping[str, float]) -> Array:
    return d @ h.T / h.shape[1]


RULES = {"sgd": sgd, "kfac": kfac}


def by_hand(trial: Trial, constants: Constants, width: int, seed: int) -> Step:
    """Forward, backward and one step, without autograd, hooks or the interpreter."""
    setting, data, update = trial.problem.setting, trial.data, RULES[trial.problem.rule.name]
    phi, slope = PHI[setting.activation]
    layers, depth = setting.layers, setting.depth
    table = trial.exponents
    numbers = {
        layer.name: {
            "std": {"input": data.features**-0.5}.get(layer.name, 0.5 if layer.is_bias else 1.0)
            * width ** -float(table.b[layer.name]),
            "lr": constants.eta[layer.name] * width ** -float(table.c[layer.name]),
            "multiplier": width ** -float(table.a[layer.name]),
            "rho": {
                k: constants.rho[layer.name][k] * width ** -float(d)
                for k, d in table.d[layer.name].items()
            },
        }
        for layer in layers
    }
    fans = [data.features, *[width] * (depth - 1), data.classes]
    weights, offsets = {}, {}
    for index, layer in enumerate(layers):
        fan_in, fan_out = fans[layer.position - 1], fans[layer.position]
        shape = (fan_out,) if layer.is_bias else (fan_out, fan_in)
        x = drawn(shape, numbers[layer.name]["std"], seed, width, index)
        (offsets if layer.is_bias else weights)[layer.position] = x
    name = {(layer.position, layer.is_bias): layer.name for layer in layers}

    def forward(x: Array) -> tuple[list[Array], list[Array]]:
        inputs, outputs, h = [], [], x.T
        for l in range(1, depth + 1):
            inputs.append(numbers[name[l, False]]["multiplier"] * h)
            u = weights[l] @ inputs[-1] + offsets.get(l, np.zeros(fans[l]))[:, None]
            outputs.append(u)
            h = phi(u) if l < depth else u
        return inputs, outputs

    inputs, outputs = forward(data.inputs.numpy())
    y = data.targets.numpy().T
    d = outputs[-1] - y if setting.loss is Loss.MSE else softmax(outputs[-1], axis=0) - y
    deltas = {depth: d}
    for l in range(depth, 1, -1):
        back = numbers[name[l, False]]["multiplier"] * weights[l].T @ deltas[l]
        deltas[l - 1] = back * slope(outputs[l - 2])
    probe_inputs, before = forward(data.probe_inputs.numpy())
    own, offset = {}, offsets.get(depth, np.zeros(1))
    for layer in layers:
        l, numbers_of = layer.position, numbers[layer.name]
        h = np.ones((1, y.shape[1])) if layer.is_bias else inputs[l - 1]
        source = np.ones((1, 1)) if layer.is_bias else probe_inputs[l - 1]
        step = numbers_of["lr"] * update(h, deltas[l], numbers_of["rho"])
        own[layer.name] = rms(step @ source)
        if layer.is_bias:
            offsets[l] = offsets[l] - step[:, 0]
        else:
            weights[l] = weights[l] - step
    _, after = forward(data.probe_inputs.numpy())
    pairs = [(phi(u), phi(v)) for u, v in zip(before, after, strict=True)]
    pairs[-1] = before[-1], after[-1]
    std = numbers["output"]["std"]
    overlaps = torch.from_numpy(probe_inputs[-1].T @ probe_inputs[-1])
    zero = EIGENVALUE_ZERO * float(overlaps.diagonal().max())
    k = triangular_root(overlaps, zero, min(probe_inputs[-1].shape))[0].numpy()
    others = drawn(((READOUTS - 1) * fans[-1], len(k)), std, seed, width, len(layers) + 1)
    other = rms(others @ k) ** 2 + np.mean(np.square(offset))
    readouts = [rms(before[-1]) ** 2, *[other] * (READOUTS - 1)]
    init = {layer.name: rms(pairs[layer.position - 1][0]) for layer in layers}
    init["output"] = math.sqrt(np.mean(readouts))
    init |= {layer.name: numbers[layer.name]["std"] for layer in layers if layer.is_bias}
    feature = {x.name: rms(pairs[x.position - 1][1] - pairs[x.position - 1][0]) for x in layers}
    return Step(own, feature, init)


MULTIPLIERS = ("a_input=1/4", "a_hidden=1/2", "a_output=-1/4")


@pytest.mark.parametrize("biases", [False, True], ids=["", "biases"])
@pytest.mark.parametrize("settings", [(), MULTIPLIERS], ids=["a=0", "a"])
@pytest.mark.parametrize("loss", list(Loss))
@pytest.mark.parametrize(("rule", "depth", "phi"), [
    ("sgd", 3, Activation.RELU), ("kfac", 3, Activation.TANH), ("kfac", 2, Activation.RELU),
])  # fmt: skip
def test_every_size_is_that_of_the_step_written_out(
    rule: str, depth: int, phi: Activation, loss: Loss, settings: tuple[str, ...], biases: bool
) -> None:
    setting = Setting(mlp(depth, biases), phi, loss)
    settings = tuple(x for x in settings if depth > 2 or "hidden" not in x)
    trial = trial_of(rule, *settings, setting=setting)
    constants = calibrate(trial, 8)
    width, seed = 12, 3
    found = measure(trial, constants, width, seed).sizes
    expected = by_hand(trial, constants, width, seed)
    for layer in setting.layers:
        for quantity in ("init", "own", "feature"):
            ours, theirs = getattr(found[layer.name], quantity), getattr(expected, quantity)
            assert ours == pytest.approx(theirs[layer.name], rel=1e-9), (layer.name, quantity)


def test_a_wrong_step_is_told_from_the_right_one() -> None:
    trial = trial_of("kfac")
    constants = calibrate(trial, 8)
    found = measure(trial, constants, 12, 0).sizes
    rho = {name: {k: 1.01 * x for k, x in of.items()} for name, of in constants.rho.items()}
    wrong = by_hand(trial, replace(constants, rho=rho), 12, 0)
    for name, x in found.items():
        assert x.own != pytest.approx(wrong.own[name], rel=1e-4), name
        assert x.feature != pytest.approx(wrong.feature[name], rel=1e-4), name


BOUNDED = ("clipped_sgd", "sophia")  # a bound of order one is not homogeneous: no symmetry


@pytest.mark.parametrize("rule", BOUNDED)
def test_a_rule_with_a_bound_has_no_abc_symmetry(rule: str) -> None:
    trial = trial_of(rule)
    with pytest.raises(NotCovered, match="scale differently"):
        shift(trial.problem.rule, t="1/2", exponents=trial.problem.settings.exponents)


@pytest.mark.parametrize("rule", [name for name in tour() if name not in BOUNDED])
def test_the_abc_symmetry_leaves_every_size_as_it_was(rule: str) -> None:
    trial = trial_of(rule)
    constants = calibrate(trial, 16)
    by = shift(trial.problem.rule, t="1/2", exponents=trial.problem.settings.exponents)
    moved = replace(trial, exponents=move(trial.exponents, by))
    assert set(moved.exponents.a.values()) == {exact("1/2")}
    for width in (16, 40):
        here, there = measure(trial, constants, width, 1), measure(moved, constants, width, 1)
        assert same(here, there, rel=1e-7), (here.sizes, there.sizes)
    half_moved = replace(trial, exponents=replace(moved.exponents, b=trial.exponents.b))
    assert not same(measure(half_moved, constants, 40, 1), there, rel=1e-3)


def same(x: Measurement, y: Measurement, rel: float = 0.0) -> bool:
    ours, theirs = ({k: s.known() for k, s in m.sizes.items()} for m in (x, y))
    return all(theirs[k] == pytest.approx(ours[k], rel=rel, abs=0) for k in ours)


# --- what is drawn, and what is not -------------------------------------------------------------


def test_a_seed_names_its_weights_and_touches_no_global_state() -> None:
    trial = trial_of("adam")
    constants = calibrate(trial, 16)
    before = torch.random.get_rng_state()
    first = measure(trial, constants, 20, 5)
    torch.manual_seed(99)
    torch.random.set_rng_state(before)
    assert same(first, measure(trial, constants, 20, 5))
    assert torch.equal(before, torch.random.get_rng_state())
    assert not same(first, measure(trial, constants, 20, 6), rel=1e-3)


def test_samples_are_the_same_at_every_width_and_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []
    hidden = MLP.hidden
    monkeypatch.setattr(MLP, "hidden", lambda net, x: (seen.append(x.clone()), hidden(net, x))[1])
    trial = trial_of("sgd", data=load("digits", samples=4, probe=6))
    for width, seed in ((8, 0), (16, 0), (16, 1)):
        measure(trial, calibrate(trial, 8), width, seed)
    for x in seen:
        expected = trial.data.inputs if len(x) == 4 else trial.data.probe_inputs
        assert torch.equal(x, expected)
    assert {len(x) for x in seen} == {4, 6}


# --- calibration --------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", tour())
def test_calibration_sets_own_updates_and_dampings_at_the_base(rule: str) -> None:
    undecayed = [f"{decay}=0" for decay in catalogue()[rule].rule.decays]
    trial = trial_of(rule, *undecayed, data=load("digits"))
    found = measure(trial, calibrate(trial, 32), 32, 0)
    for name, x in found.sizes.items():
        assert x.own == pytest.approx(0.1, rel=1e-9), name
    once = rule not in ("kfac_pi", "kl_shampoo")  # under a root, or one acts on another's sum
    shares: dict[tuple[str, str], list[float]] = {}
    damped = damped_sums(trial.problem.rule)
    for (name, node), (other, damping) in found.sums.items():
        for symbol in dampings_in(damped[node][1]) if node in damped else ():
            shares.setdefault((name, symbol), []).append(damping / other)
    for place, ratios in shares.items():
        assert max(ratios) == pytest.approx(0.1, rel=1e-9 if once else 0.1), place
    dampings = len(trial.problem.rule.dampings)
    assert len(shares) == dampings * len(found.sizes)


def test_a_damping_that_is_given_is_taken_literally() -> None:
    trial = trial_of("kfac", "rho_A=0.25", "d_rho_A=1")
    constants = calibrate(trial, 16)
    assert {of["rho_A"] for of in constants.rho.values()} == {0.25}
    assert len({of["rho_B"] for of in constants.rho.values()}) == 3
    found = measure(trial, constants, 32, 0)
    sizes = {node: pair for (name, node), pair in found.sums.items() if name == "hidden"}
    assert {str(k): x for k, (_, x) in sizes.items()}["A + rho_A*I"] == 0.25 / 32


def test_sums_hold_the_sizes_of_their_two_terms() -> None:
    trial = trial_of("kfac")
    constants = calibrate(trial, 16)
    found = {(n, str(x)): pair for (n, x), pair in measure(trial, constants, 16, 0).sums.items()}
    x = trial.data.inputs.numpy()
    largest = np.linalg.norm(x.T @ x / len(x), 2)
    assert found["input", "A + rho_A*I"] == pytest.approx(
        (largest, constants.rho["input"]["rho_A"])
    )


# --- zeros and refusals -------------------------------------------------------------------------


def test_a_zero_output_layer_is_exactly_zero_and_moves_alone() -> None:
    trial = trial_of("sgd", "b_output=oo", "c_input=0", "c_hidden=0", "c_output=0")
    sizes = measure(trial, calibrate(trial, 16), 16, 0).sizes
    assert sizes["output"].init == 0
    assert [sizes[k].own for k in ("input", "hidden")] == [0, 0]
    assert [sizes[k].feature for k in ("input", "hidden")] == [0, 0]
    assert sizes["output"].own > 0
    assert sizes["output"].feature == pytest.approx(sizes["output"].own)


def test_a_width_beyond_the_memory_is_refused_before_anything_is_allocated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pages = {"SC_AVPHYS_PAGES": 1000, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr(os, "sysconf", pages.__getitem__)
    monkeypatch.setattr(dense_steps, "dense_network", lambda *_: pytest.fail("allocated"))
    check_memory(300, depth=3)
    with pytest.raises(
        InvalidInput, match=r"width 4,096(.|\n)*0\.0 GiB that are free(.|\n)*smaller"
    ):
        trial = trial_of("sgd")
        measure_once(trial.problem, trial.exponents, {}, 4096, 0, small(), "cpu")
    check_memory(4096, depth=2)  # no hidden matrix


def test_a_missing_gpu_is_refused_and_auto_does_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto") == pick_device("cpu") == "cpu"
    with pytest.raises(InvalidInput, match=r"--device cuda(.|\n)*do this: use --device cpu"):
        pick_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert (pick_device("auto"), pick_device("cpu"), pick_device("cuda")) == ("cuda", "cpu", "cuda")


def test_threads_are_restored_even_after_an_error() -> None:
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError), blas_threads(3):
        assert torch.get_num_threads() == 3
        raise ZeroDivisionError
    assert torch.get_num_threads() == before


def test_a_symbol_without_a_value_is_refused_with_the_option_that_gives_it() -> None:
    trial = trial_of("G*nu")
    with pytest.raises(InvalidInput, match=r"no value for 'nu'(.|\n)*--set nu="):
        measure_once(trial.problem, trial.exponents, {}, 8, 0, small(), "cpu")


def test_an_overflow_is_refused_with_its_place() -> None:
    trial = trial_of("sgd", "c_hidden=-150")
    constants = Constants(dict.fromkeys(trial.exponents.c, 1.0), {x: {} for x in trial.exponents.c})
    with pytest.raises(InvalidInput, match=r"hidden layer at width 64, seed 0\nneeded: finite"):
        measure(trial, constants, 64, 0)


@pytest.mark.parametrize("setting", ["c=-300", "b_hidden=-300"])
def test_an_exponent_beyond_floats_is_refused(setting: str) -> None:
    trial = trial_of("sgd", setting)
    with pytest.raises(InvalidInput, match=r"= -300 at width 64(.|\n)*beyond floating point"):
        calibrate(trial, 64)


# --- averages over networks, and what is handed out ---------------------------------------------


def test_a_mean_over_networks_is_the_geometric_mean_of_its_runs() -> None:
    trial = trial_of("kfac")
    constants = calibrate(trial, 8)
    found = measure_mean(measure, trial, constants, 8, 2, networks=3)
    runs = [measure(trial, constants, 8, 2 * MOST_NETWORKS + i) for i in range(3)]
    for name, x in found.sizes.items():
        for quantity, size in x.known().items():
            logs = [math.log(getattr(run.sizes[name], quantity)) for run in runs]
            expected = math.exp(float(np.mean(logs)))
            assert size == pytest.approx(expected), (name, quantity)


def test_the_mean_over_networks_does_not_move_the_mean_of_the_logs() -> None:
    trial = trial_of("G * norm(col_mean(G))", data=load("digits"))
    constants, networks = calibrate(trial, 16), MOST_NETWORKS
    many = [measure_mean(measure, trial, constants, 16, s, networks) for s in range(12)]
    single = [measure(trial, constants, 16, s) for s in range(12 * networks)]
    of_many, of_single = (
        np.mean([math.log(run.sizes["hidden"].own) for run in runs]) for runs in (many, single)
    )
    assert abs(of_many - of_single) < 0.25, (of_many, of_single)


def test_the_json_of_a_measurement_has_the_keys_of_the_interface() -> None:
    trial = trial_of("sgd")
    found = measure(trial, calibrate(trial, 8), 8, 0).as_json()
    assert {"rule", "width", "sizes", "seconds", "peak_mb"} <= set(found)
    sizes: Any = found["sizes"]
    assert list(sizes) == ["input", "hidden", "output"]
    assert {tuple(x) for x in sizes.values()} == {("init", "own", "feature")}
    assert found["rule"] == "sgd" and found["width"] == 8
    assert 0 < float(str(found["peak_mb"])) < 1e6 and float(str(found["seconds"])) > 0


def test_the_update_of_weight_decay_is_that_before_the_step() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 3, bias=False)).double()
    weight = model[0].weight.detach().clone()
    optimizer = RuleOptimizer(model, parse("W"), lr=0.5)
    torch.autograd.backward(model(torch.ones(4, 2).double()).square().mean())
    optimizer.step()
    assert torch.equal(optimizer.updates()["0"].dense(), weight)
